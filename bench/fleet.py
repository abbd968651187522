"""A broker and a hub as real processes, and sites registered at them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from edge_cli.hub_client import HubClient
from edge_hub.broker import BrokerFolder, BrokerProcess

PATIENCE_S = 60.0


def wait_until(true: Callable[[], Any], what: str, look_s: float = 0.005) -> None:
    """Wait for a condition, looking every `look_s` seconds."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE_S:.0f} s in vain for {what}")
        time.sleep(look_s)


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
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def register(self, site: str, folder: Path) -> dict[str, Any]:
        """Make a site known to the hub; returns `site`, `hub` and `endpoints` of its site file, to lie in `folder`."""
        told = self._client.request("POST", "/api/v1/sites", json={"site": site, "labels": {"kind": "factory"}})
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "password").write_text(told["password"])
        (folder / "local-password").write_text(told["local_password"])
        hub = {"username": site, "password_file": "password", "director_key": self._facts["director_key"]}
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
