"""A pair of graphs is timed once on a machine."""

from pathlib import Path

import pytest

from edge_models.build.latency import latency
from edge_models.build.speed import cpu_model
from edge_models.bundle import read_bundle
from edge_models.shipped import shipped_path


def test_a_measurement_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, two = (read_bundle(shipped_path("shuttle", version)) for version in ("1", "2"))
    sample = {name: array[:1] for name, array in one.golden.inputs.items()}
    graphs = {"float": one.graph, "int8": two.graph}
    first = latency(one.contract, graphs, {}, sample)
    assert first["float_us"] > 0
    assert first["int8_us"] > 0
    assert first["cpu"] == cpu_model()
    (file,) = tmp_path.rglob("*.json")
    assert latency(one.contract, graphs, {}, sample) == first
    file.write_text("not JSON", encoding="utf-8")
    assert latency(one.contract, graphs, {}, sample).keys() == first.keys()
