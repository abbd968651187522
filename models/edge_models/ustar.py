"""A tar with exactly one byte form: regular files in sorted order, and headers of nothing but name and size.

Source: POSIX.1-1988 ustar. Because every other byte follows from the names and contents, a reader can compare
instead of trust: links, directories, long-name extensions, owners, times and stray padding are all refused.
"""

import tarfile
from collections.abc import Mapping

from edge_models.errors import RejectedError

BLOCK_BYTES = 512
END = bytes(2 * BLOCK_BYTES)

MAX_MEMBERS = 1024
"""Files in one archive; a bundle needs about ten."""


def pack(files: Mapping[str, bytes]) -> bytes:
    """The archive of these files."""
    parts: list[bytes] = []
    for name in sorted(files):
        parts += [_header(name, len(files[name])), files[name], bytes(_padding(len(files[name])))]
    return b"".join([*parts, END])


def unpack(archive: bytes) -> dict[str, memoryview]:
    """Name → content of an archive that `pack` could have made; nothing is copied.

    Raises `RejectedError` for any other bytes.
    """
    view = memoryview(archive)
    files: dict[str, memoryview] = {}
    last, at = "", 0
    while archive[at : at + len(END)] != END:
        name, size = _parse(archive[at : at + BLOCK_BYTES])
        if name <= last:
            raise RejectedError(f"member {name!r} is not in sorted order")
        start, end = at + BLOCK_BYTES, at + BLOCK_BYTES + size
        at = end + _padding(size)
        if at > len(archive):
            raise RejectedError(f"member {name!r} is truncated")
        if any(view[end:at]):
            raise RejectedError(f"member {name!r} is not padded with zeros")
        if len(files) == MAX_MEMBERS:
            raise RejectedError(f"more than {MAX_MEMBERS} members")
        files[name] = view[start:end]
        last = name
    if at + len(END) != len(archive):
        raise RejectedError("there are bytes after its end")
    return files


def _padding(size: int) -> int:
    return -size % BLOCK_BYTES


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _parse(block: bytes) -> tuple[str, int]:
    """The name and size in a header block, which must be the very block `_header` makes of them."""
    if len(block) < BLOCK_BYTES:
        raise RejectedError("it is truncated, or not a tar archive")
    try:
        name = block[:100].rstrip(b"\0").decode("ascii")
        size = int(block[124:135], 8)
        genuine = _header(name, size) == block
    except ValueError:
        genuine = False
    if not genuine:
        raise RejectedError("it holds a block that is not the plain ustar header of a regular file")
    return name, size
