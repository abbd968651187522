"""What the hub's servers show: made, kept good, and never over what is the operator's."""

import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from attacker import wait_until
from certificates import Authorities
from cryptography import x509

from edge_hub.broker import BrokerFolder, BrokerProcess, TlsListener
from edge_hub.broker.mosquitto import find_mosquitto
from edge_hub.broker.process import free_port
from edge_hub.enrol.authority import make_authority
from edge_hub.enrol.equipment import Equipment
from edge_hub.enrol.ledger import Ledger, Revoked
from edge_hub.enrol.making import server_names
from edge_hub.enrol.plan import EnrolPlan, make_plan
from edge_models.errors import ConfigError
from edge_sync.enrol.certificate import load_pem

NOW_US = 2_210_000_000_000_000
DAY_US = 86_400_000_000
FILES = ("server.pem", "server.key", "clients.pem", "revoked.pem")


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    return tmp_path / "broker" / "tls"


@pytest.fixture
def equip(tmp_path: Path, tls: Path) -> Any:
    authority = make_authority(tmp_path / "ca", NOW_US)
    ledger = Ledger(authority.path)

    def make(*names: str) -> Equipment:
        return Equipment(authority, ledger, tls, tmp_path / "enrol", names or ("localhost",))

    return make


def contents(tls: Path) -> dict[str, bytes]:
    return {name: (tls / name).read_bytes() for name in FILES}


