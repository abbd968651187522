"""Running a graph on samples at the workshop, as a site runs it: one thread, the same steps, never more than fits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.feeding import at_once, fed
from edge_models.npy import Array
from edge_models.session import make_session
from edge_models.steps import Reading, prepare

CHUNK_SAMPLES, CHUNK_BYTES = 64, 8 * 1024 * 1024
"""Samples in one run: enough to be quick, few enough to stay small in memory."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model answered to samples, in their order."""

    outputs: Mapping[str, Array]
    """By output, along axis 0 the samples (for a model that takes no batch: in front of its shape)."""
    readings: tuple[Reading, ...] = ()
    """Of a model that reads."""


def open_session(graph: bytes) -> ort.InferenceSession:
    """A session on one thread. Raises `RejectedError` where ONNX Runtime can't load the graph, and says why."""
    try:
        return make_session(graph)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no class of their own
        raise RejectedError(f"the graph cannot be loaded: {' '.join(str(error).split())}") from None


def answers(
    contract: Contract,
    graph: bytes,
    files: Mapping[str, bytes],
    inputs: Mapping[str, Array],
    together: int | None = None,
) -> Answers:
    """What `graph` and the contract's steps say of these inputs, so many in one run (None: as many as are not much).

    Raises `RejectedError` where it can't run on them.
    """
    session, steps = open_session(graph), prepare(contract, files)
    if together is None:
        together = at_once(inputs, CHUNK_SAMPLES, CHUNK_BYTES)
    names = [spec.name for spec in contract.outputs]
    chunks: list[list[Array]] = []
    readings: list[Reading] = []
    for start in range(0, len(next(iter(inputs.values()))), together if contract.batched else 1):
        part = fed(inputs, contract.batched, start, together)
        try:
            came: list[Any] = session.run(names, part)
        except Exception as error:  # noqa: BLE001 - as above
            raise RejectedError(f"the graph cannot run on these: {' '.join(str(error).split())}") from None
        if contract.task == "reading":
            readings += steps.readings(part, dict(zip(names, came, strict=True)))
        chunks.append(came if contract.batched else [array[np.newaxis] for array in came])
    outputs = {name: np.concatenate([chunk[i] for chunk in chunks]) for i, name in enumerate(names)}
    return Answers(outputs, tuple(readings))
