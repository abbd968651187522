"""Who is online, and whether two processes have one site's id. Held: sync/SPEC.md, section Presence."""

from typing import Any

import pytest
from sqlalchemy import select

from edge_hub.database.schema import epochs, sites
from edge_hub.database.store import Store
from edge_hub.records import incidents, registry
from edge_sync.documents import Presence

A, B = f"{10:016x}", f"{11:016x}"


class Door:
    """Presence documents of plant-01, one after the other."""

    def __init__(self, store: Store) -> None:
        self.store = store
        with store.writing() as db:
            db.execute(sites.insert().values(site="plant-01", labels={}, created_us=1, online=False))

    def on(self, epoch: str, session: int, retained: bool = False) -> bool:
        return self._say(Presence(online=True, epoch=epoch, session=session), retained)

    def off(self, epoch: str, session: int, retained: bool = False) -> bool:
        return self._say(Presence(online=False, epoch=epoch, session=session), retained)

    def hub_reconnects(self) -> None:
        with self.store.writing() as db:
            registry.offline(db, None)

    def now(self) -> tuple[bool, str | None]:
        with self.store.reading() as db:
            row = db.execute(select(sites.c.online, sites.c.epoch)).one()
        return (bool(row.online), row.epoch)

    def alarms(self) -> int:
        with self.store.reading() as db:
            found = incidents.listed(db, "plant-01", 10)
        assert {each["what"] for each in found} <= {"two_processes"}
        return sum(each["times"] for each in found)

    def _say(self, document: Presence, retained: bool) -> bool:
        with self.store.writing() as db:
            return registry.presence(db, 5, "plant-01", document, retained)


@pytest.fixture
def door(store: Store) -> Door:
    return Door(store)


def test_a_link_that_flaps_is_no_alarm(door: Door) -> None:
    for session in range(1, 6):
        assert door.on(A, session)
        assert door.off(A, session)
        assert not door.off(A, session - 1)
    assert (door.now(), door.alarms()) == ((False, A), 0)


def test_the_late_will_of_a_session_before_is_ignored(door: Door) -> None:
    door.on(A, 1)
    door.on(A, 2)
    assert not door.off(A, 1)
    assert door.now() == (True, A)


def test_a_restart_is_no_alarm_and_the_old_will_is_ignored(door: Door) -> None:
    door.on(A, 1)
    door.on(B, 1 << 20)
    assert not door.off(A, 1)
    assert (door.now(), door.alarms()) == ((True, B), 0)


def test_a_site_with_a_replaced_disk_is_online_though_its_sessions_begin_anew(door: Door) -> None:
    door.on(A, (7 << 20) + 3)
    door.off(A, (7 << 20) + 3)
    assert door.on(B, (1 << 20) + 1)
    assert (door.now(), door.alarms()) == ((True, B), 0)
    assert not door.off(A, (7 << 20) + 3)
    assert door.off(B, (1 << 20) + 1)
    assert door.now() == (False, B)


def test_a_process_that_comes_back_after_another_is_an_alarm_each_time(door: Door) -> None:
    door.on(A, 1)
    door.on(B, 1)
    assert door.alarms() == 0
    door.off(A, 1)  # the broker gave A's place to B
    door.on(A, 2)
    assert (door.now(), door.alarms()) == ((True, A), 1)
    door.on(B, 2)
    assert (door.now(), door.alarms()) == ((True, B), 2)
    door.on(A, 3)
    assert door.alarms() == 3


def test_an_old_presence_that_comes_twice_changes_nothing(door: Door) -> None:
    door.on(A, 1)
    door.on(B, 1)
    assert not door.on(A, 1)
    door.on(B, 2)
    assert (door.now(), door.alarms()) == ((True, B), 0)


def test_what_the_broker_kept_counts_and_is_no_alarm(door: Door) -> None:
    door.on(A, 1)
    door.hub_reconnects()
    assert door.on(A, 1, retained=True)
    assert door.now() == (True, A)
    door.hub_reconnects()
    assert door.on(B, 9, retained=True)
    assert (door.now(), door.alarms()) == ((True, B), 0)
    door.on(B, 10)
    assert door.alarms() == 0


def test_a_broker_that_was_set_back_is_no_alarm(door: Door) -> None:
    """The hub missed a session of A; the broker, restored from an old store, still has it."""
    door.on(A, 1)
    door.on(B, 1)
    door.hub_reconnects()
    door.on(A, 2, retained=True)
    door.on(B, 2)  # B had to connect anew
    assert (door.now(), door.alarms()) == ((True, B), 0)


def test_a_hub_set_back_to_a_backup_raises_no_alarm(door: Door) -> None:
    """The backup knows A; since then A ended, B came, and B connects to the restored hub."""
    door.on(A, 1)
    door.hub_reconnects()
    door.on(B, 4, retained=True)
    door.on(B, 5)
    door.on(B, 6)
    assert (door.now(), door.alarms()) == ((True, B), 0)


def test_who_is_away_is_no_news_to_a_hub_that_knows_another(door: Door) -> None:
    assert door.off(A, 1, retained=True)
    assert door.now() == (False, A)
    door.on(B, 1)
    assert not door.off(A, 2, retained=True)
    assert door.now() == (True, B)


def test_an_epoch_has_no_order_until_it_is_told(door: Door, store: Store) -> None:
    door.on(A, 1)
    with store.reading() as db:
        row: Any = db.execute(select(epochs)).one()
    assert (row.epoch, row.ord, row.held, row.session, row.final) == (A, 0, True, 1, False)
