"""The page: what it says, that it needs nothing from elsewhere, and that data can't break it."""

import base64
import io
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_models.build.cases import Model, disagreements, mistakes
from edge_models.build.drawings import drawn, encode_png, series, text
from edge_models.build.figures import Bubble, Change, changes, duration, heat, plane, signed, size, ticks
from edge_models.build.measure import Measured, judge, measure
from edge_models.build.report import ReportVariant, report
from edge_models.build.run import Answers
from edge_models.build.samples import Samples
from edge_models.build.speed import Speed, one_run, peak_rss_mb, speeds
from edge_models.build.workdir import Gates
from edge_models.bundle import Bundle, read_bundle
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.npy import Array
from edge_models.shipped import shipped_path
from edge_models.steps import Reading
from edge_models.tensors import ImageSpec, TensorSpec

EVIL = "<script>alert(1)</script>\"'&\x00\u202e"
"""A text that would be more than one."""

OPEN = {"meta", "img", "br", "hr", "link"}
"""Elements that have no end."""


class Page(HTMLParser):
    """A page taken apart: its elements, whether each is closed in turn, and what is written."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in OPEN:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words += [data.strip()] if data.strip() else []

    @property
    def said(self) -> str:
        return " ".join(self.words)

    def classes(self, name: str) -> int:
        return sum(name in (attributes.get("class") or "").split() for _, attributes in self.elements)


def bundles() -> tuple[Bundle, Bundle]:
    one, two = (read_bundle(shipped_path("trace", version)) for version in ("1", "2"))
    return one, two


@pytest.fixture(scope="module")
def two_versions() -> tuple[Contract, Samples, ReportVariant, ReportVariant]:
    """Two real models on the same held-out samples."""
    one, two = bundles()
    samples = Samples(two.golden.inputs, two.golden.truth)
    variants = [
        ReportVariant(
            f"trace {bundle.contract.version}",
            measure(bundle.contract, bundle.graph, bundle.files, samples),
            len(bundle.graph),
            speed=Speed(50.0 * number, 80.0 * number, 1.0 / number),
            peak_rss_mb=60.0,
        )
        for number, bundle in ((1, two), (2, one))
    ]
    return two.contract, samples, variants[0], variants[1]


Versions = tuple[Contract, Samples, ReportVariant, ReportVariant]


def test_a_page_says_what_was_measured(two_versions: Versions) -> None:
    contract, samples, good, bad = two_versions
    page = Page(report([good, bad], samples, contract, about={"data": "held-out.npz"}))
    assert "trace 1 against trace 2: 2.00 × as fast" in page.said
    assert "compared" in page.words
    assert not {"taken", "refused"} & set(page.words)
    accuracy = bad.measured.metrics["accuracy"]
    assert f"accuracy {signed(accuracy - 1)}" in page.said
    assert f"{accuracy:.4f}" in page.said
    for words in ("held-out.npz", "ONNX Runtime", "Python", "100 µs", size(good.size_bytes), *contract.labels):
        assert words.replace("\N{NO-BREAK SPACE}", " ") in page.said.replace("\N{NO-BREAK SPACE}", " ")
    assert bad.measured.confusion is not None
    assert page.classes("wrong") - 1 == sum(  # one in the key
        number > 0 for i, row in enumerate(bad.measured.confusion) for j, number in enumerate(row) if i != j
    )


def test_a_page_needs_nothing_from_elsewhere(two_versions: Versions) -> None:
    contract, samples, good, bad = two_versions
    html = report([good, bad], samples, contract)
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.elements}
    named = [value for _, attributes in page.elements for key, value in attributes.items() if key in ("src", "href")]
    assert all((value or "").startswith("data:image/png;base64,") for value in named)
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in html


def test_the_same_measurements_make_the_same_page(two_versions: Versions) -> None:
    contract, samples, good, bad = two_versions
    assert report([good, bad], samples, contract) == report([good, bad], samples, contract)


def test_each_kind_of_disagreement_is_drawn_with_its_input(two_versions: Versions) -> None:
    contract, samples, good, bad = two_versions
    chosen = disagreements(contract, Model("good", good.measured.answers), Model("bad", bad.measured.answers))
    labels = [[v.measured.answers.outputs[contract.scores][row].argmax() for v in (good, bad)] for row in chosen.rows]
    assert chosen.rows
    assert all(one != other for one, other in labels)
    page = Page(report([good, bad], samples, contract))
    assert page.classes("case") == page.classes("series") == len(chosen.rows)
    assert "✗" in page.said


def test_where_all_agree_what_moved_most_is_shown(two_versions: Versions) -> None:
    contract, samples, good, _ = two_versions
    scores = good.measured.answers.outputs[contract.scores].copy()
    scores[7] = scores[7] * 0.9 + 0.025
    moved = judge(contract, Answers({contract.scores: scores}), samples)
    chosen = disagreements(contract, Model("a", good.measured.answers), Model("b", moved.answers))
    assert (chosen.heading, chosen.rows[0]) == ("What moved most", 7)
    page = Page(report([good, replace(good, name="b", measured=moved)], samples, contract))
    assert "agree on all 40 samples" in page.said


def test_gates_and_what_they_refused_are_on_the_page(two_versions: Versions) -> None:
    contract, samples, good, bad = two_versions
    variants = [
        replace(good, name="float", chosen=True, speed=Speed(70, 90, 1.0)),
        replace(bad, name="static", refused="0.71 where float has 1, 0.01 less is allowed", speed=Speed(80, 99, 1.2)),
    ]
    html = report(variants, samples, contract, gates=Gates(max_size_bytes=1000), unmade={"int4": "no large layer"})
    page = Page(html)
    assert "float is kept: 1 of 1 variants fail the gates." in page.said
    assert "0.71 where float has 1, 0.01 less is allowed" in page.said
    assert "no large layer" in page.said
    assert page.classes("zone") == 2
    (gates,) = re.findall(r"<h3>Gates</h3>.*?</table>", html)
    assert (gates.count("✓"), gates.count("✗")) == (0, 4)


def test_a_variant_takes_the_place_of_float_only_where_gates_let_it(two_versions: Versions) -> None:
    contract, samples, good, bad = two_versions
    variants = [replace(good, name="float"), replace(bad, name="static", chosen=True)]
    assert "static takes the place of float: 2.00 ×" in Page(report(variants, samples, contract, gates=Gates())).said
    assert "static against float: 2.00 ×" in Page(report(variants, samples, contract)).said


def test_where_no_scheme_could_be_applied_the_page_says_why(two_versions: Versions) -> None:
    contract, samples, good, _ = two_versions
    alone = replace(good, name="float", chosen=True)
    page = Page(report([alone], samples, contract, gates=Gates(), unmade={"int4": "no large layer"}))
    assert "float is kept: no scheme could be applied." in page.said
    assert "no large layer" in page.said


def test_one_model_alone_shows_its_most_certain_mistakes(two_versions: Versions) -> None:
    contract, samples, _, bad = two_versions
    chosen = mistakes(contract, Model("bad", bad.measured.answers), samples)
    scores = bad.measured.answers.outputs[contract.scores]
    assert chosen.rows
    assert samples.truth is not None
    assert all(contract.labels[scores[row].argmax()] != samples.truth[row] for row in chosen.rows)
    page = Page(report([bad], samples, contract))
    assert page.classes("case") == len(chosen.rows)
    assert page.classes("zone") == page.classes("was") == 0
    assert f"Accuracy {bad.measured.metrics['accuracy']:.4f}. Worst is" in page.said


def test_samples_without_truth_and_without_times(two_versions: Versions) -> None:
    contract, samples, good, bad = two_versions
    blind = [replace(v, measured=Measured({}, v.measured.answers), speed=None, peak_rss_mb=None) for v in (good, bad)]
    page = Page(report(blind, Samples(samples.inputs), contract))
    assert "same answers." in page.said
    assert page.classes("plane") == 0
    Page(report(blind[:1], Samples(samples.inputs), contract))


INPUT = TensorSpec("x", ("batch", 2), "float32", unit=EVIL, description=EVIL)
TAG = Contract("tag", "1", "reading", (INPUT,), (TensorSpec("m", ("batch", 2), "float32"),), ("priced", "other"))
KIND = Contract(
    "kind", "1", "classification", (INPUT,), (TensorSpec("p", ("batch", 2), "float32"),), (EVIL, "\ud800 b"), "p"
)
VECTOR = Contract("vector", "1", "embedding", (INPUT,), (TensorSpec("v", ("batch", 2), "float32"),), embedding="v")
RAW = Contract("raw", "1", "tensors", (INPUT,), (TensorSpec("o", ("batch", 2), "float32"),))
INPUTS: dict[str, Array] = {"x": np.array([[0, 1], [2, 3], [4, 5]], dtype=np.float32)}
ONE: Array = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], dtype=np.float32)
OTHER: Array = np.array([[0.1, 0.9], [0.2, 0.8], [0.5, 0.5]], dtype=np.float32)


def read(price: str) -> tuple[Reading, ...]:
    return tuple(Reading("priced", 0.9, {EVIL: price, "sku": "1"}) for _ in range(3))


@pytest.mark.parametrize(
    ("contract", "output", "truth", "readings"),
    [
        (KIND, "p", (EVIL, "\ud800 b", EVIL), ((), ())),
        (VECTOR, "v", ({"relevant": [1]}, {"relevant": []}, {"relevant": [0]}), ((), ())),
        (TAG, "m", tuple({EVIL: "1.99", "sku": "1"} for _ in range(3)), (read("1.99"), read(EVIL))),
        (RAW, "o", None, ((), ())),
    ],
)
def test_no_text_of_any_task_becomes_more_than_text(
    contract: Contract, output: str, truth: Any, readings: tuple[tuple[Reading, ...], tuple[Reading, ...]]
) -> None:
    samples = Samples(INPUTS, truth, (EVIL, "b" * 5000, "c"))
    variants = [
        ReportVariant(
            f"{number} {EVIL}",
            judge(contract, Answers({output: array}, said), samples),
            1000 + number,
            scheme=EVIL,
            speed=Speed(10, 20, 1),
            refused=EVIL,
        )
        for number, (array, said) in enumerate(zip((ONE, OTHER), readings, strict=True))
    ]
    html = report(variants, samples, contract, gates=Gates(), unmade={EVIL: EVIL}, about={EVIL: EVIL})
    html.encode()
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.elements}
    assert "alert(1)" in page.said
    assert not {"\x00", "\u202e"} & set(html)
    assert len(html) < 60_000
    Page(report(variants[:1], samples, contract))


def test_a_reading_shows_what_is_true_and_what_was_read() -> None:
    samples = Samples(INPUTS, tuple({EVIL: "1.99", "sku": "1"} for _ in range(3)))
    zeros = np.zeros((3, 2), dtype=np.float32)
    variants = [
        ReportVariant(name, judge(TAG, Answers({"m": zeros}, read(price)), samples), 10)
        for name, price in (("float", "1.99"), ("int8", "1.90"))
    ]
    page = Page(report(variants, samples, TAG))
    assert "1.90" in page.said
    assert "sku, int8" not in page.said
    assert page.classes("worse") > 0


def test_a_text_is_shown_with_what_each_model_finds_nearest() -> None:
    samples = Samples(INPUTS, ({"relevant": [1]}, {}, {}), ("first", "second", "third"))
    one, other = np.array([[1, 0], [0.9, 0.1], [0, 1]]), np.array([[1, 0], [0, 1], [0.9, 0.1]])
    variants = [
        ReportVariant(name, judge(VECTOR, Answers({"v": vectors.astype(np.float32)}), samples), 10)
        for name, vectors in (("float", one), ("int8", other))
    ]
    page = Page(report(variants, samples, VECTOR))
    found = page.words[page.words.index("first") :]
    assert found[1:9] == ["sample 0", "nearest, float", "✓", "1: second", "0.994", "nearest, int8", "✗", "2: third"]


def test_many_labels_are_cut_to_those_confused_most() -> None:
    labels = tuple(f"label-{number:03}" for number in range(60))
    contract = Contract(
        "many", "1", "classification", (INPUT,), (TensorSpec("p", ("batch", 60), "float32"),), labels, "p"
    )
    scores = np.eye(60, dtype=np.float32)
    scores[50] = np.roll(scores[50], -1)
    samples = Samples({"x": np.zeros((60, 2), dtype=np.float32)}, labels)
    page = Page(
        report([ReportVariant("float", judge(contract, Answers({"p": scores}), samples), 10)], samples, contract)
    )
    assert {"label-050", "label-049"} <= set(page.words)
    assert sum(re.fullmatch(r"label-\d{3}", words) is not None for words in page.words) < 200
    assert "of 60" in page.said


# Figures


@given(st.floats(-1e6, 1e6), st.floats(1e-4, 1e6), st.integers(2, 9))
def test_ticks_are_few_even_and_inside(low: float, span: float, about: int) -> None:
    marks = ticks(low, low + span, about)
    assert len(marks) <= about + 1
    assert all(low - span * 1e-6 <= mark <= low + span * (1 + 1e-6) for mark in marks)
    gaps = np.diff(marks)
    assert np.allclose(gaps, gaps[0] if len(gaps) else 0, rtol=1e-3)


def test_numbers_are_printed_with_three_figures_and_their_unit() -> None:
    shown = [
        each.replace("\N{NO-BREAK SPACE}", " ") for each in (duration(8.4), duration(21_340), size(94_709), size(70))
    ]
    assert shown == ["8.40 µs", "21.3 ms", "94.7 kB", "70 bytes"]
    assert [signed(0.00001), signed(-0.5, 2), signed(3, 0)] == ["±0", "−0.50", "+3"]


@given(
    st.lists(
        st.tuples(st.floats(1, 1e7), st.floats(0, 1), st.integers(1, 10**9)),
        min_size=1,
        max_size=8,
    )
)
def test_names_in_the_plane_stay_inside_it(rows: list[tuple[float, float, int]]) -> None:
    bubbles = [Bubble(f"variant-{i}", *row, "plain") for i, row in enumerate(rows)]
    figure = plane(bubbles, "accuracy", None, None)
    Page(figure)
    width, height = (float(number) for number in re.findall(r'viewBox="0 0 (\d+) (\d+)"', figure)[0])
    for x, y in re.findall(r'<text class="what[^"]*" x="([\d.-]+)" y="([\d.-]+)"', figure):
        assert 0 < float(x) < width
        assert 0 < float(y) < height


def test_names_of_far_variants_do_not_overlap() -> None:
    bubbles = [
        Bubble("one", 10, 0.9, 100, "plain"),
        Bubble("two", 11, 0.9, 100, "plain"),
        Bubble("six", 10, 0.5, 1, "base"),
    ]
    places = re.findall(r'<text class="what[^"]*" x="([\d.]+)" y="([\d.]+)"', plane(bubbles, "accuracy", 9, 0.8))
    assert len({(round(float(x) / 20), round(float(y) / 20)) for x, y in places}) == 3


def test_limits_far_away_do_not_take_the_room() -> None:
    bubbles = [Bubble("float", 10, 0.9, 100, "base"), Bubble("static", 5, 0.89, 40, "kept")]
    figure = plane(bubbles, "accuracy", 1e6, -5.0)
    ((left, width),) = re.findall(r'<rect class="zone" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', figure)
    centres = [float(x) for x in re.findall(r'cx="([\d.]+)"', figure)]
    assert max(centres) - min(centres) > 100
    assert float(left) + float(width) > max(centres)


def test_a_confusion_matrix_prints_counts_and_changes() -> None:
    page = Page(heat([[3, 1], [0, 4]], ["a", "b"], [[4, 0], [0, 4]]))
    counts = [words for words in page.words if re.fullmatch(r"[+−]?\d", words)]
    assert counts == ["3", "−1", "1", "+1", "4"]


def test_changes_are_worse_better_or_the_same() -> None:
    rows = [Change("a", 0.9, 0.8), Change("b", 0.5, 0.6), Change("c", 0.7, 0.7), Change("d", None, 0.3)]
    page = Page(changes({"all": rows}))
    assert [page.classes(style) for style in ("worse", "better", "same")] == [3, 3, 4]
    assert {"−0.100", "+0.100", "±0"} <= set(page.words)


def test_a_long_series_keeps_its_spike() -> None:
    values = np.zeros(100_000)
    values[61_803] = -7
    figure = series(values)
    assert len(figure) < 10_000
    assert re.search(r",91\.0 ", figure), "the lowest point is at the lower edge"


def decoded(png: bytes) -> Array:
    """The pixels of a PNG without a filter, by the specification."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    size_bytes = int.from_bytes(png[33:37], "big")
    rows = np.frombuffer(zlib.decompress(png[41 : 41 + size_bytes]), dtype=np.uint8).reshape(height, -1)
    return rows[:, 1:].reshape(height, width, -1)


