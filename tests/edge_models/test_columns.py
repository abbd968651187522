"""Columns and categories of an input (models/FORMAT.md, The contract)."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_models.columns import Categories, by_names, coded, places
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.tensors import TensorSpec, tensor_from_json

MODE = Categories("mode", ("auto", "manual"), other=True)
GATE = Categories("gate", ("open", "shut"))
TABLE = TensorSpec("features", ("batch", 3), "float32", columns=("speed", "mode", "gate"), categories=(MODE, GATE))
PUMP = Contract("pump", "1", "tensors", (TABLE,), (TensorSpec("y", ("batch", 1), "float32"),))


def test_a_contract_keeps_columns_and_categories() -> None:
    told = json.loads(json.dumps(PUMP.to_json()))
    assert Contract.from_json(told) == PUMP
    assert told["inputs"][0]["columns"] == ["speed", "mode", "gate"]
    assert told["inputs"][0]["categories"][0] == {"column": "mode", "texts": ["auto", "manual"], "other": True}


def test_a_contract_without_columns_is_written_as_it_always_was() -> None:
    assert set(PUMP.to_json()["outputs"][0]) == {"name", "shape", "dtype", "unit", "description"}
    assert tensor_from_json({"name": "x", "shape": ["batch", 2], "dtype": "float32"}).columns == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": ["a", "b"]}, r"columns: 2, where the shape is \(batch, 3\)"),
        ({"columns": ["a", "b", "b"]}, "columns: two have the same name"),
        ({"columns": ["a", "b", ""]}, "columns: each has 1 to 200 characters"),
        ({"columns": ["a", "b", 3]}, "'columns' holds int"),
        ({"columns": ["a", "b", "c"], "shape": ["batch", 3, 1]}, "columns: 3, where the shape is"),
        ({"categories": [{"column": "modes", "texts": ["a"]}]}, "categories of 'modes', which is none of them"),
        ({"categories": [{"column": "mode", "texts": ["a"]}] * 2}, "one has its categories twice"),
        ({"categories": [{"column": "mode", "texts": []}]}, "categories of 'mode': there must be 1 to 10000"),
        ({"categories": [{"column": "mode", "texts": ["a", "a"]}]}, "categories of 'mode': two are the same"),
        ({"categories": [{"column": "mode", "texts": ["a", 1]}]}, "'texts' holds int"),
        ({"categories": [{"column": "mode"}]}, "'texts' is missing"),
        ({"categories": [{"column": "mode", "texts": ["a"], "other": 1}]}, "'other' holds int"),
        ({"categories": ["mode"]}, "categories is str, not an object"),
        ({"categories": [{"column": "mode", "texts": ["a"]}], "dtype": "uint8"}, "categories need a dtype of float32"),
        ({"columns": [], "categories": [{"column": "mode", "texts": ["a"]}]}, "columns: 0, where the shape is"),
    ],
)
def test_columns_that_contradict_themselves_are_refused_in_one_line(changes: dict[str, Any], said: str) -> None:
    told = PUMP.to_json()
    told["inputs"] = [told["inputs"][0] | {"categories": []} | changes]
    with pytest.raises(RejectedError, match=said) as caught:
        Contract.from_json(json.loads(json.dumps(told)))
    assert "\n" not in str(caught.value)


def test_a_row_is_taken_by_names_whatever_else_there_is() -> None:
    assert by_names(TABLE, {"gate": "shut", "id": "p7", "mode": "auto", "speed": 2.5}) == [2.5, 0, 1]
    assert by_names(TABLE, {"gate": "open", "mode": "turbo", "speed": 1}) == [1, -1, 0]
    gears = replace(TABLE, categories=(Categories("gate", ("2", "1"), other=True),))
    for first in ("2", 2):
        assert by_names(gears, {"gate": first, "mode": 3, "speed": 1}) == [1, 3, 0]
    assert coded(TABLE, [1, "manual", "open"]) == [1, 1, 0]
    assert coded(TABLE, ["fast"]) == ["fast"]  # too short, and no number: who makes the tensor says so
    assert places(TABLE, ["gate", "label", "speed", "mode"]) == [2, 3, 0]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"speed": 1, "mode": "auto", "gate": 1}, "column 'gate': came no text, wanted one of open, shut"),
        ({"speed": 1, "gate": "open", "Mode": "auto"}, r"input 'features': no mode \(there are: speed, gate, Mode\)"),
        ({"speed": True, "mode": "auto", "gate": "open"}, "column 'speed': came True, wanted a number"),
        ({"speed": "fast", "mode": "auto", "gate": "open"}, "column 'speed': came 'fast', wanted a number"),
        ({}, r"no speed, mode, gate \(there are: none\)"),
        ({"speed": 1, "mode": "auto", "gate": "ajar"}, "column 'gate': 'ajar' is not one of open, shut"),
    ],
)
def test_a_row_that_does_not_fit_names_the_column(values: dict[str, Any], said: str) -> None:
    with pytest.raises(RejectedError, match=said):
        by_names(TABLE, values)


@pytest.mark.parametrize("value", [7, 1.0, True, None, ["open"]])
def test_by_name_a_category_is_no_number(value: object) -> None:
    with pytest.raises(RejectedError, match="column 'mode': came no text, wanted one of auto, manual"):
        by_names(TABLE, {"speed": 1, "gate": "open", "mode": value})


def test_a_header_that_does_not_fit_names_the_column() -> None:
    with pytest.raises(RejectedError, match=r"no column mode, gate \(there are: speed\)"):
        places(TABLE, ["speed"])
    with pytest.raises(RejectedError, match="two columns are named 'mode'"):
        places(TABLE, ["speed", "mode", "gate", "mode"])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([0.5, -1, 1], None),
        ([0.5, 1, 0], None),
        ([0.5, 2, 0], "input 'features', column 'mode': came 2, wanted the number of one of its 2 categories"),
        ([0.5, 0.5, 0], "column 'mode': came 0.5"),
        ([0.5, 0, -1], "column 'gate': came -1"),
        ([0.5, np.nan, 0], "column 'mode': came nan"),
    ],
)
def test_a_number_that_stands_for_no_category_is_refused_wherever_it_comes_from(row: list[float], said: str) -> None:
    array = np.array([[0, 0, 0], row], dtype=np.float32)
    if said is None:
        TABLE.check(array)
        return
    with pytest.raises(RejectedError, match=said):
        TABLE.check(array)
