"""Batches of records into the tables, inside one transaction: judged by `edge_sync.ingest`, stored as it says."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import astuple
from sqlalchemy import Connection, bindparam, select, tuple_

from edge_hub.database.dialect import BulkInsert
from edge_hub.database.schema import records, streams
from edge_hub.facts import site_facts
from edge_hub.records import accounts, checkpoints, quarantine
from edge_hub.records.chain import held_hash
from edge_hub.records.stream import ASKED, Key, asked, of_stream, put_gap
from edge_sync.batch import Batch, Header
from edge_sync.checkpoint import LANE, is_checkpoint
from edge_sync.documents import Ack
from edge_sync.ingest import AckOnly, Fork, Prefix, Store, judge
from edge_sync.rows import Gap, Row, chain_start

log = logging.getLogger(__name__)

_INSERT_RECORDS = BulkInsert(records)
_MOVE_STREAMS = BulkInsert(streams, update=("high", "hash"))
_PREFIXES = (
    select(streams)
    .where(tuple_(streams.c.site, streams.c.epoch, streams.c.lane).in_(bindparam("keys", expanding=True)))
    .order_by(*streams.primary_key)
    .with_for_update()
)
_PREFIX = select(streams).where(of_stream(streams, ASKED)).with_for_update()
"""Of one stream, as most transactions need: a list is spelled out anew each time."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A decoded batch, the site it came from (its topic says so, not its payload), and its bytes."""

    site: str
    batch: Batch
    message: bytes

    @property
    def key(self) -> Key:
        """The stream it belongs to."""
        return (self.site, self.batch.header.epoch, self.batch.header.lane)


@dataclass(frozen=True, slots=True)
class Poison:
    """A batch that can't be decoded though its header can be read, why, and whether it may have been hurt on its way.

    Where it was not, its site sends the same again for ever, and nothing after it: it has to be skipped.
    """

    site: str
    header: Header
    message: bytes
    reason: str
    hurt: bool

    @property
    def key(self) -> Key:
        """The stream it belongs to."""
        return (self.site, self.header.epoch, self.header.lane)


QUARANTINED = "quarantined"
"""Reason of the gap that stands for a skipped batch."""


@dataclass(slots=True)
class Stored:
    """What came of a transaction's batches. `acks` may be sent once it is committed, not before."""

    acks: dict[Key, Ack] = field(default_factory=dict)
    rows: int = 0
    forks: int = 0
    poison: int = 0


def store_batches(db: Connection, arrived: Sequence[Arrived | Poison], now_us: int) -> Stored:
    """Store these batches, of any sites, in the order they came; each stream is acknowledged once."""
    keys = sorted({each.key for each in arrived})
    held = read_prefixes(db, keys)
    work = _Work(db, now_us, dict(held), Stored())
    for each in arrived:
        if isinstance(each, Poison):
            work.skip(each)
        else:
            work.take(each)
    work.flush()
    checkpoints.check(db, now_us, work.signed)
    moved = [(*k, p.high, p.hash, now_us, 0, 0, False, None) for k, p in work.prefixes.items() if held.get(k) != p]
    if moved:
        _MOVE_STREAMS(db, moved)
    for (site, epoch, lane), (last, reason) in work.forked.items():
        accounts.forked(db, site, epoch, lane, last, reason, now_us)
    for key, last in work.told.items():
        accounts.heard_of(db, key, last, now_us)
    return work.stored


def read_prefixes(db: Connection, keys: Iterable[Key]) -> dict[Key, Prefix]:
    """What is held of these streams, their rows locked in key order."""
    wanted = list(keys)
    found = db.execute(_PREFIX, asked(wanted[0])) if len(wanted) == 1 else db.execute(_PREFIXES, {"keys": wanted})
    return {(r.site, r.epoch, r.lane): Prefix(r.high, r.hash) for r in found}


@dataclass(slots=True)
class _Work:
    """One transaction's work. Rows are gathered and inserted together."""

    db: Connection
    now_us: int
    prefixes: dict[Key, Prefix]
    stored: Stored
    forked: dict[Key, tuple[int, str]] = field(default_factory=dict)
    told: dict[Key, int] = field(default_factory=dict)
    """Up to where there are records that could not be taken yet."""
    pending: list[tuple[object, ...]] = field(default_factory=list)
    signed: list[tuple[Key, Row]] = field(default_factory=list)
    """The checkpoints among them."""

    def take(self, arrived: Arrived) -> None:
        key = arrived.key
        prefix = self._prefix(key)
        verdict = judge(prefix, arrived.batch, self._hash_at(key))
        seq, fork = prefix.high, False
        match verdict:
            case Store():
                self._store(key, verdict)
                seq = verdict.prefix.high
            case Fork(reason):
                fork = True
                self.stored.forks += 1
                self.forked[key] = (arrived.batch.header.last, reason)
                quarantine.put(self.db, self.now_us, arrived.site, arrived.message, f"fork: {reason}")
            case AckOnly(high):
                seq = high
                if arrived.batch.header.last > high:
                    self.told[key] = max(self.told.get(key, 0), arrived.batch.header.last)
        self._ack(key, seq, fork)

    def skip(self, poison: Poison) -> None:
        """Keep it whole, and where it stands in the way, go on behind it. What may come unhurt is waited for once."""
        key, header = poison.key, poison.header
        self.stored.poison += 1
        times = quarantine.put(self.db, self.now_us, poison.site, poison.message, poison.reason)
        if times == 1:
            log.error("quarantined", extra={"site": poison.site, "document": "journal", "reason": poison.reason})
        high = self._prefix(key).high
        if header.first > high + 1 and not poison.hurt:
            self.told[key] = max(self.told.get(key, 0), header.last)
        if header.first > high + 1 or (poison.hurt and times == 1):
            return
        if header.last > high:
            put_gap(self.db, key, Gap(high + 1, header.last, QUARANTINED, header.after), self.now_us)
            high = header.last
            self.prefixes[key] = Prefix(high, header.after)
        self._ack(key, high)

    def _prefix(self, key: Key) -> Prefix:
        return self.prefixes.get(key) or Prefix(0, chain_start(*key[1:]))

    def _ack(self, key: Key, seq: int, fork: bool = False) -> None:
        forked = fork or (key in self.stored.acks and self.stored.acks[key].fork)
        self.stored.acks[key] = Ack.model_construct(epoch=key[1], lane=key[2], seq=seq, fork=forked)

    def flush(self) -> None:
        if self.pending:
            _INSERT_RECORDS(self.db, self.pending)
            self.pending = []

    def _store(self, key: Key, verdict: Store) -> None:
        now_us = self.now_us
        self.pending += [(*key, *astuple(row), row_hash, now_us) for row, row_hash in verdict.rows]
        self.stored.rows += len(verdict.rows)
        if key[2] == LANE:
            newest = [row for row, _ in verdict.rows if is_checkpoint(row)][-checkpoints.MAX_A_BATCH :]
            self.signed += [(key, row) for row in newest]
        for gap in verdict.gaps:
            put_gap(self.db, key, gap, now_us)
        if said := [row for row, _ in verdict.rows if row.kind == "fact"]:
            site_facts.note(self.db, now_us, key, said)
        self.prefixes[key] = verdict.prefix

    def _hash_at(self, key: Key) -> Callable[[int], bytes | None]:
        def hash_at(seq: int) -> bytes | None:
            self.flush()
            return held_hash(self.db, key, seq)

        return hash_at
