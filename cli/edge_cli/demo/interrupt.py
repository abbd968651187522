"""Ctrl-C that can't be lost.

Python raises KeyboardInterrupt wherever the main thread is; where that is a hook it runs around a fork, the exception
is printed and gone. So it is noted as well, and looked at between steps.
"""

import signal
from types import FrameType
from typing import Self


class Interrupt:
    """While this context lasts, Ctrl-C is raised and remembered."""

    def __init__(self) -> None:
        self._seen = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def check(self) -> None:
        """Raise KeyboardInterrupt where it was pressed and got lost."""
        if self._seen:
            raise KeyboardInterrupt

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        self._seen = True
        raise KeyboardInterrupt
