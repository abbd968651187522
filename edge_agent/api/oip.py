"""Open Inference Protocol v2: requests to tensors and tensors to responses, JSON and binary. No I/O here.

Sources: the Open Inference Protocol's REST specification; Triton's extension for binary tensor data, in which the body
is a JSON header of ``Inference-Header-Content-Length`` bytes followed by the tensors, little-endian, in their order.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from edge_agent.api.limits import Limits
from edge_agent.inference.inputs import finite, numbers, tensor
from edge_agent.inference.model import Model, Tensors
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.tensors import TensorSpec

DATATYPES = {
    "bool": "BOOL",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
}
"""NumPy's name of a dtype → the protocol's. A contract has no others, so BYTES never fits a model."""

_DATATYPES = {np.dtype(name): datatype for name, datatype in DATATYPES.items()}
"""NumPy makes a dtype's name anew each time it is asked, in as long as a small model takes to answer."""

MAX_ID_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request, decoded. Names and datatypes are the contract's; shapes are for `Model.run` to check."""

    id: str | None
    inputs: Tensors
    outputs: dict[str, bool]
    """The outputs wanted, in order → whether as binary."""


def decode(contract: Contract, body: bytes, header_bytes: int | None, limits: Limits) -> InferRequest:
    """The request in `body`, whose first `header_bytes` are its JSON part (None: all of it).

    Raises `RejectedError`: what came, and what was wanted.
    """
    document, raw = _split(body, header_bytes, limits)
    entries = _list(document, "inputs")
    inputs: Tensors = {}
    at = 0
    for entry in entries:
        spec = _spec(contract, entry, inputs)
        size = _parameters(entry).get("binary_data_size")
        if size is None:
            inputs[spec.name] = _from_json(spec, entry)
            continue
        if "data" in entry:
            raise RejectedError(f"input {spec.name!r}: came both data and binary_data_size, wanted one of them")
        if not _is_count(size) or at + size > len(raw):
            raise RejectedError(
                f"input {spec.name!r}: binary_data_size is {size}, where {len(raw) - at} bytes of binary data are left"
            )
        inputs[spec.name] = _from_binary(spec, entry, raw[at : at + size])
        at += size
    if at != len(raw):
        raise RejectedError(f"came {len(raw)} bytes of binary data, the inputs name {at}")
    request_id = document.get("id")
    if request_id is not None and (not isinstance(request_id, str) or len(request_id) > MAX_ID_CHARACTERS):
        raise RejectedError(f"id: wanted text of at most {MAX_ID_CHARACTERS} characters")
    return InferRequest(request_id, inputs, _wanted_outputs(contract, document))


def encode(name: str, model: Model, request: InferRequest, outputs: Tensors) -> tuple[bytes, int | None]:
    """The response body, and the size of its JSON part where binary tensors follow it.

    Raises `RejectedError` where the model gave what JSON cannot say (NaN, infinity).
    """
    entries: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for output, binary in request.outputs.items():
        array = np.ascontiguousarray(outputs[output])
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RejectedError(f"model {name!r} gave NaN or infinity in output {output!r}")
        entry: dict[str, Any] = {"name": output, "datatype": _DATATYPES[array.dtype], "shape": array.shape}
        if binary:
            data = array.tobytes()
            raw.append(data)
            entry["parameters"] = {"binary_data_size": len(data)}
        else:
            entry["data"] = array.ravel()
        entries.append(entry)
    response: dict[str, Any] = {"model_name": name, "model_version": model.contract.version}
    if request.id is not None:
        response["id"] = request.id
    response["parameters"] = {"digest": model.digest}
    response["outputs"] = entries
    document = orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((document, *raw)), len(document)) if raw else (document, None)


def metadata(name: str, model: Model) -> dict[str, Any]:
    """What the protocol tells of a model; an open axis is -1."""
    contract = model.contract
    return {
        "name": name,
        "versions": [contract.version],
        "platform": "onnx_onnxruntime",
        "inputs": [_describe(spec) for spec in contract.inputs],
        "outputs": [_describe(spec) for spec in contract.outputs],
        "parameters": {"digest": model.digest, "labels": list(contract.labels), "scores": contract.scores},
    }


def most_samples(contract: Contract, body_bytes: int) -> int:
    """The most samples that a body of this size can hold: a value takes at least two bytes of JSON, or its dtype's."""
    return body_bytes // _least_bytes(contract.inputs) + 1


@lru_cache(maxsize=64)
def _least_bytes(inputs: tuple[TensorSpec, ...]) -> int:
    """Of one sample in a request."""
    return sum(
        math.prod(axis for axis in spec.shape if isinstance(axis, int)) * min(2, np.dtype(spec.dtype).itemsize)
        for spec in inputs
    )


