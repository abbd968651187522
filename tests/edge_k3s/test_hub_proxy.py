"""The proxy of the hub's pod, as its manifests configure it: a real HAProxy before a real hub."""

import dataclasses
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from edge_k3s.bases import by_name, read_base
from edge_k3s.hub.network import API_PORT, METRICS_PORT

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")

pytestmark = pytest.mark.skipif(
    HAPROXY is None and not os.environ.get("EDGE_TESTS_NEED_HAPROXY"), reason="haproxy is not installed"
)

FIGURE = b"edge_hub_sites"


@dataclass(frozen=True)
class Pod:
    """Where the hub and its proxy listen, and the operator's token."""

    hub: int
    api: int
    metrics: int
    plain: int
    """Of another proxy before the hub, which adds nothing to what it passes on."""
    token: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    folder = tmp_path_factory.mktemp("pod")
    ports = {8600: free_port(), API_PORT: free_port(), METRICS_PORT: free_port()}
    text = by_name(read_base("hub"))["ConfigMap", "hub-proxy"]["data"]["haproxy.cfg"]
    for port, free in ports.items():
        assert text.count(f":{port}") == 1
        text = text.replace(f":{port}", f"127.0.0.1:{free}" if port != 8600 else f":{free}")
    plain = free_port()
    (folder / "haproxy.cfg").write_text(
        f"{text}\nfrontend plain\n    bind 127.0.0.1:{plain}\n    default_backend hub\n"
    )
    with ExitStack() as stack:
        serve = [sys.executable, "-m", "edge_cli.main", "hub", "serve", str(folder / "hub")]
        commands = {
            "hub": [*serve, "--http", f"127.0.0.1:{ports[8600]}"],
            "haproxy": [str(HAPROXY), "-db", "-f", str(folder / "haproxy.cfg")],
        }
        for name, command in commands.items():
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            child = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(child.wait, 20)
            stack.callback(child.terminate)
        made = Pod(ports[8600], ports[API_PORT], ports[METRICS_PORT], plain, "")
        deadline = time.monotonic() + 60
        while ask(made.api, "/healthz")[0] != 200:
            assert time.monotonic() < deadline, (folder / "hub.log").read_text() + (folder / "haproxy.log").read_text()
            time.sleep(0.05)
        token = (folder / "hub" / "operator.token").read_text().strip()
        yield dataclasses.replace(made, token=token)


def ask(port: int, path: str, method: str = "GET", **fields: str) -> tuple[int, bytes]:
    """Status and body; the path goes as it stands. Status 0: nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in fields.items()})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except ConnectionError:
        return 0, b""
    finally:
        connection.close()


def test_the_api_asks_for_the_operators_token(pod: Pod) -> None:
    assert ask(pod.api, "/api/v1/sites")[0] == 401
    status, body = ask(pod.api, "/api/v1/sites", authorization=f"Bearer {pod.token}")
    assert (status, "sites" in json.loads(body)) == (200, True)


def test_a_whole_bundle_goes_through(pod: Pod) -> None:
    """As large as ingress controllers refuse by themselves; the hub answers that it is not what its name says."""
    connection = http.client.HTTPConnection("127.0.0.1", pod.api, timeout=30)
    path = "/api/v1/artifacts/sha256:" + "0" * 64
    connection.request("PUT", path, body=b"x" * 3_000_000, headers={"Authorization": f"Bearer {pod.token}"})
    answer = connection.getresponse()
    assert answer.status in (400, 409, 422), answer.read()
    assert b"error" in answer.read()
    connection.close()


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/metrics?x", "/%6Detrics", "/%6d%65trics", "//metrics", "/./metrics", "/metrics/", "/x/../metrics",
     "http://127.0.0.1/metrics", "/metrics#x", "/metrics%00", "/%256Detrics"],
)  # fmt: skip
@pytest.mark.parametrize("fields", [{}, {"x_forwarded_for": "127.0.0.1"}, {"x_forwarded_for": "::1, 127.0.0.1"}])
def test_the_figures_are_not_to_be_had_where_the_api_is(pod: Pod, path: str, fields: dict[str, str]) -> None:
    status, body = ask(pod.api, path, **fields)
    assert status in (400, 401, 404, 405)
    assert FIGURE not in body


def test_to_its_own_machine_the_hub_tells_them_without_a_token(pod: Pod) -> None:
    """Else the test before this would show nothing."""
    status, body = ask(pod.hub, "/metrics")
    assert (status, FIGURE in body) == (200, True)


def test_a_proxy_that_only_passes_on_gets_nobody_the_figures(pod: Pod) -> None:
    status, body = ask(pod.plain, "/metrics", host="hub.example.com")
    assert (status, FIGURE in body) == (401, False)
    assert ask(pod.plain, "/healthz", host="hub.example.com")[0] == 200


def test_prometheus_reads_them_and_nothing_else_without_a_token(pod: Pod) -> None:
    for fields in ({}, {"x_forwarded_for": "203.0.113.9", "x_forwarded_proto": "http", "via": "1.1 mesh"}):
        status, body = ask(pod.metrics, "/metrics", **fields, host="10.42.0.7:8602")
        assert (status, FIGURE in body) == (200, True)
    for method, path in (("GET", "/api/v1/sites"), ("POST", "/metrics"), ("GET", "/healthz"), ("GET", "/metrics/x")):
        assert ask(pod.metrics, path, method, authorization=f"Bearer {pod.token}")[0] == 404
