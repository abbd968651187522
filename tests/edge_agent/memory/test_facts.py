"""What is known at a site: one truth in the cache and in the table, and an end to it."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from edge_agent.memory.facts import MAX_FACT_BYTES, MAX_FACTS, MAX_KEY_CHARS, Facts
from edge_agent.memory.journal import Journal, JournalUnavailableError
from edge_agent.memory.schema import reading
from edge_agent.policy.readable import MAX_ITEMS
from edge_agent.tools.base import Call, SetFact
from edge_models.errors import RejectedError
from edge_sync.documents import FleetFact, FleetFacts
from edge_sync.facts import Changed, Passed

CALL = Call("0123456789abcdef:decision:1", "press", None, 2**62)
SECOND = 1_000_000


class Clock:
    """A clock to set."""

    def __init__(self) -> None:
        self.us = time.time_ns() // 1000

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock() -> Clock:
    return Clock()


def table(journal: Journal) -> dict[str, Any]:
    journal.flush()
    with reading(journal.path) as db:
        return {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM facts WHERE scope='site'")}


def test_a_fact_is_known_at_once_and_after_a_restart(journal: Journal, clock: Clock) -> None:
    facts = Facts(journal, clock)
    facts.set(SetFact("mode", {"auto": True}), CALL)
    facts.set(SetFact("mode", {"auto": False}), CALL)
    assert facts.view() == Facts(journal, clock).view() == {"mode": {"auto": False}}


def test_cache_and_table_agree_however_many_set_the_same_fact(journal: Journal, clock: Clock) -> None:
    facts = Facts(journal, clock)
    for turn in range(40):
        ready = threading.Barrier(6)

        def work(i: int, turn: int = turn, ready: threading.Barrier = ready) -> None:
            ready.wait()
            facts.set(SetFact("k", f"{turn}-{i}"), CALL)
            facts.view()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert facts.view() == table(journal)


def test_an_expired_fact_is_gone_from_the_view_then_from_the_table(journal: Journal, clock: Clock) -> None:
    facts = Facts(journal, clock)
    for key, expires_s in (("short", 1), ("long", 100)):
        facts.set(SetFact(key, 1, clock.us + expires_s * SECOND), CALL)
    clock.us += 2 * SECOND
    assert facts.view() == {"long": 1}
    facts.set(SetFact("other", 2), CALL)
    assert table(journal) == {"long": 1, "other": 2}


def test_a_start_deletes_what_has_expired(journal: Journal, clock: Clock) -> None:
    Facts(journal, clock).set(SetFact("short", 1, clock.us + SECOND), CALL)
    clock.us += 2 * SECOND
    facts = Facts(journal, clock)
    assert table(journal) == {}
    facts.set(SetFact("short", 2), CALL)
    assert table(journal) == {"short": 2}


def test_a_new_key_beyond_the_most_is_refused_and_known_ones_change(journal: Journal, clock: Clock) -> None:
    facts = Facts(journal, clock)
    for i in range(MAX_FACTS):
        facts.set(SetFact(f"k{i}", i, clock.us + SECOND if i == 7 else None), CALL)
    with pytest.raises(RejectedError, match=f"'new': this site knows {MAX_FACTS} facts already"):
        facts.set(SetFact("new", 1), CALL)
    facts.set(SetFact("k3", "changed"), CALL)
    clock.us += 2 * SECOND
    facts.set(SetFact("new", 1), CALL)
    assert facts.view() == table(journal)
    assert len(table(journal)) == MAX_FACTS <= MAX_ITEMS, "no more than a policy can be given"


@pytest.mark.parametrize(
    ("fact", "problem"),
    [
        (SetFact("k" * (MAX_KEY_CHARS + 1), 1), "a key of 201 characters, the most is 200"),
        (SetFact("k", "x" * MAX_FACT_BYTES), "16386 bytes, the most is 16384"),
    ],
)
def test_what_is_too_long_is_refused(journal: Journal, clock: Callable[[], int], fact: SetFact, problem: str) -> None:
    facts = Facts(journal, clock)
    with pytest.raises(RejectedError, match=problem):
        facts.set(fact, CALL)
    assert facts.view() == table(journal) == {}


def snapshot(version: int, *facts: tuple[str, Any, int | None]) -> FleetFacts:
    held = [FleetFact(key=key, value=value, version=version, expires_at=expires) for key, value, expires in facts]
    return FleetFacts(after=0, version=version, snapshot=True, facts=held)


def deletion(after: int, version: int, key: str) -> FleetFacts:
    gone = FleetFact(key=key, version=version)
    return FleetFacts(after=after, version=version, snapshot=False, facts=[gone])


def test_a_fact_of_the_fleet_is_known_at_once_and_after_a_restart(journal: Journal, clock: Clock) -> None:
    facts = Facts(journal, clock)
    assert facts.fleet_version == 0
    assert isinstance(facts.take(snapshot(7, ("tariff", {"peak": [None, True]}, None), ("mode", "go", None))), Changed)
    again = Facts(journal, clock)
    assert facts.view() == again.view() == {"tariff": {"peak": [None, True]}, "mode": "go"}
    assert facts.fleet_version == again.fleet_version == 7
    assert isinstance(again.take(deletion(7, 9, "mode")), Changed)
    assert isinstance(again.take(snapshot(8)), Passed)
    last = Facts(journal, clock)
    assert again.view() == last.view() == {"tariff": {"peak": [None, True]}}
    assert last.fleet_version == 9
    assert "" not in last.view(), "the row of the version is no fact"


def test_a_site_knows_better_until_its_own_fact_expires(journal: Journal, clock: Clock) -> None:
    facts = Facts(journal, clock)
    facts.take(snapshot(1, ("mode", "fleet", None)))
    facts.set(SetFact("mode", "site", clock.us + SECOND), CALL)
    assert facts.view() == Facts(journal, clock).view() == {"mode": "site"}
    facts.take(snapshot(2, ("mode", "fleet again", None)))
    assert facts.view() == {"mode": "site"}
    clock.us += 2 * SECOND
    assert facts.view() == Facts(journal, clock).view() == {"mode": "fleet again"}


def test_a_fact_of_the_fleet_expires_by_the_sites_clock_and_comes_back_with_it(journal: Journal, clock: Clock) -> None:
    """A clock that jumped may be set right again; only the hub takes a fact of the fleet away."""
    facts = Facts(journal, clock)
    facts.take(snapshot(1, ("short", 1, clock.us + SECOND), ("long", 1, None)))
    clock.us += 400 * 86_400 * SECOND
    assert facts.view() == Facts(journal, clock).view() == {"long": 1}
    clock.us -= 400 * 86_400 * SECOND
    assert Facts(journal, clock).view() == {"short": 1, "long": 1}


def test_facts_of_the_fleet_take_no_room_of_the_sites_own(journal: Journal, clock: Clock) -> None:
    facts = Facts(journal, clock)
    facts.take(snapshot(1, *((f"f{i}", i, None) for i in range(MAX_FACTS))))
    facts.set(SetFact("own", 1), CALL)
    assert len(facts.view()) == MAX_FACTS + 1


def test_what_could_not_be_made_durable_is_not_known(journal: Journal, clock: Clock) -> None:
    facts = Facts(journal, clock)
    facts.take(snapshot(1, ("mode", "go", None)))
    journal.maintain(lambda db: db.execute("ALTER TABLE facts RENAME TO away").rowcount)
    with pytest.raises(JournalUnavailableError):
        facts.take(snapshot(2, ("mode", "stop", None)))
    assert (facts.fleet_version, facts.view()) == (1, {"mode": "go"})
    journal.maintain(lambda db: db.execute("ALTER TABLE away RENAME TO facts").rowcount)
    facts.take(snapshot(2, ("mode", "stop", None)))
    assert (facts.fleet_version, facts.view()) == (2, {"mode": "stop"})
