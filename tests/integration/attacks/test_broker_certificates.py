"""The broker's listener for other machines, on mosquitto: who comes in, and as whom, is said by a certificate."""

import datetime
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from attacker import wait_until
from certificates import CLIENT, SERVER, Authorities
from plain_client import Client

from edge_hub.broker import BrokerFolder, BrokerProcess, TlsListener
from edge_hub.broker.mosquitto import CONF
from edge_hub.broker.probe import CONNACK_ACCEPTED, connect_packet
from edge_hub.broker.process import free_port
from edge_models.errors import ConfigError

JOURNAL = "edge/v1/{}/up/journal"


@dataclass(slots=True)
class Gate:
    """A broker with its listener for sites, and the authorities it believes."""

    users: BrokerFolder
    authorities: Authorities
    port: int
    hub: Client
    clients: list[Client] = field(default_factory=list)

    def client(self, name: str, certificate: Path, password: str | None = None) -> Client:
        """Comes in, with this client id and certificate."""
        context = self.authorities.context(certificate)
        self.clients.append(Client(self.port, name, password, tls=context))
        return self.clients[-1]

    def certificate(self, name: str) -> Path:
        return self.authorities.clients.issue(name, CLIENT, self.authorities.folder)

    def refuses(self, certificate: Path) -> bool:
        """Whether nobody comes in with this."""
        return _refused(self.port, self.authorities.context(certificate))

    def heard(self, client: Client, *topics: str) -> set[str]:
        """Of what this client says on these topics, the last of which it may, what reaches the hub."""
        for topic in topics:
            client.publish(topic, b"said")
        client.publish(topics[-1], b"the last")
        return {topic for topic, _ in self.hub.until(b"the last")}


