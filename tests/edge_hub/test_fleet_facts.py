"""The fleet's facts, over a real database and the site's own `FactLog`. Held: sync/SPEC.md, section Facts."""

import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from edge_hub.database.schema import fleet_facts, meta, sites
from edge_hub.database.store import Store, UnknownError
from edge_hub.facts.fleet_facts import (
    AHEAD_PAUSE_US,
    MAX_AHEAD,
    FleetFactEnvelopes,
    FleetFactLog,
    document,
    newest,
    online,
)
from edge_hub.records import audit
from edge_models.errors import RejectedError
from edge_sync.documents import FleetFacts, dump, load
from edge_sync.facts import FACTS_TYPE, MAX_TOTAL_BYTES, MAX_VALUE_BYTES, Changed, FactLog
from edge_sync.signing import make_key, verify

SITES = ("p1", "p2")


@dataclass
class Fleet:
    """A hub's log, copies of it at sites, and documents that are on their way."""

    store: Store
    now_us: int = 1_800_000_000_000_000
    changes: int = 0
    copies: dict[str, FactLog] = field(default_factory=dict)
    sent: list[tuple[str, FleetFacts]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = FleetFactLog(self.store, self._changed, lambda: self.now_us, random.Random(1).randrange)
        with self.store.writing() as db:
            for site in SITES:
                db.execute(sites.insert().values(site=site, labels={}, created_us=1, online=True))
                self.copies[site] = FactLog()

    def put(self, key: str, value: Any, expires_in_s: float | None = None) -> None:
        self.log.put(key, value, expires_in_s, "operator")

    def beat(self, site: str) -> None:
        """The site says where it stands; what the hub answers is on its way."""
        self.now_us += AHEAD_PAUSE_US
        with self.store.writing() as db:
            if self.log.told(db, site, self.copies[site].version):
                self._send(db, site)

    def deliver(self, number: int) -> None:
        """One of the documents arrives, however late, and may arrive again."""
        if self.sent:
            site, sent = self.sent[number % len(self.sent)]
            outcome = self.copies[site].weigh(load(FleetFacts, dump(sent)))
            if isinstance(outcome, Changed):
                self.copies[site].apply(outcome)

    def settle(self) -> None:
        """Faults end: what the sites say is heard, and so is what the hub answers."""
        for _ in range(3):
            for site in SITES:
                self.sent.clear()
                self.beat(site)
                self.deliver(0)

    def known(self, site: str) -> dict[str, Any]:
        return {key: fact.value for key, fact in self.copies[site].facts.items()}

    def held(self) -> dict[str, Any]:
        with self.store.reading() as db:
            rows = db.execute(select(fleet_facts).where(fleet_facts.c.value.is_not(None)))
            return {row.key: json.loads(row.value) for row in rows}

    def backup(self) -> list[list[dict[str, Any]]]:
        with self.store.reading() as db:
            return [[dict(row) for row in db.execute(select(table)).mappings()] for table in (fleet_facts, meta, sites)]

    def restore(self, copy: list[list[dict[str, Any]]]) -> None:
        with self.store.writing() as db:
            for table, rows in zip((fleet_facts, meta, sites), copy, strict=True):
                db.execute(table.delete())
                for row in rows:
                    db.execute(table.insert().values(**row))

    def _changed(self) -> None:
        """As the hub does: each site online is sent what it lacks, by what it said last."""
        self.changes += 1
        with self.store.reading() as db:
            for site in online(db):
                self._send(db, site)

    def _send(self, db: Any, site: str) -> None:
        stands = db.scalar(select(sites.c.facts_version).where(sites.c.site == site)) or 0
        made = document(db, stands)
        if made is not None:
            self.sent.append((site, made))


@pytest.fixture
def fleet(store: Store) -> Iterator[Fleet]:
    made = Fleet(store)
    yield made
    with store.reading() as db:
        assert audit.verify(db) is None


def test_changes_reach_a_site_one_after_the_other(fleet: Fleet) -> None:
    """Also several between two heartbeats: each document fits where the one before it led."""
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("a", 4)):
        fleet.put(key, value)
        for number in range(len(fleet.sent)):
            fleet.deliver(number)
        assert fleet.known("p1") == fleet.held()
    fleet.log.delete("b", "operator")
    fleet.deliver(-2)
    assert fleet.known("p1") == fleet.held() == {"a": 4}


