"""Every state that one pod goes through, by `kubectl get --watch`: its last ones are gone with it."""

import json
import subprocess
import tempfile
from types import TracebackType
from typing import IO, Any, Self

from edge_cluster.kubectl import Kubectl


class Watch:
    """From `with` on, until its end or the pod's."""

    def __init__(self, kubectl: Kubectl, namespace: str, pod: str) -> None:
        self._command = kubectl.command("get", "pod", pod, "-n", namespace, "--watch", "--output=json")

    def __enter__(self) -> Self:
        self._log: IO[bytes] = tempfile.TemporaryFile()
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.DEVNULL
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.kill()
        self._child.wait()
        self._log.close()

    def seen(self) -> list[dict[str, Any]]:
        """The pod as it was shown so far, oldest first."""
        self._log.seek(0)
        return read_stream(self._log.read().decode(errors="replace"))


def read_stream(text: str) -> list[dict[str, Any]]:
    """JSON objects one after the other; the last may still be on its way."""
    found, at, decoder = [], 0, json.JSONDecoder()
    while start := text.find("{", at) + 1:
        try:
            value, at = decoder.raw_decode(text, start - 1)
        except ValueError:
            break
        found.append(value)
    return found
