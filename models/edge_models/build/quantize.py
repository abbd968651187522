"""Static int8 quantization through optimum and ONNX Runtime, safe on every CPU of a mixed fleet."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantizationMode, QuantType
from optimum.onnxruntime import ORTQuantizer
from optimum.onnxruntime.configuration import CalibrationConfig, QuantizationConfig

from edge_models.build.recipe import Split

OPERATORS = ["Conv", "Gemm", "MatMul", "Relu"]
"""What runs in int8. Pre-processing, pooling and softmax stay in float: they cost little and lose much."""

SCHEME = "static QDQ, int8 weights per channel in a reduced range, uint8 activations by min-max calibration"
"""For the card. The reduced range costs nothing measurable and keeps AVX2 CPUs, whose int16 accumulators overflow
at full range, on the same answers as those with VNNI. Source: ONNX Runtime's quantization guide, and measured."""


def to_int8(graph: bytes, calibration: Split) -> bytes:
    """The int8 version of a float graph, its activation ranges taken from `calibration`."""
    logging.getLogger("optimum").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(graph)
        quantizer = ORTQuantizer(path)
        ranges = quantizer.fit(
            _Samples(calibration),
            CalibrationConfig("", "", "", len(calibration), CalibrationMethod.MinMax),
            onnx_augmented_model_name=Path(folder) / "augmented.onnx",
            operators_to_quantize=OPERATORS,
        )
        quantizer.quantize(
            QuantizationConfig(
                is_static=True,
                format=QuantFormat.QDQ,
                mode=QuantizationMode.QLinearOps,
                activations_dtype=QuantType.QUInt8,
                weights_dtype=QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
                operators_to_quantize=OPERATORS,
            ),
            save_dir=folder,
            calibration_tensors_range=ranges,
        )
        return _canonical(onnx.load(Path(folder) / "model_quantized.onnx"))


class _Samples:
    """A split as the data set optimum iterates over: one dict a sample."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index in range(len(self.split)):
            yield {name: array[index] for name, array in self.split.inputs.items()}


def _canonical(model: Any) -> bytes:
    """The model's bytes with its initializers in order of name: the quantizer keeps them in sets."""
    initializers = sorted(model.graph.initializer, key=lambda tensor: str(tensor.name))
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
