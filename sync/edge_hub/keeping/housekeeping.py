"""The thread that lets records go when the days they are kept are over, by the hub's own clock.

In each stream it stands at the first record that a rule matches and that is not old enough, and looks again when that
one is due. Small transactions: ingest has its turn between two of them.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from edge_hub.database.schema import meta, records, streams
from edge_hub.database.store import Store
from edge_hub.keeping.rules import read_keep
from edge_hub.records.stream import Key, of_stream
from edge_hub.records.tombstones import Run, bury, runs
from edge_sync.keep import CATCH_UP, Keep
from edge_sync.rows import EXPIRED

log = logging.getLogger(__name__)

LOOK_S = 600.0
"""Between two passes over the streams."""

STEP_ROWS = 1_000
"""Records looked at in one transaction."""

CLOCK = "housekeeping_us"
"""Key in `meta`: up to where the hub's clock was believed."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a stream goes on: behind `after`, not before `due_us`."""

    after: int
    due_us: int


@dataclass(frozen=True, slots=True)
class _Look:
    """What a step found: what is to go, the first record that waits for its time, and how far it came."""

    expired: list[Run]
    waits: _Place | None
    passed: int
    end: bool


class Housekeeping:
    """Runs the thread; `tidy` is one pass."""

    def __init__(
        self,
        store: Store,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        renew: Callable[[], object] = lambda: None,
    ) -> None:
        """`renew` signs again what ends soon; it is asked with each pass, and once at the start."""
        self._store, self._now_us, self._renew = store, now_us, renew
        self._keep = Keep([])
        self._places: dict[Key, _Place] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End after the step that runs."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def tidy(self, elapsed_s: float) -> int:
        """Let go what is due, so long after the pass before; returns how many records went."""
        with self._store.writing() as db:
            now_us = _believed(db, self._now_us(), elapsed_s)
            keep = read_keep(db)
        if keep != self._keep:
            self._keep, self._places = keep, {}
        gone = sum(self._tidy_stream(key, now_us) for key in self._streams()) if keep else 0
        if gone:
            log.info("records_expired", extra={"records": gone})
        return gone

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            try:
                self._renew()
                if wait_s:
                    self.tidy(wait_s)
            except Exception:  # a database that refuses for a while may not end it for ever
                log.exception("housekeeping_failed")
            wait_s = LOOK_S

    def _streams(self) -> list[Key]:
        with self._store.reading() as db:
            return [tuple(row) for row in db.execute(select(streams.c.site, streams.c.epoch, streams.c.lane))]

    def _tidy_stream(self, key: Key, now_us: int) -> int:
        place = self._places.get(key, _Place(0, 0))
        if now_us < place.due_us:
            return 0
        gone, after, waits = 0, place.after, None
        while not self._stopping.is_set():
            with self._store.reading() as db:
                look = _look(db, key, after, self._keep, now_us)
            if look.expired:
                with self._store.writing() as db:
                    look = _look(db, key, after, self._keep, now_us)
                    gone += bury(db, look.expired, EXPIRED, now_us)
            waits, after = _first(waits, look.waits), look.passed
            if look.end:
                self._places[key] = waits or _Place(after, now_us + self._keep.least_us)
                break
        return gone


def _look(db: Connection, key: Key, after: int, keep: Keep, now_us: int) -> _Look:
    mine = of_stream(records, key) & (records.c.seq > after)
    columns = (records.c.seq, records.c.kind, records.c.agent, records.c.received_us, records.c.hash)
    rows = db.execute(select(*columns).where(mine).order_by(records.c.seq).limit(STEP_ROWS)).all()
    expired: list[tuple[Key, int, bytes]] = []
    waits: _Place | None = None
    passed = after
    for row in rows:
        if row.received_us > now_us - keep.least_us:  # and so all behind it, which came later
            waits = _first(waits, _Place(passed, row.received_us + keep.least_us))
            return _Look(list(runs(expired)), waits, passed, True)
        age_us = keep.age_us(row.kind, row.agent)
        if age_us is not None and row.received_us + age_us <= now_us:
            expired.append((key, row.seq, bytes(row.hash)))
        elif age_us is not None:
            waits = _first(waits, _Place(passed, row.received_us + age_us))
        passed = row.seq
    return _Look(list(runs(expired)), waits, passed, len(rows) < STEP_ROWS)


def _first(one: _Place | None, other: _Place | None) -> _Place | None:
    """Where both wait: at the first of them, until the earlier time."""
    if one is None or other is None:
        return one or other
    return _Place(one.after, min(one.due_us, other.due_us))


def _believed(db: Connection, now_us: int, elapsed_s: float) -> int:
    """The hub's clock, which goes back at once, and forward `CATCH_UP` times as fast as time at the most."""
    before = db.scalar(select(meta.c.value).where(meta.c.key == CLOCK))
    if before is not None:
        now_us = min(now_us, int(before) + int(elapsed_s * 1e6) * CATCH_UP)
        db.execute(delete(meta).where(meta.c.key == CLOCK))
    db.execute(meta.insert().values(key=CLOCK, value=str(now_us)))
    return now_us
