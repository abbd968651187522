"""The disk budget: which rows go when room is needed, and the gap each loss leaves.

Acknowledged rows go first, oldest first. Only then unacknowledged ones: telemetry, then decision, then
alarm; each of those leaves a row in `gaps` that reaches the hub.
"""

import sqlite3

from edge_sync.rows import LANES

HIGH_WATER, LOW_WATER = 0.85, 0.75
"""Eviction begins above the first share of the budget and stops below the second."""

STEP_ROWS = 2_000
"""Rows in one transaction, so that no agent waits long for the writer."""

REASON = "evicted: the disk budget is spent"


def used(connection: sqlite3.Connection) -> float:
    """The share of the budget that holds data."""
    pages, free, most = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "max_page_count")
    )
    return float(pages - free) / float(most)


def make_room(connection: sqlite3.Connection) -> int:
    """Drop up to `STEP_ROWS` rows in the order above; returns how many. The caller's transaction."""
    return _drop_acked(connection) or _evict(connection)


def _drop_acked(connection: sqlite3.Connection) -> int:
    stream = connection.execute(
        "SELECT c.epoch, c.lane, c.acked FROM cursors c JOIN epochs e USING (epoch)"
        " WHERE EXISTS (SELECT 1 FROM journal j WHERE j.epoch=c.epoch AND j.lane=c.lane AND j.seq<=c.acked)"
        " ORDER BY e.ord, c.lane='alarm', c.lane='decision' LIMIT 1"
    ).fetchone()
    if stream is None:
        return 0
    epoch, lane, acked = stream
    end = connection.execute(
        "SELECT seq, hash FROM (SELECT seq, hash FROM journal WHERE epoch=? AND lane=? AND seq<=? ORDER BY seq LIMIT ?)"
        " ORDER BY seq DESC LIMIT 1",
        (epoch, lane, acked, STEP_ROWS),
    ).fetchone()
    dropped = connection.execute(
        "DELETE FROM journal WHERE epoch=? AND lane=? AND seq<=?", (epoch, lane, end[0])
    ).rowcount
    connection.execute(
        "UPDATE cursors SET trimmed=?, trimmed_hash=? WHERE epoch=? AND lane=?", (end[0], end[1], epoch, lane)
    )
    return dropped


def _evict(connection: sqlite3.Connection) -> int:
    for lane in reversed(LANES):
        oldest = connection.execute(
            "SELECT j.epoch FROM epochs e JOIN journal j ON j.epoch=e.epoch AND j.lane=? ORDER BY e.ord LIMIT 1",
            (lane,),
        ).fetchone()
        if oldest is None:
            continue
        rows = connection.execute(
            "SELECT seq, hash FROM journal WHERE epoch=? AND lane=? ORDER BY seq LIMIT ?",
            (oldest[0], lane, STEP_ROWS),
        ).fetchall()
        first, (last, end_hash) = rows[0][0], rows[-1]
        connection.execute(
            "DELETE FROM journal WHERE epoch=? AND lane=? AND seq BETWEEN ? AND ?",
            (oldest[0], lane, first, last),
        )
        _declare(connection, oldest[0], lane, first, last, end_hash)
        return len(rows)
    return 0


def _declare(connection: sqlite3.Connection, epoch: str, lane: str, first: int, last: int, end_hash: bytes) -> None:
    """Note a gap; one that ends right before it grows instead."""
    grown = connection.execute(
        "UPDATE gaps SET last=?, hash=? WHERE epoch=? AND lane=? AND last=? AND reason=?",
        (last, end_hash, epoch, lane, first - 1, REASON),
    ).rowcount
    if not grown:
        connection.execute("INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?)", (epoch, lane, first, last, REASON, end_hash))
