"""Several that take in at once, on one database. Held: sync/SPEC.md, section Several ingest workers."""

import pickle
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from operator_desk import Desk
from sqlalchemy import select

from edge_hub.broker import BrokerFolder
from edge_hub.database.schema import gaps, leases, quarantine, records, sites, workers
from edge_hub.database.store import Store, TakenError
from edge_hub.delivery.releases import Releases
from edge_hub.ingest.inbox import Heard
from edge_hub.records import audit
from edge_hub.sites import Sites
from edge_hub.workers.leases import LAST_S
from edge_hub.workers.worker import leave, take_turn
from edge_models.digests import digest_of
from edge_sync.documents import EpochState, Heartbeat, Presence, dump
from edge_sync.release import AgentSpec, Release, SourceSpec, describe

PLANTS = [f"plant-{n:02}" for n in range(1, 9)]
EPOCHS = ["00000000000000aa", "00000000000000bb"]
DEADLINE_S = 60.0


def at_once(*works: Callable[[], object]) -> None:
    """Run all of them, beginning together; the first that raises is raised here."""
    begin, failed = threading.Barrier(len(works)), list[BaseException]()

    def run(work: Callable[[], object]) -> None:
        begin.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failed.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def cut(written: Any, size: int) -> list[bytes]:
    """All rows of a stream, in batches."""
    return [written.batch(first, first + size - 1) for first in range(1, len(written.raws), size)]


def mixed(batches: Sequence[tuple[str, bytes]], seed: int) -> list[tuple[str, bytes]]:
    """As a network may bring them: some twice, some late; each stream comes whole and in order in the end."""
    chance = random.Random(seed)
    early = [batch for batch in batches if chance.random() < 0.5]
    chance.shuffle(early)
    return [*early, *batches]