def test_all_of_it_is_made_and_then_left_alone(equip: Any, tls: Path) -> None:
    equipment = equip("hub.example.com", "192.0.2.7")
    assert equipment.refresh(NOW_US)
    first = contents(tls)
    assert server_names(load_pem(first["server.pem"])[0]) == {"hub.example.com", "192.0.2.7"}
    assert all((tls / name).stat().st_mode & 0o777 == 0o600 for name in FILES)
    assert not equipment.refresh(NOW_US + DAY_US // 2)
    assert contents(tls) == first
    assert equipment.own[0].read_bytes() != first["server.pem"], "the broker's key is not the listener's"


def test_a_servers_certificate_is_made_anew_at_a_third_and_for_other_names(equip: Any, tls: Path) -> None:
    equip().refresh(NOW_US)
    first = contents(tls)
    equip().refresh(NOW_US + 29 * DAY_US)
    assert contents(tls)["server.pem"] == first["server.pem"]
    assert equip().refresh(NOW_US + 31 * DAY_US)
    later = contents(tls)
    assert later["server.pem"] != first["server.pem"]
    assert later["server.key"] == first["server.key"]
    equip("localhost", "hub").refresh(NOW_US + 31 * DAY_US)
    assert server_names(load_pem(contents(tls)["server.pem"])[0]) == {"localhost", "hub"}


def test_the_list_is_made_anew_daily_and_when_it_changes(equip: Any, tls: Path, tmp_path: Path) -> None:
    def listed() -> x509.CertificateRevocationList:
        return x509.load_pem_x509_crl((tls / "revoked.pem").read_bytes())

    equipment = equip()
    equipment.refresh(NOW_US)
    first = listed()
    assert equipment.refresh(NOW_US + DAY_US + 1_000_000)
    assert listed().next_update_utc != first.next_update_utc
    Ledger(tmp_path / "ca").revoke([Revoked("abc", "plant-01", NOW_US, "")])
    assert equipment.refresh(NOW_US + DAY_US + 2_000_000)
    assert [each.serial_number for each in listed()] == [0xABC]


def test_what_a_clock_years_ahead_had_made_is_made_anew(equip: Any, tls: Path) -> None:
    equip().refresh(NOW_US + 1_000 * DAY_US)
    wrong = contents(tls)
    assert equip().refresh(NOW_US)
    assert all(contents(tls)[name] != wrong[name] for name in ("server.pem", "revoked.pem"))


def test_the_operators_files_stay_as_they_are_and_are_named(equip: Any, tls: Path, tmp_path: Path) -> None:
    tls.mkdir(parents=True)
    Authorities(tmp_path / "operators").equip(tls)
    theirs = contents(tls)
    equipment = equip()
    equipment.refresh(NOW_US)
    assert contents(tls) == theirs
    assert {path.name for path in equipment.foreign()} == {"server.pem", "clients.pem", "revoked.pem"}
    equip().refresh(NOW_US + 60 * DAY_US)
    assert contents(tls) == theirs


def test_a_name_that_is_left_out_is_told(equip: Any) -> None:
    assert equip().dropped() == []
    equip().refresh(NOW_US)
    assert equip().dropped() == []
    renamed = equip("elsewhere.example")
    assert renamed.dropped() == ["localhost"]
    renamed.refresh(NOW_US)
    assert renamed.dropped() == []


def test_a_file_of_the_operators_beside_ours(equip: Any, tls: Path, tmp_path: Path) -> None:
    """A certificate that browsers know, say, and sites of this hub's own authority."""
    tls.mkdir(parents=True)
    Authorities(tmp_path / "operators").equip(tls)
    theirs = contents(tls)
    (tls / "clients.pem").unlink()
    (tls / "revoked.pem").unlink()
    equipment = equip()
    assert equipment.refresh(NOW_US)
    assert [path.name for path in equipment.foreign()] == ["server.pem"]
    assert contents(tls)["server.key"] == theirs["server.key"]
    assert (
        contents(tls)["clients.pem"]
        == (tmp_path / "ca/clients.pem").read_bytes() + (tmp_path / "ca/root.pem").read_bytes()
    )


@pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed")
def test_a_broker_that_runs_shows_the_new_certificate(equip: Any, tls: Path) -> None:
    folder = BrokerFolder(tls.parent)
    equip().refresh(NOW_US)
    listener = TlsListener("127.0.0.1", free_port(), tls)
    context = ssl._create_unverified_context()

    def shown() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", listener.port), timeout=20) as plain,
            context.wrap_socket(plain) as connection,
        ):
            return bytes(connection.getpeercert(True) or b"")

    with BrokerProcess(folder, prefer="mosquitto", tls=listener):
        first = shown()
        assert equip().refresh(NOW_US + 31 * DAY_US)
        assert folder.reload()
        wait_until(lambda: shown() != first, "the broker to show the new one")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"enrol": "8443"}, "--enrol '8443': write HOST:PORT, as in 0.0.0.0:8443"),
        ({"mqtts": None}, "also give --mqtts"),
        ({"names": []}, "Give --name"),
        ({"names": ["https://hub"]}, "--name 'https://hub'"),
        ({"names": ["hub", "no name"]}, "--name 'no name'"),
        ({"names": ["*.example.com"]}, "--name"),
        ({"enrol": None}, "--name is for enrolment"),
        ({"enrol": None, "names": []}, "--ca is for enrolment"),
    ],
)
def test_an_option_that_is_wrong_is_named(asked: dict[str, Any], said: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"enrol": "0.0.0.0:8443", "names": ["hub"], "mqtts": ("0.0.0.0", 8883)} | asked
    with pytest.raises(ConfigError, match=said):
        make_plan(options["enrol"], options["names"], tmp_path / "ca", tmp_path, options["mqtts"])


def test_a_plan_says_where_sites_go(tmp_path: Path) -> None:
    plan = make_plan("[::]:8443", ["Hub.example.com", "[2001:db8::1]", "hub.example.com"], None, tmp_path, ("::", 8883))
    assert plan == EnrolPlan(
        "::", 8443, ("hub.example.com", "2001:db8::1"), tmp_path / "ca", "mqtts://hub.example.com:8883"
    )
    by_address = make_plan("0.0.0.0:8443", ["2001:db8::1"], None, tmp_path, ("::", 8883))
    assert by_address is not None
    assert by_address.broker_url == "mqtts://[2001:db8::1]:8883"
    assert make_plan(None, [], None, tmp_path, ("::", 8883)) is None
