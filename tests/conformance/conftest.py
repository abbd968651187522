"""A hub's database of each kind, an ingest over it, and streams as sites write them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from edge_hub.database.dialect import Database
from edge_hub.database.schema import records, sites, streams
from edge_hub.database.store import Store
from edge_hub.ingest.inbox import Heard, Inbox
from edge_hub.ingest.thread import Ingest, Outgoing
from edge_hub.metrics import Metrics
from edge_hub.records import audit
from edge_sync.batch import encode
from edge_sync.documents import Ack, load
from edge_sync.rows import Gap, Row, chain, chain_start, row_bytes

NOW = 1_800_000_000_000_000
SITES = tuple(f"plant-{n:02}" for n in range(1, 9))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Where a database of each kind may be made."""
    if request.param == "sqlite":
        return tmp_path / "hub.db"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    """A hub's database with `SITES` registered; its audit chain holds in the end."""
    opened = Store(database)
    with opened.writing() as db:
        for name in SITES:
            db.execute(sites.insert().values(site=name, labels={}, created_us=1, online=False))
    yield opened
    with opened.reading() as db:
        assert audit.verify(db) is None
    opened.close()


@dataclass
class Desk:
    """An ingest, and what it said with what other connections could see at that moment."""

    store: Store
    metrics: Metrics = field(default_factory=Metrics)
    inbox: Inbox = field(default_factory=Inbox)
    said: list[tuple[str, bytes]] = field(default_factory=list)
    desired: list[str | None] = field(default_factory=list)
    visible: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        outgoing = Outgoing(self._publish, lambda *what: self.desired.append(what[-1]), lambda site: None)
        self.ingest = Ingest(self.store, self.inbox, self.metrics, outgoing, lambda: NOW)

    def hear(self, *payloads: bytes, site: str = "plant-01", what: str = "journal") -> None:
        """Messages of a site, waiting together."""
        self.ingest.handle([Heard(site, what, each) for each in payloads])

    def acks(self) -> list[tuple[str, int, bool]]:
        """Site, seq and fork of each ack since the last look."""
        acks = [(topic.split("/")[2], load(Ack, payload)) for topic, payload in self.said if topic.endswith("/ack")]
        self.said.clear()
        return [(site, ack.seq, ack.fork) for site, ack in acks]

    def count(self, table: Any) -> int:
        """Rows of a table."""
        with self.store.reading() as db:
            return int(db.scalar(select(func.count()).select_from(table)) or 0)

    def highs(self) -> dict[tuple[str, str, str], int]:
        """Where each stream is."""
        with self.store.reading() as db:
            return {(row.site, row.epoch, row.lane): row.high for row in db.execute(select(streams))}

    def _publish(self, topic: str, payload: bytes) -> None:
        self.said.append((topic, payload))
        self.visible.append(self.count(records))


@pytest.fixture
def desk(store: Store) -> Desk:
    """An ingest without its thread."""
    return Desk(store)


@pytest.fixture
def new_desk() -> type[Desk]:
    """Makes desks."""
    return Desk


class Stream:
    """A site's epoch's lane: rows in a chain, and batches of them."""

    def __init__(self, epoch: str = "00000000000000aa", lane: str = "decision") -> None:
        self.epoch, self.lane = epoch, lane
        self.raws: list[bytes] = []
        self.hashes = [chain_start(epoch, lane)]

    def grow(self, count: int, **changed: Any) -> "Stream":
        """Write `count` more rows, all alike but for their numbers and what is `changed`."""
        for seq in range(len(self.raws) + 1, len(self.raws) + count + 1):
            fields: dict[str, Any] = {"at": NOW + seq, "kind": "decision", "agent": "press", "subject": None}
            fields |= {"label": "ok", "score": 0.5, "ref": None, "body": f'{{"n":{seq}}}'} | changed
            raw = row_bytes(Row(seq=seq, **fields))
            self.raws.append(raw)
            self.hashes.append(chain(self.hashes[-1], raw))
        return self

    def batch(self, first: int, last: int) -> bytes:
        """The message for these rows."""
        ends = (self.hashes[first - 1], self.hashes[last])
        return encode(self.epoch, self.lane, self.raws[first - 1 : last], [], (first, last), ends)

    def with_gap(self, first: int, last: int, until: int, reason: str = "evicted") -> bytes:
        """A message that begins with the gap `first` to `last` and goes on with rows up to `until`."""
        gap = Gap(first, last, reason, self.hashes[last])
        ends = (bytes(32), self.hashes[until])
        return encode(self.epoch, self.lane, self.raws[last:until], [gap], (first, until), ends)

    def poison(self, first: int, last: int) -> bytes:
        """A message in which a bit was turned at its site, before its bytes were summed: its rows break the chain."""
        wrong = [*self.raws[first - 1 : last - 1], self.raws[last - 1].replace(b"press", b"presz")]
        return encode(self.epoch, self.lane, wrong, [], (first, last), (self.hashes[first - 1], self.hashes[last]))


@pytest.fixture
def stream() -> Callable[..., Stream]:
    """Makes streams."""
    return Stream
