"""models/FORMAT.md, The contract."""

from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from edge_models.bundle import Bundle
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.tensors import DTYPES, ImageSpec, TensorSpec

PICTURE = TensorSpec("picture", ("batch", 3, 32, 48), "float32")
IMAGE = ImageSpec(width=48, height=32, mode="RGB", scale=1 / 255, layout="NCHW")


@pytest.fixture
def contract(sample: Bundle) -> Contract:
    return sample.contract


def test_every_dtype_is_numpys_own_name() -> None:
    assert {np.dtype(name).name for name in DTYPES} == DTYPES


def test_a_contract_survives_json(contract: Contract) -> None:
    for one in (contract, replace(contract, inputs=(PICTURE,), image=IMAGE)):
        assert Contract.from_json(orjson.loads(orjson.dumps(one.to_json()))) == one


def test_unknown_keys_are_ignored(contract: Contract) -> None:
    value = contract.to_json() | {"thresholds": {"anomaly": 0.7}}
    value["inputs"] = [contract.to_json()["inputs"][0] | {"colour": "green"}]
    assert Contract.from_json(value) == contract


@pytest.mark.parametrize("key", ["name", "version", "task", "inputs", "outputs", "labels", "scores", "golden_atol"])
def test_a_missing_key_is_named(contract: Contract, key: str) -> None:
    value = contract.to_json()
    del value[key]
    with pytest.raises(RejectedError, match=f"contract: '{key}' is missing"):
        Contract.from_json(value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "No Spaces"}, "name 'No Spaces'"),
        ({"version": ""}, "version ''"),
        ({"task": "divination"}, "task 'divination' is not one of classification, embedding"),
        ({"inputs": []}, "inputs: there must be 1 to 16"),
        ({"labels": ["only"]}, "labels: there must be 2 to 10000"),
        ({"labels": ["same", "same"]}, "labels: two are the same"),
        ({"labels": ["a", 2]}, "'labels' holds int"),
        (
            {"labels": ["a", "b", "c"]},
            r"scores: 'probabilities' must be an output of shape \(batch, 3\) float32",
        ),
        ({"scores": "logits"}, "scores: 'logits' must be an output"),
        ({"golden_atol": float("nan")}, "golden_atol: must be between 0 and 1"),
        ({"golden_atol": True}, "'golden_atol' holds bool"),
        ({"golden_atol": 10**400}, "too large"),
        ({"name": 7}, "'name' holds int"),
        ({"inputs": ["x"]}, "tensor is str, not an object"),
        ({"inputs": [{"name": "x", "shape": ["batch", 0], "dtype": "float32"}]}, "axis 0 is neither"),
        ({"inputs": [{"name": "x", "shape": [1, 3], "dtype": "float32"}]}, "the shape must begin with 'batch'"),
        (
            {"inputs": [{"name": "x", "shape": ["batch"], "dtype": "object"}]},
            "dtype 'object' is not one of bool",
        ),
        ({"inputs": [{"name": "../x", "shape": ["batch"], "dtype": "int8"}]}, "is not an identifier"),
        (
            {"inputs": [{"name": "x", "shape": ["batch"], "dtype": "int8"}] * 2},
            "inputs: two have the same name",
        ),
        (
            {"image": {"width": 4, "height": 4, "mode": "L", "scale": 1, "layout": "NCHW"}},
            "image: input 'sensors'",
        ),
        (
            {"image": {"width": 4, "height": 4, "mode": "CMYK", "scale": 1, "layout": "NCHW"}},
            "image mode 'CMYK'",
        ),
    ],
)
def test_a_bad_contract_is_refused_in_one_line(contract: Contract, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RejectedError, match=message) as caught:
        Contract.from_json(contract.to_json() | changes)
    assert "\n" not in str(caught.value)


def test_making_a_contract_that_contradicts_itself_is_a_programmers_mistake(contract: Contract) -> None:
    with pytest.raises(ValueError, match="scores"):
        replace(contract, labels=("a", "b", "c"))


def test_an_image_says_the_shape_of_its_input(contract: Contract) -> None:
    assert IMAGE.shape == ("batch", 3, 32, 48)
    assert replace(IMAGE, layout="NHWC", mode="L").shape == ("batch", 32, 48, 1)
    with pytest.raises(ValueError, match="image: input 'picture'"):
        replace(contract, inputs=(PICTURE,), image=replace(IMAGE, mode="L"))


@pytest.mark.parametrize(
    ("array", "came"),
    [
        (np.zeros((3, 12)), r"\(3, 12\) float64"),
        (np.zeros((3, 275)), r"\(3, 275\) float64"),
        (np.zeros(275, np.float32), r"\(275,\) float32"),
        (np.zeros((0, 275), np.float32), r"\(0, 275\) float32"),
        (np.zeros((1, 275, 1), np.float32), r"\(1, 275, 1\) float32"),
        (np.zeros((1, 275), ">f4").astype("<f8"), r"\(1, 275\) float64"),
    ],
)
def test_a_wrong_array_says_what_came_and_what_was_wanted(array: Any, came: str) -> None:
    spec = TensorSpec("window", ("batch", 275), "float32")
    with pytest.raises(RejectedError, match=rf"input 'window': came {came}, wanted \(batch, 275\) float32"):
        spec.check(array)


def test_a_right_array_passes() -> None:
    TensorSpec("window", ("batch", 275), "float32").check(np.zeros((2, 275), np.float32))
    TensorSpec("tokens", ("batch", "length"), "int64").check(np.zeros((2, 9), np.int64))
