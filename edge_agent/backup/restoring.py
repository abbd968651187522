"""Making a site's folder of a backup: everything is checked and made ready inside it, then put in place.

The memory comes last: killed before that, the folder has the memory it had, or none, as a site that lost its disk.
What the folder has beside its memory stays, since it is newer or the same: keys and certificate, what is trusted, a
hold. So the older words that a backup holds take nothing back that this machine has heard since.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edge_agent.backup import archive
from edge_agent.backup.archive import MEMORY, NOTES, SITE_FILE, Manifest
from edge_agent.backup.rights import refuse_root_elsewhere
from edge_agent.backup.room import REMEDY, is_full
from edge_agent.config import IDENTITY, Site
from edge_agent.memory import restored
from edge_agent.memory.aside import second_name
from edge_agent.memory.checkpoint import KEY_FILE
from edge_agent.memory.damage import sync_folder, take_mark_off
from edge_agent.memory.lock import lock_data
from edge_agent.memory.restored import Settled, settle
from edge_agent.memory.schema import UNREADABLE, VERSION, reading
from edge_agent.memory.verify import damage
from edge_models.durable import sync, sync_tree
from edge_models.errors import ConfigError, RejectedError, RetryableError

REPLACED = "memory.replaced-"
"""What the name of a memory that a restore set aside begins with; it ends in `.db`."""

_WORK = "restore.partial"
_ROOM_BYTES = 16 * 1024 * 1024
"""Free beside the files: for the first records, and what is made ready."""

_KEPT = ("trust", IDENTITY, KEY_FILE, "update/hold", NOTES)
"""Of these, what the folder has stays."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `unknown`: acts that were open in the backup, and are settled as unknown now."""

    manifest: Manifest
    set_aside: Path | None
    """Where the memory is that was there."""
    kept: tuple[str, ...]
    """What was in the backup and did not replace what was there."""
    epoch: str
    unknown: int


def look_into(source: BinaryIO, called: str) -> Manifest:
    """What a backup says it holds, once every byte of it was verified. Raises `RejectedError`."""
    return archive.read(source, called, lambda _: None, lambda _: None)


def restore(source: BinaryIO, called: str, site: Site, force: bool, now_us: int) -> Restored:
    """Make the site's folder one that remembers what this backup, `called` so, holds; durable on return.

    With `force` also where there is a memory: it is set aside. Raises `ConfigError` where there is one, or where the
    site runs, `RejectedError` for a backup that is not whole or another site's, `RetryableError` where the disk can't
    take it; the folder remembers then what it did before.
    """
    refuse_root_elsewhere(site.data)
    with _claimed(site.data):
        if (site.data / MEMORY).exists() and not force:
            raise ConfigError(
                f"{site.data} holds a memory: say --force to set it aside, or name another folder with --data"
            )
        work = site.data / _WORK
        try:
            shutil.rmtree(work, ignore_errors=True)
            manifest = _unpack(source, called, site, work)
            settled = _make_ready(work / MEMORY, called, site, manifest, now_us)
            kept = _put_beside(work, site.data)
            set_aside = _put_memory(work / MEMORY, site, settled.order, now_us)
        except (OSError, sqlite3.Error, ConfigError) as error:
            if is_full(error):
                raise RetryableError(f"restore into {site.data}: no room: {REMEDY}") from None
            if isinstance(error, ConfigError):
                raise
            raise RetryableError(f"restore into {site.data}: {getattr(error, 'strerror', None) or error}") from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return Restored(manifest, set_aside, kept, settled.epoch, settled.unknown)


@contextmanager
def _claimed(data: Path) -> Iterator[None]:
    """Hold the site's folder, so that no process starts in it. Raises `ConfigError`.

    Where what is done inside fails, whatever was made for holding it is gone again.
    """
    made, first = not data.exists(), not (data / "lock").exists()
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = lock_data(data)
    except OSError as error:
        what = f"{data}: {error.strerror or error}: this command needs the rights of who runs the site"
        raise ConfigError(what) from None
    try:
        yield
    except BaseException:
        if made:
            shutil.rmtree(data, ignore_errors=True)
        elif first and not (data / MEMORY).exists():
            (data / "lock").unlink(missing_ok=True)
        raise
    finally:
        os.close(lock)


