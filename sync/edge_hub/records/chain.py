"""Whether what the hub holds of a site is what the site wrote: every hash from the record's own bytes, every gap.

Reads a slice of a stream in a transaction of its own, so that no reader stands for long before SQLite's log. What is
let go meanwhile (expired, erased) has its gap by the next slice.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, literal_column, select, tuple_

from edge_hub.database.schema import epochs, gaps, records, streams
from edge_hub.database.store import Store
from edge_hub.records.registry import row_of
from edge_hub.records.stream import ASKED, Key, asked, of_stream
from edge_sync.checkpoint import LANE, is_checkpoint
from edge_sync.rows import Gap, Row
from edge_sync.walk import Finding, Findings, Held, Signed, Walk, as_hash

SLICE_ROWS = 2_000

_NO_NUMBER = 2**53
"""No record has it, nor a larger one; and text, which SQLite would keep in this column too, counts as larger."""

_HASH: ColumnElement[Any] = literal_column("hash")
"""As the database has it: what is no hash is a finding, not an error."""

_ROW: tuple[ColumnElement[Any], ...] = (
    records.c.seq, records.c.at, records.c.kind, records.c.agent, records.c.subject, records.c.label, records.c.score,
    records.c.ref, records.c.body, _HASH,
)  # fmt: skip

_HASH_AT = select(_HASH).select_from(records).where(of_stream(records, ASKED), records.c.seq == bindparam("number"))
_GAP_AT = (
    select(gaps.c.last, _HASH)
    .where(of_stream(gaps, ASKED), gaps.c.first <= bindparam("number"))
    .order_by(gaps.c.first.desc())
    .limit(1)
)
"""Made once: these are asked for every end that a checkpoint names."""


@dataclass(frozen=True, slots=True)
class HeldStream:
    """A stream as it is held here: `rows` records, and `lost` numbers in gaps, up to `high`, where `hash` is noted."""

    epoch: str
    lane: str
    high: int
    hash: bytes
    rows: int
    lost: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and what was found."""

    streams: tuple[HeldStream, ...]
    checkpoints: int
    findings: tuple[Finding, ...]


def verify_site(store: Store, site: str) -> Report:
    """Walk every stream of the site. Raises `UnknownError` where there is no such site."""
    found = Findings()
    with store.reading() as db:
        journal_key = row_of(db, site).journal_key
        listed = _listed(db, site)
        for epoch, lane, seq in _strays(db, site, set(listed)):
            found.add(epoch, lane, seq, "records are held of a stream that this hub has not heard of")
    signed = Signed(site, journal_key, found)
    held = [_follow(store, site, stream, signed, found) for stream in listed]
    signed.finish()
    return Report(tuple(held), signed.count, found.all())


def held_hash(db: Connection, key: Key, seq: int) -> bytes | None:
    """The chain's hash at a number of a stream, where a record or the end of a gap is held."""
    where = {**asked(key), "number": seq}
    row = db.execute(_HASH_AT, where).first()
    if row is not None:
        return as_hash(row[0])
    gap = db.execute(_GAP_AT, where).first()
    return as_hash(gap[1]) if gap is not None and gap[0] == seq else None


def _listed(db: Connection, site: str) -> list[tuple[str, str]]:
    """The site's streams, in the order in which the hub first heard of their epochs."""
    join = (epochs.c.site == streams.c.site) & (epochs.c.epoch == streams.c.epoch)
    since = func.min(streams.c.since_us).over(partition_by=streams.c.epoch)
    query = (
        select(streams.c.epoch, streams.c.lane)
        .select_from(streams.outerjoin(epochs, join))
        .where(streams.c.site == site)
        .order_by(func.coalesce(epochs.c.since_us, since), epochs.c.ord, streams.c.epoch, streams.c.lane)
    )
    return [(row.epoch, row.lane) for row in db.execute(query)]


def _strays(db: Connection, site: str, known: set[tuple[str, str]]) -> Iterator[tuple[str, str, int]]:
    """Streams of which there are records and no end, found by leaps from one to the next; and their first number."""
    at, key = ("", ""), tuple_(records.c.epoch, records.c.lane)
    ordered = select(records.c.epoch, records.c.lane, records.c.seq).order_by(*records.primary_key).limit(1)
    while row := db.execute(ordered.where(records.c.site == site, key > at)).first():
        at = (row.epoch, row.lane)
        if at not in known:
            yield row.epoch, row.lane, row.seq


def _follow(store: Store, site: str, stream: tuple[str, str], signed: Signed, found: Findings) -> HeldStream:
    """Walk one stream to its end, as that is when the last slice is read."""
    walk, ended = Walk(*stream, found), False
    mine = of_stream(streams, (site, *stream))
    high, high_hash = 0, b""
    while not ended:
        with store.reading() as db, _tolerant(db):
            end = db.execute(select(streams.c.high, _HASH).where(mine)).first()
            high, high_hash = (0, b"") if end is None else (end[0], as_hash(end[1]))
            rows = _rows(db, site, stream, walk.seq)
            ended = len(rows) < SLICE_ROWS
            holes = _gaps(db, site, stream, walk.seq, _NO_NUMBER if ended else rows[-1][0].seq)
            walk.through(rows, holes, high if ended else None)
            for row in (row for row, _ in rows if stream[1] == LANE and is_checkpoint(row)):
                signed.look(*stream, row, lambda epoch, lane, seq: Held(held_hash(db, (site, epoch, lane), seq)))
    if walk.seq > high:
        found.add(*stream, high + 1, f"rows {high + 1} to {walk.seq} are held, and the stream's end is noted at {high}")
    elif walk.seq == high and walk.hash != high_hash:
        found.add(*stream, high, "the hash noted for the stream's end is not that of its last row or gap")
    return HeldStream(*stream, high, high_hash, walk.rows, walk.lost)


def _rows(db: Connection, site: str, stream: tuple[str, str], after: int) -> list[tuple[Row, Any]]:
    mine = of_stream(records, (site, *stream))
    query = select(*_ROW).select_from(records).where(mine, records.c.seq > after, records.c.seq < _NO_NUMBER)
    return [
        (Row(*fields), row_hash) for *fields, row_hash in db.execute(query.order_by(records.c.seq).limit(SLICE_ROWS))
    ]


def _gaps(db: Connection, site: str, stream: tuple[str, str], after: int, until: int) -> Sequence[Gap]:
    """Gaps that end behind `after` and begin up to `until`."""
    mine = of_stream(gaps, (site, *stream))
    query = select(gaps.c.first, gaps.c.last, gaps.c.reason, _HASH).where(
        mine, gaps.c.last > after, gaps.c.last < _NO_NUMBER, gaps.c.first <= until
    )
    return [Gap(first, last, why, as_hash(end)) for first, last, why, end in db.execute(query.order_by(gaps.c.first))]


@contextlib.contextmanager
def _tolerant(db: Connection) -> Iterator[None]:
    """SQLite keeps text that is no text: it is given as bytes, for the row's hash to tell, instead of an error."""
    connection: Any = db.connection.driver_connection
    if db.dialect.name != "sqlite":
        yield
        return
    connection.text_factory = _text
    try:
        yield
    finally:
        connection.text_factory = str


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
