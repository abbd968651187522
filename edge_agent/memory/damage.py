"""Whether a memory's file is damaged, and the mark beside it that says so until it was mended."""

import contextlib
import json
import os
import re
import sqlite3
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.memory.schema import VERSION, open_as_it_is
from edge_agent.records import Json
from edge_models.durable import sync

MARK = "memory.damaged"
"""In the site's data folder: what is wrong, and how far its mending has come."""

_CORRUPT = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_BAD_SECTOR = {266, 522}
"""SQLITE_IOERR_READ and SQLITE_IOERR_SHORT_READ, which Python names only since 3.11.2."""

_NAMES_LOST = re.compile(r"no such (table|column|index)|table \w+ has no column")
"""What SQLite says where a name in the file's own schema was changed: our statements are the same at all times."""

_OTHERWISE = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
"""What keeps a file from being opened that is no damage of it."""

_SMALL = ("epochs", "cursors", "gaps", "intents", "facts", "slots")
"""Tables that a site reads whole when it starts."""

_JOURNAL = "id, epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash"
"""By name: a name that was changed in the file is damage too."""

_MIGRATIONS = {"0001_first", "0002_second", "0003_third"}


@dataclass(frozen=True, slots=True)
class Mark:
    """`aside`: under which name the damaged file lies, once it does. `report`: what came of mending it, once it has."""

    reason: str
    aside: str | None = None
    report: dict[str, Json] | None = None


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says with this that the file is not what it wrote."""
    if isinstance(error, UnicodeDecodeError):
        return True
    if not isinstance(error, sqlite3.Error):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python's own: a text that is none
        return isinstance(error, sqlite3.OperationalError) and "decode" in str(error)
    return code & 0xFF in _CORRUPT or code in _BAD_SECTOR or _NAMES_LOST.match(str(error)) is not None


def look(path: Path) -> str | None:
    """What keeps a site from starting on this memory, None where nothing does. Reads little: not the journal."""
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        with closing(open_as_it_is(path)) as connection:
            return _look(connection)
    except UnicodeDecodeError:
        return "SQLite: what it says of the file's schema is no text"
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and not is_damage(error) and code & 0xFF in _OTHERWISE:
            return None  # the one who opens it to write says what it is
        return f"SQLite: {error}"


def _look(connection: sqlite3.Connection) -> str | None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")}
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not tables and version == 0:
        return None
    if "_sqlite_migrations" in tables:
        done = {name for (name,) in connection.execute("SELECT name FROM _sqlite_migrations")}
        if version > VERSION and done <= _MIGRATIONS:
            return f"its version is {version}, and nothing of it is newer than {VERSION}"
        if version > VERSION:
            return None
    elif version <= VERSION and "journal" not in tables:
        return None  # a file of somebody else: nothing here may touch it
    for table in _SMALL:
        for _ in connection.execute(f"SELECT * FROM {table}"):  # noqa: S608 - a constant
            pass  # not fetchall: there may be very many gaps
    connection.execute(f"SELECT {_JOURNAL} FROM journal ORDER BY id DESC LIMIT 1").fetchall()  # noqa: S608 - a constant
    return None


def read_mark(path: Path) -> Mark | None:
    """The mark beside a memory, None where there is none."""
    try:
        read = json.loads(path.with_name(MARK).read_bytes())
        return Mark(str(read["reason"]), read.get("aside"), read.get("report"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Mark("it was marked as damaged")


def write_mark(path: Path, mark: Mark) -> None:
    """Put this mark beside a memory, durably, in the place of one that is there. Raises `OSError`."""
    file, new = path.with_name(MARK), path.with_name(f"{MARK}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(json.dumps(asdict(mark)).encode())
        out.flush()
        os.fsync(out.fileno())
    os.replace(new, file)
    sync_folder(path.parent)


def take_mark_off(path: Path) -> None:
    """The memory is mended, and its journal says so."""
    path.with_name(MARK).unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """What was made, renamed and removed in it is durable, where the disk can say so."""
    with contextlib.suppress(OSError):
        sync(folder)
