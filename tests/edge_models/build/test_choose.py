"""Choosing: what suits a graph, what the gates refuse and with which words, and what is taken."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from edge_models.contract import Contract, Step
from edge_models.errors import ConfigError, RejectedError
from edge_models.tensors import TensorSpec

if any(find_spec(name) is None for name in ("onnx", "optimum")):
    pytest.skip("the extra `models` is not installed", allow_module_level=True)

import onnx
from onnx import numpy_helper

from edge_models.build.choose import Choice, Tried, choose, refusal
from edge_models.build.samples import Samples
from edge_models.build.suits import suits
from edge_models.build.workdir import Gates

LABELS = ("low", "high")
ANYTHING = Gates(max_metric_drop=1, min_agreement=0, min_speedup=0.001)


def classifier(width: int) -> Contract:
    """Two labels from so many numbers."""
    return Contract(
        "some",
        "1",
        "classification",
        (TensorSpec("x", ("batch", width), "float32"),),
        (TensorSpec("y", ("batch", len(LABELS)), "float32"),),
        LABELS,
        "y",
    )


def graph(text: str, **weights: Any) -> bytes:
    """A graph in ONNX's own notation, with these constants."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    data: bytes = model.SerializeToString()
    return data


def noise(*shape: int) -> Any:
    """Always the same."""
    return np.random.default_rng(sum(shape)).normal(0, 0.1, shape).astype(np.float32)


def perceptron(width: int, layers: int = 3) -> bytes:
    """Layers of this width, then the sign of the first number's sum as two scores."""
    steps = [f"h{i + 1} = MatMul(h{i}, w{i}) " for i in range(layers)]
    head = np.stack([-np.ones(width), np.ones(width)], axis=1).astype(np.float32)
    return graph(
        f"g (float[batch,{width}] x) => (float[batch,2] y) {{ h0 = Relu(x) {''.join(steps)}"
        f" s = MatMul(h{layers}, head) y = Softmax(s) }}",
        **{f"w{i}": noise(width, width) for i in range(layers)},
        head=head,
    )


