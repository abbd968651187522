"""What a source came to: an ONNX graph and what the source says of it."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from edge_models.columns import Categories
from edge_models.contract import Step
from edge_models.digests import Digest
from edge_models.errors import ConfigError
from edge_models.tensors import ImageSpec


@dataclass(frozen=True, slots=True)
class Found:
    """A graph as its source gave it; `model` is changed in place on its way to a bundle."""

    kind: str
    source: str
    """The file's or folder's name, or a hub's id: never a path."""
    digest: Digest
    model: Any
    """An ``onnx.ModelProto`` with its weights inside."""
    tools: tuple[str, ...]
    """The packages whose versions a repetition needs."""
    task: str | None = None
    """What the source says; None: it says nothing."""
    labels: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    image: ImageSpec | None = None
    """How a picture becomes input 0."""
    licence: str = ""
    columns: tuple[str, ...] = ()
    """Of the first input: what its values are called."""
    categories: tuple[Categories, ...] = ()
    """Of those columns that hold texts."""
    more: Mapping[str, str] = field(default_factory=dict)
    """For the lineage."""

    def lineage(self, command: str) -> dict[str, Any]:
        """What the graph was made of, for the card."""
        said = {"kind": self.kind, "source": self.source, "sha256": self.digest, **self.more}
        return said | {"tools": tool_versions(self.tools), "command": command}


def tool_versions(tools: Sequence[str]) -> dict[str, str]:
    """The versions of Python and of these packages, as far as they are installed."""
    versions = {"python": platform.python_version()}
    for tool in sorted({"numpy", "onnx", "onnxruntime", *tools}):
        try:
            versions[tool] = installed(tool)
        except PackageNotFoundError:
            continue
    return versions


def digest_of_files(paths: Sequence[Path], folder: Path) -> Digest:
    """Of one file its sha256; of several that of the list ``HEX  PATH`` of all, sorted by path, as sha256sum prints it.

    Raises `ConfigError` where one can't be read.
    """
    hexes = {path.relative_to(folder).as_posix(): _sha256(path) for path in paths}
    if len(hexes) == 1:
        return Digest("sha256:" + next(iter(hexes.values())))
    listed = "".join(f"{hexes[name]}  {name}\n" for name in sorted(hexes))
    return Digest("sha256:" + hashlib.sha256(listed.encode()).hexdigest())


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
