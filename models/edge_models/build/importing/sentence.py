"""What a sentence-transformers folder puts behind its network, as the end of the graph: pooling and normalisation."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from edge_models.build.importing.graphs import identifier, names_in, opset_of, replace_output
from edge_models.errors import ConfigError, RejectedError

_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
"""The keys of a pooling's config → what can be put into a graph here."""

TOKENS, MASK, VECTOR = "last_hidden_state", "attention_mask", "embedding"


@dataclass(frozen=True, slots=True)
class Pooling:
    """From vectors of tokens to one vector of a text."""

    mode: str
    """mean, cls or max."""
    normalized: bool
    """To length 1."""


def sentence_parts(folder: Path) -> tuple[Path, Pooling] | None:
    """The folder of the network and what follows it; None where this is no sentence-transformers folder.

    Raises `ConfigError` for a broken one, `RejectedError` where a part is not known here.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return None
    try:
        parts = [(str(part["type"]).rpartition(".")[2], str(part["path"])) for part in json.loads(path.read_text())]
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}: no list of modules with type and path") from None
    kinds = [kind for kind, _ in parts]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        known = "Transformer, Pooling and, if it is there, Normalize"
        raise RejectedError(f"modules.json lists {', '.join(kinds)}: only {known} can be put into a graph here")
    for _, where in parts:
        if not (folder / where).resolve().is_relative_to(folder.resolve()):
            raise RejectedError(f"modules.json names {where!r}, which is not inside the folder")
    return folder / parts[0][1], Pooling(_mode(folder / parts[1][1] / "config.json"), "Normalize" in kinds)


def pool(model: Any, pooling: Pooling) -> None:
    """Put the pooling behind ``last_hidden_state``: the graph gives ``embedding``, ``(batch, N) float32``, and no more.

    Raises `RejectedError` for a graph without it. Source for the floors, 1e-9 and 1e-12: sentence-transformers.
    """
    outputs = {value.name: value for value in model.graph.output}
    if TOKENS not in outputs or MASK not in {value.name for value in model.graph.input}:
        raise RejectedError(f"the graph has no {TOKENS} and {MASK} to pool")
    size = outputs[TOKENS].type.tensor_type.shape.dim[2].dim_value
    end = _End(model)
    vector = {"mean": _mean, "cls": _first, "max": _largest}[pooling.mode](end)
    if pooling.normalized:
        length = end.add("ReduceL2", [vector], 1, keepdims=1)
        vector = end.add("Div", [vector, end.add("Max", [length, end.constant(1e-12)])])
    end.nodes[-1].output[0] = VECTOR
    for name, value in outputs.items():
        if name != TOKENS:
            model.graph.output.remove(value)
    replace_output(model, TOKENS, VECTOR, end.nodes, ("batch", int(size)))


def _mean(end: "_End") -> str:
    mask = end.mask()
    total = end.add("ReduceSum", [end.add("Mul", [TOKENS, mask])], 1, keepdims=0)
    count = end.add("ReduceSum", [mask], 1, keepdims=0)
    return end.add("Div", [total, end.add("Max", [count, end.constant(1e-9)])])


def _first(end: "_End") -> str:
    return end.add("Gather", [TOKENS, end.constant(0, "int64")], axis=1)


def _largest(end: "_End") -> str:
    masked = end.add("Where", [end.add("Cast", [end.mask()], to=9), TOKENS, end.constant(-1e9)])  # 9: bool
    return end.add("ReduceMax", [masked], 1, keepdims=0)


class _End:
    """Nodes to be appended to a graph, with names of their own."""

    def __init__(self, model: Any) -> None:
        self.model, self.taken, self.opset = model, names_in(model), opset_of(model)
        self.nodes: list[Any] = []

    def add(self, kind: str, inputs: list[str], axis_of_reduction: int | None = None, **attributes: Any) -> str:
        """Another node; the name of what it gives."""
        if axis_of_reduction is not None:
            # Axes moved from an attribute to an input: in 13 for ReduceSum, in 18 for the others.
            if self.opset >= (13 if kind == "ReduceSum" else 18):
                inputs = [*inputs, self.constant([axis_of_reduction], "int64")]
            else:
                attributes["axes"] = [axis_of_reduction]
        self.nodes.append(helper.make_node(kind, inputs, [self._name(f"pool_{kind}")], **attributes))
        return str(self.nodes[-1].output[0])

    def constant(self, value: Any, dtype: str = "float32") -> str:
        """Another constant."""
        name = self._name("pool_constant")
        self.model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def mask(self) -> str:
        """``(batch, tokens, 1) float32``, 1 where there is a token."""
        return self.add("Unsqueeze", [self.add("Cast", [MASK], to=1), self.constant([2], "int64")])  # 1: float32

    def _name(self, base: str) -> str:
        name = identifier(base, self.taken)
        self.taken.add(name)
        return name


def _mode(path: Path) -> str:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        modes = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ValueError, AttributeError):
        raise ConfigError(f"{path}: no JSON object") from None
    if len(modes) != 1 or modes[0] not in _MODES:
        raise RejectedError(
            f"{path.parent.name}: pooling by {', '.join(modes) or 'nothing'}: one of {', '.join(_MODES)}"
        )
    return _MODES[modes[0]]
