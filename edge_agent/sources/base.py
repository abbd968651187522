"""What a source is. A new one is a class like this and a line of entry-point metadata: see docs/extend.md."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edge_agent.config import Endpoint
from edge_agent.records import Malformed, Observation


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source may use of its site."""

    site: str
    agent: str
    base: Path
    """The folder that relative paths in options begin at."""
    data: Path
    """A folder that is this source's own, for what it must remember (made by the source if it needs it)."""
    endpoint: Callable[[str], Endpoint]
    """Name → endpoint of the site file; raises `ConfigError`."""
    now_us: Callable[[], int]
    """UTC microseconds."""


class Source(Protocol):
    """One agent's stream of observations. `take` runs on the agent's thread; a source may have threads of its own.

    A source may have a property `problem: str | None`: why nothing can come now, for the status page.
    """

    def __init__(self, options: Mapping[str, Any], context: SourceContext) -> None:
        """Check the options. Raises `ConfigError` naming the option; opens nothing yet."""

    def start(self) -> None:
        """Open what must be open. Raises `ConfigError` or `RetryableError`; the agent is then restarted later."""

    def take(self, most: int, timeout_s: float) -> list[Observation | Malformed]:
        """Wait up to `timeout_s` for something, then return it and what else waits, `most` at the most."""

    def done(self) -> None:
        """Everything taken so far is durable in the journal: acknowledge it to where it came from, if that can be."""

    def dropped(self) -> int:
        """Observations lost in the source since the last call (a full queue); the loop journals the count."""

    def exhausted(self) -> bool:
        """Whether nothing will ever come again (a recorded file at its end)."""

    def close(self) -> None:
        """Stop, and release everything. May be called after a failed `start`, and twice."""
