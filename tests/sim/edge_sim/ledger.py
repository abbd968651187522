"""What agents know they wrote: the only thing the oracle believes besides the hub's tables."""

from dataclasses import dataclass, field
from typing import Literal

Key = tuple[str, str, int]
"""Epoch, lane, seq."""

State = Literal["tried", "durable", "refused"]


@dataclass(slots=True)
class Written:
    """One record an agent wrote: it was told that it is durable, that it was refused, or its process died first."""

    number: int
    lane: str
    label: str
    body: str
    state: State = "tried"
    key: Key | None = None
    gone_from_disk: bool = False
    """No disk of its site holds it any more: a fault took it, or it was acknowledged and dropped, or evicted."""


@dataclass(slots=True)
class Ledger:
    """Of one site id, whatever processes and disks wrote for it."""

    site: str
    written: dict[int, Written] = field(default_factory=dict)
    faults: set[str] = field(default_factory=set)
    """Kinds of disk faults that struck: without one, nothing may be declared damaged or unknown."""
    facts: dict[str, int] = field(default_factory=dict)
    """What the agent was told is known, by key."""
    facts_tried: dict[str, set[int]] = field(default_factory=dict)
    pressed: bool = False
    """The disk budget was spent: without that, nothing may be declared evicted."""
    poisoned: bool = False
    """Somebody sent nonsense in its name: without that, nothing may be put aside."""

    def open(self, number: int, lane: str, label: str, body: str) -> Written:
        """A record is about to be written."""
        entry = self.written[number] = Written(number, lane, label, body)
        return entry

    def durable(self) -> list[Written]:
        """All that agents were told is safe."""
        return [entry for entry in self.written.values() if entry.state == "durable"]
