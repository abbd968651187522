"""A record on its way into the journal, before it has a number."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Union

import orjson

from edge_agent.records import Json
from edge_sync.rows import MAX_BODY_BYTES, Kind, Lane

JOURNAL_AGENT = "site"
"""The agent named by records that are the site's own."""

_SPARED = "facts"
"""The member of a body that goes first where the whole is too large: a record can be explained without it."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What a decision is about to do; stays open until an action record settles it."""

    tool: str
    args: str
    """JSON."""
    valid_until_us: int


@dataclass(frozen=True, slots=True)
class Fact:
    """A site fact, set in the transaction of its record. `value` is JSON text."""

    key: str
    value: str
    expires_at_us: int | None


@dataclass(slots=True)
class Draft:
    """A record to write. `ref` names what it follows from: an id, or another draft of this or an earlier write.

    `id` is set once the record is durable. A draft with `intent` opens one; one with `settles` closes `ref`'s.
    """

    lane: Lane
    kind: Kind
    agent: str
    at_us: int
    body: str
    subject: str | None = None
    label: str | None = None
    score: float | None = None
    ref: Union[str, "Draft", None] = None
    intent: Intent | None = None
    settles: bool = False
    fact: Fact | None = None
    id: str | None = None


def to_body(value: dict[str, Json]) -> str:
    """`value` as the text of a body.

    Of one too large, `facts` are replaced by their number and their sha256; if that is not enough, all of it by its
    size and its keys.
    """
    text = to_json(value)
    if _fits(text):
        return text
    spared = value.get(_SPARED)
    if isinstance(spared, dict):
        sha256 = hashlib.sha256(to_json(spared).encode()).hexdigest()
        short = to_json({**value, _SPARED: {"left_out": len(spared), "sha256": sha256}})
        if _fits(short):
            return short
    return to_json({"too_large_bytes": len(text.encode()), "keys": [key[:80] for key in list(value)[:50]]})


def to_json(value: Json) -> str:
    """`value` as JSON, however large; what is no JSON becomes text, or null where it is no number."""
    try:
        return orjson.dumps(value, default=_plain).decode()
    except TypeError:  # an integer beyond 64 bits, half a surrogate pair, a key that is no text
        return well_formed(json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_plain))


def well_formed(text: str) -> str:
    """`text` with a replacement character for NUL and for each half of a surrogate pair: databases take no other."""
    text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _fits(text: str) -> bool:
    return len(text) * 4 <= MAX_BODY_BYTES or len(text.encode()) <= MAX_BODY_BYTES


def _plain(value: Any) -> Json:
    """JSON for what numpy and friends leave in a message."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