def _unpack(source: BinaryIO, called: str, site: Site, work: Path) -> Manifest:
    """All files into `work`, verified."""

    def check(manifest: Manifest) -> None:
        if manifest.site != site.config.site:
            raise RejectedError(f"it is of site {manifest.site!r}, and this is {site.config.site!r}")
        if manifest.schema_version > VERSION:
            raise ConfigError(
                f"backup {called}: made by edge-agent-kit {manifest.kit}, whose memory is newer "
                f"(schema {manifest.schema_version}, this one knows {VERSION}): restore with that version"
            )
        free = shutil.disk_usage(site.data).free
        if manifest.size_bytes() + _ROOM_BYTES > free:
            need = (manifest.size_bytes() + _ROOM_BYTES) // 2**20
            raise RetryableError(f"{site.data}: wants {need} MiB, {free // 2**20} are free: free disk space")

    def take(name: str) -> BinaryIO | None:
        if name == SITE_FILE:  # it comes with the kit: for who has no kit any more
            return None
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    work.mkdir(mode=0o700)
    return archive.read(source, called, check, take)


def _make_ready(memory: Path, called: str, site: Site, manifest: Manifest, now_us: int) -> Settled:
    """The memory goes on in an epoch of its own. Raises `RejectedError` where it is not what a site wrote."""
    try:
        with reading(memory) as connection:
            if connection.execute("SELECT 1 FROM sqlite_schema WHERE type NOT IN ('table', 'index')").fetchone():
                raise RejectedError(f"backup {called}: its memory does things by itself, which no site's does")
            found = damage(connection)
    except UNREADABLE as error:
        raise RejectedError(f"backup {called}: its memory can't be read: {error}") from None
    if found:
        raise RejectedError(f"backup {called}: its memory is damaged: {found[0].what}")
    about = {"backup_us": manifest.at_us, "kit": manifest.kit}
    try:
        return settle(memory, site.config.disk.journal_mb, about, lambda: now_us)
    except ValueError:
        raise RejectedError(f"backup {called}: nothing was ever written into its memory") from None
    except OverflowError:
        raise RejectedError(f"backup {called}: its memory holds numbers that no site counts to") from None


def _put_beside(work: Path, data: Path) -> tuple[str, ...]:
    """Everything but the memory; returns what stayed as it was."""
    kept = []
    for name in _KEPT:
        source, target = work / name, data / name
        if not source.exists():
            continue
        if _is_there(target):
            kept.append(name)
            continue
        target.parent.mkdir(exist_ok=True, mode=0o700)
        sync_tree(source) if source.is_dir() else sync(source)
        shutil.rmtree(target, ignore_errors=True)
        for log in ("-wal", "-shm"):  # of notes that are gone: it would be worked into these
            target.with_name(target.name + log).unlink(missing_ok=True)
        source.rename(target)
        sync_folder(target.parent)
    blobs = data / "blobs"
    for source in sorted((work / "blobs").glob("*")):
        blobs.mkdir(exist_ok=True, mode=0o700)
        sync(source)
        source.replace(blobs / source.name)  # a name is a digest: whatever was there was the same, or damaged
    if blobs.exists():
        sync_folder(blobs)
    return tuple(kept)


def _is_there(target: Path) -> bool:
    """An empty folder is nothing: a site makes some at once."""
    return any(path.is_file() for path in target.rglob("*")) if target.is_dir() else target.exists()


def _put_memory(new: Path, site: Site, order: int, now_us: int) -> Path | None:
    """The new memory takes the old one's place, which gets another name, with its log, before."""
    path = site.data / MEMORY
    sync(new)
    aside = _set_aside(path, now_us) if path.exists() else None
    if site.config.hub is not None:
        restored.write_mark(path, order)
    else:
        restored.take_mark_off(path)
    for part in ("-wal", "-shm"):  # a log that outlived its file would be worked into this one
        path.with_name(path.name + part).unlink(missing_ok=True)
    sync_folder(site.data)
    os.replace(new, path)
    sync_folder(site.data)
    take_mark_off(path)  # of a damage: it was the old one's
    return aside


def _set_aside(path: Path, now_us: int) -> Path:
    """A second name for the memory that is there, and for its log."""
    with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:  # killed below, it lacks no record
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return second_name(path, REPLACED, now_us)
