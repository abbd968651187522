"""How often an agent saw a label lately: what `recent(label, seconds)` in a policy counts."""

import bisect
from collections.abc import Callable, Iterable

HORIZON_S = 3600.0
"""The longest look back a policy may take."""

MAX_TIMES = 20_000
"""Times kept for one label; beyond it the oldest are forgotten."""


class Recent:
    """Times of an agent's predictions by label, seeded from the journal so that a restart forgets nothing."""

    def __init__(self, seed: Iterable[tuple[str, int]] = ()) -> None:
        """`seed`: labels and UTC microseconds, in the order they were made, none later than now."""
        self._times: dict[str, list[int]] = {}
        self._latest_us = 0
        for label, at_us in seed:
            self.add(label, at_us)

    def add(self, label: str, at_us: int) -> None:
        """One more prediction. Where the clock was set back, what seems to be yet to come moves to this moment."""
        if at_us < self._latest_us:
            self._set_back(at_us)
        self._latest_us = at_us
        times = self._times.setdefault(label, [])
        times.append(at_us)
        if len(times) > MAX_TIMES:
            horizon = bisect.bisect_left(times, times[-1] - round(HORIZON_S * 1e6))
            del times[: max(horizon, MAX_TIMES // 10)]

    def counter(self, now_us: int) -> Callable[[str, float], int]:
        """The function a policy calls: predictions of `label` in the last `seconds`, this one included."""

        def count(label: str, seconds: float) -> int:
            times = self._times.get(label, [])
            return len(times) - bisect.bisect_left(times, now_us - round(min(seconds, HORIZON_S) * 1e6))

        return count

    def _set_back(self, now_us: int) -> None:
        for times in self._times.values():
            ahead = len(times) - bisect.bisect_right(times, now_us)
            if ahead:
                times[-ahead:] = [now_us] * ahead
