"""The columns of the table that a scikit-learn model was trained on, and the beginning of a graph that takes them.

A bundle's graph takes numbers only. Where the model takes texts, the graph takes their places among the categories that
the model's encoder knows, and begins by making texts of them again: behind that it is what skl2onnx makes of the model.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline

from edge_models.build.importing.graphs import identifier, names_in, opset_of, prune, set_opset, subgraphs
from edge_models.columns import OTHER, Categories
from edge_models.errors import RejectedError

ML = "ai.onnx.ml"

TEXTS_OPSET = 2
"""Of `ML`: the first whose LabelEncoder makes texts of numbers."""

_LENIENT = ("ignore", "use_encoded_value")
"""What an encoder's `handle_unknown` says where it takes any category."""


@dataclass(slots=True)
class Column:
    """One column of the table."""

    name: str
    known: tuple[Any, ...] = ()
    """The categories that an encoder knows; none: it takes any number."""
    other: bool = False
    """Whether that encoder takes other categories too."""
    taken: bool = True
    """False: the model drops it."""

    @property
    def texts(self) -> tuple[str, ...]:
        """`known`, where they are texts."""
        return tuple(str(each) for each in self.known if isinstance(each, str))

    @property
    def stranger(self) -> str:
        """A text that is none of them."""
        return identifier("_other_", set(self.texts))


@dataclass(frozen=True, slots=True)
class Table:
    """What the model was trained on."""

    columns: tuple[Column, ...]
    named: bool
    """Whether the columns have names of their own, as those of a DataFrame have."""
    split: bool
    """Whether the model must be given its columns one by one."""

    @property
    def taken(self) -> tuple[Column, ...]:
        """The columns that the graph takes, in their order."""
        return tuple(column for column in self.columns if column.taken)

    @property
    def names(self) -> tuple[str, ...]:
        """For a contract: none where neither a name nor a text is to be known."""
        tells = self.named or any(column.texts for column in self.columns)
        return tuple(column.name for column in self.taken) if tells else ()

    @property
    def categories(self) -> tuple[Categories, ...]:
        """For a contract."""
        return tuple(Categories(each.name, each.texts, each.other) for each in self.taken if each.texts)

    def draw(self, rows: int, chance: np.random.Generator) -> tuple[Any, list[Any]]:
        """So many rows by chance: as the graph takes them, ``(rows, taken) float32``, and column by column as the model
        takes all of them."""
        numbers, values = [], []
        for column in self.columns:
            if column.texts:
                codes = chance.integers(OTHER if column.other else 0, len(column.texts), rows)
                texts = np.array([*column.texts, column.stranger], dtype=object)  # the last is that at -1
                numbers.append(codes)
                values.append(texts[codes])
                continue
            drawn = chance.choice(np.array(column.known), rows) if column.known else chance.standard_normal(rows)
            numbers.append(np.asarray(drawn, dtype=np.float32))
            values.append(numbers[-1])
        taken = [each for each, column in zip(numbers, self.columns, strict=True) if column.taken]
        return np.stack(taken, axis=1).astype(np.float32), values


def table_of(estimator: Any, width: int) -> Table:
    """The table of so many columns that this model was trained on.

    Raises `RejectedError` naming the column where it holds what a bundle's graph can't be given: free text, or texts
    beside numbers or missing values.
    """
    names = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    columns = [Column(name) for name in names or (f"x{place}" for place in range(width))]  # scikit-learn's own words
    _look(estimator, columns)
    first = _first_step(estimator)
    if isinstance(first, ColumnTransformer):
        used = {place for name, op, _ in first.transformers_ if _works(op) for place in _places(first, name)}
        for place, column in enumerate(columns):
            column.taken = place in used
    split = isinstance(first, ColumnTransformer) or any(column.texts for column in columns)
    return Table(tuple(columns), bool(names), split)


def by_place(estimator: Any) -> Any:
    """The model with columns told by their places, not by names, and without what fills in texts that are missing:
    neither is known to skl2onnx, and a site sends no sample with something missing."""
    if isinstance(estimator, Pipeline):
        copied = copy.copy(estimator)
        (name, first), *others = estimator.steps
        copied.steps = [(name, by_place(first)), *others]
        if isinstance(first, SimpleImputer) and len(others) and _holds_texts(others[0][1]):
            copied.steps = others
        return copied
    if isinstance(estimator, ColumnTransformer):
        copied = copy.copy(estimator)
        copied.transformers_ = [
            (name, by_place(op), _places(estimator, name)) for name, op, _ in estimator.transformers_
        ]
        return copied
    return estimator


