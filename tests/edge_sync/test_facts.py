"""Held: sync/SPEC.md, section Facts."""

from typing import Any

import pytest

from edge_models.errors import RejectedError
from edge_sync.documents import FleetFact, FleetFacts, dump, load
from edge_sync.facts import MAX_KEYS, Changed, FactLog, Passed


def fact(key: str, version: int, value: Any = 1) -> FleetFact:
    return FleetFact(key=key, value=value, version=version)


def delta(after: int, version: int, *facts: FleetFact, past: tuple[int, ...] = ()) -> FleetFacts:
    return FleetFacts(after=after, version=version, snapshot=False, facts=list(facts), past=list(past))


def snapshot(version: int, *facts: FleetFact) -> FleetFacts:
    return FleetFacts(after=0, version=version, snapshot=True, facts=list(facts))


def hear(log: FactLog, document: FleetFacts) -> bool:
    """Whether it changed anything. The document goes over the wire."""
    outcome = log.weigh(load(FleetFacts, dump(document)))
    if isinstance(outcome, Passed):
        assert outcome.reason
        return False
    log.apply(outcome)
    return True


def known(log: FactLog) -> dict[str, Any]:
    return {key: fact.value for key, fact in log.facts.items()}


def test_a_snapshot_is_everything_and_a_delta_what_changed() -> None:
    log = FactLog()
    assert hear(log, snapshot(7, fact("a", 3), fact("b", 7, {"x": [None, True]})))
    assert hear(log, delta(7, 12, fact("a", 9, None), fact("c", 12, "new")))
    assert (log.version, known(log)) == (12, {"b": {"x": [None, True]}, "c": "new"})
    assert hear(log, snapshot(15, fact("c", 12, "new")))
    assert (log.version, known(log)) == (15, {"c": "new"})


def test_what_is_old_or_does_not_fit_changes_nothing() -> None:
    log = FactLog()
    assert hear(log, snapshot(7, fact("a", 7)))
    for document in (
        snapshot(7, fact("a", 7, "other")),
        snapshot(6),
        delta(3, 7, fact("a", 7, "other")),
        delta(8, 9, fact("z", 9)),
        delta(6, 9, fact("z", 9)),
        delta(5, 9, fact("z", 9), past=(6, 8)),
    ):
        assert not hear(log, document)
    assert (log.version, known(log)) == (7, {"a": 1})


def test_a_delta_fits_where_its_versions_were_gone_through_only() -> None:
    """One that began before, and whose history knows where this copy stands, ends in the hub's own state."""
    log = FactLog()
    assert hear(log, snapshot(7, fact("a", 7)))
    assert hear(log, delta(5, 9, fact("a", 7), fact("b", 9), past=(6, 7)))
    assert (log.version, known(log)) == (9, {"a": 1, "b": 1})


def test_more_than_the_most_is_not_taken() -> None:
    log = FactLog()
    assert hear(log, snapshot(1, *(fact(f"k{n}", 1) for n in range(MAX_KEYS))))
    assert not hear(log, delta(1, 2, fact("more", 2)))
    assert hear(log, delta(1, 2, fact("more", 2), fact("k0", 2, None)))


def test_weighing_changes_nothing_until_it_is_durable() -> None:
    log = FactLog()
    outcome = log.weigh(snapshot(1, fact("a", 1)))
    assert isinstance(outcome, Changed)
    assert (log.version, log.facts) == (0, {})


@pytest.mark.parametrize(
    "text",
    [
        b'{"after":0,"version":1,"snapshot":true,"facts":[{"key":"","version":1}]}',
        b'{"after":0,"version":-1,"snapshot":true,"facts":[]}',
        b'{"after":0,"version":1,"snapshot":true,"facts":[{"key":"' + b"k" * 201 + b'","version":1}]}',
        b'{"after":0,"version":1,"snapshot":true}',
        b'{"after":0,"version":1,"snapshot":true,"facts":[{"key":"k","version":1,"expires_at":9223372036854775808}]}',
    ],
)
def test_what_is_no_document_is_refused(text: bytes) -> None:
    with pytest.raises(RejectedError):
        load(FleetFacts, text)
