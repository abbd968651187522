"""What every kind of file is held to: shapes, dtypes, truth, size. One clear line for what is wrong, with its row."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from edge_models.build.texts import tokenized
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.npy import Array
from edge_models.pictures import MAX_PICTURE_BYTES, picture
from edge_models.steps import Before
from edge_models.tensors import TensorSpec

MAX_BYTES = 2 * 1024**3
"""Of a file, and of all arrays together."""

LABEL, TEXT, PICTURE = "label", "text", "picture"
"""Columns of a .csv, keys of a .jsonl."""

TRUTH: Mapping[str, str] = {"classification": LABEL, "embedding": "relevant", "reading": "fields"}
"""Task → the key of what is true."""


def picture_of(contract: Contract, file: Path, name: str) -> Array:
    """A picture as the model's input, without the axis of samples. Raises `RejectedError`, `OSError`."""
    with file.open("rb") as opened:
        data = opened.read(MAX_PICTURE_BYTES + 1)
    return np.asarray(picture(contract, contract.inputs[0], data, name)[0])


def tokenized_rows(texts: Sequence[str], before: Before, where: Sequence[str]) -> dict[str, Array]:
    """All texts as one batch. Raises `RejectedError` naming the row of one that is wrong."""
    try:
        return tokenized(texts, before)
    except ValueError as error:
        raise RejectedError(str(error)) from None
    except RejectedError:
        for text, line in zip(texts, where, strict=True):
            try:
                before(text)
            except RejectedError as error:
                raise RejectedError(f"{line}: {error}") from None
        raise


def truth_of(contract: Contract, values: Sequence[Any], where: Sequence[str]) -> tuple[Any, ...]:
    """What is true of each sample, as `Samples` has it."""
    told: list[Any] = []
    for value, place in zip(values, where, strict=True):
        if contract.task == "classification":
            label = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
            if label not in contract.labels:
                there = ", ".join(contract.labels[:10]) + (", …" if len(contract.labels) > 10 else "")
                raise RejectedError(f"{place}: label {value!r} is not one of the contract's ({there})")
            told.append(label)
        elif contract.task == "embedding":
            if not isinstance(value, list) or not all(type(row) is int and 0 <= row < len(values) for row in value):
                raise RejectedError(f"{place}: 'relevant' {value!r} is no list of rows from 0 to {len(values) - 1}")
            told.append({"relevant": value})
        else:
            if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
                raise RejectedError(f"{place}: 'fields' is no object of names and texts")
            told.append(value)
    return tuple(told)


def samples_of(spec: TensorSpec, array: Array, batched: bool, rows: bool = True) -> Array:
    """`array`, axis 0 the samples, in the dtype that `spec` wants. Whole numbers may become others if they stay equal.

    Raises `RejectedError` where it has another shape, or a value that can't become one of these; it names the row
    unless there is but one.
    """
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "b" and spec.dtype != "bool"):
        raise RejectedError(f"input {spec.name!r}: came {array.dtype.name} among its values, wanted {spec.dtype}")
    _refuse(spec, array, ~np.isfinite(array), rows)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(spec.dtype)
    _refuse(spec, array, ~np.isfinite(cast) if cast.dtype.kind == "f" else cast != array, rows)
    if batched:
        spec.check(cast)
    elif not len(cast):
        raise RejectedError("no samples")
    else:
        spec.check(cast[0])
    return cast


def _refuse(spec: TensorSpec, array: Array, wrong: Array, rows: bool) -> None:
    at = np.argwhere(wrong)
    if len(at):
        row = f", row {at[0][0]}" if rows else ""
        place = ", ".join(str(number) for number in at[0][1:])
        within = f" at ({place})" if place else ""
        raise RejectedError(f"input {spec.name!r}{row}{within}: {array[tuple(at[0])]} is no {spec.dtype}")


def sizes(spec: TensorSpec, batched: bool) -> list[int]:
    """The axes of one sample; −1 for one that is open."""
    return [axis if isinstance(axis, int) else -1 for axis in spec.shape[1 if batched else 0 :]]


def decoded(line: bytes, place: str) -> Mapping[str, Any]:
    """A JSON object. Raises `RejectedError` naming its place."""
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"{place}: no JSON: {error}") from None
    if not isinstance(value, dict):
        raise RejectedError(f"{place}: no JSON object")
    return value


def bounded(size_bytes: int) -> None:
    """Raise `RejectedError` where arrays of this size are too large together."""
    if size_bytes > MAX_BYTES:
        raise RejectedError(f"{size_bytes} bytes of arrays, the most is {MAX_BYTES}")
