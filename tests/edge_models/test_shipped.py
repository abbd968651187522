"""The bundles that ship: each answers as its golden samples say, and each version 2 is better than its version 1."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edge_models.bundle import Bundle
from edge_models.digests import digest_of
from edge_models.shipped import DATA, shipped_bundles, shipped_path

NAMES = ("appliance", "shuttle", "trace")
MAX_SHIPPED_BYTES = 200_000

BUNDLES = {f"{b.contract.name}-{b.contract.version}": b for b in shipped_bundles()}


@pytest.fixture(params=sorted(BUNDLES))
def bundle(request: pytest.FixtureRequest) -> Bundle:
    found: Bundle = BUNDLES[request.param]
    return found


def session(bundle: Bundle) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(bundle.graph, options, providers=["CPUExecutionProvider"])


def test_two_versions_of_three_models_ship_and_are_small() -> None:
    assert sorted(BUNDLES) == [f"{name}-{version}" for name in NAMES for version in (1, 2)]
    for key in BUNDLES:
        assert shipped_path(*key.split("-")).stat().st_size <= MAX_SHIPPED_BYTES
    assert {path.suffix for path in DATA.iterdir()} <= {".bundle", ".json"}


def test_golden_samples_are_answered_within_the_tolerance(bundle: Bundle) -> None:
    scores = bundle.contract.scores
    (seen,) = session(bundle).run([scores], dict(bundle.golden.inputs))
    np.testing.assert_allclose(seen, bundle.golden.outputs[scores], rtol=0, atol=bundle.contract.golden_atol)
    np.testing.assert_allclose(seen.sum(axis=1), 1, atol=1e-5)


def test_one_sample_at_a_time_is_answered_alike(bundle: Bundle) -> None:
    runner, golden, scores = session(bundle), bundle.golden, bundle.contract.scores
    for index in range(10):
        (seen,) = runner.run([scores], {name: array[index : index + 1] for name, array in golden.inputs.items()})
        np.testing.assert_allclose(seen[0], golden.outputs[scores][index], rtol=0, atol=bundle.contract.golden_atol)


def test_the_graph_is_the_contracts(bundle: Bundle) -> None:
    runner = session(bundle)
    for specs, found in (
        (bundle.contract.inputs, runner.get_inputs()),
        (bundle.contract.outputs, runner.get_outputs()),
    ):
        assert [(s.name, list(s.shape)) for s in specs] == [(f.name, f.shape) for f in found]


def test_the_graph_is_int8_where_the_card_says_so(bundle: Bundle) -> None:
    graph = onnx.load_from_string(bundle.graph).graph
    if bundle.card["precision"] == "float":
        assert not any(node.op_type == "DequantizeLinear" for node in graph.node)
        return
    weights = {tensor.name: tensor.data_type for tensor in graph.initializer}
    dequantized = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert layers
    assert any(node.op_type == "QuantizeLinear" for node in graph.node)
    assert sum(weights.get(name) == onnx.TensorProto.INT8 for name in dequantized) == len(layers)


def test_the_card_is_about_this_bundle(bundle: Bundle) -> None:
    card, golden = bundle.card, bundle.golden
    assert (card["name"], card["version"]) == (bundle.contract.name, bundle.contract.version)
    assert card["lineage"]["graph"] == digest_of(bundle.graph)
    assert card["size"][f"{card['precision']}_bytes"] == len(bundle.graph)
    best = np.argmax(golden.outputs[bundle.contract.scores], axis=1)
    right = [bundle.contract.labels[i] == true for i, true in zip(best, golden.truth, strict=True)]
    assert card["golden"] == {"samples": len(right), "accuracy": round(float(np.mean(right)), 4)}
    assert card["limits"]
    assert {"name", "source", "licence", "split", "counts"} <= card["data"].keys()


def test_golden_samples_hold_each_class_in_its_share(bundle: Bundle) -> None:
    counts = bundle.card["data"]["counts"]["held_out"]
    for label in bundle.contract.labels:
        share = counts["labels"][label] / counts["samples"] * len(bundle.golden.truth)
        assert abs(bundle.golden.truth.count(label) - share) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_version_2_is_better_on_held_out_samples(name: str) -> None:
    old, new = (BUNDLES[f"{name}-{version}"] for version in (1, 2))
    for measure in ("accuracy", "macro_f1"):
        better, worse = (card["metrics"][card["precision"]][measure] for card in (new.card, old.card))
        assert better > worse
    assert new.graph != old.graph
    assert (new.contract.inputs, new.contract.labels) == (old.contract.inputs, old.contract.labels)


@pytest.mark.parametrize("name", NAMES)
def test_quantizing_lost_next_to_nothing(name: str) -> None:
    for version in (1, 2):
        metrics = BUNDLES[f"{name}-{version}"].card["metrics"]
        assert metrics["float"]["accuracy"] - metrics.get("int8", metrics["float"])["accuracy"] <= 0.01
