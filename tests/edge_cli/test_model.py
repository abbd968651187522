"""`edge-agent model`: what it prints, and how it says no."""

import json
import subprocess
import sys
from pathlib import Path

from edge_models.bundle import read_bundle
from edge_models.shipped import shipped_path

TRACE = shipped_path("trace", "2")


def edge_agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge_cli.main", "model", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def test_inspect_prints_card_and_contract() -> None:
    done = edge_agent("inspect", str(TRACE))
    assert done.returncode == 0
    assert done.stderr == ""
    bundle = read_bundle(TRACE)
    for text in (bundle.digest, "window", "(batch, 275)", "drop-after-spike", "accuracy", "1.0000", "BSD-2-Clause"):
        assert text in done.stdout


def test_inspect_as_json() -> None:
    done = edge_agent("inspect", str(TRACE), "--json")
    seen = json.loads(done.stdout)
    bundle = read_bundle(TRACE)
    assert seen["digest"] == bundle.digest
    assert seen["size_bytes"] == TRACE.stat().st_size
    assert seen["card"] == bundle.card
    assert seen["contract"] == json.loads(json.dumps(bundle.contract.to_json()))


def test_a_flipped_bit_is_one_line_and_exit_3(tmp_path: Path) -> None:
    damaged = bytearray(TRACE.read_bytes())
    damaged[damaged.index(read_bundle(TRACE).graph) + 5_000] ^= 4
    (tmp_path / "trace.bundle").write_bytes(damaged)
    done = edge_agent("inspect", str(tmp_path / "trace.bundle"))
    assert done.returncode == 3
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "its bytes are not those of sha256:" in done.stderr


def test_a_missing_file_is_exit_2(tmp_path: Path) -> None:
    done = edge_agent("inspect", str(tmp_path / "none.bundle"))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "No such file" in done.stderr


def test_an_unknown_recipe_is_exit_2_and_names_the_nearest() -> None:
    done = edge_agent("build", "shutle")
    assert done.returncode == 2
    there_are = "appliance, minilm, shelf-labels, shuttle, trace"
    assert done.stderr == f"error: no recipe 'shutle': did you mean 'shuttle'? There are {there_are}\n"
