"""From observations to a model's input tensors. Numbers only: no text, no booleans, no NaN, no infinity.

Where an input's contract names columns, an object of them may stand for the list, and a category's text for its number.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.model import Tensors
from edge_agent.records import Json, Observation
from edge_models.columns import by_names, coded
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.pictures import picture
from edge_models.steps import Before
from edge_models.tensors import TensorSpec

TEXT = "text"
"""What an observation calls the text of a model that takes one."""

_NUMBERS = {"b": frozenset({bool}), "i": frozenset({int}), "u": frozenset({int}), "f": frozenset({int, float})}
"""NumPy's kind of dtype → the Python types that may become it. A bool is an int to Python, never here."""


def from_observation(contract: Contract, paths: Mapping[str, str], observations: Sequence[Observation]) -> Tensors:
    """The micro-batch of these observations, in their order.

    `paths` gives the dotted path of an input in the observation's values, or its key in the arrays; an input it does
    not name is read from its own name; if it has columns, from the observation itself where that has them all or has
    nothing of its name. Raises `RejectedError`: what came, and what was wanted.
    """
    return stack([one(contract, paths, observation) for observation in observations])


def one(
    contract: Contract, paths: Mapping[str, str], observation: Observation, before: Before | None = None
) -> Tensors:
    """One observation as a batch of 1, for finding the bad ones of many: `stack` joins those that are good.

    `before` makes the inputs of a text, which stands at the path of ``text``. Raises `RejectedError`: what came, and
    what was wanted.
    """
    if before is not None:
        return before(text_of(at_path(observation.values, paths.get(TEXT, TEXT))))
    tensors = {}
    for spec in contract.inputs:
        path = paths.get(spec.name, spec.name)
        if path not in observation.arrays:
            value = _sample(spec, paths, observation.values)
            # One number may stand for a list of one.
            lone = spec.shape[1:] == (1,) and not isinstance(value, list)
            tensors[spec.name] = tensor(spec, [[value] if lone else value])
        elif isinstance(observation.arrays[path], bytes) or _is_picture(contract, spec, observation.arrays[path]):
            tensors[spec.name] = picture(contract, spec, observation.arrays[path], path)
        else:
            tensors[spec.name] = checked(spec, batched(spec, np.asarray(observation.arrays[path])))
    return tensors


def _sample(spec: TensorSpec, paths: Mapping[str, str], values: Mapping[str, Json]) -> Json:
    """One sample as lists of numbers; of an input with columns, from whichever form it came in."""
    path = paths.get(spec.name, spec.name)
    if spec.columns and spec.name not in paths and (path not in values or values.keys() >= set(spec.columns)):
        return by_names(spec, values)
    value = at_path(values, path)
    if spec.columns and isinstance(value, Mapping):
        return by_names(spec, value)
    return coded(spec, value) if spec.categories and isinstance(value, list) else value


def _is_picture(contract: Contract, spec: TensorSpec, array: Any) -> bool:
    """Whether this is a decoded picture for the input that takes them, not yet the tensor itself."""
    takes_pictures = contract.image is not None and spec is contract.inputs[0]
    return takes_pictures and array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3


def text_of(value: Json) -> str:
    """`value`, if it is a text. Raises `RejectedError`."""
    if not isinstance(value, str):
        raise RejectedError(f"came {_describe(value)}, wanted a text")
    return value


def stack(batches: Sequence[Tensors]) -> Tensors:
    """These batches, each from `one`, as one. Raises `RejectedError` where their open axes differ."""
    if len(batches) == 1:
        return batches[0]
    try:
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    except ValueError as error:
        raise RejectedError(f"these observations do not go together in a batch: {error}") from None


def at_path(values: Mapping[str, Json], path: str) -> Json:
    """What stands at a dotted path (or under the path itself, as a key). Raises `RejectedError` where nothing does."""
    if path in values:
        return values[path]
    found: Json = values
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            keys = ", ".join(sorted(values)[:10]) or "nothing"
            raise RejectedError(f"there is no {path!r} in it (it has: {keys})")
        found = found[part]
    return found


def tensor(spec: TensorSpec, samples: list[Json]) -> NDArray[Any]:
    """The tensor of samples given as lists of numbers nested as the input's shape is, axis 0 the batch.

    Raises `RejectedError`: what came, and what was wanted.
    """
    values, shape = samples, [len(samples)]
    for _ in spec.shape[1:]:
        size = len(values[0]) if values and isinstance(values[0], list) else 0
        for value in values:
            if not isinstance(value, list):
                raise RejectedError(f"input {spec.name!r}: came {_describe(value)}, wanted {_wanted(spec)}")
            if len(value) != size:
                raise RejectedError(f"input {spec.name!r}: came lists of unequal length, wanted {_wanted(spec)}")
        values = list(chain.from_iterable(values))
        shape.append(size)
    return checked(spec, numbers(spec, values).reshape(shape))


def numbers(spec: TensorSpec, values: list[Json]) -> NDArray[Any]:
    """These values, and nothing that is no number, in the dtype of `spec`.

    Raises `RejectedError`: what came, and what was wanted.
    """
    wrong = set(map(type, values)) - _NUMBERS[np.dtype(spec.dtype).kind]
    if wrong:
        bad = next(value for value in values if type(value) in wrong)
        raise RejectedError(f"input {spec.name!r}: came {_describe(bad)} among its values, wanted {_wanted(spec)}")
    try:
        # A float too large for float32 becomes infinity, which `checked` refuses.
        with np.errstate(over="ignore"):
            return np.array(values, dtype=spec.dtype)
    except OverflowError:
        raise RejectedError(f"input {spec.name!r}: came a number too large for {spec.dtype}") from None


def batched(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    """`array`, as a batch of 1 where it is a single sample."""
    return array[np.newaxis] if array.ndim == len(spec.shape) - 1 else array


def checked(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    """`array` itself. Raises `RejectedError` unless it is such a tensor and all its values are finite."""
    spec.check(array)
    return finite(spec, array)


def finite(spec: TensorSpec, array: NDArray[Any]) -> NDArray[Any]:
    """`array` itself. Raises `RejectedError` where one of its values is no number."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise RejectedError(f"input {spec.name!r}: came NaN or infinity among its values, wanted numbers")
    return array


def _wanted(spec: TensorSpec) -> str:
    axes = ", ".join(str(axis) for axis in spec.shape)
    return f"({axes}) {spec.dtype}"


def _describe(value: Json) -> str:
    """What a JSON value is, for a person."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {value[:20]!r}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return f"a list of {len(value)}" if isinstance(value, list) else "an object"
