"""From a trained torch module to a float ONNX graph with the softmax inside and a batch of any size."""

import io
import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import nn

from edge_models.tensors import TensorSpec

OPSET = 17
"""Every runtime since ONNX Runtime 1.13 knows it, and static quantization needs no newer one."""


def classifier_to_onnx(net: nn.Module, inputs: Sequence[TensorSpec], scores: TensorSpec) -> bytes:
    """The ONNX graph of `net` (inputs → logits) with probabilities as its output. `inputs` have fixed shapes."""
    examples = tuple(
        torch.zeros([2, *(axis for axis in spec.shape[1:] if isinstance(axis, int))], dtype=getattr(torch, spec.dtype))
        for spec in inputs
    )
    file = io.BytesIO()
    with warnings.catch_warnings():
        # torch's newer exporter would bring two more packages and give these networks the same graph.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            nn.Sequential(net, nn.Softmax(dim=-1)).eval(),
            examples,
            file,
            input_names=[spec.name for spec in inputs],
            output_names=[scores.name],
            dynamic_axes={spec.name: {0: "batch"} for spec in (*inputs, scores)},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load_from_string(file.getvalue())
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data
