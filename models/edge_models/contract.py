"""What a model takes and gives: the names, shapes, dtypes, units and labels its users rely on."""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from edge_models.errors import RejectedError

TASKS = ("classification",)
"""What a site can make a prediction of. Finding anomalies is a classification with two labels."""

DTYPES = frozenset({"bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8"})
"""Element types a tensor may have, by NumPy's names."""

MAX_TENSORS, MAX_AXES, MAX_AXIS, MAX_LABELS = 16, 8, 2**31 - 1, 10_000

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,31}")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph. An axis given as text is dynamic; axis 0 is always ``"batch"``."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    unit: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        _require(bool(_IDENTIFIER.fullmatch(self.name)), f"tensor name {self.name!r} is not an identifier")
        _require(self.dtype in DTYPES, f"tensor {self.name!r}: dtype {self.dtype!r} is not one of {_list(DTYPES)}")
        _require(
            self.shape[:1] == ("batch",) and len(self.shape) <= MAX_AXES,
            f"tensor {self.name!r}: the shape must be 'batch' and up to {MAX_AXES - 1} more axes",
        )
        for axis in self.shape:
            known = _IDENTIFIER.fullmatch(axis) if isinstance(axis, str) else 1 <= axis <= MAX_AXIS
            _require(bool(known), f"tensor {self.name!r}: axis {axis!r} is neither a name nor a positive number")

    def check(self, array: NDArray[Any], role: str = "input") -> None:
        """Raise `RejectedError`, saying what came and what was wanted, unless `array` is such a tensor."""
        came = array.shape
        fits = len(came) == len(self.shape) and all(
            size == axis if isinstance(axis, int) else size > 0 for size, axis in zip(came, self.shape, strict=True)
        )
        if not fits or array.dtype != self.dtype:
            wanted = f"{_shape(self.shape)} {self.dtype}"
            raise RejectedError(f"{role} {self.name!r}: came {_shape(came)} {array.dtype.name}, wanted {wanted}")


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How a picture becomes input 0: converted to `mode`, resized, every value times `scale`."""

    width: int
    height: int
    mode: Literal["RGB", "L"]
    scale: float
    layout: Literal["NCHW", "NHWC"]

    def __post_init__(self) -> None:
        _require(self.mode in ("RGB", "L"), f"image mode {self.mode!r} is neither RGB nor L")
        _require(self.layout in ("NCHW", "NHWC"), f"image layout {self.layout!r} is neither NCHW nor NHWC")
        _require(0 < self.width <= 2**14 and 0 < self.height <= 2**14, "image width or height is out of range")
        _require(math.isfinite(self.scale) and self.scale > 0, "image scale is not a positive number")

    @property
    def shape(self) -> tuple[int | str, ...]:
        """The shape that input 0 must have."""
        channels = {"RGB": 3, "L": 1}[self.mode]
        if self.layout == "NCHW":
            return ("batch", channels, self.height, self.width)
        return ("batch", self.height, self.width, channels)


@dataclass(frozen=True, slots=True)
class Contract:
    """What a bundle's graph promises. Making one that contradicts itself is a `ValueError`."""

    name: str
    version: str
    task: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: tuple[str, ...]
    """In the order of the last axis of `scores`."""
    scores: str
    """The output that holds ``(batch, labels) float32`` probabilities."""
    golden_atol: float
    """The largest absolute difference of `scores` on the golden inputs that a site's CPU may show."""
    image: ImageSpec | None = None
    """Set when input 0 takes pictures."""

    def __post_init__(self) -> None:
        _require(bool(_NAME.fullmatch(self.name)), f"name {self.name!r} is not of the form [a-z0-9.-]{{1,63}}")
        _require(
            bool(_VERSION.fullmatch(self.version)),
            f"version {self.version!r} has characters it must not have",
        )
        _require(self.task in TASKS, f"task {self.task!r} is not one of {_list(TASKS)}")
        for role, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [t.name for t in tensors]
            _require(0 < len(names) <= MAX_TENSORS, f"{role}: there must be 1 to {MAX_TENSORS}")
            _require(len(set(names)) == len(names), f"{role}: two have the same name")
        _require(2 <= len(self.labels) <= MAX_LABELS, f"labels: there must be 2 to {MAX_LABELS}")
        _require(len(set(self.labels)) == len(self.labels), "labels: two are the same")
        _require(all(0 < len(label) <= 200 for label in self.labels), "labels: each has 1 to 200 characters")
        scores = next((t for t in self.outputs if t.name == self.scores), None)
        _require(
            scores is not None and scores.dtype == "float32" and scores.shape == ("batch", len(self.labels)),
            f"scores: {self.scores!r} must be an output of shape (batch, {len(self.labels)}) float32",
        )
        _require(0 <= self.golden_atol <= 1, "golden_atol: must be between 0 and 1")
        _require(
            self.image is None or (self.inputs[0].shape == self.image.shape and self.inputs[0].dtype != "bool"),
            f"image: input {self.inputs[0].name!r} does not have the shape of such a picture",
        )

    def to_json(self) -> dict[str, Any]:
        """The contract as a JSON object; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> "Contract":
        """The contract in a decoded JSON object; keys it does not know are ignored.

        Raises `RejectedError`, one line that names the part.
        """
        fields = _object(value, "contract")
        try:
            return cls(
                name=_get(fields, "name", str),
                version=_get(fields, "version", str),
                task=_get(fields, "task", str),
                inputs=tuple(_tensor(t) for t in _get(fields, "inputs", (list, tuple))),
                outputs=tuple(_tensor(t) for t in _get(fields, "outputs", (list, tuple))),
                labels=tuple(_item(label, "labels", str) for label in _get(fields, "labels", (list, tuple))),
                scores=_get(fields, "scores", str),
                golden_atol=float(_get(fields, "golden_atol", (int, float))),
                image=None if fields.get("image") is None else _image(fields["image"]),
            )
        except (ValueError, OverflowError) as error:
            raise RejectedError(f"contract: {error}") from None


def _tensor(value: object) -> TensorSpec:
    fields = _object(value, "tensor")
    return TensorSpec(
        name=_get(fields, "name", str),
        shape=tuple(_item(axis, "shape", (int, str)) for axis in _get(fields, "shape", (list, tuple))),
        dtype=_get(fields, "dtype", str),
        unit=_item(fields.get("unit", ""), "unit", str),
        description=_item(fields.get("description", ""), "description", str),
    )


def _image(value: object) -> ImageSpec:
    fields = _object(value, "image")
    return ImageSpec(
        width=_get(fields, "width", int),
        height=_get(fields, "height", int),
        mode=_get(fields, "mode", str),
        scale=float(_get(fields, "scale", (int, float))),
        layout=_get(fields, "layout", str),
    )


def _object(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RejectedError(f"contract: {what} is {type(value).__name__}, not an object")
    return value


def _get(fields: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    if key not in fields:
        raise RejectedError(f"contract: {key!r} is missing")
    return _item(fields[key], key, kind)


def _item(value: Any, key: str, kind: type | tuple[type, ...]) -> Any:
    # JSON's true is an int to Python, never to a contract.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RejectedError(f"contract: {key!r} holds {type(value).__name__}, which it must not")
    return value


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise ValueError(why)


def _list(values: frozenset[str] | tuple[str, ...]) -> str:
    return ", ".join(sorted(values))


def _shape(axes: tuple[int | str, ...]) -> str:
    inside = ", ".join(str(axis) for axis in axes)
    return f"({inside},)" if len(axes) == 1 else f"({inside})"
