"""How much each model is used, how often it fails, and how long it takes."""

import threading
from bisect import bisect_left
from dataclasses import dataclass

BUCKETS_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
"""Upper bounds, in seconds, of the latency histogram: from a tiny model to a text model on a busy node."""


@dataclass(frozen=True, slots=True)
class ModelStats:
    """One model's numbers since the process started; `requests` counts the failed ones too."""

    requests: int
    failures: int
    seconds: float
    """Spent in all."""
    buckets: tuple[int, ...]
    """Requests in each bucket of `BUCKETS_S` alone, then those beyond the last."""


class Stats:
    """Counters by model name, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, _Counts] = {}

    def add(self, name: str, seconds: float, *, failed: bool) -> None:
        """Count one request."""
        bucket = bisect_left(BUCKETS_S, seconds)
        with self._lock:
            counts = self._counts.get(name)
            if counts is None:
                counts = self._counts[name] = _Counts()
            counts.requests += 1
            counts.failures += failed
            counts.seconds += seconds
            counts.buckets[bucket] += 1

    def snapshot(self) -> dict[str, ModelStats]:
        """The numbers now, by model name."""
        with self._lock:
            return {
                name: ModelStats(c.requests, c.failures, c.seconds, tuple(c.buckets))
                for name, c in self._counts.items()
            }


class _Counts:
    """The mutable form of `ModelStats`."""

    __slots__ = ("buckets", "failures", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.failures = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS_S) + 1)