def _refused(port: int, context: ssl.SSLContext, password: str | None = None) -> bool:
    """Whether an MQTT connection is refused: its handshake fails, or it ends, or the answer is no.

    With TLS 1.3 a client has shaken hands before its server looked at its certificate.
    """
    try:
        with (
            socket.create_connection(("localhost", port), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(connect_packet("plant-02", password or ""))
            return connection.recv(4) != CONNACK_ACCEPTED
    except (ssl.SSLError, ConnectionError):
        return True


class Unchecked(BrokerProcess):
    """mosquitto that asks for certificates and looks at no list of those that no longer count."""

    def _command(self, port: int) -> list[str]:
        command = super()._command(port)
        conf = self._folder.path / CONF
        conf.write_text("\n".join(x for x in conf.read_text().splitlines() if not x.startswith("crlfile")) + "\n")
        return command


@contextmanager
def _gate(folder: Path, kind: type[BrokerProcess] = BrokerProcess) -> Iterator[Gate]:
    users = BrokerFolder(folder / "broker")
    for name in ("plant-01", "plant-02"):
        users.add_user(name, "site")
    password = users.add_user("_hub", "hub")
    authorities = Authorities(folder / "authorities")
    authorities.equip(users.tls)
    listener = TlsListener("127.0.0.1", free_port(), users.tls)
    with kind(users, prefer="mosquitto", tls=listener) as process:
        hub = Client(process.port, "_hub", password)
        hub.subscribe("edge/v1/+/up/#")
        gate = Gate(users, authorities, listener.port, hub)
        yield gate
        for client in (*gate.clients, hub):
            client.close()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, mosquitto: Any) -> Iterator[Gate]:
    """A broker that two sites reach from elsewhere."""
    with _gate(tmp_path_factory.mktemp("gate")) as made:
        yield made


def test_a_certificate_is_the_site_that_its_name_says_and_no_other(gate: Gate) -> None:
    site = gate.client("plant-01", gate.certificate("plant-01"))
    assert site.codes == [0]
    own, others = JOURNAL.format("plant-01"), JOURNAL.format("plant-02")
    assert gate.heard(site, others, own) == {own}


def test_no_password_makes_a_site_another_than_its_certificate_says(gate: Gate) -> None:
    password = gate.users.add_user("plant-02", "site", replace=True)
    site = gate.client("plant-02", gate.certificate("plant-01"), password=password)
    own, others = JOURNAL.format("plant-01"), JOURNAL.format("plant-02")
    assert gate.heard(site, others, own) == {own}


def test_a_certificate_takes_no_other_sites_client_id(gate: Gate) -> None:
    victim = gate.client("plant-02", gate.certificate("plant-02"))
    thief = gate.client("plant-02", gate.certificate("plant-01"))
    assert gate.heard(thief, JOURNAL.format("plant-01"))
    assert not victim.ended


def test_a_certificate_of_nobody_comes_in_and_may_do_nothing(gate: Gate) -> None:
    nobody = gate.client("plant-99", gate.certificate("plant-99"))
    nobody.publish(JOURNAL.format("plant-99"), b"said")
    site = gate.client("plant-01", gate.certificate("plant-01"))
    assert gate.heard(site, JOURNAL.format("plant-01")) == {JOURNAL.format("plant-01")}


def test_nobody_comes_in_without_a_certificate_not_even_with_a_password(gate: Gate) -> None:
    password = gate.users.add_user("plant-02", "site", replace=True)
    plain = ssl.create_default_context(cafile=gate.authorities.root_file)
    assert _refused(gate.port, plain, password)


@pytest.mark.parametrize("what", ["of another authority", "of a server", "run out"])
def test_a_certificate_that_does_not_count_is_refused(gate: Gate, tmp_path: Path, what: str) -> None:
    authority, use, ends = gate.authorities.clients, CLIENT, datetime.timedelta(days=1)
    if what == "of another authority":
        authority = Authorities(tmp_path / "others").clients
    elif what == "of a server":
        authority, use = gate.authorities.servers, SERVER
    else:
        ends = datetime.timedelta(days=-1)
    assert gate.refuses(authority.issue("plant-01", use, tmp_path, ends))
    assert not gate.refuses(gate.certificate("plant-01"))


def test_a_revoked_certificate_is_refused_as_soon_as_the_list_says_so(tmp_path: Path, mosquitto: Any) -> None:
    with _gate(tmp_path) as gate:
        stolen, fine = gate.certificate("plant-01"), gate.certificate("plant-02")
        assert not gate.refuses(stolen)
        gate.authorities.clients.revoke(stolen)
        gate.authorities.publish_revoked(gate.users.tls)
        assert gate.users.reload()
        wait_until(lambda: gate.refuses(stolen), "the broker to have read the list")
        assert not gate.refuses(fine)


def test_without_the_list_it_would_come_in(tmp_path: Path, mosquitto: Any) -> None:
    with _gate(tmp_path, Unchecked) as gate:
        stolen = gate.certificate("plant-01")
        gate.authorities.clients.revoke(stolen)
        gate.authorities.publish_revoked(gate.users.tls)
        assert gate.users.reload()
        assert not gate.refuses(stolen)


def test_a_broker_without_one_of_its_files_does_not_start_and_names_it(tmp_path: Path, mosquitto: Any) -> None:
    users = BrokerFolder(tmp_path / "broker")
    Authorities(tmp_path / "authorities").equip(users.tls)
    (users.tls / "revoked.pem").unlink()
    with pytest.raises(ConfigError, match=r"revoked\.pem: No such file"):
        BrokerProcess(users, prefer="mosquitto", tls=TlsListener("127.0.0.1", 8883, users.tls))


def test_amqtt_serves_no_other_machines(tmp_path: Path) -> None:
    users = BrokerFolder(tmp_path / "broker")
    Authorities(tmp_path / "authorities").equip(users.tls)
    with pytest.raises(ConfigError, match="does not check certificates"):
        BrokerProcess(users, prefer="amqtt", tls=TlsListener("127.0.0.1", 8883, users.tls))
