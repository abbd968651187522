"""A fleet of containers as the manifests have them, each read-only, without capabilities, as uid 10001.

At the hub: the hub with its broker, and the proxy, in one network. At the site: the site, and its sensors' broker.
Between them a cable, and over that TLS only: the site joins with the token in its kit, and is who its certificate says.
The operator comes through a proxy that ends TLS, as an ingress controller does.
"""

import json
import shutil
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from certificates import SERVER, Authorities
from containers import Podman, Workshop, edge_agent, need
from paho.mqtt.enums import CallbackAPIVersion
from pods import UID, Manifests, Network, give

from edge_hub.broker.fence import has_fences
from edge_hub.broker.process import free_port
from edge_models.bundle import read_bundle
from edge_sync.enrol.certificate import issued_by, load_pem, read_identity

pytestmark = pytest.mark.timeout(900)  # the first to ask builds the images

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models" / "edge_models" / "data" / "trace-2.bundle"
NAME = "hub.example.com"
SAMPLES = 40
CONTAINERS = ("hub", "proxy", "ingress", "site", "mosquitto")

RELEASE = """\
release: 1
agents:
  - name: instrument-watch
    bundle: {bundle}
    policy: {policy}
    source: {{kind: mqtt, endpoint: sensors, topic: instruments/+}}
    subject: machine
    grants: [alert]
"""

HUB = """\
image: {hub}
names: [{name}]
proxy_image: {proxy}
api: {{host: api.example.com, ingress_class: haproxy, namespace: ingress}}
monitoring: {{namespace: monitoring}}
"""

INGRESS = """\
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 120s
frontend tls
    bind 127.0.0.1:{port} ssl crt /etc/haproxy/tls.pem
    option forwardfor
    default_backend api
backend api
    server api {api}:8601
"""


