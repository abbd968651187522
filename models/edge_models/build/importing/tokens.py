"""The tokenizer of a Hugging Face folder as the step `tokenize`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_models.build.recipe import needs_extra
from edge_models.contract import Step
from edge_models.errors import ConfigError, RejectedError
from edge_models.steps import tokenize

FILE = "tokenizer.json"

USUAL_TOKENS = 512
"""Where a folder says nothing: what most encoders were trained with."""

_OFFSETS = ("roberta", "camembert", "xlm-roberta", "mpnet", "longformer", "xlm-roberta-xl")
"""Models whose positions begin behind the padding's number, so that they have fewer than their config says."""


def tokenize_step(
    folder: Path, config: Mapping[str, Any], graph_inputs: Sequence[str]
) -> tuple[tuple[Step, ...], dict[str, bytes]]:
    """The step that makes a text into this graph's inputs, and its file; neither for a graph that takes no text.

    Raises `ConfigError` where the folder has no tokenizer, or only one that needs Python at the site, `RejectedError`
    where the graph takes what no tokenizer gives.
    """
    if "input_ids" not in graph_inputs:
        return (), {}
    strange = sorted(set(graph_inputs) - set(tokenize.INPUTS))
    if strange:
        raise RejectedError(f"the graph takes {', '.join(strange)} beside a text's tokens, which no step makes")
    data = _tokenizer(folder)
    inputs = [name for name in tokenize.INPUTS if name in graph_inputs]
    step = Step("tokenize", 1, {"file": FILE, "max_tokens": _max_tokens(folder, config), "inputs": inputs})
    files = {FILE: data}
    tokenize.prepare(step, files)
    words = _vocabulary(data)
    known = config.get("vocab_size")
    if isinstance(known, int) and words > known:
        raise RejectedError(f"the tokenizer has {words} words, the model {known}: they do not belong together")
    return (step,), files


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
