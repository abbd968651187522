"""An agent's thread: it comes back from whatever happens, and settles what it left."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge_agent import worker as worker_module
from edge_agent.actor import Actor
from edge_agent.brain import Brain
from edge_agent.inference.registry import Models
from edge_agent.loop import Loop
from edge_agent.memory.journal import Journal
from edge_agent.memory.queries import newest, open_intents
from edge_agent.memory.schema import reading
from edge_agent.recent import Recent
from edge_agent.sources.base import Source, SourceContext
from edge_agent.sources.registry import make_source
from edge_agent.tools.alert import Alert
from edge_agent.tools.base import ToolContext
from edge_agent.worker import Worker


def now_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "BACKOFF_S", (0.05,))


@pytest.fixture
def hire(journal: Journal, tmp_path: Any) -> Iterator[Callable[..., Worker]]:
    """Makes a worker that is stopped at the end. `spoil` may change each source that it makes."""
    hired: list[Worker] = []
    tools = ToolContext("plant-01", lambda _: pytest.fail("no endpoint"), lambda *_: None, now_us)
    actor = Actor(journal, {"alert": Alert(tools)}, frozenset(["alert"]), now_us)

    def make(brain: Brain, spoil: Callable[[Source], None] = lambda _: None) -> Worker:
        def source(of: Brain) -> Source:
            context = SourceContext("plant-01", "press", tmp_path, tmp_path, tools.endpoint, now_us)
            made = make_source(of.spec.source, context)
            spoil(made)
            return made

        loop = Loop(journal, actor, Models(), {}, dict, now_us, time.monotonic)
        hired.append(Worker(brain, loop, Recent(), journal, source, now_us))
        return hired[-1]

    yield make
    for worker in hired:
        worker.stop()
        assert worker.join(20)


def kinds(journal: Journal, label: str | None = None) -> list[str]:
    journal.flush()
    with reading(journal.path) as db:
        return [r.kind for _, r in newest(db, 1000) if label is None or r.label == label]


def test_it_runs_to_the_end_of_its_source(hire: Any, make_brain: Any, journal: Journal) -> None:
    worker = hire(make_brain())
    worker.start()
    assert worker.join(20)
    assert worker.exhausted
    assert worker.problem is None
    assert kinds(journal).count("action") == 3


def test_acts_that_a_crash_cut_short_are_done_when_the_agent_is_back(
    hire: Any, make_brain: Any, journal: Journal
) -> None:
    sources: list[Source] = []

    def fail_once(source: Any) -> None:
        sources.append(source)

        def done() -> None:
            raise OSError("the disk of the source is gone")

        if len(sources) == 1:
            source.done = done

    worker = hire(make_brain(), fail_once)
    worker.start()
    assert worker.join(20)
    assert kinds(journal, "crash") == ["event"]
    with reading(journal.path) as db:
        assert open_intents(db) == []
        actions = [record for _, record in newest(db, 1000, "action")]
    assert sum("repeated" in action.body for action in actions) == 3, "the three of the step that crashed"
    assert len(actions) == 6


def test_a_source_that_cant_start_is_tried_again(
    hire: Any, make_brain: Any, journal: Journal, tmp_path: Any, eventually: Any, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "late.jsonl"
    worker = hire(make_brain(source={"kind": "replay", "file": "late.jsonl"}))
    worker.start()
    eventually(lambda: worker.problem is not None and "late.jsonl" in worker.problem)
    told = next(record for record in caplog.records if record.message == "agent_crashed")
    assert (told.exc_info, vars(told)["reason"]) == (None, worker.problem), "what is wrong, and no traceback"
    file.write_text("{}\n")
    assert worker.join(20)
    assert "event" in kinds(journal, "source")


def test_a_step_that_does_not_end_is_said(hire: Any, make_brain: Any, eventually: Any) -> None:
    entered: list[bool] = []
    leave: list[bool] = []

    def stuck(source: Any) -> None:
        def take(most: int, timeout_s: float) -> list[Any]:
            entered.append(True)
            eventually(lambda: leave)
            return []

        source.take = take

    worker = hire(make_brain(), stuck)
    worker.start()
    eventually(lambda: entered)
    worker.stop()
    assert not worker.join(0.05)
    assert worker.problem == "was told to stop, but the step that runs does not end"
    leave.append(True)
    assert worker.join(20)
