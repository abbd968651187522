"""Whether there is room for a transaction: asked before it begins, and again before its COMMIT.

The WAL never outgrows its share of the budget, whatever readers do: a transaction that it has no room for waits for
them to let go, a bounded time, and then does not happen.
"""

import sqlite3
import time
from pathlib import Path

from edge_agent.memory.budget import Budget, divide, frame_bytes
from edge_agent.memory.draft import Draft
from edge_agent.memory.schema import BUSY_S, READ_LIMIT_S
from edge_models.errors import KitError

_BASE_PAGES = 64
"""What any transaction may change beside its rows: the paths to them in each tree and lane, the free list, the maps."""

ALSO_PAGES = 32
"""What the further statements of a unit may change (a cursor, a slot, an expired fact)."""

_ATTEMPT_S = 0.05
"""A reader that comes back at once keeps SQLite waiting on the place it held; asked anew, it sees that one has gone."""

_OTHER_COLUMNS_BYTES = 400
"""A row without its body, with its entry in the index of streams, both doubled as pages are filled by half at worst."""


class NoRoomError(KitError):
    """The WAL or the file has no room for a transaction now."""


class TooLargeError(ValueError):
    """A transaction that no WAL of this budget can hold."""


class Room:
    """The room that one writer's connection has in its budget."""

    def __init__(self, connection: sqlite3.Connection, path: Path, budget_bytes: int) -> None:
        """Of the file at `path`, which `connection` has open."""
        self._connection = connection
        self._wal = path.with_name(path.name + "-wal")
        self.page_bytes: int = self._pragma("page_size")
        self._frame_bytes = frame_bytes(self.page_bytes)
        self.budget: Budget = divide(budget_bytes, self.page_bytes)
        self._began_empty = False
        self.patience_s = 2 * READ_LIMIT_S + 1
        """For readers: one that was there and, in its place, one that came meanwhile."""

    def pages_of(self, draft: Draft) -> int:
        """What writing this draft may change: its pages, were each filled as badly as SQLite ever does."""
        body = len(draft.body) if draft.body.isascii() else 4 * len(draft.body)
        size = body + min(body, 2 * self.page_bytes) + _OTHER_COLUMNS_BYTES
        pages = size // self.page_bytes + 1
        if draft.lane != "telemetry":
            pages += 2  # the index of references, anywhere in it
        if draft.intent is not None:
            pages += 2 + 8 * len(draft.intent.args) // self.page_bytes
        if draft.fact is not None:
            pages += 2 + 8 * len(draft.fact.value) // self.page_bytes
        return pages

    def wait_for(self, pages: int, patient: bool = True) -> None:
        """Have room in the WAL for a transaction that changes `pages`. Raises `NoRoomError`.

        The `patient` give readers a while to let go, and hold up all other writers for as long.
        """
        need = min(pages + _BASE_PAGES, self.budget.transaction_pages) + self.budget.cache_pages
        size = self._wal_frames()
        self._began_empty = size == 0
        if size + need <= self.budget.frames:
            return
        # The file's size says what was used at the most: it keeps it when SQLite begins it anew. RESTART where that
        # will do, not TRUNCATE: blocks that the WAL has are room to evict in that a full disk can't take away.
        how = "RESTART" if size + self.budget.cache_pages <= self.budget.frames else "TRUNCATE"
        self._fold(how, need, self.patience_s if patient else 0.0)

    def check(self) -> None:
        """Before COMMIT: what is about to be written fits. Raises `NoRoomError`, `TooLargeError`.

        What is beyond its cache SQLite has written into the WAL already, so this holds whatever `pages` was.
        """
        if self._wal_frames() + self.budget.cache_pages <= self.budget.frames:
            return
        if self._began_empty:
            raise TooLargeError("a transaction that changes more than the journal's WAL can hold")
        raise NoRoomError("its WAL has no room for this transaction")

    def used_pages(self) -> int:
        """Pages of the file that hold data."""
        return self._pragma("page_count") - self._pragma("freelist_count")

    def has(self, pages: int) -> bool:
        """Whether the file can take so many more and keep its reserve."""
        reserve = self.budget.pages - self.budget.record_pages
        most: int = self._pragma("max_page_count")  # more than the budget while a file comes down to a lower one
        return self.used_pages() + pages <= most - reserve

    def excess_pages(self) -> int:
        """By how much the file is larger than its part of the budget: the budget was lowered."""
        return self._pragma("page_count") - self.budget.pages

    def _fold(self, how: str, need: int, patience_s: float) -> None:
        """Begin the WAL anew, or learn that it has room for `need` frames as it is."""
        deadline = time.monotonic() + patience_s
        self._connection.execute(f"PRAGMA busy_timeout={round(_ATTEMPT_S * 1000)}")
        try:
            while True:
                busy, used, _ = self._connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()
                self._began_empty = not busy
                if not busy or 0 <= used <= self.budget.frames - need:
                    return
                if time.monotonic() >= deadline:
                    raise NoRoomError("its WAL is full, and a reader does not let go of it")
        finally:
            self._connection.execute(f"PRAGMA busy_timeout={round(BUSY_S * 1000)}")

    def _wal_frames(self) -> int:
        try:
            return self._wal.stat().st_size // self._frame_bytes
        except FileNotFoundError:
            return 0

    def _pragma(self, name: str) -> int:
        value: int = self._connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value