def join_columns(model: Any, table: Table, inputs: Sequence[str], name: str) -> None:
    """Put one input, ``(batch, taken) float32``, in the place of `inputs`, which are the table's columns one by one."""
    taken = names_in(model)
    pairs = [(column, given) for column, given in zip(table.columns, inputs, strict=True) if column.taken]
    sizes = identifier(f"{name}_sizes", taken)
    model.graph.initializer.append(numpy_helper.from_array(np.ones(len(pairs), dtype=np.int64), sizes))
    parts, nodes = [], []
    for place, (column, given) in enumerate(pairs):
        if not column.texts:
            parts.append(given)
            continue
        parts.append(identifier(f"{name}_{place}", taken))
        whole = identifier(f"{name}_{place}_whole", taken)
        nodes.append(helper.make_node("Cast", [parts[-1]], [whole], to=TensorProto.INT64))
        nodes.append(
            helper.make_node(
                "LabelEncoder",
                [whole],
                [given],
                domain=ML,
                keys_int64s=list(range(len(column.texts))),
                values_strings=list(column.texts),
                default_string=column.stranger,
            )
        )
    nodes.insert(0, helper.make_node("Split", [name, sizes], parts, axis=1))
    for index, node in enumerate(nodes):
        model.graph.node.insert(index, node)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, len(pairs)]))
    if len(nodes) > 1 and opset_of(model, ML) < TEXTS_OPSET:
        set_opset(model, TEXTS_OPSET, ML)
    prune(model)


def take_any_category(model: Any) -> None:
    """A category that a OneHotEncoder does not know is none of its own: what may come is the contract's to say."""
    for graph in subgraphs(model.graph):
        for node in graph.node:
            if node.op_type == "OneHotEncoder":
                kept = [attribute for attribute in node.attribute if attribute.name != "zeros"]
                del node.attribute[:]
                node.attribute.extend([*kept, helper.make_attribute("zeros", 1)])


def _look(estimator: Any, columns: Sequence[Column]) -> None:
    """Note what the encoders that take these columns as they come know of them."""
    if isinstance(estimator, Pipeline):
        steps = [step for _, step in estimator.steps if not isinstance(step, (SimpleImputer, str))]
        for step in steps[:1]:
            _look(step, columns)
    elif isinstance(estimator, ColumnTransformer):
        for name, op, _ in estimator.transformers_:
            if _works(op):
                _look(op, [columns[place] for place in _places(estimator, name)])
    elif isinstance(estimator, FeatureUnion):
        for _, op in estimator.transformer_list:
            _look(op, columns)
    elif hasattr(estimator, "vocabulary_"):
        raise RejectedError(
            f"column {columns[0].name!r} is free text (for a {type(estimator).__name__}): a table's columns hold "
            "numbers or categories: make numbers of it before the pipeline, and train with those"
        )
    else:
        categories = getattr(estimator, "categories_", None)
        if isinstance(categories, list) and len(categories) == len(columns):
            other = getattr(estimator, "handle_unknown", "error") in _LENIENT
            for column, known in zip(columns, categories, strict=True):
                _note(column, known.tolist(), other)


def _note(column: Column, known: list[Any], other: bool) -> None:
    texts = [each for each in known if isinstance(each, str)]
    if texts and len(texts) < len(known):
        strange = next(each for each in known if not isinstance(each, str))
        missing = strange is None or bool(np.isreal(strange) and np.isnan(strange))
        raise RejectedError(
            f"column {column.name!r} has texts and {'missing values' if missing else repr(strange)} among its "
            "categories: make all of them texts before training (missing ones as with "
            "SimpleImputer(strategy='constant', fill_value='missing'))"
        )
    column.other = other and (column.other or not column.known)
    column.known = tuple(dict.fromkeys([*column.known, *known]))


def _holds_texts(step: Any) -> bool:
    categories = getattr(step, "categories_", None)
    return isinstance(categories, list) and any(
        isinstance(each, str) for known in categories for each in known.tolist()
    )


def _first_step(estimator: Any) -> Any:
    return _first_step(estimator.steps[0][1]) if isinstance(estimator, Pipeline) else estimator


def _works(op: Any) -> bool:
    """Whether it is no word: ``drop``, or (where older versions leave it) ``passthrough``."""
    return not isinstance(op, str) or op == "passthrough"


def _places(transformer: Any, name: str) -> list[int]:
    """The places of a transformer's columns. scikit-learn keeps them, under a name of its own, since version 1.0."""
    return [int(place) for place in transformer._transformer_to_input_indices[name]]
