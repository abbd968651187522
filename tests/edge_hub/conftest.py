"""Real brokers, real connections."""

import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import needed
import pytest

from edge_hub.broker import BrokerFolder, BrokerProcess
from edge_hub.database.store import Store
from edge_sync.batch import encode
from edge_sync.mqtt import Broker, Down, Event, Link, Message, Up, Will
from edge_sync.rows import Gap, Row, chain, chain_start, row_bytes

DEADLINE_S = 20.0


class Client:
    """A connection that keeps what it hears."""

    def __init__(self, link: Link, heard: "queue.SimpleQueue[Event]") -> None:
        self.link, self._heard = link, heard

    def answer(self) -> Event:
        """The first thing that happened to the connection."""
        return self._next(lambda event: isinstance(event, Up | Down))

    def up(self) -> "Client":
        """Wait until connected and subscribed; a broker that has not read its users yet may refuse at first."""
        self._next(lambda event: isinstance(event, Up))
        return self

    def down(self) -> None:
        """Wait until the connection is gone."""
        self._next(lambda event: isinstance(event, Down))

    def message(self, topic: str | None = None) -> Message:
        """The next message, or the next on one topic."""
        event = self._next(lambda e: isinstance(e, Message) and topic in (None, e.topic))
        assert isinstance(event, Message)
        return event

    def say(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> None:
        """Publish, and wait until the broker has it."""
        assert self.link.publish_and_wait(topic, payload, qos, retain)

    def _next(self, wanted: Callable[[Event], bool]) -> Event:
        until = time.monotonic() + DEADLINE_S
        while True:
            event = self._heard.get(timeout=max(0.0, until - time.monotonic()))
            if wanted(event):
                return event


@pytest.fixture(params=["mosquitto", "amqtt"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of broker that can run here."""
    if request.param == "mosquitto":
        needed.mosquitto()
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> BrokerFolder:
    """An empty broker folder."""
    return BrokerFolder(tmp_path / "broker")


@pytest.fixture
def broker(folder: BrokerFolder, kind: Any) -> Iterator[BrokerProcess]:
    """A broker that runs on `folder`."""
    with BrokerProcess(folder, prefer=kind) as process:
        yield process


@pytest.fixture
def connect(broker: BrokerProcess, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Opens connections to `broker`, and closes them in the end."""
    links: list[Link] = []

    def open_link(
        user: str, password: str, *filters: str, client_id: str | None = None, will: Will | None = None
    ) -> Client:
        secret = tmp_path / f"{user}-{len(links)}.password"
        secret.write_text(password)
        heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
        address = Broker(broker.url, client_id or user, user, secret, reconnect_max_s=1)
        asked = None if will is None else lambda: will
        link = Link(address, heard.put, [(each, 1) for each in filters], asked)
        links.append(link)
        link.start()
        return Client(link, heard)

    yield open_link
    for link in links:
        link.close()


class Stream:
    """A site's epoch's lane as a site writes it: rows in a chain, and batches of them."""

    def __init__(self, epoch: str = "00000000000000aa", lane: str = "decision", start: bytes | None = None) -> None:
        self.epoch, self.lane = epoch, lane
        self.raws: list[bytes] = []
        self.hashes = [start or chain_start(epoch, lane)]

    def grow(self, count: int, **changed: Any) -> "Stream":
        """Write `count` more rows, all alike but for their numbers and what is `changed`."""
        for seq in range(len(self.raws) + 1, len(self.raws) + count + 1):
            fields: dict[str, Any] = {
                "at": 1_700_000_000_000_000 + seq,
                "kind": "decision",
                "agent": "press",
                "subject": None,
            }
            fields |= {"label": "ok", "score": 0.5, "ref": None, "body": f'{{"n":{seq}}}'} | changed
            raw = row_bytes(Row(seq=seq, **fields | changed))
            self.raws.append(raw)
            self.hashes.append(chain(self.hashes[-1], raw))
        return self

    def batch(self, first: int, last: int) -> bytes:
        """The message for these rows."""
        ends = (self.hashes[first - 1], self.hashes[last])
        return encode(self.epoch, self.lane, self.raws[first - 1 : last], [], (first, last), ends)

    def with_gap(self, first: int, last: int, reason: str, until: int) -> bytes:
        """A message that begins with the gap `first` to `last` and goes on with rows up to `until`."""
        gap = Gap(first, last, reason, self.hashes[last])
        ends = (bytes(32), self.hashes[until])
        return encode(self.epoch, self.lane, self.raws[last:until], [gap], (first, until), ends)


@pytest.fixture
def stream() -> Callable[..., Stream]:
    """Makes streams."""
    return Stream


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty hub database of each kind."""
    opened = Store(tmp_path / "hub.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    yield opened
    opened.close()
