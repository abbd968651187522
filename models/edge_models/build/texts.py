"""Texts as samples: each through the bundle's own tokenizer, as at a site, then padded so that they batch."""

from collections.abc import Sequence

import numpy as np

from edge_models.npy import Array
from edge_models.steps import Before

PAD = 0
"""In every input. What stands where `attention_mask` is 0 counts for nothing, and 0 is a token of every tokenizer."""


def tokenized(texts: Sequence[str], before: Before) -> dict[str, Array]:
    """``(texts, tokens of the longest)`` arrays of each input, padded at the end.

    Raises `RejectedError` as `before` does, and `ValueError` for no texts, or where texts differ in length and there
    is no ``attention_mask`` to say so.
    """
    if not texts:
        raise ValueError("there must be a text")
    rows = [before(text) for text in texts]
    longest = max(_tokens(row) for row in rows)
    if "attention_mask" not in rows[0] and any(_tokens(row) < longest for row in rows):
        raise ValueError("texts of different lengths cannot be padded for a graph without an attention_mask")
    padded = {name: np.full((len(rows), longest), PAD, dtype=array.dtype) for name, array in rows[0].items()}
    for index, row in enumerate(rows):
        for name, array in row.items():
            padded[name][index, : array.shape[1]] = array[0]
    return padded


def _tokens(row: dict[str, Array]) -> int:
    return int(next(iter(row.values())).shape[1])
