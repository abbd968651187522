"""The disk budget: which rows go when room is needed, and the gap each loss leaves. And when an epoch is forgotten.

Acknowledged rows go first, oldest first; then those of streams that the hub will not take, since they forked. Only then
unacknowledged ones: telemetry, then decision, then alarm; each of those leaves a row in `gaps` that reaches the hub.
"""

import sqlite3
from dataclasses import dataclass

from edge_agent.memory.budget import MIN_BUDGET_BYTES, Budget, divide
from edge_agent.memory.tombstones import declare
from edge_sync.rows import LANES, Gap

HIGH_WATER, LOW_WATER = 0.85, 0.75
"""The keeper begins to evict above the first share of the file's pages, and stops below the second."""

STEP_ROWS = 2_000
"""Rows in one transaction, so that no agent waits long for the writer."""

STEP_PAGES = divide(MIN_BUDGET_BYTES).step_pages
"""Pages that one transaction is meant to change where nobody says more: right for the smallest budget."""

MAX_EPOCHS = 500
"""Epochs held: each is a line of every hello. Of more, the oldest that the hub has wholly go even where there is room.
So many are kept because a hub restored from a backup may have to be told of them again."""

_SETTLED = (
    "SELECT e.epoch FROM epochs e WHERE e.ord<(SELECT max(ord) FROM epochs)"
    " AND e.alarm<=coalesce((SELECT acked FROM cursors c WHERE c.epoch=e.epoch AND c.lane='alarm'), 0)"
    " AND e.decision<=coalesce((SELECT acked FROM cursors c WHERE c.epoch=e.epoch AND c.lane='decision'), 0)"
    " AND e.telemetry<=coalesce((SELECT acked FROM cursors c WHERE c.epoch=e.epoch AND c.lane='telemetry'), 0)"
    " ORDER BY e.ord LIMIT :epochs"
)
"""The oldest of the ended epochs of which the hub has every row and every gap."""

_ACKED = "c.acked"
_FORKED = "CASE c.forked WHEN 1 THEN 9223372036854775807 ELSE 0 END"
"""Up to where a stream's rows may go without a gap: what the hub has; all of it, where the hub never takes the rest."""

REASON = "evicted: the disk budget is spent"


def tend(connection: sqlite3.Connection, above: float, budget: Budget | None = None) -> int:
    """One step of housekeeping, in the caller's transaction; returns how many rows and epochs went.

    Makes room where more than the share `above` of the file's pages hold data: of those that the budget allows, where
    it is given (a file may be larger than that when the budget was lowered), or that SQLite does.
    """
    gone = forget_epochs(connection)
    most = _pragma(connection, "max_page_count") if budget is None else budget.pages
    step_pages = STEP_PAGES if budget is None else budget.step_pages
    if used_pages(connection) > above * most:
        return gone + make_room(connection, step_pages)
    too_many = _too_many(connection)
    return gone + (_drop(connection, _ACKED, step_pages, settled=too_many) if too_many > 0 else 0)


def make_room(connection: sqlite3.Connection, step_pages: int = STEP_PAGES) -> int:
    """Drop the next rows in the order above; returns how many. The caller's transaction.

    So many that about `step_pages` pages change, at most `STEP_ROWS`, at least one while there is any.
    """
    return (
        _drop(connection, _ACKED, step_pages)
        or _drop(connection, _FORKED, step_pages)
        or _evict(connection, step_pages)
    )


def used_pages(connection: sqlite3.Connection) -> int:
    """Pages of the file that hold data."""
    return _pragma(connection, "page_count") - _pragma(connection, "freelist_count")


