"""From a row of character probabilities to text: connectionist temporal classification, read greedily.

Source: Graves and others, 2006. Class 0 is the blank that parts two equal characters; class n is the alphabet's nth.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_models.errors import RejectedError

MAX_ALPHABET = 100_000
"""Characters. The largest writing systems need a fifth."""


def read_alphabet(data: bytes) -> tuple[str, ...]:
    """The characters of an alphabet file: UTF-8, one a line, the space too. Raises `RejectedError`."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise RejectedError("the alphabet is not UTF-8") from None
    # Only "\n" ends a line: some of what str.splitlines takes for an end may be a character to read.
    characters = tuple(text.removesuffix("\n").split("\n"))
    if len(characters) > MAX_ALPHABET:
        raise RejectedError(f"the alphabet has {len(characters)} characters, the most is {MAX_ALPHABET}")
    for number, character in enumerate(characters, start=1):
        # A few letters are written as a base and marks on it.
        if not 1 <= len(character) <= 4:
            raise RejectedError(f"the alphabet's line {number} is not one character")
    if len(set(characters)) != len(characters):
        raise RejectedError("the alphabet has a character twice")
    return characters


def write_alphabet(characters: Sequence[str]) -> bytes:
    """The file that `read_alphabet` reads."""
    return "".join(f"{character}\n" for character in characters).encode()


def greedy(probabilities: NDArray[np.float32], alphabet: Sequence[str]) -> tuple[str, float]:
    """The text of ``(steps, 1 + alphabet)`` probabilities, and the mean probability of its characters, 0 for none.

    At each step the likeliest class; what repeats is one; blanks go.
    """
    classes = probabilities.argmax(axis=1)
    kept = classes != 0
    kept[1:] &= classes[1:] != classes[:-1]
    if not kept.any():
        return "", 0.0
    text = "".join(alphabet[index - 1] for index in classes[kept])
    score = float(np.nan_to_num(probabilities.max(axis=1)[kept].astype(np.float64).mean()))
    return text, min(max(score, 0.0), 1.0)
