"""A model runs what its contract says, and nothing else."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_agent.inference.model import Model
from edge_models.bundle import Bundle, Golden
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.tensors import TensorSpec

Window = np.ndarray[Any, np.dtype[np.float32]]


def window(samples: int = 1, features: int = 8) -> Window:
    return np.random.default_rng(samples).normal(size=(samples, features)).astype(np.float32)


def test_telemetry_is_off_before_onnxruntime_is_imported() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_info_names_the_model(bundle: Bundle) -> None:
    info = Model(bundle).info
    assert (info.name, info.version, info.digest, info.task) == ("pump", "1", bundle.digest, "classification")
    assert info.labels == ("normal", "worn", "broken")
    assert [spec.name for spec in info.inputs] == ["window"]


def test_run_gives_the_contracts_outputs(bundle: Bundle) -> None:
    outputs = Model(bundle).run({"window": window(3)})
    assert list(outputs) == ["scores", "logits"]
    assert outputs["scores"].shape == (3, 3)
    assert outputs["scores"].sum(axis=1) == pytest.approx(1)


def test_predictions_are_the_argmax_with_all_scores(bundle: Bundle) -> None:
    model, inputs = Model(bundle), {"window": window(5)}
    scores = model.run(inputs)["scores"]
    predictions = model.predict(inputs)
    assert [p.label for p in predictions] == [bundle.contract.labels[i] for i in scores.argmax(axis=1)]
    for prediction, row in zip(predictions, scores, strict=True):
        assert prediction.score == max(prediction.scores.values()) == pytest.approx(float(row.max()), abs=1e-6)
        assert list(prediction.scores) == list(bundle.contract.labels)


@pytest.mark.parametrize(
    ("array", "came"),
    [
        (np.zeros((1, 3), np.float32), r"came \(1, 3\) float32"),
        (np.zeros((1, 8), np.float64), r"came \(1, 8\) float64"),
        (np.zeros((8,), np.float32), r"came \(8,\) float32"),
        (np.zeros((0, 8), np.float32), r"came \(0, 8\) float32"),
    ],
    ids=["shape", "dtype", "rank", "empty"],
)
def test_a_wrong_input_is_refused_with_what_came_and_was_wanted(bundle: Bundle, array: Window, came: str) -> None:
    with pytest.raises(RejectedError, match=rf"^input 'window': {came}, wanted \(batch, 8\) float32$"):
        Model(bundle).run({"window": array})


def test_wrong_names_are_refused(bundle: Bundle) -> None:
    with pytest.raises(RejectedError, match="model 'pump': came the inputs windows, wanted window"):
        Model(bundle).run({"windows": window()})


def test_batches_of_different_size_are_refused(two_input_bundle: Bundle) -> None:
    with pytest.raises(RejectedError, match="batches differ in size"):
        Model(two_input_bundle).run({"sound": np.ones((2, 4), np.float32), "mode": np.ones((3, 1), np.int64)})


def test_a_graph_that_fails_on_an_input_is_one_line(make_bundle: Callable[..., Bundle]) -> None:
    """An open axis that the graph, at run time, cannot take."""
    graph = _graph(
        [
            helper.make_node("Reshape", ["window", "shape"], ["folded"]),
            helper.make_node("Softmax", ["folded"], ["scores"], axis=-1),
        ],
        "time",
        {"shape": np.array([-1, 5], np.int64)},
    )
    model = Model(make_bundle(graph=graph, contract=_contract(("batch", "time"), labels=5)))
    with pytest.raises(RejectedError, match="cannot run on this") as caught:
        model.run({"window": np.ones((1, 7), np.float32)})
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_graph_are_refused(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RejectedError, match=r"^the graph cannot be loaded: "):
        Model(replace(bundle, graph=b"no graph"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {"inputs": (TensorSpec("win", ("batch", 8), "float32"),)},
            "the graph has an input 'window'",
        ),
        ({"inputs": (TensorSpec("window", ("batch", 9), "float32"),)}, "input 'window': the graph's shape is"),
        ({"inputs": (TensorSpec("window", ("batch", "time"), "float32"),)}, "input 'window': the graph's shape is"),
        ({"inputs": (TensorSpec("window", ("batch", 8), "int64"),)}, r"input 'window': the graph's is tensor\(float\)"),
        (
            {"scores": "odds", "outputs": (TensorSpec("odds", ("batch", 3), "float32"),)},
            "has no output 'odds'",
        ),
        ({"labels": ("a", "b"), "outputs": (TensorSpec("scores", ("batch", 2), "float32"),)}, "output 'scores'"),
    ],
    ids=["name", "size", "open-axis", "dtype", "output", "labels"],
)
def test_a_graph_that_breaks_its_contract_is_refused(bundle: Bundle, change: dict[str, Any], why: str) -> None:
    with pytest.raises(RejectedError, match=why):
        Model(replace(bundle, contract=replace(bundle.contract, **change)))


def test_scores_that_are_no_probabilities_are_refused_when_loaded(make_bundle: Callable[..., Bundle]) -> None:
    graph = _graph([helper.make_node("Log", ["window"], ["scores"])], 3, {})
    with pytest.raises(RejectedError, match="no probabilities"):
        Model(make_bundle(graph=graph, contract=_contract(("batch", 3), labels=3)))


def test_golden_check_passes_on_the_machine_that_made_it(bundle: Bundle) -> None:
    report = Model(bundle).check_golden()
    assert report.passed
    assert (report.samples, report.disagreements, report.correct) == (20, 0, 20)
    assert report.largest_difference <= 1e-6


def test_golden_check_fails_when_scores_moved(make_bundle: Callable[..., Bundle]) -> None:
    report = Model(make_bundle(golden_shift=0.02)).check_golden()
    assert not report.passed
    assert report.largest_difference == pytest.approx(0.02, abs=1e-4)
    assert report.disagreements == 0
    assert "failed" in str(report)


def test_golden_check_fails_for_another_model(bundle: Bundle, make_bundle: Callable[..., Bundle]) -> None:
    other = make_bundle(turned=True)
    report = Model(replace(bundle, graph=other.graph)).check_golden()
    assert not report.passed
    assert report.disagreements > 0


def test_golden_check_fails_on_nan(bundle: Bundle) -> None:
    golden = bundle.golden
    broken = {**golden.outputs, "scores": np.full_like(golden.outputs["scores"], np.nan)}
    report = Model(replace(bundle, golden=Golden(golden.inputs, broken, golden.truth))).check_golden()
    assert not report.passed


def _graph(nodes: list[Any], axis: int | str, constants: dict[str, Any]) -> bytes:
    from onnx import numpy_helper

    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["batch", axis])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


def _contract(shape: tuple[int | str, ...], labels: int) -> Contract:
    return Contract(
        name="odd",
        version="1",
        task="classification",
        inputs=(TensorSpec("window", shape, "float32"),),
        outputs=(TensorSpec("scores", ("batch", labels), "float32"),),
        labels=tuple(f"l{i}" for i in range(labels)),
        scores="scores",
        golden_atol=0.01,
    )