def give_back(connection: sqlite3.Connection, budget: Budget) -> int:
    """One step of making a file smaller that is larger than its budget allows; returns how many pages went.

    The caller's transaction. Only free pages go; the file itself shrinks when the WAL is folded into it.
    """
    pages = _pragma(connection, "page_count")
    step = min(pages - budget.pages, budget.step_pages // 8)  # each moves a page, and changes its parent and two maps
    if step > 0:
        connection.execute(f"PRAGMA incremental_vacuum({step})").fetchall()
    connection.execute(f"PRAGMA max_page_count={budget.pages}")  # SQLite takes no less than the file has: so, again
    return pages - _pragma(connection, "page_count")


def forget_epochs(connection: sqlite3.Connection) -> int:
    """Forget, of more than `MAX_EPOCHS`, the oldest settled ones; returns how many.

    Settled: the hub has all of it, also where that is nothing; and no row of it is left here. Gaps stay. One without
    records is kept like others: the hub may have heard of it, and would not know that nothing of it was lost.
    """
    forgotten = 0
    too_many = _too_many(connection)
    if too_many > 0:
        forgotten = connection.execute(
            f"DELETE FROM epochs WHERE epoch IN ({_SETTLED})"  # noqa: S608 - a constant
            " AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.epoch=epochs.epoch)",
            {"epochs": too_many},
        ).rowcount
    if forgotten:
        connection.execute("DELETE FROM cursors WHERE epoch NOT IN (SELECT epoch FROM epochs)")
    return forgotten


def _too_many(connection: sqlite3.Connection) -> int:
    count: int = connection.execute("SELECT count(*) FROM epochs").fetchone()[0]
    return count - MAX_EPOCHS


def _drop(connection: sqlite3.Connection, up_to: str, step_pages: int, settled: int = -1) -> int:
    """Drop one step of the rows `up_to` the given end: of the `settled` oldest settled epochs, or of all."""
    streams = connection.execute(
        f"SELECT c.epoch, c.lane, {up_to} FROM cursors c JOIN epochs e USING (epoch)"  # noqa: S608 - constants
        f" WHERE EXISTS (SELECT 1 FROM journal j WHERE j.epoch=c.epoch AND j.lane=c.lane AND j.seq<={up_to})"
        f" AND (:epochs<0 OR c.epoch IN ({_SETTLED}))"
        " ORDER BY e.ord, c.lane='alarm', c.lane='decision' LIMIT :streams",
        {"epochs": settled, "streams": STEP_ROWS},
    ).fetchall()
    step = _Step(connection, step_pages)
    for epoch, lane, last in streams:
        found = step.take(epoch, lane, last)
        if found is not None:
            connection.execute(
                "UPDATE cursors SET trimmed=?, trimmed_hash=? WHERE epoch=? AND lane=?",
                (found.last, found.end_hash, epoch, lane),
            )
        if step.done:
            break
    return step.rows


def _evict(connection: sqlite3.Connection, step_pages: int) -> int:
    step = _Step(connection, step_pages)
    for lane in reversed(LANES):
        oldest = connection.execute(
            "SELECT j.epoch FROM epochs e JOIN journal j ON j.epoch=e.epoch AND j.lane=? ORDER BY e.ord LIMIT 1",
            (lane,),
        ).fetchone()
        found = step.take(oldest[0], lane, _ALL, across=False) if oldest is not None else None
        if found is not None:
            declare(connection, (oldest[0], lane), Gap(found.first, found.last, REASON, found.end_hash))
            break
    return step.rows


_ALL = 2**63 - 1


@dataclass(frozen=True, slots=True)
class _Range:
    first: int
    last: int
    end_hash: bytes


class _Step:
    """Rows that go in one transaction, counted by what it changes."""

    def __init__(self, connection: sqlite3.Connection, pages: int) -> None:
        self._connection, self._pages = connection, pages
        self._page_bytes = _pragma(connection, "page_size")
        self.rows = 0

    @property
    def done(self) -> bool:
        """Whether no more go in this one."""
        return self.rows >= STEP_ROWS or self._pages <= 0

    def take(self, epoch: str, lane: str, last: int, across: bool = True) -> _Range | None:
        """Delete the oldest rows of a stream up to `last`, as far as the step reaches; None where there is none.

        Not `across` a gap between them: what stands there has a reason of its own.
        """
        first = end = None
        for seq, end_hash, size in self._connection.execute(
            "SELECT seq, hash, length(body) FROM journal WHERE epoch=? AND lane=? AND seq<=? ORDER BY seq LIMIT ?",
            (epoch, lane, last, STEP_ROWS - self.rows),
        ):
            if end is not None and not across and seq != end[0] + 1:
                break
            first, end = first or seq, (seq, end_hash)
            # Its leaf; outside telemetry a leaf of the references and its neighbour; of the free list a hundredth.
            self._pages -= (1 if lane == "telemetry" else 3) + size // (self._page_bytes * 100)
            if self._pages <= 0:
                break
        if first is None or end is None:
            return None
        self.rows += self._connection.execute(
            "DELETE FROM journal WHERE epoch=? AND lane=? AND seq BETWEEN ? AND ?", (epoch, lane, first, end[0])
        ).rowcount
        return _Range(first, end[0], bytes(end[1]))


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
