"""Samples from files, and one line for whatever is wrong in them."""

import io
import json
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_models.build.data import load_samples
from edge_models.build.drawings import encode_png
from edge_models.build.reading import checks
from edge_models.build.reading.arrays import from_npz
from edge_models.build.reading.lines import from_jsonl
from edge_models.columns import Categories
from edge_models.contract import Contract, Step
from edge_models.errors import ConfigError, KitError, RejectedError
from edge_models.pictures import MAX_PICTURE_BYTES
from edge_models.tensors import ImageSpec, TensorSpec

SCORES = TensorSpec("p", ("batch", 2), "float32")
PUMP = Contract(
    "pump", "1", "classification", (TensorSpec("sensors", ("batch", 3), "float32"),), (SCORES,), ("ok", "bad"), "p"
)
ROWS = np.array([[1, 2, 3], [4, 5, 6.5]], dtype=np.float32)
VECTOR = Contract("vector", "1", "embedding", PUMP.inputs, (TensorSpec("v", ("batch", 4), "float32"),), embedding="v")
TWO = replace(PUMP, inputs=(TensorSpec("speed", ("batch", 1), "float32"), TensorSpec("count", ("batch",), "int64")))
TABLE = replace(
    PUMP,
    inputs=(
        TensorSpec(
            "sensors",
            ("batch", 3),
            "float32",
            columns=("a", "b", "mode"),
            categories=(Categories("mode", ("auto", "manual"), other=True),),
        ),
    ),
)
RAW = Contract(
    "raw",
    "1",
    "tensors",
    (TensorSpec("sound", (1, "steps"), "float32"), TensorSpec("rate", (), "int64")),
    (TensorSpec("out", (1, 1), "float32"),),
    batched=False,
)


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, contract: Contract) -> str:
    """The one line that is said of a file, without its name."""
    with pytest.raises(RejectedError) as caught:
        load_samples(path, contract, {})
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


# .npz


@pytest.mark.parametrize(
    ("name", "labels"),
    [("labels", np.array([1, 0])), ("truth", np.array([1, 0], dtype=np.uint8)), ("labels", ["bad", "ok"])],
)
def test_arrays_with_labels(tmp_path: Path, name: str, labels: Any) -> None:
    samples = load_samples(
        npz(tmp_path / "a.npz", sensors=ROWS.astype(np.float64), other=[1], **{name: labels}), PUMP, {}
    )
    assert samples.truth == ("bad", "ok")
    np.testing.assert_array_equal(samples.inputs["sensors"], ROWS)
    assert samples.inputs["sensors"].dtype == np.float32


def test_arrays_without_truth(tmp_path: Path) -> None:
    assert load_samples(npz(tmp_path / "a.npz", sensors=ROWS), PUMP, {}).truth is None


def test_arrays_of_a_model_that_takes_no_batch(tmp_path: Path) -> None:
    sound = np.ones((5, 1, 7), dtype=np.float32)
    samples = load_samples(npz(tmp_path / "a.npz", sound=sound, rate=np.full(5, 16000)), RAW, {})
    assert (len(samples), samples.inputs["sound"].shape, samples.truth) == (5, (5, 1, 7), None)


