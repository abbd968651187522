"""What a kit is made of, decided: the writer asks nobody anything and draws no random number."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Account:
    """A broker, and the user this site is there."""

    url: str
    host: str
    port: int
    username: str
    password: str = field(repr=False)

    @property
    def on_this_machine(self) -> bool:
        """Whether the host can only be the machine that asks."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True)
class KitAgent:
    """One agent of the release, with the bytes it runs on."""

    name: str
    bundle: bytes = field(repr=False)
    policy: bytes = field(repr=False)
    settings: Mapping[str, Any]
    """Its other keys in the site file, as plain YAML values."""


@dataclass(frozen=True, slots=True)
class KitSpec:
    """A site, its hub, its brokers and its first release."""

    site: str
    labels: Mapping[str, str]
    hub: Account
    local: Account
    """The broker of the site's own sensors and machines."""
    root: bytes = field(repr=False)
    """The root of trust: from its keys follows what this site may run."""
    api_token: str = field(repr=False)
    """What callers of the local API show, where it listens on more than loopback."""
    release: int
    agents: tuple[KitAgent, ...]
    grants: tuple[str, ...]
    """The ceiling: tools any agent here may call at all."""
    image: str
    api_port: int = 8080
    """Of the local API when the kit runs on a plain machine; 0: any free port. In a pod it is 8080."""
    hub_networks: tuple[str, ...] = ()
    """Networks (CIDR) the hub's broker may be at; empty: its address, or any where the URL has a name."""

    @property
    def secrets(self) -> dict[str, str]:
        """File name → secret."""
        return {
            "api.token": self.api_token,
            "hub.password": self.hub.password,
            "local.password": self.local.password,
        }


@dataclass(frozen=True, slots=True)
class KitSummary:
    """A kit that was written."""

    site: str
    path: Path
    release: int
    agents: tuple[str, ...]
    image: str
    files: int
    size_bytes: int
    warnings: tuple[str, ...]
    """What a person should know before they carry it to the site, a line each."""