def _split(body: bytes, header_bytes: int | None, limits: Limits) -> tuple[dict[str, Any], memoryview]:
    """The JSON part, decoded, and the binary part."""
    if header_bytes is None:
        header_bytes = len(body)
    elif not 0 < header_bytes <= len(body):
        raise RejectedError(f"Inference-Header-Content-Length is {header_bytes}, the body has {len(body)} bytes")
    elif header_bytes > limits.inference_header_bytes:
        raise RejectedError(
            f"Inference-Header-Content-Length is {header_bytes}, the most is {limits.inference_header_bytes}"
        )
    part = body if header_bytes == len(body) else body[:header_bytes]
    # A value follows a comma or opens with a bracket, all but the first of a list: a cheap bound on what parsing makes.
    if part.count(b",") + part.count(b"[") + part.count(b"{") > limits.elements:
        raise RejectedError(f"more than {limits.elements} values as JSON: send them as binary tensors")
    try:
        document = orjson.loads(part)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"the request is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise RejectedError("the request is not a JSON object")
    return document, memoryview(body)[header_bytes:]


def _spec(contract: Contract, entry: dict[str, Any], seen: Tensors) -> TensorSpec:
    """The contract's input that an entry is for, when name, datatype and shape can be its."""
    name = entry.get("name")
    spec = next((spec for spec in contract.inputs if spec.name == name), None)
    if spec is None:
        has = ", ".join(spec.name for spec in contract.inputs)
        raise RejectedError(f"model {contract.name!r} has no input {_short(name)} (it has: {has})")
    if spec.name in seen:
        raise RejectedError(f"input {spec.name!r} came twice")
    came, wanted = entry.get("datatype"), DATATYPES[spec.dtype]
    if came != wanted:
        raise RejectedError(f"input {spec.name!r}: came datatype {_short(came)}, wanted {wanted!r}")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not shape or not all(_is_count(axis) for axis in shape):
        raise RejectedError(f"input {spec.name!r}: shape is not a list of sizes")
    if "shared_memory_region" in _parameters(entry):
        raise RejectedError("shared memory is not supported: send the data in the request")
    return spec


def _from_json(spec: TensorSpec, entry: dict[str, Any]) -> NDArray[Any]:
    """The tensor in ``data``: flat, in row-major order, or nested as its shape is."""
    values, shape = entry.get("data"), entry["shape"]
    if not isinstance(values, list):
        raise RejectedError(f"input {spec.name!r}: data is missing or not a list")
    if values and isinstance(values[0], list):
        nested = tensor(spec, values)
        if list(nested.shape) != shape:
            raise RejectedError(f"input {spec.name!r}: shape is {shape}, data is nested as {list(nested.shape)}")
        return nested
    if len(values) != math.prod(shape):
        raise RejectedError(f"input {spec.name!r}: came {len(values)} values, its shape {shape} has {math.prod(shape)}")
    return finite(spec, numbers(spec, values).reshape(shape))


def _from_binary(spec: TensorSpec, entry: dict[str, Any], data: memoryview) -> NDArray[Any]:
    """The tensor in its own bytes."""
    shape, dtype = entry["shape"], np.dtype(spec.dtype)
    wanted = math.prod(shape) * dtype.itemsize
    if len(data) != wanted:
        raise RejectedError(f"input {spec.name!r}: came {len(data)} bytes, its shape {shape} has {wanted}")
    if dtype.kind == "b":
        octets = np.frombuffer(data, np.uint8)
        if (octets > 1).any():
            raise RejectedError(f"input {spec.name!r}: came a byte that is neither 0 nor 1, wanted BOOL")
        return octets.astype(np.bool_).reshape(shape)
    array = np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False)
    # A view begins wherever the JSON part ended; kernels may read only aligned memory.
    return finite(spec, np.require(array.reshape(shape), requirements="A"))


def _wanted_outputs(contract: Contract, document: dict[str, Any]) -> dict[str, bool]:
    """Output name → binary or not: those the request lists, or all of them."""
    has = [spec.name for spec in contract.outputs]
    binary = _flag(document, "binary_data_output", default=False)
    if not document.get("outputs"):
        return dict.fromkeys(has, binary)
    wanted = {}
    for entry in _list(document, "outputs"):
        name = entry.get("name")
        if name not in has:
            raise RejectedError(f"model {contract.name!r} has no output {_short(name)} (it has: {', '.join(has)})")
        for unsupported in ("classification", "shared_memory_region"):
            if unsupported in _parameters(entry):
                raise RejectedError(f"output {name!r}: {unsupported} is not supported")
        wanted[name] = _flag(entry, "binary_data", default=binary)
    return wanted


def _list(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    entries = document.get(key)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise RejectedError(f"{key}: wanted a list of objects")
    return entries


def _parameters(entry: dict[str, Any]) -> dict[str, Any]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RejectedError("parameters: wanted an object")
    return parameters


def _flag(entry: dict[str, Any], name: str, *, default: bool) -> bool:
    flag = _parameters(entry).get(name, default)
    if not isinstance(flag, bool):
        raise RejectedError(f"{name}: wanted true or false")
    return flag


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _short(value: object) -> str:
    """A value of the request, quoted for an error that must stay one line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _describe(spec: TensorSpec) -> dict[str, Any]:
    shape = [axis if isinstance(axis, int) else -1 for axis in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}
