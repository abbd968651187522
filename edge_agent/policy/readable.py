"""What of a sensor's JSON a policy can read: all but what CEL cannot hold, or would take too long over.

What is left out is absent to the policy, as if the sensor had not sent it, and the error of a condition
that reads it says so. A value is left out whole, never shortened: a policy must not decide on half a list.
"""

from collections.abc import Mapping
from typing import Final

from edge_agent.records import Json

MAX_ITEMS = 512
"""The longest list or map. Source: measured; ``map`` and ``filter`` are quadratic in the CEL library and
hold the GIL: 4 ms at 500 items, 20 ms at 1,000, 2 s at 8,000."""

MAX_CHARS = 16_384
"""The longest text."""

MAX_DEPTH = 32
"""The deepest nesting. Source: measured; the library recurses in C and crashes the process at some 10,000."""

INT_RANGE = range(-(2**63), 2**63)
"""CEL's int. The library refuses the whole observation for one number outside it."""

_PLAIN: Final = frozenset({float, bool, type(None)})


class _Unreadable(Exception):
    """This value is left out; the message says why."""


def readable(values: Mapping[str, Json]) -> tuple[dict[str, Json], dict[str, str]]:
    """The readable part of `values`, and why each of the other keys was left out (``""``: all of them)."""
    left_out: dict[str, str] = {}
    try:
        return _map(values, 1, left_out), left_out
    except _Unreadable as reason:
        return {}, {"": str(reason)}


def _value(value: Json, depth: int, left_out: dict[str, str]) -> Json:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        if value not in INT_RANGE:
            raise _Unreadable("an integer of more than 64 bits")
        return value
    if isinstance(value, Mapping):
        return _map(value, depth + 1, left_out)
    if isinstance(value, list | tuple):
        return _list(value, depth + 1, left_out)
    if isinstance(value, float):
        return float(value)
    raise _Unreadable(f"{type(value).__name__} is no JSON")


def _text(text: str) -> str:
    if len(text) > MAX_CHARS:
        raise _Unreadable(f"more than {MAX_CHARS:,} characters")
    # The library cuts a text at a NUL, which would make "stop\0x" equal to "stop", and throws at a surrogate.
    if "\0" in text:
        raise _Unreadable("a text with a NUL in it")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise _Unreadable("a text that is no Unicode")
    return text


def _list(items: list[Json] | tuple[Json, ...], depth: int, left_out: dict[str, str]) -> list[Json]:
    _check_size(len(items), depth)
    if _PLAIN.issuperset(map(type, items)):
        return list(items)
    return [_value(item, depth, left_out) for item in items]


def _map(values: Mapping[str, Json], depth: int, left_out: dict[str, str]) -> dict[str, Json]:
    _check_size(len(values), depth)
    kept = {}
    for key, value in values.items():
        if not isinstance(key, str):
            raise _Unreadable(f"the key {key!r} is no text")
        try:
            kept[_text(key)] = _value(value, depth, left_out)
        except _Unreadable as reason:
            left_out[key] = str(reason)
    return kept


def _check_size(items: int, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _Unreadable(f"nested more than {MAX_DEPTH} deep")
    if items > MAX_ITEMS:
        raise _Unreadable(f"more than {MAX_ITEMS} items")