def test_a_site_that_was_away_gets_what_changed_and_no_more(fleet: Fleet) -> None:
    for n in range(20):
        fleet.put(f"k{n}", n)
    fleet.settle()
    fleet.put("k3", "new")
    fleet.log.delete("k4", "operator")
    fleet.sent.clear()
    fleet.beat("p1")
    [(_, made)] = fleet.sent
    assert not made.snapshot
    assert {each.key: each.value for each in made.facts} == {"k3": "new", "k4": None}
    fleet.deliver(0)
    assert fleet.known("p1") == fleet.held()
    fleet.sent.clear()
    fleet.beat("p1")
    assert fleet.sent == [], "it has all"


def test_a_site_further_behind_than_deletions_are_kept_gets_a_snapshot(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_hub.facts.fleet_facts.MAX_ISSUED", 20)
    fleet.put("old", 1)
    fleet.put("gone", 1)
    fleet.settle()
    fleet.log.delete("gone", "operator")
    for n in range(20):
        fleet.put("hot", n)
    with fleet.store.reading() as db:
        assert db.scalar(select(fleet_facts.c.key).where(fleet_facts.c.key == "gone")) is None
    fleet.sent.clear()
    fleet.beat("p1")
    assert [made.snapshot for _, made in fleet.sent] == [True]
    fleet.deliver(0)
    assert fleet.known("p1") == {"old": 1, "hot": 19}


def test_a_hub_restored_from_a_backup_does_not_mix_two_histories(fleet: Fleet) -> None:
    fleet.put("a", 1)
    fleet.settle()
    copy = fleet.backup()
    fleet.put("lost", 1)
    fleet.settle()
    fleet.restore(copy)
    fleet.sent.clear()
    fleet.put("new", 2)  # goes to where the site stood when the backup was made
    for number in range(len(fleet.sent)):
        fleet.deliver(number)
    assert fleet.known("p1") == {"a": 1, "lost": 1}
    fleet.settle()
    assert fleet.known("p1") == fleet.known("p2") == fleet.held() == {"a": 1, "new": 2}


def test_a_site_that_claims_too_much_does_not_use_up_the_versions(fleet: Fleet) -> None:
    fleet.put("a", 1)
    with fleet.store.writing() as db:
        before = newest(db)
        assert not fleet.log.told(db, "p1", before + MAX_AHEAD + 1)
        assert newest(db) == before
        assert fleet.log.told(db, "p1", before + 1000)
        raised = newest(db)
        assert raised > before + 1000
        assert not fleet.log.told(db, "p1", raised + 1000), "not twice in a minute"
        assert newest(db) == raised


Action = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("abc"), st.integers(0, 9)),
    st.tuples(st.just("delete"), st.sampled_from("abc"), st.just(0)),
    st.tuples(st.just("beat"), st.sampled_from(SITES), st.just(0)),
    st.tuples(st.just("deliver"), st.just(""), st.integers(0, 50)),
    st.tuples(st.just("backup"), st.just(""), st.just(0)),
    st.tuples(st.just("restore"), st.just(""), st.integers(0, 3)),
    st.tuples(st.just("lose"), st.just(""), st.just(0)),
    st.tuples(st.just("disk"), st.sampled_from(SITES), st.just(0)),
)


