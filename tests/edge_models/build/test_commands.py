"""The commands, one after the other, as a person types them. Needs the extra `models`."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edge_models.bundle import read_bundle
from edge_models.shipped import shipped_path

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "optimum", "onnx")), reason="the extra `models` is not installed"
)


def edge_agent(*words: object, code: int = 0) -> str:
    """Standard output, and what was said, of a command that ends with this code."""
    done = subprocess.run(
        [sys.executable, "-m", "edge_cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.timeout(400)
def test_somebody_elses_graph_becomes_a_bundle_that_answers(tmp_path: Path) -> None:
    theirs = read_bundle(shipped_path("shuttle", "2"))
    (tmp_path / "theirs.onnx").write_bytes(theirs.graph)
    np.savez(tmp_path / "data.npz", sensors=theirs.golden.inputs["sensors"], labels=np.array(theirs.golden.truth))
    work, out = tmp_path / "pump", tmp_path / "pump-1.bundle"
    edge_agent("model", "import", tmp_path / "theirs.onnx", "--labels", "normal,anomaly", "--out", work)
    assert "is there already" in edge_agent("model", "import", tmp_path / "theirs.onnx", "--out", work, code=2)
    assert "float" in edge_agent("model", "quantize", work, "--data", tmp_path / "data.npz", "--min-speedup", "100")
    refused = edge_agent("model", "quantize", work, "--data", tmp_path / "data.npz", "--max-size", "100", code=1)
    assert "100 are allowed" in refused
    page = tmp_path / "pump.html"
    edge_agent("model", "evaluate", work, "--data", tmp_path / "data.npz", "--report", page)
    assert "</html>" in page.read_text()
    edge_agent("model", "pack", work, "--data", tmp_path / "data.npz", "--out", out)
    assert "golden check passed" in edge_agent("model", "verify", out)
    np.save(tmp_path / "one.npy", theirs.golden.inputs["sensors"][:1])
    assert theirs.golden.truth[0] in edge_agent("infer", out, tmp_path / "one.npy")
    parts = tmp_path / "parts"
    edge_agent("model", "unpack", out, "--out", parts)
    assert (parts / "graph.onnx").read_bytes() == read_bundle(out).graph
    assert sorted(path.name for path in tmp_path.glob(".*")) == []
