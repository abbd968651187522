"""What a trial is judged by: real loops on a real journal, stepped by hand or run by their workers."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edge_agent import worker as worker_module
from edge_agent.actor import Actor
from edge_agent.brain import Brain
from edge_agent.inference.registry import Models
from edge_agent.loop import Loop
from edge_agent.memory.draft import Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.memory.queries import newest
from edge_agent.memory.schema import reading
from edge_agent.recent import Recent
from edge_agent.sources.base import Source, SourceContext
from edge_agent.sources.registry import make_source
from edge_agent.tools.base import Call
from edge_agent.update import health as health_module
from edge_agent.update.health import HealthMeter
from edge_agent.update.trial import Baseline, GoBack, Health, Trial
from edge_agent.worker import Worker
from edge_models.errors import ConfigError, RetryableError
from edge_models.shipped import shipped_path
from edge_sync.rows import Lane

WINDOW_S = 600.0


def now_us() -> int:
    return time.time_ns() // 1000


class Lamp:
    """A tool that works until it is broken."""

    idempotent = True
    lane: Lane = "decision"
    broken = False

    def run(self, args: Mapping[str, Any], call: Call) -> dict[str, Any]:
        if self.broken:
            raise RetryableError("the lamp does not answer", 1.0)
        return {}

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Floor:
    """The agents of a site, and their meter."""

    journal: Journal
    folder: Path
    workers: list[Worker] = field(default_factory=list)
    lamp: Lamp = field(default_factory=Lamp)

    def __post_init__(self) -> None:
        self._actor = Actor(self.journal, {"alert": self.lamp}, frozenset(["alert"]), now_us)
        self.meter = HealthMeter(self.journal, lambda: self.workers, WINDOW_S, 0.0)

    def hire(self, brain: Brain, spoil: Callable[[Source], None] = lambda _: None) -> Worker:
        """A worker that is not started yet. `spoil` may change each source that it makes."""

        def source(of: Brain) -> Source:
            made = self._source(of)
            spoil(made)
            return made

        loop = Loop(self.journal, self._actor, Models(), {}, dict, now_us, time.monotonic)
        self.workers.append(Worker(brain, loop, Recent(), self.journal, source, now_us))
        return self.workers[-1]

    def play(self, worker: Worker, times: int = 1) -> None:
        """All that its source has, so many times, on this thread."""
        for _ in range(times):
            source = self._source(worker.brain)
            source.start()
            while not source.exhausted():
                worker.loop.step(worker.brain, source, Recent(), 0.0)
            source.close()

    def crash(self, brain: Brain, times: int) -> None:
        """Run a worker that crashes so often, then comes to its source's end."""
        sources: list[Source] = []

        def fail(source: Any) -> None:
            sources.append(source)
            if len(sources) <= times:
                source.take = _no_machine

        worker = self.hire(brain, fail)
        worker.start()
        assert worker.join(20)
        assert len(sources) == times + 1
        self.journal.flush()

    def _source(self, brain: Brain) -> Source:
        context = SourceContext("plant-01", brain.spec.name, self.folder, self.folder, _no_endpoint, now_us)
        return make_source(brain.spec.source, context)


def _no_endpoint(name: str) -> Any:
    raise ConfigError(f"no endpoint is named {name!r}")


def _no_machine(most: int, timeout_s: float) -> Any:
    raise OSError("the machine is gone")


@pytest.fixture
def floor(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Floor]:
    monkeypatch.setattr(worker_module, "BACKOFF_S", (0.01,))
    made = Floor(journal, tmp_path)
    yield made
    for worker in made.workers:
        worker.stop()


def replay(limit: int) -> dict[str, Any]:
    return {"kind": "replay", "file": str(shipped_path("trace", "2")), "limit": limit}


def predict(journal: Journal, agent: str, infer_us: list[float], **body: Any) -> None:
    drafts = [
        Draft("telemetry", "prediction", agent, 1, to_body({"infer_us": value, **body}), label="ok", score=0.5)
        for value in infer_us
    ]
    journal.write(drafts)


def test_steps_and_errors_are_those_since_the_release_began(floor: Floor, make_brain: Any) -> None:
    worker = floor.hire(make_brain(source=replay(3)))
    floor.lamp.broken = True
    floor.play(worker)
    assert floor.meter.health(1.0) == Health(steps=3, errors=3)
    floor.meter.begin(2.0)
    assert floor.meter.health(3.0) == Health()
    floor.lamp.broken = False
    floor.play(worker)
    assert floor.meter.health(4.0) == Health(steps=3)
    floor.lamp.broken = True
    floor.play(worker)
    assert floor.meter.health(5.0) == Health(steps=6, errors=3)


def test_an_agent_that_is_hired_anew_counts_from_zero(floor: Floor, make_brain: Any) -> None:
    floor.play(floor.hire(make_brain(source=replay(5))))
    floor.meter.begin(1.0)
    floor.workers.clear()
    floor.play(floor.hire(make_brain(source=replay(2))))
    assert floor.meter.health(2.0).steps == 2


def test_what_no_model_can_read_is_a_step_that_failed(floor: Floor, make_brain: Any) -> None:
    (floor.folder / "other.jsonl").write_text("{}\n" * 30 + "no JSON\n" * 10)
    worker = floor.hire(make_brain(source={"kind": "replay", "file": "other.jsonl"}))
    floor.play(worker)
    health = floor.meter.health(1.0)
    assert health == Health(steps=40, errors=40)
    assert isinstance(Trial(Baseline(1000, 0.0), True, 0.0).sample(health, 1.0), GoBack)


