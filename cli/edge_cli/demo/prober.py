"""Asks one site's model again and again while it is swapped: the Open Inference Protocol, as any client would."""

import json
import threading
import urllib.request
from collections.abc import Mapping
from typing import Any


class Prober:
    """Requests on a thread of its own, from `start` to `stop`."""

    def __init__(self, url: str, body: Mapping[str, Any], rate_per_s: float) -> None:
        self._request = urllib.request.Request(  # noqa: S310 - http on loopback
            url, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        self._pause_s = 1 / rate_per_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)
        self.sent = 0
        self.failed = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the request that runs."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s):
            self.sent += 1
            try:
                with urllib.request.urlopen(self._request, timeout=5) as answer:  # noqa: S310
                    json.load(answer)["outputs"]
            except (OSError, ValueError, KeyError):
                self.failed += 1
