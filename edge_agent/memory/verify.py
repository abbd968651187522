"""Whether the journal is what was written: the file, every row's hash, every stream without a hole, what was signed.

Reads in slices, each from one state of the file, so that a running site can fold its WAL between them. What is dropped
or written meanwhile is met in the next slice, with the gap that says so.
"""

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edge_agent.memory.journal import NO_NUMBER, last_of
from edge_agent.memory.outbox import StreamState, hash_at, streams
from edge_agent.memory.schema import READ_LIMIT_S, SLICE_ROWS, UNREADABLE, snapshot
from edge_sync.checkpoint import LANE, is_checkpoint
from edge_sync.rows import Gap, Row
from edge_sync.walk import Finding, Findings, Held, Signed, Walk, as_hash

__all__ = ["Finding", "Report", "damage", "verify"]

_LOOK_STEPS = 1_000
"""Of SQLite's machine, between two looks at the clock: well under a millisecond."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and what was found. `evicted` counts rows that are not here and need not be."""

    streams: int
    rows: int
    evicted: int
    checkpoints: int
    pages: bool
    """Whether SQLite checked every page. A large file is not held so long: then each row was read, and no more."""
    findings: tuple[Finding, ...]


def verify(connection: sqlite3.Connection, site: str | None = None, key: str | None = None) -> Report:
    """Check the file, then every stream's chain, row by row, then what checkpoints signed of it.

    `site` is whose journal it must be, `key` the public half of its journal key, hex; None where that is not known.
    """
    found = Findings()
    rows = evicted = 0
    signed = Signed(site, key, found)
    with _tolerant(connection):
        pages = _check_pages(connection, found)
        held = _listed(connection, found)
        for state in held:
            walk = Walk(state.epoch, state.lane, found)
            try:
                _follow(connection, state, walk, signed)
            except UNREADABLE as error:
                where = walk.seq + 1
                found.add(state.epoch, state.lane, where, f"SQLite: rows from {where} on can't be read: {error}")
            rows, evicted = rows + walk.rows, evicted + walk.lost
    signed.finish()
    return Report(len(held), rows, evicted, signed.count, pages, found.all())


