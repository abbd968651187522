"""Two slots, and how far the active one is proven: a real memory, each step in a transaction of its own."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.memory.journal import Journal
from edge_agent.memory.schema import open_writer, reading, transaction
from edge_agent.update.slots import (
    OnTrial,
    Refused,
    Slot,
    confirm,
    fallback,
    go_back,
    keep_trial,
    note_boot,
    read_refused,
    read_slot,
    read_trial,
    standing,
    write_active,
    write_refused,
)
from edge_agent.update.trial import TrialRow
from edge_sync.release import Release
from edge_sync.updater import Standing


def slot(number: int, generation: int | None = None) -> Slot:
    release = Release.model_validate({"release": number, "agents": [], "artifacts": {}})
    return Slot(release, number if generation is None else generation)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    made = open_writer(tmp_path / "memory.db", 16)
    yield made
    made.close()


def held(db: sqlite3.Connection) -> dict[str, tuple[int, int, int]]:
    """Release, generation and whether it is confirmed, by slot."""
    rows = db.execute("SELECT slot, release, generation, confirmed FROM slots").fetchall()
    return {name: (release, generation, confirmed) for name, release, generation, confirmed in rows}


def test_a_release_begins_unconfirmed_and_its_trial_is_kept(db: sqlite3.Connection) -> None:
    assert read_trial(db) is None
    assert fallback(db) is None
    write_active(db, slot(1), 5)
    assert held(db) == {"active": (1, 1, 0)}
    assert read_trial(db) == OnTrial(0, TrialRow())
    row = TrialRow(123.5, '{"baseline": {}}')
    keep_trial(db, row)
    note_boot(db)
    note_boot(db)
    assert read_trial(db) == OnTrial(2, row)
    confirm(db)
    assert held(db) == {"active": (1, 1, 1)}
    assert read_trial(db) is None


def test_what_is_confirmed_has_no_trial_to_write_down(db: sqlite3.Connection) -> None:
    write_active(db, slot(1), 5)
    confirm(db)
    before = db.execute("SELECT * FROM slots").fetchall()
    note_boot(db)
    keep_trial(db, TrialRow(1.0, "x"))
    assert db.execute("SELECT * FROM slots").fetchall() == before


def test_a_new_release_begins_anew_beside_the_proven_one(db: sqlite3.Connection) -> None:
    write_active(db, slot(1), 5)
    confirm(db)
    write_active(db, slot(2), 6)
    note_boot(db)
    keep_trial(db, TrialRow(1.0, "x"))
    confirm(db)
    write_active(db, slot(3), 7)
    assert held(db) == {"active": (3, 3, 0), "previous": (2, 2, 1)}
    assert read_trial(db) == OnTrial(0, TrialRow())
    assert fallback(db) == slot(2)


def test_two_releases_on_trial_do_not_push_the_proven_one_out(db: sqlite3.Connection) -> None:
    write_active(db, slot(1), 5)
    confirm(db)
    write_active(db, slot(2), 6)
    write_active(db, slot(3), 7)
    assert held(db) == {"active": (3, 3, 0), "previous": (1, 1, 1)}


def test_an_unproven_release_is_better_than_none_to_go_back_to(db: sqlite3.Connection) -> None:
    write_active(db, slot(1), 5)
    write_active(db, slot(2), 6)
    assert fallback(db) == slot(1)


def test_what_the_site_file_named_can_be_gone_back_to(db: sqlite3.Connection) -> None:
    write_active(db, slot(1), 5, running=slot(9, 0))
    assert held(db) == {"active": (1, 1, 0), "previous": (9, 0, 1)}
    write_active(db, slot(2), 6, running=slot(1))
    assert held(db) == {"active": (2, 2, 0), "previous": (9, 0, 1)}
    go_back(db, "bad", 7)
    assert read_slot(db, "active") == slot(9, 0)
    assert standing(db, slot(9, 0)) == Standing(9, 2, 2, "bad", "rolled_back")


def test_an_active_release_that_could_not_run_is_nothing_to_go_back_to(db: sqlite3.Connection) -> None:
    write_active(db, slot(1), 5)
    confirm(db)
    write_active(db, slot(2), 6)
    confirm(db)  # then its bytes were damaged: the process passed it over, and release 1 runs
    write_active(db, slot(3), 7, running=slot(1))
    assert held(db) == {"active": (3, 3, 0), "previous": (1, 1, 1)}
    write_active(db, slot(4), 8, running=slot(9, 0))  # and here both slots were
    assert held(db) == {"active": (4, 4, 0), "previous": (9, 0, 1)}


@pytest.mark.parametrize("proven", [True, False])
def test_the_same_release_under_a_newer_generation_stands_as_it_stood(db: sqlite3.Connection, proven: bool) -> None:
    write_active(db, slot(1), 5)
    confirm(db)
    write_active(db, slot(2), 6)
    note_boot(db)
    keep_trial(db, TrialRow(9.0, "x"))
    if proven:
        confirm(db)
    write_active(db, slot(2, 12), 7, running=slot(2))
    assert held(db) == {"active": (2, 12, proven), "previous": (1, 1, 1)}
    assert read_trial(db) == (None if proven else OnTrial(1, TrialRow(9.0, "x")))


def test_going_back_refuses_what_disappointed_until_a_higher_generation(db: sqlite3.Connection) -> None:
    write_active(db, slot(1, 10), 5)
    confirm(db)
    write_active(db, slot(2, 11), 6)
    note_boot(db)
    go_back(db, "agent 'press' crashed 4 times", 7)
    assert held(db) == {"active": (1, 10, 1), "refused": (0, 11, 0)}
    assert read_trial(db) is None
    assert fallback(db) is None
    assert read_refused(db) == Refused(11, "agent 'press' crashed 4 times", rolled_back=True)
    assert standing(db, slot(1, 10)) == Standing(1, 11, 11, "agent 'press' crashed 4 times", "rolled_back")
    write_active(db, slot(2, 12), 8)
    assert held(db) == {"active": (2, 12, 0), "previous": (1, 10, 1), "refused": (0, 11, 0)}
    assert standing(db, slot(2, 12)) == Standing(2, 12, 12)


def test_of_several_refused_generations_the_newest_is_remembered(db: sqlite3.Connection) -> None:
    write_active(db, slot(1), 5)
    confirm(db)
    write_active(db, slot(2), 6)
    write_refused(db, 3, "its model does not load", 7)
    go_back(db, "too slow", 8)
    assert read_refused(db) == Refused(3, "its model does not load")
    assert standing(db, slot(1)) == Standing(1, 3, 3, "its model does not load")
    write_refused(db, 3, "said again", 9)
    assert read_refused(db) == Refused(3, "said again")


def no_previous(db: sqlite3.Connection) -> None:
    write_active(db, slot(1), 5)


def the_same_again(db: sqlite3.Connection) -> None:
    write_active(db, slot(1), 5)
    confirm(db)
    write_active(db, slot(2), 6)
    write_active(db, slot(1, 3), 7)


def nothing_active(db: sqlite3.Connection) -> None:
    write_active(db, slot(2), 5, running=slot(1))
    db.execute("DELETE FROM slots WHERE slot='active'")


@pytest.mark.parametrize("prepare", [no_previous, the_same_again, nothing_active])
def test_without_another_release_there_is_no_way_back(
    db: sqlite3.Connection, prepare: Callable[[sqlite3.Connection], None]
) -> None:
    prepare(db)
    before = db.execute("SELECT * FROM slots").fetchall()
    with pytest.raises(ValueError, match="no previous release"):
        go_back(db, "bad", 9)
    assert db.execute("SELECT * FROM slots").fetchall() == before


@pytest.mark.parametrize("document", ["{", "[]", "{}", "7"])
def test_a_row_that_cannot_be_read_stands_in_no_updates_way(db: sqlite3.Connection, document: str) -> None:
    write_active(db, slot(1), 5)
    db.execute("UPDATE slots SET document=?", (document,))
    write_active(db, slot(2), 6, running=slot(9, 0))
    assert read_slot(db, "active") == slot(2)
    assert fallback(db) == slot(9, 0)


def test_going_back_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    journal = Journal(path, 16, lambda: 1)
    journal.write((), also=lambda db: write_active(db, slot(1), 5))
    journal.write((), also=confirm)
    journal.write((), also=lambda db: write_active(db, slot(2), 6))

    def cut_short(db: sqlite3.Connection) -> None:
        go_back(db, "bad", 7)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        journal.write((), also=cut_short)
    with reading(path) as db:
        assert held(db) == {"active": (2, 2, 0), "previous": (1, 1, 1)}
    journal.write((), also=lambda db: go_back(db, "bad", 7))
    journal.close()
    with reading(path) as db:
        assert held(db) == {"active": (1, 1, 1), "refused": (0, 2, 0)}


steps = st.lists(st.sampled_from(["activate", "again", "confirm", "boot", "back", "refuse"]), max_size=25)


@given(steps)
def test_whatever_happens_the_floor_never_falls_and_what_was_proven_is_kept(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    db = open_writer(tmp_path_factory.mktemp("site") / "memory.db", 16)
    generation = floor = 0
    proven: Slot | None = None
    for step in steps:
        active = read_slot(db, "active")
        with transaction(db):
            if step == "activate" or (step == "again" and active is not None):
                generation += 1
                number = active.release.release if step == "again" and active is not None else generation
                write_active(db, slot(number, generation), generation)
            elif step == "refuse":
                generation += 1
                write_refused(db, generation, "no", generation)
            elif step == "confirm":
                confirm(db)
            elif step == "boot":
                note_boot(db)
            elif read_trial(db) is not None and fallback(db) is not None:
                go_back(db, "bad", generation)
        active = read_slot(db, "active")
        if active is None:
            continue
        if read_trial(db) is None:
            proven = active
        stands = standing(db, active)
        assert stands.floor == generation >= floor, "what is older stays refused"
        assert (stands.refused is None) == (active.generation == stands.generation)
        floor = stands.floor
        if proven is not None:
            kept = [each.release for name in ("active", "previous") if (each := read_slot(db, name)) is not None]
            assert proven.release in kept
    db.close()