@dataclass
class Fleet:
    """Five containers, and the operator's desk on this machine."""

    folder: Path
    podman: Podman
    images: dict[str, str]
    until: Callable[..., Any]
    network: Network = field(default_factory=Network)
    port: int = field(default_factory=free_port)

    def start_hub(self) -> None:
        """The hub's pod, and the way to its API."""
        (self.folder / "hub.yaml").write_text(HUB.format(name=NAME, **self.images))
        edge_agent("hub", "manifests", self.folder / "hub.yaml", "--out", self.folder / "hub-manifests")
        self.hub_pod = self.network.space("hub")
        _, self.hub_address = self.network.cable(None, self.hub_pod)
        self.at_hub = Manifests(self.folder / "hub-manifests", self.folder / "hub-volumes")
        for name in ("hub", "proxy"):
            self.at_hub.start(self.podman, "hub", name, "--network", f"ns:{self.hub_pod}")
        authorities, own = Authorities(self.folder / "authorities"), self.folder / "ingress"
        certificate = authorities.servers.issue("localhost", SERVER, authorities.folder)
        own.mkdir()
        (own / "tls.pem").write_bytes(certificate.read_bytes() + certificate.with_suffix(".key").read_bytes())
        (own / "haproxy.cfg").write_text(INGRESS.format(port=self.port, api=self.hub_address))
        self.podman.start(
            "ingress", self.images["proxy"], "-db", "-f", "/etc/haproxy/haproxy.cfg",
            options=("--network", "host", "-v", f"{give(own)}:/etc/haproxy:ro"),
        )  # fmt: skip
        self.context = authorities.context(None)
        self.operator = {"SSL_CERT_FILE": str(authorities.root_file), "EDGE_HUB": f"https://localhost:{self.port}"}
        self.until(lambda: self.asks("/healthz")[0] == 200, "the hub to answer through both proxies")
        self.operator["EDGE_HUB_TOKEN_FILE"] = str(self.hub_folder / "operator.token")

    @property
    def hub_folder(self) -> Path:
        """The hub's folder as this machine sees it."""
        return self.at_hub.claimed("hub-data") / "hub"

    def asks(self, path: str) -> tuple[int, bytes]:
        """What the API answers the operator, over TLS, without a token; status 0: nothing."""
        try:
            url = f"https://localhost:{self.port}{path}"
            with urllib.request.urlopen(url, timeout=10, context=self.context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    def command(self, *words: object) -> str:
        """An operator's command, over TLS."""
        return edge_agent(*words, environment=self.operator)

    def provision(self) -> None:
        """What may run is signed, and the site's kit made."""
        trust, release = self.folder / "trust", self.folder / "release.yaml"
        self.command("trust", "init", "--out", trust, "--no-passphrase")
        policy = ROOT / "examples" / "policies" / "instrument.yaml"
        release.write_text(RELEASE.format(bundle=BUNDLE, policy=policy))
        self.command(
            "node", "provision", "plant-07", "--release", release, "--trust", trust, "--image", self.images["site"],
            "--sensors-image", self.images["broker"], "--sensor-network", "198.18.0.0/15",
            "--out", self.folder / "kit",
        )  # fmt: skip

    def start_site(self) -> None:
        """The site's two pods from its kit, in one network."""
        pod = self.network.space("site")
        _, self.sensors = self.network.cable(None, pod)
        hub, _ = self.network.cable(self.hub_pod, pod)
        self.at_site = Manifests(self.folder / "kit" / "manifests", self.folder / "site-volumes")
        self.at_site.start(self.podman, "sensors", "mosquitto", "--network", f"ns:{pod}")
        shutil.copytree(self.folder / "kit" / "release", self.at_site.claimed("site-data") / "release")
        hosts = ("--add-host", f"{NAME}:{hub}", "--add-host", "sensors:127.0.0.1")
        self.at_site.start(self.podman, "site", "site", "--network", f"ns:{pod}", *hosts)

    @property
    def site_data(self) -> Path:
        """What the site remembers."""
        return self.at_site.claimed("site-data") / "data"

    def decided(self) -> set[str]:
        """Machines about which the hub holds a decision."""
        return {subject for (subject,) in self._at_the_hub("SELECT subject FROM records WHERE kind = 'decision'")}

    def predicted(self) -> dict[str, str]:
        """Machine → label, of the predictions that the hub holds."""
        return dict(self._at_the_hub("SELECT subject, label FROM records WHERE kind = 'prediction'"))

    def remembered(self) -> int:
        """Decisions in the site's own memory."""
        with closing(sqlite3.connect(f"file:{self.site_data / 'memory.db'}?mode=ro", uri=True, timeout=10)) as db:
            return int(db.execute("SELECT count(*) FROM journal WHERE kind = 'decision'").fetchone()[0])

    def _at_the_hub(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(f"file:{self.hub_folder / 'hub.db'}?mode=ro", uri=True, timeout=10)) as db:
            return db.execute(query).fetchall()


@dataclass(frozen=True)
class Instruments:
    """They tell the site's own broker what they measured."""

    client: paho.Client

    def tell(self, windows: list[list[float]], first: int) -> None:
        """Of the machines from this number on; kept by the broker, for a site that listens later."""
        for number, window in enumerate(windows, first):
            said = json.dumps({"machine": f"press-{number}", "window": window})
            self.client.publish(f"local/plant-07/instruments/{number}", said, qos=1, retain=True).wait_for_publish(20)


@pytest.fixture
def fleet(workshop: Workshop, podman: Podman, tmp_path: Path, until: Callable[..., Any]) -> Iterator[Fleet]:
    """A hub, then a kit, then its site."""
    need("ip")
    images = {role: podman.load(workshop.image(role)) for role in ("hub", "proxy", "site", "broker")}
    made = Fleet(tmp_path, podman, images, until)
    try:
        made.start_hub()
        made.provision()
        made.start_site()
        yield made
    finally:
        podman.remove_all()
        made.network.close()
        shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def instruments(fleet: Fleet, until: Callable[..., Any]) -> Iterator[Instruments]:
    """At the site's broker, with the password in its kit."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set("_local_plant-07", (fleet.folder / "kit/secrets/local.password").read_text())
    until(lambda: _connects(client, fleet.sensors), "the broker of the sensors")
    client.loop_start()
    yield Instruments(client)
    client.disconnect()
    client.loop_stop()


def test_a_site_joins_decides_on_real_data_and_the_hub_has_it_also_after_it_was_away(
    fleet: Fleet, instruments: Instruments, until: Callable[..., Any]
) -> None:
    golden = read_bundle(BUNDLE).golden
    windows = [[float(value) for value in each.ravel()] for each in next(iter(golden.inputs.values()))[:SAMPLES]]
    half = SAMPLES // 2
    instruments.tell(windows[:half], 0)
    until(lambda: len(fleet.decided()) == half, f"{half} decisions at the hub")
    _has_joined(fleet)
    _only_prometheus_reads_the_figures(fleet)

    # The hub is gone, and its broker with it: the site goes on, and what it decided meanwhile arrives afterwards.
    fleet.podman.run("stop", "--time", "30", "hub")
    assert fleet.podman.state("hub")["ExitCode"] == 0
    instruments.tell(windows[half:], half)
    until(lambda: fleet.remembered() == SAMPLES, "all decisions at the site")
    assert len(fleet.decided()) == half
    fleet.podman.run("start", "hub")
    until(lambda: len(fleet.decided()) == SAMPLES, "all decisions at the hub", 90.0)
    until(lambda: len(fleet.predicted()) == SAMPLES, "all predictions at the hub", 90.0)

    # Held-out samples of a real data set, with what is true of them.
    said, truth = fleet.predicted(), golden.truth[:SAMPLES]
    right = sum(said[f"press-{number}"] == label for number, label in enumerate(truth))
    assert right >= 0.9 * SAMPLES, f"{right} of {SAMPLES}"
    fleet.command("fleet", "verify", "plant-07")
    fleet.command("fleet", "revoke", "plant-07", "--yes")  # ends otherwise than by 0 where its session goes on
    for name in CONTAINERS:
        about = json.loads(fleet.podman.run("inspect", name))[0]
        assert (about["HostConfig"]["ReadonlyRootfs"], about["Config"]["User"]) == (True, str(UID)), name
        assert about["EffectiveCaps"] in (None, []), name
    for name in ("site", "hub"):
        fleet.podman.run("stop", "--time", "45", name)
        assert fleet.podman.state(name)["ExitCode"] == 0, fleet.podman.logs(name)
        assert "Traceback" not in fleet.podman.logs(name)
    # A container does not take away what the kernel has: the broker could not read the keys that issue certificates.
    assert ("has no Landlock" in fleet.podman.logs("hub")) == (not has_fences())


def _has_joined(fleet: Fleet) -> None:
    """By its token, which is spent, and over TLS alone: no password opens the hub's broker to it."""
    shown, above = load_pem((fleet.site_data / "identity" / "certificate.pem").read_bytes())[:2]
    [root] = load_pem((fleet.at_hub.claimed("hub-ca") / "ca" / "root.pem").read_bytes())
    assert read_identity(shown).site == "plant-07"
    assert issued_by(shown, above)
    assert issued_by(above, root)
    [token] = json.loads(fleet.command("fleet", "tokens", "--json"))["join_tokens"]
    assert (token["id"], token["state"], token["used"]) == ("plant-07", "spent", 1)
    link = fleet.at_site.settings("site-config", "site.yaml")["hub"]
    assert (link["broker"], link["enrol"]) == (f"mqtts://{NAME}:8883", f"https://{NAME}:8443")
    assert not link.keys() & {"username", "password_file"}


def _only_prometheus_reads_the_figures(fleet: Fleet) -> None:
    """Through the proxies everybody would be the hub's own machine."""
    assert fleet.asks("/api/v1/sites")[0] == 401
    assert fleet.asks("/metrics")[0] == 404
    with urllib.request.urlopen(f"http://{fleet.hub_address}:8602/metrics", timeout=10) as answer:
        assert b"edge_hub_sites_online 1\n" in answer.read()


def _connects(client: paho.Client, host: str) -> bool:
    try:
        return client.connect(host, 1883) == paho.MQTT_ERR_SUCCESS
    except OSError:
        return False
