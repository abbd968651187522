"""A broker, a hub and sites as processes of their own, faults for them, and an oracle that trusts neither.

The oracle reads both databases with `sqlite3` and knows nothing of the code that wrote them: it hashes by itself.
"""

import hashlib
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import needed
import orjson
import pytest
import yaml
from operator_desk import Operator

from edge_cli.hub_client import HubClient
from edge_hub.broker import BrokerFolder, BrokerProcess
from edge_hub.broker.lifeline import die_with_parent
from edge_hub.broker.mosquitto import find_mosquitto
from edge_hub.broker.running import Running, note_running, process_born
from edge_models.errors import RetryableError
from edge_models.shipped import shipped_path

DEADLINE_S = 40.0
"""For what takes two seconds on an idle machine."""

POLICY = """
policy: everything-acts
version: 1
rules:
  - name: act
    when: prediction.score >= 0.0
    do: {tool: alert, with: {message: =prediction.label}}
"""


def wait_until(true: Callable[[], Any], what: Callable[[], str] | str, seconds: float = DEADLINE_S) -> Any:
    """Wait for a condition, and return what it says."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s in vain for {what if isinstance(what, str) else what()}")
        time.sleep(0.05)
    return value


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """What `edge-agent WORDS` says."""
    words = (sys.executable, "-m", "edge_cli.main", *words)
    return subprocess.run(words, capture_output=True, text=True, check=False)


def stands_still(value: Callable[[], Any], what: str, seconds: float = 1.5) -> Any:
    """Wait until a value has not changed for so long, and return it."""
    last, since = value(), time.monotonic()

    def still() -> bool:
        nonlocal last, since
        if (now := value()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > seconds

    wait_until(still, what)
    return last


def rows_of(database: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of a database that somebody else writes."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=5)) as db:
        return db.execute(query, values).fetchall()


def ask(database: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Its rows; none while it is being made, moved or put back."""
    try:
        return rows_of(database, query, *values)
    except sqlite3.OperationalError:
        return []


class Process:
    """A child that can be killed and begun again."""

    def __init__(self, name: str, log: Path, *words: str) -> None:
        self.name, self.words, self._log = name, list(words), log
        self.child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.child is not None, f"{self.name} does not run"
        return self.child.pid

    def begin(self) -> None:
        """Start it; it is not ready yet."""
        with self._log.open("ab") as log:
            self.child = subprocess.Popen(
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - only asks the kernel
            )

    def kill(self) -> None:
        """SIGKILL, by its pid."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM; it must end well."""
        code = self._end(signal.SIGTERM)
        assert code == 0, f"{self.name} ended with {code}: {self.log()[-2000:]}"

    def alive(self) -> bool:
        """Whether it runs."""
        return self.child is not None and self.child.poll() is None

    def log(self) -> str:
        """All it said."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _end(self, how: signal.Signals) -> int:
        child, self.child = self.child, None
        if child is None:
            return 0
        if child.poll() is None:
            os.kill(child.pid, how)
        try:
            return child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise


class Broker:
    """The broker that a hub brings along, on one port, its store taken away at each start: it has none."""

    name = "broker"

    def __init__(self, folder: BrokerFolder, kind: Any) -> None:
        self._folder, self.kind = folder, kind
        self._process: BrokerProcess | None = BrokerProcess(folder, prefer=kind)
        self.port = self._process.port
        self.url = self._process.url

    def begin(self) -> None:
        """Start it again where it was, and wait until it lets users in."""
        deadline = time.monotonic() + DEADLINE_S
        while self._process is None:
            try:
                self._process = BrokerProcess(self._folder, self.port, self.kind)
            except RetryableError:  # a busy machine
                assert time.monotonic() < deadline, (self._folder.path / "broker.log").read_text()

    def kill(self) -> None:
        """SIGKILL, by its pid."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.stop()
            self._process = None


class Mosquitto(Process):
    """A mosquitto with settings of a test's own, known to the hub as the one that runs on its folder."""

    def __init__(self, folder: Path, port: int, conf: Path) -> None:
        super().__init__("mosquitto", conf.with_suffix(".log"), find_mosquitto() or "mosquitto", "-c", str(conf))
        self._folder, self._port = folder, port

    def begin(self) -> None:
        super().begin()
        note_running(self._folder, Running("mosquitto", self._port, self.pid, process_born(self.pid)))
        wait_until(self._listens, lambda: f"mosquitto to listen; it says: {self.log()}")

    def _listens(self) -> bool:
        assert self.alive(), self.log()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


