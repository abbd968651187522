"""sync/SPEC.md, section Journal message: what is encoded is decoded; what was changed is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_models.errors import RejectedError
from edge_sync.batch import MAGIC, MAX_BATCH_BYTES, Batch, decode, encode
from edge_sync.rows import MAX_REF_CHARS, Gap, Row, chain, chain_start, row_bytes

EPOCH = "00112233aabbccdd"

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
rows = st.builds(
    Row,
    seq=st.just(0),
    at=st.integers(0, 2**53),
    kind=st.sampled_from(["observation", "decision", "event"]),
    agent=texts,
    subject=st.none() | texts,
    label=st.none() | texts,
    score=st.none() | st.floats(0, 1),
    ref=st.none() | texts,
    body=texts,
)


def build(items: list[Row | int], first: int = 1) -> tuple[bytes, list[Row], list[Gap], bytes]:
    """A message of rows, and of gaps where an item is a length."""
    at_hash = before = chain_start(EPOCH, "decision")
    raws, numbered, gaps, seq = [], [], [], first
    for item in items:
        if isinstance(item, int):
            at_hash = chain(at_hash, b"gap")
            gaps.append(Gap(seq, seq + item - 1, "evicted", at_hash))
            seq += item
        else:
            row = Row(seq, *[getattr(item, f) for f in Row.__struct_fields__[1:]])
            raw = row_bytes(row)
            at_hash = chain(at_hash, raw)
            raws.append(raw)
            numbered.append(row)
            seq += 1
    return encode(EPOCH, "decision", raws, gaps, (first, seq - 1), (before, at_hash)), numbered, gaps, at_hash


@given(st.lists(rows | st.integers(1, 5), min_size=1, max_size=20), st.integers(1, 1000))
def test_what_is_encoded_is_decoded(items: list[Row | int], first: int) -> None:
    message, numbered, gaps, after = build(items, first)
    batch = decode(message)
    assert list(batch.rows) == numbered
    assert list(batch.gaps) == gaps
    assert batch.header.after == after
    assert len(batch.hashes) == len(numbered)


ROW = Row(0, 1, "decision", "a", None, "stop", 0.9, None, "{}")


def test_one_flipped_bit_anywhere_is_refused_or_changes_nothing() -> None:
    message, *_ = build([ROW, 2, ROW])
    whole = decode(message)
    for position in range(len(message) * 8):
        damaged = bytearray(message)
        damaged[position // 8] ^= 1 << position % 8
        try:
            batch = decode(bytes(damaged))
        except RejectedError:
            continue
        # The header's seq, epoch, lane or `before` may be read as others: never the rows, nor what they chain to.
        assert batch.rows == whole.rows
        assert batch.header.after == whole.header.after


@given(st.binary(max_size=600))
def test_only_rejected_errors_leave_the_decoder(noise: bytes) -> None:
    for message in (noise, MAGIC + noise, MAGIC + len(noise).to_bytes(2, "big") + noise):
        with pytest.raises(RejectedError):
            decode(message)


def test_a_bomb_is_refused_before_it_is_decompressed() -> None:
    big = Row(1, 1, "event", "a", None, None, None, None, "0" * 60_000)
    raws, at_hash = [], chain_start(EPOCH, "decision")
    before = at_hash
    for seq in range(1, 101):
        raw = row_bytes(Row(seq, *[getattr(big, f) for f in Row.__struct_fields__[1:]]))
        raws.append(raw)
        at_hash = chain(at_hash, raw)
    message = encode(EPOCH, "decision", raws, [], (1, 100), (before, at_hash))
    assert len(message) < MAX_BATCH_BYTES
    with pytest.raises(RejectedError, match="decompressed, the most is"):
        decode(message)


def test_a_message_over_the_limit_is_refused() -> None:
    with pytest.raises(RejectedError, match="the most is"):
        decode(MAGIC + bytes(MAX_BATCH_BYTES))


def rebuilt(batch: Batch, span: tuple[int, int]) -> bytes:
    header = batch.header
    return encode(
        EPOCH, "decision", [row_bytes(r) for r in batch.rows], batch.gaps, span, (header.before, header.after)
    )


@pytest.mark.parametrize("span", [(1, 3), (1, 5), (2, 4)])
def test_a_span_that_is_not_covered_is_refused(span: tuple[int, int]) -> None:
    batch = decode(build([ROW, 2, ROW])[0])
    with pytest.raises(RejectedError):
        decode(rebuilt(batch, span))


@pytest.mark.parametrize(("at", "score"), [(-1, None), (2**63, None), (1, 1.5), (1, float("nan")), (1, -0.1)])
def test_a_time_or_a_score_that_no_table_holds_is_refused(at: int, score: float | None) -> None:
    strange = Row(0, at, "event", "a", None, None, score, None, "{}")
    with pytest.raises(RejectedError, match="its time or its score is none"):
        decode(build([strange])[0])


def test_an_unknown_kind_is_refused() -> None:
    strange = Row(0, 1, "rumour", "a", None, None, None, None, "{}")
    with pytest.raises(RejectedError, match="no kind is named 'rumour'"):
        decode(build([strange])[0])


def message_of(raw: bytes) -> bytes:
    """A batch of one row, given as bytes."""
    start = chain_start(EPOCH, "decision")
    return encode(EPOCH, "decision", [raw], [], (1, 1), (start, chain(start, raw)))


@pytest.mark.parametrize("field", ["agent", "subject", "label", "ref", "body"])
def test_text_with_nul_is_refused(field: str) -> None:
    row = msgspec.structs.replace(Row(1, 1, "event", "a", "s", "l", None, "r", "{}"), **{field: "a\0b"})
    with pytest.raises(RejectedError, match="holds NUL"):
        decode(message_of(row_bytes(row)))


@pytest.mark.parametrize("score", [0, 1])
def test_a_row_that_its_columns_do_not_encode_to_is_refused(score: int) -> None:
    """A whole number as the score: the hub stores a float, whose bytes are others."""
    raw = msgspec.msgpack.encode([1, 1, "event", "a", None, None, score, None, "{}"])
    with pytest.raises(RejectedError, match="not encoded as the columns"):
        decode(message_of(raw))


def test_a_ref_that_is_longer_than_any_id_is_refused() -> None:
    longest = Row(0, 1, "event", "a", None, None, None, "r" * MAX_REF_CHARS, "{}")
    assert len(decode(build([longest])[0]).rows) == 1
    with pytest.raises(RejectedError, match="its ref is over 200 characters"):
        decode(build([Row(0, 1, "event", "a", None, None, None, "r" * (MAX_REF_CHARS + 1), "{}")])[0])
