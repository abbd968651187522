"""The golden check: does this machine's CPU get the answers that the bundle's maker got?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[Any]
"""``(samples, labels) float32`` probabilities."""


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """What came of running a bundle's golden samples here."""

    samples: int
    atol: float
    """The largest difference the contract allows."""
    largest_difference: float
    """Of any score; NaN where a score was no number."""
    disagreements: int
    """Samples with another label than the maker's, though its margin over the next exceeds ``2 * atol``."""
    correct: int
    """Samples whose label here is the true one."""

    @property
    def passed(self) -> bool:
        """Whether this model may act here."""
        # A NaN difference compares false, so it fails.
        return self.largest_difference <= self.atol and self.disagreements == 0

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "failed"
        return (
            f"golden check {verdict}: {self.samples} samples, largest difference {self.largest_difference:.4g} "
            f"(allowed {self.atol:.4g}), {self.disagreements} labels differ, {self.correct} are true"
        )


def compare(here: Scores, there: Scores, atol: float, truth: Sequence[int]) -> GoldenReport:
    """The report for scores got here and scores got where the bundle was made; `truth` holds label indices."""
    ranked = np.sort(there, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 2 * atol
    labels = here.argmax(axis=1)
    return GoldenReport(
        samples=len(here),
        atol=atol,
        largest_difference=float(np.abs(here - there).max()),
        disagreements=int((clear & (labels != there.argmax(axis=1))).sum()),
        correct=int((labels == np.asarray(truth)).sum()),
    )
