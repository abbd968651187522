"""A site's sessions, of a graph or of its prepared copy, and the check that a graph keeps its contract."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as state

from edge_agent.inference.providers import CPU, ONLY_CPU, Providers
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.session import make_session, one_line, session_options
from edge_models.tensors import TensorSpec

log = logging.getLogger(__name__)

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


_NO_SESSION: tuple[type[Exception], ...] = (*ORT_ERRORS, RuntimeError)
"""What ONNX Runtime raises in place of a session; the last where a provider's libraries are missing."""

_NOT_ON_CPU: Mapping[str, str] = {"session.disable_cpu_ep_fallback": "1"}
"""ONNX Runtime would run on the CPU whatever nobody else knows, though it was not named."""


def open_session(graph: bytes, providers: Providers = ONLY_CPU) -> Any:
    """An `onnxruntime.InferenceSession` of these ONNX bytes. Raises `RejectedError` where they cannot run."""
    return _open(graph, {}, providers)


def write_copy(graph: Path, folder: Path, providers: Providers = ONLY_CPU) -> None:
    """Write a graph into a folder as this machine's kernels want it: optimised, its weights packed, in a file apart.

    Raises `RejectedError` where it cannot run, or not be written; also where a provider did not start, since it is for
    the day when it does as well.
    """
    session = _open(str(graph), COPY_CONFIG, providers, write_to=folder / COPY_GRAPH)
    if missing := _missing(session, providers):
        raise RejectedError(f"{', '.join(missing)} did not start here")


def open_copy(graph: bytes, folder: Path, providers: Providers = ONLY_CPU) -> Any:
    """The session of a prepared copy: `graph` is what its `COPY_GRAPH` holds; its weights are mapped, not read.

    Raises `RejectedError` where it cannot run.
    """
    return _open(
        graph, {"session.model_external_initializers_file_folder_path": str(folder)}, providers, optimised=True
    )


def _open(
    graph: bytes | str,
    config: Mapping[str, str],
    providers: Providers,
    write_to: Path | None = None,
    optimised: bool = False,
) -> Any:
    options = session_options(config if CPU in providers else {**config, **_NOT_ON_CPU})
    if write_to is not None:
        options.optimized_model_filepath = str(write_to)
    if optimised:  # doing it again would only take time
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    reason = "its driver or libraries are missing"
    try:
        session = make_session(graph, options, providers)
        missing = _missing(session, providers)
    except _NO_SESSION as error:
        if CPU not in providers or providers == ONLY_CPU:
            where = "" if providers == ONLY_CPU else f" on {', '.join(providers)} alone"
            raise RejectedError(f"the graph cannot be loaded{where}: {one_line(error)}") from None
        # TensorRT's says so like this. Or it is the graph: then the CPU has the same to say.
        missing, reason = [each for each in providers if each != CPU], one_line(error)
        session = _open(graph, config, ONLY_CPU, write_to, optimised)
    if missing:
        if CPU not in providers:
            raise RejectedError(f"{', '.join(missing)} did not start here: {reason}")
        # A site goes on with what it has, rather than not at all.
        log.warning("provider_not_started", extra={"providers": missing, "reason": reason})
    return session


def _missing(session: Any, providers: Providers) -> list[str]:
    """Those that did not start: CUDA's is left out of a session without a word."""
    return [each for each in providers if each not in session.get_providers()]


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
