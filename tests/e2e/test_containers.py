"""A site, a broker and a hub, each in a container of its own, read-only, without capabilities, as uid 10001.

They share this machine's network and meet on its loopback, where a broker may be reached without TLS.
"""

import json
import os
import shutil
import sqlite3
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from containers import Podman, Workshop, edge_agent

from edge_cli.hub_client import HubClient
from edge_hub.broker.mosquitto import CONF, render_conf
from edge_hub.broker.process import free_port
from edge_models.bundle import read_bundle

pytestmark = pytest.mark.timeout(900)  # the first to ask builds the images

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models" / "edge_models" / "data" / "trace-2.bundle"
UID = 10001
SAMPLES = 40

RELEASE = """\
release: 1
agents:
  - name: instrument-watch
    bundle: {bundle}
    policy: {policy}
    source: {{kind: http, port: {port}}}
    subject: machine
    grants: [alert]
"""

HUB, DATA = "/var/lib/edge-hub", "/var/lib/edge-agent"
"""Where the volumes of hub and site are mounted."""


def give(folder: Path) -> Path:
    """A folder for the user in the containers."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UID, UID)
    return folder


@dataclass
class Fleet:
    """Three containers, and the operator's desk on this machine."""

    folder: Path
    podman: Podman
    images: dict[str, str]
    until: Callable[..., Any]
    broker_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    source_port: int = field(default_factory=free_port)

    @property
    def hub_folder(self) -> Path:
        """The hub's folder as this machine sees it."""
        return self.folder / "hub-volume" / "hub"

    @cached_property
    def hub(self) -> HubClient:
        """The hub, as its operator."""
        token = (self.hub_folder / "operator.token").read_text().strip()
        return HubClient(f"http://127.0.0.1:{self.http_port}", token)

    def start_hub(self) -> None:
        """It makes what is missing, and waits for its broker."""
        volume = give(self.folder / "hub-volume")
        self.podman.start(
            "hub", self.images["hub"], "hub", "serve", f"{HUB}/hub", "--http", f"127.0.0.1:{self.http_port}",
            "--broker", f"mqtt://127.0.0.1:{self.broker_port}",
            options=("--network", "host", "--tmpfs", "/tmp", "-v", f"{volume}:{HUB}"),
        )  # fmt: skip
        self.until((self.hub_folder / "hub.json").exists, "the hub to be ready")

    def provision(self) -> None:
        """What may run is signed, and the site's kit made."""
        trust, release = self.folder / "trust", self.folder / "release.yaml"
        edge_agent("trust", "init", "--out", trust, "--hub-dir", self.hub_folder, "--no-passphrase")
        policy = ROOT / "examples" / "policies" / "instrument.yaml"
        release.write_text(RELEASE.format(bundle=BUNDLE, policy=policy, port=self.source_port))
        edge_agent(
            "node", "provision", "plant-07", "--hub", f"http://127.0.0.1:{self.http_port}",
            "--token-file", self.hub_folder / "operator.token", "--release", release, "--trust", trust,
            "--api-port", 0, "--out", self.folder / "kit",
        )  # fmt: skip
        give(self.folder / "kit")

    def start_broker(self) -> None:
        """mosquitto with the users and rules that the hub wrote, which it may read and not write."""
        own = self.folder / "broker"
        own.mkdir()
        (own / CONF).write_bytes(render_conf(Path(HUB) / "hub" / "broker", self.broker_port))
        self.podman.start(
            "broker", self.images["broker"], "-c", f"/etc/mosquitto/{CONF}",
            options=(
                "--network", "host", "-v", f"{give(own)}:/etc/mosquitto:ro",
                "-v", f"{self.folder / 'hub-volume'}:{HUB}:ro",
            ),
        )  # fmt: skip

    def start_site(self) -> None:
        """From its kit, with a volume for what it remembers."""
        self.podman.start(
            "site", self.images["site"], "run", "/etc/edge-agent/kit/site.yaml", "--data", f"{DATA}/data",
            options=(
                "--network", "host", "--tmpfs", "/tmp", "-v", f"{self.folder / 'kit'}:/etc/edge-agent/kit:ro",
                "-v", f"{give(self.folder / 'site-volume')}:{DATA}",
                "--memory", "512m", "--pids-limit", "100",
            ),
        )  # fmt: skip

    def sense(self, window: list[float], number: int) -> None:
        """An instrument tells the site what it measured."""
        body = json.dumps({"machine": f"press-{number}", "window": window}).encode()
        kind = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.source_port}/", body, kind, method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 202

    def predicted(self) -> dict[str, str]:
        """Machine → label, of the predictions that the hub holds."""
        with closing(sqlite3.connect(f"file:{self.hub_folder / 'hub.db'}?mode=ro", uri=True, timeout=10)) as db:
            return dict(db.execute("SELECT subject, label FROM records WHERE kind = 'prediction'"))

    def decided(self) -> set[str]:
        """Machines about which the hub holds a decision."""
        with closing(sqlite3.connect(f"file:{self.hub_folder / 'hub.db'}?mode=ro", uri=True, timeout=10)) as db:
            return {subject for (subject,) in db.execute("SELECT subject FROM records WHERE kind = 'decision'")}


