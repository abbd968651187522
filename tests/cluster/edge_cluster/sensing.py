"""Instruments at the site: held-out samples of a real data set, POSTed to the agent's http source in its pod."""

import http.client
import json
import threading
from dataclasses import dataclass, field
from functools import cache

from edge_cluster.forward import Forward
from edge_models.bundle import read_bundle
from edge_models.errors import RetryableError
from edge_models.shipped import shipped_path

SOURCE_PORT = 8090
"""Where the agent of the checked release listens, in its pod."""

PAUSE_S = 0.2
"""Between two samples of a machine that goes on and on."""

MODEL = ("trace", "2")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one machine measured, and what is true of it."""

    window: tuple[float, ...]
    truth: str


@cache
def samples() -> tuple[Sample, ...]:
    """The bundle's own: none of them was trained on."""
    golden = read_bundle(shipped_path(*MODEL)).golden
    windows = next(iter(golden.inputs.values()))
    pairs = zip(windows, golden.truth, strict=True)
    return tuple(Sample(tuple(map(float, window.ravel())), str(truth)) for window, truth in pairs)


def machine(number: int) -> str:
    """The subject of the decision about this sample."""
    return f"press-{number}"


@dataclass
class Instruments:
    """Sends samples, numbered without end, to wherever the site's pod is now."""

    forward: Forward
    sent: int = 0
    """How many the site took: each waits for the agent then, and is no record yet."""
    _thread: threading.Thread | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def send(self) -> bool:
        """The next one; whether the site took it."""
        known = samples()
        body = json.dumps({"machine": machine(self.sent), "window": known[self.sent % len(known)].window})
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.forward.port(), timeout=10)
            try:
                connection.request("POST", "/", body, {"Content-Type": "application/json"})
                status = connection.getresponse().status
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, RetryableError):
            self.forward.close()  # it may lead to a pod that is gone
            return False
        self.sent += status == 202
        return status == 202

    def start(self) -> None:
        """Go on by themselves, whatever becomes of the pod."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._go_on, name="instruments", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Be still."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.forward.close()

    def _go_on(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(PAUSE_S if self.send() else 2 * PAUSE_S)
