"""The one place that knows how databases differ: how one is opened, begins to write, locks, and inserts in bulk."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.schema import CreateColumn

from edge_models.errors import ConfigError, KitError, RetryableError

Database = Path | str
"""A SQLite database's file, or a PostgreSQL database's URL."""

ALONE, SHARED = "alone", "shared"
WRITES = "edge_writes"
"""Execution option of a connection whose transactions write: `ALONE`, or `SHARED` with others that say so too."""

_BUSY_MS = 30_000
_CHECKPOINT_PAGES = 4_000
"""16 MB of log before it is worked into the database: pages that many commits touch are then written once."""

_SESSION = {
    "synchronous_commit": "on",
    "lock_timeout": str(_BUSY_MS),
    "idle_in_transaction_session_timeout": "60000",  # a hub that hangs must not hold its locks for ever,
    "tcp_keepalives_idle": "10",  # nor one whose machine is gone
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}
"""Of every PostgreSQL connection."""

_NOT_YET = re.compile(r"starting up|shutting down|in recovery|too many|connection slots")
"""In PostgreSQL's reason for letting nobody in, where that passes by itself."""


def open_database(database: Database) -> Engine:
    """An engine for it, durable at every commit; nothing is connected yet. Raises `ConfigError`."""
    if isinstance(database, Path):
        return _open_sqlite(database)
    return _open_postgresql(_postgresql_url(database))


def _open_sqlite(path: Path) -> Engine:
    engine = create_engine(URL.create("sqlite", database=str(path)))

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # sqlite3 must not begin transactions: `begin` below does
        for pragma in (
            f"busy_timeout={_BUSY_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer locks at once: one that began as a reader could fail later, when another had written meanwhile.
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _open_postgresql(url: URL) -> Engine:
    options = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
    known = {"connect_timeout": 5, "application_name": "edge-hub", "options": options}
    try:
        engine = create_engine(url, connect_args=known, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"PostgreSQL needs the extra [postgres] ({error.name}): pip install 'edge-agent-kit[postgres]'"
        ) from None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # SQLite has one writer at a time, and most of the hub is written for that. Only those that lock for themselves
        # what they change, as ingest does, run beside each other.
        match connection.get_execution_options().get(WRITES):
            case "alone":
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_lock_id("writers"),))
            case "shared":
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock_shared(%s)", (_lock_id("writers"),))

    return engine


def _postgresql_url(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.drivername not in ("postgresql", "postgres"):
        raise ConfigError("database: write postgresql://USER@HOST/DATABASE")
    if url.password is not None or "password" in url.query:
        raise ConfigError("database: no password in its URL: put it into ~/.pgpass, or a file that PGPASSFILE names")
    return url.set(drivername="postgresql+psycopg")


def how_to_write(engine: Engine, mode: str) -> dict[str, Any]:
    """Execution options of a connection that writes, `ALONE` or `SHARED`."""
    return {WRITES: mode} if engine.dialect.name == "sqlite" else {WRITES: mode, "isolation_level": "READ COMMITTED"}


def how_to_read(engine: Engine) -> dict[str, Any]:
    """Execution options of a connection that sees one state of the database for as long as its transaction lasts."""
    if engine.dialect.name == "sqlite":
        return {}
    return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def why_not_opened(database: Database, error: DBAPIError) -> KitError:
    """In a line: `ConfigError` where somebody has to mend it, `RetryableError` where the server is away."""
    text = str(error.orig).strip()
    if isinstance(database, Path):
        return ConfigError(f"hub database {database}: {text}")
    refused = re.search(r"FATAL:\s*(.*)", text)  # only a server that is there says so
    said = refused[1] if refused is not None else text.splitlines()[0]
    where = make_url(database).render_as_string(hide_password=True)
    away = isinstance(error, OperationalError) and "no password" not in text
    if refused is not None:
        away = _NOT_YET.search(said) is not None
    return RetryableError(f"hub database {where}: {said}") if away else ConfigError(f"hub database {where}: {said}")


def lock(db: Connection, what: str) -> None:
    """Until this transaction ends, no other gets past its own `lock` of the same name. SQLite has one writer anyway."""
    if db.dialect.name == "postgresql":
        db.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_lock_id(what),))


def _lock_id(what: str) -> int:
    digest = hashlib.sha256(f"edge_hub {what}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class BulkInsert:
    """An INSERT of many rows with all columns of a table, in order, past SQLAlchemy's compiler: for speed.

    Where a row's key is taken, the columns `update` are set to the new values; without any, that is an error. No key
    may come twice in one call. JSON is given as text.
    """

    def __init__(self, table: Table, update: Sequence[str] = ()) -> None:
        self._table, self._update = table, update
        self._sql: dict[str, str] = {}

    def __call__(self, db: Connection, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert them."""
        if not rows:
            return
        if db.dialect.name == "sqlite":
            db.exec_driver_sql(self.sqlite, list(rows))
        elif self._update:  # one statement with an array a column
            db.exec_driver_sql(self._postgresql(db), tuple(map(list, zip(*rows, strict=True))))
        else:  # measured: 3 µs a row of `records` in this process, where arrays take 38 and a statement a row 16
            _copy(db, f"COPY {self._table.name} ({_names(self._table.columns)}) FROM STDIN", rows)

    @property
    def sqlite(self) -> str:
        """The statement for sqlite3's `executemany`."""
        if "sqlite" not in self._sql:
            self._sql["sqlite"] = self._insert(f"VALUES ({', '.join('?' for _ in self._table.columns)})")
        return self._sql["sqlite"]

    def _postgresql(self, db: Connection) -> str:
        if "postgresql" not in self._sql:
            arrays = (f"%s::{column.type.compile(db.dialect)}[]" for column in self._table.columns)
            self._sql["postgresql"] = self._insert(f"SELECT * FROM unnest({', '.join(arrays)})")  # noqa: S608
        return self._sql["postgresql"]

    def _insert(self, what: str) -> str:
        sql = f"INSERT INTO {self._table.name} ({_names(self._table.columns)}) {what}"
        if self._update:
            news = ", ".join(f"{_quoted(name)}=excluded.{_quoted(name)}" for name in self._update)
            sql += f" ON CONFLICT ({_names(self._table.primary_key)}) DO UPDATE SET {news}"
        return sql


def _copy(db: Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
    driver: Any = db.dialect.loaded_dbapi
    connection: Any = db.connection.driver_connection
    try:
        with connection.cursor() as cursor, cursor.copy(sql) as copy:
            for row in rows:
                copy.write_row(row)
    except driver.Error as error:
        raise DBAPIError.instance(sql, None, error, driver.Error, dialect=db.dialect) from error


def add_column(db: Connection, table: Table, name: str) -> None:
    """Add a column of `table` that the database does not have yet; rows that are there get its `server_default`."""
    column = CreateColumn(table.columns[name]).compile(dialect=db.dialect)
    db.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column}")


def _names(columns: Iterable[Any]) -> str:
    return ", ".join(_quoted(column.name) for column in columns)


def _quoted(name: str) -> str:
    return f'"{name}"'
