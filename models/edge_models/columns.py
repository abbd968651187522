"""A table's row as one input of a model: its columns by their names, and texts that are categories by their numbers.

The same code where a model is measured and where it runs, so that a column is never taken for another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_models.errors import RejectedError
from edge_models.jsonfields import field, item, object_of, require

if TYPE_CHECKING:
    from edge_models.tensors import TensorSpec

OTHER = -1
"""The number of a text that is none of the categories, in columns where one may come."""

MAX_TEXTS, MAX_TEXT = 10_000, 200

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Categories:
    """The texts that a column may hold. What the graph takes in their place is a text's place among them, from 0."""

    column: str
    texts: tuple[str, ...]
    other: bool = False
    """Whether any other text may come too: its number is `OTHER`."""

    def __post_init__(self) -> None:
        what = f"categories of {self.column!r}"
        require(0 < len(self.texts) <= MAX_TEXTS, f"{what}: there must be 1 to {MAX_TEXTS}")
        require(len(set(self.texts)) == len(self.texts), f"{what}: two are the same")
        require(all(0 < len(text) <= MAX_TEXT for text in self.texts), f"{what}: each has 1 to {MAX_TEXT} characters")

    def number(self, text: str) -> int:
        """What stands for this text. Raises `RejectedError` naming the column where it may not come."""
        if text in self.texts:
            return self.texts.index(text)
        if self.other:
            return OTHER
        raise RejectedError(f"column {self.column!r}: {text[:40]!r} is not one of {_few(self.texts)}")

    def first_wrong(self, numbers: NDArray[Any]) -> str | None:
        """What is wrong with the first of these ``(batch,)`` numbers that stands for no text; None where all do."""
        known = (numbers >= (OTHER if self.other else 0)) & (numbers < len(self.texts)) & (numbers == np.floor(numbers))
        if known.all():
            return None
        came = numbers[np.flatnonzero(~known)[0]]
        return f"column {self.column!r}: came {came:g}, wanted the number of one of its {len(self.texts)} categories"


def by_names(spec: "TensorSpec", values: Mapping[str, Any]) -> list[Any]:
    """One sample of an input with columns, from values by their columns' names; what else there is, is passed over.

    Raises `RejectedError` naming the columns that are missing, or hold no number, or no text where they are categories,
    and as `coded`.
    """
    missing = [name for name in spec.columns if name not in values]
    if missing:
        raise RejectedError(f"input {spec.name!r}: no {_few(missing)} (there are: {_few(list(values)) or 'none'})")
    kinds = {each.column: each for each in spec.categories}
    numbers = (bool,) if spec.dtype == "bool" else (int, float)  # true is a number to Python, never here
    row = [
        _text(values[name], kinds[name]) if name in kinds else _number(values[name], name, numbers)
        for name in spec.columns
    ]
    return coded(spec, row)


def coded(spec: "TensorSpec", row: Sequence[Any]) -> list[Any]:
    """A sample in the columns' order, each text of a column of categories as its number; all else stays as it is.

    Raises `RejectedError` for a text that is none of its column's categories.
    """
    sample = list(row)
    for each in spec.categories:
        place = spec.columns.index(each.column)
        if place < len(sample) and isinstance(sample[place], str):
            sample[place] = each.number(sample[place])
    return sample


def places(spec: "TensorSpec", header: Sequence[str]) -> list[int]:
    """Where in a table's header the columns of an input are, in their order.

    Raises `RejectedError` naming those that are missing, or there twice.
    """
    missing = [name for name in spec.columns if name not in header]
    if missing:
        raise RejectedError(f"input {spec.name!r}: no column {_few(missing)} (there are: {_few(header) or 'none'})")
    twice = [name for name in spec.columns if list(header).count(name) > 1]
    if twice:
        raise RejectedError(f"two columns are named {twice[0]!r}")
    return [list(header).index(name) for name in spec.columns]


def categories_from_json(value: object) -> Categories:
    """A column's categories in a decoded JSON object. Raises `RejectedError`, or `ValueError` as the class does."""
    fields = object_of(value, "categories")
    return Categories(
        column=field(fields, "column", str),
        texts=tuple(item(text, "texts", str) for text in field(fields, "texts", (list, tuple))),
        other=item(fields.get("other", False), "other", bool),
    )


def _number(value: Any, column: str, kinds: tuple[type, ...]) -> Any:
    if type(value) not in kinds:
        came = "null" if value is None else repr(value)[:40]
        raise RejectedError(f"column {column!r}: came {came}, wanted a number")
    return value


def _text(value: object, categories: Categories) -> str:
    """By name a category is always its text, never its number; whole numbers may be written as such if they are one."""
    text = str(value) if type(value) in (int, str) else None
    if text is None or (type(value) is int and text not in categories.texts):
        raise RejectedError(f"column {categories.column!r}: came no text, wanted one of {_few(categories.texts)}")
    return text


def _few(names: Sequence[str]) -> str:
    """The first of them, in one line whatever is in them."""
    shown = ", ".join(" ".join(name.split()) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
