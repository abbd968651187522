"""The tables of a site's memory, and how its file is opened."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_models.errors import ConfigError

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

VERSION = 1
"""Kept in ``PRAGMA user_version``: a file that has it needs no migration, nor the 10 MB sqlite-utils costs."""

PAGE_BYTES = 4096
WAL_PAGES = 1000
"""Pages after which SQLite checkpoints: bounds the WAL near 4 MiB."""

READ_LIMIT_S = 2.0
"""No reader may hold the WAL longer. Source: docs/design.md section 4."""


def open_writer(path: Path, budget_mb: int) -> sqlite3.Connection:
    """Open (and make or migrate) the file for its one writer. Raises `ConfigError` where it is no memory of ours."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        _create_private(path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=READ_LIMIT_S + 3)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"{path}: cannot be opened as a site's memory: {error}") from None
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit={WAL_PAGES * PAGE_BYTES}")
        connection.execute(f"PRAGMA max_page_count={budget_mb * 1024 * 1024 // PAGE_BYTES}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.DatabaseError as error:
        connection.close()
        raise ConfigError(f"{path}: cannot be opened as a site's memory: {error}") from None
    if version > VERSION:
        connection.close()
        raise ConfigError(f"{path}: was written by a newer edge-agent (schema {version}, this one knows {VERSION})")
    if version < VERSION:
        _migrate(connection)
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open the file to read it only. Raises `ConfigError` where there is none."""
    if not path.exists():
        raise ConfigError(f"{path}: no such memory; a site makes it when it first runs")
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A reader that is closed at the end."""
    connection = open_reader(path)
    try:
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """All reads inside see the file as it was at the first of them. One inside another is part of it."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _create_private(path: Path) -> None:
    """Make a file that is not there yet, for its owner's eyes only: SQLite gives the WAL the mode of its database."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _migrate(connection: sqlite3.Connection) -> None:
    from sqlite_utils import Database  # noqa: PLC0415 - only a file that is not up to date needs it

    _migrations().apply(Database(connection))
    connection.execute(f"PRAGMA user_version={VERSION}")


def _migrations() -> "Migrations":
    from sqlite_utils import Migrations  # noqa: PLC0415

    migrations = Migrations("edge_agent.memory")

    @migrations(name="0001_first")  # type: ignore[untyped-decorator]
    def _first(db: "Database") -> None:
        for statement in _FIRST.split(";"):
            db.execute(statement)

    return migrations


_FIRST = """
CREATE TABLE journal (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  epoch TEXT NOT NULL, lane TEXT NOT NULL, seq INTEGER NOT NULL,
  at INTEGER NOT NULL, kind TEXT NOT NULL, agent TEXT NOT NULL,
  subject TEXT, label TEXT, score REAL, ref TEXT,
  body TEXT NOT NULL, hash BLOB NOT NULL);
CREATE UNIQUE INDEX journal_stream ON journal (epoch, lane, seq);
CREATE INDEX journal_ref ON journal (ref) WHERE lane<>'telemetry' AND ref IS NOT NULL;
CREATE TABLE gaps (
  epoch TEXT NOT NULL, lane TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  reason TEXT NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (epoch, lane, first)) WITHOUT ROWID;
CREATE TABLE epochs (
  epoch TEXT PRIMARY KEY, ord INTEGER NOT NULL UNIQUE, started_at INTEGER NOT NULL,
  alarm INTEGER NOT NULL DEFAULT 0, decision INTEGER NOT NULL DEFAULT 0, telemetry INTEGER NOT NULL DEFAULT 0);
CREATE TABLE cursors (
  epoch TEXT NOT NULL, lane TEXT NOT NULL, acked INTEGER NOT NULL DEFAULT 0,
  trimmed INTEGER NOT NULL DEFAULT 0, trimmed_hash BLOB, PRIMARY KEY (epoch, lane)) WITHOUT ROWID;
CREATE TABLE intents (
  decision TEXT PRIMARY KEY, at INTEGER NOT NULL, agent TEXT NOT NULL, subject TEXT, tool TEXT NOT NULL,
  args TEXT NOT NULL, valid_until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (
  scope TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, version INTEGER NOT NULL,
  origin TEXT, expires_at INTEGER, PRIMARY KEY (scope, key)) WITHOUT ROWID;
CREATE TABLE slots (
  slot TEXT PRIMARY KEY, release INTEGER NOT NULL, generation INTEGER NOT NULL,
  document TEXT NOT NULL, at INTEGER NOT NULL) WITHOUT ROWID
"""