def test_arrays_of_relevant_rows(tmp_path: Path) -> None:
    samples = load_samples(npz(tmp_path / "a.npz", sensors=ROWS, truth=[[1, -1], [0, 1]]), VECTOR, {})
    assert samples.truth == ({"relevant": [1]}, {"relevant": [0, 1]})
    one = load_samples(npz(tmp_path / "b.npz", sensors=ROWS, truth=[1, -1]), VECTOR, {})
    assert one.truth == ({"relevant": [1]}, {"relevant": []})


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"sensor": ROWS}, "no array 'sensors' (there are: sensor)"),
        ({"sensors": ROWS[:, :2]}, "input 'sensors': came (2, 2) float32, wanted (batch, 3) float32"),
        ({"sensors": ROWS[:0]}, "input 'sensors': came (0, 3) float32, wanted (batch, 3) float32"),
        ({"sensors": np.array([["1", "2", "3"]])}, "input 'sensors': came str32 among its values, wanted float32"),
        ({"sensors": [[1, 2, 3], [4, np.nan, 6]]}, "input 'sensors', row 1 at (1): nan is no float32"),
        ({"sensors": [[1, 2, 1e300]]}, "input 'sensors', row 0 at (2): 1e+300 is no float32"),
        ({"sensors": ROWS, "labels": [0]}, "not as many samples in each array: 'sensors' 2, 'labels' 1"),
        ({"sensors": ROWS, "labels": 0}, "not as many samples in each array: 'sensors' 2, 'labels' one value"),
        ({"sensors": ROWS, "labels": [0, 2]}, "'labels', row 1: 2 is no index of the contract's 2 labels"),
        ({"sensors": ROWS, "labels": [-1, 1]}, "'labels', row 0: -1 is no index of the contract's 2 labels"),
        (
            {"sensors": ROWS, "labels": ["ok", "worn"]},
            "'labels', row 1: label 'worn' is not one of the contract's (ok, bad)",
        ),
        ({"sensors": ROWS, "labels": [0.0, 1.0]}, "'labels': (2,) float64 is no truth for classification"),
        ({"sensors": ROWS, "labels": [0, 1], "truth": [0, 1]}, "'labels' and 'truth': wanted one of them"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    assert refusal(npz(tmp_path / "a.npz", **arrays), PUMP) == said


def test_whole_numbers_stay_what_they_are(tmp_path: Path) -> None:
    arrays = {"speed": [[1.5]], "count": [2.0]}
    assert load_samples(npz(tmp_path / "a.npz", **arrays), TWO, {}).inputs["count"].dtype == np.int64
    assert "input 'count', row 0: 2.5 is no int64" in refusal(npz(tmp_path / "b.npz", **arrays | {"count": [2.5]}), TWO)


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", sensors=np.array([{"a": 1}], dtype=object))
    assert refusal(path, PUMP).startswith("no .npz of plain arrays: ")


def test_broken_archives(tmp_path: Path) -> None:
    good = npz(tmp_path / "a.npz", sensors=ROWS).read_bytes()
    for number, content in enumerate((b"", b"PK\x03\x04", good[:-30], good[:100] + b"\xff" * 8 + good[108:])):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(content)
        assert refusal(path, PUMP)


def test_what_would_unpack_too_large_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "a.npz", sensors=np.zeros((100_000, 3)))
    monkeypatch.setattr(checks, "MAX_BYTES", 1_000_000)
    assert "bytes of arrays, the most is 1000000" in refusal(tmp_path / "a.npz", PUMP)


def test_a_header_that_lies_about_its_size(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, ROWS)
    claimed = file.getvalue().replace(b"(2, 3), }" + b" " * 10, b"(99999999999, 3), }")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("sensors.npy", claimed)
    assert refusal(tmp_path / "a.npz", PUMP).startswith("no .npz of plain arrays: ")


# .csv


def test_a_table_with_its_label_anywhere(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "\ufeffx,label,y,z\n1,bad,2,3\n\n4,ok,5,6.5\n")
    samples = load_samples(path, PUMP, {})
    np.testing.assert_array_equal(samples.inputs["sensors"], ROWS)
    assert samples.truth == ("bad", "ok")


