"""Observations become tensors, or one line that says what came and what was wanted."""

import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference.inputs import at_path, from_observation, one, stack, tensor
from edge_agent.records import Observation
from edge_models.bundle import Bundle
from edge_models.columns import Categories
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.tensors import TensorSpec

SPEC = TensorSpec("window", ("batch", 3), "float32")


def seen(values: dict[str, Any], **arrays: Any) -> Observation:
    return Observation(values, at_us=1, source="test", arrays=arrays)


def test_a_micro_batch_keeps_its_order(bundle: Bundle) -> None:
    observations = [seen({"window": [n] * 8}) for n in range(3)]
    inputs = from_observation(bundle.contract, {}, observations)
    assert inputs["window"].tolist() == [[0.0] * 8, [1.0] * 8, [2.0] * 8]
    assert inputs["window"].dtype == np.float32


def test_a_path_reaches_into_the_message(bundle: Bundle) -> None:
    inputs = one(bundle.contract, {"window": "reading.axes"}, seen({"reading": {"axes": [1] * 8}}))
    assert inputs["window"].shape == (1, 8)


def test_the_bad_ones_of_a_batch_can_be_told(bundle: Bundle) -> None:
    good, bad = [], []
    for values in ({"window": [1] * 8}, {"window": [1] * 7}, {}, {"window": [2] * 8}):
        try:
            good.append(one(bundle.contract, {}, seen(values)))
        except RejectedError as error:
            bad.append(str(error))
    assert stack(good)["window"][:, 0].tolist() == [1, 2]
    assert bad == [
        "input 'window': came (1, 7) float32, wanted (batch, 8) float32",
        "there is no 'window' in it (it has: nothing)",
    ]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([1, 2], r"came \(1, 2\) float32, wanted \(batch, 3\) float32"),
        ([1, 2, True], r"came true among its values, wanted \(batch, 3\) float32"),
        ([1, 2, "3"], "came the text '3' among its values"),
        ([1, 2, None], "came null among its values"),
        ([1, 2, [3]], "came a list of 1 among its values"),
        ([1, 2, {"a": 3}], "came an object among its values"),
        ([1, 2, math.nan], "came NaN or infinity among its values, wanted numbers"),
        ([1, 2, -math.inf], "came NaN or infinity"),
        ([1, 2, 1e300], "came NaN or infinity"),
        ([1, 2, 10**400], "came a number too large for float32"),
        ([], r"came \(1, 0\) float32"),
        (5, "came the number 5, wanted"),
        ("abc", "came the text 'abc', wanted"),
        (None, "came null, wanted"),
        ({"0": 1}, "came an object, wanted"),
    ],
)
def test_what_is_no_list_of_numbers_is_refused(value: Any, why: str) -> None:
    with pytest.raises(RejectedError, match=why):
        tensor(SPEC, [value])


@pytest.mark.parametrize(
    ("dtype", "value", "why"),
    [
        ("uint8", [0, 1, 256], "too large for uint8"),
        ("uint8", [0, 1, -1], "too large for uint8"),
        ("int64", [0, 1, 2.0], "came the number 2.0 among its values"),
        ("int64", [0, 1, True], "came true among its values"),
        ("bool", [0, 1, True], "came the number 0 among its values"),
    ],
)
def test_each_dtype_takes_its_own_numbers_only(dtype: str, value: list[Any], why: str) -> None:
    with pytest.raises(RejectedError, match=why):
        tensor(TensorSpec("x", ("batch", 3), dtype), [value])


def test_more_axes_are_nested_lists() -> None:
    spec = TensorSpec("x", ("batch", "time", 2), "float32")
    assert tensor(spec, [[[1, 2], [3, 4], [5, 6]]]).shape == (1, 3, 2)
    with pytest.raises(RejectedError, match="unequal length"):
        tensor(spec, [[[1, 2], [3]]])
    with pytest.raises(RejectedError, match="came the number 3, wanted"):
        tensor(spec, [[[1, 2], 3]])


