"""A deadline that is moved with every request and nearly never reached."""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls its action when it passes. Moving it later costs an assignment: the timer looks again when it fires."""

    __slots__ = ("_action", "_at", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._at = 0.0
        self._action: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, delay_s: float, action: Callable[[], None]) -> None:
        """Call `action` in `delay_s` seconds, instead of what was to be called."""
        self._at = self._loop.time() + delay_s
        self._action = action
        if self._timer is not None and self._timer.when() > self._at:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._at, self._fired)

    def clear(self) -> None:
        """Call nothing."""
        self._action = None

    def close(self) -> None:
        """Call nothing, and let go of the timer."""
        self.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fired(self) -> None:
        self._timer = None
        if self._action is None:
            return
        if self._loop.time() < self._at:
            self._timer = self._loop.call_at(self._at, self._fired)
            return
        action, self._action = self._action, None
        action()
