"""Samples from files: .npz, .csv, .jsonl, or a folder of pictures. One clear line for what is wrong in them.

.npz      an array for each input, axis 0 the samples; `labels` or `truth`
.csv      a header; a column for each value of the input, by name where the contract has columns (or inputs of one
          value each), else in order; or `text`; `label`
.jsonl    an object a line: an array for each input, or, of one with columns, its values by their names; or `text`, or
          `picture` (a file beside it); `label`, or `relevant` (rows from 0), or `fields`
a folder  pictures, in subfolders by their label where the task has labels

Text goes through the contract's steps, pictures through `edge_models.pictures`, as at a site.
"""

import csv
import zipfile
import zlib
from array import array as packed
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from edge_models.build.samples import Samples
from edge_models.build.texts import tokenized
from edge_models.columns import by_names, coded, places
from edge_models.contract import Contract
from edge_models.errors import ConfigError, RejectedError
from edge_models.npy import Array
from edge_models.pictures import MAX_PICTURE_BYTES, picture
from edge_models.steps import Before, prepare
from edge_models.tensors import TensorSpec, shape_text

MAX_BYTES = 2 * 1024**3
"""Of a file, and of all arrays together."""

LABEL, TEXT, PICTURE = "label", "text", "picture"
"""Columns of a .csv, keys of a .jsonl."""

TRUTH: Mapping[str, str] = {"classification": LABEL, "embedding": "relevant", "reading": "fields"}
"""Task → the key of what is true."""

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
"""Of pictures."""


def load_samples(path: Path, contract: Contract, files: Mapping[str, bytes]) -> Samples:
    """The samples in `path`, checked against the contract; `files` are what its steps need.

    Raises `RejectedError`, one line that names the file, the row and the column, for what doesn't fit the contract, is
    no number, or is too large; `ConfigError` where there is no such file, or it needs an extra.
    """
    readers: Mapping[str, Callable[[Path, Contract, Before | None], Samples]] = {
        ".npz": _npz,
        ".csv": _csv,
        ".jsonl": _jsonl,
    }
    before = prepare(contract, files).before
    try:
        size_bytes = path.stat().st_size
        if path.is_dir():
            return _folder(path, contract)
        reader = readers.get(path.suffix.lower())
        if reader is None:
            raise ConfigError(f"{path}: no kind of samples: wanted .npz, .csv, .jsonl or a folder of pictures")
        if size_bytes > MAX_BYTES:
            raise RejectedError(f"larger than {MAX_BYTES} bytes")
        samples = reader(path, contract, before)
        _bounded(sum(array.nbytes for array in samples.inputs.values()))
    except RejectedError as error:
        raise RejectedError(f"{path}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror}") from None
    return samples


