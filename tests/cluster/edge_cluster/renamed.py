"""The rendered objects in namespaces of this run's own: what is changed of them, and nothing else is."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

from edge_k3s.bases import Object
from edge_k3s.hub.rendering import NAMESPACE as HUB
from edge_k3s.rendering import NAMESPACE as SITE

RUN_LABEL = "edge-agent-kit/check"
"""On every object of a run, with the run's name."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a run calls its own: `prefix`, which begins the names of all that is not in a namespace."""

    prefix: str

    @property
    def hub(self) -> str:
        """The hub's namespace."""
        return f"{self.prefix}-hub"

    @property
    def site(self) -> str:
        """The site's namespace."""
        return f"{self.prefix}-site"

    @property
    def priority(self) -> str:
        """The site's PriorityClass: the cluster has one list of them."""
        return f"{self.prefix}-site"

    @property
    def hub_host(self) -> str:
        """The name by which the site reaches the hub, inside the cluster."""
        return f"sites.{self.hub}.svc"


def renamed(objects: Iterable[Object], names: Names) -> list[Object]:
    """Copies of them in this run's namespaces, with its label."""
    spaces = {HUB: names.hub, SITE: names.site}
    made = []
    for each in copy.deepcopy(list(objects)):
        meta = each["metadata"]
        meta.setdefault("labels", {})[RUN_LABEL] = names.prefix
        if each["kind"] == "Namespace":
            meta["name"] = spaces[meta["name"]]
        elif each["kind"] == "PriorityClass":
            meta["name"] = names.priority
        else:
            meta["namespace"] = spaces[meta["namespace"]]
        pod = each.get("spec", {}).get("template", {}).get("spec", {})
        if "priorityClassName" in pod:
            pod["priorityClassName"] = names.priority
        made.append(each)
    return made


def stored_in(objects: Iterable[Object], storage: str) -> None:
    """Have the volumes made by this StorageClass: a site's are of k3s's own, and other clusters have others."""
    for each in objects:
        if each["kind"] == "PersistentVolumeClaim":
            each["spec"]["storageClassName"] = storage
