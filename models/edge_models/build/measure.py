"""How good a graph is at its task: what it answers to samples, and how that compares with the truth or another's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_models.build import metrics
from edge_models.build.run import Answers, answers
from edge_models.build.samples import Samples
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.npy import Array

RECALL_AT = (1, 5, 10)
"""The k of an embedding's recall@k."""

MAX_CONFUSION_LABELS = 256
"""A table of more labels than these is left out: nobody reads it, and it would fill a card."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What a graph answered, and how good that is."""

    metrics: dict[str, float]
    """The first is the task's main one (accuracy, recall_at_1, exact); empty where no truth is known."""
    answers: Answers
    confusion: list[list[int]] | None = None
    """Of `classification`: rows are the true label, columns the answer, in the order of the contract's labels."""
    per_class: dict[str, dict[str, float]] | None = None
    """Of `classification`, by label that occurs: precision, recall, f1, samples. Of `reading`, by field: exact,
    samples."""


def measure(contract: Contract, graph: bytes, files: Mapping[str, bytes], samples: Samples) -> Measured:
    """Run `graph` on the samples as a site does, and judge it. Raises `RejectedError` as `answers` and `judge`."""
    return judge(contract, answers(contract, graph, files, samples.inputs), samples)


def judge(contract: Contract, came: Answers, samples: Samples) -> Measured:
    """How good these answers to the samples are.

    Raises `RejectedError` where they are no numbers, where the labels are not as many as the scores, or where the
    truth is not one of this task.
    """
    if samples.truth is None or contract.task == "tensors":
        return Measured({}, came)
    if contract.task == "classification":
        return _classification(contract, came, samples.truth)
    if contract.task == "embedding":
        return _embedding(contract, came, samples.truth)
    return _reading(came, samples.truth)


def agreement(contract: Contract, ours: Answers, theirs: Answers) -> float:
    """How alike two models answer the same samples, 0 to 1 (a cosine may be negative).

    `classification`: the share with the same label. `embedding`: the mean cosine. `reading`: the share with all fields
    equal. `tensors`: of the output that differs most, the mean cosine, or for whole numbers the share that is equal.
    """
    return float(np.mean(likeness(contract, ours, theirs)))


def likeness(contract: Contract, ours: Answers, theirs: Answers) -> NDArray[np.float64]:
    """``(samples,)``: how alike the two answer each sample; `agreement` is the mean."""
    if contract.task == "classification":
        return np.asarray(classes(contract, ours) == classes(contract, theirs), dtype=np.float64)
    if contract.task == "embedding":
        return metrics.cosines(ours.outputs[contract.embedding], theirs.outputs[contract.embedding])
    if contract.task == "reading":
        pairs = zip(ours.readings, theirs.readings, strict=True)
        return np.array([dict(one.values) == dict(other.values) for one, other in pairs], dtype=np.float64)
    alike = [_alike(ours.outputs[spec.name], theirs.outputs[spec.name]) for spec in contract.outputs]
    return min(alike, key=lambda each: float(each.mean()))


def classes(contract: Contract, came: Answers) -> metrics.Classes:
    """``(samples,)``: the index of the likeliest label of each. Raises `RejectedError` where scores are no numbers."""
    scores = came.outputs[contract.scores]
    if scores.ndim != 2 or scores.shape[1] != len(contract.labels):
        raise RejectedError(
            f"output {contract.scores!r} is {scores.shape}, which does not fit the contract's {len(contract.labels)} "
            "labels"
        )
    _finite(contract.scores, scores)
    return np.asarray(scores.argmax(axis=1), dtype=np.int64)


def _classification(contract: Contract, came: Answers, true: tuple[Any, ...]) -> Measured:
    index = {label: number for number, label in enumerate(contract.labels)}
    for row, label in enumerate(true):
        if not isinstance(label, str) or label not in index:
            raise RejectedError(f"sample {row}: the true label {label!r} is not one of the contract's")
    truth = np.array([index[label] for label in true], dtype=np.int64)
    seen = classes(contract, came)
    found = {"accuracy": metrics.accuracy(seen, truth), "macro_f1": metrics.macro_f1(seen, truth)}
    area = metrics.auc(came.outputs[contract.scores], truth)
    by_label = {
        contract.labels[label]: {
            "precision": quality.precision,
            "recall": quality.recall,
            "f1": quality.f1,
            "samples": float(quality.samples),
        }
        for label, quality in metrics.per_class(seen, truth).items()
    }
    small = len(contract.labels) <= MAX_CONFUSION_LABELS
    table: list[list[int]] | None = metrics.confusion(seen, truth, len(contract.labels)).tolist() if small else None
    return Measured(found if area is None else found | {"auc": area}, came, table, by_label)


def _embedding(contract: Contract, came: Answers, true: tuple[Any, ...]) -> Measured:
    relevant = []
    for row, each in enumerate(true):
        rows = each.get("relevant", ()) if isinstance(each, dict) else None if each is not None else ()
        if not isinstance(rows, (list, tuple)) or not all(type(r) is int and 0 <= r < len(true) for r in rows):
            raise RejectedError(f"sample {row}: its truth is not {{'relevant': [rows from 0 to {len(true) - 1}]}}")
        relevant.append(rows)
    vectors = came.outputs[contract.embedding]
    _finite(contract.embedding, vectors)
    recall = metrics.recall_at(vectors, relevant, RECALL_AT)
    return Measured({f"recall_at_{k}": share for k, share in recall.items()}, came)


def _reading(came: Answers, true: tuple[Any, ...]) -> Measured:
    for row, fields in enumerate(true):
        if not isinstance(fields, dict) or not all(isinstance(text, str) for text in fields.values()):
            raise RejectedError(f"sample {row}: its truth is not an object of fields and their texts")
    values = [reading.values for reading in came.readings]
    counts = metrics.exact_fields(values, true)
    if not counts:
        return Measured({}, came)
    right, of = (sum(each) for each in zip(*counts.values(), strict=True))
    whole = [all(seen.get(f) == text for f, text in fields.items()) for seen, fields in zip(values, true, strict=True)]
    by_field = {field: {"exact": r / n, "samples": float(n)} for field, (r, n) in counts.items()}
    return Measured({"exact": right / of, "exact_samples": float(np.mean(whole))}, came, per_class=by_field)


def _alike(ours: Array, theirs: Array) -> NDArray[np.float64]:
    """How alike two outputs are, by sample. A single number has no direction: those are one vector over the samples."""
    if ours.shape != theirs.shape:
        return np.zeros(max(len(ours), len(theirs)))
    one, other = ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)
    if one.dtype.kind != "f":
        return np.asarray((one == other).mean(axis=1), dtype=np.float64)
    if one.shape[1] == 1:
        return np.repeat(metrics.cosines(one.T, other.T), len(ours))
    return metrics.cosines(one, other)


def _finite(name: str, array: Array) -> None:
    wrong = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(wrong):
        raise RejectedError(f"output {name!r} is no number for sample {wrong[0]} ({len(wrong)} in all)")
