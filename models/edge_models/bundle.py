"""A bundle: a model with its contract, its card and proof of what it should answer, in one verified file.

The layout of the file is in models/FORMAT.md; its digest is the sha256 of the whole.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_models import layout
from edge_models.contract import Contract
from edge_models.digests import Digest, digest_of
from edge_models.durable import replace
from edge_models.errors import ConfigError, RejectedError
from edge_models.feeding import at_once
from edge_models.layout import Layer, dump_json, load_json
from edge_models.npy import Array, dump_array, load_array
from edge_models.tensors import TensorSpec

MAX_BUNDLE_BYTES = 512 * 1024 * 1024
"""The largest bundle; nothing inside is compressed, so this bounds every part of it."""

MAX_GOLDEN_BYTES = 64 * 1024 * 1024
"""Of one golden array."""

_GOLDEN_BATCH, _GOLDEN_BATCH_BYTES = 16, 4 * 1024 * 1024

MAX_FILES = 16
"""Beside the graph."""

_GRAPH, _CONTRACT, _CARD = "graph.onnx", "contract.json", "card.json"
_TRUTH, _ANSWERS, _FILES = "golden/truth.json", "golden/answers.json", "files/"
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Golden:
    """Held-out samples along axis 0 of every array; a model that takes no batch gets them one by one, without it."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    """What this bundle's own graph answered where it was built."""
    truth: tuple[Any, ...]
    """What is true of each sample, whatever the graph answered: a label, for other tasks any JSON value, or None."""
    answers: tuple[Any, ...] | None = None
    """Of a `reading`: what graph and steps together answered where it was built."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle, in memory."""

    digest: Digest
    contract: Contract
    card: Mapping[str, Any]
    graph: bytes
    """ONNX."""
    golden: Golden
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What steps need, by name: a tokenizer, an alphabet, a second graph."""


def golden_batch(inputs: Mapping[str, Array]) -> int:
    """How many golden samples run together where a bundle is made and where it is checked: 16, of large ones fewer.

    The same in both places, since dynamic quantization takes its ranges from all of a batch; few, since a picture's
    batch takes a hundred times its own size in memory while it runs.
    """
    return at_once(inputs, _GOLDEN_BATCH, _GOLDEN_BATCH_BYTES)


def read_bundle(source: Path | bytes) -> Bundle:
    """The bundle in a file or in its bytes, every byte of it verified.

    Raises `RejectedError`, one line naming the part, for anything that `write_bundle` did not make, and
    `ConfigError` when the file cannot be read.
    """
    data = source if isinstance(source, bytes) else _read(source)
    try:
        if len(data) > MAX_BUNDLE_BYTES:
            raise RejectedError(f"larger than {MAX_BUNDLE_BYTES} bytes")
        files = layout.unpack(data)
        contract = Contract.from_json(load_json(_take(files, _CONTRACT), _CONTRACT))
        card = load_json(_take(files, _CARD), _CARD)
        if not isinstance(card, dict):
            raise RejectedError(f"{_CARD}: not an object")
        graph = bytes(_take(files, _GRAPH))
        golden = _golden(files, contract)
        others = {path.removeprefix(_FILES): bytes(data) for path, data in files.items() if path.startswith(_FILES)}
        _check_files(others)
    except RejectedError as error:
        name = "bundle" if isinstance(source, bytes) else f"bundle {source}"
        raise RejectedError(f"{name}: {error}") from None
    return Bundle(digest_of(data), contract, card, graph, golden, others)


def write_bundle(
    path: Path,
    *,
    contract: Contract,
    graph: bytes,
    golden: Golden,
    card: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
) -> Digest:
    """Write a bundle and return its digest. The same parts give the same bytes; there is never half a file.

    Raises `RejectedError` when the parts do not agree with the contract, and `ConfigError` when `path` cannot
    be written.
    """
    data = _pack(contract, graph, golden, card, files or {})
    written = read_bundle(data)
    _write(path, data)
    return written.digest


def _pack(
    contract: Contract, graph: bytes, golden: Golden, card: Mapping[str, Any], files: Mapping[str, bytes]
) -> bytes:
    _check_files(files)
    layers = [
        Layer(_GRAPH, layout.WEIGHT, graph),
        Layer(_CONTRACT, layout.WEIGHT_CONFIG, dump_json(contract.to_json())),
        Layer(_CARD, layout.DOC, dump_json(card)),
        Layer(_TRUTH, layout.DATASET, dump_json(golden.truth)),
    ]
    if golden.answers is not None:
        layers.append(Layer(_ANSWERS, layout.DATASET, dump_json(golden.answers)))
    for name in sorted(files):
        kind = layout.WEIGHT if name.endswith(".onnx") else layout.WEIGHT_CONFIG
        layers.append(Layer(_FILES + name, kind, files[name]))
    for role, specs, arrays in (
        ("inputs", contract.inputs, golden.inputs),
        ("outputs", contract.outputs, golden.outputs),
    ):
        if set(arrays) != {spec.name for spec in specs}:
            raise RejectedError(f"golden {role}: {sorted(arrays)} are not those of the contract")
        layers += [Layer(_array_path(role, name), layout.DATASET, dump_array(arrays[name])) for name in sorted(arrays)]
    return layout.pack(
        layers,
        descriptor={"name": contract.name, "version": contract.version},
        config={"format": "onnx"},
    )


def _golden(files: Mapping[str, memoryview], contract: Contract) -> Golden:
    truth = load_json(_take(files, _TRUTH), _TRUTH)
    if not isinstance(truth, list) or not truth:
        raise RejectedError(f"{_TRUTH}: not a list")
    if contract.task == "classification" and any(label not in contract.labels for label in truth):
        raise RejectedError(f"{_TRUTH}: not a list of the contract's labels")
    inputs = {spec.name: _array(files, "inputs", spec, len(truth), contract) for spec in contract.inputs}
    outputs = {spec.name: _array(files, "outputs", spec, len(truth), contract) for spec in contract.outputs}
    answers = load_json(files[_ANSWERS], _ANSWERS) if _ANSWERS in files else None
    if answers is not None and (not isinstance(answers, list) or len(answers) != len(truth)):
        raise RejectedError(f"{_ANSWERS}: not a list of as many as {_TRUTH} has")
    if contract.task == "reading" and answers is None:
        raise RejectedError(f"{_ANSWERS} is missing")
    return Golden(inputs, outputs, tuple(truth), None if answers is None else tuple(answers))


def _check_files(files: Mapping[str, object]) -> None:
    for name in files:
        if not _FILE_NAME.fullmatch(name):
            raise RejectedError(f"{_FILES}{name}: a name has small letters, digits, '.', '_' and '-', up to 64")
    if len(files) > MAX_FILES:
        raise RejectedError(f"{_FILES}: {len(files)}, the most is {MAX_FILES}")


def _array(files: Mapping[str, memoryview], role: str, spec: TensorSpec, samples: int, contract: Contract) -> Array:
    path = _array_path(role, spec.name)
    data = _take(files, path)
    if len(data) > MAX_GOLDEN_BYTES:
        raise RejectedError(f"{path}: larger than {MAX_GOLDEN_BYTES} bytes")
    try:
        # A copy: what lives on must not hold the whole file in memory.
        array = load_array(bytes(data))
        # Of a model without a batch, axis 0 counts the samples, and each is whole.
        spec.check(array if contract.batched else array[0], "golden " + role.removesuffix("s"))
    except RejectedError as error:
        raise RejectedError(f"{path}: {error}") from None
    if len(array) != samples:
        raise RejectedError(f"{path}: {len(array)} samples, where {_TRUTH} has {samples}")
    return array


def _array_path(role: str, name: str) -> str:
    return f"golden/{role}/{name}.npy"


def _take(files: Mapping[str, memoryview], path: str) -> memoryview:
    if not files.get(path):
        raise RejectedError(f"{path} is missing or empty")
    return files[path]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_BUNDLE_BYTES:
                raise RejectedError(f"bundle {path}: larger than {MAX_BUNDLE_BYTES} bytes")
            return file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"bundle {path}: {error.strerror}") from None


def _write(path: Path, data: bytes) -> None:
    try:
        replace(path, data)
    except OSError as error:
        raise ConfigError(f"bundle {path}: {error.strerror}") from None
