"""A recorded file, played as messages: at a given rate, once or for ever. It begins anew at every start."""

import threading
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from edge_agent.records import Malformed, Observation
from edge_agent.sources.base import SourceContext
from edge_agent.sources.recording import RECORDINGS, Recorded, Unreadable, read_recording
from edge_models.errors import ConfigError
from edge_sync.yamlfile import validate


class ReplayOptions(BaseModel):
    """Options of a `replay` source."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: Path
    """A .jsonl file of objects, a .csv file with a header, or a .bundle, whose golden inputs are played."""
    rate_per_s: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """Left out: as fast as the agent takes them."""
    repeat: bool = False
    """Begin again at the end of the file."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Messages to play in all."""


class ReplaySource:
    """Plays a file. An agent that falls behind finds all that was due meanwhile, as it would with a machine."""

    def __init__(self, options: Mapping[str, Any], context: SourceContext) -> None:
        where = f"agent {context.agent!r}: source replay"
        self._options = validate(ReplayOptions, options, where)
        self._file = context.base / self._options.file
        if self._file.suffix not in RECORDINGS:
            raise ConfigError(f"{where}: file {str(self._options.file)!r} ends in none of {', '.join(RECORDINGS)}")
        self._now_us = context.now_us
        self._closing = threading.Event()
        self._recorded: Generator[Recorded, None, None] | None = None
        self._next: Recorded | None = None
        self._played = 0
        self._started_s = 0.0

    def start(self) -> None:
        """Open the file. Raises `ConfigError` where it can't be read."""
        self._recorded = self._passes()
        self._next = next(self._recorded, None)
        self._started_s = time.monotonic()

    def take(self, most: int, timeout_s: float) -> list[Observation | Malformed]:
        """Wait up to `timeout_s` until a message is due, then return those that are, `most` at the most."""
        if not self.exhausted():
            wait_s = self._due_s() - time.monotonic()
            self._closing.wait(min(max(wait_s, 0.0), timeout_s))
        taken: list[Observation | Malformed] = []
        while len(taken) < most and not self.exhausted() and self._due_s() <= time.monotonic():
            taken.append(self._advance())
        return taken

    def done(self) -> None:
        """Nothing: the file stays as it is."""

    def dropped(self) -> int:
        """None, ever."""
        return 0

    def exhausted(self) -> bool:
        """Whether the file, or the limit, has been played to its end."""
        return self._next is None or self._played == self._options.limit or self._closing.is_set()

    def close(self) -> None:
        """Stop playing."""
        self._closing.set()
        if self._recorded is not None:
            self._recorded.close()

    def _due_s(self) -> float:
        rate = self._options.rate_per_s
        return self._started_s + (self._played / rate if rate else 0.0)

    def _advance(self) -> Observation | Malformed:
        now, recorded = self._now_us(), self._next
        self._played += 1
        self._next = next(self._recorded, None) if self._recorded is not None else None
        if isinstance(recorded, Unreadable):
            return Malformed(f"{self._file.name}: {recorded.reason}", now, "replay", recorded.excerpt)
        return Observation(recorded or {}, now, "replay")

    def _passes(self) -> Generator[Recorded, None, None]:
        while True:
            empty = True
            for recorded in read_recording(self._file):
                empty = False
                yield recorded
            if empty or not self._options.repeat:
                return
