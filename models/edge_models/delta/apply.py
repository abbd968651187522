"""A delta and its base become the bundle it was made for. Deltas come from whoever runs the hub: nothing is believed.

What is allocated: the result, and less than 8 MiB. The format: models/DELTA.md.
"""

import hashlib
import io

import numpy as np
from backports import zstd
from numpy.typing import NDArray

from edge_models.bundle import MAX_BUNDLE_BYTES
from edge_models.delta.form import MAX_RANGES, PIECE_BYTES, ROW, RUN, WINDOW_LOG, Bytes, Parts
from edge_models.digests import Digest, digest_of
from edge_models.errors import RejectedError


def apply_delta(base: bytes, delta: bytes, size: int, digest: Digest) -> bytes:
    """The file of `size` bytes and this digest that `delta` makes of `base`.

    `size` and `digest` come from a signed release. Raises `RejectedError` for anything else than a delta from
    `base` to that very file; nothing is allocated on a delta's word.
    """
    if not 0 <= size <= MAX_BUNDLE_BYTES:
        raise RejectedError(f"delta: a result of {size} bytes, the most is {MAX_BUNDLE_BYTES}")
    if len(base) > MAX_BUNDLE_BYTES:
        raise RejectedError(f"delta: a base of {len(base)} bytes, the most is {MAX_BUNDLE_BYTES}")
    if len(delta) > size:
        raise RejectedError(f"delta: {len(delta)} bytes are more than the {size} of the whole")
    parts = Parts.from_bytes(delta)
    if hashlib.sha256(base).digest() != parts.base_sha256:
        raise RejectedError("delta: it was made for another base")
    # BytesIO gives its bytes away without a copy once no view of them is left.
    result = io.BytesIO(bytes(size))
    _fill(result, np.frombuffer(base, np.uint8), parts)
    _change(result, parts)
    made = result.getvalue()
    if digest_of(made) != digest:
        raise RejectedError(f"delta: it does not make the file of {digest}")
    return made


class _Part:
    """A zstd frame, read piece by piece: a bomb in it stops at the first piece too many."""

    def __init__(self, packed: bytes | memoryview, what: str) -> None:
        self._packed = memoryview(packed)
        self._what = what
        self._decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})

    def read(self, most: int) -> bytes:
        """Up to `most` bytes, which is at least 1; none only at the frame's end."""
        data = b""
        try:
            while not data and not self._decoder.eof:
                given: bytes | memoryview = b""
                if self._decoder.needs_input:
                    if not self._packed:
                        raise RejectedError(f"delta: its {self._what} are truncated")
                    given, self._packed = self._packed[:PIECE_BYTES], self._packed[PIECE_BYTES:]
                data = self._decoder.decompress(given, most)
        except zstd.ZstdError as error:
            raise RejectedError(f"delta: its {self._what}: {error}") from None
        return data

    def exactly(self, size: int) -> bytes:
        """So many bytes, at most a piece."""
        data = b""
        while len(data) < size:
            more = self.read(size - len(data))
            if not more:
                raise RejectedError(f"delta: its {self._what} end too early")
            data += more
        return data

    def end(self) -> None:
        """Nothing follows."""
        if self.read(1) or self._packed or self._decoder.unused_data:
            raise RejectedError(f"delta: there are bytes after its {self._what}")


def _fill(result: io.BytesIO, base: Bytes, parts: Parts) -> None:
    """Literals and ranges of the base, from the first byte of the result to the last."""
    made = np.frombuffer(result.getbuffer(), np.uint8)
    literals = _Part(parts.literals, "literals")
    at = 0
    for literal, copied, start in _ranges(parts).tolist():
        if literal + copied > len(made) - at:
            raise RejectedError("delta: its ranges are longer than the result")
        if start + copied > len(base):
            raise RejectedError(f"delta: a range ends at {start + copied}, the base at {len(base)}")
        end = at + literal
        while at < end:
            piece = literals.exactly(min(end - at, PIECE_BYTES))
            made[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
        made[at : at + copied] = base[start : start + copied]
        at += copied
    if at != len(made):
        raise RejectedError(f"delta: its ranges end at {at}, the result at {len(made)}")
    literals.end()


def _ranges(parts: Parts) -> NDArray[np.void]:
    part = _Part(parts.ranges, "ranges")
    pieces: list[bytes] = []
    while piece := part.read(PIECE_BYTES):
        pieces.append(piece)
        if sum(map(len, pieces)) > MAX_RANGES * ROW.itemsize:
            raise RejectedError(f"delta: more than {MAX_RANGES} ranges")
    part.end()
    table = b"".join(pieces)
    if len(table) % ROW.itemsize:
        raise RejectedError("delta: half a range is in its table")
    return np.frombuffer(table, ROW)


def _change(result: io.BytesIO, parts: Parts) -> None:
    """Add the steps to the bytes that the gaps lead to, modulo 256."""
    made = np.frombuffer(result.getbuffer(), np.uint8)
    gaps, steps = _Part(parts.gaps, "gaps"), _Part(parts.steps, "steps")
    at = 0
    while piece := gaps.read(PIECE_BYTES // 8):  # eight bytes of each are held as one number of 64 bits
        lengths = np.frombuffer(piece, np.uint8)
        changes = lengths != RUN
        ends = at + np.cumsum(lengths.astype(np.int64) + changes)
        at = int(ends[-1])
        if at > len(made):
            raise RejectedError("delta: it changes bytes after the result's end")
        places = ends[changes] - 1
        made[places] += np.frombuffer(steps.exactly(len(places)), np.uint8)
    gaps.end()
    steps.end()
