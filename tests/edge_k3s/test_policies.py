"""Everything we render, before checkov: nothing of it is refused without a reason written here."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edge_k3s.rendering import render
from edge_k3s.spec import KitSpec, PodOptions, SensorBroker

GOLDEN = Path(__file__).parent / "golden"
HUBS = ("hub-small", "hub-own", "hub-elsewhere", "hub-scaled")

ANY = "Deployment.edge-agent.site Deployment.edge-agent.sensors Deployment.edge-hub.hub StatefulSet.edge-hub.workers"
REASONS = {
    # Image should use digest: k3s does not find an image that was imported from a file by its digest, so it is pinned
    # by a tag that names its content.
    "CKV_K8S_43": ANY,
    # Image Pull Policy should be Always: a site may have no registry to ask, and the tag never moves.
    "CKV_K8S_15": ANY,
    # Liveness and readiness probes: a worker listens on nothing. It ends when it can't go on, and its leases run out.
    "CKV_K8S_8": "StatefulSet.edge-hub.workers",
    "CKV_K8S_9": "StatefulSet.edge-hub.workers",
}
"""Check → the objects that do not give it what it wants, and above it why."""

CHECKOV = shutil.which("checkov")

pytestmark = pytest.mark.skipif(
    CHECKOV is None and not os.environ.get("EDGE_TESTS_NEED_CHECKOV"),
    reason="checkov is not on PATH: `pip install checkov` in a venv of its own, 290 MB",
)

NAIVE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: site}
spec:
  selector: {matchLabels: {app: site}}
  template:
    metadata: {labels: {app: site}}
    spec:
      containers: [{name: site, image: edge-agent-kit, securityContext: {privileged: true}}]
"""


def refused(folder: Path) -> tuple[dict[str, set[str]], int]:
    """Check → the objects that fail it; and how many checks were passed. checkov asks nobody."""
    command = [CHECKOV or "checkov", "--framework", "kubernetes", "--skip-download", "--compact", "-o", "json"]
    done = subprocess.run([*command, "-d", folder], capture_output=True, text=True, check=False, timeout=100)
    said = json.loads(done.stdout)
    assert said["summary"]["parsing_errors"] == 0
    found: dict[str, set[str]] = {}
    for each in said["results"]["failed_checks"]:
        found.setdefault(each["check_id"], set()).add(each["resource"])
    return found, said["summary"]["passed"]


def test_nothing_is_refused_but_for_a_reason_and_no_reason_is_stale(spec: KitSpec, tmp_path: Path) -> None:
    users = {spec.local.username: "$7$1000$c2FsdA==$aGFzaA=="}
    broker = SensorBroker("mosquitto:2.0.22", ("192.0.2.0/24",), users)
    sites = {
        "plain": spec.pod,
        "equipped": PodOptions(gpus=1, sensors=broker, monitoring="watch"),
    }
    for name, pod in sites.items():
        (tmp_path / name).mkdir()
        for file, text in render(replace(spec, pod=pod)).items():
            (tmp_path / name / file).write_text(text)
    for name in HUBS:
        shutil.copytree(GOLDEN / name, tmp_path / name)
    found, passed = refused(tmp_path)
    assert found == {check: set(objects.split()) for check, objects in REASONS.items()}
    assert passed > 300  # it did look


def test_it_would_object(tmp_path: Path) -> None:
    (tmp_path / "naive.yaml").write_text(NAIVE)
    found, _ = refused(tmp_path)
    assert "CKV_K8S_16" in found  # privileged
    assert len(found) > 15
