"""docs/install.md, The hub: the unit and the proxy that it shows, started as they stand but for their places."""

import configparser
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import needed
import pytest
from certificates import SERVER, Authority

EXAMPLES = Path(__file__).parents[2] / "examples" / "hub"
UNIT, PROXY = EXAMPLES / "edge-hub.service", EXAMPLES / "haproxy.cfg"
HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
SYSTEMD = shutil.which("systemd-analyze")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def unit() -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign] # as systemd does, it keeps capitals
    parsed.read_string(UNIT.read_text())
    return parsed


def test_the_hub_starts_as_its_unit_says_and_ends_at_once(new_hub: Callable[..., Any], tmp_path: Path) -> None:
    needed.mosquitto()
    program, group, command, folder, *options = shlex.split(unit()["Service"]["ExecStart"])
    assert (Path(program).name, group, command) == ("edge-agent", "hub", "serve")
    assert folder == f"/var/lib/{unit()['Service']['StateDirectory']}"
    for at, word in enumerate(options):
        if word.startswith("0.0.0.0:"):
            options[at] = f"127.0.0.1:{free_port()}"
    hub = new_hub(tmp_path / "hub", *options)
    hub.start()
    assert hub.api("GET", "/api/v1/sites") == {"sites": []}
    assert hub.stop() == 0


@pytest.mark.skipif(
    SYSTEMD is None and not os.environ.get("EDGE_TESTS_NEED_SYSTEMD"), reason="systemd-analyze is not installed"
)
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    copy, text = tmp_path / "edge-hub.service", UNIT.read_text()
    places = {"/opt/edge-agent/bin/edge-agent": str(shutil.which("true")), "User=edge-hub": "User=root"}
    for written, here in places.items():
        assert text.count(written) == 1
        text = text.replace(written, here)
    copy.write_text(text)
    done = subprocess.run([str(SYSTEMD), "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, "edge-hub.service" in done.stderr) == (0, False), done.stderr


@pytest.mark.skipif(
    HAPROXY is None and not os.environ.get("EDGE_TESTS_NEED_HAPROXY"), reason="haproxy is not installed"
)
def test_the_proxy_lets_the_operator_in_by_tls_and_keeps_the_figures(
    new_hub: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    hub, port = new_hub(tmp_path / "hub"), free_port()
    hub.start()
    pem = Authority("ours").issue("hub", SERVER, tmp_path / "tls")  # the certificate, its chain, and below its key
    pem.write_bytes(pem.read_bytes() + pem.with_suffix(".key").read_bytes())
    api = hub.facts["http"].removeprefix("http://")
    text = PROXY.read_text()
    for written, here in ((":443 ", f"127.0.0.1:{port} "), ("/etc/haproxy/hub.pem", str(pem)), ("127.0.0.1:8600", api)):
        assert text.count(written) == 1
        text = text.replace(written, here)
    (tmp_path / "haproxy.cfg").write_text(text)
    with (tmp_path / "haproxy.log").open("wb") as log:
        child = subprocess.Popen([str(HAPROXY), "-db", "-f", str(tmp_path / "haproxy.cfg")], stdout=log, stderr=log)
    try:
        until(lambda: ask(port, pem, "/healthz")[0] == 200, "the proxy")
        assert ask(port, pem, "/api/v1/sites")[0] == 401
        token = (tmp_path / "hub" / "operator.token").read_text().strip()
        status, body = ask(port, pem, "/api/v1/sites", token)
        assert (status, json.loads(body)) == (200, {"sites": []})
        for path in ("/metrics", "/%6Detrics", "//metrics"):
            status, body = ask(port, pem, path)
            assert status in (401, 404)
            assert b"edge_hub_sites" not in body
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)


def ask(port: int, pem: Path, path: str, token: str | None = None) -> tuple[int, bytes]:
    """Status and body; 0 where nobody listens."""
    connection = http.client.HTTPSConnection(
        "localhost", port, timeout=10, context=ssl.create_default_context(cafile=str(pem))
    )
    try:
        connection.request("GET", path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except ConnectionError:
        return 0, b""
    finally:
        connection.close()
