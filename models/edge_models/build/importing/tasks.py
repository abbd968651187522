"""What a graph is for, as far as it shows, and the end that its task needs inside the graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from edge_models.build.importing.graphs import identifier, names_in, replace_output
from edge_models.build.importing.probe import draw, open_quietly, ran, ran_on, sizes_to_try
from edge_models.build.importing.two_labels import is_lone, of_two
from edge_models.errors import ConfigError
from edge_models.npy import Array
from edge_models.tensors import BATCH, TensorSpec

SCORES = "scores"

ASKED = 8
"""Samples by chance whose answers must all be probabilities for them to be taken as such."""

FAR = 1000.0
"""How many times as far from 0 samples are drawn too, to tell what a Sigmoid gives from a number that is small."""

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
    threshold: float | None = None,
) -> Role:
    """The task that was asked for, or that the graph shows: probabilities make a classification, and so does one
    probability a sample with two labels for it.

    Appends a Softmax or a Sigmoid where a classification was asked for and the graph gives something else. `threshold`:
    from which probability of the second of two labels on that is the answer, 0.5 where it is None. Raises `ConfigError`
    where the graph can't be what was asked for, or has not as many classes as labels.
    """
    if not batched and task not in (None, "tensors"):
        why = "takes no batch (axis 0 of every input and output, any number of samples)"
        raise ConfigError(f"the graph {why}, so it can't be imported for {task}: leave out the task")
    vectors = [spec for spec in outputs if _is_vector(spec)] if batched else []
    if task == "embedding":
        return _embedding(model, vectors, outputs)
    lone = [spec for spec in outputs if _is_lone_float(spec)] if batched and not vectors else []
    likely = [] if task == "tensors" else _probabilities(model, inputs, vectors)
    if lone and task != "tensors" and (labels or threshold is not None or task == "classification"):
        if len(labels) != 2:
            one = f"{lone[0].name!r} is one number a sample, of which two labels can be made"
            raise ConfigError(f"{one}: name them, the one that the number is for last, as in --labels no,yes")
        likely = _probabilities(model, inputs, lone)
    if task == "classification" or (task is None and len(likely) == 1):
        chosen = likely if len(likely) == 1 else vectors or lone
        if len(chosen) != 1:
            raise ConfigError(_which(chosen, outputs, "a score a label"))
        return _classification(model, chosen[0], outputs, labels, threshold, raw=not likely)
    if labels or threshold is not None:
        raise ConfigError(
            "labels or a threshold were given, but no output of the graph is probabilities: with `--task "
            "classification` a Softmax (of one number and two labels a Sigmoid) is put behind the scores it gives"
        )
    return Role("tensors", outputs)


def _is_lone_float(spec: TensorSpec) -> bool:
    return is_lone(spec) and spec.dtype in _FLOATS


def _is_vector(spec: TensorSpec) -> bool:
    fits = len(spec.shape) == 2 and spec.shape[0] == BATCH and isinstance(spec.shape[1], int) and spec.shape[1] >= 2
    return fits and spec.dtype in _FLOATS


def _probabilities(model: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The outputs whose rows are probabilities, whatever comes in."""
    if not outputs:
        return []
    session = open_quietly(model.SerializeToString())
    places = {value.name: index for index, value in enumerate(model.graph.output)}
    for sizes in sizes_to_try(inputs, ASKED):
        came = ran(session, inputs, sizes, seed=1)
        if came is not None:
            far = _far(session, inputs, sizes) or came
            return [s for s in outputs if _are_probabilities(came[places[s.name]], far[places[s.name]], s)]
    return []


def _far(session: Any, inputs: Sequence[TensorSpec], sizes: Mapping[str, int]) -> list[Array] | None:
    """What the graph gives for samples that are far from 0; None where it can't."""
    drawn = draw(inputs, sizes, seed=1)
    with np.errstate(over="ignore"):
        return ran_on(session, {n: a * a.dtype.type(FAR) if a.dtype.kind == "f" else a for n, a in drawn.items()})


def _are_probabilities(near: Array, far: Array, spec: TensorSpec) -> bool:
    if not is_lone(spec):
        return _within(near) and bool((np.abs(near.astype(np.float64).sum(axis=1) - 1) <= 1e-3).all())
    return _within(near) and _within(far[np.isfinite(far)])


def _within(values: Array) -> bool:
    return bool(((values >= -1e-6) & (values <= 1 + 1e-6)).all())


def _classification(
    model: Any,
    spec: TensorSpec,
    outputs: tuple[TensorSpec, ...],
    labels: tuple[str, ...],
    threshold: float | None,
    *,
    raw: bool,
) -> Role:
    """`raw`: what the graph gives are no probabilities yet."""
    classes = 2 if is_lone(spec) else int(spec.shape[1])
    if labels and len(labels) != classes:
        raise ConfigError(f"{len(labels)} labels, where output {spec.name!r} has {classes} scores a sample")
    labels = labels or tuple(f"class-{index}" for index in range(classes))
    if threshold is not None and classes != 2:
        raise ConfigError(f"--threshold is for two labels, and there are {classes}")
    if is_lone(spec) or threshold is not None:
        scores = of_two(model, spec, SCORES, threshold, raw=raw)
        if threshold is not None:
            told = f"moved so that {labels[1]!r} is the answer from {threshold:g} of its own probability on"
            scores = replace(scores, description=told)
    else:
        scores = _as_float32(model, spec, SCORES, softmax=raw)
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
