"""Step `tokenize` 1: a text as the token numbers of a `tokenizer.json`, through the library that trained models use.

Extra `text`. Parameters: `file` names the tokenizer in the bundle; `max_tokens` (256) is where longer texts are cut,
the tokens that the tokenizer adds at both ends counted; `inputs` lists what the graph takes of `INPUTS` (all).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from edge_models.contract import Step
from edge_models.errors import ConfigError, RejectedError
from edge_models.npy import Array
from edge_models.steps import Before, step_file

INPUTS: Mapping[str, str] = {
    "input_ids": "ids",
    "attention_mask": "attention_mask",
    "token_type_ids": "type_ids",
}
"""The graph's input → what the library calls it."""

MAX_TEXT = 64 * 1024
"""Characters of a text. All of a text is read before it is cut, so this bounds what one may cost."""

MAX_FILE_BYTES = 16 * 1024 * 1024
"""Of a `tokenizer.json`; one of 250,000 words has 9 MB."""

MAX_TOKENS = 8192
"""The largest `max_tokens`."""

NEEDS = "texts need a tokenizer: pip install 'edge-agent-kit[text]'"


def prepare(step: Step, files: Mapping[str, bytes]) -> Before:
    """A text → ``(1, tokens) int64`` arrays, cut and never padded. It may be called from any thread.

    Raises `RejectedError` where a parameter or the tokenizer's file is not what it must be, `ConfigError` without the
    library. What it returns raises `RejectedError` for a text that is too long, is no Unicode, or has no token.
    """
    inputs, max_tokens = _inputs(step), _max_tokens(step)
    tokenizer = _load(step_file(step, "file", files), max_tokens)

    def before(text: str) -> dict[str, Array]:
        if len(text) > MAX_TEXT:
            raise RejectedError(f"a text of {len(text)} characters, the most is {MAX_TEXT}")
        with _refused("a text that cannot be tokenized"):
            encoding = tokenizer.encode(text)
        if not encoding.ids:
            raise RejectedError("a text without a token")
        return {name: np.array([getattr(encoding, INPUTS[name])], dtype=np.int64) for name in inputs}

    return before


def _inputs(step: Step) -> tuple[str, ...]:
    listed = step.params.get("inputs", tuple(INPUTS))
    known = isinstance(listed, list | tuple) and all(isinstance(name, str) and name in INPUTS for name in listed)
    if not known or not listed or len(set(listed)) != len(listed):
        raise RejectedError(f"step {step.name!r}: 'inputs' must list some of {', '.join(INPUTS)}, each once")
    return tuple(listed)


def _max_tokens(step: Step) -> int:
    most = step.params.get("max_tokens", 256)
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= MAX_TOKENS:
        raise RejectedError(f"step {step.name!r}: 'max_tokens' must be 1 to {MAX_TOKENS}")
    return most


def _load(data: bytes, max_tokens: int) -> Any:
    """The tokenizer in these bytes, set to cut and not to pad, whatever the file says of that."""
    if len(data) > MAX_FILE_BYTES:
        raise RejectedError(f"the tokenizer's file has {len(data)} bytes, the most is {MAX_FILE_BYTES}")
    # One text at a time needs no threads; and the library warns, once it has some, of every child process.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - an extra: imported only where a bundle has a tokenizer
    except ImportError:
        raise ConfigError(NEEDS) from None
    with _refused("the tokenizer's file cannot be read"):
        tokenizer = Tokenizer.from_buffer(data)
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length=max_tokens)
        ends = tokenizer.num_special_tokens_to_add(is_pair=False)
    if ends >= max_tokens:  # the library would not cut at all, and say nothing
        raise RejectedError(f"step 'tokenize': 'max_tokens' leaves no room beside the {ends} that the tokenizer adds")
    return tokenizer


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Turns whatever the library raises in this block into one line."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - it raises bare exceptions, and panics, which are not even those
        raise RejectedError(f"{what}: {' '.join(str(error).split())[:300]}") from None
