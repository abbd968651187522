"""The hub as a process: broker child, hub, API; started in order, ended in reverse."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from edge_hub.address import host_and_port
from edge_hub.api.app import make_app
from edge_hub.api.server import HttpServer, bind, url_of
from edge_hub.broker import HUB, BrokerFolder, BrokerProcess, TlsListener
from edge_hub.crew import Crew
from edge_hub.folder import HubFolder
from edge_hub.hub import LEADER, WHOLE, Hub
from edge_models.errors import ConfigError, KitError
from edge_sync.mqtt import Broker

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
"""The broker that the hub brings along, as a child."""

_LOOK_AGAIN_S = 1.0


def serve(
    path: Path,
    http: str,
    broker: str,
    say: Callable[[str], None],
    database: str | None = None,
    workers: int = 1,
    worker_command: Sequence[str] = (),
    mqtts: str | None = None,
) -> None:
    """Run the hub of this folder until SIGTERM or SIGINT; `say` is told in a line where it listens.

    `database`: a PostgreSQL database's URL, None: SQLite in the folder. With more than one of `workers` that many
    children ingest, each started with `worker_command` and an `Order` on its standard input. `mqtts`: where its own
    broker listens for sites elsewhere, who show a certificate. Call it from the main
    thread. Raises `ConfigError` for a wrong folder, address, database or broker, or a port in use; `RetryableError`
    where the database's server is away.
    """
    stop = threading.Event()
    with ExitStack() as stack:
        for name in (signal.SIGTERM, signal.SIGINT):
            before = signal.signal(name, lambda *_: stop.set())
            stack.callback(signal.signal, name, before)
        listening = bind(http)
        stack.callback(listening.close)
        if broker != EMBEDDED:
            Broker(broker, HUB).require_tls()
            if mqtts is not None:
                raise ConfigError(f"--mqtts is for the hub's own broker, and {broker} is another")
        folder = HubFolder(path)
        folder.lock()
        stack.callback(folder.unlock)
        brokers = BrokerFolder(folder.broker)
        embedded = _Embedded(brokers, _for_sites(brokers, mqtts)) if broker == EMBEDDED else None
        if embedded is not None:
            stack.callback(embedded.stop)
        url = embedded.url if embedded is not None else broker
        hub = Hub(folder, brokers, url, database, WHOLE if workers == 1 else LEADER)
        stack.callback(hub.close)
        crew = Crew(folder.path, brokers, url, database, workers if workers > 1 else 0, worker_command)
        stack.callback(crew.stop)
        hub.start()
        crew.start()
        server = HttpServer(make_app(hub), listening)
        stack.callback(server.close)
        server.start()
        facts = {
            "http": url_of(listening),
            "broker": hub.broker_url,
            "pid": os.getpid(),
            "director_key": hub.director_key,
        }
        folder.announce(facts)
        stack.callback(folder.withdraw)
        log.info("hub_ready", extra=facts)
        say(f"hub at {facts['http']}, broker at {facts['broker']}, token in {folder.token_file}")
        while not stop.wait(_LOOK_AGAIN_S):
            if embedded is not None:
                embedded.look_after()
            crew.look_after()
        log.info("hub_stopping")


def _for_sites(folder: BrokerFolder, mqtts: str | None) -> TlsListener | None:
    if mqtts is None:
        return None
    host, port = host_and_port("--mqtts", mqtts, "0.0.0.0:8883")
    if port == 0:
        raise ConfigError("--mqtts: name a port, as in 0.0.0.0:8883: sites have to find it")
    return TlsListener(host, port, folder.tls)


class _Embedded:
    """The broker child, started again on its port whenever it ends by itself."""

    def __init__(self, folder: BrokerFolder, tls: TlsListener | None) -> None:
        self._folder = folder
        self._tls = tls
        self._process = BrokerProcess(folder, tls=tls)
        self.url = self._process.url

    def stop(self) -> None:
        self._process.stop()

    def look_after(self) -> None:
        if self._process.alive():
            return
        log.error("broker_ended", extra={"broker": self.url})
        try:
            self._process = BrokerProcess(self._folder, self._process.port, self._process.kind, self._tls)
        except KitError as error:
            log.error("broker_not_started", extra={"reason": str(error)})
