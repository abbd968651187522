"""Erasing a subject from a stopped site: its records go from the file's very bytes; gaps that carry the chain stay."""

import json
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from edge_agent.memory.lock import lock_data
from edge_agent.memory.schema import open_writer, transaction
from edge_agent.memory.tombstones import PAGES_A_ROW, STEP_ROWS, Gone, bury
from edge_models.errors import ConfigError, RetryableError
from edge_sync.rows import ERASED, record_id

_PIECE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Erased:
    """How much went. `mentions` are records of others that name the subject in their text, and stay.

    `overwritten`: no page of the file holds what was deleted.
    """

    records: int
    facts: int
    intents: int
    mentions: int
    overwritten: bool


def erase_subject(memory: Path, budget_mb: int, subject: str) -> Erased:
    """Erase all of the subject, and what follows from it without a subject of its own.

    In steps, each whole: after a kill, do it again. Raises `ConfigError` where there is no memory or a site runs on it,
    `RetryableError` where the file can't be written.
    """
    if not subject:
        raise ConfigError("the subject is empty: name one exactly as its records do")
    if not memory.exists():
        raise ConfigError(f"{memory}: no such memory; a site makes it when it first runs")
    lock = lock_data(memory.parent)
    try:
        with closing(open_writer(memory, budget_mb)) as connection:
            connection.execute("PRAGMA secure_delete=ON")
            erased = _erase(connection, subject)
            mentions = _mentions(connection, subject)
            overwritten = _empty_log(connection)
            if overwritten and _in_file(memory, subject):
                overwritten = _rewrite(connection)
        return Erased(*erased, mentions, overwritten)
    except sqlite3.Error as error:
        raise RetryableError(f"{memory}: can't be written ({error}): free disk space, then erase again") from None
    finally:
        os.close(lock)


def _erase(connection: sqlite3.Connection, subject: str) -> tuple[int, int, int]:
    """Records, facts and open intents that went."""
    rows = _rows(connection, subject)
    gone = facts = intents = 0
    step = STEP_ROWS // PAGES_A_ROW
    for at in range(0, len(rows), step):
        part = rows[at : at + step]
        ids = [(record_id(row.epoch, row.lane, row.seq),) for row in part]
        with transaction(connection):
            gone += bury(connection, part, ERASED)
            facts += connection.executemany("DELETE FROM facts WHERE scope='site' AND origin=?", ids).rowcount
            intents += connection.executemany("DELETE FROM intents WHERE decision=?", ids).rowcount
        _empty_log(connection)
    with transaction(connection):  # of decisions whose records had no room any more
        intents += connection.execute("DELETE FROM intents WHERE subject=?", (subject,)).rowcount
    return gone, facts, intents


def _rows(connection: sqlite3.Connection, subject: str) -> list[Gone]:
    """The subject's records and those without one that follow from them, in the order of their streams."""
    query = "SELECT epoch, lane, seq, hash FROM journal WHERE subject=?"
    found = {record_id(*row[:3]): Gone(*row) for row in connection.execute(query, (subject,))}
    ids = set(found)
    while ids:
        following: dict[str, Gone] = {}
        for ref, *row in connection.execute(
            "SELECT ref, epoch, lane, seq, hash FROM journal WHERE subject IS NULL AND ref IS NOT NULL"
        ):
            if ref in ids:
                following[record_id(*row[:3])] = Gone(*row)
        ids = following.keys() - found.keys()
        found |= following
    return sorted(found.values(), key=lambda row: (row.epoch, row.lane, row.seq))


def _mentions(connection: sqlite3.Connection, subject: str) -> int:
    in_json = json.dumps(subject, ensure_ascii=False)[1:-1]
    query = "SELECT count(*) FROM journal WHERE instr(body, ?) OR instr(label, ?)"
    return int(connection.execute(query, (in_json, subject)).fetchone()[0])


def _empty_log(connection: sqlite3.Connection) -> bool:
    """Work the WAL into the file and cut it to nothing; False where a reader does not let that be."""
    busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _in_file(memory: Path, subject: str) -> bool:
    """Whether the name is anywhere in the file: in a record of others, or in pages of what went long ago."""
    name, tail = subject.encode(), b""
    with memory.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            tail += piece
            if name in tail:
                return True
            tail = tail[-len(name) :]
    return False


def _rewrite(connection: sqlite3.Connection) -> bool:
    """Write every page anew; False where the disk has no room for a copy."""
    try:
        connection.execute("VACUUM")
        return _empty_log(connection)
    except sqlite3.Error:
        return False
