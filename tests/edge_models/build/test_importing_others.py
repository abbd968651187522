"""Other people's graphs out of wheels, which no recipe knows. They are on PyPI as silero-vad and magika."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra `models` is not installed")

from edge_models.build.importing import import_model
from edge_models.build.importing.wanted import parse_dims
from edge_models.build.run import answers, open_session
from edge_models.errors import ConfigError, RejectedError
from edge_models.tensors import TensorSpec


def file_of(package: str, path: str) -> str:
    """A file of an installed package, which is not imported."""
    found = find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"the wheel of {package} is not installed")
    return str(Path(found.origin).parent / path)


def test_silero_hears_as_before() -> None:
    source = file_of("silero_vad", "data/silero_vad.onnx")
    with pytest.raises(ConfigError, match=r"input\.1, state\.1"):
        import_model(source, name="silero", version="6", progress=lambda _: None)
    dims = parse_dims(["input.1=samples", "state.1=batch"])
    sheet, graph, _ = import_model(source, name="silero", version="6", dims=dims, progress=lambda _: None)
    contract = sheet.contract
    assert (contract.task, contract.batched) == ("tensors", False)
    assert contract.inputs == (
        TensorSpec("input", ("batch", "samples"), "float32"),
        TensorSpec("state", (2, "batch", 128), "float32"),
        TensorSpec("sr", (), "int64"),
    )
    chance = np.random.default_rng(0)
    inputs: dict[str, Any] = {
        "input": chance.standard_normal((1, 576)).astype(np.float32),
        "state": np.zeros((2, 1, 128), dtype=np.float32),
        "sr": np.array(16000, dtype=np.int64),
    }
    theirs = open_session(Path(source).read_bytes()).run(None, inputs)
    ours = answers(contract, graph, {}, {name: array[np.newaxis] for name, array in inputs.items()}).outputs
    np.testing.assert_array_equal(ours["output"][0], theirs[0])
    np.testing.assert_array_equal(ours["stateN"][0], theirs[1])


def test_sizes_that_silero_does_not_take_are_one_line() -> None:
    source = file_of("silero_vad", "data/silero_vad.onnx")
    with pytest.raises(RejectedError, match="with these axes") as raised:
        import_model(source, name="silero", version="6", dims={"input.1": 576, "state.1": 3}, progress=lambda _: None)
    assert "\n" not in str(raised.value)


def test_silero_for_one_rate_is_fixed_to_one_sample() -> None:
    source = file_of("silero_vad", "data/silero_vad_openvino_16k.onnx")
    contract = import_model(source, name="silero", version="6", progress=lambda _: None)[0].contract
    assert not contract.batched
    assert [spec.shape for spec in contract.inputs] == [(1, 576), (2, 1, 128)]
    assert [spec.shape for spec in contract.outputs] == [(1, 1), (2, 1, 128)]


def test_magika_shows_itself_to_be_a_classification() -> None:
    source = file_of("magika", "models/standard_v3_3/model.onnx")
    sheet, graph, _ = import_model(source, name="magika", version="1", progress=lambda _: None)
    contract = sheet.contract
    assert (contract.task, contract.scores, contract.batched) == ("classification", "target_label", True)
    assert contract.inputs == (TensorSpec("bytes", ("batch", 2048), "int32"),)
    assert len(contract.labels) == 214
    rows = np.random.default_rng(0).integers(0, 256, (3, 2048)).astype(np.int32)
    theirs = open_session(Path(source).read_bytes()).run(None, {"bytes": rows})[0]
    np.testing.assert_allclose(answers(contract, graph, {}, {"bytes": rows}).outputs["target_label"], theirs, atol=1e-6)
