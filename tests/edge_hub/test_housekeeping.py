"""sync/SPEC.md, Retention and erasing: what is let go by age leaves gaps, and the chain can still be followed."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from edge_hub.database.schema import gaps, meta, records, sites
from edge_hub.database.store import Store, UnknownError
from edge_hub.ingest.journal import Arrived, store_batches
from edge_hub.keeping import housekeeping
from edge_hub.keeping.housekeeping import LOOK_S, Housekeeping
from edge_hub.keeping.rules import KeepRules
from edge_hub.records import audit
from edge_hub.records.chain import verify_site
from edge_models.errors import RejectedError
from edge_sync.batch import decode, encode
from edge_sync.keep import DAY_US, KeepRule
from edge_sync.rows import Row, chain, chain_start, row_bytes

EPOCH = "00000000000000aa"
START = 1_800_000_000_000_000


class Desk:
    """A hub's database, its clock, and a telemetry stream of one site: observations and predictions in turn."""

    def __init__(self, store: Store) -> None:
        self.store, self.now_us = store, START
        self.rules = KeepRules(store, lambda: self.now_us)
        self.keeper = Housekeeping(store, lambda: self.now_us)
        self.hashes = [chain_start(EPOCH, "telemetry")]
        with store.writing() as db:
            db.execute(sites.insert().values(site="plant-01", labels={}, created_us=1, online=False))

    def receive(self, count: int, agent: str = "press") -> None:
        first, raws = len(self.hashes), []
        for seq in range(first, first + count):
            kind = "observation" if seq % 2 else "prediction"
            raws.append(row_bytes(Row(seq, 1, kind, agent, None, None, None, None, f'{{"n":{seq}}}')))
            self.hashes.append(chain(self.hashes[-1], raws[-1]))
        span, ends = (first, first + count - 1), (self.hashes[first - 1], self.hashes[-1])
        message = encode(EPOCH, "telemetry", raws, [], span, ends)
        with self.store.writing() as db:
            store_batches(db, [Arrived("plant-01", decode(message), message)], self.now_us)

    def pass_days(self, days: float, elapsed_s: float | None = None) -> int:
        """Time passes, as the clock and the machine agree unless said otherwise."""
        self.now_us += int(days * DAY_US)
        return self.keeper.tidy(days * 86_400 if elapsed_s is None else elapsed_s)

    def held(self) -> list[int]:
        """The numbers of the records, after a walk along the chain over records and gaps."""
        assert verify_site(self.store, "plant-01").findings == ()
        with self.store.reading() as db:
            kept = {row.seq: row for row in db.execute(select(records))}
            skipped = {row.first: row for row in db.execute(select(gaps))}
            assert audit.verify(db) is None
        seq, at_hash = 1, self.hashes[0]
        while seq < len(self.hashes):
            if gap := skipped.pop(seq, None):
                assert gap.reason == "expired"
                seq, at_hash = gap.last + 1, gap.hash
                continue
            row = kept[seq]
            raw = row_bytes(Row(seq, row.at, row.kind, row.agent, None, None, None, None, row.body))
            at_hash = chain(at_hash, raw)
            assert at_hash == row.hash == self.hashes[seq]
            seq += 1
        assert skipped == {}
        assert at_hash == self.hashes[-1]
        return sorted(kept)

    def gaps(self) -> list[tuple[int, int]]:
        with self.store.reading() as db:
            return [(row.first, row.last) for row in db.execute(select(gaps).order_by(gaps.c.first))]


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


