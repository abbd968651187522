"""The tables of a site's memory, and how its file is opened."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.memory.budget import PAGE_BYTES, Budget, divide, frame_bytes
from edge_agent.memory.rewrite import rewrite, too_large_for_good
from edge_models.errors import ConfigError

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

VERSION = 3
"""Kept in ``PRAGMA user_version``: a file that has it needs no migration, nor the 10 MB sqlite-utils costs."""

READ_LIMIT_S = 2.0
"""No reader may hold the WAL longer: while one does, all that is written stays in the WAL, and when that is full the
writer waits, then refuses. What reads much reads it in slices (`in_slices`), each a state of its own.
Source: docs/design.md section 4."""

UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises; the second where SQLite's own words quote a damaged schema."""

BUSY_S = READ_LIMIT_S + 1
"""How long the writer waits for a lock that another process has."""

SLICE_ROWS = 2_000
"""Rows that are read in one go: 128 MB of the largest bodies, well inside `READ_LIMIT_S`."""


def open_writer(path: Path, budget_mb: int) -> sqlite3.Connection:
    """Open (and make or migrate) the file for its one writer. Raises `ConfigError` where it is no memory of ours."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        _create_private(path)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"{path}: cannot be opened as a site's memory: {error}") from None
    try:
        budget = _set_up(connection, budget_mb * 1024 * 1024)
        _fold_large_wal(connection, path, budget)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except UNREADABLE as error:
        connection.close()
        raise ConfigError(f"{path}: cannot be opened as a site's memory: {error}") from None
    if version > VERSION:
        connection.close()
        raise ConfigError(f"{path}: was written by a newer edge-agent (schema {version}, this one knows {VERSION})")
    try:
        if version < VERSION:
            _migrate(connection)
        rewritten = too_large_for_good(connection, budget) and rewrite(connection, path, budget)
    except (OSError, sqlite3.Error) as error:
        connection.close()
        raise ConfigError(f"{path}: cannot be brought up to date: {error}") from None
    return open_writer(path, budget_mb) if rewritten else connection


def _set_up(connection: sqlite3.Connection, budget_bytes: int) -> Budget:
    """The settings of the writer's connection. Those of the first two lines count only while a file is made."""
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # so that a file can shrink when its budget is lowered
    connection.execute("PRAGMA journal_mode=WAL")
    page_bytes = connection.execute("PRAGMA page_size").fetchone()[0]
    budget = divide(budget_bytes, page_bytes)
    connection.execute("PRAGMA synchronous=FULL")
    # Debian's SQLite writes zeros over every freed page. FAST does so only in pages that are written anyway.
    connection.execute("PRAGMA secure_delete=FAST")
    connection.execute(f"PRAGMA cache_size={budget.cache_pages}")
    connection.execute(f"PRAGMA wal_autocheckpoint={budget.checkpoint_frames}")
    connection.execute(f"PRAGMA journal_size_limit={budget.checkpoint_frames * frame_bytes(page_bytes)}")
    connection.execute(f"PRAGMA max_page_count={budget.pages}")
    return budget


def _fold_large_wal(connection: sqlite3.Connection, path: Path, budget: Budget) -> None:
    """A WAL that was left by a larger budget, or by a kill, may not stand in this one's way."""
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size > budget.wal_bytes // 2:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def open_reader(path: Path) -> sqlite3.Connection:
    """Open the file to read it only. Raises `ConfigError` where there is none, or one of an older schema."""
    connection = open_as_it_is(path)
    version = VERSION
    with contextlib.suppress(*UNREADABLE):  # who reads says what is wrong with a damaged file
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    if 0 < version < VERSION:
        connection.close()
        raise ConfigError(
            f"{path}: was written by an older edge-agent (schema {version}, this one reads {VERSION}): "
            "start its site with this edge-agent once, which brings it up to date"
        )
    return connection


def open_as_it_is(path: Path) -> sqlite3.Connection:
    """Open the file to read it only, whatever its schema and its damage. Raises `ConfigError` where there is none."""
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


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All inside is written or nothing: for who has the file for himself. A running site's writer is the `Journal`."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite has rolled back by itself
            connection.execute("ROLLBACK")
        raise


def in_slices(
    connection: sqlite3.Connection, query: str, parameters: Mapping[str, object], after: int = 0
) -> Iterator[tuple[Any, ...]]:
    """Every row of a long query, `SLICE_ROWS` at a time, so that no state of the file is held for long.

    `query` has ``:after`` and ``:most``; its first column, by which it is ordered, is the next slice's ``:after``.
    What changes meanwhile is seen in later slices: rows that were dropped are missing, and a gap says so by then.
    """
    while True:
        rows = connection.execute(query, {**parameters, "after": after, "most": SLICE_ROWS}).fetchall()
        yield from rows
        if len(rows) < SLICE_ROWS:
            return
        after = rows[-1][0]


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

    @migrations(name="0002_second")  # type: ignore[untyped-decorator]
    def _second(db: "Database") -> None:
        for statement in _SECOND.split(";"):
            db.execute(statement)

    @migrations(name="0003_third")  # type: ignore[untyped-decorator]
    def _third(db: "Database") -> None:
        for statement in _THIRD.split(";"):
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

_SECOND = """
ALTER TABLE cursors ADD COLUMN forked INTEGER NOT NULL DEFAULT 0;
ALTER TABLE epochs ADD COLUMN written_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE epochs ADD COLUMN decided INTEGER NOT NULL DEFAULT 0
"""

# What a site has run so far has proven itself; a row that comes without these columns later (mended) does so anew.
_THIRD = """
ALTER TABLE slots ADD COLUMN confirmed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE slots ADD COLUMN boots INTEGER NOT NULL DEFAULT 0;
ALTER TABLE slots ADD COLUMN trial_left_s REAL;
ALTER TABLE slots ADD COLUMN trial_seen TEXT;
UPDATE slots SET confirmed=1 WHERE slot<>'refused'
"""
