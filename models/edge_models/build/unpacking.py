"""A bundle's parts as files in a folder, for people and other tools to look at."""

import re
from pathlib import Path

from edge_models import layout
from edge_models.build.workdir import new_workdir
from edge_models.bundle import MAX_BUNDLE_BYTES, read_bundle
from edge_models.errors import ConfigError, RejectedError
from edge_models.tensors import IDENTIFIER

_PART = re.compile(
    r"graph\.onnx|contract\.json|card\.json|golden/(truth|answers)\.json"
    rf"|golden/(inputs|outputs)/{IDENTIFIER.pattern}\.npy|files/[a-z0-9][a-z0-9._-]{{0,63}}"
)
"""The paths of models/FORMAT.md; anything else that a bundle carries is passed over, whatever its name says."""


def unpack(bundle: Path, out: Path) -> None:
    """Write the verified parts of `bundle` into the new folder `out`, whole or not at all.

    Raises `RejectedError` for a bundle that is damaged or none, `ConfigError` where it can't be read, or `out` is there
    already or can't be made.
    """
    try:
        with bundle.open("rb") as file:
            data = file.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"bundle {bundle}: {error.strerror}") from None
    try:
        read_bundle(data)
    except RejectedError as error:
        raise RejectedError(f"bundle {bundle}: {str(error).removeprefix('bundle: ')}") from None
    with new_workdir(out) as folder:
        for path, content in layout.unpack(data).items():
            if _PART.fullmatch(path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content)