def test_crashes_are_counted_by_agent(floor: Floor, make_brain: Any) -> None:
    floor.crash(make_brain(source=replay(1)), 2)
    floor.meter.begin(1.0)
    floor.crash(make_brain(source=replay(1), name="saw"), 4)
    floor.crash(make_brain(source=replay(1)), 1)
    health = floor.meter.health(2.0)
    assert health.restarts == {"saw": 4, "press": 1}
    assert (health.steps, health.errors) == (2, 5)
    assert floor.meter.health(3.0) == health, "each is counted once"
    verdict = Trial(Baseline(), True, 0.0).sample(health, 3.0)
    assert verdict == GoBack("agent 'saw' crashed 4 times")


def test_crashes_on_both_sides_of_a_fork_are_counted(floor: Floor, make_brain: Any) -> None:
    floor.crash(make_brain(source=replay(1)), 1)
    assert floor.meter.health(1.0).restarts == {"press": 1}
    floor.crash(make_brain(source=replay(1)), 2)
    floor.journal.new_epoch()
    floor.crash(make_brain(source=replay(1)), 3)
    assert floor.meter.health(2.0).restarts == {"press": 6}
    assert floor.meter.health(3.0).restarts == {"press": 6}


def test_latency_is_what_the_journal_says_of_each_inference(floor: Floor, make_brain: Any) -> None:
    worker = floor.hire(make_brain(source=replay(20)))
    floor.play(worker)
    health = floor.meter.health(1.0)
    with reading(floor.journal.path) as db:
        took = sorted(record.body["infer_us"] for _, record in newest(db, 100, "prediction"))
    assert len(took) == 20
    assert health.latency_p95_s == {"press": took[18] / 1e6}


def test_a_p95_is_of_enough_inferences_of_one_agent_since_the_release_began(floor: Floor) -> None:
    predict(floor.journal, "press", [9e6] * 50)
    floor.meter.begin(1.0)
    predict(floor.journal, "press", [float(n) for n in range(1, 101)])
    predict(floor.journal, "saw", [5.0] * 19)
    assert floor.meter.health(2.0).latency_p95_s == {"press": 95e-6}
    predict(floor.journal, "saw", [7.0])
    assert floor.meter.health(3.0).latency_p95_s == {"press": 95e-6, "saw": 5e-6}
    predict(floor.journal, "saw", [7.0])
    assert floor.meter.health(4.0).latency_p95_s["saw"] == 7e-6, "19 of 21 are less than 95 %"


def test_of_very_many_inferences_the_newest_count(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "MAX_ROWS", 40)
    predict(floor.journal, "press", [9e6] * 100 + [5.0] * 40)
    assert floor.meter.health(1.0).latency_p95_s == {"press": 5e-6}


def test_a_prediction_that_does_not_say_how_long_it_took_is_passed_over(floor: Floor) -> None:
    predict(floor.journal, "press", [5.0] * 20)
    predict(floor.journal, "press", [9e6], scores={"x" * 70_000: 1.0})  # a body that was too large
    floor.journal.write([Draft("telemetry", "prediction", "press", 1, "[]"), Draft("telemetry", "event", "a", 1, "{}")])
    assert floor.meter.health(1.0).latency_p95_s == {"press": 5e-6}


def test_the_baseline_is_of_the_last_window(floor: Floor, make_brain: Any) -> None:
    worker = floor.hire(make_brain(source=replay(10)))
    floor.lamp.broken = True
    floor.play(worker)
    floor.crash(make_brain(source=replay(1), name="saw"), 4)
    floor.lamp.broken = False
    predict(floor.journal, "oven", [9e6] * 50)
    for now in range(5, 1000, 5):
        floor.meter.tick(float(now))
    floor.play(worker, 3)
    predict(floor.journal, "oven", [7.0] * 50)
    floor.lamp.broken = True
    floor.play(worker)
    base = floor.meter.baseline(1000.0)
    assert (base.steps, base.errors_per_step) == (40, 0.25)
    assert base.restarts == {}
    assert base.latency_p95_s.keys() == {"press", "oven"}
    assert base.latency_p95_s["oven"] == 7e-6


def test_a_window_that_is_not_over_is_all_there_is(floor: Floor, make_brain: Any) -> None:
    floor.play(floor.hire(make_brain(source=replay(3))))
    floor.crash(make_brain(source=replay(1), name="saw"), 4)
    floor.meter.tick(100.0)
    base = floor.meter.baseline(150.0)
    assert (base.steps, base.errors_per_step, base.restarts) == (4, 1.0, {"saw": 4})
    floor.meter.begin(151.0)
    assert floor.meter.baseline(160.0) == Baseline(), "it is of what runs now, not of the one before"


def test_a_window_begins_within_a_tenth_of_where_it_should(floor: Floor, make_brain: Any) -> None:
    worker = floor.hire(make_brain(source=replay(1)))
    for now in range(1, 3001):
        floor.meter.tick(float(now))
        if now % 10 == 0:
            floor.play(worker)
    assert 60 <= floor.meter.baseline(3000.0).steps <= 66


def test_a_memory_that_cannot_be_read_now_is_read_later(floor: Floor, make_brain: Any) -> None:
    floor.crash(make_brain(source=replay(1)), 2)
    path = floor.journal.path
    away = path.rename(path.with_name("away"))
    assert floor.meter.health(1.0) == Health(steps=1)
    away.rename(path)
    assert floor.meter.health(2.0) == Health(steps=1, errors=2, restarts={"press": 2})
