"""Samples: what a model is calibrated and measured on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_models.digests import Digest
from edge_models.npy import Array

SEED = 31


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples along axis 0 of every input (for a model that takes no batch: in front of its shape)."""

    inputs: Mapping[str, Array]
    truth: tuple[Any, ...] | None = None
    """What is true of each: a label (classification), ``{"relevant": [row, …]}`` (embedding), ``{field: text}``
    (reading); None where nothing is known of any."""
    shown: tuple[str, ...] | None = None
    """What a person would recognise each by, for reports: its text, or the name of its picture."""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def digest(self) -> Digest:
        """Of what goes into a model, the truth apart."""
        seen = hashlib.sha256()
        for name in sorted(self.inputs):
            array = np.ascontiguousarray(self.inputs[name])
            seen.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            seen.update(array.data)
        return Digest("sha256:" + seen.hexdigest())

    def take(self, which: slice | NDArray[np.int64]) -> "Samples":
        """These samples only. Rows that `truth` names are not renumbered."""
        rows = np.arange(len(self))[which]
        return Samples(
            {name: array[rows] for name, array in self.inputs.items()},
            None if self.truth is None else tuple(self.truth[row] for row in rows),
            None if self.shown is None else tuple(self.shown[row] for row in rows),
        )

    def split(self, calibration: int) -> tuple["Samples", "Samples"]:
        """So many to calibrate on, drawn by chance with a fixed seed, and the rest, which no choice is made by."""
        order = np.random.default_rng(SEED).permutation(len(self))
        return self.take(np.sort(order[:calibration])), self.take(np.sort(order[calibration:]))
