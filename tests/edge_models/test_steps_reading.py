"""Reading shelf labels: boxes, crops, decoding, and what the lines say. Needs no model."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edge_models.contract import Contract, Step
from edge_models.errors import RejectedError
from edge_models.steps import Line, prepare
from edge_models.steps.boxes import (
    Box,
    BoxRules,
    box_at,
    connected,
    convex_hull,
    find_boxes,
    in_reading_order,
    runs,
    smallest_box,
)
from edge_models.steps.crops import GREY, bilinear, crop, with_margin
from edge_models.steps.ctc import greedy, read_alphabet, write_alphabet
from edge_models.steps.shelf_label import check_digit_holds, interpret, plain
from edge_models.tensors import TensorSpec

ALPHABET = ("a", "b", "c", " ", "é", "3")


# --- boxes -----------------------------------------------------------------------------------------------------------


def flooded(marked: NDArray[np.bool_]) -> set[frozenset[tuple[int, int]]]:
    """The connected areas, pixel by pixel: slow and plain."""
    left = {(int(y), int(x)) for y, x in np.argwhere(marked)}
    areas = set()
    while left:
        todo, area = [left.pop()], set()
        while todo:
            y, x = todo.pop()
            area.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo += near
        areas.add(frozenset(area))
    return areas


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_connected_areas_are_those_that_a_flood_fills(marked: NDArray[np.bool_]) -> None:
    rows, starts, ends = runs(marked)
    areas: dict[int, set[tuple[int, int]]] = {}
    names = connected(rows, starts, ends, marked.shape[1])
    for row, start, end, name in zip(rows, starts, ends, names, strict=True):
        areas.setdefault(int(name), set()).update((int(row), x) for x in range(start, end))
    assert {frozenset(area) for area in areas.values()} == flooded(marked)


def test_an_area_wound_like_a_spiral_is_one() -> None:
    spiral = np.zeros((9, 9), dtype=bool)
    spiral[0, :] = spiral[:, 8] = spiral[8, :] = spiral[2:, 0] = spiral[2, :7] = spiral[2:7, 6] = True
    assert len(set(connected(*runs(spiral), 9).tolist())) == 1


POINTS = arrays(np.float64, st.tuples(st.integers(3, 30), st.just(2)), elements=st.integers(-50, 50).map(float))


@given(POINTS)
def test_every_point_is_inside_the_smallest_box(points: NDArray[np.float64]) -> None:
    box = smallest_box(points)
    assert abs(box.angle) <= math.pi / 4 + 1e-9
    cos, sin = math.cos(box.angle), math.sin(box.angle)
    along, across = points @ (cos, sin), points @ (-sin, cos)
    assert along.min() >= box.left - 1e-9
    assert along.max() <= box.right + 1e-9
    assert across.min() >= box.top - 1e-9
    assert across.max() <= box.bottom + 1e-9
    level = np.ptp(points, axis=0).prod()
    assert box.width * box.height <= level + 1e-6


@given(POINTS)
def test_a_hull_turns_one_way_only(points: NDArray[np.float64]) -> None:
    hull = convex_hull(points)
    assert {tuple(point) for point in hull} <= {tuple(point) for point in points}
    if len(hull) > 2:
        one, two = np.roll(hull, -1, axis=0) - hull, np.roll(hull, -2, axis=0) - np.roll(hull, -1, axis=0)
        assert (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0] > 0).all()


@given(st.floats(-0.7, 0.7), st.floats(20, 200), st.floats(5, 15))
def test_a_turned_rectangle_is_found_again(angle: float, width: float, height: float) -> None:
    true = Box(angle, 30.0, 40.0, 30.0 + width, 40.0 + height, 1.0)
    found = smallest_box(true.corners)
    assert found.angle == pytest.approx(angle, abs=1e-6)
    assert found.corners == pytest.approx(true.corners, abs=1e-6)


def bars(shape: tuple[int, int], *boxes: Box) -> NDArray[np.float32]:
    """A map that is 0.9 inside these boxes."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    marked = np.zeros(shape, dtype=np.float32)
    for box in boxes:
        u = x * math.cos(box.angle) + y * math.sin(box.angle)
        v = y * math.cos(box.angle) - x * math.sin(box.angle)
        marked[(u >= box.left) & (u <= box.right) & (v >= box.top) & (v <= box.bottom)] = 0.9
    return marked


