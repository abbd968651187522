"""What the journal holds for the hub: the next batch of a stream, the streams there are, the hub's cursors."""

import sqlite3
from dataclasses import dataclass

from edge_agent.memory.damage import is_damage
from edge_agent.memory.journal import last_of
from edge_agent.memory.schema import UNREADABLE, snapshot
from edge_models.errors import KitError
from edge_sync.batch import MAX_BATCH_BYTES, encode
from edge_sync.rows import EXPIRED, LANES, Gap, Lane, Row, chain, chain_start, row_bytes
from edge_sync.uplink import FULL_BATCH_ROWS, Stream

MAX_BATCH_RAW_BYTES = 1024 * 1024
"""Of rows before compression, so that one batch costs little memory at either end."""

_DROPPED = "dropped after the hub acknowledged it"
"""What a hub is told that asks again for what it had: it was restored from a backup, and here it is no more."""

_UNKNOWN = bytes(32)
"""Stands for the hash before a gap whose rows are gone: the hub does not compare it there."""


class DamagedError(KitError):
    """Rows of the journal are missing and no gap says so, or are not those that were written."""


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream of the journal: where it ends and what the hub has of it."""

    epoch: str
    order: int
    lane: Lane
    last: int
    acked: int
    trimmed: int
    forked: bool

    @property
    def stream(self) -> Stream:
        """Its key."""
        return (self.epoch, self.lane)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An encoded batch and the last sequence number in it."""

    message: bytes
    last: int


def streams(connection: sqlite3.Connection) -> list[StreamState]:
    """Every stream that has records, oldest epoch first."""
    found = []
    with snapshot(connection):
        cursors = {
            (epoch, lane): (acked, trimmed, bool(forked))
            for epoch, lane, acked, trimmed, forked in connection.execute(
                "SELECT epoch, lane, acked, trimmed, forked FROM cursors"
            )
        }
        for epoch, order, *lasts in connection.execute(
            "SELECT epoch, ord, alarm, decision, telemetry FROM epochs ORDER BY ord"
        ).fetchall():
            for lane, noted in zip(LANES, lasts, strict=True):
                last = noted or last_of(connection, epoch, lane)
                if last:
                    acked, trimmed, forked = cursors.get((epoch, lane), (0, 0, False))
                    found.append(StreamState(epoch, order, lane, last, acked, trimmed, forked))
    return found


def epochs(connection: sqlite3.Connection) -> dict[str, int]:
    """Every epoch that is held, also one without records, and its order; oldest first."""
    return dict(connection.execute("SELECT epoch, ord FROM epochs ORDER BY ord").fetchall())


def set_cursor(connection: sqlite3.Connection, stream: Stream, seq: int) -> None:
    """Note what the hub durably holds; call it inside a transaction of the writer."""
    connection.execute(
        "INSERT INTO cursors (epoch, lane, acked) VALUES (?, ?, ?)"
        " ON CONFLICT (epoch, lane) DO UPDATE SET acked=excluded.acked",
        (*stream, seq),
    )


def set_forked(connection: sqlite3.Connection, stream: Stream) -> None:
    """Note that the hub never takes the rest of a stream: its rows may go. Inside a transaction of the writer."""
    connection.execute(
        "INSERT INTO cursors (epoch, lane, forked) VALUES (?, ?, 1) ON CONFLICT (epoch, lane) DO UPDATE SET forked=1",
        stream,
    )


def read_batch(
    connection: sqlite3.Connection, stream: Stream, after: int, most: int = FULL_BATCH_ROWS
) -> Outgoing | None:
    """The batch that follows `after`, or None where nothing does. Raises `DamagedError`."""
    try:
        return _read(connection, stream, after, most)
    except UNREADABLE as error:
        if is_damage(error):
            raise DamagedError(f"journal {stream[0]}:{stream[1]}: can't be read after {after}: {error}") from None
        raise