class Hub(Process):
    """`edge-agent hub serve` over that broker."""

    def __init__(self, folder: Path, broker: str) -> None:
        words = ("hub", "serve", str(folder), "--http", "127.0.0.1:0", "--broker", broker)
        super().__init__("hub", folder.with_suffix(".log"), sys.executable, "-m", "edge_cli.main", *words)
        self.folder, self.database = folder, folder / "hub.db"

    def begin(self) -> None:
        (self.folder / "hub.json").unlink(missing_ok=True)
        super().begin()

    def ready(self) -> bool:
        """Whether it has announced itself; a hub that ended by itself fails the test."""
        assert self.alive(), self.log()[-3000:]
        return (self.folder / "hub.json").exists()

    def api(self, method: str, path: str, json: Any = None) -> Any:
        """Ask it as its operator."""
        facts = orjson.loads((self.folder / "hub.json").read_bytes())
        token = (self.folder / "operator.token").read_text().strip()
        return HubClient(facts["http"], token).request(method, path, json=json)

    @cached_property
    def operator(self) -> Operator:
        """Who signs what its sites may run; made when first asked for, and the hub has their metadata then."""
        return Operator.of_hub(self.folder.with_suffix(".trust"), self.api)

    def held(self, site: str) -> int:
        """The sum of what is held without a hole."""
        [(held,)] = ask(self.database, "SELECT coalesce(sum(high), 0) FROM streams WHERE site=?", site) or [(0,)]
        return int(held)

    def highs(self, site: str) -> dict[tuple[str, str], int]:
        """Up to where each stream is held."""
        rows = ask(self.database, "SELECT epoch, lane, high FROM streams WHERE site=?", site)
        return {(epoch, lane): high for epoch, lane, high in rows}