def test_boxes_are_the_marked_areas_enlarged_in_the_order_one_reads_them() -> None:
    low, right, left = (
        Box(0, 10, 60, 110, 70, 0.9),
        Box(0, 80, 20, 150, 30, 0.9),
        Box(0, 10, 21, 60, 31, 0.9),
    )
    found = find_boxes(bars((100, 200), low, right, left), BoxRules(enlarge=1.6))
    assert [box.score for box in found] == pytest.approx([0.9] * 3)
    for box, true in zip(found, (left, right, low), strict=True):
        by = 1.6 * true.width * true.height / (2 * (true.width + true.height))
        want = [(true.left - by, true.top - by), (true.right + by, true.top - by)]
        assert box.corners[:2] == pytest.approx(np.array(want))


@pytest.mark.parametrize("degrees", [-12, 7])
def test_text_at_an_angle_gets_a_box_at_that_angle_and_short_text_too(degrees: int) -> None:
    angle = math.radians(degrees)
    long, short = Box(angle, 40, 60, 170, 74, 1), Box(angle, 40, 90, 56, 108, 1)
    found = find_boxes(bars((200, 240), long, short), BoxRules(enlarge=0.0))
    assert [math.degrees(box.angle) for box in found] == pytest.approx([degrees] * 2, abs=0.8)
    assert found[0].corners == pytest.approx(long.corners, abs=2)
    assert found[1].corners == pytest.approx(short.corners, abs=2)


def test_a_row_runs_along_the_tilt() -> None:
    tilt = math.radians(10)
    row = [Box(tilt, x, 100, x + 40, 112, 1) for x in (300, 20, 160)]
    below = Box(tilt, 10, 125, 60, 137, 1)
    ordered = in_reading_order([below, *row], tilt)
    assert [box.left for box in ordered] == [20, 160, 300, 10]


def test_of_too_many_areas_the_largest_are_kept() -> None:
    probability = np.zeros((400, 400), dtype=np.float32)
    for index in range(400):
        y, x = divmod(index, 20)
        probability[y * 20 : y * 20 + 4, x * 20 : x * 20 + (12 if index in (7, 300) else 4)] = 1
    found = find_boxes(probability, BoxRules(most=2, enlarge=0))
    assert [box.width for box in found] == [12, 12]


@pytest.mark.parametrize("probability", [0.0, 1.0, np.nan, np.inf])
def test_a_map_of_one_value_gives_at_most_the_whole(probability: float) -> None:
    found = find_boxes(np.full((30, 40), probability, dtype=np.float32), BoxRules(enlarge=0))
    whole = [box_at(0, np.array([[0, 0], [40, 30]], dtype=np.float64))]
    assert found == (whole if probability >= 1 else [])


def test_what_is_no_number_does_not_reach_its_neighbours() -> None:
    probability = np.full((20, 60), np.nan, dtype=np.float32)
    probability[5:12, 10:50] = 0.8
    [box] = find_boxes(probability, BoxRules(enlarge=0))
    assert box.score == pytest.approx(0.8)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6])
def test_noise_costs_no_more_than_the_boxes_that_are_asked_for(share: float) -> None:
    noise = (np.random.default_rng(3).random((480, 640)) < share).astype(np.float32)
    assert len(find_boxes(noise, BoxRules(most=64))) <= 64


# --- crops -----------------------------------------------------------------------------------------------------------


def corners(left: float, top: float, right: float, bottom: float, angle: float = 0.0) -> NDArray[np.float64]:
    return Box(angle, left, top, right, bottom, 1.0).corners


