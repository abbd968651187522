"""Which addresses a site's pod may open a connection to: its brokers and where it enrols, and no others."""

import ipaddress
from collections.abc import Iterable

from edge_k3s.bases import Object
from edge_k3s.spec import Account, Enrolment, KitSpec
from edge_models.errors import ConfigError

ANYWHERE = ("0.0.0.0/0", "::/0")
PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
"""Where a site's own broker can be. Source: RFC 1918, RFC 4193."""


def check_networks(networks: tuple[str, ...]) -> None:
    """Raises `ConfigError` naming the first that is no network in CIDR notation."""
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(f"network {network!r}: {error}: write it as in 203.0.113.0/24") from None


def broker_rules(spec: KitSpec) -> list[Object]:
    """NetworkPolicy egress rules for the hub's broker, its enrolment, and the site's own broker if it is another one.

    One inside the site's cluster has a policy of its own.
    """
    rules = [_rule(server, spec.hub_networks or _networks(server, ANYWHERE)) for server in _of_hub(spec)]
    if spec.pod.sensors is None and (spec.local.host, spec.local.port) != (spec.hub.host, spec.hub.port):
        rules.append(_rule(spec.local, _networks(spec.local, PRIVATE)))
    return [rule for rule in rules if rule["to"]]


def opens_anywhere(spec: KitSpec) -> bool:
    """Whether a server of the hub has a name and no networks, so that its port is open to every address."""
    return not spec.hub_networks and any(_networks(server, ANYWHERE) == ANYWHERE for server in _of_hub(spec))


def blocks(networks: Iterable[str]) -> list[Object]:
    """The networks as a rule's ``to`` or ``from``."""
    return [{"ipBlock": {"cidr": network}} for network in networks]


def ports(*numbers: int) -> list[Object]:
    """TCP ports as a rule's ``ports``."""
    return [{"protocol": "TCP", "port": number} for number in numbers]


def _of_hub(spec: KitSpec) -> tuple[Account | Enrolment, ...]:
    return (spec.hub,) if spec.enrol is None else (spec.hub, spec.enrol)


def _networks(server: Account | Enrolment, by_name: tuple[str, ...]) -> tuple[str, ...]:
    """The server's address as networks; `by_name` where only DNS knows it; none on loopback, which no policy stops."""
    try:
        address = ipaddress.ip_address(server.host)
    except ValueError:
        return () if server.host == "localhost" else by_name
    return () if address.is_loopback else (str(ipaddress.ip_network(address)),)


def _rule(server: Account | Enrolment, networks: tuple[str, ...]) -> Object:
    return {"to": blocks(networks), "ports": ports(server.port)}
