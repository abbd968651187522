"""One agent's thread: runs its loop, and when that crashes starts it again, a little later each time.

A crash is a record and never takes another agent down.
"""

import logging
import threading
import time
from collections.abc import Callable

from edge_agent.brain import Brain
from edge_agent.loop import Loop
from edge_agent.memory.draft import Draft, to_body
from edge_agent.memory.journal import Journal, JournalUnavailableError
from edge_agent.recent import Recent
from edge_agent.sources.base import Source
from edge_models.errors import KitError
from edge_sync.release import SourceSpec

log = logging.getLogger(__name__)

BACKOFF_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""How long an agent waits after its first, second, … crash in a row."""

CALM_S = 60.0
"""An agent that ran so long has recovered: its next crash counts as the first."""

TAKE_S = 0.5
"""The longest a step waits for something to come, and so the longest a stop or a new brain waits for it."""


class Worker:
    """One agent. `brain` may be replaced at any time; the step that runs ends with the one it began with."""

    def __init__(
        self,
        brain: Brain,
        loop: Loop,
        recent: Recent,
        journal: Journal,
        make_source: Callable[[Brain], Source],
        now_us: Callable[[], int],
    ) -> None:
        """`make_source` opens nothing; the worker starts and closes what it makes."""
        self.brain = brain
        self.loop = loop
        self.problem: str | None = None
        """Why the agent does not run now, None while it does."""
        self.exhausted = False
        self._source: Source | None = None
        self._recent, self._journal, self._make_source, self._now_us = recent, journal, make_source, now_us
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"agent-{brain.spec.name}", daemon=True)

    @property
    def source_spec(self) -> SourceSpec:
        """Where this agent's observations come from."""
        return self.brain.spec.source

    @property
    def waits_for(self) -> str | None:
        """Why nothing can come from the source now (its broker is away), None where it can."""
        return getattr(self._source, "problem", None)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end after the step that runs; `join` waits for that."""
        self._stop.set()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end of the last step; whether it came. One that does not come is the agent's problem."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.problem = "was told to stop, but the step that runs does not end"
            return False
        return True

    def _run(self) -> None:
        crashes = 0
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                if crashes:
                    self.loop.settle(self.brain)
                self._observe()
                return
            except KitError as error:  # it says what is wrong: nobody needs to see where
                self.problem = str(error)[:500]
                log.error("agent_crashed", extra={"agent": self.brain.spec.name, "reason": self.problem})
            except Exception as error:  # whatever it is, it is this agent's alone
                self.problem = f"{type(error).__name__}: {error}"[:500]
                log.exception("agent_crashed", extra={"agent": self.brain.spec.name, "reason": self.problem})
            if time.monotonic() - started > CALM_S:
                crashes = 0
            wait_s = BACKOFF_S[min(crashes, len(BACKOFF_S) - 1)]
            crashes += 1
            self._remember({"crash": self.problem, "again_in_s": wait_s})
            self._stop.wait(wait_s)

    def _observe(self) -> None:
        """Run the loop until the worker is stopped or its source has no more to give."""
        source = self._source = self._make_source(self.brain)
        try:
            source.start()
            while not self._stop.is_set():
                taken = self._step(source)
                if not taken and source.exhausted():
                    self.exhausted = True
                    return
        finally:
            source.close()

    def _step(self, source: Source) -> int:
        try:
            taken = self.loop.step(self.brain, source, self._recent, TAKE_S)
        except JournalUnavailableError as error:  # no record, no act: what was taken is decided on once there is room
            self.problem = str(error)
            self._stop.wait(error.retry_after_s)
            return 1
        self.problem = None
        return taken

    def _remember(self, what: dict[str, object]) -> None:
        event = Draft("alarm", "event", self.brain.spec.name, self._now_us(), to_body(what), label="crash")
        try:
            self._journal.later([event])
        except KitError as error:  # the agent must be started again all the same
            log.warning("crash_not_recorded", extra={"agent": self.brain.spec.name, "reason": str(error)})
