"""The site's copy of the fleet's facts, pure: which document changes it, and which does not.

The hub's log gives each change a version, above all before it and never the same in two histories: a hub that was
restored from a backup goes on with other numbers than those it gave before. So a version names a state, and a delta
that begins at a version this copy has, or went through, ends in the hub's own state. Guarantees: sync/SPEC.md,
section Facts.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_models.errors import RejectedError
from edge_sync.documents import FleetFact, FleetFacts

FACTS_TYPE = "application/vnd.edge-agent.facts+json"
"""DSSE payload type of a `FleetFacts`."""

MAX_KEYS = 500
MAX_KEY_CHARS = 200
MAX_VALUE_BYTES = 16 * 1024
MAX_TOTAL_BYTES = 160 * 1024
"""Of all facts together as one snapshot: in its envelope, it fits the 256 KiB of a topic."""


MAX_DEPTH = 32
"""Of a value's nesting: no policy reads a deeper one, and encoders give up at some two hundred."""


@dataclass(frozen=True, slots=True)
class Changed:
    """Hold `facts` and forget `gone` in one transaction; then the copy stands at `version`."""

    version: int
    facts: tuple[FleetFact, ...]
    gone: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Passed:
    """Nothing changes, and why. The version in the next heartbeat asks the hub for what is needed."""

    reason: str


@dataclass(slots=True)
class FactLog:
    """The fleet's facts as of `version`; 0 where none ever came."""

    version: int = 0
    facts: dict[str, FleetFact] = field(default_factory=dict)

    def weigh(self, document: FleetFacts) -> Changed | Passed:
        """What a verified document means to this copy, which does not change yet: first it must be durable."""
        if document.version <= self.version:
            return Passed(f"version {document.version} is here already: {self.version}")
        fits = document.snapshot or self.version == document.after or self.version in document.past
        if not fits:
            return Passed(f"it goes on from version {document.after}, here is {self.version}")
        held = {fact.key: fact for fact in document.facts if fact.value is not None}
        if document.snapshot:
            gone = self.facts.keys() - held.keys()
        else:
            gone = {fact.key for fact in document.facts if fact.value is None}
        after = (self.facts.keys() | held.keys()) - gone
        if len(after) > MAX_KEYS:
            return Passed(f"{len(after)} facts, the most is {MAX_KEYS}")
        return Changed(document.version, tuple(held.values()), tuple(sorted(gone)))

    def apply(self, changed: Changed) -> None:
        """Take over what is durable now."""
        kept: Mapping[str, FleetFact] = {k: f for k, f in self.facts.items() if k not in changed.gone}
        self.facts = {**kept, **{fact.key: fact for fact in changed.facts}}
        self.version = changed.version


def value_text(value: Any) -> str:
    """A fact's value as JSON text. Raises `RejectedError` where it is none, or none that a policy could read."""
    if (fault := _fault(value, 1)) is not None:
        raise RejectedError(f"a value may not hold {fault}")
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RejectedError("a value may not hold a text that is no Unicode") from None
    return text


def _fault(value: Any, depth: int) -> str | None:
    if depth > MAX_DEPTH:
        return f"more than {MAX_DEPTH} levels"
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN or Infinity"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "an integer of more than 64 bits"
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((fault for each in parts if (fault := _fault(each, depth + 1)) is not None), None)
