"""Why something was done: the chain observation → prediction → decision → action around one record."""

import sqlite3
from dataclasses import dataclass

from edge_agent.memory.queries import Record, following, record
from edge_models.errors import RejectedError


@dataclass(frozen=True, slots=True)
class Explanation:
    """The chain, oldest first, and ids it names that the site holds no more."""

    chain: tuple[Record, ...]
    missing: tuple[str, ...]


def explain(connection: sqlite3.Connection, public_id: str) -> Explanation:
    """What this record follows from and what followed from it. Raises `RejectedError` where it is not held."""
    start = record(connection, public_id)
    if start is None:
        raise RejectedError(f"record {public_id} is not held here: it never was, or it was dropped after its ack")
    causes: list[Record] = []
    missing: list[str] = []
    current = start
    while current.ref is not None:
        cause = record(connection, current.ref)
        if cause is None:
            missing.append(current.ref)
            break
        causes.append(cause)
        current = cause
    effects: list[Record] = []
    frontier = [start]
    while frontier and len(effects) < 100:
        found = [effect for each in frontier for effect in following(connection, each.id)]
        effects += found
        frontier = found
    return Explanation((*reversed(causes), start, *effects), tuple(missing))
