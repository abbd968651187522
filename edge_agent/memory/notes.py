"""A site's notes: short texts that people leave, found again by what they mean. Offline, in a file of their own.

Not in the journal's file: that has one writer, the site's process, while notes are written by whoever stands there,
whether the site runs or not. They are neither records nor synced: what is noted here stays here.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_models.digests import Digest
from edge_models.errors import ConfigError, RejectedError

FILE = "notes.db"
"""In the site's data folder."""

MAX_NOTES = 10_000
"""Every search looks at all of them: 384 numbers each, some 15 MB, in a few tens of milliseconds."""

MAX_CHARACTERS = 4_000

BUSY_S = 5.0
"""How long one who writes waits for another."""

_VERSION = 1

_TABLES = """
CREATE TABLE documents (id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE document_vectors (
  document INTEGER PRIMARY KEY REFERENCES documents (id) ON DELETE CASCADE, model TEXT NOT NULL, vector BLOB NOT NULL)
"""

Vector = NDArray[np.float32]
"""``(N,) float32`` of length 1: the product of two is the cosine between them."""


@dataclass(frozen=True, slots=True)
class Embedder:
    """What makes a vector of a text, and which model it is: vectors of different models can't be compared."""

    digest: Digest
    embed: Callable[[str], Vector]
    """Raises `RejectedError` for a text that the model can't take."""


@dataclass(frozen=True, slots=True)
class Note:
    """A note; `score` is how near it is to what was asked, −1 to 1, where something was."""

    id: int
    at_us: int
    text: str
    score: float | None = None


class Notes:
    """The notes of one site. Several processes may have them open; each method is one transaction or a few."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it. Raises `ConfigError` where it is none of ours."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)  # SQLite gives the WAL the mode of its database
            self._db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S)
            self._set_up()
        except (OSError, sqlite3.Error) as error:
            with contextlib.suppress(AttributeError):
                self._db.close()
            raise ConfigError(f"{path}: cannot be opened as a site's notes: {error}") from None
        self._path = path

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def add(self, text: str, at_us: int, embedder: Embedder) -> Note:
        """Keep a note; it is on the disk when this returns.

        Raises `RejectedError` for a text that is empty, too long, or that the model can't take, and where there is no
        room for another.
        """
        text = text.strip()
        if not 0 < len(text) <= MAX_CHARACTERS:
            raise RejectedError(f"a note has 1 to {MAX_CHARACTERS} characters, this one {len(text)}")
        vector = embedder.embed(text)
        with self._writing():
            if self._db.execute("SELECT count(*) FROM documents").fetchone()[0] >= MAX_NOTES:
                raise RejectedError(f"there are {MAX_NOTES} notes, and room for no more: forget some")
            made = self._db.execute("INSERT INTO documents (at, text) VALUES (?, ?)", (at_us, text)).lastrowid
            self._keep_vector(int(made or 0), vector, embedder.digest)
        return Note(int(made or 0), at_us, text)

    def search(self, text: str, most: int, embedder: Embedder) -> list[Note]:
        """The notes nearest to a text by cosine, nearest first; of equally near ones the older first.

        Notes that another model made vectors of get theirs anew first. Raises `RejectedError` for a text that the model
        can't take.
        """
        asked = embedder.embed(text)
        self._renew(embedder)
        rows = self._read(
            "SELECT document, vector FROM document_vectors WHERE model=? AND length(vector)=? ORDER BY document",
            embedder.digest,
            4 * len(asked),
        )
        if not rows:
            return []
        vectors = np.frombuffer(b"".join(vector for _, vector in rows), dtype="<f4").reshape(len(rows), -1)
        near = vectors @ asked
        nearest = np.argsort(-near, kind="stable")[:most]
        scores = {rows[place][0]: round(float(near[place]), 4) for place in nearest.tolist()}
        query = "SELECT at, text FROM documents WHERE id=?"
        # Somebody may just have forgotten one: then it has no row.
        return [Note(each, at, text, scores[each]) for each in scores for at, text in self._read(query, each)]

    def newest(self, most: int) -> list[Note]:
        """The notes that were left last, newest first."""
        return [Note(*row) for row in self._read("SELECT id, at, text FROM documents ORDER BY id DESC LIMIT ?", most)]

    def forget(self, note: int) -> None:
        """Remove a note, its text and its vector. Raises `RejectedError` where there is none of this number."""
        with self._writing():
            if not self._db.execute("DELETE FROM documents WHERE id=?", (note,)).rowcount:
                raise RejectedError(f"there is no note {note}")

    def _renew(self, embedder: Embedder) -> None:
        """Make the vectors that are missing of this model; each is kept, so that a break loses one."""
        query = (
            "SELECT id, text FROM documents LEFT JOIN document_vectors ON document=id WHERE model IS NULL OR model<>? "
            "ORDER BY id"
        )
        for note, text in self._read(query, embedder.digest):
            vector = embedder.embed(text)
            with self._writing():
                if self._db.execute("SELECT 1 FROM documents WHERE id=?", (note,)).fetchone():
                    self._keep_vector(note, vector, embedder.digest)

    def _keep_vector(self, note: int, vector: Vector, model: Digest) -> None:
        data = np.asarray(vector, dtype="<f4").tobytes()
        self._db.execute("INSERT OR REPLACE INTO document_vectors VALUES (?, ?, ?)", (note, model, data))

    def _set_up(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA foreign_keys=ON")
        self._db.execute("PRAGMA secure_delete=ON")  # what is forgotten is gone from the file too
        if self._version() == 0:
            with self._writing():
                if self._version() == 0:  # nobody else made them meanwhile
                    for statement in _TABLES.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version={_VERSION}")
        if self._version() > _VERSION:
            raise sqlite3.DatabaseError(f"written by a newer edge-agent (schema {self._version()})")

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _read(self, query: str, *values: object) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise ConfigError(f"{self._path}: the notes can't be read: {error}") from None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """All inside is written or nothing. Raises `ConfigError` where it can't be: a full disk, a damaged file."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and hasattr(self, "_path"):
                raise ConfigError(f"{self._path}: the notes can't be written: {error}") from None
            raise
