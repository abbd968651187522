"""What a graph is for, as far as it shows, and the end that its task needs inside the graph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from edge_models.build.importing.graphs import identifier, names_in, replace_output
from edge_models.build.importing.probe import open_quietly, ran, sizes_to_try
from edge_models.errors import ConfigError
from edge_models.tensors import BATCH, TensorSpec

SCORES = "scores"

ASKED = 8
"""Samples by chance whose answers must all be probabilities for them to be taken as such."""

_FLOATS = ("float16", "float32", "float64")


@dataclass(frozen=True, slots=True)
class Role:
    """A task with what a contract says of it."""

    task: str
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...] = ()
    scores: str = ""
    embedding: str = ""


def decide(
    model: Any,
    inputs: Sequence[TensorSpec],
    outputs: tuple[TensorSpec, ...],
    batched: bool,
    task: str | None,
    labels: tuple[str, ...],
) -> Role:
    """The task that was asked for, or that the graph shows: probabilities make a classification.

    Appends a Softmax where a classification was asked for and the graph gives something else. Raises `ConfigError`
    where the graph can't be what was asked for, or has not as many classes as labels.
    """
    if not batched and task not in (None, "tensors"):
        why = "takes no batch (axis 0 of every input and output, any number of samples)"
        raise ConfigError(f"the graph {why}, so it can't be imported for {task}: leave out the task")
    vectors = [spec for spec in outputs if _is_vector(spec)] if batched else []
    if task == "embedding":
        return _embedding(model, vectors, outputs)
    likely = [] if task == "tensors" else _probabilities(model, inputs, vectors)
    if task == "classification" or (task is None and len(likely) == 1):
        chosen = likely if len(likely) == 1 else vectors
        if len(chosen) != 1:
            raise ConfigError(_which(chosen, outputs, "a score a label"))
        return _classification(model, chosen[0], outputs, labels, softmax=not likely)
    if labels:
        raise ConfigError(
            "labels were given, but no output of the graph is probabilities: with `--task classification` a Softmax is "
            "put behind the scores it gives"
        )
    return Role("tensors", outputs)


def _is_vector(spec: TensorSpec) -> bool:
    fits = len(spec.shape) == 2 and spec.shape[0] == BATCH and isinstance(spec.shape[1], int) and spec.shape[1] >= 2
    return fits and spec.dtype in _FLOATS


def _probabilities(model: Any, inputs: Sequence[TensorSpec], vectors: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The outputs whose rows are probabilities, whatever comes in."""
    if not vectors:
        return []
    session = open_quietly(model.SerializeToString())
    places = {value.name: index for index, value in enumerate(model.graph.output)}
    for sizes in sizes_to_try(inputs, ASKED):
        came = ran(session, inputs, sizes, seed=1)
        if came is not None:
            return [spec for spec in vectors if _are_probabilities(came[places[spec.name]].astype(np.float64))]
    return []


def _are_probabilities(rows: Any) -> bool:
    inside = bool(((rows >= -1e-6) & (rows <= 1 + 1e-6)).all())
    return inside and bool((np.abs(rows.sum(axis=1) - 1) <= 1e-3).all())


def _classification(
    model: Any, spec: TensorSpec, outputs: tuple[TensorSpec, ...], labels: tuple[str, ...], *, softmax: bool
) -> Role:
    classes = spec.shape[1]
    if labels and len(labels) != classes:
        raise ConfigError(f"{len(labels)} labels, where output {spec.name!r} has {classes} scores a sample")
    labels = labels or tuple(f"class-{index}" for index in range(int(classes)))
    scores = _as_float32(model, spec, SCORES, softmax=softmax)
    given = tuple(scores if each is spec else each for each in outputs)
    return Role("classification", given, labels=labels, scores=scores.name)


def _embedding(model: Any, vectors: Sequence[TensorSpec], outputs: tuple[TensorSpec, ...]) -> Role:
    if len(vectors) != 1:
        raise ConfigError(_which(vectors, outputs, "a vector a sample"))
    vector = _as_float32(model, vectors[0], "embedding", softmax=False)
    given = tuple(vector if each is vectors[0] else each for each in outputs)
    return Role("embedding", given, embedding=vector.name)


def _as_float32(model: Any, spec: TensorSpec, name: str, *, softmax: bool) -> TensorSpec:
    """The output itself where it is what a contract wants, else what is appended to make it so."""
    if spec.dtype == "float32" and not softmax:
        return spec
    taken = names_in(model)
    new, inner = identifier(name, taken), identifier(f"{name}_float32", taken)
    nodes, source = [], spec.name
    if spec.dtype != "float32":
        source = inner if softmax else new
        nodes.append(helper.make_node("Cast", [spec.name], [source], to=TensorProto.FLOAT))
    if softmax:
        nodes.append(helper.make_node("Softmax", [source], [new], axis=1))
    replace_output(model, spec.name, new, nodes, spec.shape)
    return TensorSpec(new, spec.shape, "float32")


def _which(found: Sequence[TensorSpec], outputs: Sequence[TensorSpec], what: str) -> str:
    if len(found) > 1:
        names = ", ".join(spec.name for spec in found)
        return f"several outputs may be {what} ({names}): name the one to keep with --output"
    has = "; ".join(f"{spec.name} ({', '.join(map(str, spec.shape))}) {spec.dtype}" for spec in outputs)
    return f"no output is {what}, of shape (batch, N ≥ 2) and floats: the graph gives {has}"
