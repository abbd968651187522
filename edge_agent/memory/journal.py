"""The journal's writer: group commit, sequence numbers and the hash chain, in one transaction.

Threads hand over *units* (the drafts that must be durable together). Whoever gets the commit lock first
writes everything that waits, so one fsync serves all agents; nobody is handed to another thread.
"""

import contextlib
import logging
import secrets
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.memory.damage import is_damage
from edge_agent.memory.draft import Draft
from edge_agent.memory.entries import Entries, Tail
from edge_agent.memory.retention import forget_epochs, make_room
from edge_agent.memory.room import ALSO_PAGES, NoRoomError, Room
from edge_agent.memory.schema import UNREADABLE, open_writer
from edge_models.errors import RetryableError
from edge_sync.rows import LANES, Epoch, Lane, chain_start

log = logging.getLogger(__name__)

GROUP_COMMIT_S = 0.05
"""The longest an undemanding record waits for a transaction to join. Source: docs/design.md section 4."""

MAX_WAITING = 10_000
"""Undemanding records in memory; beyond it, their writers wait for the disk like everybody else."""

EVICTIONS = 4
"""Steps of eviction before one transaction at the most: more is left to the next ones, and to the keeper."""

NO_NUMBER = 2**53
"""No record has it, nor a larger one; and text, which SQLite keeps in a column of numbers too, counts as larger."""


class JournalUnavailableError(RetryableError):
    """The journal can't take records now (a full disk): nothing was written, so nothing may be done."""


class JournalDamagedError(JournalUnavailableError):
    """The journal's file is not what SQLite wrote: it takes no records until it was mended."""


@dataclass(slots=True, eq=False)
class _Unit:
    drafts: Sequence[Draft] = ()
    also: Callable[[sqlite3.Connection], None] | None = None
    """Further statements of the same transaction."""
    waited_for: bool = True
    pages: int = 0
    """What it may change at the most."""
    done: bool = False
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Growth:
    """A stream grew to `last`."""

    epoch: Epoch
    order: int
    lane: Lane
    last: int


@dataclass(frozen=True, slots=True)
class Heads:
    """Where the lanes of the epoch end, as of one commit."""

    epoch: Epoch
    order: int
    ends: Mapping[Lane, tuple[int, str]]
    """Number and hash, hex, of the last record; a lane without one is left out."""

    @property
    def rows(self) -> int:
        """Records of the epoch."""
        return sum(seq for seq, _ in self.ends.values())


