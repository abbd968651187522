"""The site's manifests, run by `podman kube play`, in a network of the pod's own in which nothing else is.

podman reads less than Kubernetes: what is changed for it is in `for_podman`, and the probes are asked by the test.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from containers import EDGE_AGENT, Podman, Workshop, edge_agent, need

from edge_models.bundle import read_bundle

pytestmark = pytest.mark.timeout(900)  # the first to ask builds the images

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models" / "edge_models" / "data" / "trace-2.bundle"
UID = 10001
RELEASE = """\
release: 1
agents:
  - name: instrument-watch
    bundle: {bundle}
    policy: {policy}
    source: {{kind: http, port: 8090}}
    subject: machine
    grants: [alert]
"""


def for_podman(folder: Path, *kinds: str) -> str:
    """The objects of these kinds in a kit, as podman 4.3 takes them.

    It mounts a Secret's `data` still in base64, so that becomes a ConfigMap; it would run probes inside the container
    by curl, which an image does not have, so they go; it takes ports for the host's; and it does not know other kinds.
    """
    documents = [each for path in sorted(folder.glob("*.yaml")) for each in yaml.safe_load_all(path.read_text())]
    for each in documents:
        if each["kind"] == "Secret":
            each["kind"], each["data"] = "ConfigMap", {k: base64.b64decode(v).decode() for k, v in each["data"].items()}
            del each["type"]
        if each["kind"] == "Deployment":
            pod = each["spec"]["template"]["spec"]
            for volume in pod["volumes"]:
                if "secret" in volume:
                    volume["configMap"] = {"name": volume.pop("secret")["secretName"], "optional": False}
            for container in pod["containers"]:
                del container["ports"]
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    assert container.pop(probe)["httpGet"]["port"] == "api"
    # What the Deployment names has to be there before it.
    return yaml.safe_dump_all(each for kind in kinds for each in documents if each["kind"] == kind)


@pytest.fixture
def kit(tmp_path: Path, workshop: Workshop, podman: Podman, until: Callable[..., Any]) -> Iterator[Path]:
    """A kit for the image, made at a hub that is gone afterwards."""
    need("catatonit", "nsenter")  # podman makes of the first what holds a pod's network
    image = podman.load(workshop.image("site"))
    hub, release = tmp_path / "hub", tmp_path / "release.yaml"
    release.write_text(RELEASE.format(bundle=BUNDLE, policy=ROOT / "examples" / "policies" / "instrument.yaml"))
    words = ["hub", "serve", str(hub), "--http", "127.0.0.1:0"]
    with (tmp_path / "hub.log").open("wb") as log:
        serving = subprocess.Popen([*EDGE_AGENT, *words], stdin=subprocess.DEVNULL, stderr=log)
    try:
        until(lambda: (hub / "hub.json").exists() or serving.poll() is not None, "the hub to be ready")
        assert serving.poll() is None, (tmp_path / "hub.log").read_text()
        url = json.loads((hub / "hub.json").read_bytes())["http"]
        edge_agent("trust", "init", "--out", tmp_path / "trust", "--hub-dir", hub, "--no-passphrase")
        edge_agent(
            "node", "provision", "plant-07", "--hub", url, "--token-file", hub / "operator.token", "--image", image,
            "--release", release, "--trust", tmp_path / "trust", "--out", tmp_path / "kit",
        )  # fmt: skip
    finally:
        serving.terminate()
        serving.wait(30)
    yield tmp_path / "kit"
    podman.remove_all()


def test_the_sites_manifests_run_decide_offline_and_end_when_told(
    kit: Path, podman: Podman, until: Callable[..., Any], tmp_path: Path
) -> None:
    # First the volume, which is filled as the kit's README says.
    manifests = tmp_path / "pod.yaml"
    manifests.write_text(for_podman(kit / "manifests", "PersistentVolumeClaim"))
    podman.run("kube", "play", manifests)
    volume = Path(podman.run("volume", "inspect", "--format", "{{.Mountpoint}}", "site-data"))
    (volume / "release").mkdir()
    for path in (kit / "release").iterdir():
        (volume / "release" / path.name).write_bytes(path.read_bytes())
    for path in (volume, *volume.rglob("*")):
        os.chown(path, UID, UID)
    manifests.write_text(for_podman(kit / "manifests", "ConfigMap", "Deployment"))
    podman.run("kube", "play", "--network", "none", manifests)
    name = next(each for each in podman.run("ps", "--format", "{{.Names}}").splitlines() if each.endswith("-site"))
    about = json.loads(podman.run("inspect", name))[0]
    assert about["HostConfig"]["ReadonlyRootfs"]
    assert about["EffectiveCaps"] in (None, [])
    assert about["Config"]["User"].startswith(str(UID))
    assert about["HostConfig"]["Memory"] == 512 * 1024 * 1024

    ask = Pod(int(about["State"]["Pid"]))
    until(lambda: ask("http://127.0.0.1:8080/v2/health/live") == 200, "the startup probe to pass")
    until(lambda: ask("http://127.0.0.1:8080/v2/health/ready") == 200, "the readiness probe to pass")
    assert ask("http://127.0.0.1:8080/v2/models/trace") == 401  # the rest is for who has the token
    windows = next(iter(read_bundle(BUNDLE).golden.inputs.values()))[:5]
    for number, window in enumerate(windows):
        body = json.dumps({"machine": f"press-{number}", "window": [float(value) for value in window.ravel()]})
        assert ask("http://127.0.0.1:8090/", body) == 202
    until(lambda: decisions(volume / "data" / "memory.db") == len(windows), "a decision about each")

    podman.run("stop", "--time", "45", name)
    assert podman.state(name)["ExitCode"] == 0, podman.logs(name)
    # The checkpoint is made: all of it is in one file.
    assert not (volume / "data" / "memory.db-wal").exists() or not (volume / "data" / "memory.db-wal").stat().st_size


class Pod:
    """Asks over HTTP from inside a pod's network, as the kubelet would from its node; the status of the answer."""

    _ASK = (
        "import sys, urllib.request, urllib.error\n"
        "body = sys.argv[2].encode() if len(sys.argv) > 2 else None\n"
        "request = urllib.request.Request(sys.argv[1], body, {'Content-Type': 'application/json'})\n"
        "try:\n    print(urllib.request.urlopen(request, timeout=5).status)\n"
        "except urllib.error.HTTPError as error:\n    print(error.code)\n"
        "except OSError:\n    print(0)\n"
    )

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __call__(self, *words: str) -> int:
        command = ["nsenter", "--target", str(self._pid), "--net", sys.executable, "-I", "-S", "-c", self._ASK, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return int(done.stdout or 0)


def decisions(memory: Path) -> int:
    """How many a site remembers."""
    import sqlite3
    from contextlib import closing

    if not memory.exists():
        return 0
    with closing(sqlite3.connect(f"file:{memory}?mode=ro", uri=True, timeout=10)) as db:
        return int(db.execute("SELECT count(*) FROM journal WHERE kind = 'decision'").fetchone()[0])
