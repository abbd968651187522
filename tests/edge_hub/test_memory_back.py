"""From a site's memory to the hub and back into a new one. Held: sync/SPEC.md, section A site that lost its memory."""

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from edge_agent.memory.draft import Draft
from edge_agent.memory.explain import explain
from edge_agent.memory.facts import Facts
from edge_agent.memory.journal import Journal
from edge_agent.memory.outbox import read_batch, set_cursor, streams
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import verify
from edge_agent.rehydrate import apply
from edge_agent.tools.base import Call, SetFact
from edge_hub.database.schema import epochs, records, sites
from edge_hub.database.store import Store
from edge_hub.facts.memory_back import MAX_RECORDS, MemoryBack, memory_of
from edge_hub.ingest.journal import Arrived, store_batches
from edge_hub.records.registry import heartbeat
from edge_sync.batch import decode
from edge_sync.documents import MAX_DOCUMENT_BYTES, EpochState, Heartbeat, Memory, dump, load
from edge_sync.rehydration import MEMORY_TYPE, Rehydration, Returned
from edge_sync.signing import MAX_ENVELOPE_BYTES, make_key
from edge_sync.signing import verify as open_envelope

SITE = "plant-01"
CALL = Call("0123456789abcdef:decision:1", "press", None, 2**62)


def now_us() -> int:
    return time.time_ns() // 1000


@dataclass
class World:
    """One site's disk, and a hub that hears of it."""

    disk: Path
    store: Store
    sessions: int = 0

    @property
    def path(self) -> Path:
        return self.disk / "memory.db"

    def live(self, work: Callable[[Journal], object]) -> None:
        """One start of the site, and everything it wrote delivered in the end."""
        journal = Journal(self.path, 64, now_us)
        try:
            work(journal)
            self.deliver(journal)
        finally:
            journal.close()

    def deliver(self, journal: Journal) -> None:
        self.sessions += 1
        journal.flush()
        with reading(self.path) as db, self.store.writing() as hub:
            for state in streams(db):
                known = {"site": SITE, "epoch": state.epoch, "ord": state.order, "since_us": self.sessions}
                if state.epoch == journal.epoch and state.lane == "decision":
                    hub.execute(epochs.insert().values(**known, held=True))
                after = state.acked
                while (batch := read_batch(db, state.stream, after)) is not None:
                    store_batches(hub, [Arrived(SITE, decode(batch.message), batch.message)], 1)
                    after = batch.last
                journal.later(also=lambda db, s=state, seq=after: set_cursor(db, s.stream, seq))  # type: ignore[misc]

    def ask(self) -> Returned:
        """What the hub answers, over the wire."""
        with self.store.reading() as db:
            payload = dump(memory_of(db, SITE, "s1", now_us()))
        assert len(payload) <= MAX_DOCUMENT_BYTES
        question = Rehydration(SITE, "s1", lambda envelope: envelope, 0.0)
        question.up(0.0)
        question.heard(payload)
        assert isinstance(question.outcome, Returned)
        return question.outcome

    def come_back(self) -> dict[str, Any] | None:
        """The disk is replaced, and what the hub holds is put there."""
        shutil.rmtree(self.disk)
        self.disk.mkdir()
        return apply(self.path, self.ask(), 64, now_us())

    def rows(self) -> list[tuple[Any, ...]]:
        with reading(self.path) as db:
            return db.execute("SELECT * FROM journal WHERE lane='decision' ORDER BY id").fetchall()


@pytest.fixture
def world(tmp_path: Path, store: Store) -> World:
    with store.writing() as db:
        db.execute(sites.insert().values(site=SITE, labels={}, created_us=1, online=False))
    return World(tmp_path / "data", store)


def decide(journal: Journal, count: int, body: str = '{"n":1}', **more: Any) -> list[Draft]:
    """Predictions, and decisions that follow from them, each with its action."""
    made = []
    for _ in range(count):
        seen = Draft("telemetry", "prediction", "press", now_us(), "{}", label="worn", score=0.9)
        decision = Draft("decision", "decision", "press", now_us(), body, label="go", ref=seen, score=0.25, **more)
        done = Draft("decision", "action", "press", now_us(), '{"status":"done"}', label="alert", ref=decision)
        journal.write([seen, decision, done])
        made.append(decision)
    return made


