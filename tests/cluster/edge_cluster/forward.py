"""A pod's port on this machine's loopback, by `kubectl port-forward`: made again when the pod it led to is gone."""

import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import IO

from edge_cluster.kubectl import Kubectl
from edge_models.errors import RetryableError

START_S = 20.0
_SAID = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ->")


class Forward:
    """Leads to the pod that `target` names when it is asked; use it in one thread."""

    def __init__(self, kubectl: Kubectl, namespace: str, target: Callable[[], str], port: int) -> None:
        self._kubectl, self._namespace, self._target, self._port = kubectl, namespace, target, port
        self._child: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._here = 0

    def port(self) -> int:
        """Of 127.0.0.1. Raises `RetryableError` where no pod can be led to now."""
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._start()
        return self._here

    def close(self) -> None:
        """End it; `port` makes another."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _start(self) -> None:
        words = ("--namespace", self._namespace, "port-forward", self._target(), f":{self._port}")
        # Into a file: it says a line for every connection, and nobody would empty a pipe.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child
        self._child = subprocess.Popen(
            self._kubectl.command(*words), stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + START_S
        while True:
            ended = self._child.poll() is not None
            self._log.seek(0)
            text = self._log.read()
            if found := _SAID.search(text):
                self._here = int(found[1])
                return
            if ended or time.monotonic() > deadline:
                self.close()
                raise RetryableError(f"kubectl port-forward: {' '.join(text.decode(errors='replace').split())[-300:]}")
            time.sleep(0.05)
