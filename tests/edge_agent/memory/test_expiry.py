"""edge_agent/MEMORY.md, Days: what the hub has goes when its days are over, and nothing else."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.memory import expiry, outbox
from edge_agent.memory.draft import Draft
from edge_agent.memory.expiry import LOOK_S, Expiry
from edge_agent.memory.journal import Journal, JournalUnavailableError
from edge_agent.memory.keeper import Keeper
from edge_agent.memory.retention import tend
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import verify
from edge_sync.batch import decode
from edge_sync.keep import DAY_US, Keep, KeepRule
from edge_sync.rows import Kind, Lane

NOW = 1_800_000_000_000_000


class Site:
    """A journal with a clock of its own, and what lets its records go."""

    def __init__(self, path: Path) -> None:
        self.now_us, self.monotonic = NOW, 0.0
        self.journal = Journal(path, 64, lambda: self.now_us)
        self.rules: list[KeepRule] = []
        self.expiry = Expiry(self.journal, Keep([]), lambda: self.now_us)

    def keep(self, *rules: tuple[str, str, int]) -> None:
        self.expiry = Expiry(self.journal, Keep(KeepRule(*rule) for rule in rules), lambda: self.now_us)

    def write(self, *kinds: Kind, lane: Lane = "telemetry", agent: str = "press") -> None:
        self.journal.write([Draft(lane, kind, agent, self.now_us, "{}") for kind in kinds])

    def acked(self, seq: int, lane: Lane = "telemetry") -> None:
        stream = (self.journal.epoch, lane)
        self.journal.write((), also=lambda db: outbox.set_cursor(db, stream, seq))

    def pass_days(self, days: float, real_s: float | None = None) -> int:
        """Time passes, as the clock and the machine agree unless said otherwise; then a look."""
        self.now_us += int(days * DAY_US)
        self.monotonic += days * 86_400 if real_s is None else real_s
        return self.expiry.tick(self.monotonic)

    def seqs(self, lane: Lane = "telemetry") -> list[int]:
        with reading(self.journal.path) as db:
            assert verify(db).findings == ()
            return [seq for (seq,) in db.execute("SELECT seq FROM journal WHERE lane=? ORDER BY seq", (lane,))]

    def gaps(self) -> list[tuple[Any, ...]]:
        with reading(self.journal.path) as db:
            return db.execute("SELECT lane, first, last, reason FROM gaps ORDER BY lane, first").fetchall()

    def trimmed(self) -> int:
        with reading(self.journal.path) as db:
            return int(db.execute("SELECT max(trimmed) FROM cursors").fetchone()[0])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "memory.db")
    yield made
    made.journal.close()


@pytest.fixture(autouse=True, params=[2_000, 2])
def slices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look may read the journal in one slice or in many."""
    monkeypatch.setattr(expiry, "SLICE_ROWS", request.param)


def test_without_a_rule_nothing_goes(site: Site) -> None:
    site.write("observation", "prediction")
    site.acked(2)
    assert site.pass_days(10_000) == 0
    assert site.seqs() == [1, 2]


def test_what_the_hub_has_goes_after_its_days_and_the_chain_holds(site: Site) -> None:
    site.keep(("observation", "*", 7))
    for _ in range(3):
        site.write("observation", "prediction")
    site.acked(6)
    assert site.pass_days(6.9) == 0
    assert site.pass_days(0.2) == 3
    assert site.seqs() == [2, 4, 6]
    assert site.gaps() == [("telemetry", 3, 3, "expired"), ("telemetry", 5, 5, "expired")]
    assert site.trimmed() == 1, "what stands at the front is no gap of its own"
    assert site.pass_days(30) == 0


def test_a_record_that_the_hub_lacks_stays_whatever_its_age(site: Site) -> None:
    site.keep(("*", "*", 1))
    site.write("observation", "observation", "observation")
    site.acked(2)
    assert site.pass_days(30) == 2
    assert site.seqs() == [3]
    site.acked(3)
    assert site.pass_days(0.01) == 1
    assert (site.seqs(), site.gaps(), site.trimmed()) == ([], [], 3)


