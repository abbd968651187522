"""Which addresses a site's pod may open a connection to: its brokers, and no others."""

import ipaddress
from typing import Any

from edge_k3s.spec import Account, KitSpec
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


def broker_rules(spec: KitSpec) -> list[dict[str, Any]]:
    """NetworkPolicy egress rules for the hub's broker and for the site's own, where it is another one."""
    rules = [_rule(spec.hub, spec.hub_networks or _networks(spec.hub, ANYWHERE))]
    if (spec.local.host, spec.local.port) != (spec.hub.host, spec.hub.port):
        rules.append(_rule(spec.local, _networks(spec.local, PRIVATE)))
    return [rule for rule in rules if rule["to"]]


def opens_anywhere(spec: KitSpec) -> bool:
    """Whether the hub's broker has a name and no networks, so that its port is open to every address."""
    return not spec.hub_networks and _networks(spec.hub, ANYWHERE) == ANYWHERE


def _networks(account: Account, by_name: tuple[str, ...]) -> tuple[str, ...]:
    """The account's address as networks; `by_name` where only DNS knows it; none on loopback, which no policy stops."""
    if account.on_this_machine:
        return ()
    try:
        return (str(ipaddress.ip_network(account.host)),)
    except ValueError:
        return by_name


def _rule(account: Account, networks: tuple[str, ...]) -> dict[str, Any]:
    return {
        "to": [{"ipBlock": {"cidr": network}} for network in networks],
        "ports": [{"protocol": "TCP", "port": account.port}],
    }