def _read(connection: sqlite3.Connection, stream: Stream, after: int, most: int) -> Outgoing | None:
    with snapshot(connection):  # rows, gaps and hashes must agree, and the keeper drops rows meanwhile
        rows = connection.execute(
            "SELECT seq, at, kind, agent, subject, label, score, ref, body, hash FROM journal"
            " WHERE epoch=? AND lane=? AND seq>? ORDER BY seq LIMIT ?",
            (*stream, after, most),
        ).fetchall()
        while True:
            outgoing = _encode(connection, stream, after, rows)
            if outgoing is None or len(outgoing.message) <= MAX_BATCH_BYTES:
                return outgoing
            rows = rows[: max(1, len(rows) // 2)]


def _encode(
    connection: sqlite3.Connection, stream: Stream, after: int, rows: list[tuple[object, ...]]
) -> Outgoing | None:
    gaps = _gaps(connection, stream, after)
    raws: list[bytes] = []
    sent_gaps: list[Gap] = []
    before = hash_at(connection, stream, after)
    expected, size, at_hash = after + 1, 0, before or _UNKNOWN
    for *fields, row_hash in rows:
        row = Row(*fields)  # type: ignore[arg-type]
        while gaps and gaps[0].first == expected < row.seq:
            gap = gaps.pop(0)
            sent_gaps.append(gap)
            expected, at_hash = gap.last + 1, gap.hash
        if row.seq != expected:
            raise DamagedError(
                f"journal {stream[0]}:{stream[1]}: rows {expected} to {row.seq - 1} are gone and no gap says so"
            )
        raw = _raw(stream, row, at_hash, row_hash)
        size += len(raw)
        if raws and size > MAX_BATCH_RAW_BYTES:
            break
        raws.append(raw)
        expected, at_hash = row.seq + 1, row_hash  # type: ignore[assignment]
    else:
        while gaps and gaps[0].first == expected:
            gap = gaps.pop(0)
            sent_gaps.append(gap)
            expected, at_hash = gap.last + 1, gap.hash
    if expected == after + 1:
        return None
    ends = (before or _UNKNOWN, at_hash)
    return Outgoing(encode(*stream, raws, sent_gaps, (after + 1, expected - 1), ends), expected - 1)


def _raw(stream: Stream, row: Row, before: bytes, row_hash: object) -> bytes:
    """The row's exact bytes, which the hub will hash. Raises `DamagedError` where they are not what was written."""
    try:
        raw = row_bytes(row)
    except (TypeError, ValueError, OverflowError) as error:  # a value that no row ever had
        raise DamagedError(f"journal {stream[0]}:{stream[1]}: row {row.seq} is no row: {error}") from None
    if chain(before, raw) != row_hash:
        raise DamagedError(f"journal {stream[0]}:{stream[1]}: row {row.seq} is not what was written")
    return raw


def hash_at(connection: sqlite3.Connection, stream: Stream, seq: int) -> bytes | None:
    """The chain's hash at `seq`, None where it is not known any more."""
    if seq == 0:
        return chain_start(*stream)
    for query in (
        "SELECT hash FROM journal WHERE epoch=? AND lane=? AND seq=?",
        "SELECT hash FROM gaps WHERE epoch=? AND lane=? AND last=?",
        "SELECT trimmed_hash FROM cursors WHERE epoch=? AND lane=? AND trimmed=?",
    ):
        found = connection.execute(query, (*stream, seq)).fetchone()
        if found is not None:
            return bytes(found[0])
    return None


def _gaps(connection: sqlite3.Connection, stream: Stream, after: int) -> list[Gap]:
    """Declared gaps after `after`, the first cut to begin there; rows trimmed after their ack are one of them."""
    gaps = []
    trimmed = connection.execute(
        "SELECT trimmed, trimmed_hash FROM cursors WHERE epoch=? AND lane=? AND trimmed>?", (*stream, after)
    ).fetchone()
    if trimmed is not None:
        gaps.append(Gap(after + 1, trimmed[0], _DROPPED, bytes(trimmed[1])))
        after = trimmed[0]
    for first, last, reason, end_hash in connection.execute(
        "SELECT first, last, reason, hash FROM gaps WHERE epoch=? AND lane=? AND last>? ORDER BY first",
        (*stream, after),
    ):
        why = _DROPPED if reason == EXPIRED else reason
        gaps.append(Gap(max(first, after + 1), last, why, bytes(end_hash)))
    return gaps
