"""kit.env: what a kit says of itself, in lines that a shell and a program read alike.

Every value is written with characters that mean nothing to a shell, so that nobody has to quote.
"""

import re
from dataclasses import dataclass

from edge_k3s.spec import KitSpec
from edge_models.errors import RejectedError

NAME = "kit.env"
FORMAT = 1
"""Raised when an older install.sh or check could no longer make sense of a kit."""

_LINE = re.compile(r"([A-Z][A-Z0-9_]*)=([A-Za-z0-9._:/@+-]*)")
_US = 1_000_000

CORES, MEMORY_MB = 2, 1800
"""k3s's own measure of a server is 2 cores and 2 GB, of which a machine shows a little less. Source: docs.k3s.io,
Requirements."""

_DISK_MB = 6 * 1024
"""The site's volume (4 GiB), and k3s with what it unpacks of itself, its database and its logs."""


@dataclass(frozen=True, slots=True)
class KitFacts:
    """A kit, in short."""

    site: str
    kit_version: str
    """Of edge-agent-kit that made it."""
    release: int
    image: str
    arch: str | None
    """``amd64`` or ``arm64``, of the k3s that it brings; None: it runs on both, or brings none."""
    k3s_version: str | None
    airgap: bool
    made_s: int
    """UTC seconds."""
    token_expires_s: int | None
    """None: the kit has a password and no token."""
    cores: int
    memory_mb: int
    disk_mb: int


def facts_of(spec: KitSpec, kit_version: str) -> KitFacts:
    """What `spec` comes to."""
    cargo_mb = sum(each.size_bytes for each in spec.machine.cargo) // 2**20
    return KitFacts(
        site=spec.site,
        kit_version=kit_version,
        release=spec.release,
        image=spec.image,
        arch=spec.machine.arch,
        k3s_version=spec.machine.k3s_version,
        airgap=spec.machine.airgap,
        made_s=spec.made_us // _US,
        token_expires_s=spec.enrol.expires_us // _US if spec.enrol else None,
        cores=CORES,
        memory_mb=MEMORY_MB,
        # An image is on the disk as it came and unpacked, three times as large.
        disk_mb=_DISK_MB + 4 * cargo_mb,
    )


def write_env(facts: KitFacts) -> str:
    """The text of kit.env. Raises `ValueError` for a value that a shell would read as something else."""
    values = {
        "KIT_FORMAT": FORMAT,
        "KIT_VERSION": facts.kit_version,
        "SITE": facts.site,
        "RELEASE": facts.release,
        "IMAGE": facts.image,
        "ARCH": facts.arch or "",
        "K3S_VERSION": facts.k3s_version or "",
        "AIRGAP": "yes" if facts.airgap else "",
        "MADE": facts.made_s,
        "TOKEN_EXPIRES": "" if facts.token_expires_s is None else facts.token_expires_s,
        "NEED_CORES": facts.cores,
        "NEED_MEMORY_MB": facts.memory_mb,
        "NEED_DISK_MB": facts.disk_mb,
    }
    lines = [f"{name}={value}" for name, value in values.items()]
    for line in lines:
        if not _LINE.fullmatch(line):
            raise ValueError(f"{line!r} cannot stand in {NAME}")
    return "\n".join(lines) + "\n"


def read_env(text: str) -> KitFacts:
    """The opposite of `write_env`; lines it does not know are passed over. Raises `RejectedError`."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            raise RejectedError(f"{NAME}: {line[:60]!r} is no NAME=VALUE")
        values[found[1]] = found[2]
    if (said := values.get("KIT_FORMAT")) != str(FORMAT):
        raise RejectedError(
            f"{NAME}: format {said!r}, where this edge-agent reads {FORMAT}: take a version that fits it"
        )
    try:
        return KitFacts(
            site=values["SITE"],
            kit_version=values["KIT_VERSION"],
            release=int(values["RELEASE"]),
            image=values["IMAGE"],
            arch=values["ARCH"] or None,
            k3s_version=values["K3S_VERSION"] or None,
            airgap=bool(values["AIRGAP"]),
            made_s=int(values["MADE"]),
            token_expires_s=int(values["TOKEN_EXPIRES"]) if values["TOKEN_EXPIRES"] else None,
            cores=int(values["NEED_CORES"]),
            memory_mb=int(values["NEED_MEMORY_MB"]),
            disk_mb=int(values["NEED_DISK_MB"]),
        )
    except KeyError as error:
        raise RejectedError(f"{NAME}: no {error.args[0]}") from None
    except ValueError as error:
        raise RejectedError(f"{NAME}: {error}") from None