@settings(max_examples=60)
@given(st.lists(Action, max_size=40))
def test_copies_become_the_hubs_whatever_is_lost_doubled_late_or_restored(actions: list[tuple[str, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "hub.db")
        fleet = Fleet(store)
        backups = [fleet.backup()]
        for what, name, number in actions:
            match what:
                case "put":
                    fleet.put(name, number)
                case "delete" if name in fleet.held():
                    fleet.log.delete(name, "operator")
                case "beat":
                    fleet.beat(name)
                case "deliver":
                    fleet.deliver(number)
                case "backup":
                    backups.append(fleet.backup())
                case "restore":
                    fleet.restore(backups[-1 - number % len(backups)])
                case "lose":
                    fleet.sent.clear()
                case "disk":
                    fleet.copies[name] = FactLog()
        fleet.settle()
        assert fleet.known("p1") == fleet.known("p2") == fleet.held()
        store.close()


def test_what_expires_is_not_listed_and_makes_room(fleet: Fleet) -> None:
    fleet.put("short", 1, expires_in_s=60)
    fleet.put("long", 2)
    assert [each["key"] for each in fleet.log.all()["facts"]] == ["long", "short"]
    fleet.settle()  # minutes later
    assert [each["key"] for each in fleet.log.all()["facts"]] == ["long"]
    with pytest.raises(UnknownError):
        fleet.log.get("short")
    assert fleet.copies["p1"].facts["short"].expires_at is not None, "hidden there by the site's own clock"
    fleet.put("more", 3)
    fleet.settle()
    assert fleet.known("p1") == {"long": 2, "more": 3}


def test_what_is_so_already_is_no_change(fleet: Fleet) -> None:
    fleet.put("a", {"x": 1})
    fleet.put("a", {"x": 1})
    assert fleet.changes == 1
    fleet.put("a", {"x": 1}, expires_in_s=60)
    fleet.put("a", {"x": 1}, expires_in_s=60)
    assert fleet.changes == 3, "its end is later"


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("", 1, "a key has 1 to 200 printable characters"),
        ("k" * 201, 1, "a key has 1 to 200 printable characters"),
        ("a\0b", 1, "printable"),
        ("k", None, "null is no value"),
        ("k", [float("nan")], "NaN or Infinity"),
        ("k", {"a": 2**63}, "an integer of more than 64 bits"),
        ("k", json.loads("[" * 33 + "]" * 33), "more than 32 levels"),
        ("k", ["\ud800"], "no Unicode"),
        ("k", "x" * MAX_VALUE_BYTES, f"{MAX_VALUE_BYTES + 2} bytes, the most is {MAX_VALUE_BYTES}"),
    ],
)
def test_what_no_site_could_hold_is_refused(fleet: Fleet, key: str, value: Any, problem: str) -> None:
    with pytest.raises(RejectedError, match=problem):
        fleet.put(key, value)
    assert (fleet.held(), fleet.changes) == ({}, 0)


def test_all_facts_together_are_bounded(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    big = "x" * (MAX_VALUE_BYTES - 2)
    for n in range(MAX_TOTAL_BYTES // MAX_VALUE_BYTES - 1):
        fleet.put(f"k{n}", big)
    with pytest.raises(RejectedError, match=f"bytes together, the most is {MAX_TOTAL_BYTES}"):
        fleet.put("more", big)
    monkeypatch.setattr("edge_hub.facts.fleet_facts.MAX_KEYS", len(fleet.held()))
    with pytest.raises(RejectedError, match=f"the fleet has {len(fleet.held())} facts already"):
        fleet.put("more", 1)
    fleet.put("k3", "changed")
    fleet.settle()
    assert fleet.known("p1") == fleet.held()


def test_the_envelope_is_signed_and_signed_once_for_all_at_the_same_place(fleet: Fleet, tmp_path: Path) -> None:
    pinned = make_key(tmp_path / "director.key")
    envelopes = FleetFactEnvelopes(tmp_path / "director.key")
    fleet.put("a", 1)
    with fleet.store.reading() as db:
        made, again = (envelopes.for_site(db, site) for site in SITES)
    assert made is not None
    assert made is again
    assert load(FleetFacts, verify(made, FACTS_TYPE, pinned)).facts[0].key == "a"
    fleet.settle()
    with fleet.store.reading() as db:
        assert envelopes.for_site(db, "p1") is None
