"""Taking a backup of a site, whether it runs or not: one file, whole or not there at all."""

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from edge_agent.backup import archive, contents
from edge_agent.backup.archive import MEMORY, Entry, Manifest
from edge_agent.backup.rights import refuse_root_elsewhere
from edge_agent.backup.room import REMEDY, is_full
from edge_agent.config import Site
from edge_agent.memory.copy import Copied, copy_memory
from edge_agent.memory.damage import is_damage, read_mark
from edge_agent.memory.owner import refuse_another
from edge_agent.memory.schema import UNREADABLE, reading
from edge_agent.memory.verify import damage
from edge_models.durable import sync
from edge_models.errors import ConfigError, RejectedError, RetryableError

WORK = "backup.partial"
"""In the site's folder, while a backup is made that goes to no file: the copy of the memory."""


def back_up(
    site: Site,
    out: Path | BinaryIO,
    now_us: int,
    site_file: Path | None = None,
    with_models: bool = True,
) -> Manifest:
    """Write a backup of the site to `out`, a new file for its owner's eyes only, or a stream.

    With `site_file` it holds that, and the site's keys: who has it can be the site. Raises `ConfigError` where there is
    nothing to back up or `out` can't be, `RejectedError` for a damaged memory, `RetryableError` where it can't be now.
    """
    _check(site, out)
    try:
        with ExitStack() as stack:
            work = stack.enter_context(_beside(out) if isinstance(out, Path) else _inside(site.data))
            copied = _copy(site, work / MEMORY)
            files = _files(stack, site, work / MEMORY, site_file, with_models)
            entries = {name: archive.digest(file) for name, file in files.items()}
            _check_models(entries)
            manifest = _manifest(site, copied, work / MEMORY, entries, now_us, site_file is not None, with_models)
            if isinstance(out, Path):
                _write(work / "whole", manifest, files)
                (work / "whole").rename(out)
                sync(out.parent)
            else:
                archive.write(out, manifest, files)
    except (OSError, ConfigError, *UNREADABLE) as error:
        if is_full(error):
            where = out.parent if isinstance(out, Path) else site.data
            raise RetryableError(f"backup of {site.config.site}: no room in {where}: {REMEDY}") from None
        if isinstance(error, ConfigError):
            raise
        if is_damage(error):
            raise _damaged(site, str(error)) from None
        raise RetryableError(f"backup of {site.config.site}: {getattr(error, 'strerror', None) or error}") from None
    return manifest


def _check(site: Site, out: Path | BinaryIO) -> None:
    refuse_root_elsewhere(site.data)
    memory = site.data / MEMORY
    if not memory.exists():
        raise _never_ran(site)
    refuse_another(site.data, site.config.site)
    if (mark := read_mark(memory)) is not None and mark.report is None:
        raise _damaged(site, mark.reason)
    if not isinstance(out, Path):
        return
    if os.path.lexists(out):
        raise ConfigError(f"--out {out} exists already: a backup is written to a new name")
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no folder {out.parent}")
    if out.resolve().is_relative_to(site.data.resolve()):
        raise ConfigError(f"--out {out} lies in the site's own folder: a backup belongs on another disk")


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder on the disk that the backup goes to."""
    work = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    work.mkdir(mode=0o700)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _inside(data: Path) -> Iterator[Path]:
    """A folder of the site's own, of one backup at a time; what one that was killed left there is gone."""
    work = data / WORK
    work.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RetryableError(f"{work}: another backup is made now") from None
        for left in work.iterdir():
            left.unlink()
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        os.close(fd)


def _copy(site: Site, target: Path) -> Copied:
    """The memory, looked through: a backup that could not be restored is worth nothing."""
    try:
        copied = copy_memory(site.data / MEMORY, target)
    except ValueError:
        raise _never_ran(site) from None
    with reading(target) as connection:
        found = damage(connection)
    if found:
        raise _damaged(site, f"{found[0].epoch}:{found[0].lane}:{found[0].seq} {found[0].what}")
    return copied


def _never_ran(site: Site) -> ConfigError:
    why = f"{site.data}: there is nothing to back up: this site never ran"
    if not site.identity.is_dir():
        return ConfigError(why)
    own = "it has joined its hub, and its keys are there: run it once, then back it up"
    return ConfigError(f"{why}; {own}, or copy {site.data} itself, guarded as a key")


def _damaged(site: Site, why: str) -> RejectedError:
    return RejectedError(
        f"{site.data / MEMORY} is damaged ({why}): restart the site, which mends what can be mended, then back it up"
    )


def _files(
    stack: ExitStack, site: Site, memory: Path, site_file: Path | None, with_models: bool
) -> Mapping[str, BinaryIO]:
    """Everything, open until the stack ends, the memory first."""
    files: dict[str, BinaryIO] = {MEMORY: stack.enter_context(memory.open("rb"))}
    files |= contents.notes_of(stack, site.data, memory.parent)
    files |= contents.trust_of(site.data) | contents.hold_of(site.data)
    if site_file is not None:
        files |= contents.identity_of(site.data) | contents.site_file(site_file)
    if with_models:
        files |= contents.models_of(stack, site.data, memory)
    return files


def _check_models(entries: Mapping[str, Entry]) -> None:
    for name, entry in entries.items():
        if name.startswith("blobs/") and name != f"blobs/{entry.sha256}":
            what = f"artifact {name[6:18]} is damaged on this disk: restart the site, which fetches it anew"
            raise RejectedError(f"{what}, or leave the models out (--no-models)")


def _manifest(
    site: Site,
    copied: Copied,
    memory: Path,
    entries: Mapping[str, Entry],
    now_us: int,
    with_identity: bool,
    with_models: bool,
) -> Manifest:
    name = site.config.site
    about = f"Backup of site {name}: all that it remembers, "
    if with_identity:
        about += f"and ITS PRIVATE KEYS: who has this file can be {name}. Guard it as you guard a key."
    else:
        about += "and no key or password of it."
    left_out = dict(contents.LEFT_OUT)
    if not with_identity:
        left_out |= contents.NO_IDENTITY
    if not with_models:
        left_out |= contents.NO_MODELS
    return Manifest(
        format=1,
        about=about,
        kit=version("edge-agent-kit"),
        site=name,
        at_us=now_us,
        schema_version=copied.schema_version,
        records=copied.rows,
        epoch=copied.epoch,
        ends=dict(copied.ends),
        release=contents.active_release(memory),
        holds_key=with_identity,
        left_out=left_out,
        files=dict(entries),
    )


def _write(path: Path, manifest: Manifest, files: Mapping[str, BinaryIO]) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        archive.write(file, manifest, files)
        file.flush()
        os.fsync(file.fileno())
