"""Whether a graph takes any number of samples at once: found by asking it, never believed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_models.build.importing.probe import draw, open_quietly, ran, ran_on, sizes_to_try
from edge_models.build.importing.shapes import input_specs
from edge_models.errors import RejectedError
from edge_models.npy import Array
from edge_models.tensors import BATCH, TensorSpec

SAMPLES = 2

SHARE = 0.1
"""How far a sample's answer in a batch may be from its answer alone, as a share of what lies between two samples'.
Exact graphs stay below 1e-5; a graph with int8 inside sets its ranges by the whole batch and needs more."""


def with_batch(model: Any) -> Any | None:
    """The graph with axis 0 of every input named "batch", where it answers two samples at once as it does one by one.

    Axis 0 of size 1 is opened for it. None: the graph takes one sample a run.
    """
    if not model.graph.input or not all(_may_be_batch(value) for value in model.graph.input):
        return None
    opened = type(model)()
    opened.CopyFrom(model)
    for value in opened.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = BATCH
    for value in (*opened.graph.output, *opened.graph.value_info):
        # What was found for one sample does not hold for more.
        value.type.tensor_type.ClearField("shape")
    del opened.graph.value_info[:]
    return opened if _answers_alike(model, opened) else None


def _may_be_batch(value: Any) -> bool:
    dims = value.type.tensor_type.shape.dim
    if not dims or not (dims[0].dim_param or dims[0].dim_value == 1):
        return False
    others = {dim.dim_param.lower() for dim in dims[1:]}
    return not others & {"batch", "batch_size", dims[0].dim_param.lower() or "batch"}


def _answers_alike(model: Any, opened: Any) -> bool:
    alone = open_quietly(model.SerializeToString())
    try:
        together = open_quietly(opened.SerializeToString())
    except RejectedError:  # a graph that needs its axis 0 to be 1
        return False
    one = [TensorSpec(spec.name, (1, *spec.shape[1:]), spec.dtype) for spec in input_specs(opened)]
    for sizes in sizes_to_try(one):
        singles = [ran(alone, one, sizes, seed) for seed in range(SAMPLES)]
        answered = [single for single in singles if single is not None]
        if len(answered) == SAMPLES:
            joined = ran_on(together, _joined([draw(one, sizes, seed) for seed in range(SAMPLES)]))
            return joined is not None and _same(joined, answered)
    return False


def _joined(samples: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}


def _same(joined: Sequence[Array], singles: Sequence[Sequence[Array]]) -> bool:
    """Whether every output of the joined run holds each sample's own answer, in their order."""
    for index, together in enumerate(joined):
        apart = [single[index] for single in singles]
        if any(array.ndim < 1 or array.shape[0] != 1 or array.shape != apart[0].shape for array in apart):
            return False
        if together.shape != (SAMPLES, *apart[0].shape[1:]):
            return False
        here, there = (np.asarray(a, dtype=np.float64) for a in (together, np.concatenate(apart)))
        if not np.array_equal(np.isfinite(here), np.isfinite(there)):
            return False
        here, there = np.nan_to_num(here), np.nan_to_num(there)
        between = float(np.abs(there[0] - there[1]).max(initial=0))
        allowed = SHARE * between + 1e-4 * float(np.abs(there).max(initial=0))
        if float(np.abs(here - there).max(initial=0)) > allowed:
            return False
    return True
