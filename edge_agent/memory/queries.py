"""What is read from memory: one record, the newest records, open intents, facts, recent predictions."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge_agent.records import Json
from edge_models.errors import ConfigError
from edge_sync.rows import LANES, record_id

_NEAR_ROWS = 10_000
"""Rows of one transaction at the most: 1,024 observations with what follows from them, and room."""

_LATEST_ROWS = 1_000
"""How far back `latest_at` looks."""

_COLUMNS = "epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash"


@dataclass(frozen=True, slots=True)
class Record:
    """A row of the journal. `at` is UTC microseconds."""

    epoch: str
    lane: str
    seq: int
    at: int
    kind: str
    agent: str
    subject: str | None
    label: str | None
    score: float | None
    ref: str | None
    body: dict[str, Json]
    hash: bytes

    @property
    def id(self) -> str:
        """The public id."""
        return record_id(self.epoch, self.lane, self.seq)


@dataclass(frozen=True, slots=True)
class OpenIntent:
    """A decision whose act was begun, or was about to be, when its agent ended."""

    decision: str
    at_us: int
    """When it was decided."""
    agent: str
    subject: str | None
    tool: str
    args: dict[str, Json]
    valid_until_us: int


def parse_id(text: str) -> tuple[str, str, int]:
    """Epoch, lane and seq of a record id. Raises `ConfigError` saying what one looks like."""
    parts = text.split(":")
    if len(parts) != 3 or len(parts[0]) != 16 or parts[1] not in LANES or not parts[2].isdecimal():
        raise ConfigError(f"record id {text!r}: one looks like 0123456789abcdef:decision:42 (see `memory tail`)")
    return parts[0], parts[1], int(parts[2])


def record(connection: sqlite3.Connection, public_id: str) -> Record | None:
    """The record with this id."""
    where = parse_id(public_id)
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM journal WHERE epoch=? AND lane=? AND seq=?",
        where,
    ).fetchone()
    return None if row is None else _record(row)


def following(connection: sqlite3.Connection, public_id: str) -> list[Record]:
    """Records that follow from this one, oldest first.

    Outside telemetry they have an index; a prediction stands in the same transaction as its observation, so near it.
    """
    start = connection.execute(
        "SELECT id FROM journal WHERE epoch=? AND lane=? AND seq=?", parse_id(public_id)
    ).fetchone()
    if start is None:
        return []
    rows = connection.execute(
        f"SELECT id, {_COLUMNS} FROM journal WHERE ref=:ref AND lane<>'telemetry'"
        f" UNION SELECT id, {_COLUMNS} FROM journal WHERE id BETWEEN :start AND :start+:near AND ref=:ref"
        " ORDER BY 1 LIMIT 100",
        {"ref": public_id, "start": start[0], "near": _NEAR_ROWS},
    )
    return [_record(row[1:]) for row in rows]


def newest(
    connection: sqlite3.Connection,
    most: int,
    kind: str | None = None,
    agent: str | None = None,
    after: int = 0,
) -> list[tuple[int, Record]]:
    """The newest `most` records with their row ids, oldest first; with `after`, the oldest behind that row id."""
    order = "ASC" if after else "DESC"
    rows = connection.execute(
        f"SELECT id, {_COLUMNS} FROM journal WHERE id>:after AND (:kind IS NULL OR kind=:kind)"
        f" AND (:agent IS NULL OR agent=:agent) ORDER BY id {order} LIMIT :most",
        {"after": after, "kind": kind, "agent": agent, "most": most},
    ).fetchall()
    return [(row[0], _record(row[1:])) for row in (rows if after else reversed(rows))]


def open_intents(connection: sqlite3.Connection, agent: str | None = None) -> list[OpenIntent]:
    """Intents without a result: one agent's, or all."""
    rows = connection.execute(
        "SELECT decision, at, agent, subject, tool, args, valid_until FROM intents"
        " WHERE :agent IS NULL OR agent=:agent ORDER BY decision",
        {"agent": agent},
    )
    return [
        OpenIntent(decision, at, who, subject, tool, json.loads(args), until)
        for decision, at, who, subject, tool, args, until in rows
    ]


def latest_at(connection: sqlite3.Connection) -> int:
    """The latest time that the newest records name, 0 where there are none: a sound clock can't be before it.

    Of the newest only, so that a clock that was once ahead is forgotten after a while.
    """
    query = "SELECT coalesce(max(at), 0) FROM (SELECT at FROM journal ORDER BY id DESC LIMIT ?)"
    return int(connection.execute(query, (_LATEST_ROWS,)).fetchone()[0])


def recent_predictions(
    connection: sqlite3.Connection, agent: str, since_us: int, until_us: int, most: int
) -> Iterator[tuple[str, int]]:
    """Label and time of this agent's predictions in that time, in the order they were made.

    Reads the newest `most` rows of the journal at most, and nothing of their bodies.
    """
    return connection.execute(
        "SELECT label, at FROM journal WHERE id>(SELECT max(id) FROM journal)-:most"
        " AND kind='prediction' AND agent=:agent AND at BETWEEN :since AND :until ORDER BY id",
        {"most": most, "agent": agent, "since": since_us, "until": until_us},
    )


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Records held, by kind."""
    return dict(connection.execute("SELECT kind, count(*) FROM journal GROUP BY kind ORDER BY kind").fetchall())


def _record(row: tuple[Any, ...]) -> Record:
    values: list[Any] = [*row[:10], json.loads(row[10]), bytes(row[11])]
    return Record(*values)