def test_a_table_of_series_and_one_of_named_inputs(tmp_path: Path) -> None:
    series = replace(PUMP, inputs=(TensorSpec("window", ("batch", "steps", 2), "float32"),))
    path = written(tmp_path / "a.csv", "a,b,c,d\n1,2,3,4\n")
    assert load_samples(path, series, {}).inputs["window"].tolist() == [[[1, 2], [3, 4]]]
    named = load_samples(written(tmp_path / "b.csv", "count,id,speed,label\n7,x,1.5,ok\n"), TWO, {})
    assert (named.inputs["speed"].tolist(), named.inputs["count"].tolist()) == ([[1.5]], [7])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 columns beside 'label', input 'sensors' (batch, 3) takes 3 values"),
        ("a,b,c\n", "no samples"),
        ("a,b\n1,2\n", "2 columns beside 'label', input 'sensors' (batch, 3) takes 3 values"),
        (
            "a;b;c\n1;2;3\n",
            "1 columns beside 'label', input 'sensors' (batch, 3) takes 3 values, at once in one (wanted: commas)",
        ),
        ("a,b,c\n1,2,3\n4,5\n", "line 3: 2 cells, the header has 3"),
        ("a,b,c\n1,2,three\n", "line 2, column 'c': 'three' is no number"),
        ("a,b,c\n1,,3\n", "line 2, column 'b': '' is no number"),
        ("a,b,c\n1,2,3\n\n1,NaN,3\n", "line 4, column 'b': nan is no number"),
        ("a,b,c\n1,2,inf\n", "line 2, column 'c': inf is no number"),
        ("a,b,c,label\n1,2,3,ok\n1,2,3,worn\n", "line 3: label 'worn' is not one of the contract's (ok, bad)"),
        ('a,b,c\n1,2,"3\n', "line 2: unexpected end of data"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(written(tmp_path / "a.csv", text), PUMP) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("speed,counts\n1,2\n", "no column 'count' (there are: speed, counts)"),
        ("speed,count,speed\n1,2,3\n", "two columns 'speed' (there are: speed, count, speed)"),
        ("speed,count\n1,2.5\n", "line 2, column 'count': '2.5' is no whole number"),
        ("speed,count\n1,99999999999999999999\n", "line 2, column 'count': '99999999999999999999' is no whole number"),
    ],
)
def test_named_columns_that_do_not_fit(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(written(tmp_path / "a.csv", text), TWO) == said


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    text = "time,b,label,mode,a\n12:00,2,bad,turbo,1\n12:01,5,ok,manual,4\n"
    samples = load_samples(written(tmp_path / "a.csv", text), TABLE, {})
    np.testing.assert_array_equal(samples.inputs["sensors"], [[1, 2, -1], [4, 5, 1]])
    assert samples.truth == ("bad", "ok")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,mode,c\n1,auto,3\n", "input 'sensors': no column b (there are: a, mode, c)"),
        ("1,2,auto\n4,5,auto\n", "input 'sensors': no column a, b, mode (there are: 1, 2, auto)"),
        ("a,b,mode,b\n1,2,auto,3\n", "two columns are named 'b'"),
        ("a,b,mode\n1,2,auto\n1,x,auto\n", "line 3, column 'b': 'x' is no number"),
        ("a,b,mode\n1,nan,auto\n", "line 2, column 'b': nan is no number"),
    ],
)
def test_columns_by_name_that_do_not_fit(tmp_path: Path, text: str, said: str) -> None:
    assert refusal(written(tmp_path / "a.csv", text), TABLE) == said


def test_a_text_that_is_no_category(tmp_path: Path) -> None:
    strict = replace(TABLE, inputs=(replace(TABLE.inputs[0], categories=(Categories("mode", ("auto", "manual")),)),))
    said = "line 3, column 'mode': 'turbo' is not one of auto, manual"
    assert refusal(written(tmp_path / "a.csv", "a,b,mode\n1,2,auto\n1,2,turbo\n"), strict) == said
    row = {"a": 1, "b": 2, "mode": "turbo"}
    assert refusal(lines(tmp_path / "a.jsonl", row), strict) == said.replace("line 3, ", "line 1: ")


def test_a_column_that_has_the_name_of_the_truth(tmp_path: Path) -> None:
    table = replace(TABLE, inputs=(TensorSpec("sensors", ("batch", 2), "float32", columns=("a", "label")),))
    assert "use .npz" in refusal(written(tmp_path / "a.csv", "a,label\n1,2\n"), table)


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1, "b": 2, "mode": "manual", "time": "12:00"},
        {"sensors": {"mode": "manual", "b": 2, "a": 1}},
        {"sensors": [1, 2, "manual"]},
        {"sensors": [1, 2, 1]},
    ],
)
def test_lines_by_the_names_of_columns(tmp_path: Path, row: dict[str, Any]) -> None:
    samples = load_samples(lines(tmp_path / "a.jsonl", row | {"label": "ok"}), TABLE, {})
    assert (samples.inputs["sensors"].tolist(), samples.truth) == ([[1, 2, 1]], ("ok",))


def test_a_line_without_a_column(tmp_path: Path) -> None:
    said = "line 1: input 'sensors': no b, mode (there are: a, label)"
    assert refusal(lines(tmp_path / "a.jsonl", {"a": 1, "label": "ok"}), TABLE) == said


