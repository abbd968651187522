"""Restoring a hub from its backup: everything is checked and made ready beside the folder, then renamed into place.

What sites hold and this older hub lacks, they are asked for again; generations that sites are ahead of are raised
when they report (`edge_hub.delivery.releases`); subjects that were erased since are erased again, where their list is.
Join tokens are void: one of them may have been spent since. What was revoked since stays so where the authority lies
in the folder that is set aside, or elsewhere.
"""

import fcntl
import hashlib
import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pydantic import ValidationError
from sqlalchemy import delete

from edge_hub.backup.taking import DATABASE, DIRECTOR_KEY, MANIFEST, Entry, Manifest
from edge_hub.database.schema import VERSION, meta
from edge_hub.database.store import Store
from edge_hub.enrol import tokens
from edge_hub.files import make_private
from edge_hub.folder import AUTHORITY
from edge_hub.keeping import erasures
from edge_hub.keeping.erase import erase_again
from edge_hub.records import audit
from edge_models.durable import sync, sync_tree
from edge_models.errors import ConfigError, RejectedError, RetryableError

RESTORED = "restored_us"
"""Key in `meta`: when the database was last restored from a backup."""

_MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored. `set_aside` is where the folder that was there is now."""

    manifest: Manifest
    set_aside: Path | None
    erased_again: int


def restore(backup: Path, folder: Path, replace: bool, now_us: int) -> Restored:
    """Make `folder`, new or empty, the hub of this backup; with `replace`, in place of a stopped hub, which is kept.

    Raises `RejectedError` for a backup that is not whole, `ConfigError` for a wrong folder, `RetryableError` where
    the disk can't take it; `folder` is as it was then.
    """
    folder = folder.absolute()
    staging = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
    with _claimed(folder, replace) as occupied:
        noted = erasures.noted(folder) if occupied else []
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            staging.mkdir(mode=0o700)
            with _unpacked(backup, staging.with_suffix(".tar")) as source:
                manifest = _copy(source, staging)
            if occupied:
                _take_over_authority(folder / AUTHORITY, staging / AUTHORITY)
            erased_again = _make_ready(staging, manifest, noted, now_us)
            set_aside = _put_in_place(staging, folder, occupied, now_us)
        except OSError as error:
            raise RetryableError(f"restore into {folder}: {error.strerror or error}") from None
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return Restored(manifest, set_aside, erased_again)


def read_manifest(source: Path) -> Manifest:
    """The manifest of a backup's folder. Raises `RejectedError` where it is none."""
    path = source / MANIFEST
    try:
        if path.is_symlink() or path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise RejectedError(f"backup {source}: its {MANIFEST} is none")
        manifest = Manifest.model_validate_json(path.read_bytes())
    except OSError:
        raise RejectedError(f"{source} is no backup of a hub, or not a whole one: it holds no {MANIFEST}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RejectedError(f"backup {source}: {MANIFEST}: {where or 'document'}: {first['msg']}") from None
    if manifest.schema_version is not None and manifest.schema_version > VERSION:
        raise ConfigError(
            f"backup {source}: made by edge-agent-kit {manifest.kit}, whose database is newer "
            f"(schema {manifest.schema_version}, this one knows {VERSION}): restore with that version"
        )
    for name in manifest.files:
        if PurePosixPath(name).is_absolute() or not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise RejectedError(f"backup {source}: {MANIFEST} names {name!r}, which is no path inside it")
    return manifest


@contextmanager
def _claimed(folder: Path, replace: bool) -> Iterator[bool]:
    """Whether a hub's folder is there, which no hub runs in and none can start in meanwhile. Raises `ConfigError`."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder")
    if os.path.ismount(folder):
        raise ConfigError(f"{folder} is a mount point, which nothing can take the place of: name a folder inside it")
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if not held:
        yield False
        return
    if not replace:
        raise ConfigError(f"{folder} is not empty: name a new folder, or say --replace to set this one aside")
    if DIRECTOR_KEY not in held:
        raise ConfigError(f"{folder} is no hub's folder: it holds {held[0]!r}; name an empty or new one")
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"a hub runs in {folder}: stop it first") from None
        yield True
    finally:
        os.close(lock)


@contextmanager
def _unpacked(backup: Path, where: Path) -> Iterator[Path]:
    """The backup as a folder; a .tar is unpacked into `where` for as long. Raises `RejectedError`."""
    if not backup.is_file():
        yield backup
        return
    try:
        where.mkdir(mode=0o700)
        with tarfile.open(backup) as tar:
            tar.extractall(where, filter="data")
        yield where
    except (tarfile.TarError, EOFError) as error:
        raise RejectedError(f"backup {backup}: not a whole .tar: {error}") from None
    finally:
        shutil.rmtree(where, ignore_errors=True)


def _copy(source: Path, staging: Path) -> Manifest:
    """Every file that the manifest names, checked as it is copied, so that what was checked is what is there."""
    manifest = read_manifest(source)
    for name, entry in manifest.files.items():
        target = staging / name
        make_private(target.parent)
        if _copied(source / name, target, source) != entry:
            raise RejectedError(f"backup {source}: {name} is not what {MANIFEST} says: its bytes were changed")
    if DIRECTOR_KEY not in manifest.files:
        raise RejectedError(f"backup {source}: {MANIFEST} names no {DIRECTOR_KEY}")
    return manifest


def _copied(path: Path, target: Path, source: Path) -> Entry:
    if path.is_symlink() or not path.is_file():
        raise RejectedError(f"backup {source}: {path.relative_to(source)} is missing: it is not whole")
    h, size = hashlib.sha256(), 0
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with path.open("rb") as read, os.fdopen(fd, "wb") as written:
        while piece := read.read(_PIECE_BYTES):
            h.update(piece)
            size += len(piece)
            written.write(piece)
        written.flush()
        os.fsync(written.fileno())
    return Entry(size=size, sha256=h.hexdigest())


def _take_over_authority(source: Path, target: Path) -> None:
    """Keys that no backup holds, and what they revoked, which no restore takes back."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=shutil.copy2)
        target.chmod(0o700)
        sync_tree(target)


def _make_ready(staging: Path, manifest: Manifest, noted: list[erasures.Erasure], now_us: int) -> int:
    """Note in the database that it was restored, and erase again what it brought back."""
    for each in noted:
        if each not in erasures.noted(staging):
            erasures.note(staging, each)
    if DATABASE not in manifest.files:
        return 0
    store = Store(staging / DATABASE)
    try:
        with store.writing() as db:
            db.execute(delete(meta).where(meta.c.key == RESTORED))
            db.execute(meta.insert().values(key=RESTORED, value=str(now_us)))
            gone = erase_again(db, erasures.noted(staging), now_us)
            void = tokens.void_all(db, now_us)
            detail = {"backup_us": manifest.at_us, "kit": manifest.kit, "erased_again": gone, "tokens_void": void}
            audit.note(db, now_us, "operator", "hub restored", detail)
    finally:
        store.close()
    return gone


def _put_in_place(staging: Path, folder: Path, occupied: bool, now_us: int) -> Path | None:
    for path in [staging, *(each for each in staging.rglob("*") if each.is_dir())]:
        sync(path)
    set_aside = None
    if occupied:
        stamp = datetime.fromtimestamp(now_us / 1e6, UTC).strftime("%Y%m%dT%H%M%SZ")
        set_aside = folder.with_name(f"{folder.name}.replaced-{stamp}")
        folder.rename(set_aside)
    try:
        staging.rename(folder)
    except OSError:
        if set_aside is not None:
            set_aside.rename(folder)
        raise
    sync(folder.parent)
    return set_aside
