"""What a broker can look into, though it runs as the hub's own user."""

import contextlib
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from certificates import Authorities

from edge_hub.broker import BrokerFolder, BrokerProcess, TlsListener
from edge_hub.broker.fence import fence, has_fences
from edge_hub.broker.mosquitto import find_mosquitto
from edge_hub.broker.process import free_port
from edge_models.errors import RetryableError

pytestmark = pytest.mark.skipif(not has_fences(), reason="this kernel has no Landlock")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A folder with a key, and the broker's folder in it."""
    for name in ("ca/clients.key", "hub.db", "broker/credentials.json"):
        (tmp_path / "hub" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "hub" / name).write_text(name)
    (tmp_path / "beside").write_text("beside")
    return tmp_path / "hub"


def said(hub: Path, *command: str) -> str:
    """What a fenced child prints; empty where it may not."""
    with fence([hub], [hub / "broker"]) as close_in:
        assert rulesets() == 1
        done = subprocess.run(command, preexec_fn=close_in, capture_output=True, text=True, check=False)
    assert rulesets() == 0
    return done.stdout


def rulesets() -> int:
    """How many this process holds open. Other descriptors come and go with what the collector finds."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found += "landlock-ruleset" in os.readlink(f"/proc/self/fd/{fd}")
    return found


def test_a_fenced_child_sees_what_is_shown_and_what_lies_beside(hub: Path) -> None:
    assert said(hub, "cat", str(hub / "broker/credentials.json")) == "broker/credentials.json"
    assert said(hub, "cat", str(hub.parent / "beside")) == "beside"
    said(hub, "touch", str(hub / "broker/new"))
    assert (hub / "broker/new").exists()


@pytest.mark.parametrize("name", ["ca/clients.key", "hub.db", "broker/../hub.db"])
def test_it_sees_nothing_of_what_is_hidden(hub: Path, name: str) -> None:
    assert said(hub, "cat", str(hub / name)) == ""
    (hub / "broker" / "link").symlink_to(hub / name)
    assert said(hub, "cat", str(hub / "broker/link")) == ""
    assert said(hub, "cat", f"/proc/{os.getpid()}/root{hub / name}") == ""
    said(hub, "ln", str(hub / name), str(hub / "broker" / "hard"))
    assert not (hub / "broker" / "hard").exists()
    assert said(hub, "ls", str(hub)) == ""


def test_it_writes_and_removes_nothing_there(hub: Path) -> None:
    said(hub, "rm", str(hub / "hub.db"))
    said(hub, "touch", str(hub / "ca/new"))
    said(hub, "sh", "-c", f"echo x > {hub / 'ca/clients.key'}")
    assert (hub / "hub.db").exists()
    assert not (hub / "ca/new").exists()
    assert (hub / "ca/clients.key").read_text() == "ca/clients.key"


def test_a_child_of_its_child_is_fenced_too(hub: Path) -> None:
    assert said(hub, "sh", "-c", f"sh -c 'cat {hub / 'hub.db'}'; echo on") == "on\n"


def test_a_broker_behind_its_fence_reads_its_own_folder_and_no_key(tmp_path: Path, kind: Any) -> None:
    folder = BrokerFolder(tmp_path / "hub" / "broker")
    with BrokerProcess(folder, prefer=kind, hidden=[tmp_path / "hub"]) as broker:
        folder.add_user("plant-01", "site")
        assert broker.alive()
    if find_mosquitto() is None:
        return
    for name, works in (("broker/tls", True), ("ca", False)):
        tls = tmp_path / "hub" / name
        Authorities(tmp_path / "authorities").equip(tls)
        listener = TlsListener("127.0.0.1", free_port(), tls)
        if works:
            BrokerProcess(folder, prefer="mosquitto", tls=listener, hidden=[tmp_path / "hub"]).stop()
        else:
            with pytest.raises(RetryableError, match="ended at once"):
                BrokerProcess(folder, prefer="mosquitto", tls=listener, hidden=[tmp_path / "hub"])
