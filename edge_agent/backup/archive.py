"""The file of a backup: a tar in zstd, `manifest.json` first, then just the files that it names, in its order.

A reader trusts none of it: every header has to be the very bytes that follow from a name and a size of the manifest,
and every file what its sha256 says; so links, foreign paths, a file too many and a torn end are all one refusal.
Nothing is unpacked that the manifest did not announce, and that was not allowed then. `tar --zstd` unpacks it too.
"""

import hashlib
import re
import tarfile
from collections.abc import Callable, Mapping
from typing import Annotated, BinaryIO, Literal, Protocol

from backports.zstd import CompressionParameter, ZstdError, ZstdFile
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_models.errors import RejectedError, RetryableError
from edge_sync.rows import Lane

MANIFEST, MEMORY, NOTES, SITE_FILE = "manifest.json", "memory.db", "notes.db", "site.yaml"

MAX_MANIFEST_BYTES = 1024 * 1024
MAX_FILES = 2_000
MAX_FILE_BYTES = 8 * 1024**3 - 1
"""What a header of a tar can say (POSIX.1-1988, ustar)."""

_BLOCK_BYTES = 512
_END = bytes(2 * _BLOCK_BYTES)
_PIECE_BYTES = 1024 * 1024
_LEVEL = 3

_WORD = r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,60}"
_NAMES = re.compile(
    rf"memory\.db|notes\.db|site\.yaml|journal\.key|update/hold|identity/{_WORD}|trust/floor|trust/(mirror|metadata)/{_WORD}"
    rf"|trust/metadata/root_history/{_WORD}|blobs/[0-9a-f]{{64}}"
)
"""All that a backup may hold; a path into other places is none of them."""


Plain = Annotated[str, Field(pattern=r"^[ -~]{0,1000}$")]
"""Shown to a person on a terminal."""


