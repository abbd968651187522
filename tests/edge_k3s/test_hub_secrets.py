"""What a pod's first container does with mounted secrets, and that a hub, a broker and libpq then take them."""

import http.client
import json
import os
import re
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
from typer.testing import CliRunner

from edge_cli.hub_secrets import command, take_secrets
from edge_hub.broker import BrokerFolder
from edge_hub.folder import HubFolder
from edge_k3s.hub.pod import options
from edge_k3s.hub.spec import HubSpec
from edge_models.errors import ConfigError
from edge_sync.signing import make_key, public_key


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """A Secret as the kubelet mounts it: links to a folder with a name that changes, readable by the group."""
    data = tmp_path / "mounted" / "..2026_11_29"
    data.mkdir(parents=True)
    (data / "operator.token").write_text("operator secret\n")
    make_key(data / "director.key")
    (data / "_hub.password").write_text("broker secret\n")
    (data / "_hub-2.password").write_text("worker secret")
    (data / "pgpass").write_text("*:*:*:hub:database secret\n")
    (data.parent / "..data").symlink_to(data.name)
    for path in data.iterdir():
        path.chmod(0o440)
        (data.parent / path.name).symlink_to(Path("..data") / path.name)
    return data.parent


def test_a_hub_is_what_its_secrets_say(mounted: Path, tmp_path: Path) -> None:
    taken = take_secrets(mounted, tmp_path / "hub", tmp_path / "run")
    assert {path.name for path in taken} == {path.name for path in mounted.iterdir()} - {"..data", "..2026_11_29"}
    hub = HubFolder(tmp_path / "hub")
    assert hub.token == "operator secret"
    assert hub.director_key == public_key(mounted / "director.key")
    assert hub.online_key.exists()  # what was not given a hub makes
    broker = BrokerFolder(hub.broker)
    for user, password in (("_hub", "broker secret"), ("_hub-2", "worker secret")):
        assert broker.service_user(user, "hub").read_text() == password
        assert broker.knows(user, "hub", password)
    assert broker.service_user("_hub-1", "hub").read_text() not in ("", "broker secret", "worker secret")


def test_only_the_hubs_user_reads_them(mounted: Path, tmp_path: Path) -> None:
    for path in take_secrets(mounted, tmp_path / "hub", tmp_path / "run"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "hub").stat().st_mode) == 0o700


def test_a_second_start_changes_nothing_and_a_new_secret_only_itself(mounted: Path, tmp_path: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        found = [path for folder in ("hub", "run") for path in (tmp_path / folder).rglob("*") if path.is_file()]
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}

    take_secrets(mounted, tmp_path / "hub", tmp_path / "run")
    before = state()
    take_secrets(mounted, tmp_path / "hub", tmp_path / "run")
    assert state() == before
    (mounted / "operator.token").unlink()
    (mounted / "operator.token").write_text("another")
    take_secrets(mounted, tmp_path / "hub", tmp_path / "run")
    after = state()
    assert {name for name in after if after[name] != before[name]} == {"operator.token"}


def test_users_that_sites_have_stay(mounted: Path, tmp_path: Path) -> None:
    HubFolder(tmp_path / "hub")
    password = BrokerFolder(tmp_path / "hub" / "broker").add_user("plant-07", "site")
    take_secrets(mounted, tmp_path / "hub", tmp_path / "run")
    assert BrokerFolder(tmp_path / "hub" / "broker").knows("plant-07", "site", password)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("root.key", "x", "a hub has no place for it"),
        ("director.key", "no key", "is no unencrypted PEM private key"),
        ("operator.token", " \n", "is empty"),
        ("_hub-100.password", "x", "the user of role hub is named _hub"),
        ("plant-07.password", "x", "the user of role hub is named _hub"),
    ],
)
def test_a_secret_that_cannot_be_leaves_nothing(mounted: Path, tmp_path: Path, name: str, text: str, says: str) -> None:
    (mounted / name).unlink(missing_ok=True)
    (mounted / name).write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)):
        take_secrets(mounted, tmp_path / "hub", tmp_path / "run")
    assert not (tmp_path / "hub").exists()
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: No such file"):
        take_secrets(tmp_path / "nowhere", tmp_path / "hub", tmp_path / "run")


def test_the_command_says_what_it_took_and_no_secret(mounted: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [str(mounted), str(tmp_path / "hub"), "--run", str(tmp_path / "run"), "--json"])
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "run" / "pgpass") in json.loads(done.stdout)["taken"]
    assert "secret" not in done.output.replace("secrets", "")


def test_libpq_reads_it_where_it_was_put_and_not_where_it_was_mounted(
    mounted: Path, tmp_path: Path, postgres: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mounted / "pgpass").unlink()
    (mounted / "pgpass").write_bytes(postgres.passfile.read_bytes())
    (mounted / "pgpass").chmod(0o440)
    take_secrets(mounted, tmp_path / "hub", tmp_path / "run")
    monkeypatch.setenv("PGPASSFILE", str(mounted / "pgpass"))
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(postgres_url)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "run" / "pgpass"))
    with psycopg.connect(postgres_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.fixture
def pod(mounted: Path, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """The hub as its pod's command starts it, in folders and on ports of this test: enrolment's port, the folder."""
    ports = {}
    for port in (8600, 8883, 8443):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports[port] = probe.getsockname()[1]
    take_secrets(mounted, tmp_path / "hub", tmp_path / "run")
    words = options(HubSpec("edge-agent-kit:1", ("localhost", "127.0.0.1")))
    places = {"/var/lib/edge-hub-ca": str(tmp_path / "authority"), "0.0.0.0": "127.0.0.1"}
    places |= {f":{port}": f":{free}" for port, free in ports.items()}
    for before, after in places.items():
        assert any(before in word for word in words)
        words = [word.replace(before, after) for word in words]
    with (tmp_path / "log").open("wb") as log:
        serve = [sys.executable, "-m", "edge_cli.main", "hub", "serve", str(tmp_path / "hub"), *words]
        child = subprocess.Popen(serve, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while probed(ports[8443]) != 200:
            assert child.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield ports[8443], tmp_path
    finally:
        child.terminate()
        assert child.wait(30) == 0


def probed(port: int) -> int:
    """The status that the kubelet's probe gets, which looks at no certificate; 0: nobody listens."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status
    except (ConnectionError, ssl.SSLError):
        return 0
    finally:
        connection.close()


@pytest.mark.skipif(
    not os.environ.get("EDGE_TESTS_NEED_MOSQUITTO") and not Path("/usr/sbin/mosquitto").exists(),
    reason="mosquitto is not installed",
)
def test_the_pods_command_starts_a_hub_with_its_authority_apart(pod: tuple[int, Path]) -> None:
    port, folder = pod
    assert probed(port) == 200
    assert (folder / "authority" / "ca" / "root.pem").exists()
    assert not (folder / "hub" / "ca").exists()
    said: dict[str, Any] = json.loads((folder / "hub" / "hub.json").read_text())
    connection = http.client.HTTPConnection(said["http"].removeprefix("http://"), timeout=10)
    connection.request("GET", "/api/v1/sites", headers={"Authorization": "Bearer operator secret"})
    assert connection.getresponse().status == 200
    connection.close()
