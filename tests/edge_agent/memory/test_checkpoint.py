"""edge_agent/MEMORY.md, Checkpoints: when one is written, what it names, and what happens without a key."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent.memory.checkpoint import CHECKPOINT_ROWS, CHECKPOINT_S, Checkpointer, SigningKey
from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.keeper import Keeper
from edge_agent.memory.outbox import hash_at
from edge_agent.memory.schema import reading
from edge_models.errors import ConfigError
from edge_sync.checkpoint import read
from edge_sync.rows import Lane

NOW_US = 1_800_000_000_000_000


def clock() -> int:
    return NOW_US


def write(journal: Journal, count: int, lane: Lane = "telemetry") -> None:
    kind: Any = "observation" if lane == "telemetry" else "decision"
    journal.write([Draft(lane, kind, "press", NOW_US, "{}") for _ in range(count)])


def checkpoints(journal: Journal) -> list[tuple[str, int, dict[str, Any]]]:
    """Epoch, number and body of each, oldest first; what waited is written."""
    journal.flush()
    with reading(journal.path) as db:
        rows = db.execute("SELECT epoch, seq, body FROM journal WHERE label='checkpoint' ORDER BY id").fetchall()
    return [(epoch, seq, json.loads(body)) for epoch, seq, body in rows]


@pytest.fixture
def checkpointer(journal: Journal, tmp_path: Path) -> Checkpointer:
    return Checkpointer(journal, "plant-01", tmp_path / "journal.key", clock)


def test_an_epoch_begins_with_one_and_nothing_more_comes_of_it_alone(
    journal: Journal, checkpointer: Checkpointer
) -> None:
    for second in range(3000):
        checkpointer.tick(float(second))
    ((epoch, seq, body),) = checkpoints(journal)
    assert (epoch, seq, body["epoch"], body["order"], body["streams"]) == (journal.epoch, 1, journal.epoch, 1, {})
    assert "before" not in body


def test_one_comes_after_so_many_records_and_names_the_end_of_every_lane(
    journal: Journal, checkpointer: Checkpointer
) -> None:
    checkpointer.tick(0.0)
    write(journal, CHECKPOINT_ROWS - 3)
    write(journal, 2, "alarm")
    checkpointer.tick(1.0)
    assert len(checkpoints(journal)) == 1
    write(journal, 1, "decision")
    checkpointer.tick(2.0)
    _, (_, _, body) = checkpoints(journal)
    with reading(journal.path) as db:
        for lane, (seq, digest) in body["streams"].items():
            known = hash_at(db, (journal.epoch, lane), seq)
            assert known is not None
            assert known.hex() == digest
    assert {lane: seq for lane, (seq, _) in body["streams"].items()} == {
        "alarm": 2, "decision": 2, "telemetry": CHECKPOINT_ROWS - 3,
    }  # fmt: skip
    assert read(json.dumps(body)).site == "plant-01"


def test_a_single_record_is_signed_after_a_while(journal: Journal, checkpointer: Checkpointer) -> None:
    checkpointer.tick(0.0)
    journal.flush()
    write(journal, 1)
    checkpointer.tick(CHECKPOINT_S - 1)
    assert len(checkpoints(journal)) == 1
    checkpointer.tick(CHECKPOINT_S)
    checkpointer.tick(CHECKPOINT_S + 1)
    checkpointer.tick(CHECKPOINT_S * 3)
    assert len(checkpoints(journal)) == 2


def test_the_first_of_an_epoch_names_the_ends_of_the_one_before(journal: Journal, checkpointer: Checkpointer) -> None:
    write(journal, 5)
    checkpointer.tick(0.0)
    journal.flush()
    old = journal.epoch
    with reading(journal.path) as db:
        last = hash_at(db, (old, "decision"), 1)
    journal.new_epoch()
    checkpointer.tick(1.0)
    write(journal, CHECKPOINT_ROWS)
    checkpointer.tick(2.0)
    _, (epoch, _, body), (_, _, later) = checkpoints(journal)
    assert last is not None
    assert (epoch, body["before"]["epoch"], body["before"]["order"]) == (journal.epoch, old, 1)
    assert body["before"]["streams"]["decision"] == [1, last.hex()]
    assert body["before"]["streams"]["telemetry"][0] == 5
    assert "before" not in later


def test_a_clean_stop_leaves_nothing_unsigned(journal: Journal, checkpointer: Checkpointer) -> None:
    checkpointer.tick(0.0)
    write(journal, 7)
    checkpointer.note(1.0)
    checkpointer.note(2.0)
    _, (_, _, body) = checkpoints(journal)
    assert body["streams"]["telemetry"][0] == 7


def test_the_key_is_made_once_for_its_owners_eyes(journal: Journal, tmp_path: Path) -> None:
    file = tmp_path / "journal.key"
    Checkpointer(journal, "plant-01", file, clock).tick(0.0)
    assert file.stat().st_mode & 0o777 == 0o600
    public = SigningKey(file).public
    Checkpointer(journal, "plant-01", file, clock).tick(0.0)
    assert [body["key"] for _, _, body in checkpoints(journal)] == [public, public]


def test_a_damaged_key_is_told_of_once_and_stops_nothing(journal: Journal, tmp_path: Path) -> None:
    file = tmp_path / "journal.key"
    file.write_text("-----BEGIN PRIVATE KEY-----")
    with pytest.raises(ConfigError, match="is no ed25519 private key"):
        SigningKey(file)
    checkpointer = Checkpointer(journal, "plant-01", file, clock)
    for second in range(3):
        checkpointer.tick(second * CHECKPOINT_S)
        write(journal, 2000)
    assert checkpoints(journal) == []
    with reading(journal.path) as db:
        said = db.execute("SELECT count(*) FROM journal WHERE lane='alarm' AND label='checkpoint_failed'").fetchone()
    assert said == (1,)
    file.unlink()
    checkpointer.tick(4 * CHECKPOINT_S)
    assert len(checkpoints(journal)) == 1


def test_the_keeper_has_them_written(journal: Journal, checkpointer: Checkpointer) -> None:
    keeper = Keeper(journal, checkpointer.tick)
    keeper.start()
    until = time.monotonic() + 20
    while not checkpoints(journal):
        assert time.monotonic() < until
        threading.Event().wait(0.05)
    keeper.close()