def test_a_hub_that_goes_back_keeps_the_site_from_letting_go(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.keep(("*", "*", 1))
    site.write("observation", "observation")
    site.acked(2)
    found = site.expiry._look

    def look(span_us: int) -> list[int]:
        due = found(span_us)
        site.acked(1)  # a resume comes between the look and the step
        return due

    monkeypatch.setattr(site.expiry, "_look", look)
    assert site.pass_days(3) == 1
    assert site.seqs() == [2]


def test_gaps_grow_into_one_where_they_meet_and_the_epoch_that_runs_goes_on(site: Site) -> None:
    site.keep(("observation", "*", 1), ("prediction", "*", 2))
    site.write("event", "observation", "prediction", "observation")
    site.acked(4)
    assert site.pass_days(1.5) == 2
    assert site.pass_days(1) == 1
    assert site.gaps() == [("telemetry", 2, 4, "expired")]
    site.write("event")
    assert site.seqs() == [1, 5]


def test_a_hub_that_asks_again_is_told_that_they_are_gone_here_too(site: Site) -> None:
    site.keep(("observation", "*", 1))
    site.write("event", "observation", "event", "observation", "event")
    site.acked(5)
    site.pass_days(2)
    with reading(site.journal.path) as db:
        outgoing = outbox.read_batch(db, (site.journal.epoch, "telemetry"), 0)
    assert outgoing is not None
    batch = decode(outgoing.message)
    assert [row.seq for row in batch.rows] == [1, 3, 5]
    told = "dropped after the hub acknowledged it"
    assert [(gap.first, gap.last, gap.reason) for gap in batch.gaps] == [(2, 2, told), (4, 4, told)]


def test_a_clock_in_1970_lets_nothing_go(site: Site) -> None:
    site.keep(("*", "*", 1))
    site.write("observation")
    site.acked(1)
    site.now_us = 5
    assert site.pass_days(20) == 0
    assert site.seqs() == [1]


def test_a_clock_years_ahead_takes_a_day_of_records_an_hour(site: Site) -> None:
    site.keep(("*", "*", 1))
    site.pass_days(0)
    for _ in range(10):
        site.write("observation")
        site.now_us += DAY_US // 2
    site.acked(10)
    assert site.pass_days(3_650, real_s=3_600) == 3, "one, and what is at most a day younger"
    assert site.pass_days(0, real_s=LOOK_S - 1) == 0, "it is not time to look"
    assert site.pass_days(0, real_s=LOOK_S) == 1
    assert site.pass_days(0, real_s=3_600) == 3
    site.now_us = NOW + 5 * DAY_US
    site.write("observation")
    assert site.pass_days(0, real_s=3_600) == 2, "the clock is right again: those of the last day stay"
    assert site.seqs() == [10, 11]


def test_a_record_of_a_time_that_was_never_does_not_hold_up_the_others(site: Site) -> None:
    site.keep(("*", "*", 1))
    site.now_us = NOW + 3_650 * DAY_US
    site.write("observation")
    site.now_us = 7
    site.write("observation")
    site.now_us = NOW
    for _ in range(1_000):  # a clock that was ahead is forgotten after a while
        site.journal.later([Draft("telemetry", "observation", "press", NOW, "{}")])
    site.journal.flush()
    site.acked(1_002)
    site.pass_days(2)
    site.pass_days(0.01)
    assert site.seqs() == [1]


def test_gaps_of_what_expired_go_with_what_is_dropped_around_them(site: Site) -> None:
    site.keep(("observation", "*", 1))
    for _ in range(4):
        site.write("event", "observation")
    site.acked(8)
    site.pass_days(2)
    assert len(site.gaps()) == 4
    while site.journal.maintain(lambda db: tend(db, above=0.0)):
        pass
    site.pass_days(1)
    assert (site.gaps(), site.trimmed()) == ([], 8)
    site.write("event")
    assert site.seqs() == [9]


def test_what_did_not_go_goes_after_the_next_look(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.keep(("*", "*", 1))
    site.write("observation", "observation")
    site.acked(2)
    with monkeypatch.context() as patched:

        def full(work: Any) -> int:
            raise JournalUnavailableError("the disk is full", 1.0)

        patched.setattr(site.journal, "maintain", full)
        with pytest.raises(JournalUnavailableError):
            site.pass_days(2)
    assert site.seqs() == [1, 2]
    assert site.pass_days(0.01) == 2


def test_each_step_is_small(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.keep(("*", "*", 1))
    for _ in range(1_000):
        site.journal.later([Draft("telemetry", "observation", "press", NOW, "{}")])
    site.journal.flush()
    site.acked(1_000)
    gone: list[int] = []
    maintain = site.journal.maintain

    def counted(work: Any) -> int:
        gone.append(maintain(work))
        return gone[-1]

    monkeypatch.setattr(site.journal, "maintain", counted)
    assert site.pass_days(2) == 1_000
    assert max(gone) <= 200


def test_a_look_lets_a_bounded_number_go_and_the_next_goes_on_there(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "DUE_ROWS", 100)
    monkeypatch.setattr(expiry, "SLICE_ROWS", 50)
    monkeypatch.setattr(expiry, "LOOK_ROWS", 50 * 50)
    site.keep(("*", "*", 1))
    observations: list[Kind] = ["observation"] * 330
    site.write(*observations)
    site.acked(330)
    assert [site.pass_days(2) for _ in range(5)] == [100, 100, 100, 30, 0]
    assert site.seqs() == []


def test_the_rows_are_those_of_one_state(site: Site) -> None:
    """The keeper may have dropped a row between the look and the step: there is nothing to declare then."""
    site.keep(("*", "*", 1))
    site.write("observation")
    site.acked(1)
    site.now_us += 2 * DAY_US
    due = site.expiry._look(DAY_US)
    while site.journal.maintain(lambda db: tend(db, above=0.0)):
        pass
    assert site.expiry._let_go(due) == 0
    assert (site.gaps(), site.trimmed()) == ([], 1)
    with pytest.raises(sqlite3.OperationalError), reading(site.journal.path) as db:
        db.execute("DELETE FROM gaps")


def test_the_keeper_lets_them_go_by_itself(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.memory.keeper.LOOK_S", 0.01)
    site.keep(("*", "*", 1))
    site.write("observation")
    site.acked(1)
    site.now_us += 2 * DAY_US

    def tend(now: float) -> None:
        site.expiry.tick(now)

    keeper = Keeper(site.journal, tend)
    keeper.start()
    until = time.monotonic() + 20
    while site.seqs():
        assert time.monotonic() < until
        time.sleep(0.01)
    keeper.close()
