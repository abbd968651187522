"""Whether a graph is sound, small enough, and one that ONNX Runtime can run."""

import re
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from edge_models.build.importing.graphs import opset_of, subgraphs
from edge_models.build.run import open_session
from edge_models.bundle import MAX_BUNDLE_BYTES
from edge_models.errors import ConfigError, RejectedError

MAX_GRAPH_BYTES = MAX_BUNDLE_BYTES - 64 * 1024 * 1024
"""What a bundle's golden samples, files and card leave room for."""

_UNKNOWN = (
    re.compile(r"No Op registered for (?P<op>\w+) with domain_version of"),
    re.compile(r"[\w.]*:(?P<op>\w+)\(-?\d+\) is not a registered function/op"),
    re.compile(r"Could not find an implementation for (?P<op>\w+)\(\d+\)"),
)
"""How the checker and ONNX Runtime say that they don't know an operator. Source: onnx 1.23, ONNX Runtime 1.32."""

_TOO_NEW = re.compile(r"Opset (\d+) is under development.*support for domain (\S+) is till opset (\d+)")


def check_size(size_bytes: int, what: str) -> None:
    """Raise `RejectedError` where weights of this size have no room in a bundle."""
    if size_bytes > MAX_GRAPH_BYTES:
        mebibytes = f"{size_bytes / 2**20:.0f} MiB, more than the {MAX_GRAPH_BYTES / 2**20:.0f} MiB"
        raise RejectedError(f"{what} has {mebibytes} that a bundle has room for: take a smaller model")


def check_files(folder: Path, patterns: tuple[str, ...]) -> None:
    """`check_size` of all the files of these names together, before anything is read."""
    sizes = [path.stat().st_size for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    check_size(sum(sizes), folder.name)


def check_model(model: Any) -> None:
    """Raise `RejectedError`, one line, unless the model is valid ONNX that this ONNX Runtime loads.

    An operator it does not know is named with the opset it comes from.
    """
    check_size(model.ByteSize(), "the graph")
    if not model.graph.output or not model.graph.input:
        raise ConfigError("the graph takes nothing or gives nothing: export it with its inputs and outputs")
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # noqa: BLE001 - checker, C++ and protobuf raise classes of their own
        raise RejectedError(_explained(model, str(error)) or f"not valid ONNX: {_one_line(error)}") from None
    try:
        open_session(model.SerializeToString())
    except RejectedError as error:
        raise RejectedError(_explained(model, str(error)) or str(error)[:500]) from None


def _explained(model: Any, message: str) -> str | None:
    """A refusal's line for a person, where it is about an operator or an opset."""
    runtime = f"ONNX Runtime {ort.__version__}"
    newer = _TOO_NEW.search(" ".join(message.split()))
    if newer:
        opset, domain, known = newer.groups()
        return f"opset {opset} of {domain} is newer than {runtime} knows ({known}): export the model with an older one"
    for pattern in _UNKNOWN:
        found = pattern.search(message)
        if found:
            domains = [n.domain for g in subgraphs(model.graph) for n in g.node if n.op_type == found["op"]]
            domain = domains[0] if domains else ""
            opset = f"opset {opset_of(model, domain)} of {domain or 'ai.onnx'}"
            return f"operator {found['op']} ({opset}) is not one that {runtime} knows: export the model without it"
    return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
