"""An ONNX file, with the weights that lie beside it."""

from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from edge_models.build.importing.checks import check_size
from edge_models.build.importing.found import Found, digest_of_files
from edge_models.build.importing.graphs import subgraphs
from edge_models.errors import ConfigError, RejectedError


def from_onnx(path: Path) -> Found:
    """The graph in `path`, its weights inside.

    Raises `ConfigError` where a file can't be read, `RejectedError` for one that is no ONNX, is too large, or names
    weights outside its own folder.
    """
    model = load_model(path)
    beside = sorted(_beside(model, path.parent))
    if beside:
        check_size(path.stat().st_size + sum(file.stat().st_size for file in beside), path.name)
        try:
            load_external_data_for_model(model, str(path.parent))
        except Exception as error:  # noqa: BLE001 - onnx raises whatever a short file or a link leads it to
            raise RejectedError(f"{path.name}: its weights can't be read: {' '.join(str(error).split())}") from None
    return Found("onnx", path.name, digest_of_files([path, *beside], path.parent), model, ())


def load_model(path: Path) -> Any:
    """The model in `path`, without what lies beside it. Raises as `from_onnx`."""
    check_size(path.stat().st_size, path.name)
    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except Exception:  # noqa: BLE001 - protobuf's own, which onnx does not name
        raise RejectedError(f"{path.name}: no ONNX: it does not begin as a model does, or it is cut off") from None
    if not model.HasField("graph") or not model.opset_import:
        raise RejectedError(f"{path.name}: no ONNX: there is no graph in it, or no opset")
    return model


def _beside(model: Any, folder: Path) -> set[Path]:
    """The files that hold weights."""
    found = set()
    for name in {_location(tensor) for tensor in _tensors(model) if uses_external_data(tensor)}:
        file = folder / name
        inside = file.resolve().is_relative_to(folder.resolve())
        if not name or not inside or Path(name).is_absolute():
            raise RejectedError(f"the graph keeps weights in {name!r}, which is not in its own folder")
        if not file.is_file():
            raise ConfigError(f"{name}, in which the graph keeps weights, is missing beside it")
        found.add(file)
    return found


def _tensors(model: Any) -> list[Any]:
    graphs = list(subgraphs(model.graph))
    constants = [a.t for graph in graphs for node in graph.node for a in node.attribute if a.HasField("t")]
    return constants + [tensor for graph in graphs for tensor in graph.initializer]


def _location(tensor: Any) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
