"""Bundles on a CPU that is not the one that made them: AVX2 without VNNI, emulated.

Such CPUs add pairs of products of 8-bit numbers in 16 bits, which overflow where weights use all of int8. What ships
must answer there as its maker's machine did; and that the check would notice is shown with two graphs that differ in
their weights' range only, whose true answers are known from whole numbers.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_models.bundle import Golden, write_bundle
from edge_models.contract import Contract
from edge_models.shipped import DATA, shipped_path
from edge_models.tensors import TensorSpec

EMULATOR = shutil.which("qemu-x86_64")
CPU = "Haswell-v4"
WIDTH = 64

CHECK = """
import json, sys
from pathlib import Path
from edge_agent.inference.model import Model
from edge_models.bundle import read_bundle
for path in sys.argv[1:]:
    report = Model(read_bundle(Path(path))).check_golden()
    print(json.dumps(report.passed))
    print(report, file=sys.stderr)
"""

pytestmark = [
    pytest.mark.skipif(EMULATOR is None, reason="qemu-x86_64 (Debian's qemu-user) is not installed"),
    pytest.mark.timeout(400),
]


def full_and_reduced(folder: Path) -> list[Path]:
    """Two bundles of one int8 layer: weights up to 127, and up to 64."""
    return [_layer(folder / f"layer-{largest}.bundle", largest) for largest in (127, 64)]


def _layer(path: Path, largest: int) -> Path:
    weights = np.stack([np.full(WIDTH, largest), np.full(WIDTH, largest - 8)], axis=1).astype(np.int8)
    scale = np.float32(1 / (255 * 8 * WIDTH))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[batch,{WIDTH}] x) => (float[batch,2] y) {{'
        " a = QuantizeLinear(x, one, zero) i = MatMulInteger(a, w) f = Cast<to = 1>(i) s = Mul(f, scale)"
        " y = Softmax(s) }"
    )
    values = {"w": weights, "one": np.float32(1), "zero": np.uint8(0), "scale": scale}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), name) for name, v in values.items())
    inputs = np.full((4, WIDTH), 255, np.float32)
    logits = (inputs.astype(np.int64) @ weights.astype(np.int64)).astype(np.float32) * scale
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    contract = Contract(
        "layer",
        "1",
        "classification",
        (TensorSpec("x", ("batch", WIDTH), "float32"),),
        (TensorSpec("y", ("batch", 2), "float32"),),
        ("first", "second"),
        "y",
        golden_atol=0.02,
    )
    golden = Golden(
        {"x": inputs}, {"y": (raised / raised.sum(axis=1, keepdims=True)).astype(np.float32)}, ("first",) * 4
    )
    write_bundle(path, contract=contract, graph=model.SerializeToString(), golden=golden, card={})
    return path


def checked(paths: list[Path]) -> list[bool]:
    """Whether each bundle passes its golden check on the emulated CPU."""
    command = [str(EMULATOR), "-cpu", CPU, sys.executable, "-W", "ignore", "-c", CHECK, *map(str, paths)]
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=390)
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_ships_answers_the_same_without_vnni_and_weights_of_full_range_would_not(tmp_path: Path) -> None:
    ships = sorted(DATA.glob("*.bundle"))
    *shipped, full, reduced = checked([*ships, *full_and_reduced(tmp_path)])
    assert shipped_path("trace", "2") in ships
    assert dict(zip([path.stem for path in ships], shipped, strict=True)) == {path.stem: True for path in ships}
    assert reduced
    assert not full
