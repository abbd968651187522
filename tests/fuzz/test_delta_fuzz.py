"""models/DELTA.md: whatever comes as a delta, the right file is made or `RejectedError` is raised, and nothing else.

A second reader, written from the page alone and for nothing but plainness, says which of the two it must be.
"""

import hashlib
import struct
from dataclasses import replace

import numpy as np
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from edge_models.delta import apply_delta, make_delta
from edge_models.delta.form import Parts
from edge_models.digests import Digest, digest_of
from edge_models.errors import RejectedError

BASE = np.random.default_rng(2).bytes(6_000)
TARGET = BASE[3_000:] + b"between" * 9 + bytes(value ^ (number % 50 == 0) for number, value in enumerate(BASE))
NO_DIGEST = Digest("sha256:" + "0" * 64)


def sound() -> bytes:
    delta = make_delta(BASE, TARGET)
    assert delta is not None
    return delta


SOUND = sound()


def outcome(base: bytes, delta: bytes, size: int, digest: Digest) -> bytes | None:
    """What it makes, or None where it is refused; anything else escapes."""
    try:
        return apply_delta(base, delta, size, digest)
    except RejectedError:
        return None


@given(st.binary(max_size=400), st.integers(-5, 1_000), st.booleans())
def test_noise_is_refused(noise: bytes, size: int, begins_well: bool) -> None:
    delta = SOUND[:40] + noise if begins_well else noise
    assert outcome(BASE, delta, size, NO_DIGEST) is None


@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=4), st.integers(0, 10**4))
def test_a_damaged_delta_makes_its_target_or_nothing(places: list[tuple[int, int]], size: int) -> None:
    damaged = bytearray(SOUND)
    for at, value in places:
        damaged[at] = value
    assert outcome(BASE, bytes(damaged), len(TARGET), digest_of(TARGET)) in (None, TARGET)
    if size != len(TARGET):
        assert outcome(BASE, bytes(damaged), size, digest_of(TARGET)) is None


@given(st.sampled_from(["ranges", "literals", "gaps", "steps"]), st.data())
def test_a_damaged_part_makes_its_target_or_nothing(name: str, data: st.DataObject) -> None:
    parts = Parts.from_bytes(SOUND)
    frame = bytearray(getattr(parts, name))
    for _ in range(data.draw(st.integers(0, 3))):
        first = data.draw(st.integers(0, len(frame)))
        end = data.draw(st.sampled_from([first, first + 1, len(frame)]))
        frame[first:end] = data.draw(st.binary(max_size=6) | st.just(bytes(parts.gaps)))
    made = outcome(BASE, replace(parts, **{name: bytes(frame)}).to_bytes(), len(TARGET), digest_of(TARGET))
    assert made in (None, TARGET)
    if frame == getattr(parts, name):
        assert made == TARGET


def plainly(base: bytes, table: list[tuple[int, int, int]], literals: bytes, gaps: bytes, steps: bytes) -> bytes | None:
    """The result, where these parts have one."""
    made, read = bytearray(), 0
    for literal, copied, start in table:
        if read + literal > len(literals) or start + copied > len(base):
            return None
        made += literals[read : read + literal] + base[start : start + copied]
        read += literal
    if read < len(literals):
        return None
    at, taken = 0, 0
    for gap in gaps:
        at += gap
        if gap < 255:
            if at >= len(made) or taken == len(steps):
                return None
            made[at] = (made[at] + steps[taken]) % 256
            at, taken = at + 1, taken + 1
        elif at > len(made):
            return None
    return bytes(made) if taken == len(steps) else None


SMALL = st.integers(0, 60) | st.sampled_from([2**32 - 1, 5_999, 6_000])
ROWS = st.lists(st.tuples(st.integers(0, 30), SMALL, SMALL), max_size=4)
GAPS = st.lists(st.integers(0, 12) | st.sampled_from([254, 255]), max_size=12).map(bytes)


@given(ROWS, st.binary(max_size=40), GAPS, st.binary(max_size=12), st.booleans(), st.integers(0, 8), st.data())
def test_it_reads_what_the_page_says(
    table: list[tuple[int, int, int]],
    literals: bytes,
    gaps: bytes,
    steps: bytes,
    fitting: bool,
    filled: int,
    data: st.DataObject,
) -> None:
    if fitting:  # chance alone rarely makes parts that agree
        table = [(literal, copied % 100, start % 5_900) for literal, copied, start in table]
        # A file of few bytes is smaller than any delta; this makes it a larger one.
        table.append((0, 500 * filled, 7))
        wanted = sum(literal for literal, _, _ in table)
        literals = (literals * (wanted + 1) + bytes(wanted))[:wanted]
        changes = sum(gap < 255 for gap in gaps)
        steps = (steps + bytes(range(1, 1 + changes)))[:changes]
    parts = [b"".join(struct.pack("<3I", *row) for row in table), literals, gaps, steps]
    frames = [zstd.compress(part, level=data.draw(st.integers(1, 3))) for part in parts]
    header = b"edgedlt1" + hashlib.sha256(BASE).digest() + struct.pack("<4I", *map(len, frames))
    delta = header + b"".join(frames)
    expected = plainly(BASE, table, literals, gaps, steps)
    if expected is None or len(delta) > len(expected):
        size = data.draw(st.integers(0, 2_000)) if expected is None else len(expected)
        assert outcome(BASE, delta, size, NO_DIGEST) is None
        return
    digest = digest_of(expected)
    assert outcome(BASE, delta, len(expected), digest) == expected
    assert outcome(BASE, delta, len(expected) + 1, digest) is None
    assert outcome(BASE + b"!", delta, len(expected), digest) is None
    assert outcome(BASE, delta, len(expected), NO_DIGEST) is None
