"""Names that end up in Kubernetes objects, checked where a person typed them."""

import re
from collections.abc import Iterable, Mapping

from edge_models.errors import ConfigError

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Source: RFC 1123 section 2.1, in lower case as Kubernetes wants it."""

_LABEL_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""A label's key without prefix, or its value. Source: Kubernetes, Labels and Selectors, Syntax and character set."""

_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})")


def check_site(site: str) -> None:
    """Raises `ConfigError` where `site` is no DNS label."""
    if not _DNS_LABEL.fullmatch(site):
        raise ConfigError(f"site {site!r}: use 1 to 63 of a-z, 0-9 and -, as in plant-07, not beginning or ending in -")


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises `ConfigError` naming the first label that Kubernetes would not take."""
    for key, value in labels.items():
        for what, text in (("key", key), ("value", value)):
            if not _LABEL_PART.fullmatch(text):
                raise ConfigError(
                    f"label {key}={value}: {what} {text!r}: use 1 to 63 letters, digits and . _ -, "
                    "beginning and ending in a letter or digit"
                )


def parse_labels(pairs: Iterable[str]) -> dict[str, str]:
    """The labels that ``KEY=VALUE`` texts name. Raises `ConfigError` naming the one that is wrong, or stands twice."""
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"label {pair!r}: write KEY=VALUE, as in kind=factory")
        if key in labels:
            raise ConfigError(f"label {key!r} stands twice")
        labels[key] = value
    check_labels(labels)
    return labels


def check_image(image: str) -> None:
    """Raises `ConfigError` for an image reference without a tag that stays: a node must run what was meant."""
    if not _IMAGE.fullmatch(image) or image.endswith(":latest"):
        raise ConfigError(f"image {image!r}: write NAME:TAG with a tag that never moves, as in edge-agent-kit:0.1.0")
