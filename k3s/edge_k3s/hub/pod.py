"""The hub's pod: the command it runs, and what it is given."""

from edge_k3s.bases import Object, named, without
from edge_k3s.hub.network import API_PORT
from edge_k3s.hub.secrets import secret_name
from edge_k3s.hub.spec import PGPASS, HubSpec, Server

CONFIG, RUN = "/etc/edge-hub/config", "/run/edge-hub"
CA = "/var/lib/edge-hub-ca/ca"
"""The mounts of manifests/hub/deployment.yaml."""

_ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - NetworkPolicy `hub` says who reaches the pod


def lay_out(spec: HubSpec, deployment: Object) -> None:
    """Give the pod of the base what `spec` says, and take from it what that leaves out."""
    pod = deployment["spec"]["template"]["spec"]
    hub = named(pod["containers"], "hub")
    hub["image"] = spec.image
    hub["command"] += options(spec)
    hub["env"] += environment(spec)
    if spec.broker is None:
        numbers = {"mqtts": spec.sites.mqtts_port, "enrol": spec.sites.enrol_port}
        hub["ports"] = [{**port, "containerPort": numbers[port["name"]]} for port in hub["ports"]]
    else:
        del hub["ports"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            hub[probe]["httpGet"] = {"path": "/healthz", "port": API_PORT}  # through the proxy: nothing else listens
        leave_out(pod, "ca")
    if spec.proxy_image is None:
        pod["containers"] = without(pod["containers"], "proxy")
        leave_out(pod, "proxy")
    else:
        named(pod["containers"], "proxy")["image"] = spec.proxy_image
    if not shows_authorities(spec):
        leave_out(pod, "config")
    if spec.secrets.any:
        pod["initContainers"][0]["image"] = spec.image
        named(pod["volumes"], "secrets")["secret"]["secretName"] = secret_name(spec)
    else:
        del pod["initContainers"]
        leave_out(pod, "secrets", "run")


def options(spec: HubSpec) -> list[str]:
    """What follows ``edge-agent hub serve FOLDER``."""
    words = ["--http", "127.0.0.1:8600", "--workers", str(spec.workers)]
    if spec.broker is None:
        words += ["--mqtts", f"{_ANY_ADDRESS}:{spec.sites.mqtts_port}"]
        words += ["--enrol", f"{_ANY_ADDRESS}:{spec.sites.enrol_port}", "--ca", CA]
        words += [word for name in spec.names for word in ("--name", name)]
    return words + servers_options(spec)


def servers_options(spec: HubSpec) -> list[str]:
    """Where broker and database are, if those are elsewhere."""
    words = []
    if spec.broker is not None:
        words += ["--broker", spec.broker.url]
    if spec.database is not None:
        words += ["--database", _with_authorities(spec.database)]
    return words


def shows_authorities(spec: HubSpec) -> bool:
    """Whether a server elsewhere is known by authorities of its own, which are mounted at `CONFIG`."""
    return any(server is not None and server.ca is not None for server in (spec.broker, spec.database))


def _with_authorities(server: Server) -> str:
    """The database's URL, which says by whose certificates it is known."""
    if server.ca is None:
        return server.url
    mode = "" if "sslmode=" in server.url else "sslmode=verify-full&"
    mark = "&" if "?" in server.url else "?"
    return f"{server.url}{mark}{mode}sslrootcert={CONFIG}/database-ca.pem"


def environment(spec: HubSpec) -> list[Object]:
    """By which a process finds the password of the database, and knows the broker."""
    made = {}
    if spec.database is not None and (spec.secrets.names is None or PGPASS in spec.secrets.names):
        made["PGPASSFILE"] = f"{RUN}/{PGPASS}"
    if spec.broker is not None and spec.broker.ca is not None:
        # The broker is all that this process asks over TLS by itself: libpq is told its own.
        made["SSL_CERT_FILE"] = f"{CONFIG}/broker-ca.pem"
    return [{"name": name, "value": value} for name, value in made.items()]


def leave_out(pod: Object, *volumes: str) -> None:
    """Neither the volumes nor their mounts."""
    pod["volumes"] = without(pod["volumes"], *volumes)
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        container["volumeMounts"] = without(container["volumeMounts"], *volumes)
