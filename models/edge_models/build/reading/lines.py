"""Samples from a `.jsonl`, an object a line: an array for each input, or, of one with columns, its values by their
names; or `text`, or `picture` (a file beside it); `label`, or `relevant` (rows from 0), or `fields`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_models.build.reading.checks import (
    PICTURE,
    TEXT,
    TRUTH,
    bounded,
    decoded,
    picture_of,
    samples_of,
    tokenized_rows,
    truth_of,
)
from edge_models.build.samples import Samples
from edge_models.columns import by_names, coded
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.npy import Array
from edge_models.steps import Before
from edge_models.tensors import shape_text


def from_jsonl(path: Path, contract: Contract, before: Before | None) -> Samples:
    """Raises `RejectedError` naming the line."""
    rows: list[Mapping[str, Any]] = []
    where: list[str] = []
    parts: dict[str, list[Array]] = {spec.name: [] for spec in contract.inputs}
    total = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            row = decoded(raw, f"line {number}")
            where.append(f"line {number}")
            try:
                for name, array in _inputs_of(row, contract, before, path.parent).items():
                    if parts[name] and parts[name][0].shape != array.shape:
                        first = shape_text(parts[name][0].shape)
                        raise RejectedError(f"input {name!r}: came {shape_text(array.shape)}, before it {first}")
                    parts[name].append(array)
                    total += array.nbytes
            except RejectedError as error:
                raise RejectedError(f"line {number}: {error}") from None
            bounded(total)
            rows.append({key: row[key] for key in (TEXT, PICTURE, TRUTH.get(contract.task, "")) if key in row})
    if not rows:
        raise RejectedError("no samples")
    told = TRUTH.get(contract.task, "")
    known = [row for row in rows if told in row]
    if known and len(known) < len(rows) and contract.task != "embedding":
        line = next(line for line, row in zip(where, rows, strict=True) if told not in row)
        raise RejectedError(f"{line}: no {told!r}, which other lines have")
    truth = truth_of(contract, [row.get(told, []) for row in rows], where) if known else None
    if before is not None:
        texts = [row[TEXT] for row in rows]
        return Samples(tokenized_rows(texts, before, where), truth, tuple(texts))
    shown = tuple(str(row[PICTURE]) for row in rows) if all(PICTURE in row for row in rows) else None
    return Samples({name: np.stack(arrays) for name, arrays in parts.items()}, truth, shown)


def _inputs_of(row: Mapping[str, Any], contract: Contract, before: Before | None, folder: Path) -> dict[str, Array]:
    """A line's inputs, without the axis of samples; none of a text, which all are padded for together."""
    if before is not None:
        if not isinstance(row.get(TEXT), str):
            raise RejectedError(f"no text {TEXT!r} (there are: {', '.join(row)})")
        return {}
    if PICTURE in row and PICTURE not in [spec.name for spec in contract.inputs]:
        name = row[PICTURE]
        beside = folder.resolve()
        if not isinstance(name, str) or not (beside / name).resolve().is_relative_to(beside):
            raise RejectedError(f"{PICTURE!r} {name!r} is no file beside it")
        return {contract.inputs[0].name: picture_of(contract, folder / name, name)}
    inputs = {}
    for spec in contract.inputs:
        if spec.name not in row and not spec.columns:
            raise RejectedError(f"no {spec.name!r} (there are: {', '.join(row)})")
        value = row.get(spec.name, row)
        if spec.columns and isinstance(value, (dict, list)):
            value = by_names(spec, value) if isinstance(value, dict) else coded(spec, value)
        try:
            array = np.array(value)
        except (ValueError, OverflowError):
            raise RejectedError(f"input {spec.name!r}: lists of unequal length") from None
        inputs[spec.name] = samples_of(spec, array[np.newaxis], contract.batched, rows=False)[0]
    return inputs
