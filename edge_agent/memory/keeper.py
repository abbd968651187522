"""The thread that keeps the journal inside its disk budget."""

import logging
import threading
import time
from collections.abc import Callable

from edge_agent.memory.journal import Journal, JournalUnavailableError
from edge_agent.memory.retention import HIGH_WATER, LOW_WATER, give_back, tend

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often the budget is looked at; between two looks a writer that is faster makes room by itself."""


class Keeper:
    """Drops what the budget has no room for, a step at a time, between the agents' transactions."""

    def __init__(self, journal: Journal, tick: Callable[[float], None] = lambda _: None) -> None:
        """`tick` is called at each look, with the monotonic time: what else is to be done now and then."""
        self._journal, self._tick = journal, tick
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the step that runs."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            try:
                self._make_room()
                self._tick(time.monotonic())
            except JournalUnavailableError as error:
                log.warning("keeper_waits", extra={"reason": str(error)})
            except Exception:  # without its keeper a journal grows until nothing can be written
                log.exception("keeper_failed")

    def _make_room(self) -> None:
        """Evict, and give back what is above a budget that was lowered: by turns, for a writer may be as fast."""
        journal, above = self._journal, HIGH_WATER
        budget, shrinks = journal.room.budget, journal.room.excess_pages() > 0
        while not self._stop.is_set():
            gone = journal.maintain(lambda db, above=above: tend(db, above, budget))  # type: ignore[misc]
            given = journal.maintain(lambda db: give_back(db, budget)) if shrinks else 0
            if not gone and not given:
                break
            above = LOW_WATER
        if shrinks:
            journal.fold()
