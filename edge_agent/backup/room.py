"""Whether an error means that a disk is full: who gets it frees space, and nothing is wrong with any file."""

import errno
import sqlite3

REMEDY = "free disk space"

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR | 19 << 8)
"""The second is SQLITE_IOERR_SHMSIZE: no room for the index of a log. Source: sqlite.org/rescode.html."""


def is_full(error: BaseException | None) -> bool:
    """Whether this error, or one that it was raised in place of, says so."""
    while error is not None:
        if getattr(error, "sqlite_errorcode", None) in _FULL or getattr(error, "errno", None) in _NO_SPACE:
            return True
        error = error.__context__
    return False
