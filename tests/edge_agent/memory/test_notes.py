"""A site's notes: kept, found by what they mean, forgotten."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_agent.memory import notes as module
from edge_agent.memory.note_model import keep_note_model, note_model
from edge_agent.memory.notes import Embedder, Notes, Vector
from edge_models.bundle import Golden, write_bundle
from edge_models.contract import Contract, Step
from edge_models.digests import Digest, digest_of
from edge_models.errors import ConfigError, RejectedError
from edge_models.shipped import shipped_path
from edge_models.tensors import TensorSpec

WORDS = ["[PAD]", "[UNK]", "pump", "leaks", "drips", "belt", "slips", "oil"]
MEANING = np.array(
    [[0, 0, 0], [0.01, 0.01, 0.01], [3, 0, 0], [0, 3, 0], [0.1, 2.8, 0], [0, 0, 3], [0, 1, 2], [1, 1, 0]]
)
"""What each word means, so that a drip is near a leak."""


def vector(text: str, shift: float = 0.0) -> Vector:
    """The sum of what a text's words mean, and a little of its length."""
    places = [WORDS.index(word) if word in WORDS else 1 for word in text.split()]
    summed = MEANING[places].sum(axis=0) + shift
    return np.asarray(summed / np.linalg.norm(summed), dtype=np.float32)


FIRST = Embedder(Digest("sha256:" + "1" * 64), vector)
SECOND = Embedder(Digest("sha256:" + "2" * 64), lambda text: vector(text, shift=0.5)[[2, 0, 1]])


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Notes]:
    opened = Notes(tmp_path / "data" / "notes.db")
    yield opened
    opened.close()


def test_what_means_the_same_is_found_first(notes: Notes) -> None:
    for at, text in enumerate(("pump leaks", "belt slips", "oil oil belt")):
        notes.add(text, at, FIRST)
    found = notes.search("pump drips", 2, FIRST)
    assert (found[0].id, found[0].at_us, found[0].text) == (1, 0, "pump leaks")
    assert len(found) == 2
    scores = [note.score for note in found]
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    assert found[0].score == pytest.approx(float(vector("pump leaks") @ vector("pump drips")), abs=1e-4)
    assert [note.text for note in notes.newest(2)] == ["oil oil belt", "belt slips"]


def test_of_equally_near_notes_the_older_comes_first(notes: Notes) -> None:
    for _ in range(3):
        notes.add("pump leaks", 1, FIRST)
    assert [note.id for note in notes.search("pump leaks", 9, FIRST)] == [1, 2, 3]
    assert notes.search("pump leaks", 0, FIRST) == []


def test_no_notes_no_answer(notes: Notes) -> None:
    assert notes.search("pump", 5, FIRST) == []


def test_notes_outlive_the_process(notes: Notes, tmp_path: Path) -> None:
    notes.add("  pump leaks\n", 7, FIRST)
    again = Notes(tmp_path / "data" / "notes.db")
    assert [note.text for note in again.newest(5)] == ["pump leaks"]
    again.close()
    assert (tmp_path / "data" / "notes.db").stat().st_mode & 0o777 == 0o600


def test_another_model_makes_its_own_vectors(notes: Notes) -> None:
    for text in ("pump leaks", "belt slips"):
        notes.add(text, 1, FIRST)
    found = notes.search("belt slips", 1, SECOND)
    assert (found[0].text, found[0].score) == ("belt slips", 1.0)
    made: list[str] = []
    counting = Embedder(SECOND.digest, lambda text: made.append(text) or SECOND.embed(text))  # type: ignore[func-returns-value]
    notes.search("pump", 1, counting)
    assert made == ["pump"]  # the notes' own were kept


def test_what_is_forgotten_is_gone_from_the_file(notes: Notes, tmp_path: Path) -> None:
    kept = notes.add("belt slips", 1, FIRST)
    gone = notes.add("oil zzyzx", 2, FIRST)
    notes.forget(gone.id)
    assert [note.id for note in notes.search("oil", 5, FIRST)] == [kept.id]
    with pytest.raises(RejectedError, match=f"there is no note {gone.id}"):
        notes.forget(gone.id)
    assert notes.add("oil", 3, FIRST).id > gone.id  # a number is never given twice
    notes.close()  # folds the WAL in
    assert b"zzyzx" not in b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())


