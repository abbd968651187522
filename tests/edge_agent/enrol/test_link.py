"""The link to the broker with what enrolment gave: from when there is a certificate, the newest, whatever the clock."""

import datetime
import os
import queue
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import needed
import pytest
from small_hub import DAY, MakeHub, SmallHub, utc_now

from edge_agent.config import load_site
from edge_agent.enrol.client import EstClient
from edge_agent.enrol.flow import join, renew
from edge_agent.enrol.identity import IdentityFolder
from edge_sync.enrol.certificate import to_pem
from edge_sync.mqtt import Broker, Down, Event, Link, Up

SITE = "plant-01"
DEADLINE_S = 20.0
MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass
class TlsBroker:
    """mosquitto that lets in whoever shows a certificate of a hub's authority, and writes down which."""

    folder: Path
    hub: SmallHub
    port: int

    def start(self) -> None:
        certificate, key = self.hub.servers.server(self.folder / "tls", life=90 * DAY)
        (self.folder / "clients.pem").write_bytes(to_pem([self.hub.clients.certificate, self.hub.root.certificate]))
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            f"certfile {certificate}",
            f"keyfile {key}",
            f"cafile {self.folder / 'clients.pem'}",
            "require_certificate true",
            "use_identity_as_username true",
            "user root",
            "log_type all",
        ]
        (self.folder / "conf").write_text("\n".join(lines) + "\n")
        assert MOSQUITTO is not None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(self.folder / "conf")], stdout=log, stderr=log)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def make_broker(tmp_path: Path) -> Iterator[Callable[[SmallHub], TlsBroker]]:
    """Starts brokers."""
    needed.mosquitto()
    made: list[TlsBroker] = []

    def make(hub: SmallHub) -> TlsBroker:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = int(taken.getsockname()[1])
        folder = tmp_path / f"broker-{len(made)}"
        folder.mkdir()
        made.append(TlsBroker(folder, hub, port))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.stop()


class Talk:
    """A link, and what it said."""

    def __init__(self, broker: Broker) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.link = Link(broker, self._events.put)
        self.link.start()

    def until(self, kind: type[Event], says: str = "") -> Event:
        """The next of this kind that says so."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            event = self._events.get(timeout=max(0.01, deadline - time.monotonic()))
            if isinstance(event, kind) and says in str(event):
                return event


@pytest.fixture
def talk() -> Iterator[Callable[[Broker], Talk]]:
    """Starts links."""
    made: list[Talk] = []

    def start(broker: Broker) -> Talk:
        made.append(Talk(broker))
        return made[-1]

    yield start
    for each in made:
        each.link.close()


def as_site(folder: Path, broker: TlsBroker, hub: SmallHub) -> tuple[Broker, IdentityFolder]:
    """The broker as a site file names it, and where the site's identity will be."""
    folder.mkdir()
    (folder / "site.yaml").write_text(
        f"site: {SITE}\n"
        f"hub: {{broker: 'mqtts://localhost:{broker.port}', enrol: '{hub.url}', root: r, reconnect_max_s: 1}}\n"
    )
    site = load_site(folder / "site.yaml")
    return site.broker(), IdentityFolder(site.identity, SITE)


def test_a_link_comes_up_when_there_is_a_certificate(
    tmp_path: Path, small_hub: SmallHub, make_broker: Callable[[SmallHub], TlsBroker], talk: Callable[[Broker], Talk]
) -> None:
    broker, folder = as_site(tmp_path / "site", make_broker(small_hub), small_hub)
    link = talk(broker)
    link.until(Down, "TLS files of")
    join(EstClient(small_hub.url), folder, SITE, small_hub.token(SITE), None)
    link.until(Up)


def test_the_next_connection_has_the_renewed_certificate_and_this_one_is_not_broken(
    tmp_path: Path, small_hub: SmallHub, make_broker: Callable[[SmallHub], TlsBroker], talk: Callable[[Broker], Talk]
) -> None:
    made = make_broker(small_hub)
    broker, folder = as_site(tmp_path / "site", made, small_hub)
    small_hub.life = datetime.timedelta(seconds=6)
    first = join(EstClient(small_hub.url), folder, SITE, small_hub.token(SITE), None)
    link = talk(broker)
    link.until(Up)
    small_hub.life = 90 * DAY
    renew(EstClient(small_hub.url), folder, SITE, lambda: 0, force=True)
    assert link.link.publish_and_wait("said", b"still here")
    made.stop()
    link.until(Down)
    deadline = time.monotonic() + 30
    while time.time() * 1e6 < first.ends_us + 1e6:  # by now the first one is worth nothing
        assert time.monotonic() < deadline
        time.sleep(0.1)
    made.start()
    link.until(Up)


@pytest.mark.parametrize(("years", "says"), [(56, "is not yet valid"), (-56, "has expired")])
def test_wrong_clock_simulated_by_a_broker_of_another_time_is_no_reason_for_an_enrolled_site(
    tmp_path: Path,
    make_small_hub: MakeHub,
    make_broker: Callable[[SmallHub], TlsBroker],
    talk: Callable[[Broker], Talk],
    years: int,
    says: str,
) -> None:
    """The broker's certificate begins in 56 years, or ended long ago: as it looks to a clock that is so wrong."""
    hub = make_small_hub(servers_now=lambda: utc_now() + years * 365 * DAY)
    broker, folder = as_site(tmp_path / "site", make_broker(hub), hub)
    join(EstClient(hub.url), folder, SITE, hub.token(SITE), None)
    talk(broker).until(Up)
    strict = replace(broker, client_id="strict", enrolled=False)
    talk(strict).until(Down, f"its certificate does not count: certificate {says}")
