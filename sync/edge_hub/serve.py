"""The hub as a process: broker child, hub, API, enrolment; started in order, ended in reverse."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from edge_hub.address import host_and_port
from edge_hub.api.app import make_app
from edge_hub.broker import HUB, BrokerFolder, BrokerProcess, TlsListener
from edge_hub.broker.fence import has_fences
from edge_hub.enrol.enrolment import Means, open_authority
from edge_hub.enrol.listener import EnrolServer, bind_enrol, enrol_url
from edge_hub.enrol.plan import make_plan
from edge_hub.folder import AUTHORITY, HubFolder
from edge_hub.http_server import HttpServer, bind, url_of
from edge_hub.hub import LEADER, WHOLE, Hub, now_us
from edge_hub.workers.crew import Crew
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
    enrol: str | None = None,
    names: Sequence[str] = (),
    authority: Path | None = None,
) -> None:
    """Run the hub of this folder until SIGTERM or SIGINT; `say` is told in a line where it listens.

    `database`: a PostgreSQL database's URL, None: SQLite in the folder. With more than one of `workers` that many
    children ingest, each started with `worker_command` and an `Order` on its standard input. `mqtts`: where its own
    broker listens for sites elsewhere, who show a certificate. `enrol`: where they get one, at
    a hub that is reached under these `names`, from an `authority` in this folder, None: its own. Call it from the main
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
        for_sites = _for_sites(mqtts)
        plan = make_plan(enrol, names, authority, path, for_sites)
        enrol_socket = None if plan is None else stack.enter_context(bind_enrol(plan))
        folder = HubFolder(path)
        folder.lock()
        stack.callback(folder.unlock)
        brokers = BrokerFolder(folder.broker)
        brokers.put_back()  # whom a hub that was killed was ejecting
        means = None
        if plan is not None:
            ca = open_authority(plan, folder.database if database is None else database, now_us(), say)
            means = Means(plan, ca, folder.path, brokers)
            for gone in means.equipment.dropped():
                say(f"--name {gone} is left out now: sites that know this hub by it find it no more")
            means.equipment.refresh(now_us())
            for file in means.equipment.foreign():
                say(f"{file} is not of this hub's authority and stays as it is: sites that join may not come in by it")
            if not has_fences():
                say("this kernel has no Landlock: whoever takes over the broker can read the keys of the authority")
        elif for_sites is not None and (folder.path / AUTHORITY).is_dir():
            say("without --enrol nobody renews the list of revoked certificates: in a month the broker lets nobody in")
        elif (folder.path / AUTHORITY).is_dir():
            say("sites get their certificates here, and without --mqtts and --enrol none of them is let in")
        tls = None if for_sites is None else TlsListener(*for_sites, brokers.tls)
        hidden = [folder.path, *([means.authority.path] if means is not None else [])]
        embedded = _Embedded(brokers, tls, hidden) if broker == EMBEDDED else None
        if embedded is not None:
            stack.callback(embedded.stop)
        url = embedded.url if embedded is not None else broker
        sites_url = enrol_url(plan, enrol_socket) if plan is not None and enrol_socket is not None else ""
        hub = Hub(folder, brokers, url, database, WHOLE if workers == 1 else LEADER, means, sites_url)
        stack.callback(hub.close)
        crew = Crew(folder.path, brokers, url, database, workers if workers > 1 else 0, worker_command)
        stack.callback(crew.stop)
        if means is not None:
            hub.revoking.reconcile()
        hub.start()
        crew.start()
        server = HttpServer(make_app(hub), listening)
        stack.callback(server.close)
        server.start()
        enrolling = None
        if hub.enrolment is not None and enrol_socket is not None:
            enrolling = EnrolServer(hub.enrolment, enrol_socket)
            stack.callback(enrolling.close)
            enrolling.start()
        facts = {
            "http": url_of(listening),
            "broker": hub.broker_url,
            "pid": os.getpid(),
            "director_key": hub.director_key,
        }
        if enrolling is not None:
            facts["enrol"] = sites_url
        folder.announce(facts)
        stack.callback(folder.withdraw)
        log.info("hub_ready", extra=facts)
        say(f"hub at {facts['http']}, broker at {facts['broker']}, token in {folder.token_file}")
        if enrolling is not None:
            say(f"sites join at {sites_url}")
        while not stop.wait(_LOOK_AGAIN_S):
            if embedded is not None:
                embedded.look_after()
            crew.look_after()
            hub.revoking.look_after()
            if enrolling is not None:
                enrolling.look_after()
        log.info("hub_stopping")


def _for_sites(mqtts: str | None) -> tuple[str, int] | None:
    if mqtts is None:
        return None
    host, port = host_and_port("--mqtts", mqtts, "0.0.0.0:8883")
    if port == 0:
        raise ConfigError("--mqtts: name a port, as in 0.0.0.0:8883: sites have to find it")
    return host, port


class _Embedded:
    """The broker child, started again on its port whenever it ends by itself."""

    def __init__(self, folder: BrokerFolder, tls: TlsListener | None, hidden: Sequence[Path]) -> None:
        self._folder, self._tls, self._hidden = folder, tls, hidden
        self._process = BrokerProcess(folder, tls=tls, hidden=hidden)
        self.url = self._process.url

    def stop(self) -> None:
        self._process.stop()

    def look_after(self) -> None:
        if self._process.alive():
            return
        log.error("broker_ended", extra={"broker": self.url})
        try:
            self._process = BrokerProcess(self._folder, self._process.port, self._process.kind, self._tls, self._hidden)
        except KitError as error:
            log.error("broker_not_started", extra={"reason": str(error)})