class Site(Process):
    """`edge-agent run`, with one agent that decides and acts all the time, or (`quiet`) with none."""

    def __init__(self, folder: Path, settings: dict[str, Any], data: Path | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.site: str = settings["site"]
        self.folder, self.data = folder, data or folder / "data"
        self.file, self.quiet_file = folder / "site.yaml", folder / "quiet.yaml"
        self.settings = settings | {"data": str(self.data)}
        self.file.write_text(yaml.safe_dump(self.settings))
        self.quiet_file.write_text(yaml.safe_dump(self.settings | {"agents": []}))
        self.before: tuple[str, ...] = ()
        """What stands before its command, as of the next `quiet`."""
        super().__init__(folder.name, folder.with_suffix(".log"))
        self.quiet(False)

    @property
    def memory(self) -> Path:
        return self.data / "memory.db"

    def quiet(self, quiet: bool) -> "Site":
        """What the next start runs."""
        file = self.quiet_file if quiet else self.file
        self.words = [*self.before, sys.executable, "-m", "edge_cli.main", "run", str(file)]
        return self

    def decided(self) -> int:
        """The place of the newest durable decision in its journal."""
        query = "SELECT id FROM journal WHERE kind='decision' ORDER BY id DESC LIMIT 1"
        [(newest,)] = ask(self.memory, query) or [(0,)]
        return int(newest)

    def starts(self) -> int:
        """How often it came up."""
        [(count,)] = ask(self.memory, "SELECT count(*) FROM journal WHERE label='started'") or [(0,)]
        return int(count)

    def has_started(self, before: int) -> bool:
        """Whether it came up since it had `before` times."""
        return self.starts() > before

    def lasts(self) -> dict[tuple[str, str], int]:
        """The end of each stream that is on its disk."""
        rows = ask(self.memory, "SELECT epoch, lane, max(seq) FROM journal GROUP BY epoch, lane")
        return {(epoch, lane): last for epoch, lane, last in rows}

    def acked(self) -> dict[tuple[str, str], int]:
        """What it believes the hub to have."""
        rows = ask(self.memory, "SELECT epoch, lane, acked FROM cursors")
        return {(epoch, lane): acked for epoch, lane, acked in rows}


class World:
    """One broker, one hub, and the sites there are; all of them end with the test."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self.brokers = BrokerFolder(folder / "hub" / "broker")
        self.broker = Broker(self.brokers, kind)
        self.hub = Hub(folder / "hub", self.broker.url)
        self.sites: list[Site] = []

    def begin(self) -> None:
        """Start the hub; the broker runs already."""
        self.hub.begin()
        wait_until(self.hub.ready, "the hub to be ready")

    def settings(self, name: str, rate_per_s: int = 100, **hub: Any) -> dict[str, Any]:
        """Register a site and return its site file. `hub`: other keys for its link."""
        answer = self.hub.api("POST", "/api/v1/sites", {"site": name, "labels": {}})
        password = self.folder / f"{name}.password"
        password.write_text(answer["password"])
        policy = self.folder / "policy.yaml"
        policy.write_text(POLICY)
        trace = str(shipped_path("trace", "2"))
        agent = {
            "name": "watch",
            "bundle": trace,
            "policy": str(policy),
            "source": {"kind": "replay", "file": trace, "rate_per_s": rate_per_s, "repeat": True},
            "grants": ["alert"],
            "valid_for_s": 600,
        }
        link = {
            "broker": self.broker.url,
            "username": name,
            "password_file": str(password),
            "root": str(self.hub.operator.root_file),
            "reconnect_max_s": 1,
        }
        return {
            "site": name,
            "release": 1,
            "grants": ["alert"],
            "api": None,
            "agents": [agent],
            "hub": link | hub,
        }

    def add(self, settings: dict[str, Any], folder: str | None = None, data: Path | None = None) -> Site:
        """A site that is not started yet."""
        self.sites.append(Site(self.folder / (folder or settings["site"]), settings, data))
        return self.sites[-1]

    def runs(self, site: Site) -> None:
        """Wait until a site decides, and what it decides arrives."""
        wait_until(self.hub.ready, "the hub to be ready")
        decided, held = site.decided(), self.hub.held(site.site)

        def goes_on() -> bool:
            assert site.alive(), site.log()[-3000:]
            return site.decided() > decided and self.hub.held(site.site) > held

        wait_until(goes_on, lambda: f"decisions to be made and to arrive; the site says: {site.log()[-2000:]}")

    def settle(self, *sites: Site) -> None:
        """Let the processes of a site decide once more (so that open intents settle), stop and drain each; then the
        hub is killed, and the oracle looks."""
        for site in sites:
            if not site.alive():
                site.quiet(False).begin()
            self.runs(site)
            site.stop()
            for _ in range(3):  # a stop waits only some seconds for the last ack
                if self._drained(site):
                    break
                starts = site.starts()
                site.quiet(True).begin()
                wait_until(partial(site.has_started, starts), f"{site.name} to start")
                wait_until(partial(self._drained, site), partial(self._left, site), 60)
                site.stop()
        said = self.hub.api("GET", f"/api/v1/sites/{sites[0].site}")
        assert said["quarantined"] == 0
        assert said["unknown"] == 0
        assert said["lost"] == 0
        self.hub.kill()  # what it has not committed is not there
        wrong = violations([site.memory for site in sites], self.hub.database, sites[0].site)
        assert wrong == [], "\n".join(wrong[:20])
        for site in sites:
            verified = command("memory", "verify", "-m", str(site.file))
            assert verified.returncode == 0, verified.stdout + verified.stderr

    def ask_hub(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the hub's database."""
        return ask(self.hub.database, query, *values)

    def records(self, site: Site, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a site's database."""
        return ask(site.memory, query, *values)

    def end(self) -> None:
        """Kill whatever runs."""
        for process in (*self.sites, self.hub):
            process.kill()
        self.broker.kill()

    def _drained(self, site: Site) -> bool:
        highs, lasts = self.hub.highs(site.site), site.lasts()
        return bool(lasts) and all(highs.get(stream, 0) >= last for stream, last in lasts.items())

    def _left(self, site: Site) -> str:
        highs = self.hub.highs(site.site)
        left = {stream: (highs.get(stream, 0), last) for stream, last in site.lasts().items()}
        left = {stream: ends for stream, ends in left.items() if ends[0] < ends[1]}
        said = f"hub: {self.hub.log()[-1500:]}\nsite: {site.log()[-1500:]}"
        return f"the hub to have all of {site.site}; it lacks (held, written) {left}\n{said}"


class Held(NamedTuple):
    """A record, without its place."""

    at: int
    kind: str
    agent: str
    subject: str | None
    label: str | None
    score: float | None
    ref: str | None
    body: str
    hash: bytes


_COLUMNS = "epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash"


def violations(disks: Sequence[Path], hub: Path, site: str) -> list[str]:
    """What contradicts "every record of these disks is at the hub once, and none was given up".

    All processes must be down: both sides are then what their files say.
    """
    found = [f"{disk}: {what}" for disk in disks for what in _acts(disk)]
    journals = [_records(rows_of(disk, f"SELECT {_COLUMNS} FROM journal")) for disk in disks]
    rows = rows_of(hub, f"SELECT {_COLUMNS} FROM records WHERE site=?", site)
    held = _records(rows)
    found += [] if len(rows) == len(held) else ["the hub holds a record twice"]
    for gaps in (rows_of(each, "SELECT epoch, lane, first, last, reason FROM gaps") for each in (hub, *disks)):
        found += [f"given up: {gap}" for gap in gaps]
    for journal in journals:
        found += [f"lost: {place}" for place in sorted(journal.keys() - held.keys())]
        both = sorted(journal.keys() & held.keys())
        found += [f"not the same at the hub: {place}" for place in both if journal[place] != held[place]]
    found += [f"held at the hub, written by nobody: {place}" for place in sorted(held.keys() - set().union(*journals))]
    return [*found, *_streams(hub, site, held)]


def _records(rows: Sequence[tuple[Any, ...]]) -> dict[tuple[str, str, int], Held]:
    return {row[:3]: Held(*row[3:]) for row in rows}


def _streams(hub: Path, site: str, held: dict[tuple[str, str, int], Held]) -> Iterator[str]:
    """Each stream at the hub: 1 to `high` without a hole, nothing beyond, and a chain that is what its rows say."""
    streams = rows_of(hub, "SELECT epoch, lane, high, hash, forked FROM streams WHERE site=?", site)
    places = Counter(place[:2] for place in held)
    yield from (f"records of no stream: {each}" for each in places.keys() - {row[:2] for row in streams})
    for epoch, lane, high, end, forked in streams:
        digest = hashlib.sha256(f"edge/v1 {epoch} {lane}".encode()).digest()
        for seq in range(1, high + 1):
            if (record := held.get((epoch, lane, seq))) is None:
                yield f"a hole at the hub: {epoch}:{lane}:{seq} of {high}"
                break
            digest = hashlib.sha256(digest + msgspec.msgpack.encode([seq, *record[:-1]])).digest()
            if digest != record.hash:
                yield f"the chain breaks at the hub: {epoch}:{lane}:{seq}"
                break
        else:
            if places[(epoch, lane)] != high:
                yield f"beyond high: {epoch}:{lane} ends at {high} and has {places[(epoch, lane)]} records"
            if digest != end:
                yield f"the hub's end of the chain is another: {epoch}:{lane}:{high}"
        if forked:
            yield f"forked: {epoch}:{lane}"


def _acts(disk: Path) -> Iterator[str]:
    """Every decision to act has one action, or an open intent and none."""
    decided = {
        f"{epoch}:{lane}:{seq}"
        for epoch, lane, seq, body in rows_of(disk, "SELECT epoch, lane, seq, body FROM journal WHERE kind='decision'")
        if orjson.loads(body).get("do")
    }
    acted = Counter(ref for (ref,) in rows_of(disk, "SELECT ref FROM journal WHERE kind='action'"))
    meant = {decision for (decision,) in rows_of(disk, "SELECT decision FROM intents")}
    if not decided:
        yield "nothing was decided: this proves nothing"
    yield from (f"decided, and neither done nor open: {each}" for each in sorted(decided - acted.keys() - meant))
    yield from (f"done, and still open: {each}" for each in sorted(acted.keys() & meant))
    yield from (f"recorded as done {times} times: {each}" for each, times in acted.items() if times > 1)


@pytest.fixture(params=["mosquitto", "amqtt"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A broker of each kind and a hub, running."""
    kind = request.param
    if kind == "mosquitto":
        needed.mosquitto()
    made = World(tmp_path, kind)
    try:
        made.begin()
        yield made
    finally:
        made.end()


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Draws of this test's own: the same in each run, or those of EDGE_CHAOS_SEED. A failure shows the seed."""
    seed = os.environ.get("EDGE_CHAOS_SEED", request.node.name)
    print(f"EDGE_CHAOS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def still() -> Callable[..., Any]:
    """Waits until a value no longer changes, and returns it: `still(value, what_it_is, for_seconds)`."""
    return stands_still


@pytest.fixture
def other_mosquitto(world: World) -> Iterator[Callable[[str], Process]]:
    """Runs a mosquitto with other settings (made from the text of the hub's own) in place of the world's broker."""
    made: list[Process] = []

    def make(settings: str) -> Process:
        world.broker.kill()
        conf = world.folder / "other.conf"
        conf.write_text(settings)
        made.append(Mosquitto(world.brokers.path, world.broker.port, conf))
        made[-1].begin()
        return made[-1]

    yield make
    for process in made:
        process.kill()


@pytest.fixture
def oracle() -> Callable[[list[Path], Path, str], list[str]]:
    """What compares the disks of a site with the hub's database."""
    return violations
