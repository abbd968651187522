"""The broker's rules, on mosquitto: whoever has a site's credentials reads and writes what is that site's, and no more.

One test a rule of `edge_hub.broker.roles`, the same traffic on a broker without rules, and what a user might try else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from attacker import wait_until
from plain_client import Client

from edge_hub.broker import BrokerFolder, BrokerProcess
from edge_hub.broker.mosquitto import CONF, find_mosquitto
from edge_hub.broker.roles import Access, Role, Rule, rules

USERS: dict[str, Role] = {
    "plant-01": "site",
    "plant-02": "site",
    "_hub": "hub",
    "_hub-1": "hub",
    "_local_plant-01": "local",
    "_local_plant-02": "local",
    "_feeder": "feeder",
}
TOPICS = (
    "edge/v1/plant-01/up/journal",
    "edge/v1/plant-02/up/journal",
    "edge/v1/plant-01/down/desired",
    "edge/v1/plant-02/down/desired",
    "edge/v1/plant-02/down/chunk/00",
    "edge/v1/fleet/trust",
    "edge/v1/fleet/chunk/00",
    "edge/v1/plant-01",
    "edge/v1/plant-01/other",
    "edge/v2/plant-01/up/journal",
    "local/plant-01/press",
    "local/plant-02/press",
    "elsewhere",
)
MAY: dict[tuple[str, Access], set[str]] = {
    ("plant-01", "write"): {"edge/v1/plant-01/up/journal"},
    ("plant-01", "read"): {"edge/v1/plant-01/down/desired", "edge/v1/fleet/trust", "edge/v1/fleet/chunk/00"},
    ("_hub", "read"): {"edge/v1/plant-01/up/journal", "edge/v1/plant-02/up/journal"},
    ("_hub", "write"): {
        "edge/v1/plant-01/down/desired",
        "edge/v1/plant-02/down/desired",
        "edge/v1/plant-02/down/chunk/00",
        "edge/v1/fleet/trust",
        "edge/v1/fleet/chunk/00",
    },
    ("_local_plant-01", "read"): {"local/plant-01/press"},
    ("_local_plant-01", "write"): {"local/plant-01/press"},
    ("_feeder", "read"): {"local/plant-01/press", "local/plant-02/press"},
    ("_feeder", "write"): {"local/plant-01/press", "local/plant-02/press"},
}
"""All that each may of these topics. Written down here anew: what the rules say is not taken from the rules."""

ROOT_USER = "auditor"
"""Reads and writes everything, on brokers of these tests alone."""


@dataclass(slots=True)
class House:
    """A broker, its users' passwords, and the clients that were made."""

    port: int
    passwords: dict[str, str]
    clients: list[Client]

    def client(self, user: str, **named: Any) -> Client:
        self.clients.append(Client(self.port, user, self.passwords[user], **named))
        return self.clients[-1]

    def close(self) -> None:
        while self.clients:
            self.clients.pop().close()


class LooseBroker(BrokerProcess):
    """mosquitto without rules: any user reads and writes anything, by any client id."""

    def _command(self, port: int) -> list[str]:
        command = super()._command(port)
        conf = self._folder.path / CONF
        loose = [line for line in conf.read_text().splitlines() if not line.startswith(("acl_file", "use_username"))]
        conf.write_text("\n".join(loose) + "\n")
        return command


