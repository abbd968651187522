"""The demo's processes: started with their logs in files, ended by their pids, whatever happens."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Self

from edge_hub.broker.lifeline import die_with_parent
from edge_models.errors import RetryableError

STOP_S = 10.0
"""How long a process may take to end well before it is killed."""


class Children:
    """Processes that end with this context."""

    def __init__(self, logs: Path) -> None:
        """`logs`: the folder for each process's ``NAME.log``."""
        logs.mkdir(parents=True, exist_ok=True)
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(*reversed(self._running))

    def start(self, name: str, *arguments: str) -> None:
        """Start ``python -m ARGUMENTS`` as `name`."""
        with (self._logs / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - it takes no lock
                start_new_session=True,  # Ctrl-C is the demo's to handle: children are then ended in order
            )

    def check(self) -> None:
        """Raise `RetryableError` with the last line of its log where a process ended by itself."""
        for name, child in self._running.items():
            if child.poll() is not None:
                raise RetryableError(f"{name} ended with {child.returncode}: {self.last_line(name)}")

    def last_line(self, name: str) -> str:
        """The last line a process wrote."""
        lines = (self._logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it wrote nothing"

    def stop(self, *names: str) -> None:
        """End these together: SIGTERM, then after `STOP_S` SIGKILL."""
        children = [self._running.pop(name) for name in names if name in self._running]
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        for child in children:
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
