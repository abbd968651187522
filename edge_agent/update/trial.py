"""Whether a new release stays, pure: for a while after its activation it is on trial against the one before it.

    on trial ──sample(): the window ends, nothing wrong────────► Confirm
             ──booted(), sample(): it disappoints──────────────► GoBack   (Stay, where there is nothing to go back to)

`health` measures, `slots` remembers; the shell executes what comes out. Time is monotonic, in seconds: one process
hands the next what the window had left, so that no clock is believed.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """When a release has disappointed. Raises `ValueError` where a number makes no sense."""

    window_s: float = 600.0
    """How long a release is on trial. Ten minutes: a crash that backs off to a minute comes ten times in it."""
    min_steps: int = 20
    """Observations before rates and latencies count: of fewer, a p95 is only the slowest."""
    max_boots: int = 3
    """Starts of the process on trial: two power cuts and a restart by hand are no fault of a release."""
    max_restarts: int = 3
    """Crashes of one agent in the window: the fourth comes within half a minute where every start crashes."""
    max_error_ratio: float = 3.0
    """Errors per step against the release before: less is what two windows of one release differ by."""
    min_error_rate: float = 0.05
    """Errors per step that are borne whatever the release before did: one broken message in twenty stops no machine."""
    min_errors: int = 5
    """Errors that are borne whatever their share: of twenty steps, two are bad luck."""
    max_latency_ratio: float = 2.0
    """p95 of an agent's inference against the release before; less may be the node's other work."""
    min_latency_s: float = 0.05
    """p95 that is borne whatever the release before took: most sources say less than twenty things a second."""
    keep_s: float = 30.0
    """How often the row is written: a power cut takes so much off what was counted, and a flash card bears it."""

    def __post_init__(self) -> None:
        if not (self.window_s > 0 and self.keep_s > 0 and self.min_steps > 0):
            raise ValueError("a trial needs a window, steps to judge by, and a time between two rows")
        counts = (self.max_boots, self.max_restarts, self.min_errors, self.min_error_rate, self.min_latency_s)
        if not (min(counts) >= 0 and self.max_error_ratio >= 1 and self.max_latency_ratio >= 1):
            raise ValueError("a release may not have to be better than the one before")


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the release before did in its last window; as it is by default, nothing is known of it."""

    steps: int = 0
    errors_per_step: float = 0.0
    latency_p95_s: Mapping[str, float] = field(default_factory=dict)
    """By agent; those with enough inferences."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """Crashes by agent: one that crashed before is no better off when the release goes back."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a release did since its activation, or since the process started where that was later."""

    steps: int = 0
    """Observations that were inferred, or should have been."""
    errors: int = 0
    """Crashes of agents, observations not inferred, acts that did not succeed."""
    restarts: Mapping[str, int] = field(default_factory=dict)
    """Crashes by agent; an agent starts again after each."""
    latency_p95_s: Mapping[str, float] = field(default_factory=dict)
    """Of one observation's inference, by agent; those with enough inferences."""


@dataclass(frozen=True, slots=True)
class TrialRow:
    """What outlives the process. A row that says nothing, or nothing that can be read, is a trial's beginning."""

    left_s: float | None = None
    """Of the window; None: all of it."""
    seen: str | None = None
    """JSON: the baseline, and what was counted so far."""


@dataclass(frozen=True, slots=True)
class Keep:
    """Write this row; it is no verdict."""

    row: TrialRow


@dataclass(frozen=True, slots=True)
class Confirm:
    """The release stays. `quiet`: it had little to do, so that little is proven."""

    steps: int
    quiet: bool


