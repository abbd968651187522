"""edge_agent/MEMORY.md: in what order rows go, and when an epoch is forgotten."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.memory import outbox, retention
from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.keeper import Keeper
from edge_agent.memory.schema import open_writer, reading
from edge_agent.memory.verify import verify
from edge_sync.rows import LANES, Lane


class Site:
    """A memory that starts again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, rows: int = 0) -> str:
        """A whole process: so many rows in each lane; returns its epoch."""
        journal = Journal(self.path, 64, lambda: time.time_ns() // 1000)
        for lane in LANES:
            journal.write([Draft(lane, "event", "a", 1, "{}") for _ in range(rows)])
        journal.close()
        return journal.epoch

    def run(self, work: Callable[[sqlite3.Connection], int]) -> int:
        """Maintain without a process of its own: no epoch begins."""
        with closing(open_writer(self.path, 64)) as db:
            db.execute("BEGIN IMMEDIATE")
            done = work(db)
            db.execute("COMMIT")
            return done

    def acked(self, epoch: str, seq: int, *lanes: Lane) -> None:
        """What the hub has of an epoch."""

        def note(db: sqlite3.Connection) -> int:
            for lane in lanes or LANES:
                outbox.set_cursor(db, (epoch, lane), seq)
            return 0

        self.run(note)

    def tables(self) -> tuple[set[str], set[str]]:
        """The epochs with records that `epochs` names, and those that `cursors` names, after one more start."""
        self.start()
        with reading(self.path) as db:
            assert verify(db).findings == ()
            epochs = db.execute("SELECT epoch FROM epochs WHERE alarm+decision+telemetry>0").fetchall()
            return {epoch for (epoch,) in epochs}, {epoch for (epoch,) in db.execute("SELECT epoch FROM cursors")}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "memory.db")


def no_room(db: sqlite3.Connection) -> int:
    return retention.tend(db, above=0.0)


def room(db: sqlite3.Connection) -> int:
    return retention.tend(db, above=1.0)


def test_an_epoch_without_records_is_kept_until_there_are_too_many(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = [site.start() for _ in range(5)]
    kept = site.start(rows=1)
    with reading(site.path) as db:
        assert list(outbox.epochs(db)) == [*empty, kept], "the hub may have heard of them"
    monkeypatch.setattr(retention, "MAX_EPOCHS", 3)
    assert site.tables()[0] == {kept}
    with reading(site.path) as db:
        assert list(outbox.epochs(db).values()) == [5, 6, 7], "numbers go on"


def test_one_that_the_hub_has_is_kept_for_a_hub_restored_from_a_backup(site: Site) -> None:
    whole, other = site.start(rows=3), site.start(rows=2)
    site.acked(whole, 3)
    assert site.run(room) == 0, "there is room: its rows stay"
    site.start()
    assert site.run(no_room) == 9
    assert site.tables() == ({whole, other}, {whole})
    with reading(site.path) as db:
        assert {state.epoch for state in outbox.streams(db)} == {whole, other}, "and the hub can be told of it"


def test_of_too_many_one_that_the_hub_has_and_that_is_trimmed_goes_with_its_cursors(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, kept, other = site.start(rows=3), site.start(rows=2), site.start(rows=2)
    site.acked(gone, 3)
    site.acked(kept, 2)
    site.start()
    assert site.run(no_room) == 15
    monkeypatch.setattr(retention, "MAX_EPOCHS", 4)  # with the one that was, and the one that runs
    assert site.tables() == ({kept, other}, {kept}), "the oldest, and not one more than there are too many"


@pytest.mark.parametrize("lane", LANES)
def test_one_of_which_the_hub_lacks_a_row_or_a_gap_is_kept(
    site: Site, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = site.start(rows=3)
    site.acked(epoch, 3, *(each for each in LANES if each != lane))
    site.acked(epoch, 2, lane)
    while site.run(no_room):  # the last row of the lane is evicted, and the hub does not know yet
        pass
    assert site.tables()[0] == {epoch}
    monkeypatch.setattr(retention, "MAX_EPOCHS", 0)
    site.start()
    assert site.tables()[0] == {epoch}
    site.acked(epoch, 3, lane)
    site.start()
    assert site.tables()[0] == set()
    with reading(site.path) as db:
        assert db.execute("SELECT epoch, lane, first, last FROM gaps").fetchall() == [(epoch, lane, 3, 3)]


def test_the_epoch_that_runs_is_never_forgotten(site: Site) -> None:
    journal = Journal(site.path, 64, lambda: 1)
    journal.write([Draft("alarm", "event", "a", 1, "{}")])
    journal.write((), also=lambda db: outbox.set_cursor(db, (journal.epoch, "alarm"), 1))
    while journal.maintain(no_room):
        pass
    journal.write([Draft("alarm", "event", "a", 1, "{}")])
    with reading(site.path) as db:
        assert [(s.epoch, s.last, s.trimmed) for s in outbox.streams(db)] == [(journal.epoch, 2, 1)]
    journal.close()


def test_of_very_many_epochs_those_the_hub_has_go_though_there_is_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "MAX_EPOCHS", 4)
    epochs = [site.start(rows=2) for _ in range(8)]
    for epoch in epochs[1:]:
        site.acked(epoch, 2)
    while site.run(room):
        pass
    assert site.tables()[0] == {epochs[0], *epochs[-3:]}, "the first, which the hub lacks, and the newest"


def test_the_keeper_forgets_by_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.memory.keeper.LOOK_S", 0.01)
    monkeypatch.setattr(retention, "MAX_EPOCHS", 1)
    old = site.start(rows=1)
    journal = Journal(site.path, 64, lambda: 1)
    keeper = Keeper(journal)
    keeper.start()
    for lane in LANES:
        journal.write((), also=lambda db, lane=lane: outbox.set_cursor(db, (old, lane), 1))  # type: ignore[misc]
    until = time.monotonic() + 10
    while site.tables()[1]:
        assert time.monotonic() < until
        time.sleep(0.01)
    keeper.close()
    journal.close()


def test_rows_of_a_stream_that_forked_go_after_the_acknowledged_ones_and_leave_no_gap(site: Site) -> None:
    forked, acked, waiting = site.start(rows=3), site.start(rows=3), site.start(rows=3)
    site.acked(acked, 3)

    def fork(db: sqlite3.Connection) -> int:
        for lane in LANES:
            outbox.set_forked(db, (forked, lane))
        return 0

    site.run(fork)
    left = []
    while site.run(no_room):
        with reading(site.path) as db:
            assert verify(db).findings == ()
            left.append({epoch for (epoch,) in db.execute("SELECT DISTINCT epoch FROM journal")})
    assert left[:2] == [{forked, waiting}, {waiting}]
    with reading(site.path) as db:
        assert {epoch for (epoch,) in db.execute("SELECT DISTINCT epoch FROM gaps")} == {waiting}


def test_a_cursor_that_moves_does_not_undo_a_fork(site: Site) -> None:
    epoch = site.start(rows=2)

    def fork(db: sqlite3.Connection) -> int:
        outbox.set_forked(db, (epoch, "alarm"))
        return 0

    site.run(fork)
    site.acked(epoch, 1, "alarm")
    with reading(site.path) as db:
        assert db.execute("SELECT acked, forked FROM cursors").fetchall() == [(1, 1)]
