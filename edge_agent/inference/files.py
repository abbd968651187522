"""A model's inputs from a file: what `edge-agent infer` reads."""

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from edge_agent.inference.inputs import TEXT, batched, checked, one, stack, tensor, text_of
from edge_agent.inference.model import Tensors
from edge_agent.records import Json, Observation
from edge_models.columns import coded, places
from edge_models.contract import Contract
from edge_models.errors import ConfigError, RejectedError
from edge_models.pictures import picture
from edge_models.steps import Before
from edge_models.tensors import TensorSpec

MAX_FILE_BYTES = 64 * 1024 * 1024

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def from_file(contract: Contract, path: Path, before: Before | None = None) -> Tensors:
    """The batch in a file: ``.npy``, ``.npz`` (an array an input), ``.csv`` (a row a sample, a header is skipped),
    ``.json`` or a picture; for a model that takes a text (`before`) ``.txt``, or ``.json`` with a ``text``.

    Of an input with columns the header of a ``.csv`` names them, and an object in ``.json`` may hold them. A single
    sample without a batch axis is a batch of 1. Raises `ConfigError` where the file cannot be read or is of no kind
    known here, `RejectedError` where its content does not fit: what came, and what was wanted.
    """
    kind = path.suffix.lower()
    if before is not None:
        return _text(path, before)
    if kind not in (".npy", ".npz", ".csv", ".json", *_PICTURES):
        raise ConfigError(f"{path}: wanted a .npy, .npz, .csv or .json file, or a picture ({', '.join(_PICTURES)})")
    data = _read(path)
    try:
        if kind == ".json":
            return _json(contract, data)
        if kind == ".npz":
            return _npz(contract, data)
        spec = _only_input(contract, kind)
        if kind in _PICTURES:
            return {spec.name: picture(contract, spec, data, path.name)}
        return {spec.name: _csv(spec, data) if kind == ".csv" else checked(spec, batched(spec, _npy(data)))}
    except RejectedError as error:
        raise RejectedError(f"{path.name}: {str(error).removeprefix(f'{path.name}: ')}") from None


def _text(path: Path, before: Before) -> Tensors:
    data = _read(path)
    try:
        text = data.decode("utf-8-sig")
        if path.suffix.lower() == ".json":
            value = orjson.loads(text)
            text = text_of(value.get(TEXT) if isinstance(value, dict) else value)
        return before(text)
    except (UnicodeDecodeError, orjson.JSONDecodeError) as error:
        raise RejectedError(f"{path.name}: no text in UTF-8, or no JSON: {error}") from None
    except RejectedError as error:
        raise RejectedError(f"{path.name}: {error}") from None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise RejectedError(f"{path.name}: more than {MAX_FILE_BYTES} bytes")
    return data


def _only_input(contract: Contract, kind: str) -> TensorSpec:
    if len(contract.inputs) > 1:
        names = ", ".join(spec.name for spec in contract.inputs)
        raise RejectedError(f"a {kind} file holds one input, this model takes {names}: use a .json file")
    return contract.inputs[0]


