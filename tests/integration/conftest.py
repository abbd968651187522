"""Real processes: brokers, hubs, and sites that are not there, played by a link and a journal in memory."""

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import needed
import orjson
import pytest
from operator_desk import Operator

from edge_cli.hub_client import HubClient
from edge_hub.broker import BrokerFolder, BrokerProcess
from edge_sync.answers import opened
from edge_sync.batch import encode
from edge_sync.mqtt import Broker, Event, Link, Message, Up
from edge_sync.rows import Row, chain, chain_start, row_bytes

DEADLINE_S = 30.0


def wait_until(true: Callable[[], Any], what: str, seconds: float = DEADLINE_S) -> Any:
    """Wait for a condition, and return what it says."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.02)
    return value


@pytest.fixture
def until() -> Callable[..., Any]:
    """Waits for a condition: `until(condition, what_it_is)`."""
    return wait_until


class HubProcess:
    """`edge-agent hub serve` as a child. `kill` is kill -9."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._options = options
        self._log = folder.with_suffix(".log")
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> "HubProcess":
        """Start it, and wait until it is ready."""
        (self.folder / "hub.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "edge_cli.main", "hub", "serve", str(self.folder), "--http", "127.0.0.1:0"]
        with self._log.open("ab") as log:
            child = self._child = subprocess.Popen([*command, *self._options], stderr=log, stdin=subprocess.DEVNULL)
        wait_until(lambda: (self.folder / "hub.json").exists() or child.poll() is not None, "the hub to be ready")
        assert child.poll() is None, self.log()
        return self

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def log(self) -> str:
        """All it said."""
        return self._log.read_text()

    @property
    def facts(self) -> dict[str, Any]:
        """What it announces."""
        return dict(orjson.loads((self.folder / "hub.json").read_bytes()))

    def api(self, method: str, path: str, json: Any = None, body: Any = None) -> Any:
        """Ask it as its operator."""
        token = (self.folder / "operator.token").read_text().strip()
        return HubClient(self.facts["http"], token).request(method, path, json=json, body=body)

    @cached_property
    def operator(self) -> Operator:
        """Who signs what its sites may run; made when first asked for, and the hub has their metadata then."""
        return Operator.of_hub(self.folder.with_suffix(".trust"), self.api)

    def _end(self, how: signal.Signals) -> int:
        if self._child is None:
            return 0
        if self._child.poll() is None:
            os.kill(self._child.pid, how)
        code = self._child.wait(timeout=20)
        self._child = None
        return code


class PlayedSite:
    """A site as its hub sees it: says hello, sends batches, and notes what it is told."""

    def __init__(self, registration: dict[str, Any], folder: Path, *filters: tuple[str, int]) -> None:
        self.site: str = registration["site"]
        self._directors = (registration["director_key"],)
        self.heard: list[Message] = []
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        secret = folder / f"{self.site}.password"
        secret.write_text(registration["password"])
        broker = Broker(registration["broker_url"], self.site, self.site, secret, reconnect_max_s=1)
        wanted = [(f"edge/v1/{self.site}/down/#", 1), *filters]
        self.link = Link(broker, self._events.put, wanted)
        self.link.start()
        wait_until(self._look, "the site to be connected")

    def topic(self, what: str) -> str:
        """One of its own topics."""
        return f"edge/v1/{self.site}/up/{what}"

    def say(self, what: str, payload: bytes, retain: bool = False) -> None:
        """Publish, and wait until the broker has it."""
        wait_until(lambda: self.link.publish_and_wait(self.topic(what), payload, retain=retain), f"{what} to be taken")

    def told(self, what: str, seconds: float = DEADLINE_S) -> bytes:
        """The next message on one of its topics, taken out of what was heard."""
        topic = f"edge/v1/{self.site}/down/{what}"

        def found() -> Message | None:
            self._look()
            return next((message for message in self.heard if message.topic == topic), None)

        message: Message = wait_until(found, f"{what} for {self.site}", seconds)
        self.heard.remove(message)
        return opened(topic, message.payload, self._directors) if what in ("ack", "resume") else message.payload

    def everything(self) -> list[Message]:
        """All that was heard and not taken out."""
        self._look()
        return self.heard

    def _look(self) -> bool:
        up = False
        while not self._events.empty():
            event = self._events.get()
            up = up or isinstance(event, Up)
            if isinstance(event, Message):
                self.heard.append(event)
        return up


class Stream:
    """A site's epoch's lane: rows in a chain, and batches of them."""

    def __init__(self, epoch: str, lane: str = "decision") -> None:
        self.epoch, self.lane = epoch, lane
        self.raws: list[bytes] = []
        self.hashes = [chain_start(epoch, lane)]

    def grow(self, count: int, label: str = "ok") -> "Stream":
        """Write `count` more rows."""
        for seq in range(len(self.raws) + 1, len(self.raws) + count + 1):
            at = 1_700_000_000_000_000 + seq
            raw = row_bytes(Row(seq, at, "decision", "press", "press-1", label, 0.5, None, f'{{"n":{seq}}}'))
            self.raws.append(raw)
            self.hashes.append(chain(self.hashes[-1], raw))
        return self

    def batch(self, first: int, last: int) -> bytes:
        """The message for these rows."""
        ends = (self.hashes[first - 1], self.hashes[last])
        return encode(self.epoch, self.lane, self.raws[first - 1 : last], [], (first, last), ends)


@pytest.fixture
def stream() -> Callable[..., Stream]:
    """Makes streams."""
    return Stream


@pytest.fixture(params=["mosquitto", "amqtt"])
def broker_kind(request: pytest.FixtureRequest) -> str:
    """Each kind of broker that can run here."""
    if request.param == "mosquitto":
        needed.mosquitto()
    return str(request.param)


@pytest.fixture
def hub(tmp_path: Path, broker_kind: Any) -> Iterator[HubProcess]:
    """A hub process over a broker of each kind, which runs on when the hub is killed."""
    folder = tmp_path / "hub"
    with BrokerProcess(BrokerFolder(folder / "broker"), prefer=broker_kind) as broker:
        process = HubProcess(folder, "--broker", broker.url)
        try:
            yield process.start()
        finally:
            process.kill()


@pytest.fixture
def new_hub() -> Iterator[Callable[..., HubProcess]]:
    """Makes hubs that are not started yet, and ends them."""
    made: list[HubProcess] = []

    def make(folder: Path, *options: str) -> HubProcess:
        made.append(HubProcess(folder, *options))
        return made[-1]

    yield make
    for process in made:
        process.kill()


@pytest.fixture
def connect_site(tmp_path: Path) -> Iterator[Callable[[HubProcess, str], PlayedSite]]:
    """Registers sites at any hub and connects them."""
    played: list[PlayedSite] = []

    def register(hub: HubProcess, site: str) -> PlayedSite:
        played.append(PlayedSite(hub.api("POST", "/api/v1/sites", {"site": site, "labels": {}}), tmp_path))
        return played[-1]

    yield register
    for site in played:
        site.link.close()


@pytest.fixture
def play(hub: HubProcess, tmp_path: Path) -> Iterator[Callable[..., PlayedSite]]:
    """Registers sites at `hub` and connects them."""
    played: list[PlayedSite] = []

    def register(site: str, *filters: tuple[str, int]) -> PlayedSite:
        registration = hub.api("POST", "/api/v1/sites", {"site": site, "labels": {"kind": "factory"}})
        played.append(PlayedSite(registration, tmp_path, *filters))
        return played[-1]

    yield register
    for site in played:
        site.link.close()
