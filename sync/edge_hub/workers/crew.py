"""The ingest workers of a hub, as children: started, started again when one ends by itself, ended with the hub."""

import logging
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from edge_hub.broker import BrokerFolder
from edge_hub.broker.lifeline import die_with_parent
from edge_hub.hub import worker
from edge_hub.workers.worker import Order

log = logging.getLogger(__name__)

AGAIN_S = 5.0
"""A worker that ended within this time of its start waits as long before it is started again."""

_ENDING_S = 10.0


class Crew:
    """All workers. Use it from a thread that lives as long as the process: they end with that thread."""

    def __init__(
        self,
        folder: Path,
        brokers: BrokerFolder,
        broker_url: str,
        database: str | None,
        count: int,
        command: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._brokers, self._command, self._clock = brokers, list(command), clock
        self._orders = [Order(number, str(folder), broker_url, database) for number in range(1, count + 1)]
        self._children: dict[int, tuple[subprocess.Popen[bytes], float]] = {}

    def start(self) -> None:
        """Start them; returns at once."""
        for order in self._orders:
            user = worker(order.number).user
            self._brokers.service_user(user, "hub")  # before they ask, so that none of them has to wait for another
            self._spawn(order)

    def look_after(self) -> None:
        """Start those again that ended."""
        for order in self._orders:
            child, began = self._children[order.number]
            if child.poll() is None or (self._clock() < began + AGAIN_S):
                continue
            log.error("worker_ended", extra={"worker": worker(order.number).user, "code": child.returncode})
            try:
                self._spawn(order)
            except OSError as error:  # no memory or no process to be had now: the hub and the others live on
                log.error("worker_not_started", extra={"worker": worker(order.number).user, "reason": str(error)})
                self._children[order.number] = (child, self._clock())

    def stop(self) -> None:
        """End them, and wait until they are gone."""
        for child, _ in self._children.values():
            child.terminate()
        deadline = time.monotonic() + _ENDING_S
        for child, _ in self._children.values():
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    @property
    def pids(self) -> list[int]:
        """Their process ids, in the order of their numbers."""
        return [child.pid for child, _ in self._children.values()]

    def _spawn(self, order: Order) -> None:
        child = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            process_group=0,  # Ctrl-C in a terminal is for the parent, which ends them
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - only asks the kernel, see there
        )
        self._children[order.number] = (child, self._clock())
        if child.stdin is not None:
            with suppress(BrokenPipeError), child.stdin as told:  # one that ended at once is started again
                told.write(order.line())
