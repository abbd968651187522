"""Kubernetes objects against the strict schemas of its versions, where these are installed (`kubernetes-validate`)."""

from collections.abc import Callable, Sequence

import yaml

from edge_k3s.names import OLDEST_MINOR

Validator = Callable[[str, Sequence[int]], str]
"""`(YAML, minors)` → the first thing wrong, or nothing; without minors the oldest and the newest count."""

_OTHERS = {"upgrade.cattle.io/v1", "monitoring.coreos.com/v1"}
"""Kinds that Kubernetes has no schema of: they come with what reads them."""


def validator() -> Validator | None:
    """None where the schemas are not installed."""
    try:
        import kubernetes_validate as schemas  # noqa: PLC0415 - for a desk; a node does without
    except ImportError:
        return None
    newest = int(schemas.latest_version().split(".")[1])

    def validate(text: str, minors: Sequence[int]) -> str:
        versions = [minor for minor in minors if minor <= newest] or [OLDEST_MINOR, newest]
        for document in yaml.safe_load_all(text):
            if not isinstance(document, dict) or document.get("apiVersion") in _OTHERS:
                continue
            where = f"{document.get('kind')} {document.get('metadata', {}).get('name')}"
            for minor in versions:
                try:
                    schemas.validate(document, f"1.{minor}", strict=True)
                except (schemas.ValidationError, schemas.SchemaNotFoundError) as error:
                    return f"{where}, Kubernetes 1.{minor}: {' '.join(str(error.message).split())[:200]}"
        return ""

    return validate
