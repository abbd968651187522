"""`edge-agent infer`, as a person calls it: a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_models.bundle import Golden, write_bundle
from edge_models.contract import Contract
from edge_models.digests import Digest
from edge_models.tensors import TensorSpec


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, Digest]:
    """A bundle that says `high` where the first of two values is the larger."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["pair", "weight"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["scores"], axis=-1),
        ],
        "graph",
        [helper.make_tensor_value_info("pair", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.eye(2, dtype=np.float32), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    contract = Contract(
        name="pair",
        version="2",
        task="classification",
        inputs=(TensorSpec("pair", ("batch", 2), "float32"),),
        outputs=(TensorSpec("scores", ("batch", 2), "float32"),),
        labels=("high", "low"),
        scores="scores",
        golden_atol=0.01,
    )
    samples = np.array([[1, 0], [0, 1]], np.float32)
    scores = ort.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"pair": samples})[0]
    golden = Golden({"pair": samples}, {"scores": scores}, ("high", "low"))
    path = tmp_path / "pair.bundle"
    return path, write_bundle(path, contract=contract, graph=model, golden=golden, card={})


def infer(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_cli.main", "infer", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_json(bundle: tuple[Path, Digest], tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("2,0\n0,2\n")
    done = infer(bundle[0], tmp_path / "in.csv", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["bundle"] == "pair 2"
    assert said["digest"] == bundle[1]
    assert [p["label"] for p in said["predictions"]] == ["high", "low"]
    assert said["predictions"][0]["score"] == said["predictions"][0]["scores"]["high"] == 0.880797
    assert said["latency_ms"] > 0
    assert done.stderr == ""


def test_table(bundle: tuple[Path, Digest], tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text("[0, 2]")
    done = infer(bundle[0], tmp_path / "in.json")
    assert done.returncode == 0, done.stderr
    assert "pair 2" in done.stdout
    assert "low" in done.stdout
    assert "0.8808" in done.stdout


def test_a_wrong_input_is_one_line(bundle: tuple[Path, Digest], tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.zeros((3, 12)))
    done = infer(bundle[0], tmp_path / "in.npy")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "error: in.npy: input 'pair': came (3, 12) float64, wanted (batch, 2) float32\n"


def test_a_flipped_bit_in_the_bundle_is_one_line(bundle: tuple[Path, Digest], tmp_path: Path) -> None:
    data = bytearray(bundle[0].read_bytes())
    data[len(data) // 2] ^= 1
    bundle[0].write_bytes(data)
    (tmp_path / "in.csv").write_text("2,0\n")
    done = infer(bundle[0], tmp_path / "in.csv")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (3, "", 1)


def test_missing_files_are_one_line(bundle: tuple[Path, Digest], tmp_path: Path) -> None:
    for arguments in ((tmp_path / "no.bundle", tmp_path / "in.csv"), (bundle[0], tmp_path / "no.csv")):
        done = infer(*arguments)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "No such file" in done.stderr
