"""What a recipe says: the data, the contract, and how each version of the model is made."""

import difflib
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

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
        if number is None:
            return list(self.versions)[-1]
        if number not in self.versions:
            raise ConfigError(f"recipe {self.name!r} has no version {number!r}: it has {', '.join(self.versions)}")
        return number


def recipe_names() -> list[str]:
    """The recipes there are."""
    found = importlib.util.find_spec("edge_models.build.recipes")
    folders = list(found.submodule_search_locations or []) if found else []
    return sorted(module.name for module in pkgutil.iter_modules(folders))


@contextmanager
def needs_extra() -> Iterator[None]:
    """Turns a package missing in this block into the `ConfigError` that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(f"{EXTRA} ({error.name} is missing)") from None


def load_recipe(name: str) -> Recipe:
    """The recipe of this name. Raises `ConfigError`: no such recipe (and the nearest), or the extra is missing."""
    names = recipe_names()
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.3)
        meant = f": did you mean {nearest[0]!r}?" if nearest else "."
        raise ConfigError(f"no recipe {name!r}{meant} There are {', '.join(names)}")
    with needs_extra():
        module = importlib.import_module(f"edge_models.build.recipes.{name}")
    return cast(Recipe, module.RECIPE)


def wheel_file(package: str, path: str) -> Path:
    """A file that an installed package ships, found without importing the package.

    Raises `ConfigError` when it is not there.
    """
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or []) if found else []:
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    raise ConfigError(f"{EXTRA} ({package}'s {path} is missing)")