def test_a_picture_becomes_what_it_was_before_it_was_an_input() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) + 10
    padded = np.zeros((5, 6, 3), dtype=np.uint8)
    padded[:2, :3] = pixels
    image = ImageSpec(6, 5, "RGB", 1 / 255, "NCHW", "pad")
    figure = drawn((padded / 255).astype(np.float32).transpose(2, 0, 1), image, EVIL)
    (tag,) = Page(figure).elements
    data = base64.b64decode((tag[1]["src"] or "").removeprefix("data:image/png;base64,"))
    np.testing.assert_array_equal(decoded(data), pixels)


@pytest.mark.skipif(find_spec("PIL") is None, reason="the extra `images` is not installed")
@pytest.mark.parametrize("shape", [(3, 5), (4, 2, 3)])
def test_another_reader_takes_our_pictures(shape: tuple[int, ...]) -> None:
    from PIL import Image

    pixels = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encode_png(pixels)))), pixels)


@pytest.mark.parametrize(
    ("shape", "tag"),
    [((275,), "svg"), ((9,), "svg"), ((3, 200), "svg"), ((200, 3), "svg"), ((1, 64, 64), "img"), ((3, 64, 64), "img")],
)
def test_inputs_are_drawn_by_their_shape(shape: tuple[int, ...], tag: str) -> None:
    assert Page(drawn(np.random.default_rng(2).random(shape), None, "x")).elements[0][0] == tag


