"""What a tool is. A new one is a class like this and a line of entry-point metadata: see docs/extend.md."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_agent.config import Endpoint
from edge_agent.records import Json
from edge_sync.rows import Lane


@dataclass(frozen=True, slots=True)
class Call:
    """The decision that a tool acts for. `decision` is its record id: the idempotency key."""

    decision: str
    agent: str
    subject: str | None
    deadline_us: int
    """UTC microseconds after which the act is pointless."""


@dataclass(frozen=True, slots=True)
class SetFact:
    """A site fact to journal and set in the same transaction. `expires_at_us` is UTC microseconds."""

    key: str
    value: Json
    expires_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may use of its site."""

    site: str
    endpoint: Callable[[str], Endpoint]
    """Name → endpoint of the site file; raises `ConfigError`."""
    set_fact: Callable[[SetFact, Call], None]
    """Durable on return."""
    now_us: Callable[[], int]
    """UTC microseconds."""


class Tool(Protocol):
    """Something an agent may do. One instance serves all agents of a site, from any of their threads."""

    idempotent: bool
    """Whether doing it twice with the same decision id is doing it once: then an act cut short is repeated."""
    lane: Lane
    """Where its action records go: `alarm` for what a person must hear of at once, else `decision`."""

    def __init__(self, context: ToolContext) -> None:
        """Opens nothing yet."""

    def run(self, args: Mapping[str, Json], call: Call) -> Mapping[str, Json]:
        """Do it, within the deadline; returns what is worth recording (no secrets).

        Raises `RejectedError` where it can never work (a wrong argument: name it, and what was wanted) and
        `RetryableError` where it may work later.
        """

    def close(self) -> None:
        """Release everything. May be called twice."""
