"""Names that end up in Kubernetes objects, checked where a person typed them."""

import re
from collections.abc import Iterable, Mapping

from edge_models.errors import ConfigError

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Source: RFC 1123 section 2.1, in lower case as Kubernetes wants it."""

_LABEL_PART = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""A label's key without prefix, or its value. Source: Kubernetes, Labels and Selectors, Syntax and character set."""

_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})")


_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

_DAY = "(Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_TIME = re.compile(rf"({_DAY}(\.\.{_DAY})?(,{_DAY}(\.\.{_DAY})?)* )?([01]\d|2[0-3]):[0-5]\d")
"""A part of what `OnCalendar=` takes. Source: systemd.time(7), Calendar Events."""

_VERSION = re.compile(r"v1\.(\d{1,3})\.(\d{1,3})\+k3s(\d{1,2})")
OLDEST_MINOR = 32
"""Of Kubernetes, that kits are made for: kubelet drop-ins and the live import of images begin there."""


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


def check_file(name: str) -> None:
    """Raises `ConfigError` for a file's name that a shell, or k3s's image importer, would read as something else."""
    if not _FILE.fullmatch(name):
        raise ConfigError(f"file {name!r}: rename it: letters, digits and . _ -, as in k3s-airgap-images-amd64.tar.zst")


def check_time(text: str) -> None:
    """Raises `ConfigError` for what is no time of a day, or of days of the week, as systemd writes it."""
    if not _TIME.fullmatch(text):
        raise ConfigError(f"time {text!r}: write it as in 'Sun 03:00' or 'Mon..Fri 02:30'")


def minor_of(k3s_version: str) -> int:
    """35 of v1.35.2+k3s1. Raises `ConfigError` for what is no k3s version, or one that kits do not fit."""
    found = _VERSION.fullmatch(k3s_version)
    if found is None:
        raise ConfigError(f"k3s version {k3s_version!r}: write it whole, as in v1.35.2+k3s1")
    if int(found[1]) < OLDEST_MINOR:
        raise ConfigError(f"k3s version {k3s_version}: kits need v1.{OLDEST_MINOR} or newer")
    return int(found[1])
