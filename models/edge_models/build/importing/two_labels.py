"""The end of a graph that tells two labels apart: a score for each, and the answer where somebody wants it to be."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edge_models.build.importing.graphs import identifier, names_in, replace_output
from edge_models.tensors import BATCH, TensorSpec

EVEN = 0.5
"""From which probability on the second label is the answer of whoever takes the likelier one."""


def is_lone(spec: TensorSpec) -> bool:
    """Whether an output is one number a sample: of a classification, the probability of the second of two labels."""
    return spec.shape in ((BATCH,), (BATCH, 1))


def of_two(model: Any, spec: TensorSpec, name: str, threshold: float | None, *, raw: bool) -> TensorSpec:
    """Put ``(batch, 2) float32`` scores in the place of this output, which is one number a sample, or two.

    `raw`: it is no probability yet, so that a Sigmoid, or of two a Softmax, comes first. A `threshold` moves scores so
    that the second label has 0.5 where its probability p is the threshold t, as another prior would:
    p(1-t) / (p(1-t) + (1-p)t). Everything that takes the likelier label then decides at the threshold.
    """
    end = _End(model, name)
    source = spec.name
    if spec.dtype != "float32":
        source = end.add("Cast", [source], to=TensorProto.FLOAT)
    if is_lone(spec):
        if len(spec.shape) == 1:
            source = end.add("Unsqueeze", [source, end.constant([1], "int64")])
        second = end.add("Sigmoid", [source]) if raw else source
    else:
        source = end.add("Softmax", [source], axis=1) if raw else source
        second = end.add("Gather", [source, end.constant([1], "int64")], axis=1)
    one = end.constant(1.0)
    if threshold is not None and threshold != EVEN:
        up = end.add("Mul", [second, end.constant(1.0 - threshold)])
        down = end.add("Mul", [end.add("Sub", [one, second]), end.constant(threshold)])
        second = end.add("Div", [up, end.add("Add", [up, down])])
    scores = end.add("Concat", [end.add("Sub", [one, second]), second], axis=1)
    replace_output(model, spec.name, scores, end.nodes, (BATCH, 2))
    return TensorSpec(scores, (BATCH, 2), "float32")


class _End:
    """Nodes to be appended to a graph, with names of their own; the last one's is the plain one."""

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name, self.taken = model, name, names_in(model)
        self.nodes: list[Any] = []

    def add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        """Another node; the name of what it gives."""
        made = self._name(self.name if kind == "Concat" else f"{self.name}_{kind.lower()}")
        self.nodes.append(helper.make_node(kind, inputs, [made], **attributes))
        return made

    def constant(self, value: Any, dtype: str = "float32") -> str:
        """Another constant."""
        made = self._name(f"{self.name}_constant")
        self.model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), made))
        return made

    def _name(self, base: str) -> str:
        made = identifier(base, self.taken)
        self.taken.add(made)
        return made
