"""Which samples of a report are shown, and what is said under each: where two models answer otherwise, or one errs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_models.build import metrics
from edge_models.build.drawings import drawn, text
from edge_models.build.measure import classes, likeness
from edge_models.build.run import Answers
from edge_models.build.samples import Samples
from edge_models.contract import Contract
from edge_models.npy import Array
from edge_models.tensors import TensorSpec

MOST, OF_A_KIND, FEW = 12, 4, 6
"""Samples shown where models disagree, of those that do so in the same way, and where none disagree."""

MOST_TEXT, MOST_ANSWER = 320, 140
"""Characters of a text, and of what is said of it."""


@dataclass(frozen=True, slots=True)
class Model:
    """A variant's name, and what it answered to the samples."""

    name: str
    answers: Answers


@dataclass(frozen=True, slots=True)
class Chosen:
    """Samples to show, worst first, and in words what they are."""

    heading: str
    remark: str
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Line:
    """One line under a sample."""

    who: str
    what: str
    score: float | None = None
    right: bool | None = None


def disagreements(contract: Contract, before: Model, after: Model) -> Chosen:
    """Where `after` answers otherwise than `before`; where it never does, what changed most."""
    alike, moved = likeness(contract, after.answers, before.answers), _moved(contract, before.answers, after.answers)
    if contract.task in ("classification", "reading"):
        differs = alike < 1
    elif contract.task == "embedding":
        differs = _nearest(contract, before.answers) != _nearest(contract, after.answers)
    else:
        differs = np.zeros(len(alike), dtype=bool)
    order = np.lexsort((np.arange(len(alike)), -moved, ~differs)).tolist()
    otherwise = int(differs.sum())
    names = f"{after.name} and {before.name}"
    if otherwise:
        what = "find another text nearest to" if contract.task == "embedding" else "answer otherwise to"
        rows = _of_each_kind(order[:otherwise], _kinds(contract, before.answers, after.answers))
        some = " Those of each kind that moved most:" if len(rows) < otherwise else ""
        remark = f"{names} {what} {otherwise} of {len(alike)} samples.{some}"
        return Chosen("Worst disagreements", remark, rows)
    said = "" if contract.task == "tensors" else f"{names} agree on all {len(alike)} samples. "
    return Chosen("What moved most", f"{said}These are the {FEW} whose outputs moved most.", tuple(order[:FEW]))


def mistakes(contract: Contract, model: Model, samples: Samples) -> Chosen:
    """Where one model errs, the most certain first; nothing where no truth is known."""
    heading = "Most certain mistakes"
    if samples.truth is None or contract.task not in ("classification", "reading"):
        return Chosen(heading, "", ())
    if contract.task == "classification":
        seen = classes(contract, model.answers)
        wrong = np.array([contract.labels[i] != true for i, true in zip(seen, samples.truth, strict=True)])
        sure = model.answers.outputs[contract.scores].max(axis=1)
    else:
        pairs = zip(model.answers.readings, samples.truth, strict=True)
        wrong = np.array([any(r.values.get(f) != t for f, t in true.items()) for r, true in pairs])
        sure = np.array([reading.score for reading in model.answers.readings])
    order = np.lexsort((np.arange(len(wrong)), -sure, ~wrong)).tolist()
    errors = int(wrong.sum())
    remark = f"{errors} of {len(wrong)} samples are answered wrong." if errors else "No sample is answered wrong."
    kinds: list[object] = list(range(len(wrong)))
    if contract.task == "classification":
        kinds = list(zip(samples.truth, seen.tolist(), strict=True))
    rows = _of_each_kind(order[:errors], kinds)
    return Chosen(heading, remark + (" The most certain of each kind:" if len(rows) < errors else ""), rows)


def _of_each_kind(rows: Sequence[int], kinds: Sequence[object]) -> tuple[int, ...]:
    """The first of these rows, a few of each kind at most, in their order."""
    taken: Counter[object] = Counter()
    chosen: list[int] = []
    for row in rows:
        taken[kinds[row]] += 1
        if taken[kinds[row]] <= OF_A_KIND and len(chosen) < MOST:
            chosen.append(row)
    return tuple(chosen)


def _kinds(contract: Contract, before: Answers, after: Answers) -> Sequence[object]:
    """By sample: which two labels stand against each other; other answers are all of their own kind."""
    if contract.task == "classification":
        return list(zip(classes(contract, before).tolist(), classes(contract, after).tolist(), strict=True))
    return range(len(after.outputs[contract.main]))


def case(contract: Contract, samples: Samples, models: Sequence[Model], row: int) -> str:
    """One sample as a card of the page: what went in, what is true, what each model said."""
    lines = _said(contract, samples, models, row)
    name = f"sample {row}"
    if samples.shown is not None and contract.image is not None:  # a text is the input itself, and drawn as such
        name += f" · {text(samples.shown[row], 60)}"
    style = ' class="stacked"' if contract.task == "embedding" else ""
    body = f'<p class="soft">{name}</p><dl{style}>{"".join(_line(line) for line in lines)}</dl>'
    return f'<article class="card case">{_input(contract, samples, row)}{body}</article>'