def test_one_number_stands_for_a_list_of_one(two_input_bundle: Bundle) -> None:
    inputs = one(two_input_bundle.contract, {}, seen({"sound": [0.5, 0.25], "mode": 2}))
    assert inputs["mode"].tolist() == [[2]]
    assert inputs["mode"].dtype == np.int64


@pytest.fixture
def table(bundle: Bundle) -> Contract:
    """The same model with names for its values, the last of them texts."""
    spec = bundle.contract.inputs[0]
    names = (*"abcdefg", "mode")
    kinds = (Categories("mode", ("auto", "manual"), other=True),)
    return replace(bundle.contract, inputs=(replace(spec, columns=names, categories=kinds),))


BY_NAME = {"mode": "manual", "time": "12:00", **{name: place for place, name in enumerate("abcdefg")}}


@pytest.mark.parametrize(
    ("paths", "values"),
    [
        ({}, BY_NAME),
        ({}, {"window": BY_NAME}),
        ({"window": "reading.axes"}, {"reading": {"axes": BY_NAME}}),
        ({}, {"window": [0, 1, 2, 3, 4, 5, 6, "manual"]}),
        ({}, {"window": [0, 1, 2, 3, 4, 5, 6, 1]}),
    ],
)
def test_an_object_of_columns_stands_for_the_list(
    table: Contract, paths: dict[str, str], values: dict[str, Any]
) -> None:
    assert one(table, paths, seen(values))["window"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 1]]


@pytest.mark.parametrize(
    ("paths", "values", "said"),
    [
        ({}, {"a": 1, "mode": "auto"}, "input 'window': no b, c, d, e, f, g (there are: a, mode)"),
        ({"window": "reading"}, BY_NAME, "there is no 'reading' in it"),
        ({}, BY_NAME | {"c": "3"}, "column 'c': came '3', wanted a number"),
        ({}, BY_NAME | {"c": None}, "column 'c': came null, wanted a number"),
        ({}, BY_NAME | {"c": math.nan}, "input 'window': came NaN or infinity"),
        ({}, {"window": [0, 1, 2, 3, 4, 5, 6, 2]}, "column 'mode': came 2, wanted the number of one of its 2"),
    ],
)
def test_an_object_that_lacks_a_column_is_refused_by_its_name(
    table: Contract, paths: dict[str, str], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(RejectedError, match=re.escape(said)):
        one(table, paths, seen(values))


def test_an_object_for_an_input_without_columns_is_refused(bundle: Bundle) -> None:
    with pytest.raises(RejectedError, match="came an object, wanted"):
        one(bundle.contract, {}, seen({"window": BY_NAME}))


def test_open_axes_that_differ_do_not_make_a_batch(two_input_bundle: Bundle) -> None:
    contract = two_input_bundle.contract
    observations = [seen({"sound": [0.5] * n, "mode": 1}) for n in (2, 3)]
    with pytest.raises(RejectedError, match="do not go together"):
        from_observation(contract, {}, observations)


def test_arrays_come_before_values(bundle: Bundle) -> None:
    array = np.ones(8, np.float32)
    assert one(bundle.contract, {}, seen({"window": [0] * 8}, window=array))["window"].tolist() == [[1.0] * 8]
    with pytest.raises(RejectedError, match=r"came \(1, 8\) float64"):
        one(bundle.contract, {}, seen({}, window=np.ones(8)))


def test_a_path_that_leads_nowhere_says_what_there_is() -> None:
    with pytest.raises(RejectedError, match=r"there is no 'a\.c' in it \(it has: a, z\)"):
        at_path({"z": 1, "a": {"b": 2}}, "a.c")
    assert at_path({"a.c": 3}, "a.c") == 3


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(_json, st.sampled_from(["float32", "int8", "uint8", "bool", "float16"]))
def test_whatever_a_sensor_sends_it_is_a_tensor_or_refused(value: Any, dtype: str) -> None:
    spec = TensorSpec("window", ("batch", 2, 2), dtype)
    try:
        array = tensor(spec, [value])
    except RejectedError:
        return
    assert array.shape == (1, 2, 2)
    assert np.isfinite(array).all()
    assert np.asarray(value, np.float64) == pytest.approx(array[0].astype(np.float64), rel=1e-2, abs=1e-6)
