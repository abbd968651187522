"""The fixed part of a delta: which base it is for, and where its four parts are. The format: models/DELTA.md."""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_models.errors import RejectedError

Bytes = NDArray[np.uint8]
"""A file, or a part of one."""

PIECE_BYTES = 256 * 1024
"""What is worked on at a time, on either side: the memory that does not grow with the files."""

WINDOW_LOG = 20
"""Of every part's zstd frame, log2 of bytes: a reader gives each of them 1 MiB and refuses one that asks for more.

More buys nothing: what repeats at a distance is a range of the base.
"""

MAX_RANGES = 65_536
"""Rows of the table of ranges."""

ROW = np.dtype([("literal", "<u4"), ("copied", "<u4"), ("start", "<u4")])
"""So many literal bytes, then so many of the base from there."""

RUN = 255
"""In the gaps: so many bytes without a change, and none after them. A smaller number is followed by a change."""

_HEADER = struct.Struct("<8s32s4I")
_MAGIC = b"edgedlt1"


@dataclass(frozen=True, slots=True)
class Parts:
    """A delta, taken apart; each part is one zstd frame."""

    base_sha256: bytes
    ranges: bytes | memoryview
    literals: bytes | memoryview
    gaps: bytes | memoryview
    steps: bytes | memoryview

    def to_bytes(self) -> bytes:
        """The delta."""
        parts = (self.ranges, self.literals, self.gaps, self.steps)
        return b"".join([_HEADER.pack(_MAGIC, self.base_sha256, *map(len, parts)), *parts])

    @classmethod
    def from_bytes(cls, delta: bytes) -> "Parts":
        """The parts, not looked at. Raises `RejectedError` unless they fill the delta."""
        if len(delta) < _HEADER.size:
            raise RejectedError("delta: it is truncated")
        magic, base_sha256, *sizes = _HEADER.unpack_from(delta)
        if magic != _MAGIC:
            raise RejectedError("delta: it is none, or of a later kit")
        if _HEADER.size + sum(sizes) != len(delta):
            raise RejectedError(f"delta: {len(delta)} bytes, where its header names {_HEADER.size + sum(sizes)}")
        parts, at = [], _HEADER.size
        for size in sizes:
            parts.append(memoryview(delta)[at : at + size])
            at += size
        return cls(base_sha256, *parts)