def _input(contract: Contract, samples: Samples, row: int) -> str:
    if samples.shown is not None and contract.image is None:
        return f"<blockquote>{text(samples.shown[row], MOST_TEXT)}</blockquote>"
    for spec in contract.inputs:
        if spec.columns:
            return f"<blockquote>{text(_by_column(spec, samples.inputs[spec.name][row]), MOST_TEXT)}</blockquote>"
        image = contract.image if spec is contract.inputs[0] else None
        figure = drawn(np.asarray(samples.inputs[spec.name][row]), image, f"sample {row}")
        if figure:
            unit = f", {text(spec.unit)}" if spec.unit else ""
            under = "" if image is not None else f"<figcaption>{text(spec.name)}{unit}</figcaption>"
            return f"<figure>{figure}{under}</figure>"
    values = ", ".join(f"{spec.name} {samples.inputs[spec.name][row].ravel()[0]:g}" for spec in contract.inputs)
    return f"<blockquote>{text(values, MOST_TEXT)}</blockquote>"


def _by_column(spec: TensorSpec, values: Array) -> str:
    """A row of a table, of categories with their texts."""
    texts = {each.column: each.texts for each in spec.categories}
    told = []
    for name, value in zip(spec.columns, values.tolist(), strict=True):
        known = texts.get(name)
        shown = f"{value:g}" if known is None else known[int(value)] if value >= 0 else "another"
        told.append(f"{name} {shown}")
    return ", ".join(told)


def _said(contract: Contract, samples: Samples, models: Sequence[Model], row: int) -> list[_Line]:
    true = None if samples.truth is None else samples.truth[row]
    if contract.task == "classification":
        lines = [] if true is None else [_Line("true", str(true))]
        for model in models:
            scores = model.answers.outputs[contract.scores][row]
            label = contract.labels[int(scores.argmax())]
            lines.append(_Line(model.name, label, float(scores.max()), None if true is None else label == true))
        return lines
    if contract.task == "reading":
        return _read(models, row, true or {})
    if contract.task == "embedding":
        return _found(contract, samples, models, row, true)
    first, *others = models
    lines = []
    for spec in contract.outputs:
        one = first.answers.outputs[spec.name][row].astype(np.float64)
        for other in others:
            far = np.abs(other.answers.outputs[spec.name][row].astype(np.float64) - one)
            lines.append(_Line(spec.name, f"{other.name} off by {far.max():.3g} at most, {far.mean():.3g} on average"))
    return lines


def _read(models: Sequence[Model], row: int, true: dict[str, str]) -> list[_Line]:
    """The fields that somebody reads wrong, or that are read in two ways."""
    values = [model.answers.readings[row].values for model in models]
    lines = []
    for field in sorted({*true, *(name for each in values for name in each)}):
        came = [each.get(field, "") for each in values]
        if len(set(came)) == 1 and true.get(field, came[0]) == came[0]:
            continue
        if field in true:
            lines.append(_Line(f"{field}, true", true[field]))
        for model, value in zip(models, came, strict=True):
            right = value == true[field] if field in true else None
            lines.append(_Line(f"{field}, {model.name}", value or "nothing", None, right))
    return lines


def _found(
    contract: Contract, samples: Samples, models: Sequence[Model], row: int, true: dict[str, list[int]] | None
) -> list[_Line]:
    """What each model finds nearest."""
    wanted = (true or {}).get("relevant", [])
    lines = []
    for model in models:
        unit = metrics.unit_vectors(model.answers.outputs[contract.embedding])
        near = unit @ unit[row]
        near[row] = -np.inf
        best = int(near.argmax())
        shown = f"{best}: {samples.shown[best]}" if samples.shown is not None else str(best)
        lines.append(_Line(f"nearest, {model.name}", shown, float(near[best]), best in wanted if wanted else None))
    return lines


def _nearest(contract: Contract, came: Answers) -> NDArray[np.int64]:
    """``(samples,)``: the row nearest to each, itself apart."""
    unit = metrics.unit_vectors(came.outputs[contract.embedding])
    found = np.zeros(len(unit), dtype=np.int64)
    for start in range(0, len(unit), 512):
        near = unit[start : start + 512] @ unit.T
        near[np.arange(len(near)), np.arange(start, start + len(near))] = -np.inf
        found[start : start + 512] = near.argmax(axis=1)
    return found


def _moved(contract: Contract, before: Answers, after: Answers) -> NDArray[np.float64]:
    """``(samples,)``: how far the main output is off."""
    one, other = (each.outputs[contract.main].astype(np.float64) for each in (before, after))
    if one.shape != other.shape:
        return np.zeros(len(one))
    return np.asarray(np.abs(one - other).reshape(len(one), -1).max(axis=1), dtype=np.float64)


def _line(line: _Line) -> str:
    mark = (
        "" if line.right is None else f'<b class="{"ok" if line.right else "down"}">{"✓" if line.right else "✗"}</b> '
    )
    score = "" if line.score is None else f'<span class="score">{line.score:.3f}</span>'
    return f"<dt>{text(line.who, 40)}</dt><dd>{mark}{text(line.what, MOST_ANSWER)}{score}</dd>"