def test_a_table_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b,c\n1,2,\xff\n")
    assert refusal(tmp_path / "a.csv", PUMP).startswith("no UTF-8 text: ")


# .jsonl


def lines(path: Path, *rows: object) -> Path:
    return written(path, "\n".join(json.dumps(row) for row in rows) + "\n")


def test_lines_of_inputs(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"sensors": [1, 2, 3], "label": "bad"}, {"label": "ok", "sensors": [4, 5, 6.5]})
    samples = load_samples(path, PUMP, {})
    np.testing.assert_array_equal(samples.inputs["sensors"], ROWS)
    assert samples.truth == ("bad", "ok")


def test_lines_of_a_model_that_takes_no_batch(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", *({"sound": [[0.5, number]], "rate": 16000} for number in range(3)))
    samples = load_samples(path, RAW, {})
    assert (samples.inputs["sound"].shape, samples.inputs["rate"].tolist()) == ((3, 1, 2), [16000] * 3)


def test_lines_of_relevant_rows_where_some_ask_nothing(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"sensors": [1, 2, 3], "relevant": [1]}, {"sensors": [4, 5, 6]})
    assert load_samples(path, VECTOR, {}).truth == ({"relevant": [1]}, {"relevant": []})


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["[1]"], "line 1: no JSON object"),
        (["{"], "line 1: no JSON: "),
        (['{"sensors": [1, 2, NaN]}'], "line 1: no JSON: "),
        (["", ""], "no samples"),
        (['{"sensor": [1, 2, 3]}'], "line 1: no 'sensors' (there are: sensor)"),
        (['{"sensors": [1, 2, null]}'], "line 1: input 'sensors': came object among its values, wanted float32"),
        (['{"sensors": [1, 2, "3"]}'], "line 1: input 'sensors': came str"),
        (['{"sensors": [true, true, false]}'], "line 1: input 'sensors': came bool among its values, wanted float32"),
        (['{"sensors": [1, 2, 1e39]}'], "line 1: input 'sensors' at (2): 1e+39 is no float32"),
        (['{"sensors": [[1, 2], 3]}'], "line 1: input 'sensors': lists of unequal length"),
        (
            ['{"sensors": [1, 2, 3]}', '{"sensors": [1, 2]}'],
            "line 2: input 'sensors': came (1, 2) float32, wanted (batch, 3) float32",
        ),
        (
            ['{"sensors": [1, 2, 3], "label": "ok"}', "", '{"sensors": [1, 2, 3]}'],
            "line 3: no 'label', which other lines have",
        ),
        (['{"sensors": [1, 2, 3], "label": "no"}'], "line 1: label 'no' is not one of the contract's (ok, bad)"),
        (['{"sensors": [1, 2, 3], "label": null}'], "line 1: label None is not one of the contract's (ok, bad)"),
    ],
)
def test_lines_that_do_not_fit(tmp_path: Path, rows: list[str], said: str) -> None:
    assert refusal(written(tmp_path / "a.jsonl", "\n".join(rows)), PUMP).startswith(said)


def test_lines_of_unequal_series(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"sound": [[1, 2]], "rate": 1}, {"sound": [[1, 2, 3]], "rate": 1})
    assert refusal(path, RAW) == "line 2: input 'sound': came (1, 3), before it (1, 2)"


def test_a_relevant_row_that_there_is_not(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"sensors": [1, 2, 3], "relevant": [1]})
    assert refusal(path, VECTOR) == "line 1: 'relevant' [1] is no list of rows from 0 to 0"


# Pictures


PHOTO = Contract(
    "photo",
    "1",
    "classification",
    (TensorSpec("image", ("batch", 3, 4, 4), "float32"),),
    (SCORES,),
    ("ok", "bad"),
    "p",
    image=ImageSpec(4, 4, "RGB", 1 / 255, "NCHW"),
)
TAG = replace(PHOTO, name="tag", task="reading", labels=("priced", "other"), scores="")
needs_pillow = pytest.mark.skipif(find_spec("PIL") is None, reason="the extra `images` is not installed")


def png(path: Path, red: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:, :, 0] = red
    path.write_bytes(encode_png(pixels))
    return path


