"""A mosquitto of the site's own beside its pod: users, and who may connect."""

import base64
import dataclasses

from edge_k3s.bases import Object, by_name, mark_content, read_base, settings
from edge_k3s.names import check_image
from edge_k3s.network import blocks, check_networks, ports
from edge_k3s.spec import Account, KitSpec, SensorBroker
from edge_models.errors import ConfigError

SERVICE, PORT = "sensors", 1883
_NODE_PORTS = range(30_000, 32_768)


def check_sensors(spec: KitSpec) -> None:
    """Raises `ConfigError` for a broker of the site's own that its sensors or its agents could not reach."""
    broker = spec.pod.sensors
    if broker is None:
        return
    check_image(broker.image)
    check_networks(broker.networks)
    if broker.node_port not in _NODE_PORTS:
        raise ConfigError(f"sensors: port {broker.node_port}: a NodePort is one of 30000 to 32767")
    if spec.local.username not in broker.users:
        raise ConfigError(f"sensors: the site's own user {spec.local.username!r} is none of the broker's")
    for name, password in broker.users.items():
        if not password.startswith("$7$") or not _is_one_word(name + password):
            raise ConfigError(f"sensors: user {name!r}: no name and password hash that mosquitto reads")


def at_own_broker(spec: KitSpec) -> KitSpec:
    """The same site as its pod sees it: `local` is the broker beside it, where it has one."""
    if spec.pod.sensors is None:
        return spec
    local = Account(f"mqtt://{SERVICE}:{PORT}", SERVICE, PORT, spec.local.username, spec.local.password)
    return dataclasses.replace(spec, local=local)


def sensor_objects(spec: KitSpec, broker: SensorBroker) -> tuple[Object, list[Object]]:
    """The Secret of the broker's users, and the objects that can be shown to anybody."""
    objects = by_name(read_base("site-sensors"))
    config, workload = objects["ConfigMap", "sensors-config"], objects["Deployment", "sensors"]
    users = settings("Secret", config, "sensors-users", _user_files(spec.site, broker))
    workload["spec"]["template"]["spec"]["containers"][0]["image"] = broker.image
    mark_content(workload, config, users)
    if broker.networks:
        rule = {"from": blocks(broker.networks), "ports": ports(PORT)}
        objects["NetworkPolicy", "sensors"]["spec"]["ingress"].append(rule)
    objects["Service", SERVICE]["spec"]["ports"][0]["nodePort"] = broker.node_port
    return users, list(objects.values())


def _user_files(site: str, broker: SensorBroker) -> dict[str, str]:
    """mosquitto's password file and access rules: each user speaks and hears of this site's own things, no others."""
    users = sorted(broker.users.items())
    passwd = "".join(f"{name}:{password}\n" for name, password in users)
    acl = "\n".join(f"user {name}\ntopic readwrite local/{site}/#\n" for name, _ in users)
    return {"passwd": base64.b64encode(passwd.encode()).decode(), "acl": base64.b64encode(acl.encode()).decode()}


def _is_one_word(text: str) -> bool:
    return text.isascii() and text.isprintable() and not {" ", ":", "#"} & set(text)
