"""edge_agent/MEMORY.md: a file of every older schema is opened, and holds what it held.

``schema_N.sql`` is what the site of that schema wrote: three starts, acknowledged and trimmed rows, a gap, open
intents, a fact, a release.
"""

import sqlite3
from pathlib import Path

import pytest

from edge_agent.memory import outbox, queries, schema
from edge_agent.memory.budget import MIN_BUDGET_BYTES, divide
from edge_agent.memory.damage import look
from edge_agent.memory.draft import Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.memory.rewrite import rewrite, too_large_for_good
from edge_agent.memory.schema import VERSION, in_slices, open_reader, open_writer, reading
from edge_agent.memory.verify import verify
from edge_agent.update.slots import read_trial
from edge_models.errors import ConfigError

OLD = {number: Path(__file__).with_name(f"schema_{number}.sql") for number in range(1, VERSION)}
TABLES = ("journal", "gaps", "epochs", "cursors", "intents", "facts", "slots")


def older(path: Path, number: int) -> dict[str, list[tuple[object, ...]]]:
    """Make the file as its site left it; returns its rows by table."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(OLD[number].read_text())
    connection.execute(f"PRAGMA user_version={number}")
    held = {table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3").fetchall() for table in TABLES}
    connection.close()
    return held


def rows_of(
    connection: sqlite3.Connection, held: dict[str, list[tuple[object, ...]]]
) -> dict[str, list[tuple[object, ...]]]:
    """The same tables, by the columns there were."""
    return {
        table: [row[: len(rows[0])] for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3")]
        for table, rows in held.items()
    }


@pytest.mark.parametrize("number", sorted(OLD))
def test_a_file_of_an_older_schema_holds_what_it_held(tmp_path: Path, number: int) -> None:
    held = older(tmp_path / "memory.db", number)
    assert all(held.values()), "every table is tried"
    connection = open_writer(tmp_path / "memory.db", 64)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert rows_of(connection, held) == held
    assert verify(connection).findings == ()
    connection.close()


@pytest.mark.parametrize("number", sorted(OLD))
def test_a_site_goes_on_with_a_file_of_an_older_schema(tmp_path: Path, number: int) -> None:
    held = older(tmp_path / "memory.db", number)
    journal = Journal(tmp_path / "memory.db", 64, lambda: 1)
    journal.write([Draft("decision", "event", "a", 1, "{}")])
    oldest = str(held["epochs"][0][0])
    journal.write((), also=lambda db: outbox.set_forked(db, (oldest, "alarm")))
    journal.close()
    with reading(tmp_path / "memory.db") as db:
        assert [state.order for state in outbox.streams(db)][-1] == 4
        assert len(queries.open_intents(db)) == 3
        report = verify(db)
    assert report.findings == ()
    assert report.rows == len(held["journal"]) + 1


@pytest.mark.parametrize(("number", "cut"), [(1, "_SECOND"), (1, "_THIRD"), (2, "_THIRD")])
def test_a_kill_between_two_statements_of_a_migration_leaves_the_old_schema(
    tmp_path: Path, number: int, cut: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = older(tmp_path / "memory.db", number)
    with monkeypatch.context() as broken:
        broken.setattr(schema, cut, getattr(schema, cut) + "; SELECT no_such_function()")
        with pytest.raises(ConfigError, match="cannot be brought up to date: no such function"):
            open_writer(tmp_path / "memory.db", 64)
    connection = open_writer(tmp_path / "memory.db", 64)
    assert rows_of(connection, held) == held
    connection.close()


@pytest.mark.parametrize("number", sorted(OLD))
def test_what_ran_before_there_were_trials_has_proven_itself(tmp_path: Path, number: int) -> None:
    older(tmp_path / "memory.db", number)
    connection = open_writer(tmp_path / "memory.db", 64)
    releases = connection.execute("SELECT confirmed, boots FROM slots WHERE slot<>'refused'").fetchall()
    assert set(releases) == {(1, 0)}
    assert read_trial(connection) is None
    connection.close()


@pytest.mark.parametrize("number", sorted(OLD))
def test_who_only_reads_an_older_file_is_told_the_remedy(tmp_path: Path, number: int) -> None:
    path = tmp_path / "memory.db"
    older(path, number)
    with pytest.raises(ConfigError, match=rf"schema {number}, .* start its site with this edge-agent once"):
        open_reader(path)
    assert look(path) is None, "it is no damage"
    open_writer(path, 64).close()
    open_reader(path).close()


def test_a_reader_of_a_damaged_file_is_not_told_that_it_is_old(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    path.write_bytes(b"not SQLite any more" * 100)
    with reading(path) as db, pytest.raises(sqlite3.DatabaseError):
        db.execute("SELECT * FROM journal")


def grown(path: Path) -> Path:
    """A file of the first schema with more than the smallest budget allows."""
    older(path, 1)
    connection = sqlite3.connect(path, isolation_level=None)
    journal = Journal(path, 64, lambda: 1)
    for _ in range(300):
        journal.write([Draft("telemetry", "event", "a", 1, to_body({"x": "y" * 2_000})) for _ in range(40)])
    journal.close()
    connection.close()
    assert path.stat().st_size > MIN_BUDGET_BYTES
    return path


def test_a_file_that_cannot_shrink_is_written_anew_once(tmp_path: Path) -> None:
    path = grown(tmp_path / "memory.db")
    journal = Journal(path, 16, lambda: 1)
    assert path.stat().st_size <= divide(MIN_BUDGET_BYTES).pages * 1024
    assert not too_large_for_good(journal._connection, journal.room.budget)
    journal.write([Draft("decision", "event", "a", 1, "{}")])
    journal.close()
    with reading(path) as db:
        assert verify(db).findings == ()
        assert db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
        assert db.execute("SELECT count(*) FROM gaps").fetchone()[0] >= 1, "what did not fit was declared"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.new"))


def test_a_file_that_somebody_reads_is_not_written_anew_under_their_eyes(tmp_path: Path) -> None:
    path = grown(tmp_path / "memory.db")
    reader = open_reader(path)
    before = reader.execute("SELECT count(*) FROM epochs").fetchone()
    connection = sqlite3.connect(path, isolation_level=None, timeout=0.05)
    connection.execute("PRAGMA cache_size=500")
    assert not rewrite(connection, path, divide(MIN_BUDGET_BYTES, 4096))
    assert reader.execute("SELECT count(*) FROM epochs").fetchone() == before
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    reader.close()
    assert not list(tmp_path.glob("*.new"))


def test_a_long_query_is_read_in_slices_and_holds_no_state_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "SLICE_ROWS", 7)
    journal = Journal(tmp_path / "memory.db", 16, lambda: 1)
    journal.write([Draft("telemetry", "event", "a", 1, "{}") for _ in range(21)])
    with reading(tmp_path / "memory.db") as db:
        query = "SELECT seq, hash FROM journal WHERE lane=:lane AND seq>:after ORDER BY seq LIMIT :most"
        seen = []
        for seq, _ in in_slices(db, query, {"lane": "telemetry"}):
            seen.append(seq)
            assert not db.in_transaction
            if seq == 3:
                journal.write([Draft("telemetry", "event", "a", 1, "{}")])
    assert seen == list(range(1, 23)), "what is written meanwhile is seen in a later slice"
    journal.close()