def test_an_upright_crop_of_the_same_size_is_that_part_of_the_picture() -> None:
    picture = np.random.default_rng(5).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    assert np.array_equal(crop(picture, corners(10, 20, 50, 36), 16, 500), picture[20:36, 10:50])


def test_a_turned_crop_is_upright() -> None:
    angle = math.radians(20)
    y, x = np.mgrid[:120, :160] + 0.5
    along = x * math.cos(angle) + y * math.sin(angle)
    picture = np.repeat(np.where(along < 100, 0, 255).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    cut = crop(picture, corners(80, 10, 120, 30, angle), 20, 500)
    assert cut.shape == (20, 40, 3)
    assert cut[:, :18].max() == 0
    assert cut[:, 22:].min() == 255


def test_what_is_made_smaller_is_averaged() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    assert np.all(np.abs(crop(stripes, corners(0, 0, 64, 64), 16, 500).astype(int) - 100) <= 1)


def test_beyond_the_picture_its_border_goes_on() -> None:
    picture = np.full((10, 10, 3), 77, dtype=np.uint8)
    assert (crop(picture, corners(-500, -20, 800, 40), 48, 100) == 77).all()


@given(st.floats(0, 38), st.floats(0, 28))
def test_between_pixels_values_run_straight(x: float, y: float) -> None:
    grid_y, grid_x = np.mgrid[:30, :40]
    picture = np.stack([grid_x, grid_y, grid_x + grid_y], axis=2).astype(np.uint8)
    assert bilinear(picture, np.array(x), np.array(y)) == pytest.approx(np.array([x, y, x + y]), abs=1e-4)


def test_a_margin_is_grey_to_the_next_multiple() -> None:
    line = np.zeros((8, 33, 3), dtype=np.uint8)
    wide = with_margin(line, 16, 32)
    assert wide.shape == (8, 64, 3)
    assert np.array_equal(wide[:, :33], line)
    assert (wide[:, 33:] == GREY).all()
    assert with_margin(line, 160, 32).shape == (8, 160, 3)


# --- decoding --------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from(range(len(ALPHABET))), st.integers(1, 3), st.integers(0, 2)), max_size=12))
def test_what_was_written_is_read(letters: list[tuple[int, int, int]]) -> None:
    path: list[int] = []
    for index, times, blanks in letters:
        # Equal neighbours need a blank between them.
        path += [0] * max(blanks, int(bool(path) and path[-1] == index + 1)) + [index + 1] * times
    probabilities = np.full((max(len(path), 1), 1 + len(ALPHABET)), 0.01, dtype=np.float32)
    probabilities[np.arange(max(len(path), 1)), path or [0]] = 0.94
    text, score = greedy(probabilities, ALPHABET)
    assert text == "".join(ALPHABET[index] for index, _, _ in letters)
    assert score == pytest.approx(0.94 if letters else 0.0)


def test_a_score_that_is_no_number_is_none() -> None:
    assert greedy(np.full((4, 7), np.nan, dtype=np.float32), ALPHABET)[1] == 0.0


@given(st.lists(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1, unique=True))
def test_an_alphabet_comes_back(characters: list[str]) -> None:
    assert read_alphabet(write_alphabet(characters)) == tuple(characters)


@pytest.mark.parametrize("data", [b"", b"a\n\nb\n", b"a\na\n", b"\xff\n", b"abcdef\n", b"a\nb\n" * 60_000])
def test_a_broken_alphabet_is_refused(data: bytes) -> None:
    with pytest.raises(RejectedError, match="alphabet"):
        read_alphabet(data)


# --- the step --------------------------------------------------------------------------------------------------------

HEIGHT, COLOURS = 8, ("r", "g", "b")


def colour_reader(height: int = HEIGHT, out: str = "characters") -> bytes:
    """A real graph that "reads" colours: each column of pixels that is mostly one of three is that letter."""
    nodes = [
        helper.make_node("Cast", ["line"], ["float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["columns"], axes=[1], keepdims=0),
        helper.make_node("Pad", ["columns", "in_front", "blank"], ["classes"]),
        helper.make_node("Softmax", ["classes"], [out], axis=2),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("line", onnx.TensorProto.UINT8, ["batch", height, "width", 3])],
        [helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, ["batch", "steps", 4])],
        [
            numpy_helper.from_array(np.array([0, 0, 1, 0, 0, 0]), "in_front"),
            numpy_helper.from_array(np.array(200, dtype=np.float32), "blank"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


FILES = {"reads.onnx": colour_reader(), "letters.txt": write_alphabet(COLOURS)}
PARAMS = {"recognise": "reads.onnx", "alphabet": "letters.txt", "height": HEIGHT, "enlarge": 0.0, "max_width": 64}


def label_contract(**params: object) -> Contract:
    return Contract(
        name="labels",
        version="1",
        task="reading",
        inputs=(TensorSpec("picture", ("batch", 40, 60, 3), "uint8"),),
        outputs=(TensorSpec("text", ("batch", 1, 20, 30), "float32"),),
        labels=("read", "partial", "unreadable"),
        steps=(Step("read-text", 1, PARAMS | params), Step("shelf-label", 1)),
    )


def painted() -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Two pictures, the second empty: red then blue in one line, green below; and a map of half the size."""
    pictures = np.zeros((2, 40, 60, 3), dtype=np.uint8)
    pictures[0, 4:12, 10:26, 0] = pictures[0, 4:12, 26:50, 2] = pictures[0, 24:32, 10:50, 1] = 255
    maps = np.zeros((2, 1, 20, 30), dtype=np.float32)
    maps[0, 0, 2:6, 5:25] = maps[0, 0, 12:16, 5:25] = 0.9
    return pictures, maps


def test_lines_are_read_where_the_map_marks_them() -> None:
    pictures, maps = painted()
    steps = prepare(label_contract(), FILES)
    assert steps.read is not None
    first, second = steps.read({"picture": pictures}, {"text": maps})
    assert [line.text for line in first] == ["rb", "g"]
    assert first[0].box == ((10.0, 4.0), (50.0, 4.0), (50.0, 12.0), (10.0, 12.0))
    assert first[0].score > 0.99
    assert second == []
    readings = steps.readings({"picture": pictures}, {"text": maps})
    assert [reading.label for reading in readings] == ["partial", "unreadable"]
    assert readings[0].values == {"name": "rb", "price": "", "sku": ""}


def test_a_line_is_no_wider_than_allowed() -> None:
    pictures, maps = painted()
    steps = prepare(label_contract(max_width=8, min_width=8, multiple=1), FILES)
    assert steps.read is not None
    assert [line.text for line in steps.read({"picture": pictures}, {"text": maps})[0]] == ["rb", "g"]


@pytest.mark.parametrize(
    ("params", "files", "says"),
    [
        ({"recognise": "other.onnx"}, FILES, "'recognise' names no file"),
        ({"alphabet": None}, FILES, "'alphabet' names no file"),
        ({"height": "48"}, FILES, "'height' must be a whole number 8 to 128"),
        ({"height": True}, FILES, "'height' must be"),
        ({"height": 8.5}, FILES, "'height' must be"),
        ({"boxes": 100_000}, FILES, "'boxes' must be a whole number 1 to 256"),
        ({"threshold": float("nan")}, FILES, "'threshold' must be a number"),
        ({"max_width": 10**9}, FILES, "'max_width' must be"),
        ({}, FILES | {"reads.onnx": b"\x08\x01 nonsense"}, "cannot be loaded"),
        ({}, FILES | {"reads.onnx": b""}, "cannot be loaded"),
        ({}, FILES | {"reads.onnx": colour_reader(height=16)}, r"must take one tensor \(batch, 8, width, 3\) uint8"),
        ({}, FILES | {"letters.txt": b"r\ng\n"}, r"must give one tensor \(batch, steps, 3\) float32"),
        ({}, FILES | {"letters.txt": b"\xff"}, "not UTF-8"),
    ],
)
def test_a_hostile_bundle_is_refused(params: dict[str, object], files: dict[str, bytes], says: str) -> None:
    with pytest.raises(RejectedError, match=says):
        prepare(label_contract(**params), files)


@pytest.mark.parametrize(
    ("pictures", "maps"),
    [
        (np.zeros((1, 40, 60, 3), np.float32), np.zeros((1, 1, 20, 30), np.float32)),
        (np.zeros((1, 3, 40, 60), np.uint8), np.zeros((1, 1, 20, 30), np.float32)),
        (np.zeros((1, 40, 60, 3), np.uint8), np.zeros((1, 2, 20, 30), np.float32)),
        (np.zeros((2, 40, 60, 3), np.uint8), np.zeros((1, 1, 20, 30), np.float32)),
        (np.zeros((1, 40, 60, 3), np.uint8), np.zeros((1, 1, 0, 30), np.float32)),
    ],
)
def test_tensors_that_are_no_picture_and_map_are_refused(
    pictures: NDArray[np.uint8], maps: NDArray[np.float32]
) -> None:
    steps = prepare(label_contract(), FILES)
    assert steps.read is not None
    with pytest.raises(RejectedError, match="read-text"):
        steps.read({"picture": pictures}, {"text": maps})


# --- what the lines say ----------------------------------------------------------------------------------------------


def line(text: str, x: float, y: float, height: float, score: float = 0.95) -> Line:
    width = height * 0.5 * len(text)
    return Line(text, score, ((x, y), (x + width, y), (x + width, y + height), (x, y + height)))


def said(*lines: Line) -> tuple[str, str, str, str]:
    reading = interpret(lines, 0.8)
    return reading.label, reading.values["name"], reading.values["price"], reading.values["sku"]


def test_a_whole_label_is_read() -> None:
    label = [
        line("Casa Verde Olive Oil", 10, 10, 30),
        line("Extra Fine", 10, 45, 29),
        line("750 ml", 10, 80, 14),
        line("1 l = 17,32 €", 200, 95, 14),
        line("12,99 €", 200, 120, 50, score=0.9),
        line("4006381333931", 10, 150, 15),
    ]
    assert said(*label) == ("read", "Casa Verde Olive Oil Extra Fine", "12.99", "4006381333931")
    assert interpret(label, 0.8).score == 0.9
    assert interpret(label, 0.93).label == "partial"


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("3,49 €", "3.49"),
        ("€ 3.49", "3.49"),
        ("$0.99", "0.99"),
        ("CHF 12.50", "12.50"),
        ("1.299,00 €", "1299.00"),
        ("$1,299.95", "1299.95"),
        ("1'299.00", "1299.00"),
        ("３,４９€", "3.49"),
        ("3, 49 €", "3.49"),
        ("5 €", "5.00"),
        ("€ 5,-", "5.00"),
        ("12.03.26", ""),
        ("349 €", ""),
        ("3,4 €", ""),
        ("€ 6,98/kg", ""),
        ("1 kg = 6,98 €", ""),
        ("$6.98 per lb", ""),
        ("1.2345", ""),
    ],
)
def test_amounts(text: str, price: str) -> None:
    assert said(line(text, 10, 10, 40))[2] == price


def test_the_largest_amount_is_the_price() -> None:
    assert said(line("2,49 €", 10, 10, 15), line("1,99 €", 10, 40, 60), line("0,25 €", 10, 110, 12))[2] == "1.99"


@pytest.mark.parametrize(("whole", "cents"), [("3", "49"), ("3,", "49"), ("€3.", "49"), ("3", "49 €"), ("1299", "00")])
def test_raised_cents_belong_to_what_is_left_of_them(whole: str, cents: str) -> None:
    large = line(whole, 100, 50, 60)
    small = line(cents, large.box[1][0] + 5, 52, 28)
    price = "1299.00" if whole == "1299" else "3.49"
    assert said(large, small)[2] == price
    assert said(small, large)[2] == price


@pytest.mark.parametrize(("dx", "dy", "height"), [(200, 0, 28), (5, 80, 28), (5, 0, 58), (5, 0, 8)])
def test_digits_elsewhere_are_no_cents(dx: float, dy: float, height: float) -> None:
    large = line("3", 100, 50, 60)
    assert said(large, line("49", large.box[1][0] + dx, 50 + dy, height))[2] == ""


@pytest.mark.parametrize(
    ("text", "sku"),
    [
        ("SKU 482913", "482913"),
        ("Art. 4829-137", "4829137"),
        ("Art.-Nr. 4829137", "4829137"),
        ("ITEM NO: 12", "12"),
        ("4006381333931", "4006381333931"),
        ("4 006381 333931", "4006381333931"),
        ("036000291452", "036000291452"),
        ("73513537", "73513537"),
        ("4006381333932", ""),
        ("400638133393", ""),
        ("482913", ""),
        ("party 12", ""),
    ],
)
def test_numbers(text: str, sku: str) -> None:
    assert said(line(text, 10, 10, 12))[3] == sku


def test_the_shops_own_number_goes_first() -> None:
    assert said(line("4006381333931", 10, 10, 12), line("SKU 482913", 10, 30, 12))[3] == "482913"


def test_small_words_and_units_are_no_name() -> None:
    lines = [line("Rye Bread", 10, 10, 30), line("from our own bakery", 10, 50, 15), line("per kg", 10, 70, 40)]
    assert said(*lines)[1] == "Rye Bread"


def test_a_name_is_the_block_around_its_highest_line() -> None:
    lines = [
        line("Light Bulb No.", 10, 10, 30),
        line("1", 10, 45, 28),
        line("CHF", 10, 80, 28),
        line("EUR5", 70, 80, 28),
        line("SALE", 400, 300, 29),
    ]
    assert said(*lines)[1] == "Light Bulb No. 1"
    assert said(line("Light Bulb No.1", 10, 10, 30))[1] == "Light Bulb No. 1"


@given(st.text("0123456789", min_size=12, max_size=12), st.integers(0, 12), st.integers(1, 9))
def test_a_wrong_digit_breaks_the_check_digit(digits: str, place: int, by: int) -> None:
    [gtin] = [digits + last for last in "0123456789" if check_digit_holds(digits + last)]
    wrong = gtin[:place] + str((int(gtin[place]) + by) % 10) + gtin[place + 1 :]
    assert not check_digit_holds(wrong)


@given(st.text())
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert plain(plain(text)) == plain(text)


ANYTHING = st.builds(
    line,
    st.text(max_size=30) | st.from_regex(r"[€$]?\d{0,4}[.,]?\d{0,3} ?(€|/kg|SKU \d+)?", fullmatch=True),
    st.floats(-100, 700),
    st.floats(-100, 700),
    st.floats(0, 300),
    st.floats(0, 1),
)


@settings(max_examples=200)
@given(st.lists(ANYTHING, max_size=12), st.floats(0, 1))
def test_whatever_the_lines_are_a_reading_has_its_form(lines: Sequence[Line], sure: float) -> None:
    reading = interpret(lines, sure)
    assert reading.label in ("read", "partial", "unreadable")
    assert 0 <= reading.score <= 1
    assert set(reading.values) == {"name", "price", "sku"}
    filled = sum(bool(value) for value in reading.values.values())
    assert (reading.label == "unreadable") == (filled == 0)
    assert reading.label != "read" or (filled == 3 and reading.score >= sure)
    price = reading.values["price"]
    assert not price or (price[-3] == "." and price.replace(".", "").isascii() and price.replace(".", "").isdigit())
    json.dumps(dict(reading.values))


@pytest.mark.parametrize("sure", ["high", True, -0.1, 1.1, float("nan")])
def test_a_wrong_parameter_of_the_label_is_refused(sure: object) -> None:
    contract = label_contract()
    steps = (contract.steps[0], Step("shelf-label", 1, {"sure": sure}))
    with pytest.raises(RejectedError, match="'sure'"):
        prepare(replace(contract, steps=steps), FILES)
