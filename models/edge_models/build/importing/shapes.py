"""The axes of a graph: those of the inputs named or sized, those of the outputs found by running it."""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper

from edge_models.build.importing.graphs import identifier
from edge_models.build.importing.probe import open_quietly, ran, sizes_to_try
from edge_models.errors import ConfigError, RejectedError
from edge_models.tensors import BATCH, DTYPES, TensorSpec

_PROBED = (2, 3)
"""Samples in the two runs that tell an axis that follows the batch from one that does not."""


def name_axes(model: Any, dims: Mapping[str, int | str]) -> None:
    """Give every axis of the inputs a size or a name: what `dims` says, what the graph says, and "batch" for axis 0.

    A size for one axis is a size for all of its name. Raises `RejectedError` for an input that is no tensor of a dtype
    known here, `ConfigError` where an axis has neither name nor size, or `dims` names one that is not there.
    """
    axes = {f"{value.name}.{axis}": dim for value in model.graph.input for axis, dim in enumerate(_dims(value))}
    for key in dims:
        if key not in axes:
            raise ConfigError(f"--dim {key}: the graph's inputs have {', '.join(axes) or 'no axes'}")
    sized = {axes[key].dim_param: size for key, size in dims.items() if axes[key].dim_param}
    unnamed = []
    for key, dim in axes.items():
        if key in dims or dim.dim_param in sized:
            _set(dim, dims.get(key, sized.get(dim.dim_param, "")))
        elif dim.dim_param:
            dim.dim_param = identifier(dim.dim_param)
        elif dim.dim_value <= 0 and key.endswith(".0"):
            dim.dim_param = BATCH
        elif dim.dim_value <= 0:
            unnamed.append(key)
    if unnamed:
        say = " ".join(f"--dim {key}=NAME" for key in unnamed)
        raise ConfigError(f"open axes without a name: {', '.join(unnamed)}: name them or give sizes: {say} (or =SIZE)")


def input_specs(model: Any) -> tuple[TensorSpec, ...]:
    """The inputs, all their axes named or sized. Raises `RejectedError` where one can't be in a contract."""
    return tuple(
        _spec(value, tuple(d.dim_param or int(d.dim_value) for d in _dims(value))) for value in model.graph.input
    )


def output_specs(model: Any, inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The outputs with their axes as runs show them; where no run succeeds, as shape inference has them.

    An open axis that follows one of the inputs' has its name, another one is named after the output. Writes them into
    the graph. Raises `RejectedError` for an output that is no tensor of a dtype known here.
    """
    inferred = _inferred(model, {axis for spec in inputs for axis in spec.shape if isinstance(axis, str)})
    for value in model.graph.output:
        _dims(value)  # that it is a tensor, before the graph runs
    seen = _seen(model, inputs)
    specs = []
    for index, value in enumerate(model.graph.output):
        axes = inferred.get(value.name) if seen is None else seen[index]
        if axes is None:
            raise RejectedError(f"output {value.name!r}: its shape can't be found: export the model with it")
        named = tuple(axis or identifier(f"{value.name}_{place}") for place, axis in enumerate(axes))
        specs.append(_spec(value, named))
        value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, list(named)))
    return tuple(specs)


def _seen(model: Any, inputs: Sequence[TensorSpec]) -> list[tuple[int | str | None, ...]] | None:
    """Each output's axes as two runs of other sizes show them; None where no two runs succeed."""
    session = open_quietly(model.SerializeToString())
    for small, large in zip(sizes_to_try(inputs, _PROBED[0]), sizes_to_try(inputs, _PROBED[1], step=1), strict=True):
        first = ran(session, inputs, small)
        second = ran(session, inputs, large) if first is not None else None
        if first is None or second is None or any(a.ndim != b.ndim for a, b in zip(first, second, strict=True)):
            continue
        return [_axes(a.shape, b.shape, small, large) for a, b in zip(first, second, strict=True)]
    return None


def _axes(
    first: tuple[int, ...], second: tuple[int, ...], small: Mapping[str, int], large: Mapping[str, int]
) -> tuple[int | str | None, ...]:
    """What the axes of two shapes are: a number, the name that they follow, or None."""
    by_sizes = {(small[name], large[name]): name for name in reversed(list(small))}
    return tuple(by_sizes.get((a, b), a if a == b and a > 0 else None) for a, b in zip(first, second, strict=True))


def _inferred(model: Any, known: set[str]) -> dict[str, tuple[int | str | None, ...]]:
    """By output, its axes as shape inference has them, for outputs whose number of axes it finds; of names, those that
    inputs have: others are made up by exporters."""
    try:
        model = onnx.shape_inference.infer_shapes(model)
    except Exception:  # noqa: BLE001 - inference raises classes of its own; then it knows nothing
        return {}
    found: dict[str, tuple[int | str | None, ...]] = {}
    for value in model.graph.output:
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            found[value.name] = tuple(
                int(d.dim_value) if d.dim_value > 0 else d.dim_param if d.dim_param in known else None for d in dims
            )
    return found


def _dims(value: Any) -> list[Any]:
    """The axes of a graph's input or output; of an output without a shape, none."""
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = (kind or "nothing").removesuffix("_type").replace("_", " ")
        raise RejectedError(
            f"{value.name!r} is a {what}, not a tensor: keep other outputs (--output), or export without"
        )
    return list(value.type.tensor_type.shape.dim)


def _set(dim: Any, size: int | str) -> None:
    if isinstance(size, int):
        dim.dim_value = size
    else:
        dim.dim_param = size


def _spec(value: Any, axes: tuple[int | str, ...]) -> TensorSpec:
    if value.type.tensor_type.elem_type == 0:
        raise RejectedError(f"{value.name!r} has no dtype: export the model with it")
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    if dtype not in DTYPES:
        what = "text" if dtype == "object" else dtype
        raise RejectedError(f"{value.name!r} holds {what}, which no bundle takes: keep other outputs (--output)")
    try:
        return TensorSpec(value.name, axes, dtype)
    except ValueError as error:
        raise RejectedError(str(error)) from None
