"""What of a site's updates asks its host: trust, wishes, and the health of what runs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.update.health import HealthMeter
from edge_agent.update.trial import Baseline, Health
from edge_agent.update.wishes import Wish, Wishes
from edge_sim.pool import Quality, pool
from edge_sync.trust.client import Trust, Trusted

if TYPE_CHECKING:
    from edge_sim.site_updates import SiteSide

STEPS_PER_S = 2.0
"""What an agent observes."""


class SimTrusted(Trusted):
    """Production's, with its host asked before and after it believes something new."""

    def __init__(self, host: "SiteSide", folder: Path) -> None:
        self._host = host
        super().__init__(folder, pool().root, host.machine.clock.us)

    def _verify(self, files: Mapping[str, bytes]) -> Trust:
        self._host.boundary("trust")
        trust = super()._verify(files)
        self._host.boundary("trusted")
        return trust


class SimWishes(Wishes):
    """Production's; a process that dies clears nothing more."""

    def __init__(self, host: "SiteSide", data: Path) -> None:
        super().__init__(data)
        self._host = host

    def clear(self, wish: Wish) -> None:
        if not self._host.machine.dying:
            super().clear(wish)


class SimMeter(HealthMeter):
    """Measures what the release says of itself."""

    def __init__(self, quality: Callable[[], Quality], now_s: float) -> None:
        self._quality, self._begun_s = quality, now_s

    def begin(self, now_s: float) -> None:
        self._begun_s = now_s

    def tick(self, now_s: float) -> None:
        """Nothing has to be remembered."""

    def baseline(self, now_s: float) -> Baseline:
        health = self.health(now_s)
        return Baseline(health.steps, health.errors / health.steps if health.steps else 0.0)

    def health(self, now_s: float) -> Health:
        steps = int((now_s - self._begun_s) * STEPS_PER_S)
        return Health(steps, steps // 2 if self._quality() == "disappoints" else 0)
