"""What a site's agents did since a moment: a release on trial is measured by it, and the one before it was.

Counts are differences of what each agent's loop counts. Crashes and latencies are not counted there: they are read
from the journal, which has a record of each.
"""

import json
import logging
import sqlite3
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edge_agent.loop import Loop
from edge_agent.memory.journal import Journal
from edge_agent.memory.schema import reading
from edge_agent.update.trial import Baseline, Health
from edge_agent.worker import Worker
from edge_models.errors import ConfigError
from edge_sync.rows import Lane

log = logging.getLogger(__name__)

MARKS = 10
"""Moments remembered in a window: the baseline's is at most a tenth longer or shorter than the window."""

MIN_INFERENCES = 20
"""Inferences of an agent before it has a p95: of fewer, that is the slowest."""

MAX_ROWS = 10_000
"""Rows of telemetry read at a time, the newest: what an agent of 10 Hz writes in eight minutes. Measured: 0.1 s."""

MAX_INFERENCES = 1_000
"""Of an agent that a p95 is of, the newest."""

_LANES: tuple[Lane, Lane] = ("alarm", "telemetry")


@dataclass(frozen=True, slots=True)
class _Counted:
    steps: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class _Mark:
    """A moment. Loops, not names: an agent that was hired anew counts from zero."""

    at_s: float
    loops: Mapping[Loop, _Counted]
    epoch: str
    alarm: int
    telemetry: int
    """Up to where the journal's lanes had come."""


@dataclass(slots=True)
class _Found:
    """What the journal says of the time since a mark."""

    crashes: Counter[str] = field(default_factory=Counter)
    infer_us: dict[str, deque[float]] = field(default_factory=dict)


class HealthMeter:
    """Used by one thread. Reads the journal only when it is asked, never in `tick`."""

    def __init__(
        self, journal: Journal, workers: Callable[[], Sequence[Worker]], window_s: float, now_s: float
    ) -> None:
        """`workers`: those that run (`Supervisor.workers`). `now_s` is monotonic, here and below."""
        self._journal, self._workers, self._window_s = journal, workers, window_s
        self._marks: deque[_Mark] = deque(maxlen=MARKS + 2)
        self.begin(now_s)

    def begin(self, now_s: float) -> None:
        """From now on another release runs: to be called as soon as it does."""
        self._begun = self._mark(now_s)
        self._marks.clear()
        self._marks.append(self._begun)
        self._since_begin, self._read_to = _Found(), self._begun

    def tick(self, now_s: float) -> None:
        """To be called from time to time, on trial or not: it remembers where a last window begins."""
        if now_s - self._marks[-1].at_s >= self._window_s / MARKS:
            self._marks.append(self._mark(now_s))

    def baseline(self, now_s: float) -> Baseline:
        """What ran in the last window, or since `begin`: to be called just before another release does."""
        start = self._marks[0]
        for mark in self._marks:
            if now_s - mark.at_s >= self._window_s:
                start = mark
        found = _Found()
        self._read(start, self._mark(now_s), found)
        health = self._health(start, found)
        rate = health.errors / health.steps if health.steps else 0.0
        return Baseline(health.steps, rate, health.latency_p95_s, health.restarts)

    def health(self, now_s: float) -> Health:
        """What ran since `begin`."""
        to = self._mark(now_s)
        if self._read(self._read_to, to, self._since_begin):
            self._read_to = to
        return self._health(self._begun, self._since_begin)

    def _mark(self, now_s: float) -> _Mark:
        loops = {worker.loop: _counted(worker.loop) for worker in self._workers()}
        heads = self._journal.heads()
        alarm, telemetry = (heads.ends.get(lane, (0, ""))[0] for lane in _LANES)
        return _Mark(now_s, loops, heads.epoch, alarm, telemetry)

    def _health(self, start: _Mark, found: _Found) -> Health:
        steps, errors = 0, found.crashes.total()
        for worker in self._workers():
            now, then = _counted(worker.loop), start.loops.get(worker.loop, _Counted())
            steps += now.steps - then.steps
            errors += now.errors - then.errors
        latencies = {agent: _p95_s(values) for agent, values in found.infer_us.items() if len(values) >= MIN_INFERENCES}
        return Health(steps, errors, dict(found.crashes), latencies)

    def _read(self, start: _Mark, to: _Mark, found: _Found) -> bool:
        """Add what the journal has between two moments; whether it could be read. Damage is the journal's to tell."""
        if (start.epoch, start.alarm, start.telemetry) == (to.epoch, to.alarm, to.telemetry):
            return True
        alarm, telemetry = start.alarm, start.telemetry
        crashes = []
        try:
            with reading(self._journal.path) as connection:
                if start.epoch != to.epoch:  # a fork: the rest of the old epoch, then the new one from its beginning
                    crashes = _crashes(connection, start.epoch, alarm, 2**53)
                    alarm = telemetry = 0
                crashes += _crashes(connection, to.epoch, alarm, to.alarm)
                after = max(telemetry, to.telemetry - MAX_ROWS)
                times = list(_infer_us(connection, to.epoch, after, to.telemetry))
        except (sqlite3.Error, ConfigError) as error:
            log.warning("health_not_read", extra={"reason": str(error)})
            return False
        found.crashes.update(crashes)
        for agent, infer_us in times:
            found.infer_us.setdefault(agent, deque(maxlen=MAX_INFERENCES)).append(infer_us)
        return True


def _counted(loop: Loop) -> _Counted:
    """All that was taken ends as a decision or as malformed: what no model could read was a step too."""
    counts = loop.counts
    return _Counted(counts.decisions + counts.malformed, counts.malformed + counts.failed_actions)


def _crashes(connection: sqlite3.Connection, epoch: str, after: int, to: int) -> list[str]:
    """The agent of each crash in this part of an epoch's alarms."""
    rows = connection.execute(
        "SELECT agent FROM journal WHERE epoch=? AND lane='alarm' AND seq>? AND seq<=? AND kind='event'"
        " AND label='crash'",
        (epoch, after, to),
    )
    return [agent for (agent,) in rows]


def _infer_us(connection: sqlite3.Connection, epoch: str, after: int, to: int) -> Iterator[tuple[str, float]]:
    """Agent, and microseconds that one observation's inference took, in the order they were made."""
    rows = connection.execute(
        "SELECT agent, body FROM journal WHERE epoch=? AND lane='telemetry' AND seq>? AND seq<=?"
        " AND kind='prediction' ORDER BY seq",
        (epoch, after, to),
    )
    for agent, body in rows:
        try:
            yield agent, float(json.loads(body)["infer_us"])
        except (ValueError, TypeError, KeyError):  # a body that was too large, or was damaged on the disk
            continue


def _p95_s(values_us: Iterable[float]) -> float:
    """The smallest value that at least 95 % are not above, in seconds."""
    ordered = sorted(values_us)
    return ordered[(95 * len(ordered) + 99) // 100 - 1] / 1e6
