"""A set of trust metadata as one message: what a broker keeps for sites, a USB stick carries, and a hub is handed.

Whoever owns the link may have made it: here it is only bounded and named; `edge_sync.trust.client` verifies it.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec
from backports import zstd

from edge_models.errors import RejectedError
from edge_sync.trust.paths import MAX_FILE_BYTES, MAX_FILES, MAX_PACKED_BYTES, MAX_SET_BYTES

MAGIC = b"ET1"
_NAME = re.compile(r"(?:[1-9][0-9]{0,15}\.(root|snapshot|targets|models|policies|agents)|timestamp)\.json")

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decoder = msgspec.msgpack.Decoder(dict[str, bytes])


def pack(files: Mapping[str, bytes]) -> bytes:
    """Files by name, as one message. Raises `RejectedError` beyond the limits."""
    check(files)
    packed = MAGIC + zstd.compress(_encode(dict(files)), level=9)
    if len(packed) > MAX_PACKED_BYTES:
        raise RejectedError(f"trust metadata: {len(packed)} bytes packed, the most is {MAX_PACKED_BYTES}")
    return packed


def unpack(message: bytes) -> dict[str, bytes]:
    """The files in a message, by name; none of them is verified. Raises `RejectedError` and nothing else."""
    if len(message) > MAX_PACKED_BYTES:
        raise RejectedError(f"trust metadata: {len(message)} bytes packed, the most is {MAX_PACKED_BYTES}")
    if message[:3] != MAGIC:
        raise RejectedError("trust metadata: does not begin as a set of it does")
    decompressor = zstd.ZstdDecompressor()
    try:
        raw = decompressor.decompress(message[3:], max_length=MAX_SET_BYTES + 1)
        if len(raw) > MAX_SET_BYTES:
            raise RejectedError(f"trust metadata: over {MAX_SET_BYTES} bytes unpacked")
        if not decompressor.eof or decompressor.unused_data:
            raise RejectedError("trust metadata: is not whole")
        if (count := _count(raw)) > MAX_FILES:
            raise RejectedError(f"trust metadata: {count} files, the most is {MAX_FILES}")
        files = _decoder.decode(raw)
    except (zstd.ZstdError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RejectedError(f"trust metadata: {error}") from None
    check(files)
    return files


def _count(raw: bytes) -> int:
    """Entries that a msgpack map says it has, before any is made; 0 where it is none (the decoder says so)."""
    if raw[:1] == b"\xde":
        return int.from_bytes(raw[1:3], "big")
    if raw[:1] == b"\xdf":
        return int.from_bytes(raw[1:5], "big")
    return 0


def versions_of(names: Iterable[str]) -> dict[str, int]:
    """Role → the highest version among these file names; the timestamp's has none in its name."""
    found: dict[str, int] = {}
    for name in names:
        if (match := _NAME.fullmatch(name)) is not None and match[1] is not None:
            found[match[1]] = max(int(name.partition(".")[0]), found.get(match[1], 0))
    return found


def check(files: Mapping[str, bytes]) -> None:
    """Raises `RejectedError` for a name that is none of this metadata's, and beyond the limits."""
    if len(files) > MAX_FILES:
        raise RejectedError(f"trust metadata: {len(files)} files, the most is {MAX_FILES}")
    for name, data in files.items():
        if not _NAME.fullmatch(name):
            raise RejectedError(f"trust metadata: {name[:80]!r} is no name of it")
        if len(data) > MAX_FILE_BYTES:
            raise RejectedError(f"trust metadata: {name}: {len(data)} bytes, the most is {MAX_FILE_BYTES}")
    if sum(map(len, files.values())) > MAX_SET_BYTES:
        raise RejectedError(f"trust metadata: over {MAX_SET_BYTES} bytes together")
