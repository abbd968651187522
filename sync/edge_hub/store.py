"""The hub's database: opened, brought to this version's schema, and handed out in transactions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, select
from sqlalchemy.exc import DatabaseError

from edge_hub.dialect import WRITES, open_sqlite
from edge_hub.schema import VERSION, meta, metadata
from edge_models.errors import ConfigError, RejectedError


class Store:
    """One database; any thread may ask for a transaction."""

    def __init__(self, path: Path) -> None:
        """Opens or makes it. Raises `ConfigError` where it is no hub's or of a newer version."""
        if not path.exists():
            path.touch(mode=0o600)
        self._engine = open_sqlite(path)
        try:
            with self.writing() as db:
                metadata.create_all(db)
                version = db.scalar(select(meta.c.value).where(meta.c.key == "schema"))
                if version is None:
                    db.execute(meta.insert().values(key="schema", value=str(VERSION)))
        except DatabaseError as error:
            raise ConfigError(f"hub database {path}: {error.orig}") from None
        if version is not None and int(version) > VERSION:
            raise ConfigError(f"hub database {path}: schema {version} is newer than this program's {VERSION}")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: committed where the block ends, rolled back where it raises."""
        with self._engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database and does not write."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


class UnknownError(RejectedError):
    """There is no such site, release or record."""


class TakenError(RejectedError):
    """There is one already."""