def tree(width: int) -> bytes:
    """One comparison."""
    node = onnx.helper.make_node(
        "TreeEnsembleClassifier",
        ["x"],
        ["label", "y"],
        domain="ai.onnx.ml",
        nodes_treeids=[0, 0, 0],
        nodes_nodeids=[0, 1, 2],
        nodes_featureids=[0, 0, 0],
        nodes_values=[0.0, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        nodes_missing_value_tracks_true=[0, 0, 0],
        nodes_hitrates=[1.0, 1.0, 1.0],
        class_treeids=[0, 0],
        class_nodeids=[1, 2],
        class_ids=[0, 1],
        class_weights=[1.0, 1.0],
        classlabels_int64s=[0, 1],
        post_transform="NONE",
    )
    model = onnx.load_from_string(graph(f"g (float[batch,{width}] x) => (float[batch,2] y) {{ y = Identity(x) }}"))
    del model.graph.node[:]
    model.graph.node.append(node)
    data: bytes = model.SerializeToString()
    return data


def samples(width: int, rows: int, seed: int = 1) -> Samples:
    """With labels that have nothing to do with them."""
    rng = np.random.default_rng(seed)
    inputs = {"x": rng.normal(0, 1, (rows, width)).astype(np.float32)}
    return Samples(inputs, tuple(LABELS[i] for i in rng.integers(0, 2, rows)))


def tried(**facts: Any) -> Tried:
    """A variant that holds every gate, but for these facts."""
    usual = Tried("dynamic", "dynamic", b"graph", 5_000_000, {"accuracy": 0.97, "macro_f1": 0.9}, 0.995, 0.5)
    return replace(usual, **facts)


BASE = tried(name="float", scheme="none", size_bytes=20_000_000, agreement=1.0, speed_ratio=1.0)


@pytest.mark.parametrize(
    ("facts", "gates", "said"),
    [
        ({}, Gates(), None),
        ({"speed_ratio": 1 / 1.004}, Gates(), "0.4 % faster than float, 5 % faster is wanted"),
        ({"speed_ratio": 1.29}, Gates(), "29 % slower than float, 5 % faster is wanted"),
        ({"speed_ratio": 1.5}, Gates(min_speedup=0.8), "50 % slower than float, 25 % slower is allowed"),
        ({"speed_ratio": 1.2}, Gates(min_speedup=0.8), None),
        ({"metrics": {"accuracy": 0.91}}, Gates(), "accuracy 0.91 where float has 0.97, 0.01 less is allowed"),
        ({"metrics": {"accuracy": 0.96, "macro_f1": 0.1}}, Gates(), None),
        ({"metrics": {"accuracy": float("nan")}}, Gates(), "accuracy nan where float has 0.97, 0.01 less is allowed"),
        ({"agreement": 0.931}, Gates(), "agrees with float to 93.1 %, 98 % is wanted"),
        ({"agreement": float("nan")}, Gates(), "agrees with float to nan %, 98 % is wanted"),
        ({}, Gates(max_size_bytes=4_000_000), "5,000,000 bytes, 4,000,000 are allowed"),
        (
            {"agreement": 0.5, "speed_ratio": 2.0},
            Gates(),
            "agrees with float to 50 %, 98 % is wanted; 100 % slower than float, 5 % faster is wanted",
        ),
    ],
)
def test_a_refusal_is_a_sentence_with_the_figures(facts: dict[str, Any], gates: Gates, said: str | None) -> None:
    assert refusal(tried(**facts), BASE, gates) == said


def test_without_truth_no_metric_is_asked_for() -> None:
    assert refusal(tried(metrics={}), replace(BASE, metrics={}), Gates()) is None


def test_a_float_graph_that_is_too_large_is_said_to_be() -> None:
    assert refusal(BASE, BASE, Gates(max_size_bytes=1_000)) == "20,000,000 bytes, 1,000 are allowed"


def names(choice: Choice) -> list[str]:
    """Of what was tried."""
    return [variant.name for variant in choice.variants]


def test_large_linear_layers_are_taken_in_fewer_bits_where_it_pays() -> None:
    heard: list[str] = []
    float_graph = perceptron(768)
    choice = choose(
        classifier(768),
        float_graph,
        {},
        None,
        samples(768, 60),
        Gates(max_metric_drop=0.2, min_agreement=0.8),
        progress=heard.append,
    )
    assert names(choice) == ["float", "dynamic", "int4"]
    assert choice.chosen in ("dynamic", "int4")
    assert "large linear layers" in choice.why
    base, dynamic, int4 = choice.variants
    assert base.graph == float_graph
    assert (base.agreement, base.speed_ratio, base.refused) == (1.0, 1.0, None)
    assert int4.size_bytes < dynamic.size_bytes < base.size_bytes == len(float_graph)
    assert all(v.metrics and v.agreement is not None and v.agreement > 0.8 for v in choice.variants)
    assert heard == ["measuring float", "trying dynamic", "trying int4", "timing"]


def test_what_does_not_pay_is_refused_and_float_is_kept() -> None:
    choice = choose(classifier(9), perceptron(9), {}, samples(9, 40), samples(9, 50, 2), Gates(min_speedup=100))
    assert names(choice) == ["float", "static"]
    assert choice.chosen == "float"
    refused = choice.variants[1].refused
    assert refused is not None
    assert refused.endswith("than float, 9,900 % faster is wanted")
    assert choice.variants[1].graph


def test_calibration_sets_the_ranges_and_is_not_measured_on() -> None:
    contract, graph_, evaluation = classifier(16), perceptron(16), samples(16, 200)
    narrow = Samples({"x": evaluation.inputs["x"] * 1e-3})
    good, bad = (
        choose(contract, graph_, {}, given, evaluation, ANYTHING, "static") for given in (samples(16, 64, 2), narrow)
    )
    assert good.variants[0] == bad.variants[0]
    assert good.variants[1].agreement is not None
    assert bad.variants[1].agreement is not None
    assert good.variants[1].agreement > 0.9 > bad.variants[1].agreement


def test_a_scheme_that_cannot_be_applied_is_in_the_table_with_its_reason() -> None:
    choice = choose(classifier(9), perceptron(9), {}, None, samples(9, 8), ANYTHING, "static")
    assert choice.chosen == "float"
    failed = choice.variants[1]
    assert failed.refused == "static: it needs samples to calibrate on"
    assert (failed.graph, failed.agreement, failed.speed_ratio) == (b"", None, None)


def test_none_leaves_it_in_float_and_no_other_scheme_is_known() -> None:
    choice = choose(classifier(9), perceptron(9), {}, None, samples(9, 8), Gates(), "none")
    assert (names(choice), choice.chosen) == (["float"], "float")
    with pytest.raises(ConfigError, match="no scheme 'int2'"):
        choose(classifier(9), perceptron(9), {}, None, samples(9, 8), Gates(), "int2")


def test_trees_are_left_alone() -> None:
    choice = choose(classifier(9), tree(9), {}, None, samples(9, 8), Gates())
    assert (names(choice), choice.chosen) == (["float"], "float")
    assert choice.why == "trees compare, they multiply nothing: there is nothing to quantize"


@pytest.mark.parametrize("role", ["calibration", "evaluation"])
def test_data_with_a_nan_is_refused_before_anything_is_tried(role: str) -> None:
    good, wrong = samples(9, 8), samples(9, 8)
    wrong.inputs["x"][3, 0] = np.nan
    given = (wrong, good) if role == "calibration" else (good, wrong)
    with pytest.raises(
        RejectedError, match=rf"{role} data: input 'x' has a NaN .* in sample 3 \(1 of 8 samples have\)"
    ):
        choose(classifier(9), perceptron(9), {}, *given, Gates())


TENSORS = Contract(
    "some", "1", "tensors", (TensorSpec("x", ("batch", 3), "float32"),), (TensorSpec("y", ("batch", 3), "float32"),)
)
CONVOLUTIONS = graph(
    "g (float[batch,8,64] x) => (float[batch,8,62] y) { y = Conv<kernel_shape = [3]>(x, w) }", w=noise(8, 8, 3)
)
TEXT = graph(
    "g (int64[batch,n] x) => (float[batch,n,320] y) { e = Gather(table, x) y = MatMul(e, w) }",
    table=noise(900, 320),
    w=noise(320, 320),
)
BRANCHES = graph(
    "g (float[batch,8,64] x, bool c) => (float[batch,8,62] y) { y = If (c) <"
    " then_branch = t () => (float[batch,8,62] p) { p = Conv<kernel_shape = [3]>(x, w) },"
    " else_branch = e () => (float[batch,8,62] q) { q = Conv<kernel_shape = [3]>(x, w) }> }",
    w=noise(8, 8, 3),
)
QUANTIZED = graph(
    "g (float[batch,3] x) => (float[batch,3] y) { w = DequantizeLinear(q, s) y = MatMul(x, w) }",
    q=np.ones((3, 3), np.int8),
    s=np.float32(1),
)


@pytest.mark.parametrize(
    ("given", "schemes", "why"),
    [
        (CONVOLUTIONS, ("static",), "convolutional"),
        (TEXT, ("dynamic", "int4"), "text"),
        (BRANCHES, ("dynamic",), "branches"),
        (perceptron(320), ("dynamic", "int4"), "large linear"),
        (perceptron(9), ("static",), "small linear"),
        (QUANTIZED, (), "quantized already"),
        (tree(3), (), "trees"),
        (graph("g (float[batch,3] x) => (float[batch,3] y) { y = Relu(x) }"), (), "no layer with weights"),
    ],
)
def test_what_suits_a_graph(given: bytes, schemes: tuple[str, ...], why: str) -> None:
    found = suits(TENSORS, given)
    assert found.schemes == schemes
    assert why in found.why


def test_a_tokenizer_tells_a_model_of_text() -> None:
    text = replace(TENSORS, steps=(Step("tokenize"),))
    assert suits(text, perceptron(9)).schemes == ("dynamic",)


def test_what_is_no_onnx_is_said_to_be_none() -> None:
    with pytest.raises(RejectedError, match="the graph is no ONNX"):
        suits(TENSORS, b"\xff\xfe not a graph")
