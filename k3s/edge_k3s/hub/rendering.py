"""A hub's Kubernetes objects: the base in manifests/hub, and what is this hub's own laid over it.

The base is a whole hub; what was not wished for is taken out of it. Edits are made on parsed values, never on text;
the same spec always gives the same bytes.
"""

from edge_k3s.bases import Object, Objects, by_name, mark_content, read_base, settings
from edge_k3s.hub.network import egress_rules, ingress_rules
from edge_k3s.hub.pod import lay_out
from edge_k3s.hub.secrets import secret_objects
from edge_k3s.hub.spec import ApiEntrance, HubSpec
from edge_k3s.hub.workers import worker_objects
from edge_k3s.yamltext import dump_all

NAMESPACE = "edge-hub"
DATA_FILE, SECRETS_FILE, HUB_FILE = "00-namespace-and-data.yaml", "05-secrets.yaml", "10-hub.yaml"
WORKERS_FILE, MONITORING_FILE = "15-workers.yaml", "20-monitoring.yaml"

_HEADERS = {
    DATA_FILE: (
        "The hub's namespace and its two volumes: its folder, and the keys that issue the sites' certificates.\n"
        "A file of its own: whoever deletes what a file names must not delete these with the rest."
    ),
    SECRETS_FILE: (
        "The hub's secrets, or where they are found. Values are base64 and not encrypted: then never in a repository."
    ),
    HUB_FILE: (
        "The hub: its configuration, its one pod, who reaches it, and whom it reaches. No secrets.\n"
        "Made by `edge-agent hub manifests`: edit its file and make it anew."
    ),
    WORKERS_FILE: "More pods that take in, as many as there is work for. No secrets.",
    MONITORING_FILE: "For Prometheus. A file of its own: without its operator the cluster would refuse all of it.",
}


def render_hub(spec: HubSpec) -> dict[str, str]:
    """File name → text of the hub's manifests, in the order they are to be applied."""
    objects = by_name(read_base("hub"))
    hub = objects["Deployment", "hub"]
    config = settings("ConfigMap", hub, "hub-config", _authorities(spec))
    proxy = objects.pop(("ConfigMap", "hub-proxy"))
    secrets = secret_objects(spec, hub)

    policy = objects["NetworkPolicy", "hub"]["spec"]
    policy["ingress"] = ingress_rules(spec)
    policy["egress"] += egress_rules(spec)
    _keep_entrances(spec, objects)
    lay_out(spec, hub)
    shown = [*([config] if config["data"] else []), *([proxy] if spec.proxy_image is not None else [])]
    # A changed configuration or secret changes the pod's template, so that the pod is replaced by one that reads it.
    mark_content(hub, *shown, *secrets)

    files = {DATA_FILE: _data(spec, objects), SECRETS_FILE: secrets, HUB_FILE: [*shown, *objects.values()]}
    if spec.worker_pods is not None:
        files[WORKERS_FILE] = worker_objects(spec, spec.worker_pods)
        mark_content(files[WORKERS_FILE][-1], *shown, *secrets)
    if spec.monitoring is not None:
        files[MONITORING_FILE] = read_base("hub-monitoring")
    files = {name: items for name, items in files.items() if items}
    return {name: dump_all(items, _HEADERS[name]) for name, items in files.items()}


def _authorities(spec: HubSpec) -> dict[str, str]:
    servers = {"broker-ca.pem": spec.broker, "database-ca.pem": spec.database}
    return {name: server.ca for name, server in servers.items() if server is not None and server.ca is not None}


def _data(spec: HubSpec, objects: Objects) -> list[Object]:
    volumes = [objects.pop(("PersistentVolumeClaim", name)) for name in ("hub-data", "hub-ca")]
    if spec.broker is not None:
        del volumes[1]
    for volume in volumes:
        if spec.storage_class is not None:
            volume["spec"]["storageClassName"] = spec.storage_class
    volumes[0]["spec"]["resources"]["requests"]["storage"] = spec.data_size
    return [objects.pop(("Namespace", NAMESPACE)), *volumes]


def _set_ports(spec: HubSpec, service: Object) -> None:
    service["spec"]["type"] = spec.sites.service
    numbers = {"mqtts": spec.sites.mqtts_port, "enrol": spec.sites.enrol_port}
    for port in service["spec"]["ports"]:
        port["port"] = numbers[port["name"]]
        if spec.sites.service == "NodePort":
            port["nodePort"] = port["port"]


def _keep_entrances(spec: HubSpec, objects: Objects) -> None:
    if spec.broker is None:
        _set_ports(spec, objects["Service", "sites"])
    else:
        del objects["Service", "sites"]
    if spec.proxy_image is None:
        del objects["Service", "api"]
    if spec.api is None:
        del objects["Ingress", "api"]
    else:
        _open(spec.api, objects["Ingress", "api"])


def _open(api: ApiEntrance, ingress: Object) -> None:
    if api.certificate.cluster_issuer is not None:
        ingress["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] = api.certificate.cluster_issuer
    rules = ingress["spec"].pop("rules")
    rules[0]["host"] = api.host
    tls = [{"hosts": [api.host], "secretName": api.certificate.secret}]
    ingress["spec"] = {"ingressClassName": api.ingress_class, "tls": tls, "rules": rules}
