"""The small tables of a damaged memory: nothing proves their rows, so they must be plausible, and agree with it."""

import contextlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edge_agent.memory.facts import MAX_FACT_BYTES, MAX_KEY_CHARS
from edge_agent.memory.queries import parse_id
from edge_agent.memory.schema import UNREADABLE, VERSION, open_as_it_is
from edge_models.errors import ConfigError
from edge_sync.release import Release
from edge_sync.rows import LANES, Gap

_SEQ_END = 2**53
_DAY_US = 86_400_000_000

Stream = tuple[str, str]


@dataclass(slots=True)
class SmallTables:
    """What SQLite gives of them. `dropped` and `acked` per stream, as the cursors have it."""

    gaps: list[tuple[Stream, Gap]] = field(default_factory=list)
    dropped: dict[Stream, tuple[int, bytes]] = field(default_factory=dict)
    acked: dict[Stream, int] = field(default_factory=dict)
    facts: list[tuple[Any, ...]] = field(default_factory=list)
    intents: list[tuple[Any, ...]] = field(default_factory=list)
    slots: list[tuple[Any, ...]] = field(default_factory=list)
    last_id: int = 0
    """The largest id that a row of the journal ever had."""
    unreadable: list[str] = field(default_factory=list)
    """Tables of which SQLite did not give all."""


def read_small(path: Path) -> SmallTables:
    """As much of them as can be read; changes nothing in the file or its WAL."""
    small = SmallTables()

    def read(table: str, columns: str, take: Callable[[tuple[Any, ...]], None]) -> None:
        try:
            with closing(open_as_it_is(path)) as connection:
                for row in connection.execute(f"SELECT {columns} FROM {table}"):  # noqa: S608 - constants
                    take(row)
        except UNREADABLE:
            small.unreadable.append(table)

    read("gaps", "epoch, lane, first, last, reason, hash", lambda row: _take_gap(small, row))
    read("cursors", "epoch, lane, acked, trimmed, trimmed_hash", lambda row: _take_cursor(small, row))
    read("facts", "scope, key, value, version, origin, expires_at", small.facts.append)
    read("intents", "decision, at, agent, subject, tool, args, valid_until", small.intents.append)
    read("slots", "*", lambda row: small.slots.append(row[:5] + _proven(row[5:])))  # an older file's have five columns
    read("sqlite_sequence", "name, seq", lambda row: _take_last_id(small, row))
    return small


def implausible(path: Path) -> str | None:
    """Why a start would stumble over these tables of the memory at `path`, which can be read; None where it would not.

    No chain covers them, so a flipped bit in a release or a fact shows only here.
    """
    if not path.exists() or not path.stat().st_size:
        return None
    # What SQLite can't say now, the one who opens the file to write is told.
    with contextlib.suppress(*UNREADABLE), closing(open_as_it_is(path)) as connection:
        if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            return None
        for row in connection.execute("SELECT slot, release, generation, document, at FROM slots"):
            if not _is_slot(*row):
                return "a release in it is not what was written"
        for row in connection.execute("SELECT scope, key, value, version, origin, expires_at FROM facts"):
            if not _is_fact(*row):
                return "a fact in it is not what was written"
    return None


def put_facts(connection: sqlite3.Connection, small: SmallTables) -> int:
    """Write the facts that can be; returns how many can't. The caller's transaction."""
    good = [row for row in small.facts if _is_fact(*row)]
    connection.executemany(
        "INSERT OR IGNORE INTO facts (scope, key, value, version, origin, expires_at) VALUES (?, ?, ?, ?, ?, ?)", good
    )
    return len(small.facts) - len(good)


def put_slots(connection: sqlite3.Connection, small: SmallTables) -> int:
    """Write the slots that can be; returns how many can't. The caller's transaction."""
    good = [row for row in small.slots if _is_slot(*row[:5])]
    connection.executemany(
        "INSERT OR IGNORE INTO slots"
        " (slot, release, generation, document, at, confirmed, boots, trial_left_s, trial_seen)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        good,
    )
    return len(small.slots) - len(good)


