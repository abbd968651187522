"""The recipe `shelf-labels`: its pictures, its graphs, and that they read. Needs the extra `models`."""

from importlib.util import find_spec

import numpy as np
import onnx
import pytest

from edge_models.build.label_pictures import LAYOUTS, photograph
from edge_models.build.recipe import wheel_file
from edge_models.build.recipes import shelf_labels
from edge_models.build.run import answers
from edge_models.contract import Contract
from edge_models.errors import ConfigError
from edge_models.steps.ctc import read_alphabet
from edge_models.steps.shelf_label import check_digit_holds

MISSING = [
    name
    for name in ("rapidocr", "font_roboto", "font_source_sans_pro", "font_source_serif_pro")
    if find_spec(name) is None
]

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"the extra `models` is not installed: no {', '.join(MISSING)}")

PICTURES = 2 * len(LAYOUTS)
"""Two of each layout."""


@pytest.fixture(scope="module")
def made() -> tuple[bytes, dict[str, bytes]]:
    return shelf_labels.graphs()


def test_the_same_number_gives_the_same_picture_and_another_gives_another() -> None:
    picture, truth = photograph(5, 3, second_half=False)
    again, same = photograph(5, 3, second_half=False)
    other, _ = photograph(5, 3 + len(LAYOUTS), second_half=False)
    assert picture.shape == (720, 960, 3)
    assert np.array_equal(picture, again)
    assert truth == same
    assert not np.array_equal(picture, other)


def test_what_is_held_out_shares_no_maker_with_what_is_tuned_on() -> None:
    halves = [
        {photograph(5, number, second_half=half)[1]["name"].split()[0] for number in range(12)}
        for half in (False, True)
    ]
    assert not halves[0] & halves[1]
    assert all(len(half) > 3 for half in halves)


def test_the_truth_has_the_form_of_a_reading() -> None:
    for number in range(PICTURES):
        truth = photograph(6, number, second_half=False)[1]
        assert float(truth["price"]) > 0
        assert truth["price"][-3] == "."
        assert len(truth["sku"]) == 7 or check_digit_holds(truth["sku"])


def test_graphs_are_the_same_bytes_each_time(made: tuple[bytes, dict[str, bytes]]) -> None:
    assert shelf_labels.graphs() == made


def test_the_graph_that_reads_knows_latin_only_and_is_smaller(made: tuple[bytes, dict[str, bytes]]) -> None:
    _, files = made
    alphabet = read_alphabet(files["alphabet.txt"])
    assert {*"AZaz09€$.,éüß "} <= set(alphabet)
    assert len(alphabet) < 400
    whole = wheel_file("rapidocr", shelf_labels.RECOGNISE)
    assert len(files["recognise.onnx"]) < 0.8 * whole.stat().st_size
    assert b"Apache License" in files["licence.txt"]


def test_it_reads_what_it_was_not_tuned_on(made: tuple[bytes, dict[str, bytes]]) -> None:
    graph, files = made
    # Another seed than the one whose score the card gives: that one stays for the card.
    samples = shelf_labels.samples("1", 303, PICTURES)
    contract = shelf_labels.contract("1")
    came = answers(contract, graph, files, samples.inputs)
    [output] = contract.outputs
    output.check(came.outputs[output.name], "output")
    assert samples.truth is not None
    right = [
        reading.values[field] == truth[field]
        for reading, truth in zip(came.readings, samples.truth, strict=True)
        for field in truth
    ]
    assert sum(right) >= 0.9 * len(right)


def test_the_contract_survives_its_bundle() -> None:
    contract = shelf_labels.contract("1")
    assert Contract.from_json(contract.to_json()) == contract


def test_normalisation_is_inside_the_graph(made: tuple[bytes, dict[str, bytes]]) -> None:
    model = onnx.load_from_string(made[0])
    [taken] = model.graph.input
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [axis.dim_value or axis.dim_param for axis in taken.type.tensor_type.shape.dim] == ["batch", 480, 640, 3]


def test_a_version_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="no version '9': it has 1"):
        shelf_labels.prepare("9", lambda _: None)
