"""The thread that keeps the journal inside its disk budget."""

import logging
import threading

from edge_agent.memory.journal import Journal, JournalUnavailableError
from edge_agent.memory.retention import HIGH_WATER, LOW_WATER, tend

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often the budget is looked at; between two looks the file can't outgrow SQLite's own page limit."""


class Keeper:
    """Drops what the budget has no room for, a step at a time, between the agents' transactions."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
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
                above = HIGH_WATER
                while not self._stop.is_set() and self._journal.maintain(lambda db, above=above: tend(db, above)):  # type: ignore[misc]
                    above = LOW_WATER
            except JournalUnavailableError as error:
                log.warning("keeper_waits", extra={"reason": str(error)})
            except Exception:  # without its keeper a journal grows until nothing can be written
                log.exception("keeper_failed")
