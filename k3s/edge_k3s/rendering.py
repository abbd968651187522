"""A site's Kubernetes objects: the base in manifests/site, and what is this site's own laid over it.

Edits are made on parsed values, never on text; the same spec always gives the same bytes.
"""

import base64
import re

from edge_k3s.bases import Object, by_name, mark_content, read_base, set_instance, settings
from edge_k3s.network import broker_rules
from edge_k3s.sensors import at_own_broker, check_sensors, sensor_objects
from edge_k3s.sitefile import POD, site_file
from edge_k3s.spec import KitSpec
from edge_k3s.yamltext import dump, dump_all
from edge_models.errors import ConfigError

NAMESPACE = "edge-agent"
DATA_FILE, SECRETS_FILE, SITE_FILE = "00-namespace-and-data.yaml", "05-secrets.yaml", "10-site.yaml"
"""k3s takes a file's name up to its first dot for the name of what it deployed, and works in this order."""

SENSORS_FILE, MONITORING_FILE = "15-sensors.yaml", "20-monitoring.yaml"
"""Where the site has them."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A namespace's name. Source: RFC 1123 section 2.1, in lower case as Kubernetes wants it."""

_HEADERS = {
    DATA_FILE: (
        "The site's namespace, and the volume that holds its memory and its release.\n"
        "A file of its own: k3s removes from the cluster what is removed from a file here, and this must never go.\n"
        "Bundles and policies are no Kubernetes objects: README.txt says how release/ gets into this volume."
    ),
    SECRETS_FILE: "The site's passwords, base64 and not encrypted: readable by root alone, never in a repository.",
    SITE_FILE: (
        "The site: its configuration, its one pod, and what the pod may do. No secrets.\n"
        "Made by `edge-agent node provision`; what may be edited here is in k3s/README.md."
    ),
    SENSORS_FILE: "The broker of the site's own sensors and machines: works with no link to the hub. No secrets.",
    MONITORING_FILE: "For the site's Prometheus. A file of its own: without its operator k3s would refuse all of it.",
}


def render(spec: KitSpec) -> dict[str, str]:
    """File name → text of the site's manifests, ready for k3s's auto-deploy folder.

    Raises `ConfigError` for options of the pod that a cluster would refuse.
    """
    _check(spec)
    objects = by_name(read_base("site"))
    site = objects["Deployment", "site"]
    config = settings("ConfigMap", site, "site-config", _config(spec))
    secret = settings("Secret", site, "site-secrets", {name: _base64(value) for name, value in spec.secrets.items()})

    objects["NetworkPolicy", "site"]["spec"]["egress"] += broker_rules(spec)
    site["spec"]["template"]["spec"]["containers"][0]["image"] = spec.image
    if spec.pod.gpus:
        _give_gpus(site, spec.pod.gpus)
    # A changed configuration or password changes the pod's template, so that the pod is replaced by one that reads it.
    mark_content(site, config, secret)

    data = [objects.pop(("Namespace", NAMESPACE)), objects.pop(("PersistentVolumeClaim", "site-data"))]
    files = {DATA_FILE: data, SECRETS_FILE: [secret], SITE_FILE: [config, *objects.values()]}
    if spec.pod.sensors is not None:
        users, files[SENSORS_FILE] = sensor_objects(spec, spec.pod.sensors)
        files[SECRETS_FILE].append(users)
    if spec.pod.monitoring is not None:
        files[MONITORING_FILE] = _monitoring(spec.pod.monitoring)
    for items in files.values():
        set_instance(items, spec.site)
    return {name: dump_all(items, _HEADERS[name]) for name, items in files.items()}


def _check(spec: KitSpec) -> None:
    check_sensors(spec)
    if spec.pod.gpus < 0:
        raise ConfigError(f"gpus {spec.pod.gpus}: write how many GPUs of the node the pod has, 0 for none")
    if spec.pod.monitoring is not None and not _LABEL.fullmatch(spec.pod.monitoring):
        raise ConfigError(f"monitoring {spec.pod.monitoring!r}: write the name of a namespace, as in monitoring")


def _config(spec: KitSpec) -> dict[str, str]:
    site = site_file(at_own_broker(spec), POD)
    if spec.pod.gpus:  # in the pod only: where the kit's folder is run, nobody promised any
        site["inference"] = {"providers": ["cuda", "cpu"]}
    return {"site.yaml": dump(site), "root.json": spec.root.decode()}


def _give_gpus(site: Object, count: int) -> None:
    """k3s finds NVIDIA's runtime by itself; a pod still has to ask for it, and for the driver's libraries."""
    pod = site["spec"]["template"]["spec"]
    pod["runtimeClassName"] = "nvidia"
    container = pod["containers"][0]
    container["env"].append({"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"})
    container["resources"]["limits"]["nvidia.com/gpu"] = str(count)


def _monitoring(namespace: str) -> list[Object]:
    objects = by_name(read_base("site-monitoring"))
    rule = objects["NetworkPolicy", "monitoring-to-site"]["spec"]["ingress"][0]
    rule["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] = namespace
    return list(objects.values())


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
