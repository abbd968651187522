"""Losses in view, and incidents. Held: sync/SPEC.md, section Accounts."""

from typing import Any

import pytest
from sqlalchemy import Connection, select

from edge_hub.database.schema import epochs, gaps, streams
from edge_hub.database.store import Store
from edge_hub.records import audit, incidents, losses
from edge_models.errors import RejectedError

A, B = f"{10:016x}", f"{11:016x}"


def gap(db: Connection, site: str, epoch: str, first: int, last: int, reason: str, at_us: int = 7) -> None:
    row = {"site": site, "epoch": epoch, "lane": "telemetry", "hash": b"", "at_us": at_us}
    db.execute(gaps.insert().values(row | {"first": first, "last": last, "reason": reason}))


def stream(db: Connection, site: str, epoch: str, lane: str, **ends: Any) -> None:
    row = {"site": site, "epoch": epoch, "lane": lane, "hash": b"", "since_us": 1, "forked": False}
    db.execute(streams.insert().values(row | {"told": 0, "last": 0} | ends))


def epoch_row(db: Connection, site: str, epoch: str, held: bool, final: bool) -> None:
    row = {"site": site, "epoch": epoch, "ord": 1, "since_us": 1, "held": held, "replaced": False, "final": final}
    db.execute(epochs.insert().values(row))


@pytest.fixture
def full(store: Store) -> Store:
    """Two sites with every sort of loss, and streams that lost nothing."""
    with store.writing() as db:
        gap(db, "plant-01", A, 1, 3, "evicted: the disk budget is spent")
        gap(db, "plant-01", A, 4, 4, "quarantined", at_us=0)
        gap(db, "plant-01", A, 9, 10, "damaged: its bytes are not those that were written")
        gap(db, "plant-02", A, 1, 2, "erased")
        gap(db, "plant-02", A, 5, 5, "expired: kept 30 days")
        gap(db, "plant-02", A, 7, 7, "the dog ate it")
        gap(db, "plant-02", A, 8, 9, "dropped after the hub acknowledged it")
        stream(db, "plant-01", A, "alarm", high=5, told=9, last=5, lost_us=8)
        stream(db, "plant-01", A, "decision", high=5, told=9, last=7, lost_us=8)
        stream(db, "plant-01", A, "telemetry", high=10, told=12, last=12)
        stream(db, "plant-01", B, "alarm", high=10, told=12, last=12, forked=True, lost_us=9)
        stream(db, "plant-02", B, "alarm", high=3, told=3, last=0)
        stream(db, "plant-02", B, "decision", high=3, told=2, last=2)
        for site, epoch, held, final in (
            ("plant-01", A, True, True),
            ("plant-01", B, True, False),
            ("plant-02", A, False, True),
            ("plant-02", B, False, False),
        ):
            epoch_row(db, site, epoch, held, final)
    return store


EVERY = [
    ("plant-01", A, "alarm", 6, 9, 4, "unknown_tail", 8),
    ("plant-01", A, "decision", 8, 9, 2, "unknown_tail", 8),
    ("plant-01", A, "telemetry", 1, 3, 3, "evicted", 7),
    ("plant-01", A, "telemetry", 4, 4, 1, "quarantined", None),
    ("plant-01", A, "telemetry", 9, 10, 2, "damaged", 7),
    ("plant-01", B, "alarm", 11, 12, 2, "fork", 9),
    ("plant-02", A, "telemetry", 7, 7, 1, "other", 7),
    ("plant-02", A, "telemetry", 8, 9, 2, "dropped", 7),
    ("plant-02", B, None, None, None, None, "unknown_tail", None),
]

LET_GO = [
    ("plant-02", A, "telemetry", 1, 2, 2, "erased", 7),
    ("plant-02", A, "telemetry", 5, 5, 1, "expired", 7),
]


