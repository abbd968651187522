"""Leases of sites among ingest workers, without a database. Held: sync/SPEC.md, section Several ingest workers."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from edge_hub.workers.leases import LAST_S, RENEW_S, Plan, View, plan

TURN_US = int(RENEW_S * 1e6)


@dataclass
class Fleet:
    """The two tables, and workers that take turns."""

    sites: set[str]
    workers: dict[str, int] = field(default_factory=dict)
    leases: dict[str, str] = field(default_factory=dict)
    now_us: int = 1_000_000_000

    def turn(self, worker: str) -> Plan:
        made = plan(worker, View(frozenset(self.sites), dict(self.workers), dict(self.leases)), self.now_us)
        for site in made.drop:
            del self.leases[site]
        self.leases |= dict.fromkeys(made.take, worker)
        assert made.hold == self.held(worker)
        self.workers[worker] = made.until_us
        return made

    def turns(self, *workers: str, rounds: int = 1) -> None:
        for _ in range(rounds):
            for worker in workers:
                self.turn(worker)
            self.now_us += TURN_US

    def held(self, worker: str) -> set[str]:
        return {site for site, holder in self.leases.items() if holder == worker}


def names(count: int) -> set[str]:
    return {f"plant-{n:02}" for n in range(count)}


def test_one_worker_takes_all_and_a_new_site_at_its_next_turn() -> None:
    fleet = Fleet(names(12))
    fleet.turns("a")
    assert fleet.held("a") == fleet.sites
    fleet.sites = fleet.sites - {"plant-03"} | {"plant-99"}
    fleet.turns("a")
    assert fleet.held("a") == fleet.sites == set(fleet.leases)


def test_who_comes_gets_a_share_and_what_was_held_stays_where_it_can() -> None:
    fleet = Fleet(names(12))
    fleet.turns("a")
    before = fleet.held("a")
    fleet.turns("a", "b", "c", rounds=3)
    assert [len(fleet.held(each)) for each in "abc"] == [4, 4, 4]
    assert fleet.held("a") <= before
    settled = dict(fleet.leases)
    fleet.turns("a", "b", "c")
    assert fleet.leases == settled


def test_the_sites_of_a_worker_that_is_killed_are_taken_when_its_leases_end() -> None:
    fleet = Fleet(names(9))
    fleet.turns("a", "b", "c", rounds=3)
    lost = fleet.held("b")
    began_us = fleet.now_us
    while lost & fleet.held("b"):
        fleet.turns("a", "c")
    assert LAST_S * 1e6 <= fleet.now_us - began_us + TURN_US <= (LAST_S + 2 * RENEW_S) * 1e6
    fleet.turns("a", "c", rounds=2)
    assert len(lost) == 3
    assert fleet.held("a") | fleet.held("c") == fleet.sites
    assert abs(len(fleet.held("a")) - len(fleet.held("c"))) <= 1


def test_a_lease_of_a_site_that_is_gone_and_of_a_worker_that_is_dead_is_cleared() -> None:
    fleet = Fleet({"plant-01"}, leases={"old": "dead"})
    assert fleet.turn("a").drop == {"old"}
    assert set(fleet.leases) == {"plant-01"}


steps = st.lists(
    st.one_of(
        st.sampled_from(["a", "b", "c", "d"]),
        st.tuples(st.sampled_from(["+", "-"]), st.sampled_from(sorted(names(9)))),
        st.floats(0.1, 20.0),
    ),
    max_size=60,
)


@given(steps)
def test_whatever_happens_a_turn_takes_nobodys_lease_and_all_sites_are_held_in_the_end(history: list[object]) -> None:
    fleet = Fleet(names(5))
    for step in history:
        match step:
            case str():
                alive = {worker for worker, until_us in fleet.workers.items() if until_us > fleet.now_us}
                living = {site: holder for site, holder in fleet.leases.items() if holder in alive - {step}}
                fleet.turn(step)
                assert living.items() <= fleet.leases.items()
            case ("+", str(site)):
                fleet.sites.add(site)
            case (_, str(site)):
                fleet.sites.discard(site)
            case float():
                fleet.now_us += int(step * 1e6)
    fleet.turns("a", "b", rounds=9)
    assert fleet.held("a") | fleet.held("b") == fleet.sites
    assert set(fleet.leases) == fleet.sites
    assert abs(len(fleet.held("a")) - len(fleet.held("b"))) <= 1
