"""A broker and a hub as real processes, and sites registered at them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from edge_cli.hub_client import HubClient
from edge_hub.broker import BrokerFolder, BrokerProcess
from edge_models.digests import digest_of
from edge_sync.trust.repository import Repository

PATIENCE_S = 60.0


def wait_until(true: Callable[[], Any], what: str, look_s: float = 0.005) -> None:
    """Wait for a condition, looking every `look_s` seconds."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE_S:.0f} s in vain for {what}")
        time.sleep(look_s)


def operator(folder: Path, online: str, director: str) -> Repository:
    """Who signs what may run at the hub with these keys (hex); their own keys lie in plain files."""
    return Repository.create(folder, online, director, lambda _: None, lambda: datetime.now(UTC))


class Fleet:
    """`edge-agent hub serve` over mosquitto, or amqtt where that is not installed; both end with the context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "hub"
        self.database = self.folder / "hub.db"

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self.broker = self._stack.enter_context(BrokerProcess(BrokerFolder(self.folder / "broker")))
        command = [sys.executable, "-m", "edge_cli.main", "hub", "serve", str(self.folder), "--http", "127.0.0.1:0"]
        with self.folder.with_suffix(".log").open("wb") as log:
            self._child = subprocess.Popen([*command, "--broker", self.broker.url], stderr=log)
        self._stack.callback(self._end)
        ready = self.folder / "hub.json"
        wait_until(ready.exists, "the hub to be ready")
        self._facts = json.loads(ready.read_bytes())
        self._client = HubClient(self._facts["http"], (self.folder / "operator.token").read_text().strip())
        keys = self._client.request("GET", "/api/v1/trust")
        signed = operator(self.folder.with_suffix(".trust"), keys["online_key"], keys["director_key"]).files()
        texts = {name: data.decode() for name, data in signed.items()}
        self._client.request("PUT", "/api/v1/trust", json={"files": texts})
        self._root = signed["1.root.json"]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def put_artifact(self, data: bytes) -> None:
        """Give the hub an artifact."""
        self._client.request("PUT", f"/api/v1/artifacts/{digest_of(data)}", body=data)

    def counted(self, name: str) -> float:
        """A counter of the hub; 0 where it has not counted yet."""
        with urllib.request.urlopen(f"{self._facts['http']}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)

    @property
    def hub_pid(self) -> int:
        """The hub's process."""
        return self._child.pid

    def kill_broker(self) -> None:
        """Kill -9, and start another on the same port."""
        port = self.broker.port
        os.kill(self.broker.pid, signal.SIGKILL)
        self.broker.stop()
        self.broker = self._stack.enter_context(BrokerProcess(BrokerFolder(self.folder / "broker"), port))

    def register(self, site: str, folder: Path) -> dict[str, Any]:
        """Make a site known to the hub; returns `site`, `hub` and `endpoints` of its site file, to lie in `folder`."""
        told = self._client.request("POST", "/api/v1/sites", json={"site": site, "labels": {"kind": "factory"}})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "password").write_text(told["password"])
        (folder / "local-password").write_text(told["local_password"])
        (folder / "root.json").write_bytes(self._root)
        hub = {"username": site, "password_file": "password", "root": "root.json"}
        machines = {
            "username": told["local_username"],
            "password_file": "local-password",
            "topic_prefix": f"local/{site}/",
        }
        url = self.broker.url
        return {
            "site": site,
            "hub": {"broker": url, **hub},
            "endpoints": {"machines": {"url": url, **machines}},
        }

    def require_online(self, site: str) -> None:
        """End the benchmark unless the hub sees this site: what it would say of a link that is up would be wrong."""
        if not self._client.request("GET", f"/api/v1/sites/{site}")["online"]:
            raise SystemExit(f"{site} is not online")

    def _end(self) -> None:
        self._child.terminate()
        self._child.wait(20)
