"""From one release's agents to the next one's."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import yaml

from edge_agent import supervisor as supervisor_module
from edge_agent.actor import Actor
from edge_agent.brain import Brain, Deployment
from edge_agent.config import load_site
from edge_agent.inference.registry import Models
from edge_agent.memory.facts import Facts
from edge_agent.memory.journal import Journal
from edge_agent.memory.queries import newest
from edge_agent.memory.schema import reading
from edge_agent.supervisor import Supervisor
from edge_agent.tools.base import Call
from edge_models.errors import ConfigError
from edge_models.shipped import shipped_path
from edge_sync.release import Release
from edge_sync.rows import Lane


def now_us() -> int:
    return time.time_ns() // 1000


class Gate:
    """A tool that lets an act through when it is open."""

    idempotent = True
    lane: Lane = "decision"

    def __init__(self) -> None:
        self.open = Event()
        self.open.set()
        self.entered = Event()

    def run(self, args: Any, call: Call) -> dict[str, Any]:
        self.entered.set()
        assert self.open.wait(30)
        return {}

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def supervisor(journal: Journal, tmp_path: Path, gate: Gate) -> Iterator[Supervisor]:
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump({"site": "plant-01"}))
    actor = Actor(journal, {"alert": gate}, frozenset(["alert"]), now_us)
    made = Supervisor(load_site(file), journal, Facts(journal, now_us), actor, Models(), now_us)
    yield made
    gate.open.set()
    made.stop()


def replay(limit: int) -> dict[str, Any]:
    return {"kind": "replay", "file": str(shipped_path("trace", "2")), "limit": limit}


def deployment(*brains: Brain) -> Deployment:
    return Deployment(Release.of(1, [b.spec for b in brains], {}), brains)


def decided(journal: Journal, agent: str) -> int:
    journal.flush()
    with reading(journal.path) as db:
        return len(newest(db, 1000, "decision", agent))


def names(supervisor: Supervisor) -> list[str]:
    return [worker.brain.spec.name for worker in supervisor.workers()]


def test_agents_come_go_and_change_with_the_release(
    supervisor: Supervisor, make_brain: Any, journal: Journal, eventually: Callable[..., None]
) -> None:
    supervisor.apply(deployment(make_brain(name="press"), make_brain(name="saw")))
    eventually(supervisor.exhausted)
    assert names(supervisor) == ["press", "saw"]
    (press, _) = supervisor.workers()
    newer = make_brain(name="press")
    supervisor.apply(deployment(newer, make_brain(name="oven", source=replay(2))))
    assert names(supervisor) == ["oven", "press"]
    assert supervisor.workers()[1] is press, "its source is the same: it goes on"
    assert press.brain is newer
    eventually(lambda: decided(journal, "oven") == 2)


def test_after_a_stop_nobody_is_hired(supervisor: Supervisor, make_brain: Any, journal: Journal) -> None:
    supervisor.apply(deployment(make_brain()))
    supervisor.stop()
    supervisor.apply(deployment(make_brain(name="late")))
    assert names(supervisor) == []
    assert decided(journal, "late") == 0


def test_one_that_does_not_end_keeps_its_place_until_it_does(
    supervisor: Supervisor,
    make_brain: Any,
    journal: Journal,
    gate: Gate,
    eventually: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_S", 0.1)
    gate.open.clear()
    supervisor.apply(deployment(make_brain(source=replay(1))))
    assert gate.entered.wait(20)
    (stuck,) = supervisor.workers()
    for limit in (2, 1, 2):  # its old source again, too: it is about to end
        supervisor.apply(deployment(make_brain(source=replay(limit))))
        assert supervisor.workers() == [stuck], "no twin beside it"
        assert stuck.problem is not None
        assert "does not end" in stuck.problem
    gate.open.set()
    eventually(lambda: supervisor.workers() not in ([stuck], []))
    eventually(lambda: decided(journal, "press") == 1 + 2)
    assert [worker.problem for worker in supervisor.workers()] == [None]


def test_one_that_does_not_end_and_is_not_wanted_any_more_goes_in_the_end(
    supervisor: Supervisor,
    make_brain: Any,
    gate: Gate,
    eventually: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor_module, "STOP_S", 0.1)
    gate.open.clear()
    supervisor.apply(deployment(make_brain()))
    assert gate.entered.wait(20)
    supervisor.apply(deployment())
    assert names(supervisor) == ["press"]
    gate.open.set()
    eventually(lambda: names(supervisor) == [])


def test_a_source_that_cant_be_made_is_named_with_its_agent(supervisor: Supervisor, make_brain: Any) -> None:
    with pytest.raises(ConfigError, match="agent 'press': no source is named 'mqqt'"):
        supervisor.vet(deployment(make_brain(source={"kind": "mqqt"})))
