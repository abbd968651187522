"""The thread that takes what the hub says of the fleet's facts: verified here, away from agents and uplink."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Collection

from edge_agent.memory.facts import Facts
from edge_agent.refusals import Refusals
from edge_models.errors import RejectedError, RetryableError
from edge_sync.documents import FleetFacts, load
from edge_sync.facts import FACTS_TYPE, Changed
from edge_sync.signing import verify

log = logging.getLogger(__name__)

MAX_WAITING = 8
"""Documents in memory; the oldest give way, and the next heartbeat asks for what they held."""


class FleetFactsService:
    """Takes documents from any thread, one after the other."""

    def __init__(self, directors: Callable[[], Collection[str]], facts: Facts, refusals: Refusals) -> None:
        """`directors` are the keys, hex, whose word counts now."""
        self._directors, self._facts, self._refusals = directors, facts, refusals
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="fleet-facts", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop after what is being done now."""
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join()

    def heard(self, envelope: bytes) -> None:
        """A document came, not verified yet; returns at once."""
        with self._news:
            self._waiting.append(envelope)
            self._news.notify()

    def take(self, envelope: bytes) -> None:
        """Verify a document and do what it says; what is refused is a record in the alarm lane, once in a while."""
        try:
            document = load(FleetFacts, verify(envelope, FACTS_TYPE, self._directors()))
            outcome = self._facts.take(document)
        except RejectedError as error:
            self._refusals.add(str(error))
        except RetryableError as error:  # a full disk: the version in the next heartbeat asks for it again
            log.warning("facts_not_kept", extra={"reason": str(error)})
        else:
            if isinstance(outcome, Changed):
                extra = {"version": outcome.version, "set": len(outcome.facts), "deleted": len(outcome.gone)}
                log.info("facts_taken", extra=extra)
            else:
                log.debug("facts_passed", extra={"reason": outcome.reason})

    def _run(self) -> None:
        while (envelope := self._next()) is not None:
            try:
                self.take(envelope)
            except Exception:  # the thread must live: a defect here may not end the fleet's facts for ever
                log.exception("facts_failed")

    def _next(self) -> bytes | None:
        """The oldest document that waits, waiting for it; None when it is time to stop."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closing)
            return None if self._closing else self._waiting.popleft()
