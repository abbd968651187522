"""A memory copied while it is written to and evicted from. Held: edge_agent/MEMORY.md, Backup and restore."""

import sqlite3
import threading
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from edge_agent.memory import copy
from edge_agent.memory.copy import copy_memory
from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.outbox import set_cursor
from edge_agent.memory.retention import make_room
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import damage, verify
from edge_models.errors import ConfigError
from edge_sync.uplink import Stream

NOW_US = 1_800_000_000_000_000


def drafts(count: int, size: int = 40) -> list[Draft]:
    return [Draft("telemetry", "prediction", "press", NOW_US, f'"{"x" * size}"', score=0.5) for _ in range(count)]


def test_a_copy_is_what_the_memory_is(tmp_path: Path) -> None:
    for _ in range(3):
        journal = Journal(tmp_path / "memory.db", 64, lambda: NOW_US)
        journal.write(drafts(700))
        journal.later(also=lambda db, epoch=journal.epoch: set_cursor(db, (epoch, "telemetry"), 300))  # type: ignore[misc]
        journal.flush()
    journal.maintain(lambda db: make_room(db, 400))
    journal.write(drafts(5))
    copied = copy_memory(tmp_path / "memory.db", tmp_path / "copy.db")
    journal.close()
    assert (copied.epoch, copied.order, copied.ends) == (journal.epoch, 3, {"telemetry": 705})
    with (
        closing(sqlite3.connect(tmp_path / "copy.db")) as ours,
        closing(sqlite3.connect(tmp_path / "memory.db")) as real,
    ):
        for table in ("journal", "epochs", "gaps", "cursors", "intents", "facts", "slots", "sqlite_sequence"):
            rows = (
                ours.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() if table != "sqlite_sequence" else []
            )
            if rows:
                assert rows == real.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall()
        assert len(ours.execute("SELECT id FROM journal").fetchall()) == copied.rows < 2_105
        assert ours.execute("PRAGMA user_version").fetchone() == real.execute("PRAGMA user_version").fetchone()


def test_while_a_site_writes_evicts_and_forgets_the_copy_is_one_state_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is at full speed in a budget of 16 MB: most of what is copied is gone before the copy ends."""
    monkeypatch.setattr(copy, "_SLICE_ROWS", 50)
    path = tmp_path / "memory.db"
    journal = Journal(path, 16, lambda: NOW_US)
    stop, slowest, failed = threading.Event(), [0.0], list[Exception]()

    def write() -> None:
        try:
            while not stop.is_set():
                began = time.monotonic()
                journal.write(drafts(40, 2_000))
                stream: Stream = (journal.epoch, "telemetry")
                acked = journal.last("telemetry") - 100
                journal.later(also=partial(set_cursor, stream=stream, seq=acked))
                slowest[0] = max(slowest[0], time.monotonic() - began)
        except Exception as error:  # noqa: BLE001 - told below
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while journal.last("telemetry") < 8_000:
            time.sleep(0.01)
        counts = []
        for n in range(3):
            before = journal.last("telemetry")
            copied = copy_memory(path, tmp_path / f"{n}.db")
            assert before <= copied.ends["telemetry"] <= journal.last("telemetry") + 40  # told after a commit
            counts.append(copied.rows)
    finally:
        stop.set()
        writer.join()
    assert failed == []
    journal.close()
    for n, count in enumerate(counts):
        with reading(tmp_path / f"{n}.db") as db:
            assert verify(db).findings == ()
            assert damage(db) == ()
            trimmed = db.execute("SELECT trimmed FROM cursors").fetchone()[0]
            assert trimmed > 0
            first, last, rows = db.execute("SELECT min(seq), max(seq), count(*) FROM journal").fetchone()
            gone = db.execute("SELECT coalesce(sum(last-first+1), 0) FROM gaps").fetchone()[0]
            assert first > trimmed
            assert rows == count == last - trimmed - gone
    assert slowest[0] < 5.0, "a reader that holds one state for long makes the writer wait"


def test_what_is_no_memory_of_this_schema_is_not_copied(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such memory"):
        copy_memory(tmp_path / "memory.db", tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "old.db")) as db:
        db.execute("PRAGMA user_version=1")
    with pytest.raises(ConfigError, match="start its site with this edge-agent once"):
        copy_memory(tmp_path / "old.db", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()
