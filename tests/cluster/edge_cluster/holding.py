"""Checks of what the cluster holds off: pods that may too much, connections that no policy names."""

import json
from typing import Any

from edge_cluster.outcome import Failed, Skipped
from edge_cluster.server import PSA_MINOR
from edge_cluster.trial import SITE_FILE, Trial
from edge_k3s.bases import Object
from edge_k3s.image.install import PYTHON

_KNOCK = """\
import socket, sys, time
def opens():
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()
        return True
    except OSError:
        return False
# What stands for the policies may need a moment for a new pod, so the last answers count.
said = []
for _ in range(12):
    said.append(opens())
    time.sleep(1)
print("open" if any(said[-4:]) else "shut")
"""


def doctor(trial: Trial) -> str:
    """`edge-agent doctor` in the pod finds nothing wrong."""
    done = trial.kubectl.ask(*trial.in_site("edge-agent", "doctor", SITE_FILE, "--json"))
    try:
        findings = json.loads(done.out)["findings"]
    except (ValueError, KeyError):
        raise Failed(f"doctor said: {done.reason}") from None
    if wrong := [f"{each['about']}: {each['what']}" for each in findings if each["level"] == "fail"]:
        raise Failed("; ".join(wrong))
    return f"{len(findings)} findings, none of them wrong"


def restricted(trial: Trial) -> str:
    """The namespaces let no pod in that may more than the restricted standard allows; nothing is made to see it."""
    if trial.server.minor < PSA_MINOR:
        raise Skipped(f"Kubernetes {trial.server.text} does not hold pod security standards by itself")
    for space in (trial.names.hub, trial.names.site):
        pod = _pod(trial, "bold", space, {}, ["-c", ""])
        pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}
        done = trial.kubectl.ask("create", "--dry-run=server", "--filename=-", stdin=json.dumps(pod))
        if done.code == 0:
            raise Failed(f"a privileged pod is let into {space}: PodSecurity is not switched on in this cluster")
        if "violates PodSecurity" not in done.err:
            raise Failed(f"a privileged pod is refused for another reason: {done.reason}")
    return "a privileged pod is refused in both namespaces"


def policies_hold(trial: Trial) -> str:
    """Of two pods that knock at the hub's broker the one with the site's labels gets in, the other does not."""
    service = trial.kubectl.get("service", "sites", "-n", trial.names.hub)["spec"]
    port = next(each["port"] for each in service["ports"] if each["name"] == "mqtts")
    labels = trial.kubectl.get("deployment", "site", "-n", trial.names.site)["spec"]["selector"]["matchLabels"]
    asked: dict[str, dict[str, Any]] = {"stranger": {}, "relative": labels}
    for name, its in asked.items():
        pod = _pod(trial, name, trial.names.site, its, ["-c", _KNOCK, service["clusterIP"], str(port)])
        trial.kubectl.apply([pod])
    said = {name: _knocked(trial, name) for name in asked}
    trial.kubectl.run("delete", "pod", *asked, "-n", trial.names.site, "--wait=true")
    if said["relative"] != "open":
        raise Failed(f"a pod with the site's labels does not reach the hub's broker: {said['relative']}")
    if said["stranger"] != "shut":
        raise Failed("a pod that no policy names reaches the hub: this cluster's network holds no NetworkPolicies")
    return "the hub's broker is open to the site's pod and shut to another in its namespace"


def _knocked(trial: Trial, name: str) -> str:
    return trial.until(lambda: _ended(trial, name), f"the pod {name} to end")


def _ended(trial: Trial, name: str) -> str | None:
    phase = trial.kubectl.get("pod", name, "-n", trial.names.site)["status"].get("phase")
    if phase not in ("Succeeded", "Failed"):
        return None
    return trial.kubectl.run("logs", name, "-n", trial.names.site).strip() or str(phase)


def _pod(trial: Trial, name: str, space: str, labels: dict[str, Any], arguments: list[str]) -> Object:
    """A pod of ours that runs Python once, with as little as the site has."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": labels},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "knock",
                    "image": trial.desk.images.site,
                    "imagePullPolicy": "IfNotPresent",
                    "command": [PYTHON, *arguments],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                }
            ],
        },
    }  # fmt: skip
