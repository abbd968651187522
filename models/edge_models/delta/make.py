"""A delta between two bundles: literals, ranges of the base, and what to add to the bytes of those that changed.

Retrained weights, once quantized, mostly differ by nothing and sometimes by one step. So the distances between
changes are written, and the changes, each in a zstd frame of its own: two short alphabets without context, which
is what its entropy coder is best at. The format: models/DELTA.md.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from backports import zstd
from numpy.typing import NDArray

from edge_models.bundle import MAX_BUNDLE_BYTES
from edge_models.delta.align import Match, align
from edge_models.delta.form import MAX_RANGES, PIECE_BYTES, ROW, RUN, WINDOW_LOG, Bytes, Parts

WORTH = 0.9
"""A delta larger than this share of the whole isn't sent: it costs the site work and saves next to nothing."""

_LEVEL = 9
"""zstd's. Source: measured, models/DELTA.md."""

_GAPS_LEVEL = 1
"""Of the gaps: searching longer finds short repetitions, which cost more than the numbers they stand for."""

_BLOCK_BYTES = 2048
"""In a matched range so many bytes at a time are copied and changed, or sent as they are."""

_ROW_BITS = 8 * ROW.itemsize

_C_LOG_C = np.array([0.0, *(count * np.log2(count) for count in range(1, _BLOCK_BYTES + 1))])


_Lengths = NDArray[np.int64]


def make_delta(base: bytes, target: bytes) -> bytes | None:
    """What `apply_delta` turns `base` into `target` with, or None where it would save less than a tenth.

    The same files, bundles or any others, give the same bytes with the same zstd. Memory: twice the delta and less
    than 128 MiB. None, too, where a file is larger than a bundle may be.
    """
    if max(len(base), len(target)) > MAX_BUNDLE_BYTES:
        return None
    old, new = np.frombuffer(base, np.uint8), np.frombuffer(target, np.uint8)
    copies = _copies(old, new)
    if len(copies) >= MAX_RANGES:
        return None
    ranges, literals, at = [], _Packer(_LEVEL), 0
    for copy in [*copies, Match(len(new), len(new), -len(new))]:
        literals.add(new[at : copy.first])
        ranges.append((copy.first - at, copy.end - copy.first, copy.first + copy.shift))
        at = copy.end
    gaps, steps = _Packer(_GAPS_LEVEL), _Packer(_LEVEL)
    for lengths, changes in _changes(old, new, copies):
        gaps.add(_gaps(lengths))
        steps.add(changes)
    table = _Packer(_LEVEL)
    table.add(np.array(ranges, ROW).view(np.uint8))
    parts = Parts(hashlib.sha256(base).digest(), table.end(), literals.end(), gaps.end(), steps.end())
    delta = parts.to_bytes()
    return delta if len(delta) < WORTH * len(target) else None


class _Packer:
    """A zstd frame in the making; what went in is not kept."""

    def __init__(self, level: int) -> None:
        options: dict[int, int] = {
            zstd.CompressionParameter.compression_level: level,
            zstd.CompressionParameter.window_log: WINDOW_LOG,
        }
        self._compressor = zstd.ZstdCompressor(options=options)
        self._packed: list[bytes] = []

    def add(self, data: Bytes) -> None:
        for at in range(0, len(data), PIECE_BYTES):
            self._packed.append(self._compressor.compress(data[at : at + PIECE_BYTES].data))

    def end(self) -> bytes:
        packed = b"".join([*self._packed, self._compressor.flush()])
        self._packed.clear()
        return packed


def _copies(old: Bytes, new: Bytes) -> list[Match]:
    """The ranges that it pays to copy and to change, in order."""
    copies: list[Match] = []
    for copy in _paying(old, new):
        if copies and copies[-1].end == copy.first and copies[-1].shift == copy.shift:
            copies.append(Match(copies.pop().first, copy.end, copy.shift))
        else:
            copies.append(copy)
    return copies


def _paying(old: Bytes, new: Bytes) -> Iterator[Match]:
    for match in align(old, new):
        for at in range(match.first, match.end, PIECE_BYTES):
            end = min(at + PIECE_BYTES, match.end)
            fresh = new[at:end]
            changes = fresh - old[at + match.shift : end + match.shift]
            pays = _bits(changes) <= _bits(fresh) + _ROW_BITS
            edges = np.flatnonzero(np.diff(pays, prepend=False, append=False)).tolist()
            for low, high in zip(edges[::2], edges[1::2], strict=True):
                yield Match(at + low * _BLOCK_BYTES, min(at + high * _BLOCK_BYTES, end), match.shift)


def _bits(data: Bytes) -> NDArray[np.float64]:
    """What each block of at most a piece takes at least, when its bytes are coded one by one (order-0 entropy)."""
    blocks = -(-len(data) // _BLOCK_BYTES)
    sizes = np.full(blocks, _BLOCK_BYTES)
    sizes[-1] = len(data) - (blocks - 1) * _BLOCK_BYTES
    if not data.any():
        return np.zeros(blocks)
    cells = np.repeat(np.arange(blocks) * 256, sizes) + data
    counts = np.bincount(cells, minlength=blocks * 256).reshape(blocks, 256)
    return np.asarray(_C_LOG_C[sizes] - _C_LOG_C[counts].sum(axis=1))


def _changes(old: Bytes, new: Bytes, copies: list[Match]) -> Iterator[tuple[_Lengths, Bytes]]:
    """The bytes that differ in these ranges, a piece at a time: equal ones before each, and what to add to it."""
    next_at = 0
    for copy in copies:
        for at in range(copy.first, copy.end, PIECE_BYTES):
            end = min(at + PIECE_BYTES, copy.end)
            changes = new[at:end] - old[at + copy.shift : end + copy.shift]
            places = np.flatnonzero(changes)
            if len(places):
                yield np.diff(places + at, prepend=next_at - 1) - 1, changes[places]
                next_at = at + int(places[-1]) + 1


def _gaps(lengths: _Lengths) -> Bytes:
    """Each as a byte, after as many runs as it is long."""
    runs, rests = np.divmod(lengths, RUN)
    ends = np.cumsum(runs + 1)
    written = np.full(ends[-1], RUN, np.uint8)
    written[ends - 1] = rests
    return written
