"""One journal message: a plain header, then zstd-compressed msgpack rows and gaps of one stream.

`encode` is the site's side, `decode` the hub's. A decoded batch has proved that its bytes are whole,
that its rows and gaps cover `first` to `last` without a hole, and that its chain holds from `before` to `after`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from backports import zstd

from edge_models.errors import RejectedError
from edge_sync.rows import KINDS, LANES, MAX_BODY_BYTES, MAX_REF_CHARS, Gap, Row, chain, read_row, row_bytes

MAGIC = b"EJ1"
MAX_BATCH_BYTES = 256 * 1024
"""Of the whole message. Source: docs/design.md section 6."""

MAX_RAW_BYTES = 4 * 1024 * 1024
"""Of the decompressed rows: what a hostile batch may make the hub hold."""

MAX_ROWS = 2_000
_LEVEL = 3
"""zstd's level. Source: measured, 31 bytes a row at 500 rows; higher levels cost more than they save."""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """What a receiver may read before it decompresses anything. `sha256` is of the compressed body."""

    v: int
    epoch: str
    lane: str
    first: int
    last: int
    raw_size: int
    sha256: bytes
    before: bytes
    after: bytes


class _Body(msgspec.Struct, array_like=True, frozen=True):
    rows: list[msgspec.Raw]
    gaps: list[Gap]


@dataclass(frozen=True, slots=True)
class Batch:
    """A verified batch. `hashes[i]` is the chain's hash of `rows[i]`."""

    header: Header
    rows: tuple[Row, ...]
    hashes: tuple[bytes, ...]
    gaps: tuple[Gap, ...]


_encode = msgspec.msgpack.Encoder().encode
_header_decoder = msgspec.msgpack.Decoder(Header)
_body_decoder = msgspec.msgpack.Decoder(_Body)


def encode(
    epoch: str,
    lane: str,
    raws: Sequence[bytes],
    gaps: Sequence[Gap],
    span: tuple[int, int],
    ends: tuple[bytes, bytes],
) -> bytes:
    """The message for rows (their exact bytes, by seq) and gaps that together cover `span`.

    `ends` are the chain's hashes before the first and after the last.
    """
    raw = _encode(_Body(rows=[msgspec.Raw(r) for r in raws], gaps=list(gaps)))
    packed = zstd.compress(raw, level=_LEVEL)
    header = _encode(
        Header(1, epoch, lane, span[0], span[1], len(raw), hashlib.sha256(packed).digest(), ends[0], ends[1])
    )
    return MAGIC + len(header).to_bytes(2, "big") + header + packed


def read_header(message: bytes) -> tuple[Header, bytes]:
    """The header and the compressed body. Raises `RejectedError`; nothing is decompressed yet."""
    if len(message) > MAX_BATCH_BYTES:
        raise RejectedError(f"batch: {len(message)} bytes, the most is {MAX_BATCH_BYTES}")
    if message[:3] != MAGIC or len(message) < 5:
        raise RejectedError("batch: does not begin as a journal message does")
    end = 5 + int.from_bytes(message[3:5], "big")
    try:
        header = _header_decoder.decode(message[5:end])
    except msgspec.MsgspecError as error:
        raise RejectedError(f"batch: header: {error}") from None
    except UnicodeDecodeError:
        raise RejectedError("batch: header: text is not UTF-8") from None
    if header.v != 1:
        raise RejectedError(f"batch: version {header.v}, this hub reads 1")
    if header.lane not in LANES:
        raise RejectedError(f"batch: no lane is named {header.lane!r}")
    if len(header.epoch) != 16 or not set(header.epoch) <= set("0123456789abcdef"):
        raise RejectedError("batch: an epoch is 16 hex digits")
    if not 1 <= header.first <= header.last < 2**53:
        raise RejectedError(f"batch: seq {header.first} to {header.last} is no range")
    if len(header.before) != 32 or len(header.after) != 32:
        raise RejectedError("batch: a chain hash has 32 bytes")
    return header, message[end:]


def decode(message: bytes) -> Batch:
    """The batch in this message, verified. Raises `RejectedError` and nothing else."""
    header, packed = read_header(message)
    if hashlib.sha256(packed).digest() != header.sha256:
        raise RejectedError("batch: body does not match its sha256")
    body = _read_body(header, packed)
    rows, hashes, gaps = [], [], iter(body.gaps)
    gap, seq, at_hash = next(gaps, None), header.first, header.before
    for raw in body.rows:
        while gap is not None and gap.first == seq:
            seq, at_hash, gap = _skip(gap, seq), gap.hash, next(gaps, None)
        row = _read_checked(raw)
        if row.seq != seq:
            raise RejectedError(f"batch: seq {seq} is missing, {row.seq} came")
        at_hash = chain(at_hash, raw)
        rows.append(row)
        hashes.append(at_hash)
        seq += 1
    while gap is not None and gap.first == seq:
        seq, at_hash, gap = _skip(gap, seq), gap.hash, next(gaps, None)
    if gap is not None or seq != header.last + 1:
        raise RejectedError(f"batch: says it ends at {header.last}, ends at {seq - 1}")
    if at_hash != header.after:
        raise RejectedError("batch: its chain does not end in the hash it names")
    return Batch(header, tuple(rows), tuple(hashes), tuple(body.gaps))


def _read_body(header: Header, packed: bytes) -> _Body:
    if header.raw_size > MAX_RAW_BYTES:
        raise RejectedError(f"batch: {header.raw_size} bytes decompressed, the most is {MAX_RAW_BYTES}")
    decompressor = zstd.ZstdDecompressor()
    try:
        raw = decompressor.decompress(packed, max_length=header.raw_size + 1)
        if not decompressor.eof or len(raw) != header.raw_size or decompressor.unused_data:
            raise RejectedError("batch: body is not of the size its header says")
        body = _body_decoder.decode(raw)
    except (zstd.ZstdError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RejectedError(f"batch: body: {error}") from None
    if len(body.rows) > MAX_ROWS or len(body.gaps) > MAX_ROWS:
        raise RejectedError(f"batch: more than {MAX_ROWS} rows or gaps")
    return body


def _skip(gap: Gap, seq: int) -> int:
    if gap.last < seq or len(gap.hash) != 32 or len(gap.reason) > 200:
        raise RejectedError(f"batch: a gap from {gap.first} to {gap.last} is no gap")
    return gap.last + 1


def _read_checked(raw: msgspec.Raw) -> Row:
    try:
        row = read_row(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RejectedError(f"batch: row: {error}") from None
    if row.kind not in KINDS:
        raise RejectedError(f"batch: row {row.seq}: no kind is named {row.kind[:40]!r}")
    if not 0 <= row.at < 2**63 or not (row.score is None or 0.0 <= row.score <= 1.0):
        raise RejectedError(f"batch: row {row.seq}: its time or its score is none")
    data = bytes(raw)
    if b"\0" in data and any("\0" in text for text in (row.agent, row.subject, row.label, row.ref, row.body) if text):
        raise RejectedError(f"batch: row {row.seq}: its text holds NUL, which databases refuse")
    if row_bytes(row) != data:  # what is stored are columns: only so can their hash be computed again
        raise RejectedError(f"batch: row {row.seq}: is not encoded as the columns it holds are")
    if len(row.body) > MAX_BODY_BYTES:
        raise RejectedError(f"batch: row {row.seq}: its body is over {MAX_BODY_BYTES} bytes")
    if row.ref is not None and len(row.ref) > MAX_REF_CHARS:
        raise RejectedError(f"batch: row {row.seq}: its ref is over {MAX_REF_CHARS} characters")
    return row