def seen(store: Store, site: str | None = None, kind: str | None = None) -> list[tuple[Any, ...]]:
    with store.reading() as db:
        found, cursor = losses.page(db, site, kind, None, 1000)
    assert cursor is None
    names = ("site", "epoch", "lane", "first", "last", "count", "kind", "at_us")
    return [tuple(each[name] for name in names) for each in found]


def test_every_loss_is_named_with_its_range_kind_and_time(full: Store) -> None:
    assert seen(full) == EVERY


@pytest.mark.parametrize("kind", [*losses.KINDS.values(), losses.OTHER])
def test_losses_of_one_site_or_kind_are_asked_for(full: Store, kind: str) -> None:
    assert seen(full, kind=kind) == [each for each in EVERY + LET_GO if each[6] == kind]
    of_one = [each for each in EVERY + LET_GO if (each[0], each[6]) == ("plant-02", kind)]
    assert seen(full, "plant-02", kind) == of_one
    assert seen(full, "plant-01") == [each for each in EVERY if each[0] == "plant-01"]


def test_what_is_listed_as_open_is_counted_as_open(full: Store) -> None:
    with full.reading() as db:
        found = db.execute(select(epochs.c.site, epochs.c.epoch).where(losses.OPEN)).all()
    assert sorted(tuple(row) for row in found) == [each[:2] for each in EVERY if each[2] is None]


def test_a_kind_that_does_not_exist_is_refused(full: Store) -> None:
    with full.reading() as db, pytest.raises(RejectedError, match="there are evicted, "):
        losses.page(db, None, "stolen", None, 10)


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 10])
def test_pages_follow_each_other_without_a_hole(full: Store, limit: int) -> None:
    with full.reading() as db:
        every, _ = losses.page(db, None, None, None, 1000)
        read: list[dict[str, Any]] = []
        after: losses.Cursor | None = None
        while True:
            page, after = losses.page(db, None, None, after, limit)
            read += page
            if after is None:
                break
            assert len(page) == limit
    assert read == every


def test_what_is_lost_without_a_gap_is_summed(full: Store) -> None:
    with full.reading() as db:
        assert db.scalar(select(losses.summed(losses.UNKNOWN))) == 4 + 2 + 2


def test_an_incident_is_one_row_however_often_it_is_seen(store: Store) -> None:
    with store.writing() as db:
        assert incidents.note(db, 1, "plant-01", "fork", "a", {"n": 1})
        assert not incidents.note(db, 5, "plant-01", "fork", "a", {"n": 2})
        assert incidents.note(db, 3, "plant-02", "fork", "a", {})
        found = incidents.listed(db, None, 10)
        assert (audit.count(db), incidents.count(db)) == (2, 2)
        assert incidents.listed(db, "plant-02", 10) == found[1:]
    first = {"site": "plant-01", "what": "fork", "key": "a", "first_us": 1, "last_us": 5, "times": 2}
    assert found[0] == first | {"detail": {"n": 1}}


def test_incidents_are_bounded_a_site(store: Store) -> None:
    with store.writing() as db:
        new = [incidents.note(db, n, "plant-01", "fork", str(n), {}) for n in range(incidents.MAX_PER_SITE + 5)]
        assert new.count(True) == incidents.MAX_PER_SITE + 1
        assert not incidents.note(db, 1, "plant-01", "fork", "0", {})
        found = {each["key"]: each["times"] for each in incidents.listed(db, "plant-01", 1000)}
    assert (found[incidents.OTHERS], found["0"], len(found)) == (5, 2, incidents.MAX_PER_SITE + 1)


def test_a_sum_that_no_integer_holds_is_none_to_fail_at(store: Store) -> None:
    with store.writing() as db:
        for n in range(1_100):
            stream(db, "plant-01", f"{n:016x}", "alarm", high=0, told=2**53 - 1)
        assert db.scalar(select(losses.summed(losses.UNKNOWN))) == 1_100 * (2**53 - 1) // 2**11 * 2**11
