"""Which Kubernetes answers, and whether it can hold what the kit renders."""

import json
import re
from dataclasses import dataclass

from edge_cluster.kubectl import Kubectl
from edge_cluster.outcome import Failed, Unfit
from edge_k3s.names import OLDEST_MINOR

PSA_MINOR, RWOP_MINOR = 25, 27
"""From these on a cluster enforces pod security standards, and ReadWriteOncePod, without being told to.
Source: Kubernetes, feature gates PodSecurity and ReadWriteOncePod."""


@dataclass(frozen=True, slots=True)
class Server:
    """The API server's version: its text, and the minor of 1.MINOR."""

    text: str
    minor: int


def find_server(kubectl: Kubectl, any_version: bool) -> Server:
    """The cluster's server. Raises `Unfit` where none answers, or one older than the kit supports."""
    done = kubectl.ask("version", "--output=json", timeout_s=60)
    server = read_version(done.out)
    if server is None:
        raise Unfit(f"no cluster answers: {done.reason} (KUBECONFIG says which is asked)")
    if server.minor < OLDEST_MINOR and not any_version:
        raise Unfit(
            f"the cluster is Kubernetes {server.text}, and the kit is for 1.{OLDEST_MINOR} and newer:"
            " --any-version checks what it can hold"
        )
    return server


def read_version(answer: str) -> Server | None:
    """What `kubectl version -o json` says of the server; None where it says nothing of one."""
    try:
        said = json.loads(answer)["serverVersion"]["gitVersion"]
        found = re.match(r"v1\.(\d+)\.", said)
    except (ValueError, KeyError, TypeError):
        return None
    return Server(said, int(found[1])) if found else None


def check_storage(kubectl: Kubectl, storage: str) -> None:
    """Raises `Unfit` where the cluster has no such StorageClass."""
    try:
        there = kubectl.has("storageclass", storage)
    except Failed as failure:
        raise Unfit(str(failure)) from None
    if not there:
        raise Unfit(f"the cluster has no StorageClass {storage}: name one of its own with --storage-class")


def free_node_ports(kubectl: Kubectl, count: int) -> list[int]:
    """Ports of the nodes that no Service has."""
    services = kubectl.get("services", "--all-namespaces")["items"]
    taken = {port.get("nodePort") for each in services for port in each["spec"].get("ports", ())}
    # From the top: what the cluster hands out by itself is drawn from anywhere, what people choose is mostly low.
    return [port for port in range(32_700, 30_000, -1) if port not in taken][:count]
