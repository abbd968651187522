"""The site file of a kit: one content, for two places that keep their files elsewhere."""

from dataclasses import dataclass
from typing import Any

from edge_k3s.spec import KitSpec


@dataclass(frozen=True, slots=True)
class Place:
    """Where a site process finds its files and where its local API listens."""

    data: str
    secrets: str
    release: str
    root: str
    """The file of the root of trust."""
    api_host: str
    api_port: int | None
    """None: as the kit says."""

    @property
    def api_needs_token(self) -> bool:
        """Whether others than this machine can reach the local API."""
        return self.api_host != "127.0.0.1"


FOLDER = Place("data", "secrets", "release", "root.json", "127.0.0.1", None)
"""A kit run where it lies, with ``edge-agent run KIT/site.yaml``: paths begin at the site file."""

POD = Place(
    data="/var/lib/edge-agent/data",
    secrets="/etc/edge-agent/secrets",
    release="/var/lib/edge-agent/release",
    root="/etc/edge-agent/config/root.json",
    api_host="0.0.0.0",  # noqa: S104 - the kubelet probes the pod's address; NetworkPolicy and the token hold others off
    api_port=8080,
)
"""The mounts of manifests/site/deployment.yaml. Absolute: a ConfigMap's file is a link to a folder that changes."""


def site_file(spec: KitSpec, place: Place) -> dict[str, Any]:
    """The site file as plain values, in the order a person reads it."""
    api: dict[str, Any] = {
        "host": place.api_host,
        "port": spec.api_port if place.api_port is None else place.api_port,
    }
    if place.api_needs_token:
        api["token_file"] = f"{place.secrets}/api.token"
    return {
        "site": spec.site,
        "labels": dict(sorted(spec.labels.items())),
        "data": place.data,
        "hub": _hub(spec, place),
        "release": spec.release,
        "agents": [
            {
                "name": agent.name,
                "bundle": f"{place.release}/{agent.name}.bundle",
                "policy": f"{place.release}/{agent.name}.policy.yaml",
                **agent.settings,
            }
            for agent in spec.agents
        ],
        "endpoints": {name: _endpoint(spec, place) for name in ("sensors", "machines")},
        "grants": sorted(set(spec.grants)),
        "api": api,
    }


def _hub(spec: KitSpec, place: Place) -> dict[str, Any]:
    if spec.enrol is None:
        account = {"username": spec.hub.username, "password_file": f"{place.secrets}/hub.password"}
    else:  # the certificate it gets lies in its data folder
        account = {"enrol": spec.enrol.url, "join_token_file": f"{place.secrets}/join.token"}
    return {"broker": spec.hub.url, **account, "root": place.root}


def _endpoint(spec: KitSpec, place: Place) -> dict[str, Any]:
    return {
        "url": spec.local.url,
        "username": spec.local.username,
        "password_file": f"{place.secrets}/local.password",
        # All that the site's local user may read and write at the hub's broker.
        "topic_prefix": f"local/{spec.site}/",
    }