def test_what_is_no_note(notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", " \n", "x" * 4_001):
        with pytest.raises(RejectedError, match="1 to 4000 characters"):
            notes.add(text, 1, FIRST)
    monkeypatch.setattr(module, "MAX_NOTES", 2)
    notes.add("pump", 1, FIRST)
    notes.add("belt", 1, FIRST)
    with pytest.raises(RejectedError, match="there are 2 notes, and room for no more"):
        notes.add("oil", 1, FIRST)


def test_a_text_that_the_model_refuses_leaves_nothing(notes: Notes) -> None:
    def refuses(text: str) -> Vector:
        raise RejectedError("a text without a token")

    with pytest.raises(RejectedError, match="without a token"):
        notes.add("pump", 1, Embedder(FIRST.digest, refuses))
    assert notes.newest(5) == []


def test_a_file_that_is_no_notes(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_bytes(b"no database" * 1000)
    with pytest.raises(ConfigError, match="cannot be opened as a site's notes"):
        Notes(tmp_path / "notes.db")
    with sqlite3.connect(tmp_path / "newer.db") as newer:
        newer.execute("PRAGMA user_version=99")
    newer.close()
    with pytest.raises(ConfigError, match="written by a newer edge-agent"):
        Notes(tmp_path / "newer.db")


def test_two_processes_write_at_once(notes: Notes, tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from edge_agent.memory.notes import Embedder, Notes\n"
        "notes = Notes(Path(sys.argv[1]))\n"
        "one = Embedder('sha256:' + '1' * 64, lambda text: np.array([1, 0, 0], np.float32))\n"
        "for number in range(20): notes.add(f'{sys.argv[2]} {number}', number, one)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "data" / "notes.db")]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in ("a", "b")]
    for writer in writers:
        assert (writer.communicate(timeout=60)[1], writer.returncode) == ("", 0)
    assert len({note.text for note in notes.newest(100)}) == 40


# A bundle

SPLIT = {"type": "Whitespace"}
TOKENIZER = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": {"type": "Lowercase"},
    "pre_tokenizer": SPLIT,
    "model": {"type": "WordLevel", "vocab": {word: place for place, word in enumerate(WORDS)}, "unk_token": "[UNK]"},
}


def bundle(path: Path) -> Path:
    """A model that means what `MEANING` says: the sum over a text's words."""
    tokens, out = TensorSpec("input_ids", ("batch", "tokens"), "int64"), TensorSpec("v", ("batch", 3), "float32")
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),
        helper.make_node("ReduceSum", ["each", "axis"], ["v"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(MEANING.astype(np.float32), "table"), numpy_helper.from_array(np.array([1]), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ids = np.array([[2, 3], [5, 6]], dtype=np.int64)
    write_bundle(
        path,
        contract=Contract(
            "meaning",
            "1",
            "embedding",
            (tokens,),
            (out,),
            embedding="v",
            golden_atol=0.01,
            steps=(Step("tokenize", 1, {"file": "tokenizer.json", "inputs": ["input_ids"]}),),
        ),
        graph=model.SerializeToString(),
        golden=Golden({"input_ids": ids}, {"v": MEANING[ids].sum(axis=1).astype(np.float32)}, (None, None)),
        card={},
        files={"tokenizer.json": json.dumps(TOKENIZER).encode()},
    )
    return path


@pytest.mark.skipif(find_spec("tokenizers") is None, reason="the extra `text` is not installed")
def test_a_site_keeps_its_own_copy_of_the_model(notes: Notes, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pytest.raises(ConfigError, match="this site has no model for notes yet"):
        note_model(data)
    path = bundle(tmp_path / "meaning.bundle")
    kept = keep_note_model(data, path)
    notes.add("Pump leaks", 1, kept)
    notes.add("belt slips", 1, kept)
    path.unlink()
    again = note_model(data)
    assert again.digest == kept.digest == digest_of((data / "notes.bundle").read_bytes())
    found = notes.search("drips", 1, again)
    wanted = float(vector("drips") @ vector("pump leaks"))
    assert found[0].text == "Pump leaks"
    assert found[0].score == pytest.approx(wanted, abs=1e-4)


def test_a_model_that_makes_no_vectors_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match=r"a model for classification: notes need one that makes vectors of texts"):
        keep_note_model(tmp_path / "data", shipped_path("trace", "2"))
    assert not (tmp_path / "data").exists()
    with pytest.raises(ConfigError, match="No such file"):
        keep_note_model(tmp_path / "data", tmp_path / "none.bundle")
    damaged = bytearray(shipped_path("trace", "2").read_bytes())
    damaged[9_000] ^= 1
    (tmp_path / "damaged.bundle").write_bytes(damaged)
    with pytest.raises(RejectedError, match=r"damaged\.bundle: "):
        keep_note_model(tmp_path / "data", tmp_path / "damaged.bundle")
