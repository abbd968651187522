"""A file of the first schema that is larger than its part of the budget: written anew, once.

Such a file can't give pages back (SQLite decides that when a file is made). Later ones can, and never come here.
"""

import logging
import os
import sqlite3
from pathlib import Path

from edge_agent.memory.budget import Budget
from edge_agent.memory.retention import HIGH_WATER, make_room, used_pages
from edge_models.durable import sync

log = logging.getLogger(__name__)


def too_large_for_good(connection: sqlite3.Connection, budget: Budget) -> bool:
    """Whether the file is larger than the budget allows and can't shrink."""
    pages, shrinks = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "auto_vacuum"))
    return bool(pages > budget.pages and not shrinks)


def rewrite(connection: sqlite3.Connection, path: Path, budget: Budget) -> bool:
    """Evict what the budget has no room for, then put a copy without free pages in the file's place, closing it.

    False, with the connection still open, where the disk has no room for both for a moment, or somebody reads: it is
    tried at the next start. A kill at any instruction leaves the old file or the new one.
    """
    copy = path.with_name(path.name + ".new")
    copy.unlink(missing_ok=True)
    try:
        while used_pages(connection) > HIGH_WATER * budget.pages and _step(connection, budget):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        # Nobody else may have the file open: its WAL and their index of it must not be taken for the copy's.
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.execute("VACUUM INTO ?", (str(copy),))
        sync(copy)
    except (OSError, sqlite3.Error) as error:
        copy.unlink(missing_ok=True)
        connection.execute("PRAGMA journal_mode=WAL")
        log.warning("memory_not_rewritten", extra={"reason": str(error)})
        return False
    connection.close()
    os.replace(copy, path)
    sync(path.parent)
    return True


def _step(connection: sqlite3.Connection, budget: Budget) -> int:
    connection.execute("BEGIN IMMEDIATE")
    try:
        gone = make_room(connection, budget.step_pages)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return gone
