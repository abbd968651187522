"""A hub that was stolen, with its keys, its password at the broker, and its operator's token: it installs nothing new.

Holds promise 7, with a real hub process: before the theft it served, and after it hears of what the site refused.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import orjson
import pytest
from attacker import Ground, Made, Victim, wait_until

from edge_cli.hub_client import HubClient
from edge_hub.broker.lifeline import die_with_parent
from edge_models.errors import RejectedError
from edge_models.shipped import shipped_path

numbers = count(2)
"""Of releases."""


class Hub:
    """`edge-agent hub serve` over a ground's broker, with the keys of its desk."""

    def __init__(self, ground: Ground) -> None:
        self.folder = ground.folder
        self._child: subprocess.Popen[bytes] | None = None
        self._broker, self._log = ground.broker.url, ground.folder / "hub.log"
        shutil.copy(ground.desk.director, self.folder / "director.key")
        shutil.copy(ground.desk.online, self.folder / "online.key")

    def start(self) -> "Hub":
        """Start it, and wait until it is ready."""
        (self.folder / "hub.json").unlink(missing_ok=True)
        words = ["hub", "serve", str(self.folder), "--http", "127.0.0.1:0", "--broker", self._broker]
        with self._log.open("ab") as log:
            child = self._child = subprocess.Popen(
                [sys.executable, "-m", "edge_cli.main", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - only asks the kernel
            )
        wait_until(lambda: (self.folder / "hub.json").exists() or child.poll() is not None, "the hub to be ready")
        assert child.poll() is None, self._log.read_text()[-3000:]
        return self

    def kill(self) -> None:
        """SIGKILL, by its pid."""
        child, self._child = self._child, None
        if child is not None:
            if child.poll() is None:
                os.kill(child.pid, signal.SIGKILL)
            child.wait(20)

    def api(self, method: str, path: str, json: Any = None, body: bytes | None = None) -> Any:
        """Ask it, with its operator's token."""
        facts = orjson.loads((self.folder / "hub.json").read_bytes())
        token = (self.folder / "operator.token").read_text().strip()
        return HubClient(facts["http"], token).request(method, path, json=json, body=body)

    def hand_over(self, ground: Ground) -> None:
        """What the operator has signed."""
        files = ground.desk.operator.repository.files()
        self.api("PUT", "/api/v1/trust", json={"files": {name: data.decode() for name, data in files.items()}})

    def create(self, made: Made) -> None:
        """Upload a release."""
        for digest, data in made.blobs.items():
            self.api("PUT", f"/api/v1/artifacts/{digest}", body=data)
        self.api("POST", "/api/v1/releases", json=made.release.model_dump(mode="json"))

    def push(self, made: Made) -> None:
        """Tell all sites to run it."""
        self.api("POST", f"/api/v1/releases/{made.release.release}/push", json={"all": True})

    def refusals(self, site: str) -> list[str]:
        """What the site refused, as the hub knows it."""
        records = self.api("GET", f"/api/v1/sites/{site}/records?lane=alarm&limit=500")["records"]
        return [
            str(orjson.loads(record["body"])["reason"]) for record in records if record["label"] == "update_refused"
        ]

    def register(self, ground: Ground, name: str, *weak: str) -> Victim:
        """A site of this hub, that runs."""
        secret = self.folder / f"{name}.password"
        secret.write_text(self.api("POST", "/api/v1/sites", json={"site": name, "labels": {}})["password"])
        return ground.victim(name, *weak, secret=secret)


@pytest.fixture
def stolen(kind: Any, new_ground: Callable[..., Ground]) -> Iterator[tuple[Ground, Hub]]:
    """A hub, its broker and its operator."""
    ground = new_ground(kind)
    hub = Hub(ground)
    try:
        hub.start().hand_over(ground)
        yield ground, hub
    finally:
        hub.kill()


def test_with_all_that_lies_at_a_hub_nothing_runs_that_was_not_signed(stolen: tuple[Ground, Hub]) -> None:
    ground, hub = stolen
    victim, weak = hub.register(ground, "plant-01"), hub.register(ground, "plant-02", "operator-signature")
    genuine = ground.signed(next(numbers))
    hub.hand_over(ground)
    hub.create(genuine)
    hub.push(genuine)
    for each in (victim, weak):
        each.installs(genuine.release.release)

    never_signed = ground.make(next(numbers), shipped_path("trace", "2"))
    hub.create(never_signed)
    with pytest.raises(RejectedError, match="is not signed"):  # the hub itself, asked with its token
        hub.push(never_signed)

    hub.kill()
    ground.serve(never_signed)
    key = hub.folder / "director.key"
    with victim.refusing("is not signed by the operator"):
        for each in (victim, weak):
            ground.desired(each.name, never_signed.envelope(each.name, 99, key))
    weak.installs(never_signed.release.release)
    assert weak.model() == never_signed.model
    assert victim.runs()[0] == genuine.release.release
    victim.goes_on()

    hub.start()
    wait_until(lambda: hub.refusals("plant-01"), lambda: f"the refusal at the hub: {victim.said()}")
    assert "is not signed by the operator" in hub.refusals("plant-01")[-1]
    assert hub.api("GET", "/api/v1/sites/plant-01")["release"] == genuine.release.release
