"""A hub's backup: taken while it runs, whole or not there at all, and checkable without the hub.

A folder (or a .tar of it) with `manifest.json`, which names every file by size and sha256; `restoring` reads it. The
database is one state of it, without what was deleted; the artifacts are those it names, or more.
"""

import hashlib
import os
import secrets
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edge_hub.broker.mosquitto import ACL, PASSWD
from edge_hub.broker.running import last_run, note_running
from edge_hub.files import make_private
from edge_hub.keeping.erasures import ERASURES
from edge_models.durable import sync, sync_tree
from edge_models.errors import ConfigError, RetryableError

MANIFEST = "manifest.json"
DATABASE, DIRECTOR_KEY = "hub.db", "director.key"

_SINGLE = (DIRECTOR_KEY, "online.key", "operator.token", ERASURES)
_BROKER = ("credentials.json", PASSWD, ACL)
_BLOBS = "blobs/sha256"
_PIECE_BYTES = 1024 * 1024


class Entry(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """What a backup says of itself."""

    model_config = ConfigDict(frozen=True)
    format: Literal[1]
    kit: str
    """The version of edge-agent-kit that made it."""
    at_us: int
    schema_version: int | None
    """Of the hub's database; None where that is not in the backup, since another tool keeps it."""
    files: dict[str, Entry]
    """By path in the backup."""

    def size_bytes(self) -> int:
        """All files together."""
        return sum(entry.size for entry in self.files.values())


def back_up(folder: Path, out: Path, now_us: int, with_database: bool = True) -> Manifest:
    """Copy the hub in `folder`, which may run, to `out`: a new folder, or a new file that ends in .tar.

    Without the database where that is none of the folder's: what lies there is then an old one.
    Made under another name beside `out` and renamed when it is whole and durable. Raises `ConfigError` for a wrong
    folder or an `out` that is there, `RetryableError` where the copy can't be made now.
    """
    _check(folder, out)
    staging = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    try:
        staging.mkdir(mode=0o700)
        manifest = _fill(folder, staging, now_us, with_database)
        if out.suffix == ".tar":
            _pack(staging, out)
        else:
            sync_tree(staging)
            staging.rename(out)
        sync(out.parent)
    except (OSError, sqlite3.Error) as error:
        raise RetryableError(f"backup of {folder}: {getattr(error, 'strerror', None) or error}") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def digest_file(path: Path) -> Entry:
    """The file's size and sha256."""
    h, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            h.update(piece)
            size += len(piece)
    return Entry(size=size, sha256=h.hexdigest())


def _check(folder: Path, out: Path) -> None:
    if not (folder / DIRECTOR_KEY).is_file():
        raise ConfigError(f"{folder} is no hub's folder: it holds no {DIRECTOR_KEY}")
    if os.path.lexists(out):
        raise ConfigError(f"--out {out} exists already: a backup is written to a new name")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    if out.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(f"--out {out} lies in the hub's own folder: a backup belongs on another disk")


def _fill(folder: Path, staging: Path, now_us: int, with_database: bool) -> Manifest:
    """The database first: every artifact that it names is on disk by then."""
    schema_version = None
    if with_database and (folder / DATABASE).is_file():
        schema_version = _copy_database(folder / DATABASE, staging / DATABASE)
    for name, link in _others(folder):
        target = staging / name
        make_private(target.parent)
        _take(folder / name, target, link)
    if (last := last_run(folder / "broker")) is not None:  # its port, which sites know; not the process
        note_running(staging / "broker", replace(last, pid=0, born=""))
    files = {
        path.relative_to(staging).as_posix(): digest_file(path) for path in sorted(staging.rglob("*")) if path.is_file()
    }
    manifest = Manifest(
        format=1, kit=version("edge-agent-kit"), at_us=now_us, schema_version=schema_version, files=files
    )
    _write(staging / MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")
    return manifest


def _copy_database(source: Path, target: Path) -> int:
    """One state of it, in one step: writers go on meanwhile, and nothing that was deleted is copied."""
    _write(target, b"")
    with closing(sqlite3.connect(source, isolation_level=None, timeout=30)) as db:
        db.execute("VACUUM INTO ?", (str(target),))
    with closing(sqlite3.connect(target)) as db:
        return int(db.execute("SELECT value FROM meta WHERE key='schema'").fetchone()[0])


def _others(folder: Path) -> Iterator[tuple[str, bool]]:
    """Every file but the database, and whether it never changes, so that a hard link will do."""
    for name in _SINGLE:
        if (folder / name).is_file():
            yield name, False
    for path in sorted((folder / "broker").glob("*")):
        if path.is_file() and (path.name in _BROKER or path.suffix == ".password"):
            yield f"broker/{path.name}", False
    for path in sorted((folder / _BLOBS).glob("*")):
        if path.is_file() and not path.name.startswith("."):
            yield f"{_BLOBS}/{path.name}", True


def _take(source: Path, target: Path, link: bool) -> None:
    if link:
        try:
            os.link(source, target)
            return
        except OSError:  # another disk, or one without hard links
            pass
    with source.open("rb") as read, os.fdopen(_create(target), "wb") as written:
        shutil.copyfileobj(read, written, _PIECE_BYTES)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(_create(path), "wb") as file:
        file.write(data)


def _pack(staging: Path, out: Path) -> None:
    partial = staging.with_suffix(".tar")
    try:
        with os.fdopen(_create(partial), "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                tar.add(staging, ".")
            file.flush()
            os.fsync(file.fileno())
        partial.rename(out)
    finally:
        partial.unlink(missing_ok=True)
