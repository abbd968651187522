"""A hub's secrets as Kubernetes objects: values in a Secret, or where the External Secrets operator finds them."""

import base64

from edge_k3s.bases import Object, settings
from edge_k3s.hub.spec import HubSpec, Store

SECRET = "hub-secrets"  # noqa: S105 - a Secret's name


def secret_objects(spec: HubSpec, like: Object) -> list[Object]:
    """What brings the hub's secrets and the Ingress's certificate into the namespace; empty where others do."""
    made = []
    if spec.secrets.store is not None:
        made.append(_external(spec.secrets.store, like))
    elif spec.secrets.values:
        made.append(settings("Secret", like, SECRET, {k: _base64(v) for k, v in spec.secrets.values.items()}))
    certificate = spec.api.certificate if spec.api is not None else None
    if certificate is not None and certificate.pem is not None and certificate.key is not None:
        data = {"tls.crt": _base64(certificate.pem), "tls.key": _base64(certificate.key)}
        made.append({**settings("Secret", like, certificate.secret, data), "type": "kubernetes.io/tls"})
    return made


def secret_name(spec: HubSpec) -> str:
    """The Secret that the pod mounts."""
    return spec.secrets.existing or SECRET


def _external(store: Store, like: Object) -> Object:
    """Source: External Secrets operator, API ``external-secrets.io/v1`` (0.16 and newer)."""
    meta = settings("ConfigMap", like, SECRET, {})["metadata"]
    return {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": meta,
        "spec": {
            "refreshInterval": "1h",
            "secretStoreRef": {"name": store.name, "kind": store.kind},
            "target": {"name": SECRET, "creationPolicy": "Owner"},
            "data": [
                {"secretKey": name, "remoteRef": {"key": key, **({"property": part} if part is not None else {})}}
                for name, (key, part) in sorted(store.keys.items())
            ],
        },
    }


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
