"""Which quantization suits a graph: read from its operators and the size of their weights, not tried."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from edge_models.contract import Contract
from edge_models.errors import RejectedError

LARGE_LINEAR = 100_000
"""Weights of a linear layer from which fewer bits are quicker to multiply by. Source: measured, six square layers, one
sample: 4 bits had 0.76 of float's speed at a width of 128, 0.86 at 256, 1.35 at 384 and 2.2 at 1,024."""

KINDS: Mapping[str, str] = {
    "Conv": "convolution",
    "ConvTranspose": "convolution",
    "MatMul": "linear",
    "Gemm": "linear",
    "Attention": "linear",
    "Gather": "table",
    "EmbedLayerNormalization": "table",
    "LSTM": "recurrent",
}
"""Operator → what it is to a quantizer."""

QUANTIZED = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "GatherBlockQuantized",
        "MatMulInteger",
        "MatMulNBits",
        "QAttention",
        "QEmbedLayerNormalization",
        "QLinearConv",
        "QLinearMatMul",
    }
)
"""Operators that only a quantized graph has."""

_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16})
_FEW_CONVOLUTIONS, _MANY_TABLES = 0.1, 0.2
"""Shares of all weights. Convolutions use each weight many times: they cost more than their size says."""


@dataclass(frozen=True, slots=True)
class Suits:
    """What to try on a graph."""

    schemes: tuple[str, ...]
    """In this order; none where nothing can be gained."""
    why: str
    """In one line."""


def suits(contract: Contract, graph: bytes) -> Suits:
    """The schemes that suit this graph. Raises `RejectedError` where it is no ONNX."""
    model = load(graph)
    kinds = Counter(node.op_type for node, _ in nodes(model.graph))
    if QUANTIZED & kinds.keys():
        return Suits((), "it is quantized already")
    sizes, large = _weights(model)
    total = sum(sizes.values())
    if not total:
        trees = any(kind.startswith("TreeEnsemble") for kind in kinds)
        what = "trees compare, they multiply nothing" if trees else "it has no layer with weights of its own"
        return Suits((), f"{what}: there is nothing to quantize")
    four_bits = ("int4",) if large else ()
    text = any(step.name == "tokenize" for step in contract.steps) or sizes["table"] >= total * _MANY_TABLES
    if text and sizes["linear"] > sizes["convolution"]:
        return Suits(("dynamic", *four_bits), "a model of text: the range of its values differs from text to text")
    if branches(model.graph):
        return Suits(("dynamic",), "it has branches, whose ranges cannot be calibrated")
    if sizes["convolution"] >= total * _FEW_CONVOLUTIONS:
        return Suits(("static", *(("dynamic",) if large else ())), "convolutional: its ranges are calibrated once")
    if sizes["recurrent"] > sizes["linear"]:
        return Suits(("dynamic",), "recurrent: its ranges are found as it runs")
    if large:
        return Suits(("dynamic", "int4"), "large linear layers: what they cost is reading their weights")
    return Suits(("static",), "small linear layers: int8 may cost more than it saves, which measuring shows")


def load(graph: bytes) -> Any:
    """The `onnx.ModelProto` in these bytes. Raises `RejectedError`."""
    try:
        return onnx.load_from_string(graph)
    except Exception:  # noqa: BLE001 - protobuf's own error, under a name that depends on how it was built
        raise RejectedError("the graph is no ONNX") from None


def nodes(graph: Any, outside: Mapping[str, Any] | None = None) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Every node, those of branches and loops too, with the constant tensors that it can name."""
    constants = dict(outside or {}) | {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for node in graph.node:
        yield node, constants
        for inner in _inside(node):
            yield from nodes(inner, constants)


def branches(graph: Any) -> bool:
    """Whether a node holds a graph of its own."""
    return any(True for node in graph.node for _ in _inside(node))


def weight_size(node: Any, constants: Mapping[str, Any]) -> int:
    """How many constant float numbers the node holds, in matrices and larger."""
    held = (constants[name] for name in node.input if name in constants)
    return sum(math.prod(tensor.dims) for tensor in held if tensor.data_type in _FLOATS and len(tensor.dims) > 1)


def _weights(model: Any) -> tuple[Counter[str], bool]:
    """Weights by kind of layer, and whether a linear layer is large."""
    sizes: Counter[str] = Counter()
    large = False
    for node, constants in nodes(model.graph):
        kind = KINDS.get(node.op_type)
        if kind is not None:
            size = weight_size(node, constants)
            sizes[kind] += size
            large |= kind == "linear" and size >= LARGE_LINEAR
    return sizes, large


def _inside(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs
