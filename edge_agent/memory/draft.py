"""A record on its way into the journal, before it has a number."""

import json
from dataclasses import dataclass
from typing import Any, Union

from edge_agent.records import Json
from edge_sync.rows import MAX_BODY_BYTES, Kind, Lane

JOURNAL_AGENT = "site"
"""The agent named by records that are the site's own."""


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
    """`value` as the text of a body. A value too large for one is replaced by its size and its keys."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_plain)
    if len(text.encode()) <= MAX_BODY_BYTES:
        return text
    return json.dumps({"too_large_bytes": len(text.encode()), "keys": [key[:80] for key in list(value)[:50]]})


def _plain(value: Any) -> Json:
    """JSON for what numpy and friends leave in a message."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
