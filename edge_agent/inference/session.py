"""A site's sessions, of a graph or of its prepared copy, and the check that a graph keeps its contract."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.session import make_session, one_line, session_options
from edge_models.tensors import TensorSpec

ORT_ERRORS: tuple[type[Exception], ...] = (
    state.EPFail,
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NotImplemented,
    state.RuntimeException,
)
"""What ONNX Runtime raises about a graph or its inputs; they share no class of their own."""

_TENSOR_TYPES = {
    "bool": "tensor(bool)",
    "float16": "tensor(float16)",
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "int8": "tensor(int8)",
    "int16": "tensor(int16)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
    "uint8": "tensor(uint8)",
}


COPY_GRAPH, COPY_WEIGHTS = "graph.onnx", "weights.bin"
"""The files of a prepared copy."""

COPY_CONFIG: Mapping[str, str] = {
    "session.optimized_model_external_initializers_file_name": COPY_WEIGHTS,
    "session.save_external_prepacked_constant_initializers": "1",
}
"""What a session is told that writes a prepared copy of its graph."""


def open_session(graph: bytes) -> Any:
    """An `onnxruntime.InferenceSession` of these ONNX bytes. Raises `RejectedError` where they cannot run."""
    return _open(graph, session_options())


def write_copy(graph: Path, folder: Path) -> None:
    """Write a graph into a folder as this CPU's kernels want it: optimised, its weights packed, in a file of their own.

    Raises `RejectedError` where it cannot run, or not be written.
    """
    options = session_options(COPY_CONFIG)
    options.optimized_model_filepath = str(folder / COPY_GRAPH)
    _open(str(graph), options)


def open_copy(graph: bytes, folder: Path) -> Any:
    """The session of a prepared copy: `graph` is what its `COPY_GRAPH` holds; its weights are mapped, not read.

    Raises `RejectedError` where it cannot run.
    """
    options = session_options({"session.model_external_initializers_file_folder_path": str(folder)})
    # It is optimised; doing it again would only take time.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _open(graph, options)


def _open(graph: bytes | str, options: Any) -> Any:
    try:
        return make_session(graph, options)
    except ORT_ERRORS as error:
        raise RejectedError(f"the graph cannot be loaded: {one_line(error)}") from None


def check_fit(session: Any, contract: Contract) -> None:
    """Raise `RejectedError`, naming the tensor, unless the graph takes and gives what the contract says."""
    takes = {node.name: node for node in session.get_inputs()}
    gives = {node.name: node for node in session.get_outputs()}
    promised = {spec.name for spec in contract.inputs}
    for name in takes:
        if name not in promised:
            raise RejectedError(f"the graph has an input {name!r} that the contract does not")
    for role, specs, nodes in (("input", contract.inputs, takes), ("output", contract.outputs, gives)):
        for spec in specs:
            if spec.name not in nodes:
                raise RejectedError(f"the graph has no {role} {spec.name!r}, which the contract promises")
            _check_tensor(role, spec, nodes[spec.name])


def _check_tensor(role: str, spec: TensorSpec, node: Any) -> None:
    wanted = _TENSOR_TYPES[spec.dtype]
    if node.type != wanted:
        raise RejectedError(f"{role} {spec.name!r}: the graph's is {node.type}, the contract's {wanted}")
    graph = list(node.shape)
    # An axis the graph leaves open may be fixed by the contract, never the other way round. An output's open axis
    # proves nothing, so there the golden check decides.
    open_output = role == "output" and not graph
    fits = open_output or (
        len(graph) == len(spec.shape)
        and all(not isinstance(g, int) or g == axis for g, axis in zip(graph, spec.shape, strict=True))
    )
    if not fits:
        raise RejectedError(f"{role} {spec.name!r}: the graph's shape is {graph}, the contract's {list(spec.shape)}")
