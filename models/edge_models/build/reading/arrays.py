"""Samples from a `.npz`: an array for each input, axis 0 the samples; `labels` or `truth`."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from edge_models.build.reading.checks import bounded, decoded, samples_of, truth_of
from edge_models.build.samples import Samples
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.npy import Array
from edge_models.steps import Before
from edge_models.tensors import shape_text


def from_npz(path: Path, contract: Contract, _before: Before | None) -> Samples:
    """Raises `RejectedError` naming the array."""
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
        bounded(sum(sizes[name] for name in [*names, *told]))
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in [*names, *told]}
    except (ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise RejectedError(f"no .npz of plain arrays: {' '.join(str(error).split())}") from None
    inputs = {spec.name: samples_of(spec, arrays[spec.name], contract.batched) for spec in contract.inputs}
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
        return truth_of(contract, [[row for row in each if row != -1] for each in lists], rows)
    if contract.task in ("classification", "reading") and kind == "U" and array.ndim == 1:
        values = array.tolist()
        if contract.task == "reading":
            values = [decoded(text.encode(), row) for text, row in zip(values, rows, strict=True)]
        return truth_of(contract, values, rows)
    if contract.task == "tensors":
        return None
    raise RejectedError(f"{name!r}: {shape_text(array.shape)} {array.dtype.name} is no truth for {contract.task}")
