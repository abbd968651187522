"""What a Kubernetes older than the kit supports can't hold of its objects: taken out, and said.

Only under --any-version: what is left still shows that kit and cluster speak to each other.
"""

from collections.abc import Iterable

from edge_cluster.server import RWOP_MINOR
from edge_k3s.bases import Object

SLEEP_MINOR, POLICY_MINOR, EVICTION_MINOR = 30, 21, 27
"""From these on preStop may sleep, budgets are policy/v1, and they may let unhealthy pods be evicted.
Source: Kubernetes, feature gates PodLifecycleSleepAction and PDBUnhealthyPodEvictionPolicy; API removals of 1.25."""


def fit(objects: Iterable[Object], minor: int) -> list[str]:
    """Change the objects to what 1.`minor` holds; what was changed, a line each."""
    said = []
    for each in objects:
        where = f"{each['kind']} {each['metadata']['name']}"
        spec = each.get("spec", {})
        if each["kind"] == "PersistentVolumeClaim" and minor < RWOP_MINOR:
            spec["accessModes"] = ["ReadWriteOnce"]
            said.append(f"{where}: ReadWriteOnce: 1.{minor} knows no ReadWriteOncePod, so a second pod may mount it")
        if each["kind"] == "PodDisruptionBudget" and minor < EVICTION_MINOR:
            spec.pop("unhealthyPodEvictionPolicy", None)
            said.append(f"{where}: a pod that is not ready can't be evicted")
            if minor < POLICY_MINOR:
                each["apiVersion"] = "policy/v1beta1"
        for container in spec.get("template", {}).get("spec", {}).get("containers", ()):
            if "sleep" in container.get("lifecycle", {}).get("preStop", {}) and minor < SLEEP_MINOR:
                del container["lifecycle"]
                said.append(f"{where}: {container['name']} is told to end without a pause before")
    return said
