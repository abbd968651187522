"""Measures of answers against the truth, from arrays alone.

Classes are indices of labels. Where a measure is not defined (nothing true, nothing seen), it says so by leaving out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_models.npy import Array

Classes = NDArray[np.int64]
"""``(samples,)``: the index of each sample's label."""

_QUERIES = 512
"""Embeddings compared with all the others at once: bounds the table of similarities."""


@dataclass(frozen=True, slots=True)
class ClassQuality:
    """How well one label is told from the others."""

    precision: float
    """Of the samples that were given the label, the share that has it; 0 where none was."""
    recall: float
    """Of the samples that have the label, the share that was given it; 0 where none has."""
    f1: float
    samples: int
    """That have it."""


def accuracy(seen: Classes, truth: Classes) -> float:
    """The share of samples whose label is the true one."""
    return float(np.mean(seen == truth))


def per_class(seen: Classes, truth: Classes) -> dict[int, ClassQuality]:
    """The quality of each label that was seen or is true, by index in rising order."""
    size = int(max(seen.max(), truth.max())) + 1
    right, given, having = (np.bincount(part, minlength=size) for part in (truth[seen == truth], seen, truth))
    return {
        int(label): ClassQuality(
            precision=float(right[label] / max(given[label], 1)),
            recall=float(right[label] / max(having[label], 1)),
            f1=float(2 * right[label] / (given[label] + having[label])),
            samples=int(having[label]),
        )
        for label in np.flatnonzero(given + having)
    }


def macro_f1(seen: Classes, truth: Classes) -> float:
    """The mean of F1 over labels that were seen or are true: a rare label counts as much as a common one."""
    return float(np.mean([quality.f1 for quality in per_class(seen, truth).values()]))


def confusion(seen: Classes, truth: Classes, labels: int) -> NDArray[np.int64]:
    """``(labels, labels)`` counts: rows are the true label, columns the one that was seen."""
    table = np.zeros((labels, labels), dtype=np.int64)
    np.add.at(table, (truth, seen), 1)
    return table


def auc(scores: Array, truth: Classes) -> float | None:
    """The area under the ROC curve of each label against the rest, meaned over labels that some samples have.

    `scores` is ``(samples, labels)``. None where no label is had by some samples and not by others. Source: the
    Mann-Whitney statistic, where equal scores share their mean rank.
    """
    areas = []
    for label in np.unique(truth):
        having = truth == label
        positive, negative = int(having.sum()), int((~having).sum())
        if negative:
            rank_sum = float(_ranks(scores[:, label])[having].sum())
            areas.append((rank_sum - positive * (positive + 1) / 2) / (positive * negative))
    return float(np.mean(areas)) if areas else None


def recall_at(vectors: Array, relevant: Sequence[Sequence[int]], at: Sequence[int]) -> dict[int, float]:
    """By k: the share of samples with one of their relevant rows among the k nearest by cosine, themselves apart.

    `vectors` is ``(samples, N)``; a sample without relevant rows asks nothing, but may be found; one that asks and is
    relevant to nobody is a question only, and is not found, as in a memory that holds no questions. Among equally near
    rows the relevant one comes last, so that vectors which are all alike find nothing. Empty where nobody asks.
    """
    unit = unit_vectors(vectors)
    may_be_found = np.array([not rows for rows in relevant])
    may_be_found[list({each for rows in relevant for each in rows})] = True
    asking = np.array([row for row, rows in enumerate(relevant) if set(rows) - {row}], dtype=np.int64)
    before: list[int] = []
    for start in range(0, len(asking), _QUERIES):
        part = asking[start : start + _QUERIES]
        near = unit[part] @ unit.T
        for query, row in zip(part, near, strict=True):
            others = may_be_found.copy()
            others[query] = False
            wanted = np.zeros(len(row), dtype=bool)
            wanted[list(relevant[query])] = True
            before.append(int((row[others & ~wanted] >= row[others & wanted].max()).sum()))
    return {k: float(np.mean(np.array(before) < k)) for k in at} if before else {}


def cosines(ours: Array, theirs: Array) -> NDArray[np.float64]:
    """``(samples,)``: the cosine of each pair of rows; 1 where both are the same, 0 where one has no direction."""
    same = np.all((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)), axis=1)
    along = np.einsum("ij,ij->i", unit_vectors(ours), unit_vectors(theirs))
    return np.where(same, 1.0, np.nan_to_num(along))


def unit_vectors(vectors: Array) -> NDArray[np.float64]:
    """The rows at length 1; a row of zeros stays."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(lengths == 0, 1, lengths), dtype=np.float64)


def exact_fields(came: Sequence[Mapping[str, str]], truth: Sequence[Mapping[str, str]]) -> dict[str, tuple[int, int]]:
    """By field: in how many samples its text is the true one to the letter, of how many that have it.

    A field that is read but is not true of the sample is passed over.
    """
    counts: dict[str, tuple[int, int]] = {}
    for seen, true in zip(came, truth, strict=True):
        for field, text in true.items():
            right, of = counts.get(field, (0, 0))
            counts[field] = (right + (seen.get(field) == text), of + 1)
    return counts


def _ranks(values: Array) -> NDArray[np.float64]:
    """Each value's rank from 1; equal values have the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[which.reshape(-1)], dtype=np.float64)