@dataclass(frozen=True, slots=True)
class GoBack:
    """The release before runs again; this one is refused until a newer generation asks for it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stay:
    """The release disappoints for this reason, and stays: there is nothing to go back to."""

    reason: str


Effect = Keep | Confirm | GoBack | Stay


class Trial:
    """One release's trial. Each event gives one effect or None: wait. After a verdict there is none any more."""

    def __init__(
        self,
        baseline: Baseline,
        can_go_back: bool,
        now_s: float,
        settings: TrialSettings = TrialSettings(),
    ) -> None:
        """It begins now: the release was activated."""
        self._baseline, self._can_go_back, self._settings = baseline, can_go_back, settings
        self._before = self._health = Health()
        """What earlier processes counted; that, and what this one did."""
        self._left_s = self._kept_left_s = settings.window_s
        self._last_s = now_s
        self.over = False

    @classmethod
    def from_row(
        cls,
        row: TrialRow,
        can_go_back: bool,
        now_s: float,
        settings: TrialSettings = TrialSettings(),
    ) -> "Trial":
        """The trial that an earlier process began, with the seconds it had left."""
        baseline, before = _read(row.seen)
        trial = cls(baseline, can_go_back, now_s, settings)
        trial._before = trial._health = before
        if row.left_s is not None and 0 <= row.left_s < settings.window_s:
            trial._left_s = trial._kept_left_s = row.left_s
        return trial

    def to_row(self) -> TrialRow:
        """What the next process needs to go on. To be written when a trial begins, with `Keep`, and at a clean stop."""
        base, health = self._baseline, self._health
        seen = {
            "baseline": {
                "steps": base.steps,
                "errors_per_step": base.errors_per_step,
                "latency_p95_s": dict(base.latency_p95_s),
                "restarts": dict(base.restarts),
            },
            "counted": {"steps": health.steps, "errors": health.errors, "restarts": dict(health.restarts)},
        }
        return TrialRow(self._left_s, json.dumps(seen, separators=(",", ":")))

    def booted(self, boots: int, now_s: float) -> Effect | None:
        """The process started, for the time number `boots` since the release was activated (`slots.note_boot`)."""
        if self.over:
            return None
        self._last_s = now_s
        if boots > self._settings.max_boots:
            return self._disappointed(f"the site started {boots} times before it was confirmed")
        return None

    def sample(self, health: Health, now_s: float) -> Effect | None:
        """What the release did in this process. Until `window_s` are over, to be called every few seconds."""
        if self.over:
            return None
        self._left_s = max(0.0, self._left_s - max(0.0, now_s - self._last_s))
        self._last_s = now_s
        self._health = health = _sum(self._before, health)
        reason = self._crashes(health) or self._errors(health) or self._slowness(health)
        if reason is not None:
            return self._disappointed(reason)
        if self._left_s <= 0:
            self.over = True
            return Confirm(health.steps, quiet=health.steps < self._settings.min_steps)
        if self._kept_left_s - self._left_s >= self._settings.keep_s:
            self._kept_left_s = self._left_s
            return Keep(self.to_row())
        return None

    def _disappointed(self, reason: str) -> Effect:
        self.over = True
        return GoBack(reason) if self._can_go_back else Stay(reason)

    def _crashes(self, health: Health) -> str | None:
        for agent, count in sorted(health.restarts.items()):
            if count > max(self._settings.max_restarts, self._baseline.restarts.get(agent, 0)):
                return f"agent {agent!r} crashed {count} times"
        return None

    def _errors(self, health: Health) -> str | None:
        settings, base = self._settings, self._baseline
        if health.steps < settings.min_steps or health.errors < settings.min_errors:
            return None
        # A baseline of few steps counts as if those that lack had been clean: one error in one step excuses nothing.
        known = base.errors_per_step * min(1.0, base.steps / settings.min_steps)
        rate = health.errors / health.steps
        if rate <= max(known * settings.max_error_ratio, settings.min_error_rate):
            return None
        had = f"{base.errors_per_step:.1%} of {base.steps}" if base.steps else "nothing"
        return f"{health.errors} errors in {health.steps} steps ({rate:.1%}); of the release before is known: {had}"

    def _slowness(self, health: Health) -> str | None:
        settings = self._settings
        if health.steps < settings.min_steps:
            return None
        for agent, p95_s in sorted(health.latency_p95_s.items()):
            before_s = self._baseline.latency_p95_s.get(agent)
            if before_s is None or p95_s <= max(before_s * settings.max_latency_ratio, settings.min_latency_s):
                continue
            return (
                f"agent {agent!r} needs {p95_s * 1e3:.1f} ms for an observation (p95), before {before_s * 1e3:.1f} ms"
            )
        return None


def _sum(before: Health, now: Health) -> Health:
    """Latencies are those of this process: percentiles do not add up."""
    restarts = Counter(before.restarts) + Counter(now.restarts)
    return Health(before.steps + now.steps, before.errors + now.errors, dict(restarts), now.latency_p95_s)


def _read(seen: str | None) -> tuple[Baseline, Health]:
    """Nothing proves the row of a memory that was damaged: what can't be read was not seen."""
    try:
        read = json.loads(seen or "")
        base, counted = read["baseline"], read["counted"]
        baseline = Baseline(
            int(_number(base["steps"])),
            _number(base["errors_per_step"]),
            {str(agent): _number(p95_s) for agent, p95_s in base["latency_p95_s"].items()},
            _counts(base["restarts"]),
        )
        before = Health(int(_number(counted["steps"])), int(_number(counted["errors"])), _counts(counted["restarts"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Baseline(), Health()
    return baseline, before


def _counts(read: Any) -> dict[str, int]:
    return {str(agent): int(_number(count)) for agent, count in read.items()}


def _number(value: Any) -> float:
    if not 0 <= value < math.inf:  # NaN is neither
        raise ValueError(f"no number that was ever written: {value}")
    return float(value)
