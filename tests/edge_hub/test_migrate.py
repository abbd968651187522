"""Databases that older versions made are opened, and what was in them is there."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Text, inspect, select, update

from edge_hub.database.schema import VERSION, gaps, meta, metadata, records, sites, streams
from edge_hub.database.store import Store
from edge_hub.ingest.inbox import Heard, Inbox
from edge_hub.ingest.thread import Ingest, Outgoing
from edge_hub.metrics import Metrics
from edge_models.errors import ConfigError

OLD = sorted((Path(__file__).parent / "old").glob("*.sql"))


def made_by(script: Path, folder: Path) -> Path:
    """The database that an older version's statements make."""
    path = folder / "hub.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(script.read_text())
    return path


@pytest.mark.parametrize("script", OLD, ids=lambda path: path.stem)
def test_an_older_database_keeps_its_rows_and_takes_in_more(script: Path, tmp_path: Path, stream: Any) -> None:
    store = Store(made_by(script, tmp_path))
    with store.reading() as db:
        there = inspect(db)
        for table in metadata.sorted_tables:
            assert {column["name"] for column in there.get_columns(table.name)} == set(table.columns.keys())
            assert {index["name"] for index in there.get_indexes(table.name)} == {each.name for each in table.indexes}
        assert db.scalar(select(meta.c.value).where(meta.c.key == "schema")) == str(VERSION)
        assert [row.seq for row in db.execute(select(records).order_by(records.c.seq))] == [1, 4]
        gap, end, site = (db.execute(select(table)).one() for table in (gaps, streams, sites))
    assert (gap.first, gap.last, gap.reason) == (2, 3, "evicted")
    assert (end.high, end.hash, end.told, end.forked) == (4, b"\4\4", 0, False)
    assert (site.labels, site.state, site.journal_key) == ({"kind": "factory"}, "active", None)
    nothing = Outgoing(lambda *_: None, lambda *_: None, lambda _: None)
    Ingest(store, Inbox(), Metrics(), nothing).handle(
        [Heard("plant-01", "journal", stream(lane="alarm").grow(3).batch(1, 3))]
    )
    with store.reading() as db:
        assert len(db.execute(select(records)).all()) == 5
    store.close()
    Store(tmp_path / "hub.db").close()


def test_what_cannot_be_brought_up_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made_by(OLD[0], tmp_path)
    with closing(sqlite3.connect(path)) as db:
        before = list(db.iterdump())
    wrong = MetaData()
    for table in metadata.sorted_tables:
        table.to_metadata(wrong)
    wrong.tables["sites"].append_column(Column("later", Text, nullable=False))  # what there is has no value for it
    monkeypatch.setattr("edge_hub.database.store.metadata", wrong)
    with pytest.raises(ConfigError, match="NOT NULL"):
        Store(path)
    with closing(sqlite3.connect(path)) as db:
        assert list(db.iterdump()) == before


def test_a_newer_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = made_by(OLD[0], tmp_path)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value='99'")
        db.commit()
        before = list(db.iterdump())
    with pytest.raises(ConfigError, match="schema 99 is newer"):
        Store(path)
    with closing(sqlite3.connect(path)) as db:
        assert list(db.iterdump()) == before


def test_every_new_column_has_a_value_for_rows_that_are_there() -> None:
    first = OLD[0].read_text()
    for table in metadata.sorted_tables:
        if f"CREATE TABLE {table.name} (" not in first:
            continue
        columns = first.partition(f"CREATE TABLE {table.name} (")[2].partition(";")[0]
        for column in table.columns:
            if f" {column.name} " not in columns.replace('"', ""):
                assert column.nullable or column.server_default is not None, f"{table.name}.{column.name}"


def test_columns_and_tables_that_are_missing_are_made_on_every_database(store: Store) -> None:
    with store.writing() as db:
        db.exec_driver_sql("ALTER TABLE streams DROP COLUMN forked")
        db.exec_driver_sql("ALTER TABLE sites DROP COLUMN facts_version")
        db.exec_driver_sql("DROP TABLE epochs")
        db.execute(sites.insert().values({"site": "a", "labels": {}, "created_us": 1, "online": True}))
        db.execute(update(meta).values(value="1"))
    again = Store(store.database)
    with again.reading() as db:
        assert db.execute(select(sites.c.site, sites.c.facts_version)).all() == [("a", None)]
        assert not db.execute(select(streams.c.forked)).all()
        assert inspect(db).has_table("epochs")
        assert db.scalar(select(meta.c.value).where(meta.c.key == "schema")) == str(VERSION)
    again.close()
