"""Who may reach a hub's pod, and whom it may reach: NetworkPolicy rules."""

import ipaddress

from edge_k3s.bases import Object
from edge_k3s.hub.spec import HubSpec, Server
from edge_k3s.network import ANYWHERE, blocks, ports

API_PORT, METRICS_PORT = 8601, 8602
"""Of the proxy, as in manifests/hub/proxy.yaml."""


def ingress_rules(spec: HubSpec) -> list[Object]:
    """Sites to the hub's own broker and to enrolment; the ingress controller to the API; Prometheus to the figures."""
    rules: list[Object] = []
    if spec.broker is None:
        asked = ports(spec.sites.mqtts_port, spec.sites.enrol_port)
        rules.append({"from": blocks(spec.sites.networks or ANYWHERE), "ports": asked})
    if spec.api is not None:
        asking = blocks(spec.api.networks)
        if spec.api.namespace is not None:
            asking.insert(0, _namespace(spec.api.namespace))
        rules.append({"from": asking, "ports": ports(API_PORT)})
    if spec.monitoring is not None:
        rules.append({"from": [_namespace(spec.monitoring)], "ports": ports(METRICS_PORT)})
    return rules


def egress_rules(spec: HubSpec) -> list[Object]:
    """The broker and the database, where those are elsewhere."""
    return [{"to": _places(server), "ports": ports(server.port)} for server in _servers(spec)]


def opens_anywhere(spec: HubSpec) -> list[str]:
    """The URLs of servers that have a name and no networks: their ports are open to every address."""
    return [server.url for server in _servers(spec) if _places(server) == blocks(ANYWHERE)]


def _servers(spec: HubSpec) -> list[Server]:
    return [server for server in (spec.broker, spec.database) if server is not None]


def _places(server: Server) -> list[Object]:
    if server.networks:
        return blocks(server.networks)
    try:
        return blocks((str(ipaddress.ip_network(server.host)),))
    except ValueError:
        pass
    # SERVICE.NAMESPACE.svc[.CLUSTER-DOMAIN]: where its pods are.
    labels = server.host.split(".")
    if len(labels) >= 3 and labels[2] == "svc":
        return [_namespace(labels[1])]
    return blocks(ANYWHERE)


def _namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
