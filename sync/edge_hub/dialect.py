"""The one place that knows how databases differ: how a connection is set up, begins to write, and inserts in bulk."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event

WRITES = "edge_writes"
"""Execution option of a connection whose transactions write."""

_BUSY_MS = 30_000
_CHECKPOINT_PAGES = 4_000
"""16 MB of log before it is worked into the database: pages that many commits touch are then written once."""


def open_sqlite(path: Path) -> Engine:
    """An engine for the SQLite database in a file, durable at every commit."""
    engine = create_engine(URL.create("sqlite", database=str(path)))

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 must not begin transactions: `begin` below does
        for pragma in (
            f"busy_timeout={_BUSY_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer locks at once: one that began as a reader could fail later, when another had written meanwhile.
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def insert_sql(table: Table, update: Sequence[str] = ()) -> str:
    """The driver's own INSERT of a row with all columns, in order; for many rows, where speed matters.

    Where the row's key is taken, the columns `update` are set to the new values; without any, that is an error.
    """
    columns = ", ".join(column.name for column in table.columns)
    sql = f"INSERT INTO {table.name} ({columns}) VALUES ({', '.join('?' for _ in table.columns)})"  # noqa: S608
    if update:
        key = ", ".join(column.name for column in table.primary_key)
        sql += f" ON CONFLICT ({key}) DO UPDATE SET {', '.join(f'{name}=excluded.{name}' for name in update)}"
    return sql
