"""A working directory: a model on its way from wherever it was trained to a bundle. People may look, and edit.

model.yaml        what it is: contract, card, gates, which variant was chosen
float.onnx        as it was imported
files/            what its steps need
variants/         NAME.onnx of each scheme that was tried, and NAME.json: what came of it
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edge_models.contract import Contract
from edge_models.durable import replace
from edge_models.errors import ConfigError, RejectedError

FLOAT = "float"
"""The variant that was imported."""

SHEET, GRAPH, FILES, VARIANTS = "model.yaml", "float.onnx", "files", "variants"


@dataclass(frozen=True, slots=True)
class About:
    """The card's words: where the model and its data come from, and what it must not be used for."""

    summary: str = ""
    about: str = ""
    """What is particular to this version."""
    licence: str = ""
    """Of the model."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """name, source, licence, about, split: of the data it learned from, as far as known."""
    limits: tuple[str, ...] = ()
    lineage: Mapping[str, Any] = field(default_factory=dict)
    """What it was made of: source, its digest, kind, the command."""


@dataclass(frozen=True, slots=True)
class Gates:
    """What a variant must hold to be taken in place of float."""

    max_metric_drop: float = 0.01
    """Of the task's first metric, against float on the same samples."""
    min_agreement: float = 0.98
    """Share of samples with the same answer as float (embedding and tensors: mean cosine)."""
    min_speedup: float = 1.05
    """Float's time over the variant's, one sample on one thread, in one run. Below 1: slower is allowed."""
    max_size_bytes: int | None = None
    """Of the graph."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """`model.yaml`."""

    contract: Contract
    about: About = About()
    gates: Gates = Gates()
    chosen: str = FLOAT
    """The variant that is packed."""


@dataclass(frozen=True, slots=True)
class Workdir:
    """A working directory that is there."""

    path: Path

    @property
    def sheet(self) -> Sheet:
        """What `model.yaml` says. Raises `ConfigError` naming file, key and what would be right."""
        return _read_sheet(self.path / SHEET)

    def graph(self, variant: str = FLOAT) -> bytes:
        """A variant's ONNX. Raises `ConfigError` where it was not made."""
        path = self.path / GRAPH if variant == FLOAT else self.path / VARIANTS / f"{variant}.onnx"
        try:
            return path.read_bytes()
        except OSError as error:
            made = ", ".join([FLOAT, *sorted(self.variants())])
            raise ConfigError(f"{path}: {error.strerror} (there are: {made})") from None

    def files(self) -> dict[str, bytes]:
        """What steps need, by name."""
        folder = self.path / FILES
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.is_dir() else {}

    def variants(self) -> dict[str, dict[str, Any]]:
        """What came of each scheme that was tried, by name."""
        folder = self.path / VARIANTS
        return {path.stem: json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}

    def keep_variant(self, name: str, graph: bytes, facts: Mapping[str, Any]) -> None:
        """Keep what a scheme made, whole or not at all."""
        folder = self.path / VARIANTS
        folder.mkdir(exist_ok=True)
        _replace(folder / f"{name}.onnx", graph)
        _replace(folder / f"{name}.json", json.dumps(facts, indent=1, sort_keys=True).encode() + b"\n")

    def write_sheet(self, sheet: Sheet) -> None:
        """Replace `model.yaml`."""
        _replace(self.path / SHEET, _dump_sheet(sheet))


@contextmanager
def new_workdir(path: Path) -> Iterator[Path]:
    """A folder beside `path` to fill, which takes that name when the block ends; where it raises, nothing is left.

    Raises `ConfigError` where `path` is there already, or can't be made.
    """
    if path.exists():
        raise ConfigError(f"{path} is there already: name a new folder, or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    try:
        yield part
        part.chmod(0o755)
        part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def fill(part: Path, sheet: Sheet, graph: bytes, files: Mapping[str, bytes]) -> None:
    """Write what an import found into a new folder."""
    (part / GRAPH).write_bytes(graph)
    (part / FILES).mkdir()
    for name, data in files.items():
        (part / FILES / name).write_bytes(data)
    (part / SHEET).write_bytes(_dump_sheet(sheet))


def open_workdir(path: Path) -> Workdir:
    """The working directory at `path`. Raises `ConfigError` where it is none."""
    if not (path / SHEET).is_file():
        raise ConfigError(f"{path} holds no {SHEET}: make a working directory with `edge-agent model import`")
    return Workdir(path)


def _read_sheet(path: Path) -> Sheet:
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict) or not isinstance(value.get("contract"), dict):
        raise ConfigError(f"{path}: wants keys contract, about, gates, chosen")
    try:
        contract = Contract.from_json({"labels": [], "scores": ""} | value["contract"])
        words = value.get("about", {})
        about = About(**(words | {"limits": tuple(words.get("limits", ()))}))
        gates = Gates(**value.get("gates", {}))
    except (RejectedError, TypeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return Sheet(contract, about, gates, str(value.get("chosen", FLOAT)))


def _dump_sheet(sheet: Sheet) -> bytes:
    value = {
        "contract": sheet.contract.to_json(),
        "about": asdict(sheet.about),
        "gates": asdict(sheet.gates),
        "chosen": sheet.chosen,
    }
    text: str = yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False, allow_unicode=True, width=110)
    return text.encode()


def _replace(path: Path, data: bytes) -> None:
    try:
        replace(path, data)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
