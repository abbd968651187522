"""Files that appear in a folder, each an observation: a JSON object, or a picture.

A file stays where it is until the journal has it, so a crash reads it again rather than losing it. Write to a name
that begins with a dot, then rename: the file is then taken at once; else when it has not changed for a second.
"""

import hashlib
import logging
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from edge_agent.records import Json, Malformed, Observation
from edge_agent.sources.base import SourceContext
from edge_agent.sources.decode import MAX_MESSAGE_BYTES, excerpt, read_object
from edge_models.errors import ConfigError, RejectedError
from edge_models.pictures import MAX_PICTURE_BYTES, decode_picture, require_pillow
from edge_sync.yamlfile import validate

log = logging.getLogger(__name__)

STABLE_S = 1.0
"""A file that was not renamed into place is whole when it has not changed for this long."""

POLL_S = 0.1
"""Between two looks into the folder. A file that was renamed into place is whole when two looks agree on it."""

MAX_SEEN = 10_000
"""Files looked at in one look; the others have their turn when these are gone."""

MAX_TAKEN_BYTES = 64 * 1024 * 1024
"""Decoded pictures handed over at once, whatever number the agent asks for; one is always possible."""

_DONE, _BAD = "done", "bad"


class FolderOptions(BaseModel):
    """Options of a `folder` source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: Path
    pattern: str
    """Of file names, as in ``*.json``; names that begin with a dot never match."""
    take: Literal["json", "image"]
    after: Literal["delete", "move"]
    """What becomes of a file that was taken: nothing left of it, or moved into ``done/``."""

    @field_validator("pattern")
    @classmethod
    def _names_only(cls, value: str) -> str:
        if not value or "/" in value:
            raise ValueError("a pattern is of file names, without a folder, as in *.json")
        return value


@dataclass(frozen=True, slots=True)
class _Identity:
    """What a file is recognised by: as long as all of it is the same, nobody has touched the file."""

    inode: int
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "_Identity":
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class _Taken:
    name: str
    identity: _Identity
    good: bool


class FolderSource:
    """Takes the files of one folder, not of those below it, in the order of their names; follows no symlink."""

    def __init__(self, options: Mapping[str, Any], context: SourceContext) -> None:
        self._options = validate(FolderOptions, options, f"agent {context.agent!r}: source folder")
        self._folder = context.base / self._options.path
        self._now_us = context.now_us
        if self._options.take == "image":
            require_pillow()
        self._seen: dict[str, tuple[_Identity, float]] = {}
        self._taken: dict[str, _Taken] = {}
        self._stuck: set[str] = set()

    def start(self) -> None:
        """Make the folders for what was taken. Raises `ConfigError` where the folder can't be used."""
        wanted = [self._folder, self._folder / _BAD]
        if self._options.after == "move":
            wanted.append(self._folder / _DONE)
        try:
            for folder in wanted[1:]:
                folder.mkdir(exist_ok=True)
                if folder.is_symlink():
                    raise ConfigError(f"folder {folder}: a symbolic link, which may lead anywhere; wanted a folder")
            os.scandir(self._folder).close()
            if not os.access(self._folder, os.W_OK | os.X_OK):
                raise ConfigError(f"folder {self._folder}: not writable, so what was taken could not be put away")
        except OSError as error:
            raise ConfigError(f"folder {self._folder}: {error.strerror}") from None

    def take(self, most: int, timeout_s: float) -> list[Observation | Malformed]:
        """Wait up to `timeout_s` until a file is whole, then return those that are, `most` at the most."""
        until = time.monotonic() + timeout_s
        while True:
            whole = self._whole(time.monotonic())
            if whole:
                return self._read_all(whole[:most])
            left_s = until - time.monotonic()
            if left_s <= 0:
                return []
            time.sleep(min(POLL_S, left_s))

    def done(self) -> None:
        """Delete or move what was taken, except what somebody has replaced since: that is a new file.

        What can't be put away is tried again with the next `done`, and not taken a second time.
        """
        for name, taken in list(self._taken.items()):
            path = self._folder / name
            try:
                if _Identity.of(path.lstat()) == taken.identity:
                    self._put_away(path, taken.good)
            except FileNotFoundError:
                pass  # somebody took it away: then it is not there, which is what we want
            except OSError as error:
                if name not in self._stuck:
                    where = {"folder": str(self._folder), "file": _shown(name)}
                    log.warning("file_not_put_away", extra={**where, "reason": error.strerror})
                    self._stuck.add(name)
                continue
            del self._taken[name]
            self._stuck.discard(name)

    def dropped(self) -> int:
        """None, ever: files wait."""
        return 0

    def exhausted(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Forget what was taken and not done; it is taken again after the next start."""
        self._taken.clear()
        self._seen.clear()

    def _whole(self, now_s: float) -> list[tuple[str, _Identity]]:
        """The files nobody is still writing to, by name."""
        seen: dict[str, tuple[_Identity, float]] = {}
        whole = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if len(seen) >= MAX_SEEN:
                    break
                if entry.name.startswith(".") or not fnmatchcase(entry.name, self._options.pattern):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                identity = _Identity.of(status)
                if not stat.S_ISREG(status.st_mode) or self._is_taken(entry.name, identity):
                    continue
                before, since_s = self._seen.get(entry.name, (None, now_s))
                seen[entry.name] = (identity, since_s if before == identity else now_s)
                if now_s - seen[entry.name][1] >= (POLL_S if _renamed(status) else STABLE_S):
                    whole.append((entry.name, identity))
        self._seen = seen
        return sorted(whole, key=lambda found: found[0])

    def _is_taken(self, name: str, identity: _Identity) -> bool:
        taken = self._taken.get(name)
        return taken is not None and taken.identity == identity

    def _read_all(self, whole: list[tuple[str, _Identity]]) -> list[Observation | Malformed]:
        results: list[Observation | Malformed] = []
        size_bytes = 0
        for name, identity in whole:
            result = self._read(name, identity)
            if result is None:
                continue
            results.append(result)
            self._taken[name] = _Taken(name, identity, isinstance(result, Observation))
            if isinstance(result, Observation):
                size_bytes += sum(array.nbytes for array in result.arrays.values())
            if size_bytes >= MAX_TAKEN_BYTES:
                break
        return results

    def _read(self, name: str, identity: _Identity) -> Observation | Malformed | None:
        """The file's observation; None where it is another file by now, which the next look finds."""
        most_bytes = MAX_MESSAGE_BYTES if self._options.take == "json" else MAX_PICTURE_BYTES
        data = b""
        try:
            if identity.size_bytes > most_bytes:
                raise RejectedError(f"{identity.size_bytes} bytes, the most is {most_bytes}")
            # Not blocking and no link: between the look and now, the name may have become anything.
            handle = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                data = file.read(identity.size_bytes)
                if _Identity.of(os.fstat(handle)) != identity:
                    return None
            return self._observation(name, data)
        except RejectedError as error:
            shown = excerpt(data) if self._options.take == "json" else ""  # of a picture nothing is recorded
            return Malformed(f"file {_shown(name)}: {error}", self._now_us(), "folder", shown)
        except FileNotFoundError:
            return None
        except OSError as error:
            return Malformed(f"file {_shown(name)}: {error.strerror}", self._now_us(), "folder")

    def _observation(self, name: str, data: bytes) -> Observation:
        if self._options.take == "json":
            return Observation({**read_object(data), "_file": _shown(name)}, self._now_us(), "folder")
        picture = decode_picture(data)
        values: dict[str, Json] = {
            "_file": _shown(name),
            "_size_bytes": len(data),
            "_sha256": hashlib.sha256(data).hexdigest(),
            "height": picture.shape[0],
            "width": picture.shape[1],
        }
        return Observation(values, self._now_us(), "folder", {"image": picture})

    def _put_away(self, path: Path, good: bool) -> None:
        if good and self._options.after == "delete":
            path.unlink()
            return
        target = self._folder / (_DONE if good else _BAD) / path.name
        while os.path.lexists(target):  # a camera may give every picture the same name
            target = target.with_name(f"{path.name}.{self._now_us()}")
        path.rename(target)


def _shown(name: str) -> str:
    """A file's name as text: a name is bytes to the system, and they need not be UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


def _renamed(status: os.stat_result) -> bool:
    """Whether the last thing that happened to a file was no writing: its inode was changed after its content.

    Other things than a rename do that, a chmod for one: hence the second look.
    """
    return status.st_size > 0 and status.st_ctime_ns > status.st_mtime_ns
