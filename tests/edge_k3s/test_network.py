import dataclasses
from typing import Any

import pytest

from edge_k3s.network import ANYWHERE, PRIVATE, broker_rules, check_networks, opens_anywhere
from edge_k3s.spec import Account, Enrolment, KitSpec, PodOptions, SensorBroker
from edge_models.errors import ConfigError


def account(host: str, port: int = 8883) -> Account:
    return Account(f"mqtts://{host}:{port}", host, port, "plant-07", "x")


def reached(rules: list[dict[str, Any]]) -> list[tuple[list[str], int]]:
    return [([to["ipBlock"]["cidr"] for to in rule["to"]], rule["ports"][0]["port"]) for rule in rules]


@pytest.mark.parametrize(
    ("hub", "local", "networks", "expected"),
    [
        ("203.0.113.5", "192.0.2.1", (), [(["203.0.113.5/32"], 8883), (["192.0.2.1/32"], 8884)]),
        ("2001:db8::5", "192.0.2.1", (), [(["2001:db8::5/128"], 8883), (["192.0.2.1/32"], 8884)]),
        ("mqtt.hub.example", "broker.plant.example", (), [(list(ANYWHERE), 8883), (list(PRIVATE), 8884)]),
        ("mqtt.hub.example", "192.0.2.1", ("203.0.113.0/28",), [(["203.0.113.0/28"], 8883), (["192.0.2.1/32"], 8884)]),
        ("127.0.0.1", "localhost", (), []),
        ("127.0.0.1", "192.0.2.1", (), [(["192.0.2.1/32"], 8884)]),
    ],
)
def test_the_pod_reaches_its_brokers_and_no_others(
    spec: KitSpec, hub: str, local: str, networks: tuple[str, ...], expected: list[tuple[list[str], int]]
) -> None:
    changed = dataclasses.replace(spec, hub=account(hub), local=account(local, 8884), hub_networks=networks)
    assert reached(broker_rules(changed)) == expected
    assert opens_anywhere(changed) == (expected[:1] == [(list(ANYWHERE), 8883)])


def test_one_broker_needs_one_rule(spec: KitSpec) -> None:
    same = dataclasses.replace(spec, hub=account("203.0.113.5"), local=account("203.0.113.5"), hub_networks=())
    assert reached(broker_rules(same)) == [(["203.0.113.5/32"], 8883)]


def enrolment(host: str) -> Enrolment:
    return Enrolment(url=f"https://{host}:8443", host=host, port=8443, token="x", expires_us=1)


@pytest.mark.parametrize(
    ("hub", "enrol", "networks", "expected", "anywhere"),
    [
        ("203.0.113.5", "203.0.113.6", (), [(["203.0.113.5/32"], 8883), (["203.0.113.6/32"], 8443)], False),
        ("203.0.113.5", "hub.example", (), [(["203.0.113.5/32"], 8883), (list(ANYWHERE), 8443)], True),
        ("hub.example", "hub.example", ("192.0.2.0/28",), [(["192.0.2.0/28"], 8883), (["192.0.2.0/28"], 8443)], False),
        ("127.0.0.1", "localhost", (), [], False),
    ],
)  # fmt: skip
def test_a_site_that_enrols_reaches_where_it_does(
    spec: KitSpec,
    hub: str,
    enrol: str,
    networks: tuple[str, ...],
    expected: list[tuple[list[str], int]],
    anywhere: bool,
) -> None:
    changed = dataclasses.replace(
        spec, hub=account(hub), local=account(hub), enrol=enrolment(enrol), hub_networks=networks
    )
    assert reached(broker_rules(changed)) == expected
    assert opens_anywhere(changed) == anywhere


def test_a_broker_in_the_sites_own_cluster_needs_no_address(spec: KitSpec) -> None:
    pod = PodOptions(sensors=SensorBroker("mosquitto:2", (), {}))
    changed = dataclasses.replace(spec, hub=account("203.0.113.5"), hub_networks=(), pod=pod)
    assert reached(broker_rules(changed)) == [(["203.0.113.5/32"], 8883)]


@pytest.mark.parametrize("network", ["hub.example", "203.0.113.5/28", "203.0.113.0/33", ""])
def test_a_wrong_network_is_named(network: str) -> None:
    with pytest.raises(ConfigError, match=f"network '{network}'"):
        check_networks((network,))
