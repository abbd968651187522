"""Refusals in the audit: each that is worth a look, and of what anybody can provoke only so many, counted."""

import logging
import threading
from collections.abc import Callable

from edge_hub.database.store import Store
from edge_hub.enrol.issuing import WHO
from edge_hub.enrol.rate import RateLimit
from edge_hub.enrol.refused import RefusedError
from edge_hub.records import audit

log = logging.getLogger(__name__)


class Refusals:
    """Notes refusals, from any thread. Who has shown a true secret or certificate is apart from who has not: a flood
    of guesses hides no theft."""

    def __init__(self, store: Store, now_us: Callable[[], int], clock: Callable[[], float]) -> None:
        self._store, self._now_us, self._clock = store, now_us, clock
        self._limits = {True: RateLimit(burst=60, per_s=1 / 60), False: RateLimit(burst=20, per_s=1 / 600)}
        self._left_out = {True: 0, False: 0}
        self._lock = threading.Lock()

    def note(self, error: RefusedError, what: str, name: str, address: str) -> None:
        """One was refused: who asked for what, by which name. In the log always, in the audit within limits."""
        detail = {"asked": what, "by": name[:80], "address": address, "status": error.status, "reason": str(error)}
        log.warning("enrolment_refused", extra=detail)
        with self._lock:
            if self._limits[error.proven].take("", self._clock()):
                self._left_out[error.proven] += 1
                return
            left_out, self._left_out[error.proven] = self._left_out[error.proven], 0
        if left_out:
            detail["refused_before_and_not_noted"] = left_out
        with self._store.writing() as db:
            audit.note(db, self._now_us(), WHO, "enrolment refused", detail)

    def flush(self) -> None:
        """Note how many were left out since the last that was noted."""
        with self._lock:
            left_out = dict(self._left_out)
        if any(left_out.values()):
            detail = {"proven": left_out[True], "others": left_out[False]}
            with self._store.writing() as db:
                audit.note(db, self._now_us(), WHO, "enrolments refused and not noted one by one", detail)
            with self._lock:
                for proven, count in left_out.items():
                    self._left_out[proven] = max(0, self._left_out[proven] - count)
