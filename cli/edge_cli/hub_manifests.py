"""`edge-agent hub manifests`: a hub for the central cluster, as plain Kubernetes manifests, from one file."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer
from pydantic import BaseModel, ConfigDict, Field

from edge_cli.output import data, emit_json, talk
from edge_k3s.hub.spec import ApiEntrance, Certificate, HubSpec, Secrets, Server, SitesEntrance, Store, WorkerPods
from edge_k3s.hub.writing import write_hub
from edge_models.errors import ConfigError
from edge_sync.mqtt import Broker
from edge_sync.yamlfile import load_yaml


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SitesConfig(_Section):
    """Where sites come in."""

    service: Literal["LoadBalancer", "NodePort"] = "LoadBalancer"
    mqtts_port: Annotated[int, Field(ge=1, le=65535)] = 8883
    enrol_port: Annotated[int, Field(ge=1, le=65535)] = 8443
    networks: list[str] = []
    """CIDR; empty: from anywhere."""


class TlsConfig(_Section):
    """The API's certificate: two files, or a Secret, which cert-manager makes where `cluster_issuer` is named."""

    secret: str = "hub-api-tls"  # noqa: S105 - a Secret's name
    cert_file: Path | None = None
    key_file: Path | None = None
    cluster_issuer: str | None = None


class ApiConfig(_Section):
    """Where operators come in."""

    host: str
    ingress_class: str
    tls: TlsConfig = TlsConfig()
    namespace: str | None = None
    networks: list[str] = []


class ServerConfig(_Section):
    """A broker or database that somebody else runs."""

    url: str
    ca_file: Path | None = None
    networks: list[str] = []


class StoreConfig(_Section):
    """A store that the External Secrets operator reads."""

    name: str
    kind: Literal["SecretStore", "ClusterSecretStore"] = "ClusterSecretStore"
    keys: Annotated[dict[str, str], Field(min_length=1)]
    """Name of the secret → KEY, or KEY#PROPERTY."""


class SecretsConfig(_Section):
    """One of the three: files of these names, a store, or a Secret that somebody else makes."""

    files: dict[str, Path] = {}
    store: StoreConfig | None = None
    existing: str | None = None


class StorageConfig(_Section):
    """The volumes."""

    class_: Annotated[str | None, Field(alias="class")] = None
    data: str = "50Gi"


class WorkerPodsConfig(_Section):
    """Ingest workers as pods of their own."""

    least: int = 1
    most: int
    cpu_percent: Annotated[int, Field(ge=10, le=100)] = 70


class MonitoringConfig(_Section):
    """A Prometheus with its operator."""

    namespace: str


class HubConfig(_Section):
    """The file. Its paths begin where it lies."""

    image: str
    names: list[str] = []
    workers: Annotated[int, Field(ge=1, le=99)] = 1
    worker_pods: WorkerPodsConfig | None = None
    sites: SitesConfig = SitesConfig()
    api: ApiConfig | None = None
    proxy_image: str | None = None
    monitoring: MonitoringConfig | None = None
    broker: ServerConfig | None = None
    database: ServerConfig | None = None
    secrets: SecretsConfig = SecretsConfig()
    storage: StorageConfig = StorageConfig()


def hub_spec(path: Path) -> HubSpec:
    """What the file wishes, with the files that it names read. Raises `ConfigError`."""
    config, base = load_yaml(path, HubConfig), path.resolve().parent
    return HubSpec(
        image=config.image,
        names=tuple(config.names),
        workers=config.workers,
        worker_pods=None if config.worker_pods is None else WorkerPods(**config.worker_pods.model_dump()),
        sites=SitesEntrance(
            config.sites.service, config.sites.mqtts_port, config.sites.enrol_port, tuple(config.sites.networks)
        ),
        api=None if config.api is None else _api(config.api, base),
        proxy_image=config.proxy_image,
        monitoring=None if config.monitoring is None else config.monitoring.namespace,
        broker=None if config.broker is None else _broker(config.broker, base),
        database=None if config.database is None else _database(config.database, base),
        secrets=_secrets(config.secrets, base),
        storage_class=config.storage.class_,
        data_size=config.storage.data,
    )


def _api(api: ApiConfig, base: Path) -> ApiEntrance:
    tls = api.tls
    if (tls.cert_file is None) != (tls.key_file is None):
        raise ConfigError("api.tls: `cert_file` and `key_file` go together")
    if tls.cert_file is not None and tls.cluster_issuer is not None:
        raise ConfigError("api.tls: give files or `cluster_issuer`, not both")
    certificate = Certificate(
        tls.secret,
        _text("api.tls.cert_file", base, tls.cert_file),
        _text("api.tls.key_file", base, tls.key_file),
        tls.cluster_issuer,
    )
    return ApiEntrance(api.host, api.ingress_class, certificate, api.namespace, tuple(api.networks))


def _broker(server: ServerConfig, base: Path) -> Server:
    broker = Broker(server.url, client_id="_hub")
    broker.require_tls()
    host, port, _ = broker.address()
    return Server(server.url, host, port, tuple(server.networks), _text("broker.ca_file", base, server.ca_file))


def _database(server: ServerConfig, base: Path) -> Server:
    try:
        parts = urlsplit(server.url)
        port = parts.port or 5432
    except ValueError as error:
        raise ConfigError(f"database.url: {error}") from None
    if parts.scheme != "postgresql" or not parts.hostname or parts.password is not None:
        raise ConfigError("database.url: write postgresql://USER@HOST/DATABASE, with the password in the secret pgpass")
    ca = _text("database.ca_file", base, server.ca_file)
    return Server(server.url, parts.hostname, port, tuple(server.networks), ca)


def _secrets(secrets: SecretsConfig, base: Path) -> Secrets:
    given = [bool(secrets.files), secrets.store is not None, secrets.existing is not None]
    if sum(given) > 1:
        raise ConfigError("secrets: give `files`, `store` or `existing`, one of them")
    values = {name: _text(f"secrets.files.{name}", base, path) or "" for name, path in secrets.files.items()}
    store = secrets.store
    return Secrets(
        values=values,
        store=None if store is None else Store(store.name, store.kind, {n: _key(k) for n, k in store.keys.items()}),
        existing=secrets.existing,
    )


def _key(text: str) -> tuple[str, str | None]:
    key, _, part = text.partition("#")
    return key, part or None


def _text(key: str, base: Path, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return (base / path).read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{key} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{key} {path}: is no text") from None


def command(
    wish: Annotated[Path, typer.Argument(metavar="HUB.yaml", help="What the hub should be.", show_default=False)],
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to make; it must be new or empty.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Write the manifests of a hub for the central cluster, to be applied in the order of their names.

    Example: edge-agent hub manifests hub.yaml --out hub-manifests
    """
    written = write_hub(hub_spec(wish), out)
    for warning in written.warnings:
        talk.print(f"mind: {warning}", markup=False, soft_wrap=True)
    if as_json:
        emit_json({"path": str(out), "files": written.files, "warnings": written.warnings})
        return
    for name in written.files:
        data.print(str(out / name), markup=False)
    talk.print(f"next: kubectl apply -f {out}", markup=False, soft_wrap=True)
