"""Which facts an expression reads, where its text shows it."""

import re

_HARD = re.compile(r"""\\|//|`|\"{3}|'{3}""")
"""What makes CEL's words hard to tell apart: escapes, comments, quoted names, texts over several lines."""

_WORD = re.compile(r"""\"[^\"]*\"|'[^']*'|[A-Za-z_]\w*|&&|\|\||\S""")
_NAME = re.compile(r"[A-Za-z_]\w*")
_BEGIN_OPERAND = ("", "(", "[", ",", "?", ":", "&&", "||")
"""After these, ``"key" in facts`` stands for itself; after a ``+``, the text would be the end of a longer one."""


def fact_keys(text: str) -> frozenset[str] | None:
    """The facts that a valid expression can read, or None where they can't be told: then it may be any.

    Known forms: ``facts.key``, ``has(facts.key)``, ``facts["key"]`` and ``"key" in facts``.
    """
    if "facts" not in text:
        return frozenset()
    if _HARD.search(text):
        return None
    words = ["", "", "", *_WORD.findall(text), "", "", ""]
    keys = [_key(words[i - 3 : i + 4]) for i, word in enumerate(words) if word == "facts"]
    return None if None in keys else frozenset(key for key in keys if key is not None)


def _key(around: list[str]) -> str | None:
    """The key that is read where ``facts`` stands in the middle of seven words."""
    first, second, before, _, after, second_after, third_after = around
    if before == "in" and _is_text(second) and first in _BEGIN_OPERAND and after not in (".", "["):
        return second[1:-1]
    if before == ".":  # a field of that name, or the variable by its full name
        return None
    if after == "." and _NAME.fullmatch(second_after) and third_after != "(":
        return second_after
    if after == "[" and _is_text(second_after) and third_after == "]":
        return second_after[1:-1]
    return None


def _is_text(word: str) -> bool:
    return word[:1] in ('"', "'") and len(word) > 1
