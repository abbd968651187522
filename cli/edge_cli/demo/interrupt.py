"""Ctrl-C that can't be lost.

Python raises KeyboardInterrupt wherever the main thread happens to be; where that is a hook it runs around a fork, the
exception is printed and gone. So the first Ctrl-C is noted and looked at between steps; a second one is raised.
"""

import signal
from types import FrameType
from typing import Self


class Interrupt:
    """While this context lasts, Ctrl-C ends what runs at the next `check`."""

    def __init__(self) -> None:
        self._seen = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raise KeyboardInterrupt where Ctrl-C was pressed."""
        if self._seen:
            raise KeyboardInterrupt

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        if self._seen:
            raise KeyboardInterrupt
        self._seen = True
