"""What `edge-agent infer` reads from a file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_agent.inference.files import from_file
from edge_agent.inference.model import Model
from edge_models import pictures
from edge_models.bundle import Bundle
from edge_models.columns import Categories
from edge_models.contract import Contract
from edge_models.errors import ConfigError, RejectedError

ROW = [0.5, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("array", [np.array(ROW, np.float32), np.array([ROW], ">f4")], ids=["sample", "big-endian"])
def test_npy(bundle: Bundle, tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "in.npy", array)
    window = from_file(bundle.contract, tmp_path / "in.npy")["window"]
    assert window.tolist() == [ROW]
    Model(bundle).run({"window": window})


def test_npy_of_the_wrong_dtype_or_shape(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "in.npy"
    np.save(path, np.zeros((3, 12)))
    with pytest.raises(RejectedError, match=r"^in\.npy: input 'window': came \(3, 12\) float64, wanted \(batch, 8\)"):
        from_file(bundle.contract, path)


def test_npy_with_pickled_objects_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(RejectedError, match=r"in\.npy: no array that can be read"):
        from_file(bundle.contract, tmp_path / "in.npy")


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{"], ids=["empty", "cut", "header"])
def test_a_damaged_npy_is_refused(bundle: Bundle, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "in.npy").write_bytes(data)
    with pytest.raises(RejectedError, match=r"in\.npy: no array that can be read"):
        from_file(bundle.contract, tmp_path / "in.npy")


@pytest.mark.parametrize(
    "text",
    ["0.5,1,2,3,4,5,6,7\n", "a,b,c,d,e,f,g,h\n0.5,1,2,3,4,5,6,7\n\n", "\ufeff0.5, 1, 2, 3,4,5,6,7"],
    ids=["plain", "header", "bom-and-spaces"],
)
def test_csv(bundle: Bundle, tmp_path: Path, text: str) -> None:
    (tmp_path / "in.csv").write_text(text, encoding="utf-8")
    assert from_file(bundle.contract, tmp_path / "in.csv")["window"].tolist() == [ROW]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1,2,3\n", "in.csv: row 1: came 3 numbers, wanted 8"),
        ("a\n1,2,3,4,5,6,7,8\n1,2,3,4,x,6,7,8\n", "in.csv: row 3: 'x' is no number"),
        ("", "in.csv: there is no row of numbers in it"),
        ("a,b\n", "in.csv: there is no row of numbers in it"),
        ("1,2,3,4,5,6,7,nan\n", "in.csv: input 'window': came NaN or infinity"),
        ('1,"2', "in.csv: no CSV"),
    ],
)
def test_bad_csv(bundle: Bundle, tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(RejectedError, match=why):
        from_file(bundle.contract, tmp_path / "in.csv")


@pytest.mark.parametrize(
    "value",
    [ROW, [ROW], {"window": ROW}, {"window": [ROW], "machine": "m1"}, [{"window": ROW, "machine": "m1"}]],
    ids=["sample", "batch", "named-sample", "named-batch", "messages"],
)
def test_json(bundle: Bundle, tmp_path: Path, value: Any) -> None:
    (tmp_path / "in.json").write_text(json.dumps(value))
    assert from_file(bundle.contract, tmp_path / "in.json")["window"].tolist() == [ROW]


def test_json_with_several_inputs(two_input_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text('{"sound": [[1, 2], [3, 4]], "mode": [[1], [2]]}')
    inputs = from_file(two_input_bundle.contract, path)
    assert inputs["sound"].shape == (2, 2)
    path.write_text('{"sound": [[1, 2], [3, 4]]}')
    with pytest.raises(RejectedError, match=r"in\.json: input 'mode' is missing"):
        from_file(two_input_bundle.contract, path)
    path.write_text("[[1, 2]]")
    with pytest.raises(RejectedError, match="this model takes sound, mode"):
        from_file(two_input_bundle.contract, path)


@pytest.fixture
def table(bundle: Bundle) -> Contract:
    """The same model with names for its values, the last of them texts."""
    kinds = (Categories("mode", ("1", "2"), other=True),)
    spec = replace(bundle.contract.inputs[0], columns=(*"abcdefg", "mode"), categories=kinds)
    return replace(bundle.contract, inputs=(spec,))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in.csv", "mode,g,f,e,d,c,b,a,serial\n2,6,5,4,3,2,1,0,p-7\n9,6,5,4,3,2,1,0,p-8\n"),
        (
            "in.json",
            '[{"a":0,"b":1,"c":2,"d":3,"e":4,"f":5,"g":6,"mode":"2"},{"window":[0,1,2,3,4,5,6,"9"]}]',
        ),
        ("in.json", '{"window": [[0,1,2,3,4,5,6,"2"],[0,1,2,3,4,5,6,-1]]}'),
    ],
)
def test_columns_by_their_names(table: Contract, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert from_file(table, tmp_path / name)["window"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 1], [0, 1, 2, 3, 4, 5, 6, -1]]


def test_one_object_by_the_names_of_columns(table: Contract, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{"mode": "1", "a":0,"b":1,"c":2,"d":3,"e":4,"f":5,"g":6}')
    assert from_file(table, tmp_path / "in.json")["window"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 0]]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,b,c,d,e,f,g\n0,1,2,3,4,5,6\n", "in.csv: input 'window': no column mode"),
        ("0,1,2,3,4,5,6,7\n", "in.csv: input 'window': no column a, b, c"),
        ("a,b,c,d,e,f,g,mode,a\n0,1,2,3,4,5,6,1,0\n", "in.csv: two columns are named 'a'"),
        ("a,b,c,d,e,f,g,mode\n0,1,2,3,4,5,6\n", "in.csv: row 2: 7 cells, the header has 8"),
        ("a,b,c,d,e,f,g,mode\n\n0,1,x,3,4,5,6,1\n", "in.csv: row 2, column 'c': 'x' is no number"),
        ("a,b,c,d,e,f,g,mode\n", "in.csv: there is no row below the header"),
        ("", "in.csv: input 'window': no column a, b, c"),
        ('a,"b', "in.csv: no CSV"),
    ],
)
def test_a_table_that_lacks_what_the_columns_say(table: Contract, tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(RejectedError, match=why):
        from_file(table, tmp_path / "in.csv")


def test_a_row_of_any_length_where_the_axis_is_open(bundle: Bundle, two_input_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("1,2\n")
    with pytest.raises(RejectedError, match=r"use a \.json file"):
        from_file(two_input_bundle.contract, tmp_path / "in.csv")


@pytest.mark.parametrize("text", ["", "nope", "3", "[NaN]", '{"window": "x"}', "[]", '{"window": []}', "[" * 5000])
def test_bad_json(bundle: Bundle, tmp_path: Path, text: str) -> None:
    (tmp_path / "in.json").write_text(text)
    with pytest.raises(RejectedError, match=r"^in\.json: "):
        from_file(bundle.contract, tmp_path / "in.json")


@pytest.mark.parametrize("name", ["in.png", "in.jpg", "in.bmp"])
def test_a_picture(picture_bundle: Bundle, tmp_path: Path, name: str) -> None:
    Image.new("RGB", (30, 20), (10, 240, 20)).save(tmp_path / name)
    inputs = from_file(picture_bundle.contract, tmp_path / name)
    assert inputs["photo"].shape == (1, 3, 4, 4)
    assert 0.9 < inputs["photo"][0, 1].min() <= inputs["photo"].max() <= 1
    assert Model(picture_bundle).predict(inputs)[0].label == "green"


def test_a_picture_for_a_model_that_takes_none(bundle: Bundle, tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "in.png")
    with pytest.raises(RejectedError, match=r"^in\.png: input 'window' of model 'pump' takes no pictures"):
        from_file(bundle.contract, tmp_path / "in.png")


def test_a_damaged_picture(picture_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "in.png"
    Image.effect_noise((64, 64), 50).save(path)
    whole = path.read_bytes()
    for data in (b"", b"no picture", whole[:60], whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(RejectedError, match=r"^in\.png: no picture that can be read"):
            from_file(picture_bundle.contract, path)


def test_a_picture_with_too_many_pixels(
    picture_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 100)
    Image.new("RGB", (20, 20)).save(tmp_path / "in.png")
    with pytest.raises(RejectedError, match=r"^in\.png: 20 × 20 pixels, the most is 100 in all"):
        from_file(picture_bundle.contract, tmp_path / "in.png")


def test_a_missing_file_and_an_unknown_kind(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"in\.npy: No such file"):
        from_file(bundle.contract, tmp_path / "in.npy")
    with pytest.raises(ConfigError, match=r"wanted a \.npy, \.npz, \.csv or \.json file"):
        from_file(bundle.contract, tmp_path / "in.xlsx")


def test_a_npz_holds_an_array_for_each_input(bundle: Bundle, tmp_path: Path) -> None:
    (spec,) = bundle.contract.inputs
    sample = bundle.golden.inputs[spec.name][:3]
    np.savez(tmp_path / "in.npz", window=sample)
    np.testing.assert_array_equal(from_file(bundle.contract, tmp_path / "in.npz")[spec.name], sample)
    np.savez(tmp_path / "other.npz", other=sample)
    with pytest.raises(RejectedError, match=f"no array is named '{spec.name}"):
        from_file(bundle.contract, tmp_path / "other.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK broken")
    with pytest.raises(RejectedError, match="no arrays that can be read"):
        from_file(bundle.contract, tmp_path / "broken.npz")
