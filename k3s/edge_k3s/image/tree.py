"""What lies in an image: paths and what is at each, and the tar of them with exactly one byte form.

Paths have no slash in front. Folders above a path need no mention. Owners, times and modes of whoever built it are
nowhere: everything is root's, readable by all and writable by nobody else, but for folders that say otherwise.
"""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

AT_S = 1_580_601_600
"""The one time of every file, 2020-02-02: not when it was built, or an update would move every layer."""


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    data: bytes = field(repr=False)
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that is more than the place of what is in it."""

    mode: int = 0o755
    owner: int = 0
    """User and group."""


Entry = File | Link | Folder
Tree = Mapping[str, Entry]


def pack(tree: Tree) -> bytes:
    """The tar (POSIX.1-2001) of this tree, in sorted order."""
    whole: dict[str, Entry] = {str(above): Folder() for path in tree for above in PurePosixPath(path).parents}
    whole.pop(".", None)
    whole |= tree
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        # By parts, so that a folder comes before what is in it whatever other names begin like its own.
        for path in sorted(whole, key=lambda path: path.split("/")):
            entry = whole[path]
            archive.addfile(_member(path, entry), io.BytesIO(entry.data) if isinstance(entry, File) else None)
    return stream.getvalue()


def _member(path: str, entry: Entry) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.mtime = AT_S
    match entry:
        case File():
            member.size, member.mode = len(entry.data), 0o755 if entry.executable else 0o644
        case Link():
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.target, 0o777
        case Folder():
            member.type, member.mode, member.uid, member.gid = tarfile.DIRTYPE, entry.mode, entry.owner, entry.owner
    return member