def _house(folder: Path, broker: Callable[..., BrokerProcess], audited: bool) -> Iterator[House]:
    users = BrokerFolder(folder)
    passwords = {name: users.add_user(name, role) for name, role in USERS.items()}
    if audited:
        passwords[ROOT_USER] = users.add_user(ROOT_USER, "site")
        acl = folder / "mosquitto.acl"
        write = users._write

        def and_auditor(known: Any) -> None:
            write(known)
            acl.write_text(acl.read_text() + f"\nuser {ROOT_USER}\ntopic readwrite #\n")

        setattr(users, "_write", and_auditor)  # noqa: B010 - mypy lets no method be assigned
    with broker(users, prefer="mosquitto") as process:
        house = House(process.port, passwords, [])
        yield house
        house.close()


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory, mosquitto: Any) -> Iterator[House]:
    """The broker as it is, and one more user who sees and says everything."""
    yield from _house(tmp_path_factory.mktemp("ruled"), BrokerProcess, audited=True)


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory, mosquitto: Any) -> Iterator[House]:
    """The same without rules."""
    yield from _house(tmp_path_factory.mktemp("loose"), LooseBroker, audited=True)


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Clients end with their test."""
    yield
    for name in {"ruled", "loose"} & set(request.fixturenames):
        request.getfixturevalue(name).close()


def delivered(house: House, user: str, access: Access) -> set[str]:
    """Of `TOPICS`, those on which what this user writes reaches somebody, or what anybody writes reaches this user."""
    auditor, other = house.client(ROOT_USER), house.client(user)
    reader, writer = (other, auditor) if access == "read" else (auditor, other)
    reader.subscribe("#")
    if access == "read":
        for topic in (*TOPICS, *(rule.filter for rule in rules(user, USERS[user]) if rule.access == "read")):
            reader.subscribe(topic)
    for topic in TOPICS:
        writer.publish(topic, b"attack")
    sentinels = [topic for topic in TOPICS if topic in MAY[user, access]]
    writer.publish(sentinels[0], b"the last")
    return {topic for topic, _ in reader.until(b"the last")}


@pytest.mark.parametrize(("user", "access"), MAY, ids=str)
def test_what_a_rule_allows_works_and_nothing_else_is_delivered(ruled: House, user: str, access: Access) -> None:
    assert delivered(ruled, user, access) == MAY[user, access]


@pytest.mark.parametrize(("user", "access"), MAY, ids=str)
def test_without_rules_everything_is_delivered(loose: House, user: str, access: Access) -> None:
    assert delivered(loose, user, access) == set(TOPICS)


@pytest.mark.parametrize("user", USERS)
def test_no_user_has_a_rule_that_is_not_in_the_table(user: str) -> None:
    known = {
        "site": {
            Rule("write", f"edge/v1/{user}/up/#"),
            Rule("read", f"edge/v1/{user}/down/#"),
            Rule("read", "edge/v1/fleet/#"),
        },
        "hub": {
            Rule("read", "edge/v1/+/up/#"),
            Rule("write", "edge/v1/+/down/#"),
            Rule("write", "edge/v1/fleet/#"),
        },
        "local": {Rule(access, f"local/{user.removeprefix('_local_')}/#") for access in ("read", "write")},
        "feeder": {Rule(access, "local/#") for access in ("read", "write")},
    }
    assert set(rules(user, USERS[user])) == known[USERS[user]]


def test_a_site_takes_no_other_sites_client_id(ruled: House) -> None:
    victim = ruled.client("plant-02")
    thief = ruled.client("plant-01", client_id="plant-02")
    assert thief.codes == [0]
    ruled.client(ROOT_USER).subscribe("#")
    victim.publish("edge/v1/plant-02/up/journal", b"still here")
    assert ruled.clients[-1].until(b"still here") == []
    assert not victim.ended


def test_without_the_rule_it_would_end_the_other_sites_connection(loose: House) -> None:
    victim = loose.client("plant-02")
    loose.client("plant-01", client_id="plant-02")
    wait_until(lambda: victim.ended, "the other site's connection to end")


def _wills(house: House, topic: str) -> set[str]:
    """Where the wills of a site arrive that ends on this topic, and then on its own."""
    auditor = house.client(ROOT_USER)
    auditor.subscribe("#")
    own = "edge/v1/plant-01/up/presence"
    for each in (topic, own):
        house.client("plant-01", will=each)
        house.clients.pop().drop()
    found: set[str] = set()

    def came() -> bool:
        found.update(where for where, _ in auditor.all())
        return own in found

    wait_until(came, "the will that may be")
    return found


def test_a_sites_will_reaches_only_its_own_topics(ruled: House) -> None:
    assert _wills(ruled, "edge/v1/plant-02/down/desired") == {"edge/v1/plant-01/up/presence"}


def test_without_rules_its_will_reaches_another_site(loose: House) -> None:
    assert "edge/v1/plant-02/down/desired" in _wills(loose, "edge/v1/plant-02/down/desired")


def test_what_is_retained_for_another_site_is_not_handed_out(ruled: House) -> None:
    auditor = ruled.client(ROOT_USER)
    auditor.publish("edge/v1/plant-02/down/desired", b"secret", retain=True)
    auditor.publish("edge/v1/plant-01/down/desired", b"mine", retain=True)
    site = ruled.client("plant-01")
    for topic_filter in ("edge/v1/plant-02/down/#", "edge/v1/+/down/desired", "#"):
        site.subscribe(topic_filter)
    auditor.publish("edge/v1/plant-01/down/desired", b"the last")
    assert {payload for _, payload in site.until(b"the last")} == {b"mine"}


def test_nobody_comes_in_without_the_password(ruled: House) -> None:
    assert find_mosquitto() is not None
    for password in ("", "wrong", ruled.passwords["plant-02"]):
        client = Client(ruled.port, "plant-01", password)
        ruled.clients.append(client)
        assert client.codes[0] != 0
