"""The quantizers: a float graph in, a graph of small numbers out, the same bytes each time.

Weights have a reduced range unless the caller knows better. It costs nothing measurable and keeps AVX2 CPUs, whose
int16 accumulators overflow at full range, on the same answers as those with VNNI. Source: ONNX Runtime's quantization
guide, and measured.
"""

import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import version_converter
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantizationMode, QuantType, quantize_dynamic

from edge_models.build.suits import LARGE_LINEAR, QUANTIZED, branches, load, nodes, weight_size
from edge_models.errors import RejectedError
from edge_models.npy import Array

STATIC_OPERATORS = ["Conv", "Gemm", "MatMul", "Relu"]
"""What runs in int8. Pre-processing, pooling and softmax stay in float: they cost little and lose much."""

DYNAMIC_OPERATORS = ["MatMul", "Gather", "Attention", "EmbedLayerNormalization", "LSTM"]
"""A Gemm is made a MatMul first. Not Conv: ONNX Runtime's dynamic convolution is no faster than its float one."""

PER_CHANNEL_OPSET = 13
"""The first where DequantizeLinear takes a scale a channel."""

BLOCK = 32
"""Weights that share a scale in 4 bits."""

INT8_PRODUCTS = 4
"""MatMulNBits' accuracy level that multiplies in int8."""

_WARNING, _ERROR = 2, 3
"""Of ONNX Runtime's own log; the first is its usual."""


def static(graph: bytes, calibration: Iterable[Mapping[str, Array]], *, reduce_range: bool = True) -> bytes:
    """Weights and activations in int8, their ranges those of the `calibration`, each item the inputs of one run."""
    with _working(graph, PER_CHANNEL_OPSET) as path:
        from optimum.onnxruntime import ORTQuantizer  # noqa: PLC0415 - takes seconds, which other schemes need not pay
        from optimum.onnxruntime.configuration import CalibrationConfig, QuantizationConfig  # noqa: PLC0415

        calibrator = CalibrationConfig("", "", "", 0, CalibrationMethod.MinMax).create_calibrator(
            path.as_posix(), STATIC_OPERATORS, augmented_model_name=(path.parent / "augmented.onnx").as_posix()
        )
        calibrator.collect_data(_Runs(calibration))
        ORTQuantizer(path).quantize(
            QuantizationConfig(
                is_static=True,
                format=QuantFormat.QDQ,
                mode=QuantizationMode.QLinearOps,
                activations_dtype=QuantType.QUInt8,
                weights_dtype=QuantType.QInt8,
                per_channel=True,
                reduce_range=reduce_range,
                operators_to_quantize=STATIC_OPERATORS,
            ),
            save_dir=path.parent,
            calibration_tensors_range=calibrator.compute_data(),
        )
        return _canonical(onnx.load(path.with_name("model_quantized.onnx")))


def dynamic(graph: bytes, *, reduce_range: bool = True) -> bytes:
    """Weights in int8, per channel; the ranges of activations are found at each run."""
    with _working(graph) as path:
        return _canonical(_dynamic(path, DYNAMIC_OPERATORS, reduce_range))


def int4(graph: bytes) -> bytes:
    """Large linear layers in 4 bits, their activations in int8 a row; lookup tables in int8."""
    with _working(graph) as path:
        # Here, where nothing that it sets gets out: it configures the root logger when it is imported.
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # noqa: PLC0415

        # With it every Gemm becomes a MatMul, the only layer that the 4-bit quantizer knows.
        model = _dynamic(path, ["Gather"], reduce_range=False)
        layers = [(node, weight_size(node, known)) for node, known in nodes(model.graph) if node.op_type == "MatMul"]
        small = [node.name for node, size in layers if size < LARGE_LINEAR]
        if len(small) == len(layers):
            raise RejectedError(f"no linear layer has {LARGE_LINEAR:,} weights or more")
        quantizer = MatMulNBitsQuantizer(
            model, bits=4, block_size=BLOCK, accuracy_level=INT8_PRODUCTS, nodes_to_exclude=small
        )
        quantizer.process()
        return _canonical(quantizer.model.model)


def _dynamic(path: Path, operators: list[str], reduce_range: bool) -> Any:
    """Not by way of optimum: it can't be told the type of tensors that other domains' operators give."""
    out = path.with_name("dynamic.onnx")
    quantize_dynamic(
        path,
        out,
        op_types_to_quantize=operators,
        per_channel=True,
        reduce_range=reduce_range,
        extra_options={
            "DefaultTensorType": onnx.TensorProto.FLOAT,
            "MatMulConstBOnly": True,
            "EnableSubgraph": branches(onnx.load(path).graph),
        },
    )
    return onnx.load(out)


class _Runs:
    """What a calibrator reads from: the inputs of one run after another, so that no batch is ragged."""

    def __init__(self, runs: Iterable[Mapping[str, Array]]) -> None:
        self._runs = iter(runs)

    def get_next(self) -> dict[str, Array] | None:
        """The next, or None at the end."""
        run = next(self._runs, None)
        # ONNX Runtime takes no scalar of NumPy's, which a sample of an input without axes is.
        return None if run is None else {name: np.asarray(value) for name, value in run.items()}


@contextmanager
def _working(graph: bytes, opset: int = 0) -> Iterator[Path]:
    """The graph, of this opset at least, in a folder of its own.

    Every node has a name there, as the quantizers tell nodes by theirs.
    """
    model = load(graph)
    if any(each.domain in ("", "ai.onnx") and each.version < opset for each in model.opset_import):
        model = version_converter.convert_version(model, opset)
    taken = {node.name for node, _ in nodes(model.graph)}
    for number, (node, _) in enumerate(nodes(model.graph)):
        name = f"{node.op_type}_{number}"
        while not node.name and name in taken:
            name += "_"
        node.name = node.name or name
    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        yield path


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing that the quantizers remark gets out, and the root logger stays as it was."""
    root = logging.getLogger()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    logging.disable(logging.ERROR)
    ort.set_default_logger_severity(_ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.disable(disabled)
        ort.set_default_logger_severity(_WARNING)


def _canonical(model: Any) -> bytes:
    """The model's bytes with its initializers in order of name: the quantizers keep them in sets.

    Raises `RejectedError` where nothing in it was quantized.
    """
    if not QUANTIZED & {node.op_type for node, _ in nodes(model.graph)}:
        raise RejectedError("nothing in the graph is of a kind that this scheme quantizes")
    initializers = sorted(model.graph.initializer, key=lambda tensor: str(tensor.name))
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
