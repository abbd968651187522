"""What a cluster would refuse of a hub, or the hub could not work with, found before anything is written."""

import re
from urllib.parse import parse_qs, urlsplit

from edge_k3s.hub.spec import HUB_FILES, HUB_KEYS, MOST_WORKERS, PGPASS, HubSpec, Server, WorkerPods, broker_passwords
from edge_k3s.names import check_image
from edge_k3s.network import check_networks
from edge_models.errors import ConfigError
from edge_sync.hosts import is_address, is_dns_name

_QUANTITY = re.compile(r"[1-9][0-9]*(Mi|Gi|Ti|M|G|T)")
_NODE_PORTS = range(30_000, 32_768)
_TAKEN_PORTS = frozenset({8600, 8601, 8602})
"""The API's and the proxy's, in the same pod."""
_PRIVILEGED = 1024


def check_hub(spec: HubSpec) -> None:
    """Raises `ConfigError` naming the first thing that is wrong."""
    _check_images(spec)
    if spec.broker is None and not spec.names:
        raise ConfigError("names: name at least one DNS name or address by which sites reach this hub")
    if spec.broker is not None and spec.names:
        raise ConfigError("names: sites do not reach this hub: they come to the broker and join by password")
    for name in spec.names:
        if not is_address(name):
            _check_dns_name("names", name)
    _check_entrances(spec)
    for key, server in (("broker", spec.broker), ("database", spec.database)):
        if server is not None:
            check_networks(server.networks)
            if not is_address(server.host):
                _check_dns_name(f"{key}.url", server.host)
    if spec.database is not None:
        _check_tls_of_database(spec.database)
    if not _QUANTITY.fullmatch(spec.data_size):
        raise ConfigError(f"storage.data {spec.data_size!r}: write a size as in 50Gi")
    for key, value in (("storage.class", spec.storage_class), ("monitoring.namespace", spec.monitoring)):
        if value is not None:
            _check_dns_name(key, value)
    if spec.worker_pods is not None:
        _check_worker_pods(spec, spec.worker_pods)
    _check_secrets(spec)


def _check_images(spec: HubSpec) -> None:
    check_image(spec.image)
    if spec.proxy_image is not None:
        check_image(spec.proxy_image)
    elif spec.api is not None or spec.monitoring is not None or spec.broker is not None:
        raise ConfigError(
            "proxy_image: name an image of HAProxy: API, figures and health are to be had through it only"
        )


def _check_entrances(spec: HubSpec) -> None:
    ports = {"sites.mqtts_port": spec.sites.mqtts_port, "sites.enrol_port": spec.sites.enrol_port}
    for key, port in ports.items():
        if spec.sites.service == "NodePort" and port not in _NODE_PORTS:
            raise ConfigError(f"{key} {port}: a NodePort is one of 30000 to 32767")
        if port < _PRIVILEGED or port in _TAKEN_PORTS:
            raise ConfigError(f"{key} {port}: use one from 1024 on that is none of 8600, 8601, 8602")
    if len(set(ports.values())) < len(ports):
        raise ConfigError(f"sites.enrol_port {spec.sites.enrol_port}: is the port of MQTT too")
    check_networks(spec.sites.networks)
    if spec.api is not None:
        check_networks(spec.api.networks)
        _check_dns_name("api.host", spec.api.host)
        if spec.api.namespace is None and not spec.api.networks:
            raise ConfigError("api: say by `namespace` or `networks` where the ingress controller asks from")


def _check_tls_of_database(server: Server) -> None:
    """A password and records may not cross the cluster's network in clear."""
    mode = parse_qs(urlsplit(server.url).query).get("sslmode", [None])[-1]
    if mode in ("require", "verify-ca", "verify-full") or (mode is None and server.ca is not None):
        return
    raise ConfigError("database: give `ca_file`, or write ?sslmode=verify-full into its URL: it is asked over TLS only")


def _check_worker_pods(spec: HubSpec, pods: WorkerPods) -> None:
    if spec.broker is None or spec.database is None:
        raise ConfigError("worker_pods: name a `broker` and a `database` elsewhere: the hub's own are in its pod only")
    if spec.workers < 2:
        raise ConfigError("workers 1: write 2 or more beside `worker_pods`: a hub alone listens to every site itself")
    if not 1 <= pods.least <= pods.most:
        raise ConfigError(f"worker_pods: {pods.least} to {pods.most}: write at least one, and `most` not below `least`")
    if spec.workers + pods.most > MOST_WORKERS:
        raise ConfigError(f"worker_pods.most {pods.most}: with those of the hub's pod {MOST_WORKERS} is the most")


def _check_secrets(spec: HubSpec) -> None:
    names = spec.secrets.names
    if names is None:
        return
    for name in sorted(names):
        if name not in (*HUB_FILES, PGPASS, *broker_passwords(MOST_WORKERS)):
            known = ", ".join((*HUB_FILES, PGPASS, *broker_passwords(1)))
            raise ConfigError(f"secrets: {name!r} has no place in a hub (known: {known}, _hub-1.password and so on)")
    if spec.broker is not None:
        more = spec.worker_pods.most if spec.worker_pods is not None else 0
        missing = [name for name in broker_passwords(spec.workers + more) if name not in names]
        if missing:
            raise ConfigError(f"secrets: {missing[0]!r} is missing: with it that user comes to {spec.broker.url}")
    if spec.worker_pods is not None and (missing := [name for name in HUB_KEYS if name not in names]):
        raise ConfigError(f"secrets: {missing[0]!r} is missing: workers in other pods sign as the hub does")


def _check_dns_name(key: str, name: str) -> None:
    if not is_dns_name(name):
        raise ConfigError(f"{key} {name!r}: write a DNS name in lower case, as in hub.example.com")
