"""What `hub serve` is told about enrolment, checked before anything is made or opened."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_hub.address import host_and_port
from edge_hub.folder import AUTHORITY
from edge_models.errors import ConfigError
from edge_sync.hosts import is_dns_name

DEFAULT_PORT = 8443


@dataclass(frozen=True, slots=True)
class EnrolPlan:
    """Where the hub is asked for certificates, under which names it is reached, and where its authority lies."""

    host: str
    port: int
    names: tuple[str, ...]
    authority: Path
    broker_url: str
    """Where sites that joined find the broker."""


def make_plan(
    enrol: str | None, names: Sequence[str], authority: Path | None, folder: Path, mqtts: tuple[str, int] | None
) -> EnrolPlan | None:
    """None: no enrolment is wanted. `mqtts`: where the hub's own broker listens for sites elsewhere.

    Raises `ConfigError` that names the option.
    """
    if enrol is None:
        for option, given in (("--name", bool(names)), ("--ca", authority is not None)):
            if given:
                raise ConfigError(f"{option} is for enrolment: also give --enrol HOST:{DEFAULT_PORT}")
        return None
    host, port = host_and_port("--enrol", enrol, f"0.0.0.0:{DEFAULT_PORT}")
    if mqtts is None:
        raise ConfigError("--enrol: sites that join come to the hub's own broker by certificate: also give --mqtts")
    if not names:
        raise ConfigError("--enrol: under which name do sites reach this hub? Give --name DNS_OR_IP, the first is told")
    checked = tuple(dict.fromkeys(_name(each) for each in names))
    url = f"mqtts://{in_url(checked[0])}:{mqtts[1]}"
    return EnrolPlan(host, port, checked, authority or folder / AUTHORITY, url)


def in_url(name: str) -> str:
    """A name or an address as a URL has it."""
    return f"[{name}]" if ":" in name else name


def _name(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    if not is_dns_name(text.lower()):
        raise ConfigError(f"--name {text!r}: write a DNS name or an IP address, as in hub.example.com")
    return text.lower()
