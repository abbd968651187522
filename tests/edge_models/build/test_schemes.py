"""Schemes: what each makes of a graph, the same bytes each time, and what it says of data it can't use."""

import hashlib
import logging
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from edge_models.contract import Contract
from edge_models.errors import ConfigError, RejectedError
from edge_models.tensors import TensorSpec

if any(find_spec(name) is None for name in ("onnx", "optimum")):
    pytest.skip("the extra `models` is not installed", allow_module_level=True)

import onnx
from onnx import numpy_helper

from edge_models.build import suits
from edge_models.build.run import answers
from edge_models.build.samples import Samples
from edge_models.build.schemes import SCHEMES, apply

WIDTH = 320


def contract(*shape: int | str, batched: bool = True) -> Contract:
    """A model of tensors from ``x`` to ``y``."""
    axis: tuple[str, ...] = ("batch",) if batched else ()
    return Contract(
        "some",
        "1",
        "tensors",
        (TensorSpec("x", (*axis, *shape), "float32"),),
        (TensorSpec("y", (*axis, "n"), "float32"),),
        batched=batched,
    )


def graph(text: str, **weights: Any) -> bytes:
    """A graph in ONNX's own notation, with these constants."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    data: bytes = model.SerializeToString()
    return data


def noise(*shape: int) -> Any:
    """Always the same."""
    return np.random.default_rng(len(shape) + sum(shape)).normal(0, 0.1, shape).astype(np.float32)


def linear() -> bytes:
    """A large layer, another after it, and a small one; none has a name."""
    return graph(
        f"g (float[batch,{WIDTH}] x) => (float[batch,n] y) {{ a = MatMul(x, w) b = Relu(a)"
        " c = Gemm<transB = 1>(b, v, bias) y = MatMul(c, u) }",
        w=noise(WIDTH, WIDTH),
        v=noise(WIDTH, WIDTH),
        bias=noise(WIDTH),
        u=noise(WIDTH, 4),
    )


def samples(rows: int, *shape: int) -> Samples:
    """Some."""
    return Samples({"x": np.random.default_rng(3).normal(0, 1, (rows, *shape)).astype(np.float32)})


def nodes(made: bytes) -> list[Any]:
    """Of the main graph."""
    return list(onnx.load_from_string(made).graph.node)


def constants(made: bytes) -> dict[str, Any]:
    """By name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(made).graph.initializer}


def int8_weights(made: bytes) -> Any:
    """All matrices of int8 in one row."""
    return np.concatenate([a.ravel() for a in constants(made).values() if a.dtype == np.int8 and a.ndim > 1])


def cosine(ours: bytes, theirs: bytes, given: Samples) -> float:
    """How alike the two answer."""
    a, b = (answers(contract(WIDTH), g, {}, given.inputs).outputs["y"].ravel() for g in (ours, theirs))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize(("scheme", "least"), [("static", 0.99), ("dynamic", 0.99), ("int4", 0.98)])
def test_a_scheme_shrinks_a_graph_and_keeps_its_answers(scheme: str, least: float) -> None:
    given = samples(24, WIDTH)
    made = apply(scheme, contract(WIDTH), linear(), given)
    assert len(made) < len(linear()) * (0.25 if scheme == "int4" else 0.3)
    assert cosine(made, linear(), samples(50, WIDTH)) > least


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_weights_keep_to_the_reduced_range_unless_the_fleet_is_declared_vnni_only(scheme: str) -> None:
    given = samples(8, WIDTH)
    assert np.abs(int8_weights(apply(scheme, contract(WIDTH), linear(), given))).max() == 64
    full = apply(scheme, contract(WIDTH), linear(), given, vnni_only=True)
    assert np.abs(int8_weights(full).astype(int)).max() == 127


def test_dynamic_has_a_scale_a_channel_and_leaves_products_of_values_in_float() -> None:
    attention = graph(
        "g (float[batch,8,320] x) => (float[batch,8,8] y) { q = MatMul(x, w) k = MatMul(x, v)"
        " t = Transpose<perm = [0, 2, 1]>(k) y = MatMul(q, t) }",
        w=noise(WIDTH, 64),
        v=noise(WIDTH, 64),
    )
    made = apply("dynamic", contract(8, WIDTH), attention, None)
    kinds = [node.op_type for node in nodes(made)]
    assert kinds.count("MatMulInteger") == 2
    assert kinds.count("MatMul") == 1
    assert {a.shape for name, a in constants(made).items() if name.endswith("_scale")} == {(64,)}


def test_dynamic_takes_graphs_with_operators_whose_types_onnx_does_not_know() -> None:
    fused = graph(
        f"g (float[batch,{WIDTH}] x) => (float[batch,n] y) {{ a = com.microsoft.FastGelu(x) b = MatMul(a, w)"
        " c = com.microsoft.FastGelu(b) y = MatMul(c, v) }",
        w=noise(WIDTH, 64),
        v=noise(64, 8),
    )
    made = apply("dynamic", contract(WIDTH), fused, None)
    assert [node.op_type for node in nodes(made)].count("MatMulInteger") == 2