def test_facts_and_the_newest_decisions_come_back_as_they_were(world: World) -> None:
    decisions: list[Draft] = []

    def work(journal: Journal) -> None:
        facts = Facts(journal, now_us)
        facts.set(SetFact("mode", {"auto": [1, None]}), CALL)
        facts.set(SetFact("short", 1, now_us() + 10**12), CALL)
        decisions.extend(decide(journal, 20))

    world.live(work)
    world.live(lambda journal: decisions.extend(decide(journal, 5)))
    before = [row[1:] for row in world.rows()]
    back = world.come_back()
    assert back == {"facts": 2, "facts_left_out": 0, "records": len(before), "epochs": 2, "order": 2}
    assert [row[1:] for row in world.rows()] == before
    assert world.path.stat().st_mode & 0o777 == 0o600

    journal = Journal(world.path, 64, now_us)
    try:
        assert journal.order == 3
        facts = Facts(journal, now_us)
        assert facts.view() == {"mode": {"auto": [1, None]}, "short": 1}
        decide(journal, 3)
        with reading(world.path) as db:
            assert verify(db).findings == ()
            why = explain(db, str(decisions[0].id))
            held = {state.stream: (state.last, state.acked) for state in streams(db)}
    finally:
        journal.close()
    assert [record.kind for record in why.chain] == ["decision", "action"]
    assert len(why.missing) == 1
    for (epoch, _), (last, acked) in held.items():
        assert epoch == journal.epoch or last == acked, "the hub has all of what came back"


def test_a_site_of_which_nothing_is_known_gets_no_file(world: World) -> None:
    assert world.ask().memory == Memory(site=SITE, sync="s1")
    assert apply(world.path, world.ask(), 64, now_us()) is None
    assert not world.path.exists()


def test_the_next_order_is_above_all_that_was_told_even_where_no_record_came(world: World) -> None:
    beat = Heartbeat(at_us=1, epochs=[EpochState(epoch="00000000000000aa", order=41, last={"telemetry": 3})])
    with world.store.writing() as db:
        heartbeat(db, SITE, beat)
    world.disk.mkdir()
    back = apply(world.path, world.ask(), 64, now_us())
    assert back is not None
    assert (back["order"], back["records"]) == (41, 0)
    journal = Journal(world.path, 64, now_us)
    journal.close()
    assert journal.order == 42
    with reading(world.path) as db:
        orders = db.execute("SELECT ord FROM epochs ORDER BY ord").fetchall()
    assert orders == [(41,), (42,)], "one without records stands for what is not here"


def test_only_the_newest_records_come_back_and_the_chain_begins_before_them(world: World) -> None:
    for _ in range(3):
        world.live(lambda journal: decide(journal, 60))
    before = [row[1:] for row in world.rows()]
    back = world.come_back()
    assert back is not None
    assert (back["records"], back["epochs"]) == (MAX_RECORDS, 2)
    assert [row[1:] for row in world.rows()] == before[-MAX_RECORDS:]
    with reading(world.path) as db:
        assert verify(db).findings == ()


def test_records_too_large_for_the_document_are_left_out_oldest_first(world: World) -> None:
    noise = random.Random(1)

    def work(journal: Journal) -> None:
        for _ in range(30):
            decide(journal, 1, json.dumps({"noise": [noise.random() for _ in range(1500)]}))

    world.live(work)
    before = [row[1:] for row in world.rows()]
    world.come_back()
    after = [row[1:] for row in world.rows()]
    assert 0 < len(after) < len(before)
    assert after == before[-len(after) :]


def test_a_record_that_is_not_what_was_hashed_ends_what_comes_back(world: World) -> None:
    world.live(lambda journal: decide(journal, 10))
    with world.store.writing() as db:
        db.execute(update(records).where(records.c.seq == 12, records.c.lane == "decision").values(body="{}"))
    before = [row[1:] for row in world.rows()]
    world.come_back()
    assert [row[1:] for row in world.rows()] == before[12:]


