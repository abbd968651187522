"""The update thread: hands what came, in order of weight, to `SiteUpdates`.

Everything heavy (signatures, hashing, loading models, golden checks) happens here, away from agents and uplink.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from edge_agent.update.site_updates import SiteUpdates
from edge_models.errors import KitError
from edge_sync.chunks import MAX_MESSAGE_BYTES
from edge_sync.documents import Reported

log = logging.getLogger(__name__)

TICK_S = 0.25
"""How often wishes for chunks are looked at while something is wanted."""

LOOK_S = 1.0
"""Between two looks at what people at the site wish, and at a release on trial."""

MAX_WAITING_CHUNKS = 64
"""Chunks in memory (8 MiB); those beyond it are dropped and asked for again."""


class UpdateService:
    """Runs one site's updates. `trust`, `desired`, `chunk` and `link_up` may be called from any thread."""

    def __init__(self, updates: SiteUpdates) -> None:
        self._updates = updates
        self._news = threading.Condition()
        self._metadata: bytes | None = None
        self._desired: bytes | None = None
        self._greeting = self._closing = False
        self._chunks: deque[bytes] = deque()
        self._look_at = 0.0
        self._thread = threading.Thread(target=self._run, name="update", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop after what is being done now."""
        with self._news:
            self._closing = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join()
        self._updates.close()

    def reported(self) -> Reported:
        """What this site runs now, for the hub and the status page."""
        return self._updates.reported()

    def trust(self, message: bytes) -> None:
        """Trust metadata came, not verified yet; what waits gives way to it."""
        with self._news:
            self._metadata = message
            self._news.notify()

    def desired(self, envelope: bytes) -> None:
        """A desired document came, not verified yet; one that waits gives way to it."""
        with self._news:
            self._desired = envelope
            self._news.notify()

    def chunk(self, message: bytes) -> bool:
        """A chunk message came, not verified yet; False, and it is dropped, where too many wait."""
        if len(message) > MAX_MESSAGE_BYTES:
            return True  # is none: nobody need bring it again
        with self._news:
            if len(self._chunks) >= MAX_WAITING_CHUNKS:
                return False
            self._chunks.append(message)
            self._news.notify()
            return True

    def link_up(self) -> None:
        """The link is back."""
        with self._news:
            self._greeting = True
            self._news.notify()

    def _run(self) -> None:
        while (work := self._next_work()) is not None:
            for do in (work, self._updates.retry, self._updates.say_wishes):
                try:
                    do()
                except KitError as error:
                    self._updates.refusals.add(str(error))
                except Exception as error:  # the thread must live: a defect here may not end updates for ever
                    log.exception("update_crashed")
                    self._updates.refusals.add(f"{type(error).__name__}: {error}")

    def _next_work(self) -> Callable[[], None] | None:
        """What to do next, waiting for it; None when it is time to stop."""
        with self._news:
            while not self._closing:
                if self._greeting:
                    self._greeting = False
                    return self._updates.greet
                now = time.monotonic()
                if now >= self._look_at:  # before what the broker brings: that may come without end
                    self._look_at = now + LOOK_S
                    return self._updates.look_around
                if self._metadata is not None:
                    message, self._metadata = self._metadata, None
                    return partial(self._updates.take_trust, message)
                if self._desired is not None:
                    envelope, self._desired = self._desired, None
                    return partial(self._updates.take_desired, envelope)
                if self._chunks:
                    return partial(self._updates.take_chunk, self._chunks.popleft())
                if not self._news.wait(TICK_S if self._updates.busy else LOOK_S):
                    return _nothing
        return None


def _nothing() -> None:
    """Time passed: what is due is done all the same."""
