"""A memory that is behind gets from its hub what the site knew before: its facts, and the order of its next epoch.

It came out of a backup, or was begun anew when the hub that holds the lost one was out of reach.
"""

import json
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from edge_agent.memory.facts import MAX_FACTS
from edge_agent.memory.queries import parse_id
from edge_agent.memory.restored import take_mark_off
from edge_agent.memory.schema import open_writer, transaction
from edge_agent.records import Json
from edge_models.errors import ConfigError
from edge_sync.documents import KnownFact, Memory

Age = tuple[int, int, int]
"""How new a fact is: part of the backup, of what was lost, or of what came then; its epoch's order; its number."""

_OLDEST: Age = (-1, 0, 0)
_BACKUP, _LOST, _SINCE = 0, 1, 2


def catch_up(
    path: Path,
    memory: Memory,
    order: int,
    budget_mb: int,
    now_us: int,
    draw: Callable[[], str] = lambda: secrets.token_hex(8),
) -> dict[str, Json] | None:
    """Take over the facts that the hub has from later than this memory; what came, for the journal, None where nothing.

    `order`: what was set in epochs from there on is newer than anything that it can say. Done twice it does the same.
    Raises `ConfigError`, `sqlite3.Error`.
    """
    with closing(open_writer(path, budget_mb)) as connection:
        with transaction(connection):
            newer = _newer(connection, memory.facts, order)
            connection.executemany(
                "INSERT INTO facts (scope, key, value, version, origin, expires_at) VALUES ('site', ?, ?, 1, ?, ?)"
                " ON CONFLICT (scope, key) DO UPDATE SET value=excluded.value, version=version+1,"
                " origin=excluded.origin, expires_at=excluded.expires_at",
                [(f.key, json.dumps(f.value, separators=(",", ":")), f.origin, f.expires_at) for f in newer],
            )
            highest = int(connection.execute("SELECT coalesce(max(ord), 0) FROM epochs").fetchone()[0])
            if memory.order > highest:  # an epoch of no records, so that the next one's order is above it
                connection.execute(
                    "INSERT INTO epochs (epoch, ord, started_at) VALUES (?, ?, ?)", (draw(), memory.order, now_us)
                )
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    take_mark_off(path)
    if not newer and memory.order <= highest:
        return None
    return {
        "facts": len(newer),
        "facts_left_out": memory.left_out,
        "records": 0,
        "epochs": 0,
        "order": memory.order,
        "behind": True,
    }


def _newer(connection: sqlite3.Connection, facts: Sequence[KnownFact], order: int) -> list[KnownFact]:
    """Those that are later than what is known here of their key; of keys that are new here as many as there is room."""
    ours = dict(connection.execute("SELECT key, origin FROM facts WHERE scope='site'").fetchall())
    room, newer = MAX_FACTS - len(ours), list[KnownFact]()
    for fact in facts:
        if fact.key not in ours:
            room -= 1
            if room >= 0:
                newer.append(fact)
            continue
        here = ours[fact.key]
        said = fact.order or order  # what an older hub does not say was lost, as far as anybody knows
        if fact.origin != here and _age(connection, fact.origin, order, said) > _age(connection, here, order, 0):
            newer.append(fact)
    return newer


def _age(connection: sqlite3.Connection, origin: str | None, order: int, said: int) -> Age:
    """`said`: the order of an epoch that is not known here.

    One of the hub's was lost where it began after this memory's last, and else forgotten here, as it was over and
    delivered. So whatever is here from one that was forgotten, the hub has that or something newer.
    """
    try:
        epoch, _, seq = parse_id(origin or "")
    except ConfigError:
        return _OLDEST
    row = connection.execute("SELECT ord FROM epochs WHERE epoch=?", (epoch,)).fetchone()
    if row is None:
        return (_LOST if said >= order else _BACKUP, said, seq)
    return (_SINCE if row[0] >= order else _BACKUP, row[0], seq)
