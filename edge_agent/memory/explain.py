"""Why something was done, from what a site's journal holds."""

import sqlite3

from edge_agent.memory.queries import Record, following, record
from edge_models.errors import RejectedError
from edge_sync.explain import Explanation
from edge_sync.explain import explain as walk


def explain(connection: sqlite3.Connection, public_id: str) -> Explanation[Record]:
    """What this record follows from and what followed from it. Raises `RejectedError` where it is not held."""
    start = record(connection, public_id)
    if start is None:
        raise RejectedError(f"record {public_id} is not held here: it never was, or it was dropped after its ack")
    return walk(start, lambda each: record(connection, each), lambda each: following(connection, each.id))
