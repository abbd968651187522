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
    """Samples with another label than the maker's, though its margin over the next exceeds ``2 * atol``; of models that
    read, with other texts."""
    correct: int | None
    """Samples whose label, or whose texts, here are the true ones; None where the task knows no truth."""

    @property
    def passed(self) -> bool:
        """Whether this model may act here."""
        # A NaN difference compares false, so it fails.
        return self.largest_difference <= self.atol and self.disagreements == 0

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "failed"
        said = (
            f"golden check {verdict}: {self.samples} samples, largest difference {self.largest_difference:.4g} "
            f"(allowed {self.atol:.4g})"
        )
        if self.correct is None:
            return said
        return f"{said}, {self.disagreements} labels differ, {self.correct} are true"


def compare(here: Scores, there: Scores, atol: float, truth: Sequence[int]) -> GoldenReport:
    """The report for scores got here and scores got where the bundle was made; `truth` holds label indices."""
    ranked = np.sort(there, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 2 * atol
    labels = here.argmax(axis=1)
    return GoldenReport(
        samples=len(here),
        atol=atol,
        largest_difference=_largest(here, there),
        disagreements=int((clear & (labels != there.argmax(axis=1))).sum()),
        correct=int((labels == np.asarray(truth)).sum()),
    )


def compare_values(
    here: NDArray[Any], there: NDArray[Any], atol: float, answers: Sequence[tuple[Any, Any, Any]] = ()
) -> GoldenReport:
    """The same for an output that holds no scores, and for what steps made of it: here, there, and the truth."""
    return GoldenReport(
        samples=len(there),
        atol=atol,
        largest_difference=_largest(here, there),
        disagreements=sum(mine != makers for mine, makers, _ in answers),
        correct=sum(mine == true for mine, _, true in answers) if answers else None,
    )


def _largest(here: NDArray[Any], there: NDArray[Any]) -> float:
    if here.shape != there.shape:
        return float("nan")
    return float(np.abs(here.astype(np.float64) - there.astype(np.float64)).max())
