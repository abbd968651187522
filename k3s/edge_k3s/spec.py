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
    password: str | None = field(repr=False)
    """None at a hub whose broker knows the site by its certificate."""

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
class Enrolment:
    """How the site comes by its certificate: it makes a key and asks this hub, once, with this token."""

    url: str
    """``https://HOST:PORT``, as the site reaches it."""
    host: str
    port: int
    token: str = field(repr=False)
    """``EK1<sha256 of the CA>::SITE:SECRET``."""
    expires_us: int


@dataclass(frozen=True, slots=True)
class Cargo:
    """A large file that a kit carries as it is."""

    name: str
    """In the kit's ``airgap/``."""
    source: Path
    sha256: str
    size_bytes: int
    mode: int = 0o644
    images: frozenset[str] | None = None
    """The names of the images in it, where that is a tarball that tells them without being unpacked."""


RESTART = "Sun 03:00"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the kit does to the machine besides the site."""

    cargo: tuple[Cargo, ...] = ()
    arch: str | None = None
    """``amd64`` or ``arm64``, of the k3s that it brings; None: it brings none."""
    k3s_version: str | None = None
    airgap: bool = False
    """Whether the node may ask no registry for anything."""
    restart: str = RESTART
    """When, once a week, k3s is restarted if its certificates end soon: the node's local time, as systemd writes it."""


@dataclass(frozen=True, slots=True)
class SensorBroker:
    """A mosquitto in the site's own cluster: sensors and machines reach its agents through it, with no link at all."""

    image: str
    networks: tuple[str, ...]
    """Networks (CIDR) at the site that sensors and machines connect from."""
    users: Mapping[str, str] = field(repr=False)
    """Name → hash of its password as mosquitto writes it (``$7$…``); one of them is the user of `KitSpec.local`."""
    node_port: int = 31883
    """Where they connect, on any address of the node that runs it."""


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What the site's pod is given beyond what every one has."""

    gpus: int = 0
    """NVIDIA GPUs of the node."""
    sensors: SensorBroker | None = None
    """None: sensors and machines are reached at `KitSpec.local`."""
    monitoring: str | None = None
    """The namespace of the site's Prometheus, where one with an operator runs there and may read the figures."""


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
    pod: PodOptions = PodOptions()
    enrol: Enrolment | None = None
    """None: the site has a password at the hub's broker, and no certificate."""
    machine: Machine = Machine()
    made_us: int = 0
    """When, UTC microseconds: a node whose clock says earlier is behind."""

    @property
    def secrets(self) -> dict[str, str]:
        """File name → secret."""
        named = {
            "api.token": self.api_token,
            "hub.password": self.hub.password,
            "join.token": self.enrol.token if self.enrol else None,
            "local.password": self.local.password,
        }
        return {name: secret for name, secret in named.items() if secret is not None}


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
    sums_sha256: str
    """Of its SHA256SUMS, and so of all of it: the fingerprint to read out over the telephone."""
    signed: bool
    token_expires_us: int | None
    """None: it has a password and no token."""
    warnings: tuple[str, ...]
    """What a person should know before they carry it to the site, a line each."""
