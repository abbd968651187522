"""A hub's authority is renewed under a site that is connected. Real hub, mosquitto with TLS, a site's process.

Held: sync/SPEC.md, Enrolment.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import needed
import pytest

from edge_hub.broker.process import free_port
from edge_hub.enrol.authority import make_authority
from edge_sync.enrol.certificate import load_pem, read_identity

SITE, PATIENCE_S, DAY_US = "plant-07", 60.0, 86_400_000_000


def command(*words: object) -> str:
    line = [sys.executable, "-m", "edge_cli.main", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def hub(tmp_path: Path, new_hub: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One whose authority was made almost five years ago, when there was no such hub yet."""
    needed.mosquitto()
    monkeypatch.setattr("edge_hub.enrol.authority._BORN_US", 0)
    make_authority(tmp_path / "ca", time.time_ns() // 1000 - 1_800 * DAY_US)
    where = ("--mqtts", f"127.0.0.1:{free_port()}", "--enrol", f"127.0.0.1:{free_port()}", "--name", "localhost")
    return new_hub(tmp_path / "hub", *where, "--ca", str(tmp_path / "ca")).start()


@pytest.fixture
def kit(hub: Any, tmp_path: Path) -> Iterator[Path]:
    """Of a site that runs."""
    made = tmp_path / "kit"
    command(
        "node", "provision", SITE, "--hub", hub.facts["http"], "--token-file", hub.folder / "operator.token",
        "--trust", hub.operator.folder, "--out", made, "--api-port", "0",
    )  # fmt: skip
    with (tmp_path / "site.log").open("ab") as log:
        run = [sys.executable, "-m", "edge_cli.main", "run", str(made / "site.yaml")]
        child = subprocess.Popen(run, stderr=log, stdin=subprocess.DEVNULL)
    yield made
    child.terminate()
    assert child.wait(30) == 0, (tmp_path / "site.log").read_text()


def days_left(kit: Path) -> float:
    """Of the site's certificate."""
    shown = read_identity(load_pem((kit / "data" / "identity" / "certificate.pem").read_bytes())[0])
    return (shown.ends_us - time.time_ns() // 1000) / DAY_US


def certificate(kit: Path) -> bytes:
    return (kit / "data" / "identity" / "certificate.pem").read_bytes()


@pytest.mark.timeout(240)
def test_a_fleet_does_not_notice_that_its_authority_is_renewed(hub: Any, kit: Path, tmp_path: Path, until: Any) -> None:
    def records() -> int:
        return int(hub.api("GET", f"/api/v1/sites/{SITE}")["records"])

    def online() -> bool:
        return bool(hub.api("GET", f"/api/v1/sites/{SITE}")["online"])

    until(records, "its records", PATIENCE_S)
    assert "edge-agent hub ca renew" in hub.log()
    assert 24 < days_left(kit) < 26, "no longer than who signed it"
    held = certificate(kit)
    (tmp_path / "ca" / "root.key").rename(tmp_path / "root.key")
    said = json.loads(command("hub", "ca", "renew", tmp_path / "ca", "--root-key", tmp_path / "root.key", "--json"))
    assert said["ends_us"] > time.time_ns() // 1000 + 1_820 * DAY_US
    assert online()
    assert hub.stop() == 0
    lines = hub.log().count("edge-agent hub ca renew")
    hub.start()
    assert hub.log().count("edge-agent hub ca renew") == lines, "it is not due any more"
    until(online, "it to come back by itself", PATIENCE_S)
    assert certificate(kit) == held

    command("node", "renew", kit / "site.yaml", "--now")
    assert 89 < days_left(kit) < 91
    assert load_pem(certificate(kit))[1:] == load_pem((tmp_path / "ca" / "clients.pem").read_bytes())
    hub.stop()
    hub.start()
    until(online, "it to come back with the new one", PATIENCE_S)
    command("fleet", "revoke", SITE, "--reason", "stolen", "--yes", "--hub-dir", hub.folder)
    until(lambda: not online(), "it to be shut out", PATIENCE_S)
