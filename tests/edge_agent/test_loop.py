"""One step of an agent: what is recorded, before what, and what of it survives."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from edge_agent.actor import Actor
from edge_agent.inference.registry import Models
from edge_agent.loop import Loop
from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal, JournalUnavailableError
from edge_agent.memory.queries import Record, newest
from edge_agent.memory.schema import reading
from edge_agent.recent import Recent
from edge_agent.records import Json, Malformed, Observation
from edge_agent.tools.alert import Alert
from edge_agent.tools.base import ToolContext
from edge_models.bundle import read_bundle
from edge_models.shipped import shipped_path


def now_us() -> int:
    return time.time_ns() // 1000


class Belt:
    """A source with these things on it."""

    def __init__(self, things: Sequence[Observation | Malformed]) -> None:
        self._things = list(things)
        self.acknowledged = 0
        self.lost = 0

    def start(self) -> None:
        """Nothing is to be opened."""

    def take(self, most: int, timeout_s: float) -> list[Observation | Malformed]:
        taken, self._things = self._things[:most], self._things[most:]
        return taken

    def done(self) -> None:
        self.acknowledged += 1

    def dropped(self) -> int:
        lost, self.lost = self.lost, 0
        return lost

    def exhausted(self) -> bool:
        return not self._things

    def close(self) -> None:
        """Nothing is open."""


WINDOWS = read_bundle(shipped_path("trace", "2")).golden.inputs["window"].tolist()


def seen(**more: Json) -> Observation:
    return Observation({"window": WINDOWS[0], **more}, now_us(), "test")


@pytest.fixture
def facts() -> dict[str, Json]:
    """What the site knows."""
    return {}


@pytest.fixture
def loop(journal: Journal, facts: Mapping[str, Json]) -> Loop:
    context = ToolContext("plant-01", lambda _: pytest.fail("no endpoint"), lambda *_: None, now_us)
    actor = Actor(journal, {"alert": Alert(context)}, frozenset(["alert"]), now_us)
    return Loop(journal, actor, Models(), {"id": "plant-01"}, lambda: facts, now_us, time.monotonic)


@pytest.fixture
def records(journal: Journal) -> Callable[..., list[Record]]:
    """All records, or those of a kind."""

    def read(kind: str | None = None) -> list[Record]:
        journal.flush()
        with reading(journal.path) as db:
            return [record for _, record in newest(db, 1000, kind)]

    return read


def policy(when: str, message: str = '="it is so"') -> str:
    rule = {"name": "speak", "when": when, "do": {"tool": "alert", "with": {"message": message}}}
    return json.dumps({"policy": "p", "version": 1, "rules": [rule]})


def test_each_step_follows_from_the_one_before(loop: Loop, make_brain: Any, records: Any) -> None:
    belt = Belt([seen(machine="press-7")])
    assert loop.step(make_brain(subject="machine"), belt, Recent(), 0) == 1
    chain = {record.kind: record for record in records()}
    assert list(chain) == ["observation", "prediction", "decision", "action"]
    assert {record.subject for record in chain.values()} == {"press-7"}
    for follows, kind in (("prediction", "observation"), ("decision", "prediction"), ("action", "decision")):
        assert chain[follows].ref == chain[kind].id
    assert chain["action"].body["status"] == "done"
    assert chain["decision"].body["do"] == {"tool": "alert", "args": {"message": chain["prediction"].label}}
    assert belt.acknowledged == 1
    assert (loop.counts.observations, loop.counts.decisions, loop.counts.actions) == (1, 1, 1)


def test_what_no_model_can_take_is_an_event_and_the_rest_goes_on(loop: Loop, make_brain: Any, records: Any) -> None:
    short = Observation({"window": [1, 2]}, now_us(), "test")
    belt = Belt([Malformed("no JSON", now_us(), "test"), short, seen()])
    belt.lost = 4
    assert loop.step(make_brain(), belt, Recent(), 0) == 3
    said = [record.body for record in records("event")]
    assert [next(iter(body)) for body in said] == ["dropped", "malformed", "malformed"]
    assert len(records("decision")) == 1


def test_without_a_record_nothing_is_done(loop: Loop, make_brain: Any, journal: Journal, records: Any) -> None:
    journal._connection.execute("PRAGMA max_page_count=1")
    with pytest.raises(JournalUnavailableError):
        journal.write([Draft("telemetry", "event", "a", now_us(), json.dumps("x" * 60_000))])
    belt = Belt([seen(text="x" * 60_000)])
    with pytest.raises(JournalUnavailableError):
        loop.step(make_brain(), belt, Recent(), 0)
    assert belt.acknowledged == 0
    assert loop.counts.actions == 0
    journal._connection.execute("PRAGMA max_page_count=16384")
    assert records("action") == []


def test_a_decision_holds_the_facts_that_its_policy_reads(
    loop: Loop, make_brain: Any, records: Any, facts: dict[str, Json]
) -> None:
    facts |= {"mode": "auto", "limit.high": 3, "other": "x" * 15_000}
    brain = make_brain(policy('facts.mode == "auto" && facts["limit.high"] == 3 && !("absent" in facts)'))
    loop.step(brain, Belt([seen()]), Recent(), 0)
    (decision,) = records("decision")
    assert decision.body["facts"] == {"mode": "auto", "limit.high": 3}
    assert decision.body["conditions"] == [{"rule": "speak", "value": True}]


def test_large_facts_never_cost_a_decision_its_explanation(
    loop: Loop, make_brain: Any, records: Any, facts: dict[str, Json]
) -> None:
    facts |= {f"key-{i}": "x" * 15_000 for i in range(5)}
    loop.step(make_brain(policy("size(facts) == 5")), Belt([seen()]), Recent(), 0)
    (decision,) = records("decision")
    assert decision.body["facts"]["left_out"] == 5
    assert len(decision.body["facts"]["sha256"]) == 64
    assert decision.body["do"]["args"] == {"message": "it is so"}
    assert decision.body["conditions"] == [{"rule": "speak", "value": True}]


def test_what_is_no_unicode_is_replaced_wherever_it_is_recorded(loop: Loop, make_brain: Any, records: Any) -> None:
    loop.step(make_brain(subject="file"), Belt([seen(file="a\udcff.json")]), Recent(), 0)
    (observed,) = records("observation")
    assert observed.subject == observed.body["file"] == "a\ufffd.json"
    assert len(records("action")) == 1