def test_behind_a_gap_the_chain_goes_on(world: World, stream: Any) -> None:
    written = stream("00000000000000aa").grow(30)
    with world.store.writing() as db:
        for message in (written.batch(1, 5), written.with_gap(6, 10, "evicted", 30)):
            store_batches(db, [Arrived(SITE, decode(message), message)], 1)
    world.disk.mkdir()
    assert apply(world.path, world.ask(), 64, now_us()) is not None
    assert [row[3] for row in world.rows()] == list(range(11, 31))
    with reading(world.path) as db:
        assert verify(db).findings == ()


def test_two_epochs_of_one_order_come_back_in_the_order_the_hub_heard_of_them(world: World, stream: Any) -> None:
    """A disk that was rolled back gave the same order twice."""
    for since_us, epoch in ((1, "00000000000000aa"), (2, "00000000000000bb")):
        message = stream(epoch).grow(3).batch(1, 3)
        with world.store.writing() as db:
            store_batches(db, [Arrived(SITE, decode(message), message)], 1)
            db.execute(epochs.insert().values(site=SITE, epoch=epoch, ord=1, since_us=since_us, held=True))
    world.disk.mkdir()
    assert apply(world.path, world.ask(), 64, now_us()) is not None
    with reading(world.path) as db:
        ords = dict(db.execute("SELECT epoch, ord FROM epochs"))
    assert ords == {"00000000000000aa": 1, "00000000000000bb": 2}


def test_facts_without_room_are_counted(world: World) -> None:
    def work(journal: Journal) -> None:
        facts = Facts(journal, now_us)
        for n in range(20):
            facts.set(SetFact(f"k{n}", "x" * 16_000), CALL)

    world.live(work)
    memory = world.ask().memory
    assert len(memory.facts) + memory.left_out == 20
    assert memory.facts[0].key == "k19", "the newest first"
    assert {each.order for each in memory.facts} == {1}
    assert memory.left_out > 0


def test_nothing_is_left_of_an_attempt_that_was_cut_short_or_of_the_file_that_was_lost(
    world: World, tmp_path: Path
) -> None:
    stale = tmp_path / "stale-wal"

    def work(journal: Journal) -> None:
        decide(journal, 3)
        shutil.copy(world.path.with_name("memory.db-wal"), stale)

    world.live(work)
    before = len(world.rows())
    back = world.ask()
    shutil.rmtree(world.disk)
    world.disk.mkdir()
    half = world.path.with_name("memory.db.new")
    half.write_bytes(b"half a file")
    half.with_name("memory.db.new-wal").write_bytes(b"and its log")
    stale.rename(world.path.with_name("memory.db-wal"))
    assert apply(world.path, back, 64, now_us()) is not None
    assert [each.name for each in world.disk.iterdir()] == ["memory.db"]
    assert len(world.rows()) == before
    with reading(world.path) as db:
        assert verify(db).findings == ()


def test_a_failure_while_writing_leaves_no_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.live(lambda journal: decide(journal, 3))
    back = world.ask()
    twice = Returned(back.memory, (back.batches[0], back.batches[0]))
    shutil.rmtree(world.disk)
    world.disk.mkdir()
    with pytest.raises((sqlite3.IntegrityError, IndexError)):
        apply(world.path, twice, 64, now_us())
    assert not world.path.exists()


def test_the_answer_is_signed_names_the_question_and_is_given_once(world: World, tmp_path: Path) -> None:
    pinned = make_key(tmp_path / "director.key")
    said: list[str] = []
    memory = MemoryBack(tmp_path / "director.key", said.append, now_us)
    with world.store.reading() as db:
        assert memory.compose(db, SITE) is None
        for sync in ("s1", "s2"):
            memory.ask(SITE, sync)
        envelope = memory.compose(db, SITE)
        assert envelope is not None
        assert len(envelope) <= MAX_ENVELOPE_BYTES
        assert load(Memory, open_envelope(envelope, MEMORY_TYPE, pinned)).sync == "s2"
        assert memory.compose(db, SITE) is None
    assert said == [SITE, SITE]
