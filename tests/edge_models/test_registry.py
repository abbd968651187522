"""A bundle loads with a standard OCI tool, layer for layer: so it travels by registry as it does by MQTT."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from edge_models.bundle import read_bundle
from edge_models.digests import digest_of
from edge_models.layout import FILEPATH, MODEL
from edge_models.shipped import shipped_path

pytestmark = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")

BUNDLE = shipped_path("trace", "2")


def test_skopeo_copies_every_layer_of_a_bundle(tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    out = tmp_path / "out"
    command = ["skopeo", "--policy", str(policy), "copy", f"oci-archive:{BUNDLE}", f"dir:{out}"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    manifest = json.loads((out / "manifest.json").read_bytes())
    assert manifest["artifactType"] == MODEL
    layers = {layer["annotations"][FILEPATH]: layer["digest"] for layer in manifest["layers"]}
    assert layers["graph.onnx"] == digest_of(read_bundle(BUNDLE).graph)
    for digest in layers.values():
        assert digest_of((out / digest.removeprefix("sha256:")).read_bytes()) == digest
