"""What of a site's folder belongs into its backup, beside its memory; and what does not, and why."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from edge_agent.backup.archive import NOTES, SITE_FILE
from edge_agent.backup.room import is_full
from edge_agent.config import IDENTITY
from edge_agent.enrol.identity import ABOUT, CA, CERTIFICATE, KEY
from edge_agent.memory.checkpoint import KEY_FILE
from edge_agent.memory.schema import reading
from edge_agent.update.slots import read_slot
from edge_agent.update.wishes import HOLD
from edge_models.errors import ConfigError, RejectedError, RetryableError
from edge_sync.trust.paths import MAX_FILE_BYTES

LEFT_OUT = {
    "blobs/*.part": "chunks on their way: the hub sends them again",
    "prepared": "graphs made for this very machine: the site makes them anew",
    "sources": "what sources of others keep for themselves",
    "notes.bundle": "the model that finds notes: name it again with --model",
    "memory.damaged-*, memory.replaced-*": "memories that were set aside",
}
NO_MODELS = {"blobs": "asked for: the hub sends the release again, and until then the site file's runs"}
NO_IDENTITY = {
    f"{IDENTITY}, {KEY_FILE}": "not asked for: a new join token gives the site another certificate and key",
    SITE_FILE: "not asked for: it comes with the kit",
}

MAX_SMALL_BYTES = MAX_FILE_BYTES
"""Of trust metadata, a certificate, a site file."""

_TRIES = 20


def trust_of(data: Path) -> dict[str, BinaryIO]:
    """What the site verified of who may say what runs, by name: without it, older words could count again.

    `root.json` is a link to the newest root, which comes back by itself.
    """

    def files() -> Iterator[Path]:
        folder = data / "trust"
        yield folder / "floor"
        for below in ("mirror", "metadata", "metadata/root_history"):
            yield from sorted((folder / below).glob("*.json"))

    return _stable(data, files)


def identity_of(data: Path) -> dict[str, BinaryIO]:
    """The site's keys and its certificate, as far as it has them."""
    return _stable(
        data, lambda: iter([*(data / IDENTITY / name for name in (KEY, CERTIFICATE, CA, ABOUT)), data / KEY_FILE])
    )


def hold_of(data: Path) -> dict[str, BinaryIO]:
    """That somebody at the site wants nothing new, where that is so."""
    return _stable(data, lambda: iter([data / "update" / HOLD]))


def site_file(file: Path) -> dict[str, BinaryIO]:
    """The site file. Raises `ConfigError`."""
    try:
        return {SITE_FILE: BytesIO(file.read_bytes())}
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None


def notes_of(stack: ExitStack, data: Path, work: Path) -> dict[str, BinaryIO]:
    """What people noted at the site, where they did, copied into `work`, open until the stack ends: no hub has it.

    Raises `RejectedError` where the file can't be read, `sqlite3.Error` where there is no room for the copy. They are
    few: one state of it is soon copied.
    """
    if not (data / NOTES).exists():
        return {}
    uri = f"{(data / NOTES).resolve().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5)) as db:
            db.execute("VACUUM INTO ?", (str(work / NOTES),))
    except sqlite3.Error as error:
        if is_full(error):
            raise
        raise RejectedError(f"{data / NOTES}: can't be read ({error}): mend it, or move it away") from None
    return {NOTES: stack.enter_context((work / NOTES).open("rb"))}


def models_of(stack: ExitStack, data: Path, memory: Path) -> dict[str, BinaryIO]:
    """Every artifact of the releases in the slots of this memory, open until the stack ends: the site may drop one.

    Raises `RetryableError` where one is not there any more.
    """
    with reading(memory) as connection:
        slots = [slot for name in ("active", "previous") if (slot := read_slot(connection, name)) is not None]
    found: dict[str, BinaryIO] = {}
    for slot in slots:
        for name in sorted(each.removeprefix("sha256:") for each in slot.release.artifacts):
            if f"blobs/{name}" in found:
                continue
            try:
                found[f"blobs/{name}"] = stack.enter_context((data / "blobs" / name).open("rb"))
            except OSError as error:
                if not slot.generation:  # what the site file names comes with the kit
                    continue
                what = f"backup: artifact {name[:12]} of release {slot.release.release}: {error.strerror}"
                raise RetryableError(f"{what}: try again, or leave the models out (--no-models)") from None
    return found


def active_release(memory: Path) -> int | None:
    """The number of the active release, None where the site file's runs."""
    with reading(memory) as connection:
        slot = read_slot(connection, "active")
    return slot.release.release if slot is not None and slot.generation else None


def _stable(data: Path, files: Callable[[], Iterator[Path]]) -> dict[str, BinaryIO]:
    """These small files by name, as far as they are there, as they were at one moment: the site may replace them.

    Raises `RetryableError` where it does so all the time.
    """
    before: dict[str, bytes] | None = None
    for _ in range(_TRIES):
        now = dict(_read(data, files()))
        if now == before:
            return {name: BytesIO(content) for name, content in now.items()}
        before = now
    raise RetryableError(f"backup: {data} changes all the time: try again")


def _read(data: Path, files: Iterator[Path]) -> Iterator[tuple[str, bytes]]:
    for path in files:
        if path.is_symlink():
            continue
        with suppress(FileNotFoundError):
            if path.stat().st_size > MAX_SMALL_BYTES:
                raise ConfigError(f"{path}: {os.path.getsize(path)} bytes: it is none of a site's")
            yield path.relative_to(data).as_posix(), path.read_bytes()
