"""What kind of source a path or a name is."""

import re
from pathlib import Path

from edge_models.build.importing.found import Found
from edge_models.build.importing.onnx_file import from_onnx
from edge_models.build.importing.wanted import Wanted
from edge_models.build.recipe import Progress, needs_extra
from edge_models.errors import ConfigError

PICKLES = (".pkl", ".pickle", ".joblib")
TORCH = (".pt", ".pth", ".ts", ".jit", ".pt2")

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


def find(source: str, wanted: Wanted, progress: Progress) -> Found:
    """What `source` came to. Raises `ConfigError` where it is nothing known here, else as its kind does."""
    path, suffix = Path(source), Path(source).suffix.lower()
    if path.is_dir():
        return _from_folder(path, wanted, progress)
    if path.is_file():
        if suffix == ".onnx":
            return from_onnx(path)
        with needs_extra():
            if suffix in PICKLES:
                from edge_models.build.importing.sklearn_file import from_sklearn  # noqa: PLC0415 - takes seconds

                return from_sklearn(path, wanted, progress)
            if suffix in TORCH:
                from edge_models.build.importing.torch_file import from_torch  # noqa: PLC0415 - takes seconds

                return from_torch(path, wanted, progress)
        known = ", ".join((".onnx", *PICKLES, *TORCH))
        raise ConfigError(f"{path}: wanted a file that ends in {known}, or a Hugging Face folder")
    if suffix in (".onnx", *PICKLES, *TORCH) or path.is_absolute() or not _ID.fullmatch(source):
        raise ConfigError(f"{source}: there is no such file or folder, and it is no hub's id (ORGANIZATION/MODEL)")
    with needs_extra():
        from edge_models.build.importing.hub import from_hub  # noqa: PLC0415 - takes seconds

        return from_hub(source, wanted, progress)


def _from_folder(path: Path, wanted: Wanted, progress: Progress) -> Found:
    if not (path / "config.json").is_file() and not (path / "modules.json").is_file():
        graphs = sorted(file.name for file in path.glob("*.onnx"))
        hint = f": name the file, as in {path / graphs[0]}" if graphs else ""
        raise ConfigError(f"{path}: no Hugging Face folder, which has a config.json or a modules.json{hint}")
    with needs_extra():
        from edge_models.build.importing.huggingface import from_folder  # noqa: PLC0415 - takes seconds

        return from_folder(path, wanted, progress)