@needs_pillow
def test_a_folder_of_pictures_by_label(tmp_path: Path) -> None:
    for label, red in (("ok", 255), ("bad", 51)):
        png(tmp_path / label / f"{red}.png", red)
    (tmp_path / "ok" / ".DS_Store").write_bytes(b"what one machine leaves for itself")
    samples = load_samples(tmp_path, PHOTO, {})
    assert samples.truth == ("bad", "ok")
    assert samples.shown == ("bad/51.png", "ok/255.png")
    assert samples.inputs["image"].shape == (2, 3, 4, 4)
    assert samples.inputs["image"][:, 0, 0, 0].tolist() == pytest.approx([0.2, 1.0])
    assert samples.inputs["image"][:, 1:].max() == 0


@needs_pillow
def test_a_folder_of_pictures_without_labels(tmp_path: Path) -> None:
    png(tmp_path / "b.png", 1)
    png(tmp_path / "a.png", 2)
    assert load_samples(tmp_path, PHOTO, {}).truth is None
    assert load_samples(tmp_path, PHOTO, {}).shown == ("a.png", "b.png")


@needs_pillow
def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    assert refusal(tmp_path, PHOTO) == "no pictures (.bmp, .jpeg, .jpg, .png, .webp)"
    assert refusal(tmp_path, PUMP) == "model 'pump' takes no pictures"
    png(tmp_path / "worn" / "a.png", 1)
    assert refusal(tmp_path, PHOTO) == "worn/a.png: label 'worn' is not one of the contract's (ok, bad)"
    png(tmp_path / "b.png", 1)
    assert refusal(tmp_path, PHOTO) == "b.png lies beside the subfolders: which label has it?"
    (tmp_path / "b.png").unlink()
    (tmp_path / "worn").rename(tmp_path / "ok")
    (tmp_path / "ok" / "b.png").write_bytes(b"no picture")
    assert refusal(tmp_path, PHOTO).startswith("ok/b.png: no picture that can be read")
    (tmp_path / "ok" / "b.png").write_bytes(b"\x89PNG" + bytes(MAX_PICTURE_BYTES))
    assert refusal(tmp_path, PHOTO).startswith(f"ok/b.png: {MAX_PICTURE_BYTES + 1} bytes, the most is")


def test_more_pictures_than_fit_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    png(tmp_path / "ok" / "a.png", 1)
    png(tmp_path / "ok" / "b.png", 1)
    monkeypatch.setattr(checks, "MAX_BYTES", 2 * 3 * 4 * 4 * 4 - 1)
    assert refusal(tmp_path, PHOTO) == "384 bytes of arrays, the most is 383"


@needs_pillow
def test_lines_that_name_pictures(tmp_path: Path) -> None:
    png(tmp_path / "p" / "a.png", 255)
    rows = ({"picture": "p/a.png", "label": "bad"}, {"picture": "p/../p/a.png", "label": "ok"})
    samples = load_samples(lines(tmp_path / "a.jsonl", *rows), PHOTO, {})
    assert (samples.truth, samples.shown) == (("bad", "ok"), ("p/a.png", "p/../p/a.png"))
    assert samples.inputs["image"].shape == (2, 3, 4, 4)


@needs_pillow
def test_lines_of_fields(tmp_path: Path) -> None:
    # Without its steps, which need graphs: `load_samples` would ask for them.
    png(tmp_path / "a.png", 255)
    path = lines(tmp_path / "a.jsonl", {"picture": "a.png", "fields": {"price": "1.99"}})
    samples = from_jsonl(path, TAG, None)
    assert (samples.truth, samples.shown) == (({"price": "1.99"},), ("a.png",))
    path = lines(tmp_path / "b.jsonl", {"picture": "a.png", "fields": {"price": 1.99}})
    with pytest.raises(RejectedError, match="line 1: 'fields' is no object of names and texts"):
        from_jsonl(path, TAG, None)
    archive = npz(tmp_path / "a.npz", image=np.zeros((1, 3, 4, 4)), truth=['{"price": "1.99"}'])
    assert from_npz(archive, TAG, None).truth == ({"price": "1.99"},)


