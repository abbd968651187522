"""One input or output of a graph, and how a picture becomes one."""

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from edge_models.columns import Categories, categories_from_json
from edge_models.errors import RejectedError
from edge_models.jsonfields import field, item, listed, object_of, require

DTYPES = frozenset({"bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8"})
"""Element types a tensor may have, by NumPy's names."""

WIDE = frozenset({"float32", "float64", "int16", "int32", "int64"})
"""Those that hold the number of any category, and -1."""

MAX_AXES, MAX_AXIS, MAX_NAME = 8, 2**31 - 1, 200

BATCH = "batch"
"""The name of axis 0 in models that take any number of samples at once."""

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph. An axis given as text is dynamic."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    unit: str = ""
    description: str = ""
    columns: tuple[str, ...] = ()
    """Of ``(batch, N)``: what each of the N values is called, where a table's columns are taken by their names."""
    categories: tuple[Categories, ...] = ()
    """Of those columns that hold texts."""

    def __post_init__(self) -> None:
        require(bool(IDENTIFIER.fullmatch(self.name)), f"tensor name {self.name!r} is not an identifier")
        require(self.dtype in DTYPES, f"tensor {self.name!r}: dtype {self.dtype!r} is not one of {listed(DTYPES)}")
        require(len(self.shape) <= MAX_AXES, f"tensor {self.name!r}: more than {MAX_AXES} axes")
        for axis in self.shape:
            known = IDENTIFIER.fullmatch(axis) if isinstance(axis, str) else 1 <= axis <= MAX_AXIS
            require(bool(known), f"tensor {self.name!r}: axis {axis!r} is neither a name nor a positive number")
        if self.columns or self.categories:
            self._check_columns()

    def check(self, array: NDArray[Any], role: str = "input") -> None:
        """Raise `RejectedError`, saying what came and what was wanted, unless `array` is such a tensor."""
        came = array.shape
        fits = len(came) == len(self.shape) and all(
            size == axis if isinstance(axis, int) else size > 0 for size, axis in zip(came, self.shape, strict=True)
        )
        if not fits or array.dtype != self.dtype:
            wanted = f"{shape_text(self.shape)} {self.dtype}"
            raise RejectedError(f"{role} {self.name!r}: came {shape_text(came)} {array.dtype.name}, wanted {wanted}")
        for each in self.categories:
            wrong = each.first_wrong(array[:, self.columns.index(each.column)])
            if wrong is not None:
                raise RejectedError(f"{role} {self.name!r}, {wrong}")

    def _check_columns(self) -> None:
        what = f"tensor {self.name!r}: columns"
        fits = len(self.shape) == 2 and self.shape[1] == len(self.columns)
        require(fits, f"{what}: {len(self.columns)}, where the shape is {shape_text(self.shape)}")
        require(len(set(self.columns)) == len(self.columns), f"{what}: two have the same name")
        require(all(0 < len(name) <= MAX_NAME for name in self.columns), f"{what}: each has 1 to {MAX_NAME} characters")
        named = [each.column for each in self.categories]
        require(len(set(named)) == len(named), f"{what}: one has its categories twice")
        for name in named:
            require(name in self.columns, f"{what}: categories of {name!r}, which is none of them")
        require(not named or self.dtype in WIDE, f"{what}: categories need a dtype of {listed(WIDE)}")


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How a picture becomes input 0: converted to `mode`, made to fit, every value times `scale`."""

    width: int
    height: int
    mode: Literal["RGB", "L"]
    scale: float
    layout: Literal["NCHW", "NHWC"]
    fit: Literal["stretch", "pad"] = "stretch"
    """`stretch` to the size whatever its shape; `pad`: as large as it fits, from the top left, black where it ends."""

    def __post_init__(self) -> None:
        require(self.mode in ("RGB", "L"), f"image mode {self.mode!r} is neither RGB nor L")
        require(self.layout in ("NCHW", "NHWC"), f"image layout {self.layout!r} is neither NCHW nor NHWC")
        require(self.fit in ("stretch", "pad"), f"image fit {self.fit!r} is neither stretch nor pad")
        require(0 < self.width <= 2**14 and 0 < self.height <= 2**14, "image width or height is out of range")
        require(math.isfinite(self.scale) and self.scale > 0, "image scale is not a positive number")

    @property
    def shape(self) -> tuple[int | str, ...]:
        """The shape that input 0 must have."""
        channels = {"RGB": 3, "L": 1}[self.mode]
        if self.layout == "NCHW":
            return (BATCH, channels, self.height, self.width)
        return (BATCH, self.height, self.width, channels)


def tensor_from_json(value: object) -> TensorSpec:
    """A tensor's spec in a decoded JSON object. Raises `RejectedError`, or `ValueError` where it contradicts itself."""
    fields = object_of(value, "tensor")
    return TensorSpec(
        name=field(fields, "name", str),
        shape=tuple(item(axis, "shape", (int, str)) for axis in field(fields, "shape", (list, tuple))),
        dtype=field(fields, "dtype", str),
        unit=item(fields.get("unit", ""), "unit", str),
        description=item(fields.get("description", ""), "description", str),
        columns=tuple(item(name, "columns", str) for name in item(fields.get("columns", ()), "columns", (list, tuple))),
        categories=tuple(
            categories_from_json(each) for each in item(fields.get("categories", ()), "categories", (list, tuple))
        ),
    )


def image_from_json(value: object) -> ImageSpec:
    """A picture's spec, as `tensor_from_json`."""
    fields = object_of(value, "image")
    return ImageSpec(
        width=field(fields, "width", int),
        height=field(fields, "height", int),
        mode=field(fields, "mode", str),
        scale=float(field(fields, "scale", (int, float))),
        layout=field(fields, "layout", str),
        fit=item(fields.get("fit", "stretch"), "fit", str),
    )


def shape_text(axes: tuple[int | str, ...]) -> str:
    """As NumPy writes it."""
    inside = ", ".join(str(axis) for axis in axes)
    return f"({inside},)" if len(axes) == 1 else f"({inside})"
