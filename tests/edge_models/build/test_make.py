"""Building: the numbers, the file and the digest. Needs the extra `models`."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edge_models.bundle import read_bundle
from edge_models.shipped import shipped_path

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("torch", "optimum", "tslearn", "river", "aeon")),
    reason="the extra `models` is not installed",
)


def build(recipe: str, version: str, out: Path, hash_seed: str) -> dict[str, Any]:
    """Build in a process of its own, as a person does."""
    command = [sys.executable, "-m", "edge_cli.main", "model", "build", recipe, "--version", version, "--json"]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "XDG_CACHE_HOME": str(out / "cache")}
    done = subprocess.run(
        [*command, "--out", str(out)], env=environment, check=True, capture_output=True, text=True, timeout=500
    )
    built: dict[str, Any] = json.loads(done.stdout)
    return built


@pytest.mark.parametrize("recipe", ["trace", "shuttle", "appliance"])
def test_the_same_build_twice_gives_the_same_digest(recipe: str, tmp_path: Path) -> None:
    first, again = (build(recipe, "2", tmp_path, seed) for seed in ("1", "2"))
    assert first == again
    bundle = read_bundle(tmp_path / f"{recipe}-2.bundle")
    assert bundle.digest == first["digest"]
    assert bundle.card == first["card"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", ["minilm", "shelf-labels"])
def test_the_card_of_a_large_one_is_what_a_build_prints(recipe: str, tmp_path: Path) -> None:
    built = build(recipe, "1", tmp_path, "0")
    bundle = read_bundle(tmp_path / f"{recipe}-1.bundle")
    assert (bundle.digest, bundle.card) == (built["digest"], built["card"])
    kept = json.loads((shipped_path("trace", "1").parent / f"{recipe}-1.json").read_bytes())
    if built["card"]["lineage"]["tools"] == kept["card"]["lineage"]["tools"]:
        assert built["card"]["metrics"] == kept["card"]["metrics"]


@pytest.mark.parametrize("recipe", ["trace", "shuttle", "appliance"])
def test_a_build_is_as_good_as_what_ships(recipe: str, tmp_path: Path) -> None:
    built = build(recipe, "1", tmp_path, "0")["card"]
    shipped = read_bundle(shipped_path(recipe, "1")).card
    if (
        built["lineage"]["tools"] == shipped["lineage"]["tools"]
        and built["latency"]["cpu"] == shipped["latency"]["cpu"]
    ):
        assert built == shipped
    assert shipped["precision"] in built["metrics"]
    for precision in {"float", "int8"} & shipped["metrics"].keys() & built["metrics"].keys():
        ours, theirs = built["metrics"][precision]["accuracy"], shipped["metrics"][precision]["accuracy"]
        assert ours == pytest.approx(theirs, abs=0.1)
