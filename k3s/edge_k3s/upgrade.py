"""A new k3s on the nodes of a site: plans for the system-upgrade-controller, which a site with k3s may run.

Fixed version (a channel would move without anybody's word), one node at a time, servers before agents, inside a window.
Source: docs.k3s.io, Automated Upgrades; the controller's types, `PlanSpec` and `TimeWindowSpec`.
"""

import re
from dataclasses import dataclass
from typing import Any

from edge_k3s.names import minor_of
from edge_k3s.yamltext import dump_all
from edge_models.errors import ConfigError

NAMESPACE = "system-upgrade"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_WINDOW = re.compile(r"(?P<days>[a-z,-]+) (?P<start>\d{2}:\d{2})-(?P<end>\d{2}:\d{2})")
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_DEADLINE_S = 1800
"""Of one node's upgrade: after that it counts as failed, and no further node is begun."""

_HEADER = """\
k3s on this site's nodes becomes {version}, on {window} ({zone}).
Needs the system-upgrade-controller at the site, and the image {image}:{tag}, imported where there is no registry.
Put it into /var/lib/rancher/k3s/server/manifests/30-k3s-upgrade.yaml of one server; it has then no other place.
"""


@dataclass(frozen=True, slots=True)
class Window:
    """When upgrades may begin."""

    days: tuple[str, ...]
    start: str
    end: str

    def __str__(self) -> str:
        return f"{','.join(self.days)} {self.start}-{self.end}"


def parse_window(text: str) -> Window:
    """``sat,sun 02:00-05:00`` or ``mon-fri 02:00-04:00``. Raises `ConfigError`."""
    found = _WINDOW.fullmatch(text.strip().lower())
    days: list[str] = []
    for part in found["days"].split(",") if found else ():
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and (last not in DAYS or DAYS.index(last) < DAYS.index(first))):
            found = None
            break
        days += DAYS[DAYS.index(first) : DAYS.index(last if dash else first) + 1]
    if found is None or not _CLOCK.fullmatch(found["start"]) or not _CLOCK.fullmatch(found["end"]):
        raise ConfigError(f"window {text!r}: write days and times, as in 'sat,sun 02:00-05:00'")
    if found["start"] == found["end"]:
        raise ConfigError(f"window {text!r}: begins when it ends")
    return Window(tuple(dict.fromkeys(days)), found["start"], found["end"])


def plans(current: str, version: str, window: Window, zone: str, image: str) -> str:
    """The two plans as YAML. Raises `ConfigError` where Kubernetes does not allow to go from `current` to `version`."""
    was, will = minor_of(current), minor_of(version)
    if will < was:
        raise ConfigError(f"from {current} to {version}: Kubernetes never goes back: restore a backup instead")
    if will > was + 1:
        raise ConfigError(f"from {current} to {version}: go by v1.{was + 1} first: no minor version may be left out")
    if version == current:
        raise ConfigError(f"{version} is what the nodes have")
    control = {"key": "node-role.kubernetes.io/control-plane"}
    servers = _plan("servers", version, window, zone, image, {**control, "operator": "In", "values": ["true"]})
    agents = _plan("agents", version, window, zone, image, {**control, "operator": "DoesNotExist"})
    # An agent's upgrade waits until the plan of that name has done its nodes.
    agents["spec"]["prepare"] = {"image": image, "args": ["prepare", "k3s-servers"]}
    tag = version.replace("+", "-")
    return dump_all([servers, agents], _HEADER.format(version=version, window=window, zone=zone, image=image, tag=tag))


def _plan(role: str, version: str, window: Window, zone: str, image: str, nodes: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "upgrade.cattle.io/v1",
        "kind": "Plan",
        "metadata": {"name": f"k3s-{role}", "namespace": NAMESPACE},
        "spec": {
            "version": version,
            "concurrency": 1,
            "exclusive": True,
            "jobActiveDeadlineSecs": _DEADLINE_S,
            "window": {"days": list(window.days), "startTime": window.start, "endTime": window.end, "timeZone": zone},
            "nodeSelector": {"matchExpressions": [nodes]},
            "serviceAccountName": NAMESPACE,
            # Not drained: where one node is all there is, its pods have nowhere to go, and they run on meanwhile.
            "cordon": True,
            "tolerations": [{"operator": "Exists"}],
            "upgrade": {"image": image},
        },
    }
