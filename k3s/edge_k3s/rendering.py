"""A site's Kubernetes objects: the base in manifests/site, and what is this site's own laid over it.

Edits are made on parsed values, never on text; the same spec always gives the same bytes.
"""

import base64
import copy
import functools
import hashlib
from pathlib import Path
from typing import Any

import yaml

from edge_k3s.network import broker_rules
from edge_k3s.sitefile import POD, site_file
from edge_k3s.spec import KitSpec
from edge_k3s.yamltext import dump, dump_all

Object = dict[str, Any]

NAMESPACE = "edge-agent"
DATA_FILE, SECRETS_FILE, SITE_FILE = "00-namespace-and-data.yaml", "05-secrets.yaml", "10-site.yaml"
"""k3s takes a file's name up to its first dot for the name of what it deployed, and works in this order."""

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
}


def base_folder() -> Path:
    """The folder of kustomize bases: beside this package in a checkout, inside it when installed from a wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "manifests", package.parent / "manifests"):
        if folder.is_dir():
            return folder
    raise RuntimeError("edge_k3s was installed without its manifests")


def read_base(role: str) -> list[Object]:
    """Every object of ``manifests/ROLE``, in the order of its kustomization; the caller may change them."""
    return copy.deepcopy(_parse_base(role))


@functools.cache  # three quarters of a kit's time, and hundreds are made in one go
def _parse_base(role: str) -> list[Object]:
    folder = base_folder() / role
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))["resources"]
    texts = ((folder / name).read_text("utf-8") for name in resources)
    return [document for text in texts for document in yaml.safe_load_all(text)]


def render(spec: KitSpec) -> dict[str, str]:
    """File name → text of the site's manifests, ready for k3s's auto-deploy folder."""
    objects = {(item["kind"], item["metadata"]["name"]): item for item in read_base("site")}
    config, secret = _config_map(spec), _secret(spec)

    objects["NetworkPolicy", "site"]["spec"]["egress"] += broker_rules(spec)
    template = objects["Deployment", "site"]["spec"]["template"]
    template["spec"]["containers"][0]["image"] = spec.image
    # A changed configuration or password changes the pod's template, so that the pod is replaced by one that reads it.
    template["metadata"]["annotations"] = {"edge-agent-kit/config-sha256": _digest(config, secret)}

    data = [objects.pop(("Namespace", NAMESPACE)), objects.pop(("PersistentVolumeClaim", "site-data"))]
    files = {DATA_FILE: data, SECRETS_FILE: [secret], SITE_FILE: [config, *objects.values()]}
    for item in (item for items in files.values() for item in items):
        item["metadata"]["labels"]["app.kubernetes.io/instance"] = spec.site
    template["metadata"]["labels"]["app.kubernetes.io/instance"] = spec.site
    return {name: dump_all(items, _HEADERS[name]) for name, items in files.items()}


def _config_map(spec: KitSpec) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata("site-config"),
        "data": {"site.yaml": dump(site_file(spec, POD)), "root.json": spec.root.decode()},
    }


def _secret(spec: KitSpec) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata("site-secrets"),
        "type": "Opaque",
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in spec.secrets.items()},
    }


def _metadata(name: str) -> Object:
    labels = {"app.kubernetes.io/name": "edge-agent", "app.kubernetes.io/component": "site"}
    return {"name": name, "namespace": NAMESPACE, "labels": labels}


def _digest(*objects: Object) -> str:
    return hashlib.sha256("".join(dump(item) for item in objects).encode()).hexdigest()
