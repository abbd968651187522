"""What machines send, as a JSON object or a reason why not."""

import orjson

from edge_agent.records import Json
from edge_models.errors import RejectedError

MAX_MESSAGE_BYTES = 256 * 1024
"""The largest message or file that is read as JSON."""

MAX_DEPTH = 64
"""Objects and lists inside each other; well under what the journal's encoder can write again (254)."""

EXCERPT_CHARS = 200


def read_object(payload: bytes) -> dict[str, Json]:
    """The JSON object that `payload` is. Raises `RejectedError`, one line, for anything else."""
    if len(payload) > MAX_MESSAGE_BYTES:
        raise RejectedError(f"{len(payload)} bytes, the most is {MAX_MESSAGE_BYTES}")
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"no JSON: {error}") from None
    if not isinstance(value, dict):
        raise RejectedError(f"wanted a JSON object, came {_kind(value)}")
    if payload.count(b"{") + payload.count(b"[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise RejectedError(f"nested deeper than {MAX_DEPTH}")
    return value


def excerpt(payload: bytes) -> str:
    """The beginning of `payload`, for a person: at most `EXCERPT_CHARS` printable characters."""
    text = payload[: EXCERPT_CHARS * 4].decode("utf-8", "replace")[:EXCERPT_CHARS]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _kind(value: Json) -> str:
    names = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _deeper_than(value: Json, most: int) -> bool:
    """Whether lists and objects are nested deeper than `most`; walks level by level, so never deep itself."""
    level = [value]
    for _ in range(most):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Json) -> list[Json]:
    inside = value.values() if isinstance(value, dict) else value
    return [child for child in inside if isinstance(child, dict | list)]
