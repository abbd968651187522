"""How a site whose memory is gone or behind asks its hub for it, pure: what to say, how long to wait, what to believe.

    connecting ──up()──► asking ──heard()──► over
        └──────tick()──────┴──────tick()──────┘

A site must start with or without its hub, so waiting has an end. Guarantees: sync/SPEC.md, section A site that lost its
memory.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edge_models.errors import RejectedError
from edge_sync.batch import Batch, decode
from edge_sync.documents import Hello, Memory, load

MEMORY_TYPE = "application/vnd.edge-agent.memory+json"
"""DSSE payload type of a `Memory`."""

REHYDRATE_S = 10.0
"""The longest a site waits for its hub before it starts without a memory."""

CONNECT_S = 3.0
"""Of that, the longest it waits for a link."""

HELLO_AGAIN_S = 2.0

MAX_ORDER = 2**32
"""Of an epoch that came back: a session's number is made of its process's order, and has to fit the wire."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back, verified: the document and its batches, oldest epoch first."""

    memory: Memory
    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True)
class Without:
    """Nothing came back, and why."""

    reason: str


class Rehydration:
    """One site's question. Every `now` is in monotonic seconds; `outcome` is set once it is over."""

    def __init__(
        self, site: str, sync: str, verify: Callable[[bytes], bytes], now: float, has_memory: bool = False
    ) -> None:
        """`sync` is drawn anew for each; `verify` gives a signed document's payload or raises `RejectedError`."""
        self._site, self._sync, self._verify, self._has_memory = site, sync, verify, has_memory
        self._began, self._again_at = now, now
        self._said = "the hub did not answer"
        self.state: Literal["connecting", "asking", "over"] = "connecting"
        self.outcome: Returned | Without | None = None

    def up(self, now: float) -> Hello | None:
        """The link is up and subscribed: what to say."""
        if self.state == "over":
            return None
        self.state, self._again_at = "asking", now + HELLO_AGAIN_S
        return Hello(sync=self._sync, epochs=[], lost=not self._has_memory, asks=self._has_memory)

    def down(self, reason: str) -> None:
        """There is no link, and why."""
        if self.state != "over":
            self.state, self._said = "connecting", reason

    def heard(self, envelope: bytes) -> None:
        """The hub answered, or somebody who claims to be it."""
        if self.state == "over":
            return
        try:
            self.outcome = self._believed(load(Memory, self._verify(envelope)))
            self.state = "over"
        except RejectedError as error:
            self._said = str(error)

    def tick(self, now: float) -> Hello | None:
        """Time passes: what to say again, if anything."""
        waited = now - self._began
        if self.state != "over" and (waited >= REHYDRATE_S or (self.state == "connecting" and waited >= CONNECT_S)):
            self.state, self.outcome = "over", Without(self._said)
        return self.up(now) if self.state == "asking" and now >= self._again_at else None

    def _believed(self, memory: Memory) -> Returned:
        """Raises `RejectedError` where the document is not for this question, or any part of it is not sound."""
        if (memory.site, memory.sync) != (self._site, self._sync):
            raise RejectedError("memory: it is the answer to another question")
        if memory.order > MAX_ORDER:
            raise RejectedError(f"memory: order {memory.order}, the most is {MAX_ORDER}")
        batches = []
        for tail in memory.batches:
            try:
                message = base64.b64decode(tail.batch, validate=True)
            except ValueError:
                raise RejectedError("memory: a batch is no base64") from None
            batches.append(decode(message))
        if any(batch.header.lane != "decision" or batch.gaps for batch in batches):
            raise RejectedError("memory: a batch is not of decisions alone")
        if len({batch.header.epoch for batch in batches}) < len(batches):
            raise RejectedError("memory: two batches are of one epoch")
        return Returned(memory, tuple(batches))
