"""The journal's row as it is hashed and sent, and the chain that joins rows.

A row's *exact bytes* are its msgpack array. In each stream (an epoch's lane) every row's hash is
``sha256(hash of the row before + exact bytes)``; the first row follows `chain_start`. Site and hub hash
the same bytes, so a row changed anywhere breaks the chain from there on.
"""

import hashlib
from typing import Literal, NewType, get_args

import msgspec

Epoch = NewType("Epoch", str)
"""16 hex digits: one start of a site process."""

Lane = Literal["alarm", "decision", "telemetry"]
LANES: tuple[Lane, ...] = get_args(Lane)
"""In order of urgency."""

Kind = Literal["observation", "prediction", "decision", "approval", "action", "fact", "event"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_BODY_BYTES = 64 * 1024
"""The largest `body` of a row, UTF-8; keeps any single row well inside one batch of 256 KiB."""

MAX_REF_CHARS = 200
"""The largest `ref` of a row: a record's id has 44 at the most, and databases index no long text."""


class Row(msgspec.Struct, array_like=True, frozen=True):
    """One record of a stream. `at` is UTC microseconds; `score` is in [0, 1]; `body` is JSON text."""

    seq: int
    at: int
    kind: str
    agent: str
    subject: str | None
    label: str | None
    score: float | None
    ref: str | None
    body: str


class Gap(msgspec.Struct, array_like=True, frozen=True):
    """Rows `first` to `last` of a stream that will never come, why, and the chain's hash at their end."""

    first: int
    last: int
    reason: str
    hash: bytes


EXPIRED, ERASED = "expired", "erased"
"""Reasons of gaps that are no losses: the time that records are kept was over; a subject's records were erased."""

_encoder = msgspec.msgpack.Encoder()
_row_decoder = msgspec.msgpack.Decoder(Row)


def row_bytes(row: Row) -> bytes:
    """The row's exact bytes."""
    return _encoder.encode(row)


def read_row(raw: bytes | msgspec.Raw) -> Row:
    """The row that these exact bytes are. Raises `msgspec.MsgspecError` where they are none."""
    return _row_decoder.decode(raw)


def chain_start(epoch: str, lane: str) -> bytes:
    """The hash that the first row of a stream follows."""
    return hashlib.sha256(f"edge/v1 {epoch} {lane}".encode()).digest()


def chain(before: bytes, raw: bytes | msgspec.Raw) -> bytes:
    """The hash of the row with these exact bytes, after a row (or gap) that ended in `before`."""
    h = hashlib.sha256(before)
    h.update(raw)
    return h.digest()


def record_id(epoch: str, lane: str, seq: int) -> str:
    """The public id of a record."""
    return f"{epoch}:{lane}:{seq}"
