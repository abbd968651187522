"""Samples from a `.csv`: a header; a column for each value of the input, by name where the contract has columns (or
inputs of one value each), else in order; or `text`; `label`.
"""

import csv
from array import array as packed
from collections.abc import Callable, Iterable, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edge_models.build.reading.checks import LABEL, TEXT, samples_of, sizes, tokenized_rows, truth_of
from edge_models.build.samples import Samples
from edge_models.columns import places
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.steps import Before
from edge_models.tensors import TensorSpec, shape_text


def from_csv(path: Path, contract: Contract, before: Before | None) -> Samples:
    """Raises `RejectedError` naming line and column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            rows = ((f"line {lines.line_num}", cells) for cells in lines if cells)
            return _table(header, rows, contract, before)
    except UnicodeDecodeError as error:
        raise RejectedError(f"no UTF-8 text: {error}") from None
    except csv.Error as error:
        raise RejectedError(f"line {lines.line_num}: {error}") from None


def _table(
    header: Sequence[str], rows: Iterable[tuple[str, list[str]]], contract: Contract, before: Before | None
) -> Samples:
    wanted = {} if before is not None else _columns(header, contract)
    if before is not None and TEXT not in header:
        raise RejectedError(f"no column {TEXT!r} (there are: {', '.join(header)})")
    numbers = {name: packed("d" if spec.dtype.startswith("float") else "q") for name, (spec, _) in wanted.items()}
    readers = {name: _readers(spec, columns, header) for name, (spec, columns) in wanted.items()}
    where: list[str] = []
    labels: list[str] = []
    texts: list[str] = []
    for line, cells in rows:
        if len(cells) != len(header):
            raise RejectedError(f"{line}: {len(cells)} cells, the header has {len(header)}")
        where.append(line)
        labels += [cells[header.index(LABEL)]] if LABEL in header else []
        texts += [cells[header.index(TEXT)]] if before is not None else []
        for name, read in readers.items():
            for column, number in read:
                try:
                    numbers[name].append(number(cells[column]))
                except RejectedError as error:
                    raise RejectedError(f"{line}, {error}") from None
                except (ValueError, OverflowError):
                    kind = "number" if numbers[name].typecode == "d" else "whole number"
                    raise RejectedError(f"{line}, column {header[column]!r}: {cells[column]!r} is no {kind}") from None
    if not where:
        raise RejectedError("no samples")
    truth = truth_of(contract, labels, where) if labels and contract.task == "classification" else None
    if before is not None:
        return Samples(tokenized_rows(texts, before, where), truth, tuple(texts))
    inputs = {}
    for name, (spec, columns) in wanted.items():
        table = np.asarray(numbers[name]).reshape(len(where), len(columns))
        wrong = np.argwhere(~np.isfinite(table))
        if len(wrong):
            row, column = wrong[0]
            raise RejectedError(f"{where[row]}, column {header[columns[column]]!r}: {table[row, column]} is no number")
        inputs[name] = samples_of(spec, table.reshape(len(where), *sizes(spec, contract.batched)), contract.batched)
    return Samples(inputs, truth)


def _readers(spec: TensorSpec, columns: Sequence[int], header: Sequence[str]) -> list[tuple[int, Callable[[str], Any]]]:
    """Each of these columns, and what makes a number of its cells: of categories what stands for the text."""
    number: Callable[[str], Any] = float if spec.dtype.startswith("float") else int
    texts = {each.column: each.number for each in spec.categories}
    return [(column, texts.get(header[column], number)) for column in columns]


def _columns(header: Sequence[str], contract: Contract) -> dict[str, tuple[TensorSpec, list[int]]]:
    """Which columns hold the values of each input."""
    if any(spec.columns for spec in contract.inputs):
        return _named_columns(header, contract)
    features = [column for column, name in enumerate(header) if name != LABEL]
    axes = [sizes(spec, contract.batched) for spec in contract.inputs]
    if len(axes) == 1:
        (spec,) = contract.inputs
        if axes[0].count(-1) > 1:
            raise RejectedError(f"input {spec.name!r} {shape_text(spec.shape)} can't come from a table: use .npz")
        values = abs(prod(axes[0]))
        if not features or (len(features) % values if -1 in axes[0] else len(features) != values):
            at_once = ", at once in one (wanted: commas)" if len(header) == 1 and values > 1 else ""
            raise RejectedError(
                f"{len(features)} columns beside {LABEL!r}, input {spec.name!r} {shape_text(spec.shape)} takes "
                f"{values} values{at_once}"
            )
        return {spec.name: (spec, features)}
    if any(prod(each) != 1 for each in axes):
        raise RejectedError("several inputs of more than one value can't come from a table: use .npz")
    for spec in contract.inputs:
        if list(header).count(spec.name) != 1:
            found = "two columns" if spec.name in header else "no column"
            raise RejectedError(f"{found} {spec.name!r} (there are: {', '.join(header)})")
    return {spec.name: (spec, [header.index(spec.name)]) for spec in contract.inputs}


def _named_columns(header: Sequence[str], contract: Contract) -> dict[str, tuple[TensorSpec, list[int]]]:
    """The same for inputs with columns: by their names, whatever their order and whatever else there is."""
    for spec in contract.inputs:
        if not spec.columns:
            raise RejectedError(f"input {spec.name!r} has no columns, as others have: use .npz")
        if LABEL in spec.columns:
            raise RejectedError(f"input {spec.name!r} has a column {LABEL!r}, which is the truth's here: use .npz")
    return {spec.name: (spec, places(spec, header)) for spec in contract.inputs}