class Entry(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """What a backup says of itself."""

    model_config = ConfigDict(frozen=True)
    format: Literal[1]
    about: Plain
    """For a person: whose it is, and whether it holds a key."""
    kit: Plain
    """The version of edge-agent-kit that made it."""
    site: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")]
    at_us: Annotated[int, Field(ge=0, lt=2**53)]
    schema_version: int
    """Of its memory."""
    records: Annotated[int, Field(ge=0)]
    epoch: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    """The newest in its memory; `ends` are the last numbers of its lanes there."""
    ends: dict[Lane, int]
    release: int | None
    """The active one; None where the site file's runs."""
    holds_key: bool
    left_out: dict[Plain, Plain]
    """What of a site's folder is not in it, and why."""
    files: dict[str, Entry]

    def size_bytes(self) -> int:
        """All files together."""
        return sum(entry.size for entry in self.files.values())


class Reader(Protocol):
    """As far as a stream has to be read."""

    def read(self, size: int = -1, /) -> bytes: ...


def digest(file: BinaryIO) -> Entry:
    """Size and sha256 of an open file, from its beginning; it stands at its beginning again then.

    Raises `RejectedError` where it is larger than a backup can hold.
    """
    file.seek(0)
    h, size = hashlib.sha256(), 0
    while piece := file.read(_PIECE_BYTES):
        h.update(piece)
        size += len(piece)
    file.seek(0)
    if size > MAX_FILE_BYTES:
        raise RejectedError(f"{file.name}: {size} bytes: a backup holds at most {MAX_FILE_BYTES} of one file")
    return Entry(size=size, sha256=h.hexdigest())


def write(out: BinaryIO, manifest: Manifest, files: Mapping[str, BinaryIO]) -> None:
    """Write a backup of these open files, which the manifest names. Raises `RetryableError` where one has changed."""
    said = manifest.model_dump_json(indent=1).encode() + b"\n"
    with ZstdFile(
        out, "wb", options={CompressionParameter.compression_level: _LEVEL, CompressionParameter.checksum_flag: 1}
    ) as packed:
        packed.write(_header(MANIFEST, len(said)) + said + bytes(_padding(len(said))))
        for name, entry in manifest.files.items():
            packed.write(_header(name, entry.size))
            h, left = hashlib.sha256(), entry.size
            while left and (piece := files[name].read(min(left, _PIECE_BYTES))):
                h.update(piece)
                packed.write(piece)
                left -= len(piece)
            if left or h.hexdigest() != entry.sha256:
                raise RetryableError(f"backup: {name} changed while it was read: try again")
            packed.write(bytes(_padding(entry.size)))
        packed.write(_END)


def read(
    source: BinaryIO,
    called: str,
    check: Callable[[Manifest], None],
    take: Callable[[str], BinaryIO | None],
) -> Manifest:
    """Read a backup to its end, verified. `check` may refuse its manifest; `take` gives where a file's bytes go.

    What `take` gives is closed here. Raises `RejectedError`, naming it as `called`, for any other bytes; what was taken
    by then is worth nothing. And what `check` and `take` raise.
    """
    try:
        with ZstdFile(source, "rb") as packed:
            manifest = _manifest(packed)
            check(manifest)
            for name, entry in manifest.files.items():
                if _exactly(packed, _BLOCK_BYTES) != _header(name, entry.size):
                    raise RejectedError(f"{name} does not come where {MANIFEST} says")
                _take(packed, name, entry, take(name))
            if _exactly(packed, len(_END)) != _END or packed.read(1):
                raise RejectedError(f"it does not end where {MANIFEST} says")
    except (EOFError, ZstdError) as error:
        raise RejectedError(f"backup {called}: no backup of a site, or not a whole one: {error}") from None
    except RejectedError as error:
        raise RejectedError(f"backup {called}: {error}") from None
    return manifest


def _manifest(packed: Reader) -> Manifest:
    block = _exactly(packed, _BLOCK_BYTES)
    try:
        size = int(block[124:135], 8)
    except ValueError:
        size = MAX_MANIFEST_BYTES + 1
    if size > MAX_MANIFEST_BYTES or block != _header(MANIFEST, size):
        raise RejectedError(f"it is no backup of a site: it does not begin with {MANIFEST}")
    said = _exactly(packed, size)
    if any(_exactly(packed, _padding(size))):
        raise RejectedError(f"{MANIFEST} is not padded with zeros")
    try:
        manifest = Manifest.model_validate_json(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise RejectedError(f"{MANIFEST}: {where or 'document'}: {first['msg']}") from None
    if MEMORY not in manifest.files:
        raise RejectedError(f"{MANIFEST} names no {MEMORY}")
    if len(manifest.files) > MAX_FILES:
        raise RejectedError(f"{MANIFEST} names {len(manifest.files)} files, the most is {MAX_FILES}")
    for name, entry in manifest.files.items():
        if not _NAMES.fullmatch(name):
            raise RejectedError(f"{MANIFEST} names {name[:80]!r}, which belongs to no site's folder")
        if name.startswith("blobs/") and name != f"blobs/{entry.sha256}":
            raise RejectedError(f"{MANIFEST}: {name} has another sha256")
    return manifest


def _take(packed: Reader, name: str, entry: Entry, into: BinaryIO | None) -> None:
    h, left = hashlib.sha256(), entry.size
    try:
        while left:
            piece = _exactly(packed, min(left, _PIECE_BYTES))
            h.update(piece)
            if into is not None:
                into.write(piece)
            left -= len(piece)
    finally:
        if into is not None:
            into.close()
    if h.hexdigest() != entry.sha256:
        raise RejectedError(f"{name} is not what {MANIFEST} says: its bytes were changed")
    if any(_exactly(packed, _padding(entry.size))):
        raise RejectedError(f"{name} is not padded with zeros")


def _exactly(packed: Reader, size: int) -> bytes:
    """So many bytes. Raises `EOFError`."""
    parts, left = list[bytes](), size
    while left:
        piece = packed.read(left)
        if not piece:
            raise EOFError("it ends in the middle")
        parts.append(piece)
        left -= len(piece)
    return b"".join(parts)


def _padding(size: int) -> int:
    return -size % _BLOCK_BYTES


def _header(name: str, size: int) -> bytes:
    """For its owner's eyes alone, also where `tar` unpacks it."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
