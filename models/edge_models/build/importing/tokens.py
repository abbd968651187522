"""A model's tokenizer, from its Hugging Face folder or from a file of its own, as the step `tokenize`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_models.build.importing.found import Found
from edge_models.build.importing.probe import open_quietly, ran, ran_on
from edge_models.build.importing.shapes import input_specs
from edge_models.build.recipe import needs_extra
from edge_models.contract import Step
from edge_models.digests import digest_of
from edge_models.errors import ConfigError, RejectedError
from edge_models.steps import tokenize

FILE = "tokenizer.json"

USUAL_TOKENS = 512
"""Where a folder says nothing: what most encoders were trained with."""

_OFFSETS = ("roberta", "camembert", "xlm-roberta", "mpnet", "longformer", "xlm-roberta-xl")
"""Models whose positions begin behind the padding's number, so that they have fewer than their config says."""


def tokenize_step(
    folder: Path, config: Mapping[str, Any], graph_inputs: Sequence[str], given: bytes | None = None
) -> tuple[tuple[Step, ...], dict[str, bytes]]:
    """The step that makes a text into this graph's inputs, and its file; neither for a graph that takes no text.
    `given`: a ``tokenizer.json`` to take in place of the folder's own.

    Raises `ConfigError` where the folder has no tokenizer, or only one that needs Python at the site, `RejectedError`
    where the graph takes what no tokenizer gives.
    """
    if "input_ids" not in graph_inputs:
        return (), {}
    strange = sorted(set(graph_inputs) - set(tokenize.INPUTS))
    if strange:
        raise RejectedError(f"the graph takes {', '.join(strange)} beside a text's tokens, which no step makes")
    data = _tokenizer(folder) if given is None else given
    inputs = [name for name in tokenize.INPUTS if name in graph_inputs]
    step = Step("tokenize", 1, {"file": FILE, "max_tokens": _max_tokens(folder, config), "inputs": inputs})
    files = {FILE: data}
    tokenize.prepare(step, files)
    words = _vocabulary(data)
    known = config.get("vocab_size")
    if isinstance(known, int) and words > known:
        raise RejectedError(f"the tokenizer has {words} words, the model {known}: they do not belong together")
    return (step,), files


def with_tokenizer(found: Found, model: Any, data: bytes) -> Found:
    """What was found, with this ``tokenizer.json`` as the step before its graph, whose axes all have names or sizes.

    Longer texts are cut where the file says, or else after `USUAL_TOKENS`, at most where the graph still runs. Raises
    `ConfigError` and `RejectedError` where the graph does not take what a tokenizer gives, or the file is none.
    """
    specs = {spec.name: spec for spec in input_specs(model)}
    known = ", ".join(tokenize.INPUTS)
    if not specs.keys() <= tokenize.INPUTS.keys():
        takes = ", ".join(specs)
        raise ConfigError(
            f"--tokenizer: the graph takes {takes}; a tokenizer gives {known}: export it with those names"
        )
    for spec in specs.values():
        if len(spec.shape) != 2 or isinstance(spec.shape[1], int) or spec.dtype != "int64":
            shape = ", ".join(map(str, spec.shape))
            raise ConfigError(
                f"--tokenizer: the graph's {spec.name} is ({shape}) {spec.dtype}, where a text gives (1, tokens) "
                "int64: export it with an open axis of tokens"
            )
    inputs = [name for name in tokenize.INPUTS if name in specs]
    step = Step("tokenize", 1, {"file": FILE, "max_tokens": _cut(model, data), "inputs": inputs})
    tokenize.prepare(step, {FILE: data})
    words = _vocabulary(data)
    if not _takes(model, words - 1):
        raise RejectedError(f"--tokenizer: it has {words} words, the graph fewer: they do not belong together")
    more = {**found.more, "tokenizer_sha256": digest_of(data)}
    return replace(found, steps=(step,), files={**found.files, FILE: data}, more=more)


def read_tokenizer(path: Path) -> bytes:
    """The bytes of a ``tokenizer.json``. Raises `ConfigError` where it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--tokenizer {path}: {error.strerror}") from None


def _takes(model: Any, word: int) -> bool:
    """Whether the graph runs on a text that has this word."""
    specs = input_specs(model)
    values = {"input_ids": word, "attention_mask": 1, "token_type_ids": 0}
    text = {spec.name: np.full((1, 2), values[spec.name], dtype=np.int64) for spec in specs}
    return ran_on(open_quietly(model.SerializeToString()), text) is not None


def _cut(model: Any, data: bytes) -> int:
    """After how many tokens a text is cut."""
    try:
        said = json.loads(data)["truncation"]["max_length"]
    except (ValueError, KeyError, TypeError):
        said = None
    most = said if isinstance(said, int) and 1 <= said <= tokenize.MAX_TOKENS else USUAL_TOKENS
    session, specs = open_quietly(model.SerializeToString()), input_specs(model)
    one = {str(spec.shape[0]): 1 for spec in specs}

    def runs(tokens: int) -> bool:
        return ran(session, specs, {str(spec.shape[1]): tokens for spec in specs} | one) is not None

    if runs(most):
        return most
    least = 1  # between the two lies the number of positions that the graph has
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if runs(middle) else (least, middle)
    return least


def _tokenizer(folder: Path) -> bytes:
    path = folder / FILE
    if path.is_file():
        return path.read_bytes()
    with needs_extra():
        from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds

        try:
            made = AutoTokenizer.from_pretrained(str(folder), use_fast=True, local_files_only=True)
            text: str = made.backend_tokenizer.to_str()
        except ModuleNotFoundError:
            raise
        except Exception as error:  # noqa: BLE001 - transformers raises whatever a missing file leads it to
            said = " ".join(str(error).split())[:200]
            raise ConfigError(f"{folder.name}: no {FILE}, and none can be made of the other files: {said}") from None
    return text.encode()


def _vocabulary(data: bytes) -> int:
    from tokenizers import Tokenizer  # noqa: PLC0415 - `tokenize.prepare` has said what is missing

    size: int = Tokenizer.from_buffer(data).get_vocab_size(with_added_tokens=False)
    return size


def _max_tokens(folder: Path, config: Mapping[str, Any]) -> int:
    """The shortest that folder and model say."""
    said = [
        _number(folder / "sentence_bert_config.json", "max_seq_length"),
        _number(folder / "tokenizer_config.json", "model_max_length"),
    ]
    positions = config.get("max_position_embeddings")
    if isinstance(positions, int):
        shift = int(config.get("pad_token_id") or 0) + 1 if config.get("model_type") in _OFFSETS else 0
        said.append(positions - shift)
    lengths = [length for length in said if length is not None and 0 < length <= tokenize.MAX_TOKENS]
    return min(lengths, default=USUAL_TOKENS)


def _number(path: Path, key: str) -> int | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8")).get(key)
    except (OSError, ValueError, AttributeError):
        return None
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
