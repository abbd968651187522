"""The step `tokenize` (models/FORMAT.md, steps). All but one need the extra `text`."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_models.contract import Step
from edge_models.errors import ConfigError, RejectedError
from edge_models.steps import Before
from edge_models.steps.tokenize import INPUTS, MAX_FILE_BYTES, MAX_TEXT, prepare

needs_library = pytest.mark.skipif(find_spec("tokenizers") is None, reason="the extra `text` is not installed")

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "pump", "leak", "##s", "is", "dry", ".")
CLS, SEP = 2, 3


def tokenizer_json(**changed: Any) -> bytes:
    """A tokenizer of few words, of the kind that BERT has. Like many files it asks for cutting and padding at 8."""
    special = {token: {"id": token, "ids": [WORDS.index(token)], "tokens": [token]} for token in ("[CLS]", "[SEP]")}
    ends = [{"SpecialToken": {"id": token, "type_id": 0}} for token in special]
    value: dict[str, Any] = {
        "version": "1.0",
        "truncation": {"max_length": 8, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {
            "strategy": {"Fixed": 8},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [ends[0], {"Sequence": {"id": "A", "type_id": 0}}, ends[1]],
            "pair": [ends[0], {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": special,
        },
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: index for index, word in enumerate(WORDS)},
        },
    }
    return json.dumps(value | changed).encode()


def made(data: bytes | None = None, **params: Any) -> Before:
    return prepare(Step("tokenize", 1, {"file": "t.json"} | params), {"t.json": data or tokenizer_json()})


@needs_library
def test_a_text_becomes_a_batch_of_one_with_the_ends_that_the_tokenizer_adds() -> None:
    came = made()("The pump leaks.")
    assert list(came) == list(INPUTS)
    assert came["input_ids"].tolist() == [[CLS, 4, 5, 6, 7, 10, SEP]]
    assert came["attention_mask"].tolist() == [[1] * 7]
    assert came["token_type_ids"].tolist() == [[0] * 7]
    assert {array.dtype for array in came.values()} == {np.dtype(np.int64)}


@needs_library
def test_it_gives_only_what_the_graph_takes() -> None:
    assert list(made(inputs=["attention_mask", "input_ids"])("dry")) == ["attention_mask", "input_ids"]


@needs_library
def test_it_cuts_where_the_step_says_and_never_pads_whatever_the_file_says() -> None:
    assert made(max_tokens=5)("the pump is dry the pump is dry")["input_ids"].tolist() == [[CLS, 4, 5, 8, SEP]]
    assert made()("dry " * 400)["input_ids"].shape == (1, 256)
    assert made()("dry " * 20)["input_ids"].shape == (1, 22)
    assert made()("")["input_ids"].tolist() == [[CLS, SEP]]


@needs_library
def test_the_longest_text_is_taken_and_a_longer_one_refused() -> None:
    before = made()
    assert before("a" * MAX_TEXT)["input_ids"].shape == (1, 3)
    with pytest.raises(RejectedError, match=f"a text of {MAX_TEXT + 1} characters, the most is {MAX_TEXT}"):
        before("a" * (MAX_TEXT + 1))


@needs_library
def test_a_text_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(RejectedError, match="without a token"):
        made(tokenizer_json(post_processor=None))(" ")


@needs_library
def test_half_a_surrogate_is_refused_in_one_line() -> None:
    with pytest.raises(RejectedError, match="cannot be tokenized") as refused:
        made()("pump \ud83d leak")
    assert "\n" not in str(refused.value)


@needs_library
@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=60))
def test_any_text_gives_tensors_of_one_length_or_is_refused(text: str) -> None:
    try:
        came = made(max_tokens=12)(text)
    except RejectedError:
        return
    (shape,) = {array.shape for array in came.values()}
    assert shape[0] == 1
    assert 2 <= shape[1] <= 12


BROKEN = {
    "empty": b" ",
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe",
    "no tokenizer": b"[]",
    "no model": b'{"version":"1.0"}',
    "unknown model": tokenizer_json(model={"type": "Oracle"}),
    "unknown token is no word": tokenizer_json(model={"type": "WordPiece", "unk_token": "[NO]", "vocab": {"a": "b"}}),
    "cut off": tokenizer_json()[:-40],
    "deep": b"[" * 100_000,
    "a panic": tokenizer_json(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "newer": tokenizer_json(version="9.0"),
}


@needs_library
@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_tokenizer_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(RejectedError, match="the tokenizer's file cannot be read") as refused:
        made(BROKEN[name])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400


@needs_library
def test_a_tokenizer_that_breaks_over_a_text_refuses_the_text() -> None:
    before = made(tokenizer_json(pre_tokenizer={"type": "FixedLength", "length": 0}))
    for _ in range(2):
        with pytest.raises(RejectedError, match="cannot be tokenized"):
            before("the pump")


@needs_library
@given(st.data())
def test_a_damaged_file_is_refused_or_still_tokenizes(data: st.DataObject) -> None:
    sound = bytearray(tokenizer_json())
    for _ in range(data.draw(st.integers(1, 4))):
        sound[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))
    try:
        came = made(bytes(sound))("the pump leaks, the pump is dry")
    except RejectedError:
        return
    assert all(array.dtype == np.int64 for array in came.values())


def test_a_file_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(RejectedError, match=f"the most is {MAX_FILE_BYTES}"):
        made(b" " * (MAX_FILE_BYTES + 1))


@pytest.mark.parametrize(
    "params",
    [
        {"file": "missing.json"},
        {"file": 3},
        {"max_tokens": 0},
        {"max_tokens": True},
        {"max_tokens": 10**9},
        {"max_tokens": "many"},
        {"inputs": []},
        {"inputs": "input_ids"},
        {"inputs": ["pixels"]},
        {"inputs": [["input_ids"]]},
        {"inputs": ["input_ids", "input_ids"]},
    ],
)
def test_a_parameter_that_is_not_what_it_must_be_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(RejectedError, match="'tokenize'"):
        made(**params)


@needs_library
@pytest.mark.parametrize("most", [1, 2])
def test_no_room_beside_the_ends_is_refused(most: int) -> None:
    with pytest.raises(RejectedError, match="leaves no room beside the 2"):
        made(max_tokens=most)
    assert made(max_tokens=3)("pump dry")["input_ids"].tolist() == [[CLS, 5, SEP]]


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'edge-agent-kit\[text\]'"):
        made()


@needs_library
def test_many_threads_get_the_answers_of_one() -> None:
    before = made()
    texts = [" ".join(WORDS[4:][(start + step) % 7] for step in range(start % 40)) for start in range(400)]
    alone = [before(text)["input_ids"].tolist() for text in texts]
    with ThreadPoolExecutor(8) as threads:
        assert [came["input_ids"].tolist() for came in threads.map(before, texts)] == alone


@needs_library
@pytest.mark.parametrize("chosen", [None, "true"])
def test_it_imports_the_library_alone_and_leaves_a_choice_of_threads_be(chosen: str | None) -> None:
    script = (
        "import os, sys, json\n"
        "from edge_models.contract import Step\n"
        "from edge_models.steps.tokenize import prepare\n"
        "earlier = set(sys.modules)\n"
        "data = sys.stdin.buffer.read()\n"
        "prepare(Step('tokenize', 1, {'file': 't'}), {'t': data})('the pump')\n"
        "new = sorted({name.partition('.')[0] for name in set(sys.modules) - earlier})\n"
        "print(json.dumps([new, os.environ['TOKENIZERS_PARALLELISM']]))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    environment |= {} if chosen is None else {"TOKENIZERS_PARALLELISM": chosen}
    done = subprocess.run(
        [sys.executable, "-c", script], input=tokenizer_json(), env=environment, check=True, capture_output=True
    )
    new, parallel = json.loads(done.stdout)
    assert "tokenizers" in new
    assert not {"huggingface_hub", "requests", "httpx", "tqdm", "transformers"} & set(new)
    assert parallel == (chosen or "false")