def _npy(data: bytes) -> NDArray[Any]:
    try:
        array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise RejectedError(f"no array that can be read: {error}") from None
    # The dtype's name hides its byte order; a session would read the bytes as this machine's.
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _csv(spec: TensorSpec, data: bytes) -> NDArray[Any]:
    """Each row's numbers, in row-major order of the input's shape."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise RejectedError("no UTF-8 text") from None
    if spec.columns:
        return _csv_by_names(spec, lines)
    open_axes = sum(isinstance(axis, str) for axis in spec.shape[1:])
    if open_axes > 1:
        raise RejectedError(f"input {spec.name!r} has {open_axes} open axes, which a row cannot tell apart: use .json")
    size = [axis if isinstance(axis, int) else -1 for axis in spec.shape[1:]]
    rows = list(_csv_rows(lines, -1 if open_axes else int(np.prod(size, dtype=np.int64))))
    if not rows:
        raise RejectedError("there is no row of numbers in it")
    samples = [_shaped(row, size) for row in rows]
    return tensor(spec, samples)


def _csv_by_names(spec: TensorSpec, lines: list[str]) -> NDArray[Any]:
    """Each row's cells by the names that the header gives them; of a category the cell is its text."""
    try:
        filled = [cells for cells in csv.reader(lines, strict=True) if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise RejectedError(f"no CSV: {error}") from None
    header, *rows = filled or [[]]
    wanted = places(spec, [cell.strip() for cell in header])
    texts = {each.column for each in spec.categories}
    samples: list[Json] = []
    for number, cells in enumerate(rows, start=2):
        if len(cells) != len(header):
            raise RejectedError(f"row {number}: {len(cells)} cells, the header has {len(header)}")
        row = [cells[place].strip() for place in wanted]
        values = [cell if name in texts else _number(cell) for cell, name in zip(row, spec.columns, strict=True)]
        if None in values:
            wrong = values.index(None)
            raise RejectedError(f"row {number}, column {spec.columns[wrong]!r}: {row[wrong][:20]!r} is no number")
        samples.append(coded(spec, values))
    if not samples:
        raise RejectedError("there is no row below the header")
    return tensor(spec, samples)


def _csv_rows(lines: list[str], wanted: int) -> Iterator[list[Json]]:
    """The rows as numbers; only the first that has anything in it may be a header. `wanted` of -1: any length."""
    header_possible = True
    try:
        for number, cells in enumerate(csv.reader(lines, strict=True), start=1):
            if not any(cell.strip() for cell in cells):
                continue
            row = [_number(cell) for cell in cells]
            if None in row and header_possible:
                header_possible = False
                continue
            header_possible = False
            if None in row:
                raise RejectedError(f"row {number}: {cells[row.index(None)][:20]!r} is no number")
            if wanted not in (-1, len(row)):
                raise RejectedError(f"row {number}: came {len(row)} numbers, wanted {wanted}")
            yield row
    except csv.Error as error:
        raise RejectedError(f"no CSV: {error}") from None


def _number(cell: str) -> Json:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return None


def _shaped(row: list[Json], size: list[int]) -> Json:
    try:
        return np.array(row, dtype=object).reshape(size).tolist()
    except ValueError:
        raise RejectedError(f"{len(row)} numbers do not fill the shape {size}") from None


def _json(contract: Contract, data: bytes) -> Tensors:
    """``{input: samples}``, a list of messages, or just the samples where the model takes one input."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"no JSON: {error}") from None
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return stack([one(contract, {}, Observation(item, 0, "file")) for item in value])
    if isinstance(value, list):
        value = {_only_input(contract, "list in a .json").name: value}
    if not isinstance(value, dict):
        raise RejectedError("wanted an object of inputs, or a list of numbers")
    if any(spec.columns and not isinstance(value.get(spec.name), list) for spec in contract.inputs):
        return one(contract, {}, Observation(value, 0, "file"))
    tensors = {}
    for spec in contract.inputs:
        if spec.name not in value:
            raise RejectedError(f"input {spec.name!r} is missing")
        came = value[spec.name]
        if not contract.batched:
            tensors[spec.name] = _whole(spec, came)
            continue
        samples = came if _depth(came) >= len(spec.shape) else [came]
        if spec.categories and isinstance(samples, list):
            samples = [coded(spec, sample) if isinstance(sample, list) else sample for sample in samples]
        tensors[spec.name] = tensor(spec, samples)
    return tensors


def _whole(spec: TensorSpec, value: Json) -> NDArray[Any]:
    """The one sample that a model without a batch takes, from lists nested as its shape is, or a number."""
    try:
        array = np.array(value)
    except ValueError:
        raise RejectedError(f"input {spec.name!r}: came lists of unequal length") from None
    if array.dtype.kind not in "bif":
        raise RejectedError(f"input {spec.name!r}: came something that is no number")
    return checked(spec, array.astype(spec.dtype))


def _npz(contract: Contract, data: bytes) -> Tensors:
    """An array for each input, by its name."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {spec.name: file[spec.name] for spec in contract.inputs}
    except KeyError as error:
        raise RejectedError(f"no array is named {error.args[0]!r}") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise RejectedError(f"no arrays that can be read: {error}") from None
    batched_ = {spec.name: batched(spec, arrays[spec.name]) for spec in contract.inputs} if contract.batched else arrays
    return {spec.name: checked(spec, batched_[spec.name]) for spec in contract.inputs}


def _depth(value: Json) -> int:
    """How many lists deep the first number is."""
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = value[0] if value else None
    return depth
