"""Samples along axis 0 of every array: how many are run together, and what a run is fed."""

from collections.abc import Mapping

import numpy as np

from edge_models.npy import Array


def at_once(inputs: Mapping[str, Array], most: int, most_bytes: int) -> int:
    """How many of these samples to run together: `most`, of large ones fewer, always one."""
    sample_bytes = sum(array[:1].nbytes for array in inputs.values())
    return max(1, min(most, most_bytes // max(1, sample_bytes)))


def fed(inputs: Mapping[str, Array], batched: bool, start: int, count: int = 1) -> dict[str, Array]:
    """What a run is fed of these samples: `count` from `start` on as a batch; without a batch the one, whole.

    An array without axes stays an array: ONNX Runtime takes no NumPy number.
    """
    rows = slice(start, start + count)
    return {name: np.asarray(array[rows] if batched else array[start], order="C") for name, array in inputs.items()}
