"""Gaps that stand in the place of records, so that the chain still holds; and records let go though there is room."""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from edge_sync.rows import EXPIRED, Gap

STEP_ROWS = 200
"""Rows of one transaction: they lie anywhere, and each may change four pages."""

PAGES_A_ROW = 4

_FOLD_ROWS = 1_000
"""Gaps that go in one transaction: they lie side by side, some 30 on a page."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A row that is to go: where it stands, and the chain's hash there."""

    epoch: str
    lane: str
    seq: int
    hash: bytes


def bury(connection: sqlite3.Connection, rows: Iterable[Gone], reason: str) -> int:
    """Delete these rows, which are in the order of their streams and numbers; gaps take their place; returns how many.

    The caller's transaction.
    """
    gone = 0
    for first, last in _runs(rows):
        where = (first.epoch, first.lane, first.seq, last.seq)
        gone += connection.execute(
            "DELETE FROM journal WHERE epoch=? AND lane=? AND seq BETWEEN ? AND ?", where
        ).rowcount
        declare(connection, (first.epoch, first.lane), Gap(first.seq, last.seq, reason, last.hash))
    return gone


def declare(connection: sqlite3.Connection, stream: tuple[str, str], gap: Gap) -> None:
    """Note a gap; those of the same reason right before and right after it become one with it."""
    of = (*stream, gap.reason)
    last, end_hash = gap.last, gap.hash
    after = connection.execute(
        "SELECT last, hash FROM gaps WHERE epoch=? AND lane=? AND reason=? AND first=?", (*of, last + 1)
    ).fetchone()
    if after is not None:
        connection.execute("DELETE FROM gaps WHERE epoch=? AND lane=? AND reason=? AND first=?", (*of, last + 1))
        last, end_hash = after
    grown = connection.execute(
        "UPDATE gaps SET last=?, hash=? WHERE epoch=? AND lane=? AND reason=? AND last=?",
        (last, end_hash, *of, gap.first - 1),
    ).rowcount
    if not grown:
        connection.execute(
            "INSERT INTO gaps (epoch, lane, first, last, reason, hash) VALUES (?, ?, ?, ?, ?, ?)",
            (*stream, gap.first, last, gap.reason, end_hash),
        )


def fold_expired(connection: sqlite3.Connection) -> int:
    """One step of making fewer gaps of expired rows; returns how many there are less. The caller's transaction.

    One that begins where rows were dropped after their ack is no gap of its own any more; nor is one among those, or
    of an epoch that is forgotten.
    """
    folded = connection.execute(
        "DELETE FROM gaps WHERE (epoch, lane, first) IN (SELECT g.epoch, g.lane, g.first FROM gaps g"
        " LEFT JOIN cursors c ON c.epoch=g.epoch AND c.lane=g.lane WHERE g.reason=:reason"
        " AND (c.trimmed>=g.last OR g.epoch NOT IN (SELECT epoch FROM epochs)) LIMIT :most)",
        {"reason": EXPIRED, "most": _FOLD_ROWS},
    ).rowcount
    for epoch, lane, last, end_hash in connection.execute(
        "SELECT g.epoch, g.lane, g.last, g.hash FROM gaps g JOIN cursors c"
        " ON c.epoch=g.epoch AND c.lane=g.lane AND g.first=c.trimmed+1 AND g.last<=c.acked WHERE g.reason=? LIMIT ?",
        (EXPIRED, STEP_ROWS),
    ).fetchall():
        connection.execute(
            "UPDATE cursors SET trimmed=?, trimmed_hash=? WHERE epoch=? AND lane=?", (last, end_hash, epoch, lane)
        )
        connection.execute("DELETE FROM gaps WHERE epoch=? AND lane=? AND last=?", (epoch, lane, last))
        folded += 1
    return folded


def _runs(rows: Iterable[Gone]) -> Iterator[tuple[Gone, Gone]]:
    """First and last of each range without a hole."""
    first = last = None
    for row in rows:
        if first is None or last is None:
            first = last = row
        elif (row.epoch, row.lane, row.seq) == (last.epoch, last.lane, last.seq + 1):
            last = row
        else:
            yield first, last
            first = last = row
    if first is not None and last is not None:
        yield first, last
