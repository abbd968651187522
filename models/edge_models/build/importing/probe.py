"""Asking a graph by running it: on inputs by chance, of sizes that tell its open axes apart."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edge_models.errors import RejectedError
from edge_models.npy import Array
from edge_models.session import make_session
from edge_models.tensors import BATCH, TensorSpec

BASES = (8, 32, 224)
"""Sizes that open axes are tried with, small first: short texts, small windows, pictures."""

MAX_VALUES = 4 * 1024 * 1024
"""Of all inputs of one run: more is no answer within seconds."""


def open_quietly(graph: bytes) -> Any:
    """A session on one thread that prints nothing when a run fails: here that is an answer.

    Raises `RejectedError` where the graph, with the axes it has now, can't be loaded.
    """
    try:
        return make_session(graph)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no class of their own
        said = " ".join(str(error).split())[-300:]
        raise RejectedError(f"with these axes (--dim) ONNX Runtime does not take the graph: {said}") from None


def sizes_to_try(specs: Sequence[TensorSpec], samples: int = 1, step: int = 0) -> Iterator[dict[str, int]]:
    """Sizes for the open axes, each axis another, "batch" of `samples`; another `step` gives each another size."""
    names = dict.fromkeys(axis for spec in specs for axis in spec.shape if isinstance(axis, str) and axis != BATCH)
    for base in BASES if names else (1,):
        yield {name: base * (index + 1 + step) for index, name in enumerate(names)} | {BATCH: samples}


def draw(specs: Sequence[TensorSpec], sizes: Mapping[str, int], seed: int) -> dict[str, Array]:
    """Inputs by chance: floats around 0, integers 0 or 1, since they may be indices into a small table."""
    chance = np.random.default_rng(seed)
    drawn: dict[str, Array] = {}
    for spec in specs:
        shape = _shape(spec, sizes)
        kind = np.dtype(spec.dtype).kind
        if kind == "f":
            drawn[spec.name] = np.asarray(chance.standard_normal(shape), dtype=spec.dtype)
            continue
        values = np.asarray(chance.integers(0, 256 if spec.dtype == "uint8" else 2, shape))
        if kind in "iu" and values.ndim > 1:
            values[:, 0] = 1  # a mask of zeros only masks everything
        drawn[spec.name] = np.asarray(values, dtype=spec.dtype)
    return drawn


def ran(session: Any, specs: Sequence[TensorSpec], sizes: Mapping[str, int], seed: int = 0) -> list[Array] | None:
    """What the graph gives for inputs by chance of these sizes; None where it can't, or they are too large to ask."""
    values = sum(math.prod(_shape(spec, sizes)) for spec in specs)
    return ran_on(session, draw(specs, sizes, seed)) if values <= MAX_VALUES else None


def ran_on(session: Any, inputs: Mapping[str, Array]) -> list[Array] | None:
    """What the graph gives for these inputs; None where it can't."""
    try:
        came: list[Array] = session.run(None, dict(inputs))
    except Exception:  # noqa: BLE001 - ONNX Runtime's errors share no class of their own
        return None
    return came


def _shape(spec: TensorSpec, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(axis if isinstance(axis, int) else sizes[axis] for axis in spec.shape)