@pytest.fixture(autouse=True, params=[1_000, 3])
def small_steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass may take one step or many."""
    monkeypatch.setattr(housekeeping, "STEP_ROWS", request.param)


def test_without_a_rule_everything_is_kept(desk: Desk) -> None:
    desk.receive(10)
    assert desk.pass_days(10_000) == 0
    assert desk.held() == list(range(1, 11))


def test_records_go_by_the_time_they_were_received_and_the_rest_stays_verifiable(desk: Desk) -> None:
    desk.rules.set(KeepRule("observation", "*", 7), "operator")
    desk.receive(10)
    desk.pass_days(3)
    desk.receive(10)
    assert desk.pass_days(3.99) == 0
    assert desk.pass_days(0.02) == 5
    assert desk.held() == [2, 4, 6, 8, 10, *range(11, 21)]
    assert desk.pass_days(1) == 0
    assert desk.pass_days(2) == 5
    assert desk.held() == [*range(2, 21, 2)]


def test_gaps_grow_into_one_where_they_meet(desk: Desk) -> None:
    desk.receive(9)
    desk.rules.set(KeepRule("observation", "*", 1), "operator")
    desk.pass_days(2)
    assert desk.gaps() == [(1, 1), (3, 3), (5, 5), (7, 7), (9, 9)]
    desk.rules.set(KeepRule("*", "*", 1), "operator")
    assert desk.pass_days(0.01) == 4
    assert desk.gaps() == [(1, 9)]
    desk.receive(4)
    desk.pass_days(2)
    assert desk.gaps() == [(1, 13)]
    assert desk.held() == []


def test_the_rule_that_says_most_counts(desk: Desk) -> None:
    for rule in (("*", "*", 1), ("prediction", "*", 3), ("*", "press", 2), ("prediction", "press", 4)):
        desk.rules.set(KeepRule(*rule), "operator")
    desk.receive(2, "press")
    desk.receive(2, "oven")
    assert desk.pass_days(1.5) == 1
    assert desk.held() == [1, 2, 4], "the oven's observation, which only the rule for all matches"
    assert desk.pass_days(1) == 1
    assert desk.held() == [2, 4], "the press's observation"
    assert desk.pass_days(1) == 1
    assert desk.held() == [2], "the oven's prediction"
    assert desk.pass_days(1) == 1
    assert desk.held() == []


def test_a_rule_that_is_taken_away_lets_nothing_go_any_more(desk: Desk) -> None:
    desk.rules.set(KeepRule("observation", "press", 1), "operator")
    desk.receive(4)
    desk.rules.remove("observation", "press", "operator")
    assert desk.pass_days(30) == 0
    with pytest.raises(UnknownError, match="no rule for kind"):
        desk.rules.remove("observation", "press", "operator")


def test_a_clock_that_jumps_years_ahead_takes_a_day_of_records_an_hour(desk: Desk) -> None:
    desk.rules.set(KeepRule("*", "*", 1), "operator")
    for _ in range(4):
        desk.receive(5)
        desk.pass_days(0.1)
    assert desk.pass_days(3_650, elapsed_s=60) == 0, "a minute later, whatever the clock says"
    assert desk.pass_days(0.04, elapsed_s=3_600) == 20, "an hour later"
    desk.receive(5)
    desk.now_us = START + DAY_US // 2
    assert desk.pass_days(0, elapsed_s=60) == 0
    with desk.store.reading() as db:
        assert db.scalar(select(meta.c.value).where(meta.c.key == housekeeping.CLOCK)) == str(desk.now_us)


def test_a_clock_that_goes_back_lets_nothing_go(desk: Desk) -> None:
    desk.rules.set(KeepRule("*", "*", 1), "operator")
    desk.receive(5)
    desk.now_us = 0
    assert desk.pass_days(0.5) == 0
    assert desk.held() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("kind", "agent", "days", "why"),
    [("picture", "*", 1, "there are obs"), ("*", "*", 0, "1 to"), ("*", "*", 99_999, "1 to"), ("*", "", 1, "a name")],
)
def test_what_is_no_rule_is_refused(kind: str, agent: str, days: int, why: str) -> None:
    with pytest.raises(RejectedError, match=why):
        KeepRule(kind, agent, days)


def test_the_thread_tidies_by_itself_and_survives_a_refusing_database(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, until_true: Callable[[Callable[[], Any]], None]
) -> None:
    monkeypatch.setattr(housekeeping, "LOOK_S", 0.01)
    assert LOOK_S == 600.0
    failed: list[int] = []
    believed = housekeeping._believed

    def refuse_once(*words: Any) -> int:
        if not failed:
            failed.append(1)
            raise RuntimeError("not now")
        return believed(*words)

    monkeypatch.setattr(housekeeping, "_believed", refuse_once)
    desk.rules.set(KeepRule("*", "*", 1), "operator")
    desk.receive(3)
    desk.now_us += 2 * DAY_US
    desk.keeper.start()
    until_true(lambda: desk.gaps() == [(1, 3)])
    desk.keeper.close()


@pytest.fixture
def until_true() -> Callable[[Callable[[], Any]], None]:
    def wait(true: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 20
        while not true():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)

    return wait
