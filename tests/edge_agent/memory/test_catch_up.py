"""What the hub gives a memory that is behind. Held: edge_agent/MEMORY.md, Backup and restore."""

import json
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.memory import restored
from edge_agent.memory.catch_up import catch_up
from edge_agent.memory.draft import Draft, Fact
from edge_agent.memory.facts import MAX_FACTS
from edge_agent.memory.journal import Journal
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import verify
from edge_sync.documents import KnownFact, Memory

NOW_US = 1_800_000_000_000_000
LOST = "00000000000000cc"
"""An epoch that was begun after the backup."""


def start(path: Path, facts: Mapping[str, int]) -> str:
    """One start of a process, which sets facts in this order; its epoch."""
    journal = Journal(path, 64, lambda: NOW_US)
    for key, value in facts.items():
        body = json.dumps({"key": key, "value": value})
        journal.write([Draft("decision", "fact", "press", NOW_US, body, label=key, fact=Fact(key, str(value), None))])
    journal.close()
    return journal.epoch


def fact(key: str, value: int, epoch: str, seq: int, order: int = 0) -> KnownFact:
    return KnownFact(key=key, value=value, origin=f"{epoch}:decision:{seq}", order=order)


def memory(*facts: KnownFact, order: int = 0, left_out: int = 0) -> Memory:
    return Memory(site="plant-01", sync="s", order=order, facts=list(facts), left_out=left_out)


def known(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as db:
        return {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM facts")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


def settle(path: Path) -> int:
    order = restored.settle(path, 64, {"backup_us": 1}, lambda: NOW_US).order
    restored.write_mark(path, order)
    return order


def test_what_the_hub_has_from_after_the_backup_takes_the_place_of_what_is_here(path: Path) -> None:
    running = start(path, {"same": 1, "changed_in_its_epoch": 1, "changed_in_a_lost_one": 1, "undelivered": 5})
    order = settle(path)
    came = catch_up(
        path,
        memory(
            fact("same", 1, running, 1),
            fact("changed_in_its_epoch", 2, running, 9),
            fact("changed_in_a_lost_one", 3, LOST, 2),
            fact("new", 4, LOST, 3),
            fact("undelivered", 0, running, 3),  # what it was before: the hub never had the newer one
            left_out=7,
        ),
        order,
        64,
        NOW_US,
    )
    assert came is not None
    assert (came["facts"], came["facts_left_out"]) == (3, 7)
    assert known(path) == {
        "same": 1, "changed_in_its_epoch": 2, "changed_in_a_lost_one": 3, "new": 4, "undelivered": 5,
    }  # fmt: skip
    assert restored.read_mark(path) is None
    with reading(path) as db:
        assert verify(db).findings == ()


def test_a_fact_of_an_epoch_that_was_forgotten_here_is_older_than_one_that_never_reached_the_hub(path: Path) -> None:
    forgotten = start(path, {"mode": 1, "speed": 1})
    between = start(path, {})
    start(path, {"mode": 2})
    with closing(sqlite3.connect(path)) as db:  # as retention does when the hub has all of an epoch
        for table in ("journal", "epochs", "cursors"):
            db.execute(f"DELETE FROM {table} WHERE epoch=?", (forgotten,))
        db.commit()
    order = settle(path)
    assert order == 4
    said = memory(fact("mode", 1, forgotten, 1, order=1), fact("speed", 3, between, 1, order=2))
    catch_up(path, said, order, 64, NOW_US)
    assert known(path) == {"mode": 2, "speed": 3}
    catch_up(path, memory(fact("mode", 9, LOST, 1, order=4)), order, 64, NOW_US)
    assert known(path) == {"mode": 9, "speed": 3}, "begun after the backup, as the restored one was"


def test_what_was_set_since_the_restore_is_newer_than_anything_the_hub_can_say(path: Path) -> None:
    start(path, {"mode": 1})
    order = settle(path)
    start(path, {"mode": 2})
    catch_up(path, memory(fact("mode", 9, LOST, 50)), order, 64, NOW_US)
    assert known(path) == {"mode": 2}


def test_a_memory_begun_anew_without_its_hub_gets_what_it_lacks(path: Path) -> None:
    start(path, {"mode": 2})
    restored.write_mark(path, 1)
    catch_up(path, memory(fact("mode", 9, LOST, 50), fact("seen", 8, LOST, 2)), 1, 64, NOW_US)
    assert known(path) == {"mode": 2, "seen": 8}


def test_the_next_epochs_order_is_above_all_that_the_hub_knows(path: Path) -> None:
    start(path, {})
    order = settle(path)
    came = catch_up(path, memory(order=40), order, 64, NOW_US, lambda: "00000000000000dd")
    assert came is not None
    journal = Journal(path, 64, lambda: NOW_US)
    assert journal.order == 41
    journal.close()
    restored.write_mark(path, order)
    assert catch_up(path, memory(order=41), order, 64, NOW_US) is None, "there was nothing to come"
    assert restored.read_mark(path) is None


def test_done_twice_it_is_as_once(path: Path) -> None:
    running = start(path, {"mode": 1})
    order = settle(path)
    said = memory(fact("mode", 3, running, 7), fact("new", 4, LOST, 3), order=order)
    catch_up(path, said, order, 64, NOW_US)
    once = known(path)
    assert catch_up(path, said, order, 64, NOW_US) is None
    assert known(path) == once == {"mode": 3, "new": 4}


def test_there_are_never_more_facts_than_a_site_may_know(path: Path) -> None:
    start(path, {f"mine-{n}": n for n in range(10)})
    order = settle(path)
    catch_up(path, memory(*(fact(f"new-{n}", n, LOST, n + 1) for n in range(MAX_FACTS))), order, 64, NOW_US)
    held = known(path)
    assert len(held) == MAX_FACTS
    assert "new-0" in held, "they come newest first"
    assert f"new-{MAX_FACTS - 1}" not in held


def test_a_mark_that_cannot_be_read_keeps_what_is_here(path: Path) -> None:
    start(path, {"mode": 1})
    path.with_name(restored.MARK).write_text("?")
    order = restored.read_mark(path)
    assert order == 0
    catch_up(path, memory(fact("mode", 9, LOST, 50)), order, 64, NOW_US)
    assert known(path) == {"mode": 1}
