"""A restored memory beside its hub, which holds what was written after the backup. Held: MEMORY.md, Backup and
restore."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.memory import restored
from edge_agent.memory.compare import Comparison, HubStream, compare
from edge_agent.memory.copy import copy_memory
from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.outbox import set_cursor, streams
from edge_agent.memory.schema import reading
from edge_sync.rows import record_id

NOW_US = 1_800_000_000_000_000


class Hub:
    """What a hub holds: the rows of a memory that went on after its backup."""

    def __init__(self, memory: Path) -> None:
        with closing(sqlite3.connect(memory)) as db:
            rows = db.execute("SELECT epoch, lane, seq, body, hash FROM journal ORDER BY epoch, lane, seq").fetchall()
        self.records = {record_id(*row[:3]): {"body": row[3], "hash": row[4].hex()} for row in rows}
        self.streams = [HubStream((e, lane), seq, h) for e, lane, seq, _, h in rows if self._is_last(e, lane, seq)]

    def _is_last(self, epoch: str, lane: str, seq: int) -> bool:
        return record_id(epoch, lane, seq + 1) not in self.records

    def ask(self, record: str) -> Mapping[str, Any] | None:
        return self.records.get(record)

    def compared(self, memory: Path) -> Comparison:
        with reading(memory) as db:
            return compare(db, streams(db), self.streams, self.ask)


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, Path]:
    """A memory that went on after it was copied, and its restored copy."""
    journal = Journal(tmp_path / "memory.db", 64, lambda: NOW_US)
    journal.write([Draft("decision", "event", "press", NOW_US, f'{{"n":{n}}}') for n in range(20)])
    copy_memory(tmp_path / "memory.db", tmp_path / "copy.db")
    journal.write([Draft("decision", "event", "press", NOW_US, f'{{"n":{n}}}') for n in range(20, 50)])
    journal.close()
    restored.settle(tmp_path / "copy.db", 64, {"backup_us": NOW_US}, lambda: NOW_US)
    return tmp_path / "memory.db", tmp_path / "copy.db"


def test_what_the_hub_has_from_after_a_backup_is_no_difference(place: tuple[Path, Path]) -> None:
    memory, copy = place
    with closing(Journal(copy, 64, lambda: NOW_US)) as journal:  # its first start hears where the hub is
        with closing(sqlite3.connect(copy)) as db:
            [(epoch,)] = db.execute("SELECT epoch FROM epochs WHERE ord=1").fetchall()
        journal.later(also=lambda db: set_cursor(db, (epoch, "decision"), 20))
    said = Hub(memory).compared(copy)
    assert (said.compared, said.findings) == (1, ())


def test_what_differs_below_the_end_of_a_backup_is_one(place: tuple[Path, Path]) -> None:
    memory, copy = place
    with closing(sqlite3.connect(memory)) as db:
        db.execute("UPDATE journal SET body='{\"n\":99}', hash=zeroblob(32) WHERE seq BETWEEN 12 AND 20")
        db.commit()
    (found,) = Hub(memory).compared(copy).findings
    assert (found.lane, found.seq) == ("decision", 12)


def test_a_tail_that_no_restore_tells_of_is_still_missed(place: tuple[Path, Path]) -> None:
    memory, copy = place
    with closing(sqlite3.connect(copy)) as db:
        db.execute("DELETE FROM journal WHERE seq=20")
        db.execute("UPDATE epochs SET decision=19 WHERE decision=20")
        db.commit()
    (found,) = Hub(memory).compared(copy).findings
    assert (found.seq, found.what) == (20, "the hub holds rows up to 50, here they end at 19")


@pytest.mark.parametrize(
    "body", ["no json", "[]", '{"epoch": 1}', '{"epoch": "a", "ends": []}', '{"ends": {"x": "y"}}']
)
def test_a_record_that_says_nothing_of_it_names_no_end(tmp_path: Path, body: str) -> None:
    path = tmp_path / "memory.db"
    with closing(Journal(path, 64, lambda: NOW_US)) as journal:
        journal.write([Draft("decision", "event", "site", NOW_US, body, label=restored.LABEL)])
    with reading(path) as db:
        assert restored.ends(db) == {}
