"""The kustomize bases in manifests/: what every site, and every hub, has in common, with the reasons as comments."""

import copy
import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from edge_k3s.yamltext import dump

Object = dict[str, Any]
"""A Kubernetes object, or a part of one, as plain values."""

Objects = dict[tuple[str, str], Object]
"""By kind and name, in the order they are written."""


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


def by_name(objects: Iterable[Object]) -> Objects:
    """The same objects, to be picked by what they are."""
    return {(item["kind"], item["metadata"]["name"]): item for item in objects}


def named(items: Iterable[Object], name: str) -> Object:
    """The container, volume or port of this name. Raises `KeyError`."""
    for item in items:
        if item["name"] == name:
            return item
    raise KeyError(name)


def without(items: Iterable[Object], *names: str) -> list[Object]:
    """The containers, volumes or ports that have none of these names."""
    return [item for item in items if item["name"] not in names]


def settings(kind: str, like: Object, name: str, data: Mapping[str, str]) -> Object:
    """A ConfigMap or Secret of this name, in the namespace and with the labels of the object `like`."""
    meta = like["metadata"]
    made = {"name": name, "namespace": meta["namespace"], "labels": dict(meta["labels"])}
    kinds: Object = {"type": "Opaque"} if kind == "Secret" else {}
    return {"apiVersion": "v1", "kind": kind, "metadata": made, **kinds, "data": dict(data)}


def set_instance(objects: Iterable[Object], instance: str) -> None:
    """Label them, and the pods they make, as those of this instance."""
    for item in objects:
        item["metadata"]["labels"]["app.kubernetes.io/instance"] = instance
        template = item.get("spec", {}).get("template")
        if template is not None:
            template["metadata"]["labels"]["app.kubernetes.io/instance"] = instance


def mark_content(workload: Object, *objects: Object) -> None:
    """What a pod reads only when it starts is part of its template, so that a change of it makes another pod."""
    text = "".join(dump(item) for item in objects)
    digest = hashlib.sha256(text.encode()).hexdigest()
    workload["spec"]["template"]["metadata"]["annotations"] = {"edge-agent-kit/config-sha256": digest}


@functools.cache  # three quarters of a kit's time, and hundreds are made in one go
def _parse_base(role: str) -> list[Object]:
    folder = base_folder() / role
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))["resources"]
    texts = ((folder / name).read_text("utf-8") for name in resources)
    return [document for text in texts for document in yaml.safe_load_all(text)]
