"""The operator's desk: `edge-agent` as people type it, and the hub's API through kubectl."""

import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edge_cli.hub_client import HubClient
from edge_cluster.forward import Forward
from edge_cluster.images import Images
from edge_cluster.outcome import Failed
from edge_cluster.sensing import MODEL, SOURCE_PORT
from edge_k3s.bases import Object
from edge_models.errors import RetryableError
from edge_models.shipped import shipped_path

SITE = "check-01"
COMMAND_S = 300.0
API_PORT = 8600
"""Of the hub, in its pod."""

POLICY = Path(__file__).parents[3] / "examples" / "policies" / "instrument.yaml"


@dataclass
class Desk:
    """A folder with the operator's keys, which nobody else has."""

    folder: Path
    images: Images
    hub: Forward
    """To the hub's API."""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def token_file(self) -> Path:
        """The operator's token, in a file of this user's only."""
        path = self.folder / "operator.token"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(self.token + "\n")
        return path

    def hub_manifests(self, host: str, ports: list[int], storage: str) -> list[Object]:
        """A hub that sites reach by this name and at these ports (MQTT, enrolment)."""
        wish = {
            "image": self.images.hub,
            "names": [host],
            # For a LoadBalancer some clusters start pods in other namespaces; inside the cluster both are the same.
            "sites": {"service": "NodePort", "mqtts_port": ports[0], "enrol_port": ports[1]},
            "secrets": {"files": {"operator.token": str(self.token_file)}},
            "storage": {"class": storage, "data": "1Gi"},
        }
        (self.folder / "hub.yaml").write_text(yaml.safe_dump(wish))
        self.run("hub", "manifests", self.folder / "hub.yaml", "--out", self.folder / "hub")
        return _documents(self.folder / "hub")

    def open_trust(self) -> None:
        """The keys that say what may run."""
        self.at_hub("trust", "init", "--out", self.folder / "trust", "--no-passphrase")

    def site_manifests(self) -> list[Object]:
        """A kit for the site, registered at the hub; its release comes later, from the hub."""
        kit = self.folder / "kit"
        self.at_hub(
            "node", "provision", SITE, "--trust", self.folder / "trust", "--no-passphrase",
            "--image", self.images.site, "--grant", "alert", "--out", kit,
        )  # fmt: skip
        self.run("node", "check", kit, "--root", self.folder / "trust" / "metadata" / "1.root.json")
        return _documents(kit / "manifests")

    def push_release(self) -> None:
        """One agent, that decides about what machines send."""
        agent = {
            "name": "check",
            "bundle": str(shipped_path(*MODEL)),
            "policy": str(POLICY),
            "source": {"kind": "http", "port": SOURCE_PORT},
            "subject": "machine",
            "grants": ["alert"],
        }
        release = self.folder / "release.yaml"
        release.write_text(yaml.safe_dump({"release": 1, "agents": [agent]}))
        self.run("release", "create", release, "--trust", self.folder / "trust", "--out", self.folder / "release")
        self.at_hub("release", "push", self.folder / "release", "--to", SITE)

    def ask(self, path: str) -> Any:
        """What the hub's API answers. Raises `RetryableError` where it can't be reached now."""
        try:
            return HubClient(self._url(), self.token).request("GET", path)
        except RetryableError:
            self.hub.close()  # it may lead to a pod that is gone
            raise

    def of_site(self, what: str = "") -> Any:
        """The same, of the site."""
        return self.ask(f"/api/v1/sites/{SITE}{what}")

    def at_hub(self, command: str, *words: object) -> str:
        """An `edge-agent` command that speaks to the hub."""
        return self.run(command, *words, "--hub", self._url(), "--token-file", self.token_file)

    def run(self, *words: object) -> str:
        """An `edge-agent` command; what it printed. Raises `Failed` with its last words."""
        command = [sys.executable, "-m", "edge_cli.main", *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=COMMAND_S,
            env=os.environ | {"COLUMNS": "200"},
        )  # fmt: skip
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())
            raise Failed(f"edge-agent {' '.join(map(str, words[:2]))} ended with {done.returncode}: {said[-400:]}")
        return done.stdout

    def _url(self) -> str:
        return f"http://127.0.0.1:{self.hub.port()}"


def _documents(folder: Path) -> list[Object]:
    """Every object of a folder of manifests, in the order they are to be applied."""
    texts = [path.read_text() for path in sorted(folder.glob("*.yaml"))]
    return [each for text in texts for each in yaml.safe_load_all(text) if each is not None]