@pytest.fixture
def fleet(workshop: Workshop, podman: Podman, tmp_path: Path, until: Callable[..., Any]) -> Any:
    """A hub, then its broker, then a site."""
    images = {role: podman.load(workshop.image(role)) for role in ("hub", "broker", "site")}
    made = Fleet(tmp_path, podman, images, until)
    try:
        made.start_hub()
        made.provision()
        made.start_broker()
        made.start_site()
        yield made
    finally:
        podman.remove_all()
        shutil.rmtree(tmp_path, ignore_errors=True)


def test_a_site_decides_on_real_data_and_the_hub_has_it_also_after_the_broker_was_away(
    fleet: Fleet, until: Callable[..., Any]
) -> None:
    golden = read_bundle(BUNDLE).golden
    windows = [[float(value) for value in each.ravel()] for each in next(iter(golden.inputs.values()))[:SAMPLES]]
    until(lambda: listens(fleet.source_port), "the site to listen", 60.0)
    half = SAMPLES // 2
    for number, window in enumerate(windows[:half]):
        fleet.sense(window, number)
    until(lambda: len(fleet.decided()) == half, f"{half} decisions at the hub")

    # The broker is gone: the site goes on, and what it decided meanwhile arrives when the broker is back.
    fleet.podman.run("stop", "--time", "5", "broker")
    for number, window in enumerate(windows[half:], half):
        fleet.sense(window, number)
    remembered = fleet.folder / "site-volume" / "data" / "memory.db"
    until(lambda: count(remembered, "decision") == SAMPLES, "all decisions at the site")
    assert len(fleet.decided()) == half
    fleet.podman.run("start", "broker")
    until(lambda: len(fleet.decided()) == SAMPLES, "all decisions at the hub", 90.0)
    until(lambda: len(fleet.predicted()) == SAMPLES, "all predictions at the hub", 90.0)

    # Held-out samples of a real data set, with what is true of them.
    said, truth = fleet.predicted(), golden.truth[:SAMPLES]
    right = sum(said[f"press-{number}"] == label for number, label in enumerate(truth))
    assert right >= 0.9 * SAMPLES, f"{right} of {SAMPLES}"
    edge_agent("fleet", "verify", "plant-07", "--hub-dir", fleet.hub_folder)
    for name in ("site", "hub", "broker"):
        about = json.loads(fleet.podman.run("inspect", name))[0]
        assert (about["HostConfig"]["ReadonlyRootfs"], about["Config"]["User"]) == (True, str(UID))
        assert about["EffectiveCaps"] in (None, [])
    fleet.podman.run("stop", "--time", "30", "site")
    assert fleet.podman.state("site")["ExitCode"] == 0
    fleet.podman.run("stop", "--time", "30", "hub")
    assert fleet.podman.state("hub")["ExitCode"] == 0
    assert "Traceback" not in fleet.podman.logs("site") + fleet.podman.logs("hub")


def listens(port: int) -> bool:
    """Whether somebody accepts there."""
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def count(memory: Path, kind: str) -> int:
    """Records of a kind in a site's memory."""
    with closing(sqlite3.connect(f"file:{memory}?mode=ro", uri=True, timeout=10)) as db:
        return int(db.execute("SELECT count(*) FROM journal WHERE kind = ?", (kind,)).fetchone()[0])
