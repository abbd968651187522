"""Acting: what is done, what is refused, and what becomes of acts that were cut short."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edge_agent.actor import MAX_VALID_S, Actor
from edge_agent.memory.draft import Draft, Intent
from edge_agent.memory.journal import MAX_WAITING, Journal, JournalUnavailableError
from edge_agent.memory.queries import OpenIntent, open_intents
from edge_agent.memory.schema import reading
from edge_agent.records import Choice, Do, Json
from edge_agent.tools.base import Call
from edge_models.errors import RetryableError
from edge_sync.release import AgentSpec
from edge_sync.rows import Lane

SECOND, DAY = 1_000_000, 86_400_000_000


class Valve:
    """A tool that opens a valve, or does what it is told instead."""

    lane: Lane = "decision"

    def __init__(self, idempotent: bool = True) -> None:
        self.idempotent = idempotent
        self.opened: list[str] = []
        self.does: Callable[[], Any] = lambda: {"open": True}

    def run(self, args: Mapping[str, Json], call: Call) -> Mapping[str, Json]:
        self.opened.append(call.decision)
        return self.does()  # type: ignore[no-any-return]

    def close(self) -> None:
        """Nothing is open."""


class Site:
    """A journal, an actor, and a clock to set."""

    def __init__(self, folder: Path) -> None:
        self.offset_us = 0
        self.path = folder / "memory.db"
        self.valve = Valve()
        self.start()

    def now_us(self) -> int:
        return time.time_ns() // 1000 + self.offset_us

    def start(self) -> None:
        """As a process starts."""
        self.journal = Journal(self.path, 64, self.now_us)
        self.actor = Actor(self.journal, {"open.valve": self.valve}, frozenset(["open.valve"]), self.now_us)

    def decide(self, valid_for_s: float = 30.0, tool: str = "open.valve") -> Draft:
        """A durable decision to open the valve."""
        intent = Intent(tool, '{"n": 1}', self.now_us() + round(valid_for_s * SECOND))
        draft = Draft("decision", "decision", "press", self.now_us(), "{}", intent=intent)
        self.journal.write([draft])
        return draft

    def left_open(self) -> list[OpenIntent]:
        self.journal.flush()
        with reading(self.path) as db:
            return open_intents(db)

    def resolve(self) -> int:
        return self.actor.resolve(self.left_open(), {"press": SPEC})

    def results(self) -> list[dict[str, Any]]:
        """The bodies of the recorded actions."""
        self.journal.flush()
        with reading(self.path) as db:
            return [json.loads(body) for (body,) in db.execute("SELECT body FROM journal WHERE kind='action'")]


SPEC = AgentSpec.model_validate(
    {"name": "press", "bundle": "b", "policy": "p", "source": {"kind": "replay"}, "grants": ["open.valve"]}
)
CHOICE = Choice("rule", Do("open.valve", {"n": 1}), None, ())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.journal.close()


def test_an_act_is_done_recorded_and_settled(site: Site) -> None:
    decision = site.decide()
    assert site.actor.act(SPEC, decision, CHOICE).status == "done"
    assert site.results() == [{"status": "done", "open": True}]
    assert site.valve.opened == [decision.id]
    assert site.left_open() == []


def test_a_tool_that_fails_crashes_or_says_nothing_takes_nobody_down(site: Site) -> None:
    def fail() -> None:
        raise RetryableError("stuck")

    def crash() -> None:
        raise KeyError("a bug")

    for does in (fail, crash, lambda: None):
        site.valve.does = does
        site.actor.act(SPEC, site.decide(), CHOICE)
    assert [result["status"] for result in site.results()] == ["failed", "failed", "done"]


def test_a_result_that_cant_be_recorded_leaves_the_intent_open(site: Site) -> None:
    site.valve.does = lambda: {("no", "text"): 1}
    decision = site.decide()
    assert site.actor.act(SPEC, decision, CHOICE).status == "done"
    assert [intent.decision for intent in site.left_open()] == [decision.id]


def test_a_full_disk_after_the_act_is_no_crash(site: Site) -> None:
    decision = site.decide()
    bulk = Draft("telemetry", "event", "press", site.now_us(), json.dumps("x" * 60_000))
    site.journal._connection.execute("PRAGMA max_page_count=1")  # as small as it can be: what it is now
    with pytest.raises(JournalUnavailableError):
        site.journal.write([bulk])
    for _ in range(MAX_WAITING):
        site.journal.later([bulk])
    assert site.actor.act(SPEC, decision, CHOICE).status == "done"
    with reading(site.path) as db:
        assert [intent.decision for intent in open_intents(db)] == [decision.id]
    site.journal._queue.clear()  # 600 MB that the test need not write


def test_an_act_cut_short_is_repeated_under_its_own_id_after_a_restart(site: Site) -> None:
    decision = site.decide()
    site.journal.close()
    site.start()
    assert site.resolve() == 1
    assert site.valve.opened == [decision.id]
    assert site.results() == [{"status": "done", "open": True, "repeated": True}]
    assert site.left_open() == []


def test_one_that_must_not_be_done_twice_is_unknown(site: Site) -> None:
    site.valve.idempotent = False
    site.decide()
    site.resolve()
    assert [result["status"] for result in site.results()] == ["unknown"]
    assert site.valve.opened == []


def test_one_past_its_time_is_expired(site: Site) -> None:
    site.decide(valid_for_s=5)
    site.offset_us = 6 * SECOND
    site.resolve()
    assert [result["status"] for result in site.results()] == ["expired"]
    assert site.valve.opened == []


@pytest.mark.parametrize("offset_us", [-365 * DAY, -DAY, -20 * SECOND])
def test_a_clock_set_back_makes_no_stale_act(site: Site, offset_us: int) -> None:
    site.decide()
    site.journal.close()
    site.offset_us = offset_us
    site.start()
    site.resolve()
    (result,) = site.results()
    assert result["status"] == "unknown"
    assert "the clock was set back" in result["reason"]
    assert site.valve.opened == []


def test_an_act_that_would_be_valid_for_more_than_a_day_is_from_another_time(site: Site) -> None:
    site.decide(valid_for_s=MAX_VALID_S + 60)
    site.resolve()
    assert [result["status"] for result in site.results()] == ["unknown"]


def test_a_record_that_is_newer_than_the_deadline_proves_it_too_late(site: Site) -> None:
    site.decide(valid_for_s=5)
    site.journal.write([Draft("telemetry", "event", "press", site.now_us() + 6 * SECOND, "{}")])
    site.resolve()
    assert [result["status"] for result in site.results()] == ["expired"]


def test_settling_one_agent_leaves_the_others_and_waits_for_results_on_their_way(site: Site) -> None:
    done, cut_short = site.decide(), site.decide()
    intent = Intent("open.valve", "{}", site.now_us() + DAY // 2)
    site.journal.write([Draft("decision", "decision", "saw", site.now_us(), "{}", intent=intent)])
    site.actor.act(SPEC, done, CHOICE)
    assert site.actor.settle(SPEC) == 1
    assert site.valve.opened == [done.id, cut_short.id]
    assert [intent.agent for intent in site.left_open()] == ["saw"]