def check_whole(store: Store, expected: dict[tuple[str, str, str], int], desk: Any) -> None:
    """Every record is there once, without a hole, nothing was lost or put aside, and the audit chain holds."""
    assert desk.highs() == expected
    with store.reading() as db:
        held: dict[tuple[str, str, str], list[int]] = {}
        for row in db.execute(select(records).order_by(*records.primary_key)):
            held.setdefault((row.site, row.epoch, row.lane), []).append(row.seq)
        assert audit.verify(db) is None
    assert held == {key: list(range(1, high + 1)) for key, high in expected.items()}
    assert (desk.count(gaps), desk.count(quarantine)) == (0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_two_threads_hammer_one_new_stream(store: Store, new_desk: Any, stream: Any, seed: int) -> None:
    desks = [new_desk(store) for _ in range(2)]
    batches = [("plant-01", each) for each in cut(stream().grow(200), 5)]
    turns = [mixed(batches, seed * 10 + n) for n in range(2)]

    def work(desk: Any, turn: list[tuple[str, bytes]]) -> None:
        for site, payload in turn:
            desk.hear(payload, site=site)

    at_once(*(lambda d=desk, t=turn: work(d, t) for desk, turn in zip(desks, turns, strict=True)))
    check_whole(store, {("plant-01", EPOCHS[0], "decision"): 200}, desks[0])


def test_ingest_threads_over_the_same_and_other_sites_wait_for_each_other_and_never_for_ever(
    store: Store, new_desk: Any, stream: Any
) -> None:
    """Each takes transactions of many sites, in an order of its own: without one order of locks they would deadlock."""
    desks = [new_desk(store) for _ in range(3)]
    expected: dict[tuple[str, str, str], int] = {}
    batches: list[tuple[str, bytes]] = []
    for site in PLANTS:
        for epoch in EPOCHS:
            batches += [(site, each) for each in cut(stream(epoch).grow(60), 10)]
            expected[site, epoch, "decision"] = 60
    for number, desk in enumerate(desks):
        for site, payload in mixed(batches, number):
            assert desk.inbox.put(Heard(site, "journal", payload))
            state = EpochState(epoch=EPOCHS[0], order=1, last={"decision": 60})
            desk.inbox.put(Heard(site, "heartbeat", dump(Heartbeat(at_us=number, epochs=[state]))))
            desk.inbox.put(Heard(site, "presence", dump(Presence(online=True, epoch=EPOCHS[0], session=1))))
    for desk in desks:
        desk.ingest.start()
    deadline = time.monotonic() + DEADLINE_S
    while any(desk.inbox.waiting for desk in desks) and time.monotonic() < deadline:
        time.sleep(0.01)
    for desk in desks:
        desk.ingest.close()
        assert desk.metrics.value("edge_hub_ingest_failures_total") == 0
    check_whole(store, expected, desks[0])


def test_processes_over_one_database(store: Store, database: Any, desk: Any, stream: Any) -> None:
    expected = {(site, EPOCHS[0], "decision"): 40 for site in PLANTS[:4]}
    batches = [(site, each) for site in PLANTS[:4] for each in cut(stream().grow(40), 4)]
    script = Path(__file__).with_name("ingest_process.py")
    children = [subprocess.Popen([sys.executable, str(script)], stdin=-1, stdout=-1) for _ in range(2)]
    for number, child in enumerate(children):
        assert child.stdin is not None
        child.stdin.write(pickle.dumps((database, mixed(batches, number))))
        child.stdin.flush()
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    for child in children:
        child.communicate(b"go\n", timeout=DEADLINE_S)
        assert child.returncode == 0
    check_whole(store, expected, desk)


def test_the_audit_chain_and_the_counts_hold_while_all_of_them_note(store: Store, new_desk: Any, stream: Any) -> None:
    desks = [new_desk(store) for _ in range(3)]
    wrong = [b"EJ1 no batch %d" % n for n in range(20)]

    def work(desk: Any) -> None:
        for n, payload in enumerate(wrong):
            desk.hear(payload, site=PLANTS[n % 4])
            desk.hear(payload, site="nobody")

    at_once(*(lambda d=desk: work(d) for desk in desks))
    with store.reading() as db:
        held = db.execute(select(quarantine.c.site, quarantine.c.times)).all()
        assert audit.verify(db) is None
        assert audit.count(db) == len(held) == 40
    assert sum(row.times for row in held) == 3 * 40


def test_what_people_ask_for_is_done_one_after_the_other_beside_ingest(
    store: Store, new_desk: Any, stream: Any, tmp_path: Path
) -> None:
    operator = Desk(tmp_path / "desk", store=store)
    releases = Releases(store, operator.director, lambda *_: None, lambda: 1)
    registry = Sites(store, BrokerFolder(tmp_path / "broker"), lambda: 1)
    digest = digest_of(b"x")
    releases.add_artifact(digest, describe("x", b"x"), "operator")
    spec = AgentSpec(name="a", bundle=digest, policy=digest, source=SourceSpec(kind="mqtt"))
    release = Release.of(1, [spec], {str(digest): describe("x", b"x")})
    releases.create(release, "operator")
    operator.sign(release, {digest: b"x"})
    batches = cut(stream().grow(100), 5)
    pushed, taken = list[int](), list[str]()

    def push() -> None:
        for _ in range(10):
            pushed.extend(each.generation for each in releases.push(1, ["plant-01"], "operator"))

    def register() -> None:
        for n in range(5):
            try:
                registry.register(f"new-{n}", {}, replace=False, who="operator")
            except TakenError:
                taken.append(f"new-{n}")

    def work(desk: Any) -> None:
        for payload in batches:
            desk.hear(payload)

    desks = [new_desk(store) for _ in range(2)]
    at_once(push, push, register, register, *(lambda d=desk: work(d) for desk in desks))
    assert sorted(pushed) == list(range(1, 21))
    assert sorted(taken) == [f"new-{n}" for n in range(5)]
    check_whole(store, {("plant-01", EPOCHS[0], "decision"): 100}, desks[0])


def test_workers_share_sites_and_take_over_what_one_leaves_or_does_not_renew(store: Store) -> None:
    def turn(me: str, now_s: float) -> frozenset[str]:
        with store.writing(shared=True) as db:
            return take_turn(db, me, int(now_s * 1e6)).hold

    def table() -> dict[str, str]:
        with store.reading() as db:
            return {row.site: row.worker for row in db.execute(select(leases))}

    assert turn("a", 0) == set(PLANTS)
    assert turn("b", 1) == set()
    assert len(turn("a", 2)) == len(turn("b", 3)) == 4
    assert set(table()) == set(PLANTS)
    assert len(turn("b", 2 + LAST_S - 0.1)) == 4
    assert turn("b", 2 + LAST_S) == set(PLANTS)  # `a` did not renew
    with store.writing() as db:
        db.execute(sites.delete().where(sites.c.site == "plant-03"))
    assert turn("b", 20) == set(PLANTS) - {"plant-03"} == set(table())
    with store.writing(shared=True) as db:
        leave(db, "b")
        assert db.execute(select(workers.c.worker)).all() == []  # that of `a` was cleared away
    assert turn("a", 21) == set(PLANTS) - {"plant-03"}


def test_workers_that_take_turns_at_once_never_hold_one_site_both(store: Store) -> None:
    def work(me: str) -> None:
        for n in range(10):
            with store.writing(shared=True) as db:
                take_turn(db, me, n * 1_000_000)

    names = ["a", "b", "c"]
    at_once(*(lambda m=me: work(m) for me in names))
    held = []
    for me in names * 2:
        with store.writing(shared=True) as db:
            held.append(take_turn(db, me, 11_000_000).hold)
    assert sorted(site for hold in held[3:] for site in hold) == PLANTS
    assert sorted(len(hold) for hold in held[3:]) == [2, 3, 3]