def damage(connection: sqlite3.Connection) -> tuple[Finding, ...]:
    """What of the file is not as it was written: its pages, table by table, then every stream's chain.

    Not what the hub has, nor what was signed: a new file made of this one would be no better there.
    """
    found = Findings()
    with _tolerant(connection):
        try:
            tables = [n for (n,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'").fetchall()]
        except UNREADABLE as error:
            return (Finding("", "", 0, f"SQLite: {error}"),)
        for table in tables:
            _check_pages(connection, found, table)
        try:
            _check_index(connection, found)
        except UNREADABLE as error:
            found.add("", "", 0, f"SQLite: {error}")
        for state in _listed(connection, found):
            walk = Walk(state.epoch, state.lane, found)
            try:
                _follow(connection, replace(state, acked=0), walk, None)
            except UNREADABLE as error:
                found.add(state.epoch, state.lane, walk.seq + 1, f"SQLite: {error}")
    return found.all()


def _check_pages(connection: sqlite3.Connection, found: Findings, table: str | None = None) -> bool:
    """Have SQLite check its pages, which can't be done in slices; False where it takes too long."""
    until = time.monotonic() + READ_LIMIT_S
    connection.set_progress_handler(lambda: time.monotonic() > until, _LOOK_STEPS)
    try:
        of = "" if table is None else "('{}')".format(table.replace("'", "''"))
        for (problem,) in connection.execute(f"PRAGMA quick_check{of}"):
            if problem != "ok":
                found.add("", "", 0, f"SQLite: {problem}")
    except UNREADABLE as error:
        if time.monotonic() > until:
            return False
        found.add("", "", 0, f"SQLite: {error}")
    finally:
        connection.set_progress_handler(None, 0)
    return True


def _check_index(connection: sqlite3.Connection, found: Findings) -> None:
    """Every row is where the index says: what it leaves out is never read, and so never missed by any chain."""
    after = 0
    while True:
        with snapshot(connection):
            last, strays = connection.execute(_STRAYS, {"after": after, "rows": SLICE_ROWS}).fetchone()
        if strays:
            found.add("", "", 0, f"{strays} rows behind id {after} are not where their index says")
        if last is None:
            return
        after = last


_STRAYS = """
SELECT max(a.id), count(*) FILTER (WHERE b.id IS NOT a.id)
FROM (SELECT id, epoch, lane, seq FROM journal NOT INDEXED WHERE id>:after ORDER BY id LIMIT :rows) a
LEFT JOIN journal b INDEXED BY journal_stream ON b.epoch=a.epoch AND b.lane=a.lane AND b.seq=a.seq
"""


def _listed(connection: sqlite3.Connection, found: Findings) -> list[StreamState]:
    try:
        return streams(connection)
    except UNREADABLE as error:
        found.add("", "", 0, f"SQLite: {error}")
        return []


def _follow(connection: sqlite3.Connection, state: StreamState, walk: Walk, signed: Signed | None) -> None:
    """Walk the stream to its end, a slice at a time."""
    ended = False
    while not ended:
        with snapshot(connection):
            if not connection.execute("SELECT 1 FROM epochs WHERE epoch=?", (state.epoch,)).fetchone():
                return  # the hub has all of it, and it was forgotten meanwhile
            read = _rows(connection, state, walk.seq)
            # What its index calls a number may be none in the row itself.
            rows = [each for each in read if isinstance(each[0].seq, int)]
            if len(rows) < len(read):
                walk.found.add(state.epoch, state.lane, walk.seq + 1, f"{len(read) - len(rows)} rows have no number")
            ended = len(read) < SLICE_ROWS or not rows
            gaps = _gaps(connection, state, walk.seq, None if ended else rows[-1][0].seq)
            walk.through(rows, gaps, state.last if ended else None)
            for row in (row for row, _ in rows if state.lane == LANE and is_checkpoint(row)):
                if signed is None:
                    break
                signed.look(state.epoch, state.lane, row, lambda *where: _held(connection, *where))
    end = max(state.last, walk.seq)
    if state.acked > end:
        what = f"rows {end + 1} to {state.acked} are missing: the hub acknowledged them"
        walk.found.add(state.epoch, state.lane, end + 1, what)


def _rows(connection: sqlite3.Connection, state: StreamState, after: int) -> list[tuple[Row, object]]:
    found = connection.execute(
        "SELECT seq, at, kind, agent, subject, label, score, ref, body, CASE typeof(hash) WHEN 'blob' THEN hash END"
        " FROM journal WHERE epoch=? AND lane=? AND seq>? AND seq<? ORDER BY seq LIMIT ?",
        (state.epoch, state.lane, after, NO_NUMBER, SLICE_ROWS),
    )
    return [(Row(*fields), row_hash) for *fields, row_hash in found]


def _gaps(connection: sqlite3.Connection, state: StreamState, after: int, until: int | None) -> Sequence[Gap]:
    """Gaps that end behind `after` and begin up to `until`; what was dropped after its ack is one too."""
    found = connection.execute(
        "SELECT first, last, reason, hash FROM gaps"
        " WHERE epoch=:e AND lane=:l AND last>:after AND first<=:until AND last<:most"
        " UNION ALL SELECT 1, trimmed, '', trimmed_hash FROM cursors"
        " WHERE epoch=:e AND lane=:l AND trimmed>:after AND trimmed<:most ORDER BY 1, 2",
        {"e": state.epoch, "l": state.lane, "after": after, "until": until or NO_NUMBER, "most": NO_NUMBER},
    )
    return [Gap(first, last, reason, as_hash(end_hash)) for first, last, reason, end_hash in found]


def _held(connection: sqlite3.Connection, epoch: str, lane: str, seq: int) -> Held:
    """Where a stream should end is known of the newest epoch, and of older ones that have anything of the lane.

    The hub gave a site that lost its disk one lane of its epochs back, and nothing of the others.
    """
    known = hash_at(connection, (epoch, lane), seq)  # type: ignore[arg-type]
    newest = connection.execute("SELECT epoch FROM epochs ORDER BY ord DESC LIMIT 1").fetchone()
    end = last_of(connection, epoch, lane)
    return Held(known, end if end or newest == (epoch,) else None)


@contextlib.contextmanager
def _tolerant(connection: sqlite3.Connection) -> Iterator[None]:
    """Text that is no text is given as bytes, for the row's hash to tell, instead of an error."""
    before = connection.text_factory
    connection.text_factory = _text
    try:
        yield
    finally:
        connection.text_factory = before


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw
