"""The authority's folder, and what lies in it beside the keys."""

import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from edge_hub.enrol.authority import Authority, make_authority, moment
from edge_hub.enrol.ledger import ISSUED, REVOKED, Issued, Ledger, Revoked
from edge_hub.enrol.making import server_names, site_certificate
from edge_models.errors import ConfigError
from edge_sync.enrol.certificate import issued_by, load_pem
from edge_sync.enrol.request import new_key, public_half

NOW_US = 2_210_000_000_000_000
DAY_US = 86_400_000_000


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A new one."""
    return make_authority(tmp_path / "ca", NOW_US)


def test_it_is_made_whole_and_for_its_own_user_only(authority: Authority) -> None:
    assert stat.S_IMODE(authority.path.stat().st_mode) == 0o700
    names = {path.name for path in authority.path.iterdir()}
    assert names == {f"{name}.{kind}" for name in ("root", "clients", "servers") for kind in ("pem", "key")}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in authority.path.iterdir())
    assert not [path for path in authority.path.parent.iterdir() if path != authority.path]


def test_the_root_signs_two_that_sign_what_is_no_authority(authority: Authority) -> None:
    root, below = authority.root, [authority.clients.certificate, authority.servers.certificate]
    assert all(issued_by(each, root) for each in below)
    for each, length in ((root, 1), (below[0], 0), (below[1], 0)):
        limits = each.extensions.get_extension_for_class(x509.BasicConstraints)
        assert (limits.critical, limits.value.ca, limits.value.path_length) == (True, True, length)
    assert root.not_valid_after_utc == moment(NOW_US) + timedelta(days=3_650)
    assert below[0].not_valid_after_utc == moment(NOW_US) + timedelta(days=1_825)


def test_it_serves_without_the_roots_key_and_not_without_the_others(authority: Authority) -> None:
    (authority.path / "root.key").unlink()
    assert Authority(authority.path).pin == authority.pin
    (authority.path / "clients.key").unlink()
    with pytest.raises(ConfigError, match=r"clients\.key: No such file"):
        Authority(authority.path)


@pytest.mark.parametrize(
    ("wrong", "with_", "said"),
    [
        ("clients.key", "servers.key", "not of the key beside it"),
        ("root.pem", "clients.pem", "was not signed by"),
        ("servers.pem", "servers.key", "no certificate in PEM"),
        ("servers.key", "servers.pem", "is no unencrypted"),
    ],
)
def test_a_file_that_is_wrong_is_named(authority: Authority, wrong: str, with_: str, said: str) -> None:
    (authority.path / wrong).write_bytes((authority.path / with_).read_bytes())
    with pytest.raises(ConfigError, match=said):
        Authority(authority.path)


def test_it_is_made_once_and_by_a_clock_that_is_set(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not empty"):
        make_authority(authority.path, NOW_US)
    with pytest.raises(ConfigError, match="clock says 1970-01-01: set it"):
        make_authority(tmp_path / "other", 5_000_000)
    assert not (tmp_path / "other").exists()


def test_nothing_outlives_who_signed_it(authority: Authority) -> None:
    late_us = NOW_US + 1_800 * DAY_US
    made = site_certificate(authority.clients, "plant-01", public_half(new_key()), moment(late_us))
    assert made.not_valid_after_utc == authority.clients.certificate.not_valid_after_utc


def test_a_servers_certificate_has_all_its_names(authority: Authority) -> None:
    names = ("hub.example.com", "192.0.2.7", "2001:db8::1")
    made = load_pem(authority.issue_server(names, public_half(new_key()), NOW_US))
    assert server_names(made[0]) == set(names)
    assert made[1] == authority.servers.certificate


def test_the_list_of_revoked_says_which_since_when_and_until_when_it_is_good(authority: Authority) -> None:
    made = x509.load_pem_x509_crl(authority.revoked_pem({"ab": NOW_US, "1f" * 19: NOW_US - DAY_US}, NOW_US))
    assert made.is_signature_valid(authority.clients.key.public_key())
    assert {each.serial_number: each.revocation_date_utc for each in made} == {
        0xAB: moment(NOW_US),
        int("1f" * 19, 16): moment(NOW_US - DAY_US),
    }
    assert made.next_update_utc == moment(NOW_US) + timedelta(days=30)


def issued(number: int, ends_us: int = NOW_US) -> Issued:
    return Issued(f"{number:x}", "plant-01", "cd" * 32, NOW_US, ends_us)


def test_what_was_revoked_stays_so_with_its_first_word(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.revoked() == {}
    ledger.revoke([Revoked("a1", "plant-01", 1, "stolen")])
    ledger.revoke([Revoked("a1", "plant-01", 2, "again"), Revoked("b2", "plant-02", 3, "")])
    assert Ledger(tmp_path).revoked() == {
        "a1": Revoked("a1", "plant-01", 1, "stolen"),
        "b2": Revoked("b2", "plant-02", 3, ""),
    }
    assert stat.S_IMODE((tmp_path / REVOKED).stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", [b"", b"{", b'{"revoked": [{"serial": "a"}]}', b"[]", b"\xff"])
def test_a_damaged_list_is_no_empty_one(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / REVOKED).write_bytes(damage)
    with pytest.raises(ConfigError, match=r"revoked\.json: damaged"):
        Ledger(tmp_path).revoked()
    with pytest.raises(ConfigError, match="damaged"):
        Ledger(tmp_path).revoke([Revoked("a1", "plant-01", 1, "")])


@given(torn=st.integers(1, 40))
def test_a_line_that_was_torn_tears_no_other(torn: int, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("ca")
    ledger = Ledger(folder)
    ledger.note(issued(1))
    ledger.note(issued(2))
    path = folder / ISSUED
    path.write_bytes(path.read_bytes()[:-torn])
    ledger.note(issued(3))
    serials = [each.serial for each in ledger.issued()]
    assert serials == (["1", "2", "3"] if torn == 1 else ["1", "3"])


def test_what_ended_over_a_year_ago_is_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for number, days in ((1, -400), (2, -300), (3, 90)):
        ledger.note(issued(number, NOW_US + days * DAY_US))
    ledger.forget(NOW_US)
    assert [each.serial for each in ledger.issued()] == ["2", "3"]
