"""A rule's rate limit: so many times in so many seconds, over a window that slides."""

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `times` in any `per_s` seconds."""

    times: int
    per_s: float


class Window:
    """When, in monotonic seconds, a limited rule last acted: `limit.times` moments at most."""

    __slots__ = ("_limit", "_moments_s")

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._moments_s: deque[float] = deque(maxlen=limit.times)

    def take(self, now_s: float) -> bool:
        """Whether the rule may act now; if it may, that is counted."""
        full = len(self._moments_s) == self._limit.times
        if full and now_s - self._moments_s[0] < self._limit.per_s:
            return False
        self._moments_s.append(now_s)
        return True