def _npz(path: Path, contract: Contract, _before: Before | None) -> Samples:
    names = [spec.name for spec in contract.inputs]
    try:
        with zipfile.ZipFile(path) as members:
            sizes = {info.filename.removesuffix(".npy"): info.file_size for info in members.infolist()}
        missing = [name for name in names if name not in sizes]
        if missing:
            raise RejectedError(f"no array {missing[0]!r} (there are: {', '.join(sorted(sizes)) or 'none'})")
        told = [name for name in ("labels", "truth") if name in sizes and name not in names]
        if len(told) > 1:
            raise RejectedError("'labels' and 'truth': wanted one of them")
        _bounded(sum(sizes[name] for name in [*names, *told]))
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in [*names, *told]}
    except (ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise RejectedError(f"no .npz of plain arrays: {' '.join(str(error).split())}") from None
    inputs = {spec.name: _samples_of(spec, arrays[spec.name], contract.batched) for spec in contract.inputs}
    lengths = {name: len(array) for name, array in arrays.items() if array.ndim}
    if len(set(lengths.values())) > 1 or len(lengths) < len(arrays):
        counted = ", ".join(f"{name!r} {lengths.get(name, 'one value')}" for name in arrays)
        raise RejectedError(f"not as many samples in each array: {counted}")
    truth = _truth_of_array(contract, told[0], arrays[told[0]]) if told else None
    return Samples(inputs, truth)


def _truth_of_array(contract: Contract, name: str, array: Array) -> tuple[Any, ...] | None:
    """Labels as text or by index; relevant rows, −1 where there are fewer; fields as JSON objects in text."""
    kind, rows = array.dtype.kind, [f"{name!r}, row {row}" for row in range(len(array))]
    if contract.task == "classification" and kind in "iu" and array.ndim == 1:
        wrong = np.flatnonzero((array < 0) | (array >= len(contract.labels)))
        if len(wrong):
            index = array[wrong[0]]
            raise RejectedError(
                f"{rows[wrong[0]]}: {index} is no index of the contract's {len(contract.labels)} labels"
            )
        return tuple(contract.labels[index] for index in array)
    if contract.task == "embedding" and kind in "iu" and array.ndim in (1, 2):
        lists = array.reshape(len(array), -1).tolist()
        return _truth(contract, [[row for row in each if row != -1] for each in lists], rows)
    if contract.task in ("classification", "reading") and kind == "U" and array.ndim == 1:
        values = array.tolist()
        if contract.task == "reading":
            values = [_decoded(text.encode(), row) for text, row in zip(values, rows, strict=True)]
        return _truth(contract, values, rows)
    if contract.task == "tensors":
        return None
    raise RejectedError(f"{name!r}: {shape_text(array.shape)} {array.dtype.name} is no truth for {contract.task}")


def _csv(path: Path, contract: Contract, before: Before | None) -> Samples:
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
    truth = _truth(contract, labels, where) if labels and contract.task == "classification" else None
    if before is not None:
        return Samples(_tokenized(texts, before, where), truth, tuple(texts))
    inputs = {}
    for name, (spec, columns) in wanted.items():
        table = np.asarray(numbers[name]).reshape(len(where), len(columns))
        wrong = np.argwhere(~np.isfinite(table))
        if len(wrong):
            row, column = wrong[0]
            raise RejectedError(f"{where[row]}, column {header[columns[column]]!r}: {table[row, column]} is no number")
        inputs[name] = _samples_of(spec, table.reshape(len(where), *_sizes(spec, contract.batched)), contract.batched)
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
    sizes = [_sizes(spec, contract.batched) for spec in contract.inputs]
    if len(sizes) == 1:
        (spec,) = contract.inputs
        if sizes[0].count(-1) > 1:
            raise RejectedError(f"input {spec.name!r} {shape_text(spec.shape)} can't come from a table: use .npz")
        values = abs(prod(sizes[0]))
        if not features or (len(features) % values if -1 in sizes[0] else len(features) != values):
            at_once = ", at once in one (wanted: commas)" if len(header) == 1 and values > 1 else ""
            raise RejectedError(
                f"{len(features)} columns beside {LABEL!r}, input {spec.name!r} {shape_text(spec.shape)} takes "
                f"{values} values{at_once}"
            )
        return {spec.name: (spec, features)}
    if any(prod(each) != 1 for each in sizes):
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


def _jsonl(path: Path, contract: Contract, before: Before | None) -> Samples:
    rows: list[Mapping[str, Any]] = []
    where: list[str] = []
    parts: dict[str, list[Array]] = {spec.name: [] for spec in contract.inputs}
    total = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            row = _decoded(raw, f"line {number}")
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
            _bounded(total)
            rows.append({key: row[key] for key in (TEXT, PICTURE, TRUTH.get(contract.task, "")) if key in row})
    if not rows:
        raise RejectedError("no samples")
    told = TRUTH.get(contract.task, "")
    known = [row for row in rows if told in row]
    if known and len(known) < len(rows) and contract.task != "embedding":
        line = next(line for line, row in zip(where, rows, strict=True) if told not in row)
        raise RejectedError(f"{line}: no {told!r}, which other lines have")
    truth = _truth(contract, [row.get(told, []) for row in rows], where) if known else None
    if before is not None:
        texts = [row[TEXT] for row in rows]
        return Samples(_tokenized(texts, before, where), truth, tuple(texts))
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
        return {contract.inputs[0].name: _picture(contract, folder / name, name)}
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
        inputs[spec.name] = _samples_of(spec, array[np.newaxis], contract.batched, rows=False)[0]
    return inputs


def _folder(path: Path, contract: Contract) -> Samples:
    """Pictures in the folder, or in its subfolders; the subfolders are labels where the task has such."""
    found = sorted(p for p in path.glob("*/*") if not p.name.startswith(".") and not p.parent.name.startswith("."))
    apart = [p for p in sorted(path.iterdir()) if p.is_file() and p.suffix.lower() in SUFFIXES]
    if contract.image is None or len(contract.inputs) != 1:
        raise RejectedError(f"model {contract.name!r} takes no pictures")
    labelled = contract.task == "classification" and bool(found)
    if labelled and apart:
        raise RejectedError(f"{apart[0].name} lies beside the subfolders: which label has it?")
    pictures = found if labelled else [*apart, *found]
    if not pictures:
        raise RejectedError(f"no pictures ({', '.join(SUFFIXES)})")
    names = [p.relative_to(path).as_posix() for p in pictures]
    truth = _truth(contract, [p.parent.name for p in pictures], names) if labelled else None
    (spec,) = contract.inputs
    _bounded(len(pictures) * prod(_sizes(spec, contract.batched)) * np.dtype(spec.dtype).itemsize)
    arrays = [_picture(contract, file, name) for file, name in zip(pictures, names, strict=True)]
    return Samples({spec.name: np.stack(arrays)}, truth, tuple(names))


def _picture(contract: Contract, file: Path, name: str) -> Array:
    """Without the axis of samples."""
    with file.open("rb") as opened:
        data = opened.read(MAX_PICTURE_BYTES + 1)
    return np.asarray(picture(contract, contract.inputs[0], data, name)[0])


def _tokenized(texts: Sequence[str], before: Before, where: Sequence[str]) -> dict[str, Array]:
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


def _truth(contract: Contract, values: Sequence[Any], where: Sequence[str]) -> tuple[Any, ...]:
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


def _samples_of(spec: TensorSpec, array: Array, batched: bool, rows: bool = True) -> Array:
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


def _sizes(spec: TensorSpec, batched: bool) -> list[int]:
    """The axes of one sample; −1 for one that is open."""
    return [axis if isinstance(axis, int) else -1 for axis in spec.shape[1 if batched else 0 :]]


def _decoded(line: bytes, place: str) -> Mapping[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"{place}: no JSON: {error}") from None
    if not isinstance(value, dict):
        raise RejectedError(f"{place}: no JSON object")
    return value


def _bounded(size_bytes: int) -> None:
    if size_bytes > MAX_BYTES:
        raise RejectedError(f"{size_bytes} bytes of arrays, the most is {MAX_BYTES}")