class Journal:
    """The one writer of a site's memory. Safe to call from any thread."""

    def __init__(
        self,
        path: Path,
        budget_mb: int,
        now_us: Callable[[], int],
        draw: Callable[[], str] = lambda: secrets.token_hex(8),
        flushes: bool = True,
    ) -> None:
        """Open the file and begin a new epoch, whose id is drawn. Raises `ConfigError`, `JournalUnavailableError`.

        Without `flushes` there is no thread: what is handed over for `later` waits for the next `write` or `flush`.
        """
        self.path = path
        self._connection = open_writer(path, budget_mb)
        try:
            self.room = Room(self._connection, path, budget_mb * 1024 * 1024)
        except UNREADABLE as error:
            self._connection.close()
            raise JournalDamagedError(str(error), 1.0) if is_damage(error) else _unavailable(str(error)) from None
        self._spare_pages = 0
        """What may be written before the file is measured again."""
        self._now_us, self._draw = now_us, draw
        self._queue: deque[_Unit] = deque()
        self._commit_lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._listeners: list[Callable[[Growth], None]] = []
        self.on_damage: Callable[[str], None] = lambda _: None
        """Called where SQLite says that the file is damaged, on the thread that met it; it must return at once."""
        self.commits = 0
        self.decided = 0
        """Decisions written by this process."""
        self.epoch = Epoch("")
        self.order = 0
        self._tails: dict[Lane, Tail] = {}
        try:
            self._begin_epoch()
        except BaseException:
            self._connection.close()
            raise
        self._flusher = threading.Thread(target=self._flush_now_and_then, name="journal", daemon=True)
        if flushes:
            self._flusher.start()

    def listen(self, listener: Callable[[Growth], None]) -> None:
        """Have `listener` called after each commit, on the committing thread; it must return at once."""
        self._listeners.append(listener)

    def last(self, lane: Lane) -> int:
        """The lane's last durable sequence number in this epoch."""
        return self._tails[lane].seq

    def heads(self) -> Heads:
        """Where the epoch's lanes end: all that is in it is durable."""
        with self._commit_lock:
            ends = {lane: (tail.seq, tail.hash.hex()) for lane, tail in self._tails.items() if tail.seq}
            return Heads(self.epoch, self.order, ends)

    def write(self, drafts: Sequence[Draft], also: Callable[[sqlite3.Connection], None] | None = None) -> None:
        """Durable on return, all or nothing. Raises `JournalUnavailableError`, or whatever is wrong with a draft.

        What is more than one transaction can hold is written in several, in order: then a part may be durable alone.
        """
        unit = self._unit(drafts, also, waited_for=True)
        self._queue.append(unit)
        with self._commit_lock:
            if not unit.done:
                self._commit_waiting()
        if unit.error is not None:
            raise unit.error
        if not unit.done:  # whoever wrote for all was interrupted
            raise JournalUnavailableError("the journal's transaction was cut short: nothing was written", 1.0)

    def later(self, drafts: Sequence[Draft] = (), also: Callable[[sqlite3.Connection], None] | None = None) -> None:
        """Joins the next transaction, `GROUP_COMMIT_S` from now at the latest; kept while the disk is full."""
        if len(self._queue) >= MAX_WAITING:
            self.write(drafts, also)
            return
        self._queue.append(self._unit(drafts, also, waited_for=False))
        self._wake.set()

    def flush(self) -> None:
        """Everything handed over before is durable on return. Raises `JournalUnavailableError`."""
        self.write(())

    def new_epoch(self) -> None:
        """Begin a new epoch in the same process: the old one's numbers turned out to be somebody else's too."""
        with self._commit_lock:
            self._commit_waiting()
            self._begin_epoch()

    def maintain(self, work: Callable[[sqlite3.Connection], int]) -> int:
        """Run `work` in a transaction of its own (retention); returns what it returns.

        It changes about `room.budget.step_pages` pages at the most, and does not wait for readers, since a record that
        is smaller may have room meanwhile. Raises `JournalUnavailableError`, or what `work` raises; nothing of it was
        done then.
        """
        with self._commit_lock, self._transaction(self.room.budget.step_pages, patient=False):
            return work(self._connection)

    def fold(self) -> None:
        """Fold the WAL into the file as far as readers allow: one that shrank does so on disk."""
        with self._commit_lock, contextlib.suppress(sqlite3.Error):  # SQLite tries again by itself
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Write what waits, fold the WAL into the file, and close."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._wake.set()
        if self._flusher.is_alive():
            self._flusher.join()
        with self._commit_lock:
            self._commit_waiting()
            with contextlib.suppress(sqlite3.DatabaseError):  # the WAL of a damaged file stays for who mends it
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()

    def _begin_epoch(self) -> None:
        epoch = Epoch(self._draw())
        connection = self._connection
        self._evict_for(ALSO_PAGES)
        with self._transaction(ALSO_PAGES):
            previous = connection.execute("SELECT epoch, ord FROM epochs ORDER BY ord DESC LIMIT 1").fetchone()
            if previous is not None:
                lasts = [last_of(connection, previous[0], lane) for lane in LANES]
                connection.execute(
                    "UPDATE epochs SET alarm=?, decision=?, telemetry=? WHERE epoch=?", (*lasts, previous[0])
                )
            order = 1 if previous is None else previous[1] + 1
            connection.execute(
                "INSERT INTO epochs (epoch, ord, started_at) VALUES (?, ?, ?)", (epoch, order, self._now_us())
            )
            forget_epochs(connection)
        self.epoch, self.order = epoch, order
        self._tails = {lane: Tail(0, chain_start(epoch, lane)) for lane in LANES}

    def _unit(
        self, drafts: Sequence[Draft], also: Callable[[sqlite3.Connection], None] | None, waited_for: bool
    ) -> _Unit:
        pages = sum(map(self.room.pages_of, drafts)) + (ALSO_PAGES if also is not None else 0)
        return _Unit(drafts, also, waited_for, pages)

    def _commit_waiting(self) -> bool:
        """Write every waiting unit, as many in one transaction as it may hold; False where the file takes none now.

        The caller holds the commit lock.
        """
        waiting = len(self._queue)
        while waiting:
            units = [self._queue.popleft()]
            pages = units[0].pages
            while len(units) < waiting and pages + self._queue[0].pages <= self.room.budget.transaction_pages:
                pages += self._queue[0].pages
                units.append(self._queue.popleft())
            waiting -= len(units)
            try:
                if any(unit.drafts or unit.also for unit in units):
                    self._commit(units)
            except JournalUnavailableError as error:  # so it is for all the others
                self._keep_or_refuse([*units, *(self._queue.popleft() for _ in range(waiting))], error)
                return False
            for unit in units:
                unit.done = True
        return True

    def _commit(self, units: list[_Unit]) -> None:
        """Write these. Raises `JournalUnavailableError`; what is wrong with one of them is told to its writer."""
        pages = sum(unit.pages for unit in units)
        if pages > self.room.budget.transaction_pages and len(units[0].drafts) > 1:
            self._commit_in_parts(units[0])
            return
        entries = Entries(self._connection, self.epoch, self._tails)
        try:
            self._make_way(pages, any(unit.drafts for unit in units))
            with self._transaction(pages):
                for unit in units:
                    for draft in unit.drafts:
                        entries.add(draft)
                    if unit.also is not None:
                        unit.also(self._connection)
                entries.put()
        except JournalUnavailableError:
            raise
        except Exception as error:  # one unit is wrong, whatever it is: the others must not suffer for it
            if len(units) == 1:
                units[0].done, units[0].error = True, error
                if not units[0].waited_for:
                    log.exception("record_refused")
                return
            for unit in units:
                self._commit([unit])
            return
        self.commits += 1
        for draft, public_id in entries.ids:
            draft.id = public_id
            self.decided += draft.kind == "decision"
        grown = [lane for lane in LANES if entries.tails[lane].seq > self._tails[lane].seq]
        self._tails = entries.tails
        for unit in units:
            unit.done = True
        for lane in grown:
            for listener in self._listeners:
                listener(Growth(self.epoch, self.order, lane, self._tails[lane].seq))

    def _commit_in_parts(self, unit: _Unit) -> None:
        """One unit that is too large for a transaction. What is written of it when the disk is full stays written."""
        while not unit.done:
            pages, count = ALSO_PAGES, 0
            while count < len(unit.drafts):
                pages += self.room.pages_of(unit.drafts[count])
                if count and pages > self.room.budget.transaction_pages:
                    break
                count += 1
            ends = count == len(unit.drafts)
            part = self._unit(unit.drafts[:count], unit.also if ends else None, unit.waited_for)
            self._commit([part])
            unit.drafts, unit.pages = unit.drafts[count:], unit.pages - part.pages
            unit.done, unit.error = ends or part.error is not None, part.error

    def _make_way(self, pages: int, records: bool) -> None:
        """Have room in the file: a writer that is faster than the keeper evicts by itself.

        Raises `JournalUnavailableError` where nothing that may go is left; what is no record may use the reserve. The
        file is measured only now and then.
        """
        if pages > self._spare_pages:
            self._evict_for(pages)
            if records and not self.room.has(pages):
                raise _unavailable("its budget is full")
            self._spare_pages = max(pages, self.room.budget.full_pages - self.room.used_pages())
        self._spare_pages -= pages

    def _evict_for(self, pages: int) -> None:
        for _ in range(EVICTIONS):
            if self.room.used_pages() + pages <= self.room.budget.full_pages:
                return
            with self._transaction(self.room.budget.step_pages):
                if not make_room(self._connection, self.room.budget.step_pages):
                    return

    @contextlib.contextmanager
    def _transaction(self, pages: int, patient: bool = True) -> Iterator[None]:
        """All of it or nothing; it changes about so many pages. The `patient` waits for readers.

        Raises `JournalUnavailableError` where the file can't take it, whatever it is.

        What SQLite says of the values themselves goes on as it is: those would be refused for ever.
        """
        try:
            self.room.wait_for(pages, patient)
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self.room.check()
            self._connection.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):  # if it stays open, the next BEGIN fails, and this is tried again
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
            if is_damage(error):
                self.on_damage(str(error))
                raise JournalDamagedError(f"the journal is damaged ({error})", 1.0) from None
            if isinstance(error, sqlite3.Error | NoRoomError) and not isinstance(error, sqlite3.IntegrityError):
                raise _unavailable(str(error)) from None
            raise

    def _keep_or_refuse(self, units: list[_Unit], error: JournalUnavailableError) -> None:
        """Nothing was written: those who wait are told; what nobody waits for is kept for the next transaction."""
        for unit in reversed(units):
            if unit.done:
                continue
            if unit.waited_for:
                unit.done, unit.error = True, JournalUnavailableError(str(error), error.retry_after_s)
            else:
                self._queue.appendleft(unit)

    def _flush_now_and_then(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            self._stop.wait(GROUP_COMMIT_S)
            written = False
            try:
                with self._commit_lock:
                    written = self._commit_waiting()
            except Exception:  # its end would be noticed by nobody, and nothing would be written by itself again
                log.exception("journal_flush_failed")
            if not written:  # the disk is full: what was kept is tried again in a second
                self._stop.wait(1.0)
                self._wake.set()


def last_of(connection: sqlite3.Connection, epoch: str, lane: str) -> int:
    """The last sequence number ever used in a stream, from whatever of it is left."""
    query = (
        "SELECT max(coalesce((SELECT max(seq) FROM journal WHERE epoch=:e AND lane=:l AND seq<:n), 0),"
        " coalesce((SELECT max(last) FROM gaps WHERE epoch=:e AND lane=:l AND last<:n), 0),"
        " coalesce((SELECT max(trimmed) FROM cursors WHERE epoch=:e AND lane=:l AND trimmed<:n), 0))"
    )
    return int(connection.execute(query, {"e": epoch, "l": lane, "n": NO_NUMBER}).fetchone()[0])


def _unavailable(error: str) -> JournalUnavailableError:
    return JournalUnavailableError(
        f"the journal can't be written ({error}): free disk space, or raise disk.journal_mb", 1.0
    )