def test_inputs_of_one_number_or_none_are_not_drawn() -> None:
    assert drawn(np.array(3.0), None, "x") == drawn(np.array([1.0]), None, "x") == ""
    Page(drawn(np.array([np.nan, 1, np.inf, 1]), None, "x"))


@given(st.text())
def test_text_is_text(value: str) -> None:
    page = Page(f"<p>{text(value)}</p>")
    assert [tag for tag, _ in page.elements] == ["p"]


# Speed


def test_graphs_are_timed_in_turns_against_float() -> None:
    one, two = bundles()
    sample = one_run(one.contract, one.golden.inputs)
    timed = speeds(one.contract, {"float": two.graph, "small": one.graph}, {}, sample)
    assert timed["float"].ratio == 1.0
    assert all(0 < speed.p50_us <= speed.p99_us for speed in timed.values())
    assert timed["small"].ratio == pytest.approx(timed["small"].p50_us / timed["float"].p50_us, rel=0.5)


def test_a_graph_that_cannot_run_on_the_sample_is_refused() -> None:
    one, _ = bundles()
    with pytest.raises(RejectedError, match="float: the graph cannot run on the sample"):
        speeds(one.contract, {"float": one.graph}, {}, {"window": np.zeros((1, 3), dtype=np.float32)})
    with pytest.raises(RejectedError, match="cannot be run"):
        peak_rss_mb(b"no graph", {})


def test_memory_is_that_of_a_process_of_its_own() -> None:
    one, _ = bundles()
    taken = np.ones(40_000_000)  # 320 MB that are ours, not the child's
    used = peak_rss_mb(one.graph, one_run(one.contract, one.golden.inputs))
    assert 20 < used < taken.nbytes / 2e6


def test_one_run_has_no_axis_of_samples_where_the_model_takes_no_batch() -> None:
    unbatched = Contract("raw", "1", "tensors", (TensorSpec("x", (2,), "float32"),), RAW.outputs, batched=False)
    assert one_run(RAW, INPUTS, 1)["x"].tolist() == [[2, 3]]
    assert one_run(unbatched, INPUTS, 1)["x"].tolist() == [2, 3]
    assert isinstance(one_run(unbatched, {"x": np.array([1, 2])})["x"], np.ndarray)
