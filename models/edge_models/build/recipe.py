"""What a recipe says: the data, the contract, and how each version of the model is made."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_models.build.draft import Draft
from edge_models.build.samples import Samples
from edge_models.build.workdir import About, Sheet
from edge_models.contract import Contract
from edge_models.digests import Digest
from edge_models.errors import ConfigError
from edge_models.npy import Array
from edge_models.tensors import TensorSpec

EXTRA = "building models needs more: pip install 'edge-agent-kit[models]'"

Progress = Callable[[str], None]
"""Called with a short remark, often."""


@dataclass(frozen=True, slots=True)
class Split:
    """Samples along axis 0 of every input, and the index of each one's label."""

    inputs: Mapping[str, Array]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: slice | NDArray[np.int64]) -> "Split":
        """These samples only."""
        return Split({name: array[which] for name, array in self.inputs.items()}, self.labels[which])


@dataclass(frozen=True, slots=True)
class Data:
    """The three splits of a data set. `calibration` sets the int8 ranges; `held_out` is only ever measured on."""

    train: Split
    calibration: Split
    held_out: Split
    digest: Digest
    """Of the files it was read from."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where data comes from, for the card."""

    name: str
    source: str
    licence: str
    about: str
    split: str


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a recipe's model."""

    about: str
    sees: Callable[[Split], Split]
    """The part of the training split that this version learns from."""
    float_graph: Callable[[Split, Progress], bytes]
    """Trains on that part and exports: ONNX, float, with everything inside that the contract promises."""
    scheme: str = "static"
    """How it is quantized; ``none`` where that was measured and does not pay."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a reference bundle is made, whole."""

    name: str
    summary: str
    source: Source
    load: Callable[[], Data]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    scores: str
    golden_samples: int
    golden_atol: float
    limits: tuple[str, ...]
    """What the model must not be used for."""
    versions: Mapping[str, Version]
    """Oldest first."""

    def version(self, number: str | None) -> str:
        """`number`, or the newest. Raises `ConfigError` when there is no such version."""
        return version_of(self.name, self.versions, number)

    def prepare(self, version: str, progress: Progress) -> Draft:
        """Read the data, train on the version's part of it, and export."""
        chosen = self.versions[version]
        progress("reading the data")
        data = self.load()
        seen = chosen.sees(data.train)
        graph = chosen.float_graph(seen, lambda remark: progress(f"training: {remark}"))
        contract = Contract(
            name=self.name,
            version=version,
            task="classification",
            inputs=self.inputs,
            outputs=self.outputs,
            labels=self.labels,
            scores=self.scores,
            golden_atol=self.golden_atol,
        )
        splits = {"train": seen, "calibration": data.calibration, "held_out": data.held_out}
        counts = {name: _counts(split, self.labels) for name, split in splits.items()}
        about = About(
            summary=self.summary,
            about=chosen.about,
            data=asdict(self.source) | {"counts": counts},
            limits=self.limits,
            lineage={"data": data.digest, "command": f"edge-agent model build {self.name} --version {version}"},
        )
        calibration, held_out = (_samples(split, self.labels) for split in (data.calibration, data.held_out))
        sheet = Sheet(contract, about)
        return Draft(sheet, graph, {}, calibration, held_out, chosen.scheme, self.golden_samples)


def version_of(recipe: str, versions: Iterable[str], number: str | None) -> str:
    """`number`, or the newest, which is the last. Raises `ConfigError` where there is no such version."""
    known = list(versions)
    if number is None:
        return known[-1]
    if number not in known:
        raise ConfigError(f"recipe {recipe!r} has no version {number!r}: it has {', '.join(known)}")
    return number


def _counts(split: Split, labels: tuple[str, ...]) -> dict[str, Any]:
    by_label = Counter(labels[index] for index in split.labels)
    return {"samples": len(split), "labels": {label: by_label[label] for label in labels}}


def _samples(split: Split, labels: tuple[str, ...]) -> Samples:
    return Samples(dict(split.inputs), tuple(labels[index] for index in split.labels))


@contextmanager
def needs_extra() -> Iterator[None]:
    """Turns a package missing in this block into the `ConfigError` that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"{EXTRA} ({error.name} is missing)") from None


def wheel_file(package: str, path: str) -> Path:
    """A file that an installed package ships, found without importing the package.

    Raises `ConfigError` when it is not there.
    """
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or []) if found else []:
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    raise ConfigError(f"{EXTRA} ({package}'s {path} is missing)")
