"""The disk budget: which rows go when room is needed, and the gap each loss leaves. And when an epoch is forgotten.

Acknowledged rows go first, oldest first. Only then unacknowledged ones: telemetry, then decision, then
alarm; each of those leaves a row in `gaps` that reaches the hub.
"""

import sqlite3

from edge_sync.rows import LANES

HIGH_WATER, LOW_WATER = 0.85, 0.75
"""Eviction begins above the first share of the budget and stops below the second."""

STEP_ROWS = 2_000
"""Rows in one transaction, so that no agent waits long for the writer."""

MAX_EPOCHS = 500
"""Epochs held: each is a line of every hello. Of more, those the hub has wholly go even where there is room."""

_SETTLED = (
    "SELECT e.epoch FROM epochs e WHERE e.ord<(SELECT max(ord) FROM epochs)"
    " AND e.alarm<=coalesce((SELECT acked FROM cursors c WHERE c.epoch=e.epoch AND c.lane='alarm'), 0)"
    " AND e.decision<=coalesce((SELECT acked FROM cursors c WHERE c.epoch=e.epoch AND c.lane='decision'), 0)"
    " AND e.telemetry<=coalesce((SELECT acked FROM cursors c WHERE c.epoch=e.epoch AND c.lane='telemetry'), 0)"
    " ORDER BY e.ord LIMIT :epochs"
)
"""The oldest of the ended epochs of which the hub has every row and every gap."""

REASON = "evicted: the disk budget is spent"


def used(connection: sqlite3.Connection) -> float:
    """The share of the budget that holds data."""
    pages, free, most = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "max_page_count")
    )
    return float(pages - free) / float(most)


def tend(connection: sqlite3.Connection, above: float) -> int:
    """One step of housekeeping, in the caller's transaction; returns how many rows and epochs went.

    Makes room where more than the share `above` of the budget is used.
    """
    gone = forget_epochs(connection)
    if used(connection) > above:
        return gone + make_room(connection)
    too_many = connection.execute("SELECT count(*) FROM epochs").fetchone()[0] - MAX_EPOCHS
    return gone + (_drop_acked(connection, settled=too_many) if too_many > 0 else 0)


def make_room(connection: sqlite3.Connection) -> int:
    """Drop up to `STEP_ROWS` rows in the order above; returns how many. The caller's transaction."""
    return _drop_acked(connection) or _evict(connection)


def forget_epochs(connection: sqlite3.Connection) -> int:
    """Forget the ended epochs of which the hub has all and no row is left here; returns how many.

    One that never had a record is such an epoch. Gaps stay. The caller's transaction.
    """
    forgotten = connection.execute(
        f"DELETE FROM epochs WHERE epoch IN ({_SETTLED})"  # noqa: S608 - a constant
        " AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.epoch=epochs.epoch)",
        {"epochs": -1},
    ).rowcount
    if forgotten:
        connection.execute("DELETE FROM cursors WHERE epoch NOT IN (SELECT epoch FROM epochs)")
    return forgotten


def _drop_acked(connection: sqlite3.Connection, settled: int = -1) -> int:
    """Drop up to `STEP_ROWS` rows that the hub has: of the `settled` oldest settled epochs, or of all."""
    streams = connection.execute(
        "SELECT c.epoch, c.lane, c.acked FROM cursors c JOIN epochs e USING (epoch)"  # noqa: S608 - a constant
        " WHERE EXISTS (SELECT 1 FROM journal j WHERE j.epoch=c.epoch AND j.lane=c.lane AND j.seq<=c.acked)"
        f" AND (:epochs<0 OR c.epoch IN ({_SETTLED}))"
        " ORDER BY e.ord, c.lane='alarm', c.lane='decision' LIMIT :streams",
        {"epochs": settled, "streams": STEP_ROWS},
    ).fetchall()
    dropped = 0
    for epoch, lane, acked in streams:
        dropped += _trim(connection, epoch, lane, acked, STEP_ROWS - dropped)
        if dropped == STEP_ROWS:
            break
    return dropped


def _trim(connection: sqlite3.Connection, epoch: str, lane: str, acked: int, most: int) -> int:
    end = connection.execute(
        "SELECT seq, hash FROM (SELECT seq, hash FROM journal WHERE epoch=? AND lane=? AND seq<=? ORDER BY seq LIMIT ?)"
        " ORDER BY seq DESC LIMIT 1",
        (epoch, lane, acked, most),
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
