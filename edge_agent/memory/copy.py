"""A copy of a memory, taken while its site runs: one state of it, and no state of the file is held for long.

SQLite's own ways (`VACUUM INTO`, its backup) hold one state for as long as the whole takes: the WAL fills up meanwhile,
and the site neither records nor acts. Rows are only ever added behind the last one, so they are copied in slices; then,
from one state, come what was added meanwhile and the small tables, and what the site dropped goes from the copy too.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.memory.journal import last_of
from edge_agent.memory.schema import VERSION, open_writer, reading, snapshot, transaction
from edge_sync.rows import LANES, Lane

_SLICE_ROWS = 500
"""32 MB of the largest bodies: a pod of 512 MiB holds the site beside this."""

_UNBOUNDED_MB = 1_000_000
"""The copy is bounded by what it is a copy of."""

_SMALL = ("epochs", "cursors", "gaps", "intents", "facts", "slots")

_DROPPED = (
    "DELETE FROM journal WHERE epoch NOT IN (SELECT epoch FROM epochs)",
    "DELETE FROM journal WHERE id IN (SELECT j.id FROM cursors c JOIN journal j"
    " ON j.epoch=c.epoch AND j.lane=c.lane AND j.seq<=c.trimmed)",
    "DELETE FROM journal WHERE id IN (SELECT j.id FROM gaps g JOIN journal j"
    " ON j.epoch=g.epoch AND j.lane=g.lane AND j.seq BETWEEN g.first AND g.last)",
)
"""Rows that went after they had been copied: their epoch is forgotten, or an ack or a gap stands in their place."""

Table = tuple[str, Sequence[str], list[tuple[Any, ...]]]
"""Name, columns, rows."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a memory holds. `ends`: the last number of each lane of its newest epoch."""

    schema_version: int
    rows: int
    epoch: str
    order: int
    ends: Mapping[Lane, int]


def copy_memory(source: Path, target: Path) -> Copied:
    """Make `target`, which is not there, what `source` is at one moment, without what was deleted there.

    Not durable yet when it returns. Raises `ConfigError` where `source` is no memory of this schema, `sqlite3.Error`.
    """
    with reading(source) as old, closing(open_writer(target, _UNBOUNDED_MB)) as new:
        new.execute("PRAGMA synchronous=OFF")
        columns = _columns(old, "journal")
        after = 0
        while rows := _rows(old, columns, after, _SLICE_ROWS):
            _put(new, [("journal", columns, rows)])
            after = rows[-1][0]
            if len(rows) < _SLICE_ROWS:
                break
        with snapshot(old):
            last: list[Table] = [("journal", columns, _rows(old, columns, after, -1))]
            for table in _SMALL:
                named = _columns(old, table)
                last.append((table, named, old.execute(f"SELECT {', '.join(named)} FROM {table}").fetchall()))  # noqa: S608 - names of our schema
        _put(new, last, _DROPPED)
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return describe(new)


def describe(connection: sqlite3.Connection) -> Copied:
    """What is in a memory that nobody writes to now. Raises `ValueError` where no process ever began an epoch in it."""
    newest = connection.execute("SELECT epoch, ord FROM epochs ORDER BY ord DESC LIMIT 1").fetchone()
    if newest is None:
        raise ValueError("a memory without an epoch")
    ends: dict[Lane, int] = {lane: last for lane in LANES if (last := last_of(connection, newest[0], lane))}
    rows = int(connection.execute("SELECT count(*) FROM journal").fetchone()[0])
    return Copied(VERSION, rows, newest[0], newest[1], ends)


def _rows(connection: sqlite3.Connection, columns: Sequence[str], after: int, most: int) -> list[tuple[Any, ...]]:
    query = f"SELECT {', '.join(columns)} FROM journal WHERE id>? ORDER BY id LIMIT ?"  # noqa: S608 - as above
    return connection.execute(query, (after, most)).fetchall()


def _put(connection: sqlite3.Connection, tables: Sequence[Table], then: Sequence[str] = ()) -> None:
    with transaction(connection):
        for table, columns, rows in tables:
            marks = ", ".join("?" * len(columns))
            connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)  # noqa: S608
        for statement in then:
            connection.execute(statement)


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
