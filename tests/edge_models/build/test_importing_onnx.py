"""Somebody's ONNX file → sheet, graph, files. The graphs are made here, by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the extra `models` is not installed")

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edge_models.build.importing import checks, import_model
from edge_models.build.importing.wanted import parse_dims, parse_inputs
from edge_models.build.run import answers
from edge_models.build.workdir import Sheet
from edge_models.errors import ConfigError, KitError, RejectedError
from edge_models.tensors import TensorSpec

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64

Value = tuple[str, int, Sequence[Any] | None]
"""Name, element type, axes."""


def model_of(
    nodes: Sequence[Any],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    weights: Mapping[str, Any] | None = None,
    opset: int = 17,
    domains: Sequence[str] = (),
) -> Any:
    graph = helper.make_graph(
        list(nodes),
        "main",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def saved(tmp_path: Path, model: Any) -> str:
    path = tmp_path / "theirs.onnx"
    onnx.save(model, path)
    return str(path)


def imported(tmp_path: Path, model: Any, **options: Any) -> tuple[Sheet, bytes]:
    sheet, graph, files = import_model(
        saved(tmp_path, model), name="theirs", version="1", progress=lambda _: None, **options
    )
    assert files == {}
    return sheet, graph


def refused(tmp_path: Path, model: Any, kind: type[KitError], **options: Any) -> str:
    with pytest.raises(kind) as raised:
        imported(tmp_path, model, **options)
    line = str(raised.value)
    assert "\n" not in line
    assert str(tmp_path) not in line
    return line


WEIGHTS = np.random.default_rng(3).standard_normal((3, 4)).astype(np.float32)


def linear(batch: Any = "N", softmax: bool = False, **more: Any) -> Any:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="/home/someone/mlp/matmul")]
    outputs: list[Value] = [("y", FLOAT, [batch, 4])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["y"], ["p"], axis=-1))
        outputs = [("p", FLOAT, [batch, 4])]
    return model_of(nodes, [("x", FLOAT, [batch, 3])], outputs, {"w": WEIGHTS}, **more)


def test_logits_are_tensors_until_a_classification_is_asked_for(tmp_path: Path) -> None:
    plain = imported(tmp_path, linear())[0].contract
    assert plain.task == "tensors"
    assert plain.inputs == (TensorSpec("x", ("batch", 3), "float32"),)
    assert plain.outputs == (TensorSpec("y", ("batch", 4), "float32"),)
    labels = ("ok", "bent", "cracked", "missing")
    sheet, graph = imported(tmp_path, linear(), task="classification", labels=labels)
    assert (sheet.contract.scores, sheet.contract.labels) == ("scores", labels)
    rows = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    scores = answers(sheet.contract, graph, {}, {"x": rows}).outputs["scores"]
    exponents = np.exp(rows @ WEIGHTS)
    np.testing.assert_allclose(scores, exponents / exponents.sum(axis=1, keepdims=True), rtol=1e-4)


def test_probabilities_are_a_classification_by_themselves(tmp_path: Path) -> None:
    contract = imported(tmp_path, linear(softmax=True))[0].contract
    assert (contract.task, contract.scores) == ("classification", "p")
    assert contract.labels == ("class-0", "class-1", "class-2", "class-3")
    assert imported(tmp_path, linear(softmax=True), task="tensors")[0].contract.task == "tensors"


def test_scores_between_0_and_1_that_do_not_sum_to_1_are_no_probabilities(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Sigmoid", ["x"], ["y"])], [("x", FLOAT, ["N", 3])], [("y", FLOAT, ["N", 3])])
    assert imported(tmp_path, model)[0].contract.task == "tensors"


def one_score(sigmoid: bool = True, axes: Sequence[Any] = ("N", 1), kind: int = FLOAT) -> Any:
    """One number a sample, with a Sigmoid or without."""
    column = WEIGHTS[:, :1].astype(helper.tensor_dtype_to_np_dtype(kind))
    flat = len(axes) == 1
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["sum"]),
        helper.make_node("Sigmoid" if sigmoid else "Identity", ["sum"], ["p"]),
        helper.make_node("Squeeze" if flat else "Identity", ["p", "axis"] if flat else ["p"], ["y"]),
    ]
    weights = {"w": column, "axis": np.array([1])} if flat else {"w": column}
    return model_of(nodes, [("x", kind, ["N", 3])], [("y", kind, axes)], weights)


ROWS = np.random.default_rng(8).standard_normal((60, 3)).astype(np.float32)
SECOND = 1 / (1 + np.exp(-(ROWS @ WEIGHTS[:, 0])))
"""The probability of the second label."""


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (one_score(), {}),
        (one_score(axes=("N",)), {}),
        (one_score(kind=TensorProto.DOUBLE), {}),
        (one_score(sigmoid=False), {"task": "classification"}),
    ],
)
def test_one_probability_and_two_labels_are_a_classification(
    tmp_path: Path, model: Any, options: dict[str, Any]
) -> None:
    sheet, graph = imported(tmp_path, model, labels=["no", "yes"], **options)
    contract = sheet.contract
    assert (contract.task, contract.labels, contract.scores) == ("classification", ("no", "yes"), "scores")
    rows = ROWS.astype(contract.inputs[0].dtype)
    scores = answers(contract, graph, {}, {"x": rows}).outputs["scores"]
    np.testing.assert_allclose(scores, np.stack([1 - SECOND, SECOND], axis=1), atol=1e-5)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_a_threshold_is_where_the_second_label_begins_to_be_the_answer(tmp_path: Path, threshold: float) -> None:
    sheet, graph = imported(tmp_path, one_score(), labels=["no", "yes"], threshold=threshold)
    contract = sheet.contract
    scores = answers(contract, graph, {}, {"x": ROWS}).outputs["scores"]
    second = np.greater(SECOND, threshold)
    np.testing.assert_array_equal(scores.argmax(axis=1) == 1, second)
    assert 5 < second.sum() < 55
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    assert np.array_equal(np.argsort(scores[:, 1]), np.argsort(SECOND))
    assert f"'yes' is the answer from {threshold:g}" in contract.outputs[0].description
    assert f"--threshold {threshold:g}" in sheet.about.lineage["command"]


def test_a_threshold_of_two_probabilities(tmp_path: Path) -> None:
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Softmax", ["y"], ["p"], axis=-1)],
        [("x", FLOAT, ["N", 3])],
        [("p", FLOAT, ["N", 2])],
        {"w": WEIGHTS[:, :2]},
    )
    plain, theirs = imported(tmp_path, model)
    sheet, graph = imported(tmp_path, model, labels=["no", "yes"], threshold=0.3)
    plainly = answers(plain.contract, theirs, {}, {"x": ROWS}).outputs["p"]
    scores = answers(sheet.contract, graph, {}, {"x": ROWS}).outputs["scores"]
    np.testing.assert_array_equal(scores.argmax(axis=1) == 1, plainly[:, 1] > 0.3)


def test_one_number_that_nobody_calls_a_probability_stays_one(tmp_path: Path) -> None:
    assert imported(tmp_path, one_score())[0].contract.task == "tensors"
    for options in ({"labels": ["a", "b", "c"]}, {"task": "classification"}, {"threshold": 0.2}):
        line = refused(tmp_path, one_score(), ConfigError, **options)
        assert "'y' is one number a sample" in line
        assert "--labels no,yes" in line
    line = refused(tmp_path, one_score(sigmoid=False), ConfigError, labels=["no", "yes"])
    assert "--task classification" in line
    assert "Sigmoid" in line


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (linear(softmax=True), {"threshold": 0.2}, "--threshold is for two labels, and there are 4"),
        (one_score(), {"labels": ["no", "yes"], "threshold": 1.0}, "--threshold 1: wanted a probability between"),
        (one_score(), {"threshold": 0.2, "task": "tensors"}, "--threshold is for a classification of two labels"),
    ],
)
def test_a_threshold_that_makes_no_sense(tmp_path: Path, model: Any, options: dict[str, Any], said: str) -> None:
    assert said in refused(tmp_path, model, ConfigError, **options)


def test_float64_probabilities_become_float32(tmp_path: Path) -> None:
    model = model_of(
        [helper.make_node("Softmax", ["x"], ["p"], axis=-1)],
        [("x", TensorProto.DOUBLE, ["N", 3])],
        [("p", TensorProto.DOUBLE, ["N", 3])],
    )
    contract = imported(tmp_path, model)[0].contract
    assert contract.outputs == (TensorSpec("scores", ("batch", 3), "float32"),)


def test_a_batch_of_one_is_opened_where_the_answers_stay_the_same(tmp_path: Path) -> None:
    sheet, graph = imported(tmp_path, linear(batch=1))
    assert sheet.contract.batched
    assert sheet.contract.inputs[0].shape == ("batch", 3)
    rows = np.random.default_rng(1).standard_normal((7, 3)).astype(np.float32)
    np.testing.assert_allclose(answers(sheet.contract, graph, {}, {"x": rows}).outputs["y"], rows @ WEIGHTS, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, "N"])
def test_a_graph_that_mixes_its_samples_takes_no_batch(tmp_path: Path, batch: Any) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["y"]),
    ]
    model = model_of(nodes, [("x", FLOAT, [batch, 3])], [("y", FLOAT, [batch, 3])])
    contract = imported(tmp_path, model)[0].contract
    assert not contract.batched
    assert contract.task == "tensors"
    line = refused(tmp_path, model, ConfigError, task="classification")
    assert "takes no batch" in line


def test_a_graph_that_turns_its_samples_round_takes_no_batch(tmp_path: Path) -> None:
    numbers = {name: np.array([number]) for name, number in {"from": -1, "to": -99, "axis": 0, "by": -1}.items()}
    nodes = [helper.make_node("Slice", ["x", "from", "to", "axis", "by"], ["y"])]
    model = model_of(nodes, [("x", FLOAT, ["N", 3])], [("y", FLOAT, ["N", 3])], numbers)
    assert not imported(tmp_path, model)[0].contract.batched


def test_a_reshape_to_one_sample_takes_no_batch(tmp_path: Path) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    model = model_of(
        nodes, [("x", FLOAT, [1, 2, 3])], [("y", FLOAT, [1, 6])], {"shape": np.array([1, -1], dtype=np.int64)}
    )
    contract = imported(tmp_path, model)[0].contract
    assert not contract.batched
    assert contract.inputs[0].shape == (1, 2, 3)


def test_a_state_whose_batch_is_not_axis_0_takes_no_batch(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["state"], ["next"]), helper.make_node("Identity", ["x"], ["y"])]
    inputs: list[Value] = [("x", FLOAT, ["N", 3]), ("state", FLOAT, [2, "N", 8]), ("rate", INT64, [])]
    model = model_of(
        [*nodes, helper.make_node("Identity", ["rate"], ["again"])],
        inputs,
        [("y", FLOAT, ["N", 3]), ("next", FLOAT, [2, "N", 8]), ("again", INT64, [])],
    )
    contract = imported(tmp_path, model)[0].contract
    assert not contract.batched
    assert [spec.shape for spec in contract.inputs] == [("N", 3), (2, "N", 8), ()]
    assert [spec.shape for spec in contract.outputs] == [("N", 3), (2, "N", 8), ()]


def test_axes_of_outputs_are_found_by_running(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["x", "x"], ["twice"], axis=2),
    ]
    model = model_of(
        nodes,
        [("x", FLOAT, [None, "rows", "columns"])],
        [("turned", FLOAT, [None, None, None]), ("twice", FLOAT, [None, None, None])],
    )
    contract = imported(tmp_path, model)[0].contract
    assert contract.inputs[0].shape == ("batch", "rows", "columns")
    assert contract.outputs[0].shape == ("batch", "columns", "rows")
    assert contract.outputs[1].shape == ("batch", "rows", "twice_2")


def test_an_open_axis_without_a_name_is_asked_for_and_given(tmp_path: Path) -> None:
    model = model_of(
        [helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, [None, None])], [("y", FLOAT, [None, None])]
    )
    line = refused(tmp_path, model, ConfigError)
    assert "x.1" in line
    assert "--dim x.1=NAME" in line
    named = imported(tmp_path, model, dims=parse_dims(["x.1=samples"]))[0]
    assert named.contract.outputs[0].shape == ("batch", "samples")
    assert "--dim x.1=samples" in named.about.lineage["command"]
    sized = imported(tmp_path, model, dims=parse_dims(["x.1=160"]))[0]
    assert sized.contract.outputs[0].shape == ("batch", 160)
    assert "x.0, x.1" in refused(tmp_path, model, ConfigError, dims={"z.1": 3})


def test_a_size_for_one_axis_is_a_size_for_its_name(tmp_path: Path) -> None:
    inputs: list[Value] = [("a", FLOAT, ["N", "tokens"]), ("b", FLOAT, ["N", "tokens"])]
    model = model_of([helper.make_node("Add", ["a", "b"], ["y"])], inputs, [("y", FLOAT, ["N", "tokens"])])
    contract = imported(tmp_path, model, dims={"b.1": 16})[0].contract
    assert {spec.shape for spec in (*contract.inputs, *contract.outputs)} == {("batch", 16)}


def test_names_become_identifiers_everywhere_in_the_graph(tmp_path: Path) -> None:
    branch = {
        name: helper.make_graph(
            [helper.make_node(kind, ["dense/x:0"], [name])],
            name,
            [],
            [helper.make_tensor_value_info(name, FLOAT, None)],
        )
        for name, kind in (("positive", "Abs"), ("negative", "Neg"))
    }
    nodes = [
        helper.make_node("ReduceSum", ["dense/x:0"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["more"]),
        helper.make_node("If", ["more"], ["2/y:0"], then_branch=branch["positive"], else_branch=branch["negative"]),
    ]
    model = model_of(nodes, [("dense/x:0", FLOAT, [5])], [("2/y:0", FLOAT, [5])], {"zero": np.float32(0)})
    sheet, graph = imported(tmp_path, model)
    assert [spec.name for spec in (*sheet.contract.inputs, *sheet.contract.outputs)] == ["dense_x_0", "_2_y_0"]
    row = np.array([1, -2, 3, -4, 5], dtype=np.float32)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"dense_x_0": row})[0], np.abs(row))
    np.testing.assert_array_equal(session.run(None, {"dense_x_0": row - 2})[0], 2 - row)


def test_outputs_can_be_chosen_and_the_rest_goes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"], axis=-1),
        helper.make_node("MatMul", ["x", "w"], ["hidden"]),
        helper.make_node("ArgMax", ["p"], ["top"], axis=1, keepdims=0),
    ]
    model = model_of(
        nodes,
        [("x", FLOAT, ["N", 3])],
        [("top", INT64, ["N"]), ("hidden", FLOAT, ["N", 4]), ("p", FLOAT, ["N", 3])],
        {"w": WEIGHTS},
    )
    both = imported(tmp_path, model)[0].contract
    assert (both.task, len(both.outputs)) == ("classification", 3)
    sheet, graph = imported(tmp_path, model, outputs=["p"])
    assert [spec.name for spec in sheet.contract.outputs] == ["p"]
    kept = onnx.load_from_string(graph).graph
    assert [node.op_type for node in kept.node] == ["Softmax"]
    assert not kept.initializer
    assert "top, hidden, p" in refused(tmp_path, model, ConfigError, outputs=["q"])


def test_weights_that_are_listed_as_inputs_are_none(tmp_path: Path) -> None:
    model = linear()
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [3, 4]))
    assert [spec.name for spec in imported(tmp_path, model)[0].contract.inputs] == ["x"]


def test_weights_beside_the_file_come_in(tmp_path: Path) -> None:
    path = tmp_path / "theirs.onnx"
    onnx.save(linear(), path, save_as_external_data=True, location="theirs.bin", size_threshold=0)
    assert (tmp_path / "theirs.bin").stat().st_size >= WEIGHTS.nbytes
    options: dict[str, Any] = {"name": "theirs", "version": "1", "progress": lambda _: None}
    sheet, graph, _ = import_model(str(path), **options)
    rows = np.ones((2, 3), dtype=np.float32)
    np.testing.assert_allclose(answers(sheet.contract, graph, {}, {"x": rows}).outputs["y"], rows @ WEIGHTS, rtol=1e-5)
    (tmp_path / "theirs.bin").unlink()
    with pytest.raises(ConfigError, match=r"theirs\.bin, in which the graph keeps weights, is missing"):
        import_model(str(path), **options)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret.bin")
    assert "../secret.bin" in refused(tmp_path, model, RejectedError)


def test_the_same_model_gives_the_same_bytes_wherever_it_was_made(tmp_path: Path) -> None:
    one = linear()
    other = linear()
    other.producer_name, other.doc_string, other.graph.name = "someone", "/home/someone/train.py", "other"
    other.graph.node[0].doc_string = "/home/someone/train.py, line 3"
    other.metadata_props.add(key="path", value="/home/someone")
    other.graph.initializer.insert(0, numpy_helper.from_array(np.float32(1), "zz"))
    one.graph.initializer.append(numpy_helper.from_array(np.float32(1), "zz"))
    graphs = [imported(tmp_path, model)[1] for model in (one, other)]
    assert graphs[0] == graphs[1]
    assert b"train.py" not in graphs[1]


def test_the_lineage_names_no_path(tmp_path: Path) -> None:
    sheet, _ = imported(tmp_path, linear(), task="classification", labels=["a", "b", "c", "d e"])
    lineage = sheet.about.lineage
    assert (lineage["kind"], lineage["source"]) == ("onnx", "theirs.onnx")
    assert lineage["sha256"].startswith("sha256:")
    assert lineage["tools"]["onnx"] == onnx.__version__
    assert lineage["command"] == (
        "edge-agent model import theirs.onnx --out theirs --name theirs --version 1 --task classification "
        "--labels 'a,b,c,d e'"
    )
    assert str(tmp_path) not in str(lineage)


def test_an_unknown_operator_is_named_with_its_opset(tmp_path: Path) -> None:
    outputs: list[Value] = [("y", FLOAT, ["N", 3])]
    default = model_of([helper.make_node("Frobnicate", ["x"], ["y"])], [("x", FLOAT, ["N", 3])], outputs)
    line = refused(tmp_path, default, RejectedError)
    assert "operator Frobnicate (opset 17 of ai.onnx)" in line
    nodes = [helper.make_node("Polish", ["x"], ["y"], domain="com.example")]
    custom = model_of(nodes, [("x", FLOAT, ["N", 3])], outputs, domains=["com.example"])
    line = refused(tmp_path, custom, RejectedError)
    assert "operator Polish (opset 1 of com.example)" in line
    assert ort.__version__ in line


def test_an_opset_from_the_future_is_named(tmp_path: Path) -> None:
    line = refused(tmp_path, linear(opset=99), RejectedError)
    assert "opset 99 of ai.onnx is newer" in line


def test_an_invalid_graph_is_refused(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Relu", ["nowhere"], ["y"])], [("x", FLOAT, [1])], [("y", FLOAT, [1])])
    assert "not valid ONNX" in refused(tmp_path, model, RejectedError)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no model", b"\x08"])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "theirs.onnx"
    path.write_bytes(content)
    with pytest.raises(RejectedError, match="no ONNX"):
        import_model(str(path), name="theirs", version="1", progress=lambda _: None)


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    data = linear().SerializeToString()
    path = tmp_path / "theirs.onnx"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(RejectedError, match="no ONNX"):
        import_model(str(path), name="theirs", version="1", progress=lambda _: None)


def test_text_and_sequences_are_refused_and_can_be_left_out(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["p"], axis=-1),
        helper.make_node("SplitToSequence", ["x"], ["parts"], axis=1),
    ]
    model = model_of(nodes, [("x", FLOAT, ["N", 3])], [("p", FLOAT, ["N", 3])])
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    model.graph.output.append(helper.make_value_info("parts", kind))
    line = refused(tmp_path, model, RejectedError)
    assert "'parts' is a sequence" in line
    assert "--output" in line
    assert imported(tmp_path, model, outputs=["p"])[0].contract.task == "classification"
    text = model_of(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.STRING, ["N", 1])],
        [("y", TensorProto.STRING, ["N", 1])],
    )
    assert "'x' holds text" in refused(tmp_path, text, RejectedError)


def test_labels_must_be_as_many_as_scores(tmp_path: Path) -> None:
    line = refused(tmp_path, linear(softmax=True), ConfigError, labels=["a", "b"])
    assert line == "2 labels, where output 'p' has 4 scores a sample"
    assert "--task classification" in refused(tmp_path, linear(), ConfigError, labels=["a", "b", "c", "d"])
    assert "once" in refused(tmp_path, linear(softmax=True), ConfigError, labels=["a", "a", "b", "c"])


def test_a_task_that_the_graph_is_not_for(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, ["N", 1])], [("y", FLOAT, ["N", 1])])
    assert "y (batch, 1) float32" in refused(tmp_path, model, ConfigError, task="embedding")
    assert "two labels" in refused(tmp_path, model, ConfigError, task="classification")
    assert imported(tmp_path, linear(), task="embedding")[0].contract.embedding == "y"
    assert "recipe" in refused(tmp_path, linear(), ConfigError, task="reading")
    assert "classification, embedding, tensors" in refused(tmp_path, linear(), ConfigError, task="regression")


def test_a_name_that_no_bundle_may_have(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name 'Not Good'"):
        import_model(saved(tmp_path, linear()), name="Not Good", version="1", progress=lambda _: None)


def test_a_graph_without_room_in_a_bundle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_GRAPH_BYTES", 100)
    assert "take a smaller model" in refused(tmp_path, linear(), RejectedError)


@pytest.mark.parametrize("source", ["missing.onnx", "missing.pkl", "/missing/folder", "two words"])
def test_a_source_that_is_not_there(source: str) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        import_model(source, name="theirs", version="1", progress=lambda _: None)


def test_a_source_of_no_known_kind(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"\x89HDF")
    options: dict[str, Any] = {"name": "theirs", "version": "1", "progress": lambda _: None}
    with pytest.raises(ConfigError, match=r"ends in \.onnx"):
        import_model(str(tmp_path / "model.h5"), **options)
    saved(tmp_path, linear())
    with pytest.raises(ConfigError, match=r"theirs\.onnx"):
        import_model(str(tmp_path), **options)


def test_options_on_the_command_line() -> None:
    assert parse_dims(["input.1=576", "a.b.0=rows"]) == {"input.1": 576, "a.b.0": "rows"}
    spec = parse_inputs(["image:FLOAT32:batch,3,224,224"])[0]
    assert spec == TensorSpec("image", ("batch", 3, 224, 224), "float32")
    assert parse_inputs(["rate:int64:"])[0].shape == ()
    for wrong in ("input=3", "input.x=3", "input.1=", "input.1=0", "input.1=-4"):
        with pytest.raises(ConfigError, match=r"INPUT\.AXIS=SIZE"):
            parse_dims([wrong])
    for wrong in ("image", "image:float33:3", "image:float32:0,3", "1image:float32:3"):
        with pytest.raises(ConfigError, match="NAME:DTYPE:AXES"):
            parse_inputs([wrong])
