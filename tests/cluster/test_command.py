"""`./dev e2e-k3s` where there is nothing to check: one clear line, exit code 2, and no cluster is touched."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from edge_cluster.server import Server, read_version
from edge_cluster.story import STORY

ROOT = Path(__file__).parents[2]
IMAGE = ("--image-ref", "edge-agent-kit-hub:0.1.0-0123456789ab")


def check(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command, from the environment that runs the tests; without a cluster unless one is named."""
    environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent)} | variables
    command = [sys.executable, "-m", "edge_cluster", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


class Cluster:
    """An API server that says its version and nothing more; what it was asked."""

    def __init__(self, version: str, folder: Path) -> None:
        asked = self.asked = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                known = self.path.partition("?")[0] == "/version"
                body = json.dumps({"major": "1", "minor": "0", "gitVersion": version} if known else {}).encode()
                self.send_response(200 if known else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.kubeconfig = kubeconfig(folder, self._server.server_port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def kubeconfig(folder: Path, port: int) -> str:
    made = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": ""}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(made))
    return str(path)


@pytest.fixture
def kubectl() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster("v1.31.9+k3s1", tmp_path)
    yield made
    made.close()


def test_no_kubectl() -> None:
    done = check(*IMAGE, "--kubectl", "no-such-kubectl get", KUBECONFIG="k3s.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nothing was checked: no-such-kubectl is not on PATH")


@pytest.mark.usefixtures("kubectl")
def test_no_cluster_is_named() -> None:
    done = check(*IMAGE)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "nothing was checked: KUBECONFIG names no cluster: on a k3s it is /etc/rancher/k3s/k3s.yaml\n"


@pytest.mark.usefixtures("kubectl")
def test_no_cluster_answers(tmp_path: Path) -> None:
    done = check(*IMAGE, KUBECONFIG=kubeconfig(tmp_path, 1))
    assert (done.returncode, done.stdout) == (2, "")
    assert "nothing was checked: no cluster answers: " in done.stderr
    assert "refused" in done.stderr


@pytest.mark.usefixtures("kubectl")
def test_a_cluster_that_is_too_old_is_asked_for_its_version_and_nothing_else(old: Cluster) -> None:
    done = check(*IMAGE, KUBECONFIG=old.kubeconfig)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "nothing was checked: the cluster is Kubernetes v1.31.9+k3s1, and the kit is for 1.32 and newer:"
        " --any-version checks what it can hold\n"
    )
    assert {path.partition("?")[0] for path in old.asked} == {"/version"}


@pytest.mark.usefixtures("kubectl")
def test_a_cluster_without_such_storage_is_left_as_it_is(old: Cluster) -> None:
    done = check(*IMAGE, "--any-version", "--storage-class", "none-such", KUBECONFIG=old.kubeconfig)
    assert done.returncode == 2
    assert done.stderr.startswith("nothing was checked: ")
    assert done.stdout == ""


@pytest.mark.usefixtures("kubectl")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "no image of a hub"),
        (("--image", "none.tar"), "--image none.tar: No such file"),
        ((*IMAGE, "--load", "ctr images import {tar}"), "--load goes with --image TAR"),
        ((*IMAGE, "--without", "hub-ready"), "--without 'hub-ready'"),
        ((*IMAGE, "--namespace-prefix", "No_Label"), "--namespace-prefix 'No_Label'"),
        ((*IMAGE, "--namespace-prefix", "x" * 59), "use at most 58"),
    ],
)
def test_an_option_that_is_wrong(words: tuple[str, ...], says: str) -> None:
    done = check(*words, KUBECONFIG="none.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_checks_are_listed_one_a_line() -> None:
    done = check("--list")
    assert done.returncode == 0
    assert [text.split()[0] for text in done.stdout.splitlines()] == [each.key for each in STORY]


@pytest.mark.parametrize(
    ("answer", "server"),
    [
        ('{"serverVersion": {"gitVersion": "v1.35.2+k3s1"}}', Server("v1.35.2+k3s1", 35)),
        ('{"serverVersion": {"gitVersion": "v1.20.2"}}', Server("v1.20.2", 20)),
        ('{"clientVersion": {"gitVersion": "v1.35.2"}}', None),
        ("", None),
        ('{"serverVersion": {"gitVersion": "unknown"}}', None),
    ],
)
def test_the_version_is_the_servers(answer: str, server: Server | None) -> None:
    assert read_version(answer) == server
