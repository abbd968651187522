"""models/DELTA.md: a delta makes its target and nothing else, and is refused in little memory when it is wrong."""

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_models.bundle import MAX_BUNDLE_BYTES, Bundle, read_bundle, write_bundle
from edge_models.delta import apply_delta, make_delta
from edge_models.delta import make as making
from edge_models.delta.form import MAX_RANGES, PIECE_BYTES, ROW, RUN, WINDOW_LOG, Parts
from edge_models.digests import digest_of
from edge_models.errors import RejectedError
from edge_models.shipped import DATA, shipped_path

NOISE = np.random.default_rng(11).bytes(400_000)
"""Bytes in which nothing is alike."""


def applied(base: bytes, delta: bytes | None, target: bytes) -> bytes:
    assert delta is not None
    return apply_delta(base, delta, len(target), digest_of(target))


def graph_of(seed: int, *, moved: float = 0.0, labels: int = 8, head: int = 1) -> bytes:
    """An ONNX graph of six int8 matrices with a scale a row, and a head; `moved` as a share of the weights'
    deviation."""
    rng, noise = np.random.default_rng(seed), np.random.default_rng(99)
    initializers, nodes, outputs = [], [], []
    for number in range(7):
        name, rows = (f"layer{number}", 192) if number < 6 else ("head", labels)
        drawn = rng if number < 6 else np.random.default_rng(head)
        values = drawn.normal(0, 0.05, (rows, 192)) + moved * noise.normal(0, 0.05, (rows, 192))
        scales = (np.abs(values).max(axis=1) / 127).astype("<f4")
        levels = np.rint(values / scales[:, None]).astype(np.int8)
        initializers += [
            helper.make_tensor(f"{name}_quantized", TensorProto.INT8, levels.shape, levels.tobytes(), raw=True),
            helper.make_tensor(f"{name}_scale", TensorProto.FLOAT, scales.shape, scales.tobytes(), raw=True),
        ]
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_quantized", f"{name}_scale"], [name], axis=0))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, levels.shape))
    model = helper.make_model(helper.make_graph(nodes, "g", [], outputs, initializers), ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def file_of(bundle: Bundle, folder: Path, *, graph: bytes | None = None, summary: str | None = None) -> bytes:
    """The bundle's file, with another graph or another card."""
    card = dict(bundle.card) if summary is None else dict(bundle.card) | {"summary": summary}
    path = folder / "made.bundle"
    write_bundle(path, contract=bundle.contract, graph=graph or bundle.graph, golden=bundle.golden, card=card)
    return path.read_bytes()


# What a delta makes


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A file and what became of it: pieces of it moved, repeated, changed here and there, and new ones among them."""
    base = draw(st.sampled_from([b"", NOISE[:40], NOISE[:9_000], bytes(5_000), b"ab" * 3_000 + NOISE[:3_000]]))
    pieces: list[bytes] = []
    for _ in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["copied", "changed", "new", "noise"]))
        start = draw(st.integers(0, len(base)))
        piece = base[start : start + draw(st.integers(0, 6_000))]
        if kind == "changed" and piece:
            values = np.frombuffer(piece, np.uint8).copy()
            values[:: draw(st.integers(1, 700))] += np.uint8(draw(st.integers(1, 255)))
            piece = values.tobytes()
        pieces.append({"new": draw(st.binary(max_size=40)), "noise": NOISE[-3_000:]}.get(kind, piece))
    return base, b"".join(pieces)


@given(edited())
def test_a_delta_makes_its_target_of_its_base(pair: tuple[bytes, bytes]) -> None:
    base, target = pair
    delta = make_delta(base, target)
    if delta is not None:
        assert applied(base, delta, target) == target


@pytest.mark.parametrize("target", [NOISE[50_000:] + NOISE[:50_000], NOISE, bytes(9_000), NOISE[:3] + NOISE])
def test_what_moved_is_copied(target: bytes) -> None:
    delta = make_delta(NOISE, target)
    assert applied(NOISE, delta, target) == target
    assert delta is not None
    assert len(delta) < 300


def test_tensors_in_another_order_are_copied() -> None:
    parts = [NOISE[at : at + 10_000] for at in range(0, len(NOISE), 10_000)]
    order = np.random.default_rng(3).permutation(len(parts))
    target = b"".join(parts[number] for number in order)
    delta = make_delta(NOISE, target)
    assert applied(NOISE, delta, target) == target
    assert delta is not None
    assert len(delta) < 1_500


def test_a_changed_card_costs_little_more_than_its_change(tmp_path: Path) -> None:
    for name in ("appliance", "shuttle", "trace"):
        bundle = read_bundle(shipped_path(name, "2"))
        base = shipped_path(name, "2").read_bytes()
        target = file_of(bundle, tmp_path, summary=f"{bundle.card['summary']}, described better")
        delta = make_delta(base, target)
        assert applied(base, delta, target) == target
        assert delta is not None
        assert len(delta) < 800


def test_shipped_versions_follow_one_another() -> None:
    made = 0
    for path in sorted(DATA.glob("*-1.bundle")):
        base, target = path.read_bytes(), (DATA / path.name.replace("-1.", "-2.")).read_bytes()
        for first, second in ((base, target), (target, base)):
            if (delta := make_delta(first, second)) is not None:
                assert applied(first, delta, second) == second
                made += 1
    assert made


def test_changed_weights_travel_as_steps(sample: Bundle, tmp_path: Path) -> None:
    base = file_of(sample, tmp_path, graph=graph_of(1))
    target = file_of(sample, tmp_path, graph=graph_of(1, moved=1e-3))
    assert base != target
    delta = make_delta(base, target)
    assert applied(base, delta, target) == target
    assert delta is not None
    assert len(delta) < 0.06 * len(zstd.compress(target, level=19))


def test_a_new_head_travels_alone_though_the_graph_grew(sample: Bundle, tmp_path: Path) -> None:
    base = file_of(sample, tmp_path, graph=graph_of(1))
    target = file_of(sample, tmp_path, graph=graph_of(1, labels=40, head=2))
    delta = make_delta(base, target)
    assert applied(base, delta, target) == target
    assert delta is not None
    assert len(delta) < 40 * (192 + 4) + 1_000


def test_the_same_files_give_the_same_bytes(sample: Bundle, tmp_path: Path) -> None:
    base = file_of(sample, tmp_path, graph=graph_of(1))
    target = file_of(sample, tmp_path, graph=graph_of(1, moved=1e-2, labels=9))
    here = make_delta(base, target)
    assert here is not None
    for name, data in (("base", base), ("target", target)):
        (tmp_path / name).write_bytes(data)
    code = "import sys, pathlib as p\nfrom edge_models.delta import make_delta\n"
    code += "sys.stdout.buffer.write(make_delta(*(p.Path(a).read_bytes() for a in sys.argv[1:])))"
    words = [sys.executable, "-c", code, str(tmp_path / "base"), str(tmp_path / "target")]
    assert subprocess.run(words, capture_output=True, check=True).stdout == here


def test_what_would_save_less_than_a_tenth_is_not_made() -> None:
    assert make_delta(b"", b"") is None
    assert make_delta(NOISE, b"") is None
    assert make_delta(NOISE, NOISE[:100]) is None
    assert make_delta(NOISE[:200_000], NOISE[200_000:]) is None
    assert make_delta(NOISE[:200_000], NOISE[:19_000] + NOISE[200_000:]) is None
    assert make_delta(NOISE[:200_000], NOISE[:25_000] + NOISE[200_000:]) is not None


def test_more_ranges_than_a_reader_takes_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    target = NOISE[50_000:] + NOISE[:50_000]
    monkeypatch.setattr(making, "MAX_RANGES", 3)
    assert make_delta(NOISE, target) is not None
    monkeypatch.setattr(making, "MAX_RANGES", 2)
    assert make_delta(NOISE, target) is None


def test_a_file_larger_than_a_bundle_has_no_delta(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_delta(NOISE, NOISE) is not None
    monkeypatch.setattr(making, "MAX_BUNDLE_BYTES", len(NOISE) - 1)
    assert make_delta(NOISE, NOISE[:-1]) is None
    assert make_delta(NOISE[:-1], NOISE) is None


# What is refused

BASE = NOISE[:1_000]
TARGET = BASE[100:600] + b"new" + BASE[:400]


def packed(data: bytes) -> bytes:
    return zstd.compress(data)


def rows(*table: tuple[int, int, int]) -> bytes:
    return packed(np.array([*table], ROW).tobytes())


SOUND = Parts(
    hashlib.sha256(BASE).digest(),
    ranges=rows((0, 500, 100), (3, 400, 0)),
    literals=packed(b"new"),
    gaps=packed(b""),
    steps=packed(b""),
)


def refusal(delta: bytes, base: bytes = BASE, target: bytes = TARGET) -> str:
    with pytest.raises(RejectedError) as refused:
        apply_delta(base, delta, len(target), digest_of(target))
    return str(refused.value)


def test_a_delta_written_by_hand_is_taken() -> None:
    assert applied(BASE, SOUND.to_bytes(), TARGET) == TARGET
    changed = replace(SOUND, gaps=packed(bytes([RUN, 4, 0])), steps=packed(bytes([255, 1])))
    target = bytearray(TARGET)
    target[259] = (target[259] - 1) % 256
    target[260] = (target[260] + 1) % 256
    assert applied(BASE, changed.to_bytes(), bytes(target)) == target
    nothing = Parts(hashlib.sha256(b"").digest(), rows((0, 0, 0)), packed(b""), packed(b""), packed(b""))
    assert "more than the 0 of the whole" in refusal(nothing.to_bytes(), b"", b"")


def test_another_base_is_refused() -> None:
    assert "another base" in refusal(SOUND.to_bytes(), BASE[:-1] + b"\0")
    assert "another base" in refusal(SOUND.to_bytes(), b"")


def test_sizes_beyond_the_limits_are_refused() -> None:
    for size in (-1, MAX_BUNDLE_BYTES + 1, 2**70):
        with pytest.raises(RejectedError, match="the most is"):
            apply_delta(BASE, SOUND.to_bytes(), size, digest_of(TARGET))
    with pytest.raises(RejectedError, match="a base of"):
        apply_delta(bytes(MAX_BUNDLE_BYTES + 1), SOUND.to_bytes(), len(TARGET), digest_of(TARGET))
    assert "more than the" in refusal(SOUND.to_bytes() + bytes(len(TARGET)))


def test_a_truncated_or_longer_delta_is_refused() -> None:
    delta = SOUND.to_bytes()
    for length in range(len(delta)):
        assert refusal(delta[:length])
    assert "its header names" in refusal(delta + b"\0")
    assert "none, or of a later kit" in refusal(b"edgedlt2" + delta[8:])


def test_another_result_is_refused() -> None:
    other = TARGET[:-1] + bytes([TARGET[-1] ^ 1])
    assert "does not make the file" in refusal(SOUND.to_bytes(), target=other)
    assert "does not make" in refusal(replace(SOUND, literals=packed(b"old")).to_bytes())


def test_a_flipped_bit_in_any_byte_is_refused_or_changes_nothing() -> None:
    delta = SOUND.to_bytes()
    for bit in range(8 * len(delta)):
        damaged = bytearray(delta)
        damaged[bit // 8] ^= 1 << (bit % 8)
        try:
            made = apply_delta(BASE, bytes(damaged), len(TARGET), digest_of(TARGET))
        except RejectedError:
            continue
        assert made == TARGET


MANY = np.zeros(MAX_RANGES + 1, ROW)

WRONG_RANGES = {
    "ends at 1001, the base at 1000": rows((0, 500, 100), (3, 400, 601)),
    "ends at 4294967695, the base": rows((0, 500, 100), (3, 400, 2**32 - 1)),
    "longer than the result": rows((0, 500, 100), (3, 401, 0)),
    "ranges are longer": rows((2**32 - 1, 2**32 - 1, 0)),
    "ends? at 902, the result at 903": rows((0, 500, 100), (3, 399, 0)),
    "ends? at 0, the result at 903": rows(),
    "half a range": packed(bytes(23)),
    "more than 65536 ranges": packed(MANY.tobytes()),
}


@pytest.mark.parametrize("why", WRONG_RANGES)
def test_ranges_outside_of_base_or_result_are_refused(why: str) -> None:
    with pytest.raises(RejectedError, match=why):
        applied(BASE, replace(SOUND, ranges=WRONG_RANGES[why]).to_bytes(), TARGET)


def test_literals_that_do_not_fill_their_ranges_are_refused() -> None:
    assert "literals end too early" in refusal(replace(SOUND, literals=packed(b"ne")).to_bytes())
    assert "bytes after its literals" in refusal(replace(SOUND, literals=packed(b"new!")).to_bytes())


def test_changes_that_do_not_fit_are_refused() -> None:
    def change(gaps: bytes, steps: bytes) -> str:
        return refusal(replace(SOUND, gaps=packed(gaps), steps=packed(steps)).to_bytes())

    assert "after the result's end" in change(bytes([RUN, RUN, RUN, 138]), b"\1")
    assert "does not make" in change(bytes([RUN, RUN, RUN, 137]), b"\1")
    assert "after the result's end" in change(bytes([RUN] * 4), b"")
    assert "steps end too early" in change(b"\0\0", b"\1")
    assert "bytes after its steps" in change(b"\0", b"\1\1")


@pytest.mark.parametrize("part", ["ranges", "literals", "gaps", "steps"])
def test_a_part_that_is_not_one_whole_frame_is_refused(part: str) -> None:
    sound: bytes = getattr(SOUND, part)

    def with_part(data: bytes) -> str:
        return refusal(replace(SOUND, **{part: data}).to_bytes())

    assert "truncated" in with_part(b"")
    assert "truncated" in with_part(sound[:-1])
    assert f"its {part}: " in with_part(b"no frame at all")
    assert "bytes after its" in with_part(sound + b"\0")
    assert "bytes after its" in with_part(sound + packed(b""))
    options: dict[int, int] = {zstd.CompressionParameter.window_log: WINDOW_LOG + 1}
    wide = zstd.ZstdCompressor(options=options)
    assert f"its {part}: " in with_part(wide.compress(zstd.decompress(sound)) + wide.flush())


def test_a_byte_after_a_frame_that_fills_its_piece_is_refused() -> None:
    filling = next(n for n in range(PIECE_BYTES - 64, PIECE_BYTES) if len(packed(NOISE[:n])) == PIECE_BYTES)
    target = NOISE[:filling] + bytes(1_000)
    base_sha256 = hashlib.sha256(bytes(1_000)).digest()
    parts = Parts(base_sha256, rows((filling, 1_000, 0)), packed(NOISE[:filling]), packed(b""), packed(b""))
    assert applied(bytes(1_000), parts.to_bytes(), target) == target
    longer = replace(parts, literals=bytes(parts.literals) + b"\0")
    assert "bytes after its literals" in refusal(longer.to_bytes(), bytes(1_000), target)


# What it costs

CHILD = """
import sys
from pathlib import Path
from edge_models.delta import apply_delta, make_delta
from edge_models.errors import RejectedError

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

work, first, second, size, digest = sys.argv[1:]
first, second = Path(first).read_bytes(), Path(second).read_bytes()
before = status("VmRSS")
try:
    done = work == "make" and make_delta(first, second) or apply_delta(first, second, int(size), digest)
    answer = f"{len(done)} bytes"
except RejectedError as error:
    answer = str(error)
print(status("VmHWM") - before, answer)
"""


def in_a_child(work: str, folder: Path, first: bytes, second: bytes, target: bytes = b"") -> tuple[int, str]:
    """By how many bytes a process grew that did this, and what came of it."""
    for name, data in (("first", first), ("second", second)):
        (folder / name).write_bytes(data)
    words = [work, str(folder / "first"), str(folder / "second"), str(len(target)), digest_of(target)]
    done = subprocess.run([sys.executable, "-c", CHILD, *words], capture_output=True, text=True, check=True)
    grown, answer = done.stdout.strip().split(" ", 1)
    return int(grown), answer


def bomb() -> bytes:
    """A frame of 1 GiB of zeros, in the window that a reader gives it."""
    options: dict[int, int] = {zstd.CompressionParameter.window_log: WINDOW_LOG}
    packer = zstd.ZstdCompressor(options=options)
    pieces: Iterator[bytes] = (packer.compress(bytes(1 << 24)) for _ in range(64))
    return b"".join(pieces) + packer.flush()


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells what a process takes")

BOMBS = {
    "ranges": "more than 65536 ranges",
    "literals": "bytes after its literals",
    "gaps": "steps end too early",
    "steps": "bytes after its steps",
}


@needs_proc
@pytest.mark.parametrize("part", BOMBS)
def test_a_bomb_is_refused_in_little_memory(part: str, tmp_path: Path) -> None:
    base = NOISE
    parts = Parts(hashlib.sha256(base).digest(), rows((0, len(base), 0)), packed(b""), packed(b""), packed(b""))
    delta = replace(parts, **{part: bomb()}).to_bytes()
    grown, answer = in_a_child("apply", tmp_path, base, delta, base)
    assert BOMBS[part] in answer
    assert grown < len(base) + 8 * 1024 * 1024


@needs_proc
def test_the_result_and_little_more_is_allocated(tmp_path: Path) -> None:
    values = np.random.default_rng(4).integers(0, 256, 48_000_000, np.uint8)
    base = values.tobytes()
    values[::20] += 1
    target = values[8_000_000:].tobytes() + NOISE
    delta = make_delta(base, target)
    assert delta is not None
    grown, answer = in_a_child("apply", tmp_path, base, delta, target)
    assert answer == f"{len(target)} bytes"
    assert grown < len(target) + 8 * 1024 * 1024


@needs_proc
@pytest.mark.parametrize("word", [bytes(8), b"\0\0\x80\x3f" * 2, b"abc"])
def test_words_that_repeat_do_not_fill_the_memory(word: bytes, tmp_path: Path) -> None:
    data = word * (24_000_000 // len(word))
    grown, answer = in_a_child("make", tmp_path, data, data + NOISE[:5_000])
    assert int(answer.split()[0]) < 6_000
    assert grown < 128 * 1024 * 1024
