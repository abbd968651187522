"""The hub's database: opened, brought to this version's schema, and handed out in transactions."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, inspect, select, update
from sqlalchemy.exc import DBAPIError

from edge_hub.database.dialect import ALONE, SHARED, Database, how_to_read, how_to_write, open_database, why_not_opened
from edge_hub.database.migrate import add_missing
from edge_hub.database.schema import VERSION, meta, metadata
from edge_models.errors import ConfigError, RejectedError

log = logging.getLogger(__name__)


class Store:
    """One database; any thread may ask for a transaction, and so may other processes."""

    def __init__(self, database: Database) -> None:
        """Opens or makes it: SQLite for a file, PostgreSQL for a URL; an older version's is brought to this one's.

        Raises `ConfigError` where it is no hub's, of a newer version, or lets nobody in; `RetryableError` where its
        server is away.
        """
        if isinstance(database, Path) and not database.exists():
            database.touch(mode=0o600)
        self.database = database
        self._engine = open_database(database)
        try:
            with self.writing() as db:
                _bring_up(db, database)
        except DBAPIError as error:
            self._engine.dispose()
            raise why_not_opened(database, error) from None
        except ConfigError:
            self._engine.dispose()
            raise

    @contextmanager
    def writing(self, *, shared: bool = False) -> Iterator[Connection]:
        """A transaction that writes: committed where the block ends, rolled back where it raises.

        No other one writes at the same time; `shared` ones may run beside each other where the database can do it, and
        lock for themselves what they change.
        """
        options = how_to_write(self._engine, SHARED if shared else ALONE)
        with self._engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database and does not write."""
        options = how_to_read(self._engine)
        with self._engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


class UnknownError(RejectedError):
    """There is no such site, release or record."""


class TakenError(RejectedError):
    """There is one already."""


def _bring_up(db: Connection, database: Database) -> None:
    found = None
    if inspect(db).has_table(meta.name):
        found = db.scalar(select(meta.c.value).where(meta.c.key == "schema"))
    if found is not None and int(found) > VERSION:
        raise ConfigError(f"hub database {database}: schema {found} is newer than this program's {VERSION}")
    added = add_missing(db, metadata)
    if found is None:
        db.execute(meta.insert().values(key="schema", value=str(VERSION)))
    elif int(found) < VERSION:
        db.execute(update(meta).where(meta.c.key == "schema").values(value=str(VERSION)))
    if found is not None and added:
        log.warning("database_brought_up", extra={"from_version": found, "version": VERSION, "added": added})
