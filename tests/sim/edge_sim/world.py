"""Virtual time, the one source of chance, and the timeline of what happened."""

import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_sync.trust.clock import BUILT_US

START_US = BUILT_US + 86_400_000_000
"""UTC microseconds: what a sound clock shows when a run begins; no site believes one before `BUILT_US`."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of the timeline. `now_s` is virtual time."""

    now_s: float
    who: str
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.now_s:12.3f}  {self.who:<10} {self.what:<18} {self.detail}"


@dataclass(slots=True)
class World:
    """Runs what was asked for, in the order of its time; the same seed runs the same, bit for bit."""

    seed: int
    now: float = 0.0
    rng: random.Random = field(init=False)
    timeline: list[Moment] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    _heap: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    _asked: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def after(self, delay_s: float, do: Callable[[], object]) -> None:
        """Have it done so many seconds from now."""
        self.at(self.now + delay_s, do)

    def at(self, when_s: float, do: Callable[[], object]) -> None:
        """Have it done then; what is asked for the same moment is done in the order of asking."""
        self._asked += 1
        heapq.heappush(self._heap, (max(when_s, self.now), self._asked, do))

    def run_until(self, until_s: float) -> None:
        """Let time pass."""
        while self._heap and self._heap[0][0] <= until_s:
            self.now, _, do = heapq.heappop(self._heap)
            do()
        self.now = until_s

    def say(self, who: str, what: str, detail: str = "") -> None:
        """Note it in the timeline."""
        self.timeline.append(Moment(self.now, who, what, detail))

    def draw(self) -> str:
        """16 hex digits."""
        return f"{self.rng.getrandbits(64):016x}"

    def digest(self) -> str:
        """sha256 of the timeline: equal for equal runs."""
        text = "\n".join(str(moment) for moment in self.timeline)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Clock:
    """A machine's own clock: it drifts, it jumps, it may stand in 1970."""

    world: World
    offset_us: int = 0
    rate: float = 1.0

    def us(self) -> int:
        """What it shows: UTC microseconds, never before 1970."""
        return max(1, START_US + self.offset_us + round(self.world.now * 1e6 * self.rate))
