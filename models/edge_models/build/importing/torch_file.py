"""TorchScript and `torch.export` files."""

import importlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch

from edge_models.build.importing.checks import check_size
from edge_models.build.importing.found import Found, digest_of_files
from edge_models.build.importing.graphs import identifier, names_in, rename
from edge_models.build.importing.probe import draw, sizes_to_try
from edge_models.build.importing.quiet import quietly
from edge_models.build.importing.wanted import Wanted
from edge_models.build.recipe import Progress, needs_extra
from edge_models.errors import ConfigError, RejectedError
from edge_models.tensors import TensorSpec

TOOLS = ("onnxscript", "torch")

MIN_OPSET = 18
"""Of the exporter that takes ``torch.export`` files; lower ones it makes by conversions that may fail."""

_EXAMPLE = "--input image:float32:batch,3,224,224"


def from_torch(path: Path, wanted: Wanted, progress: Progress) -> Found:
    """The network in a ``.pt`` or ``.pt2`` file as a graph.

    TorchScript holds no shapes: `wanted.inputs` names them. A ``torch.export`` file does, but is read with pickle, as
    is a module that was saved whole: only with permission. Raises `ConfigError` without shapes or permission and for
    a file of weights only, `RejectedError` where it can't be read or exported.
    """
    check_size(path.stat().st_size, path.name)
    kind = _kind(path)
    if kind != "torchscript" and not wanted.trust_pickle:
        holds = "a torch.export file is" if kind == "torch-export" else "this file, which is no TorchScript, is"
        raise ConfigError(
            f"{path.name}: {holds} read with pickle, which can run any program: save TorchScript (torch.jit.trace), or "
            "pass --trust-pickle for a file whose maker you trust as you trust their programs"
        )
    if kind == "torch-export" and wanted.inputs:
        raise ConfigError(f"{path.name} says its own shapes: leave out --input, and name or size open axes with --dim")
    progress(f"reading {path.name}")
    loaded = _load(path, kind)
    if kind != "torch-export" and not wanted.inputs:
        raise ConfigError(f"{path.name} says no shapes: name each input, in its order, as in {_EXAMPLE}")
    progress("exporting")
    model = (
        _export_program(loaded, wanted.opset)
        if kind == "torch-export"
        else _export_module(loaded, wanted.inputs, wanted.opset)
    )
    return Found(kind, path.name, digest_of_files([path], path.parent), model, TOOLS)


def _kind(path: Path) -> str:
    """torchscript, torch-export, or pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
            ends = {name.rpartition("/")[2] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return "pickle"  # what torch wrote before it wrote archives
    if "constants.pkl" in ends and any(name.startswith("code/") for name in names):
        return "torchscript"
    exported = any(name.startswith("models/") for name in names) or "serialized_exported_program.json" in ends
    return "torch-export" if exported else "pickle"


def _load(path: Path, kind: str) -> Any:
    """A module, or of a ``torch.export`` file the program."""
    try:
        with quietly():
            if kind == "torchscript":
                return torch.jit.load(path, map_location="cpu").eval()
            if kind == "torch-export":
                return torch.export.load(path)
            loaded = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # noqa: BLE001 - torch raises whatever a broken file leads it to
        said = " ".join(str(error).split())[:300]
        raise RejectedError(f"{path.name}: torch can't read it: {said}") from None
    if not isinstance(loaded, torch.nn.Module):
        what = type(loaded).__name__
        raise ConfigError(f"{path.name} holds a {what}, no network: save TorchScript (torch.jit.trace) of the module")
    return loaded.eval()


def _export_module(module: Any, inputs: Sequence[TensorSpec], opset: int) -> Any:
    """The graph, by tracing with examples of the first sizes that the module takes."""
    said = ""
    for sizes in sizes_to_try(inputs, samples=2):
        drawn = draw(inputs, sizes, seed=0)
        examples = tuple(torch.from_numpy(drawn[spec.name]) for spec in inputs)
        file = io.BytesIO()
        try:
            with quietly(), torch.no_grad():
                module(*examples)
                torch.onnx.export(
                    module,
                    examples,
                    file,
                    input_names=[spec.name for spec in inputs],
                    dynamic_axes={
                        spec.name: {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)}
                        for spec in inputs
                    },
                    opset_version=opset,
                    dynamo=False,  # the newer exporter takes no TorchScript
                )
        except Exception as error:  # noqa: BLE001 - a module raises whatever inputs of the wrong shape lead it to
            said = " ".join(str(error).split())[-300:]
            continue
        return _named(onnx.load_from_string(file.getvalue()))
    shapes = ", ".join(f"{spec.name}:{spec.dtype}:{','.join(map(str, spec.shape))}" for spec in inputs)
    raise RejectedError(f"the network does not run on inputs {shapes}, or can't be exported: {said}")


def _export_program(program: Any, opset: int) -> Any:
    """The graph of a ``torch.export`` file; a trace would make constants of its open axes."""
    with needs_extra():
        importlib.import_module("onnxscript")  # what the newer exporter needs, and imports late
    try:
        with quietly():
            made = torch.onnx.export(program, (), dynamo=True, opset_version=max(opset, MIN_OPSET), verbose=False)
    except Exception as error:  # noqa: BLE001 - the exporter raises classes of its own
        said = " ".join(str(error).split())[-300:]
        raise RejectedError(f"torch can't export this program: {said}") from None
    return _named(made.model_proto)


def _named(model: Any) -> Any:
    """The model with outputs named ``output``, or ``output_0`` and so on: traces have numbers for names."""
    taken = names_in(model)
    names = [value.name for value in model.graph.output]
    wanted = ["output"] if len(names) == 1 else [f"output_{index}" for index in range(len(names))]
    rename(model, {name: identifier(new, taken) for name, new in zip(names, wanted, strict=True)})
    return model
