"""Records go from a site when their days are over: only those the hub has, and only by a clock that can be right.

A clock that stands before the newest records lets nothing go. One that is years ahead would let all go at once: so in
each look nothing goes that is more than `CATCH_UP` times the time since the last look younger than the oldest that
goes. A record whose own time lies ahead waits for its time, or until its room is needed.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.memory.journal import Journal
from edge_agent.memory.queries import latest_at
from edge_agent.memory.schema import SLICE_ROWS, reading
from edge_agent.memory.tombstones import PAGES_A_ROW, STEP_ROWS, Gone, bury, fold_expired
from edge_sync.keep import CATCH_UP, Keep
from edge_sync.rows import EXPIRED

LOOK_S = 60.0
"""Between two looks."""

LOOK_ROWS = 50 * SLICE_ROWS
"""Rows read in one look; the next one goes on behind them."""


DUE_ROWS = 20_000
"""Records that one look lets go: a hundred transactions, in which the keeper does nothing else, nor ends."""


@dataclass(slots=True)
class _Round:
    """One way through the journal, in as many looks as it takes. What waits for its time is where the next begins."""

    after: int
    waits_after: int | None = None


@dataclass(slots=True)
class _Found:
    due: list[int] = field(default_factory=list)
    until_us: int | None = None


class Expiry:
    """Lets go what `keep` says of one journal. Without a thread or a clock of its own."""

    def __init__(self, journal: Journal, keep: Keep, now_us: Callable[[], int]) -> None:
        self._journal, self._keep, self._now_us = journal, keep, now_us
        self._looked_at: float | None = None
        self._round = _Round(0)

    def tick(self, now: float) -> int:
        """Time passes, `now` in monotonic seconds: look where it is time; returns how many records went.

        Raises `JournalUnavailableError`; what did not go then goes after the next look.
        """
        if not self._keep or (self._looked_at is not None and now < self._looked_at + LOOK_S):
            return 0
        elapsed_s = LOOK_S if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        try:
            return self._let_go(self._look(int(elapsed_s * 1e6) * CATCH_UP))
        except Exception:
            self._round = _Round(0)
            raise

    def _let_go(self, due: list[int]) -> int:
        step = max(1, min(STEP_ROWS, self._journal.room.budget.step_pages // PAGES_A_ROW))
        gone = 0
        for at in range(0, len(due), step):
            ids = due[at : at + step]
            gone += self._journal.maintain(lambda db, ids=ids: _bury(db, ids))  # type: ignore[misc]
        while self._journal.maintain(fold_expired):
            pass
        return gone

    def _look(self, span_us: int) -> list[int]:
        """Ids of what is due; read in slices, so that no state of the file is held for long."""
        found, now_us = _Found(), self._now_us()
        with reading(self._journal.path) as connection:
            if now_us < latest_at(connection):
                return []
            for _ in range(LOOK_ROWS // SLICE_ROWS):
                if len(found.due) >= DUE_ROWS:
                    break  # the next look goes on here
                rows = connection.execute(
                    "SELECT j.id, j.at, j.kind, j.agent, j.seq<=coalesce(c.acked, 0) FROM journal j"
                    " LEFT JOIN cursors c ON c.epoch=j.epoch AND c.lane=j.lane WHERE j.id>? ORDER BY j.id LIMIT ?",
                    (self._round.after, SLICE_ROWS),
                ).fetchall()
                if not self._take(rows, found, now_us, span_us):
                    waits = self._round.waits_after
                    self._round = _Round(self._round.after if waits is None else waits)
                    break
        return found.due

    def _take(self, rows: list[tuple[int, int, str, str, int]], found: _Found, now_us: int, span_us: int) -> bool:
        """Whether more may be due behind these rows."""
        for row_id, at_us, kind, agent, acked in rows:
            if now_us - self._keep.least_us < at_us <= now_us:  # and so what was written after it
                return False
            age_us = self._keep.age_us(kind, agent)
            if age_us is not None and at_us <= now_us:
                if acked and at_us + age_us <= now_us and (found.until_us is None or at_us <= found.until_us):
                    found.until_us = at_us + span_us if found.until_us is None else found.until_us
                    found.due.append(row_id)
                elif self._round.waits_after is None:
                    self._round.waits_after = self._round.after
            self._round.after = row_id
        return len(rows) == SLICE_ROWS


def _bury(connection: sqlite3.Connection, ids: list[int]) -> int:
    """Those of them that are still here and acknowledged: the hub may have gone back meanwhile."""
    marks = ",".join("?" * len(ids))
    rows = connection.execute(
        "SELECT j.epoch, j.lane, j.seq, j.hash FROM journal j JOIN cursors c ON c.epoch=j.epoch AND c.lane=j.lane"  # noqa: S608 - question marks
        f" WHERE j.id IN ({marks}) AND j.seq<=c.acked ORDER BY j.epoch, j.lane, j.seq",
        ids,
    ).fetchall()
    return bury(connection, (Gone(epoch, lane, seq, bytes(row_hash)) for epoch, lane, seq, row_hash in rows), EXPIRED)
