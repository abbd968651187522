"""What a site does with documents of the fleet's facts, signed or forged. Held: sync/SPEC.md, section Facts."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.fleet_facts import MAX_WAITING, FleetFactsService
from edge_agent.memory.facts import Facts
from edge_agent.memory.journal import Journal
from edge_agent.memory.schema import reading
from edge_agent.refusals import Refusals
from edge_sync.documents import DESIRED_TYPE, FleetFact, FleetFacts, dump
from edge_sync.facts import FACTS_TYPE
from edge_sync.signing import make_key, sign


def now_us() -> int:
    return time.time_ns() // 1000


def snapshot(version: int, **facts: Any) -> bytes:
    held = [FleetFact(key=key, value=value, version=version) for key, value in facts.items()]
    return dump(FleetFacts(after=0, version=version, snapshot=True, facts=held))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return tmp_path / "director.key"


@pytest.fixture
def facts(journal: Journal) -> Facts:
    return Facts(journal, now_us)


@pytest.fixture
def directors(key: Path) -> set[str]:
    """Whose word counts."""
    return {make_key(key)}


@pytest.fixture
def service(journal: Journal, facts: Facts, directors: set[str]) -> Iterator[FleetFactsService]:
    refusals = Refusals(journal, now_us, time.monotonic, "facts_refused")
    made = FleetFactsService(lambda: directors, facts, refusals)
    yield made
    made.close()


def refused(journal: Journal) -> list[str]:
    journal.flush()
    with reading(journal.path) as db:
        rows = db.execute("SELECT body FROM journal WHERE lane='alarm' AND label='facts_refused' ORDER BY id")
        return [json.loads(body)["reason"] for (body,) in rows]


def test_what_the_director_signed_is_taken_on_the_services_thread(
    service: FleetFactsService, facts: Facts, key: Path, eventually: Any
) -> None:
    service.start()
    for version in (3, 2, 4):
        service.heard(sign(snapshot(version, mode=version), FACTS_TYPE, key))
    eventually(lambda: facts.fleet_version == 4)
    assert facts.view() == {"mode": 4}


def test_what_anybody_else_says_is_an_alarm_and_changes_nothing(
    service: FleetFactsService, facts: Facts, journal: Journal, key: Path, tmp_path: Path
) -> None:
    make_key(tmp_path / "thief.key")
    for envelope in (
        b"",
        snapshot(9, mode="open"),
        sign(snapshot(9, mode="open"), FACTS_TYPE, tmp_path / "thief.key"),
        sign(snapshot(9, mode="open"), DESIRED_TYPE, key),
        sign(b'{"version": 9}', FACTS_TYPE, key),
    ):
        service.take(envelope)
        service.take(envelope)
    assert (facts.fleet_version, facts.view()) == (0, {})
    reasons = refused(journal)
    assert len(reasons) == 5, "the same reason once"
    assert "not signed by the key this site trusts" in reasons[2]


def test_whose_word_counts_is_asked_with_each_document(
    service: FleetFactsService, facts: Facts, journal: Journal, key: Path, tmp_path: Path, directors: set[str]
) -> None:
    """The operator may name another director while the site runs."""
    new = tmp_path / "new.key"
    added = make_key(new)
    service.take(sign(snapshot(1, mode="new"), FACTS_TYPE, new))
    assert (facts.view(), len(refused(journal))) == ({}, 1)
    directors.add(added)
    service.take(sign(snapshot(1, mode="new"), FACTS_TYPE, new))
    service.take(sign(snapshot(2, mode="old"), FACTS_TYPE, key))
    assert facts.view() == {"mode": "old"}
    directors.clear()
    service.take(sign(snapshot(3, mode="late"), FACTS_TYPE, new))
    assert facts.view() == {"mode": "old"}


def test_an_old_document_said_again_is_no_alarm(
    service: FleetFactsService, facts: Facts, journal: Journal, key: Path
) -> None:
    old, new = (sign(snapshot(version, mode=version), FACTS_TYPE, key) for version in (1, 2))
    for envelope in (old, new, old, new):
        service.take(envelope)
    assert (facts.view(), refused(journal)) == ({"mode": 2}, [])


def test_documents_in_memory_are_bounded_and_the_newest_stay(
    service: FleetFactsService, facts: Facts, key: Path, eventually: Any
) -> None:
    last = sign(snapshot(1, mode="last"), FACTS_TYPE, key)
    for _ in range(3 * MAX_WAITING):
        service.heard(b"x" * 100_000)
    service.heard(last)
    assert len(service._waiting) == MAX_WAITING
    service.start()
    eventually(lambda: facts.view() == {"mode": "last"})
