"""What the site's process makes its disk write, for each decision.

Counted by the kernel (`/proc/self/io`), the only place where the pages of the WAL and of checkpoints are all counted,
as large as the file system writes them; and it costs a decision nothing. It is the whole process's, updates included.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.memory.journal import Journal

NOTE_S = 600.0
"""Between two notes: each joins a transaction that is written anyway."""

RECENT_EPOCHS = 10
"""Starts that `recent` looks back over."""


@dataclass(frozen=True, slots=True)
class Wear:
    """Bytes written while so many decisions were made."""

    written_bytes: int
    decided: int

    @property
    def per_decision(self) -> float:
        """Bytes a decision; 0 before the first one."""
        return self.written_bytes / self.decided if self.decided else 0.0


def process_written_bytes() -> int | None:
    """What this process made the kernel write to a disk so far; None where the kernel does not say."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes:")), None)


class WearMeter:
    """Wear of one process since it was made; notes it in the journal from time to time, for `doctor`."""

    def __init__(self, journal: Journal, written: Callable[[], int | None] = process_written_bytes) -> None:
        self._journal, self._written = journal, written
        self._start = written()
        self._noted = Wear(0, 0)
        self._note_at = 0.0

    def wear(self) -> Wear | None:
        """Until now; None where the kernel does not say."""
        now = self._written()
        return None if now is None or self._start is None else Wear(now - self._start, self._journal.decided)

    def tick(self, now: float) -> None:
        """Note it where it is time to; `now` in monotonic seconds."""
        if now >= self._note_at:
            self._note_at = now + NOTE_S
            self.note()

    def note(self) -> None:
        """Add what came since the last note to the epoch that runs; joins the next transaction."""
        wear = self.wear()
        if wear is None or wear.decided == self._noted.decided:
            return
        more = (wear.written_bytes - self._noted.written_bytes, wear.decided - self._noted.decided)
        self._noted, epoch = wear, self._journal.epoch

        def add(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE epochs SET written_bytes=written_bytes+?, decided=decided+? WHERE epoch=?", (*more, epoch)
            )

        self._journal.later(also=add)


def recent(connection: sqlite3.Connection) -> Wear:
    """Of the newest starts, as far as it was noted."""
    written, decided = connection.execute(
        "SELECT coalesce(sum(written_bytes), 0), coalesce(sum(decided), 0)"
        " FROM (SELECT written_bytes, decided FROM epochs ORDER BY ord DESC LIMIT ?)",
        (RECENT_EPOCHS,),
    ).fetchone()
    return Wear(written, decided)