def put_intents(connection: sqlite3.Connection, small: SmallTables) -> int:
    """Write the intents whose decisions the new journal holds just so; returns how many can't be written.

    What acts must be what was decided: nothing else proves an intent. The caller's transaction.
    """
    good = [row for row in small.intents if _is_intent(connection, *row)]
    connection.executemany(
        "INSERT OR IGNORE INTO intents (decision, at, agent, subject, tool, args, valid_until)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        good,
    )
    return len(small.intents) - len(good)


def _take_gap(small: SmallTables, row: tuple[Any, ...]) -> None:
    epoch, lane, first, last, reason, end_hash = row
    plain = isinstance(epoch, str) and lane in LANES and isinstance(first, int) and isinstance(last, int)
    if (
        plain
        and 1 <= first <= last < _SEQ_END
        and isinstance(reason, str)
        and len(reason) <= 200
        and _is_hash(end_hash)
    ):
        small.gaps.append(((epoch, lane), Gap(first, last, reason, end_hash)))


def _take_cursor(small: SmallTables, row: tuple[Any, ...]) -> None:
    epoch, lane, acked, trimmed, end_hash = row
    if isinstance(acked, int):
        small.acked[epoch, lane] = acked
    if isinstance(trimmed, int) and 0 < trimmed < _SEQ_END and _is_hash(end_hash):
        small.dropped[epoch, lane] = (trimmed, end_hash)


def _take_last_id(small: SmallTables, row: tuple[Any, ...]) -> None:
    if row[0] == "journal" and isinstance(row[1], int) and row[1] < 2**40:
        small.last_id = row[1]


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == 32


def _is_fact(scope: object, key: object, value: object, version: object, origin: object, expires: object) -> bool:
    if scope not in ("site", "fleet") or not isinstance(key, str) or len(key) > MAX_KEY_CHARS:
        return False
    if not isinstance(value, str) or len(value) > MAX_FACT_BYTES or not isinstance(version, int):
        return False
    if not (origin is None or isinstance(origin, str)) or not (expires is None or isinstance(expires, int)):
        return False
    return _json(value) is not _NOTHING


def _proven(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """How far a slot's release is proven: as it is written, where that can be; what no column says yet was so."""
    if not row:
        return (1, 0, None, None)
    confirmed, boots, left_s, seen = (*row, None, None, None, None)[:4]
    plain = confirmed in (0, 1) and isinstance(boots, int) and isinstance(left_s, float | int | None)
    if not plain or not 0 <= boots < 1_000 or not isinstance(seen, str | None):
        return (0, 0, None, None)  # it proves itself anew
    return (confirmed, boots, left_s, seen)


def _is_slot(slot: object, release: object, generation: object, document: object, at: object) -> bool:
    if not (isinstance(generation, int) and 0 <= generation < _SEQ_END and isinstance(at, int)):
        return False
    read = _json(document)
    if slot == "refused":
        return isinstance(read, dict) and isinstance(read.get("reason"), str)
    if slot not in ("active", "previous"):
        return False
    try:
        return Release.model_validate(read).release == release
    except ValidationError:
        return False


def _is_intent(
    connection: sqlite3.Connection,
    decision: object,
    at: object,
    agent: object,
    subject: object,
    tool: object,
    args: object,
    valid_until: object,
) -> bool:
    try:
        where = parse_id(str(decision))
    except ConfigError:
        return False
    row = connection.execute(
        "SELECT at, agent, subject, body FROM journal WHERE epoch=? AND lane=? AND seq=?", where
    ).fetchone()
    if row is None or row[:3] != (at, agent, subject) or not isinstance(valid_until, int):
        return False
    body = _json(row[3])
    done = body.get("do") if isinstance(body, dict) else None
    return done == {"tool": tool, "args": _json(args)} and row[0] <= valid_until <= row[0] + _DAY_US


class _Nothing:
    """Stands for what is no JSON."""


_NOTHING = _Nothing()


def _json(text: object) -> Any:
    try:
        return json.loads(text) if isinstance(text, str) else _NOTHING
    except (ValueError, RecursionError):
        return _NOTHING