def test_int4_is_for_large_layers_and_puts_tables_in_int8() -> None:
    text = graph(
        "g (int64[batch,n] x) => (float[batch,n,4] y) { a = Gather(table, x) b = MatMul(a, w) y = MatMul(b, u) }",
        table=noise(1000, WIDTH),
        w=noise(WIDTH, WIDTH),
        u=noise(WIDTH, 4),
    )
    made = apply("int4", contract(WIDTH), text, None)
    (large,) = [node for node in nodes(made) if node.op_type == "MatMulNBits"]
    said = {attribute.name: attribute.i for attribute in large.attribute}
    assert said == {"K": WIDTH, "N": WIDTH, "bits": 4, "block_size": 32, "accuracy_level": 4}
    assert [node.op_type for node in nodes(made)].count("MatMul") == 1
    assert constants(made)["table_quantized"].dtype == np.uint8


def test_static_calibrates_a_model_that_takes_no_batch() -> None:
    one = graph(
        f"g (float[{WIDTH}] x) => (float[n] y) {{ y = MatMul(x, w) }}",
        w=noise(WIDTH, WIDTH),
    )
    made = apply("static", contract(WIDTH, batched=False), one, samples(5, WIDTH))
    assert "QuantizeLinear" in [node.op_type for node in nodes(made)]


def test_static_takes_graphs_of_an_older_opset() -> None:
    model = onnx.load_from_string(linear())
    model.opset_import[0].version = 11
    old = model.SerializeToString()
    made = apply("static", contract(WIDTH), old, samples(8, WIDTH))
    assert cosine(made, old, samples(50, WIDTH)) > 0.99


def test_the_same_call_gives_the_same_bytes_in_another_process() -> None:
    given = samples(8, WIDTH)
    here = {scheme: hashlib.sha256(apply(scheme, contract(WIDTH), linear(), given)).hexdigest() for scheme in SCHEMES}
    script = (
        f"import runpy; m = runpy.run_path({__file__!r}); import hashlib\n"
        "for s in m['SCHEMES']:\n"
        "    made = m['apply'](s, m['contract'](m['WIDTH']), m['linear'](), m['samples'](8, m['WIDTH']))\n"
        "    print(s, hashlib.sha256(made).hexdigest())\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True, timeout=100
    )
    assert dict(line.split() for line in done.stdout.splitlines()) == here
    assert done.stderr == ""


def test_quantizing_says_nothing_and_leaves_logging_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, root.manager.disable)
    for scheme in SCHEMES:
        apply(scheme, contract(WIDTH), linear(), samples(2, WIDTH))
    assert (root.handlers[:], root.level, root.manager.disable) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (
            {"x": np.full((3, WIDTH), np.nan, np.float32)},
            r"input 'x' has a NaN or an infinite number in sample 0 \(3 of",
        ),
        ({"x": np.zeros((3, 7), np.float32)}, rf"input 'x': came \(3, 7\) float32, wanted \(batch, {WIDTH}\) float32"),
        ({"x": np.zeros((3, WIDTH))}, "input 'x': came .* float64, wanted"),
        ({"z": np.zeros((3, WIDTH), np.float32)}, "came the inputs z, wanted x"),
        ({"x": np.zeros((0, WIDTH), np.float32)}, "wanted one sample or more"),
    ],
)
def test_calibration_data_that_is_wrong_is_named(inputs: dict[str, Any], said: str) -> None:
    with pytest.raises(RejectedError, match=f"^calibration data: .*{said}"):
        apply("static", contract(WIDTH), linear(), Samples(inputs))


def test_a_graph_with_nothing_to_quantize_is_refused_in_a_line() -> None:
    plain = graph(f"g (float[batch,{WIDTH}] x) => (float[batch,n] y) {{ y = Relu(x) }}")
    for scheme in ("dynamic", "static"):
        with pytest.raises(RejectedError, match=f"^{scheme}: nothing in the graph is of a kind"):
            apply(scheme, contract(WIDTH), plain, samples(2, WIDTH))
    with pytest.raises(RejectedError, match=r"^int4: no linear layer has 100,000 weights or more"):
        apply("int4", contract(WIDTH), plain, None)


def test_what_a_quantizer_raises_is_a_line_too() -> None:
    choice = graph(
        f"g (float[batch,{WIDTH}] x, bool c) => (float[batch,n] y) {{ y = If (c) <"
        " then_branch = t () => (float[batch,n] p) { p = MatMul(x, w) },"
        " else_branch = e () => (float[batch,n] q) { q = MatMul(x, v) }> }",
        w=noise(WIDTH, WIDTH),
        v=noise(WIDTH, WIDTH),
    )
    both = Contract(
        "some",
        "1",
        "tensors",
        (TensorSpec("x", ("batch", WIDTH), "float32"), TensorSpec("c", (), "bool")),
        (TensorSpec("y", ("batch", "n"), "float32"),),
        batched=False,
    )
    given = Samples({"x": samples(2, 1, WIDTH).inputs["x"], "c": np.array([True, False])})
    with pytest.raises(RejectedError, match=r"^static: .*subgraphs"):
        apply("static", both, choice, given)
    made = onnx.load_from_string(apply("dynamic", both, choice, None))
    assert [node.op_type for node, _ in suits.nodes(made.graph)].count("MatMulInteger") == 2


def test_there_is_no_other_scheme() -> None:
    with pytest.raises(ConfigError, match="no scheme 'int2': there are dynamic, static, int4"):
        apply("int2", contract(WIDTH), linear(), None)
    with pytest.raises(RejectedError, match="static: it needs samples to calibrate on"):
        apply("static", contract(WIDTH), linear(), None)


def test_a_missing_extra_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optimum.onnxruntime", None)
    with pytest.raises(ConfigError, match=r"pip install 'edge-agent-kit\[models\]' \(optimum.onnxruntime is missing\)"):
        apply("static", contract(WIDTH), linear(), samples(2, WIDTH))
