"""A hub in the central cluster, decided: what its manifests are rendered from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

HUB_KEYS = ("director.key", "online.key")
HUB_FILES = ("operator.token", *HUB_KEYS)
"""Secrets that have a place in the hub's folder; a hub makes those that are missing there."""

MOST_WORKERS = 99
"""Users ``_hub-1`` to ``_hub-99``."""

PGPASS = "pgpass"
"""The password file of libpq, a line ``HOST:PORT:DATABASE:USER:PASSWORD``."""


@dataclass(frozen=True, slots=True)
class Server:
    """A broker or database that somebody else runs."""

    url: str
    host: str
    port: int
    networks: tuple[str, ...] = ()
    """Networks (CIDR) it may be at; empty: its address, its namespace where the host is a Service's name, else any."""
    ca: str | None = None
    """The authorities, PEM, that it shows a certificate of; None: those that the image believes."""


@dataclass(frozen=True, slots=True)
class SitesEntrance:
    """Where sites reach the pod. The pod listens on the very ports that sites are told."""

    service: Literal["LoadBalancer", "NodePort"] = "LoadBalancer"
    mqtts_port: int = 8883
    enrol_port: int = 8443
    networks: tuple[str, ...] = ()
    """Networks (CIDR) that sites come from; empty: any."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the Ingress shows: a Secret that is there, one to be made of these texts, or one that cert-manager makes."""

    secret: str = "hub-api-tls"  # noqa: S105 - a Secret's name
    pem: str | None = None
    key: str | None = field(default=None, repr=False)
    cluster_issuer: str | None = None


@dataclass(frozen=True, slots=True)
class ApiEntrance:
    """Where operators reach the API."""

    host: str
    ingress_class: str
    certificate: Certificate = Certificate()
    namespace: str | None = None
    """Of the ingress controller's pods, which alone may ask the pod."""
    networks: tuple[str, ...] = ()
    """Networks (CIDR) that it asks from, where it runs in the nodes' own network."""


@dataclass(frozen=True, slots=True)
class Store:
    """A store of secrets outside the cluster, which the External Secrets operator reads."""

    name: str
    kind: Literal["SecretStore", "ClusterSecretStore"]
    keys: Mapping[str, tuple[str, str | None]]
    """Name of the secret → its key in the store, and the property of that, if it has several."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What the hub is given and does not make itself: values, a store outside, or a Secret that somebody else makes."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    store: Store | None = None
    existing: str | None = None

    @property
    def any(self) -> bool:
        """Whether the pod is given a Secret at all."""
        return bool(self.values) or self.store is not None or self.existing is not None

    @property
    def names(self) -> frozenset[str] | None:
        """The secrets there will be; None where only who makes the Secret knows."""
        if self.existing is not None:
            return None
        return frozenset(self.values if self.store is None else self.store.keys)


@dataclass(frozen=True, slots=True)
class WorkerPods:
    """More processes that take in, as pods of their own, between `least` and `most` of them."""

    least: int
    most: int
    cpu_percent: int = 70
    """Of what they ask for: where they use more, more are made."""


@dataclass(frozen=True, slots=True)
class HubSpec:
    """A hub, and how the world reaches it."""

    image: str
    names: tuple[str, ...]
    """DNS names or addresses that sites reach it by, in its certificate; sites are told the first. None where the
    broker is somebody else's: it does not enrol then."""
    workers: int = 1
    """Processes that take in, in the hub's own pod."""
    worker_pods: WorkerPods | None = None
    """Only where broker and database are elsewhere: a hub's own broker and SQLite are reached from its pod alone."""
    sites: SitesEntrance = SitesEntrance()
    api: ApiEntrance | None = None
    proxy_image: str | None = None
    """HAProxy; without it neither API nor figures leave the pod (`kubectl port-forward` reaches the API)."""
    monitoring: str | None = None
    """The namespace of the Prometheus that may read the figures."""
    broker: Server | None = None
    """None: a mosquitto of the hub's own, its child. Only with that do sites join by certificate."""
    database: Server | None = None
    """PostgreSQL; None: SQLite in the hub's folder."""
    secrets: Secrets = Secrets()
    storage_class: str | None = None
    """None: the cluster's default."""
    data_size: str = "50Gi"


def broker_passwords(workers: int) -> tuple[str, ...]:
    """The password files of the hub's users at the broker: its own, and one for each of so many worker processes."""
    numbers = range(1, workers + 1) if workers > 1 else ()
    return ("_hub.password", *(f"_hub-{number}.password" for number in numbers))