@pytest.mark.parametrize("name", ["../a.png", "/etc/hostname", 7, "p/../../a.png"])
def test_a_line_names_no_file_elsewhere(tmp_path: Path, name: object) -> None:
    png(tmp_path / "a.png", 1)
    (tmp_path / "in").mkdir()
    path = lines(tmp_path / "in" / "a.jsonl", {"picture": name})
    assert refusal(path, PHOTO) == f"line 1: 'picture' {name!r} is no file beside it"


# Text


@pytest.fixture(scope="module")
def words() -> tuple[Contract, dict[str, bytes]]:
    """A contract that takes texts, and its tokenizer: a number a word."""
    tokenizers = pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    vocabulary = {word: number for number, word in enumerate(("[UNK]", "pump", "leaks", "runs", "well"))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inputs = tuple(TensorSpec(name, ("batch", "tokens"), "int64") for name in ("input_ids", "attention_mask"))
    step = Step("tokenize", 1, {"file": "tokenizer.json", "inputs": [spec.name for spec in inputs]})
    return replace(PUMP, inputs=inputs, steps=(step,)), {"tokenizer.json": tokenizer.to_str().encode()}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_texts_go_through_the_contracts_tokenizer(
    tmp_path: Path, words: tuple[Contract, dict[str, bytes]], suffix: str
) -> None:
    contract, files = words
    rows = [("pump leaks", "bad"), ("pump runs well", "ok")]
    if suffix == "csv":
        path = written(tmp_path / "a.csv", "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    else:
        path = lines(tmp_path / "a.jsonl", *({"text": text, "label": label} for text, label in rows))
    samples = load_samples(path, contract, files)
    assert samples.inputs["input_ids"].tolist() == [[1, 2, 0], [1, 3, 4]]
    assert samples.inputs["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert (samples.truth, samples.shown) == (("bad", "ok"), ("pump leaks", "pump runs well"))


def test_texts_that_do_not_fit(tmp_path: Path, words: tuple[Contract, dict[str, bytes]]) -> None:
    contract, files = words
    for suffix, content, said in (
        ("jsonl", '{"text": "pump"}\n{"text": ""}\n', "line 2: a text without a token"),
        ("jsonl", '{"words": "pump"}\n', "line 1: no text 'text' (there are: words)"),
        ("csv", "words,label\npump,ok\n", "no column 'text' (there are: words, label)"),
        ("csv", 'text\npump\n""\n', "line 3: a text without a token"),
    ):
        with pytest.raises(RejectedError) as caught:
            load_samples(written(tmp_path / f"a.{suffix}", content), contract, files)
        assert str(caught.value) == f"{tmp_path / f'a.{suffix}'}: {said}"


# Files


def test_files_of_no_known_kind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.parquet: no kind of samples: wanted \.npz, \.csv, \.jsonl or a folder"):
        load_samples(written(tmp_path / "a.parquet", ""), PUMP, {})
    with pytest.raises(ConfigError, match=r"missing: No such file"):
        load_samples(tmp_path / "missing", PUMP, {})


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "MAX_BYTES", 8)
    assert refusal(written(tmp_path / "a.csv", "a,b,c\n1,2,3\n"), PUMP) == "larger than 8 bytes"


def test_only_refusals_leave_whatever_the_bytes_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    good = {
        "npz": npz(tmp_path / "good.npz", sensors=ROWS, labels=[0, 1]).read_bytes(),
        "csv": b"a,b,c,label\n1,2,3,ok\n",
        "jsonl": b'{"sensors": [1, 2, 3], "label": "ok"}\n',
    }
    for suffix, content in good.items():
        for _ in range(150):
            broken = bytearray(content)
            for at in rng.integers(len(broken), size=rng.integers(1, 6)):
                broken[at] = rng.integers(256)
            path = tmp_path / f"x.{suffix}"
            path.write_bytes(bytes(broken[: rng.integers(len(broken) + 1)] if rng.random() < 0.3 else broken))
            said = ""
            try:
                inputs = load_samples(path, PUMP, {}).inputs
            except KitError as error:
                inputs, said = {}, str(error)
            assert "\n" not in said
            assert all(array.shape[1:] == (3,) and np.isfinite(array).all() for array in inputs.values())
