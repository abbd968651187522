"""What a certificate says, and whether it leads up to the pinned root."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from edge_hub.enrol.making import Issuer, make_below, make_root, server_certificate, site_certificate
from edge_models.errors import RejectedError
from edge_sync.enrol.certificate import (
    fingerprint,
    load_pem,
    own_chain,
    pinned_root,
    read_identity,
    to_pem,
    to_us,
)
from edge_sync.enrol.est import from_body, pack_certificates, to_body, unpack_certificates
from edge_sync.enrol.request import new_key, public_half

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
DAY_US = 86_400_000_000
ROOT = make_root("here", NOW)
CLIENTS, SERVERS = make_below(ROOT, "clients", NOW), make_below(ROOT, "servers", NOW)
KEY = public_half(new_key())
MADE = site_certificate(CLIENTS, "plant-01", KEY, NOW)
ALL = [ROOT.certificate, CLIENTS.certificate, SERVERS.certificate]


def test_a_certificate_is_a_sites_for_ninety_days() -> None:
    identity = read_identity(MADE)
    assert (identity.site, identity.key) == ("plant-01", KEY)
    assert identity.serial == f"{MADE.serial_number:x}"
    assert identity.made_us == to_us(NOW)
    assert identity.begins_us == identity.made_us - DAY_US
    assert identity.ends_us == identity.made_us + 90 * DAY_US


def test_it_is_renewed_at_a_third_of_its_life_and_not_all_at_once() -> None:
    identity = read_identity(MADE)
    assert identity.renew_us(0) == identity.made_us + 30 * DAY_US
    assert identity.renew_us(1) == identity.made_us + 39 * DAY_US


@pytest.mark.parametrize(
    "which", [ROOT.certificate, CLIENTS.certificate, server_certificate(SERVERS, ("h",), KEY, NOW)]
)
def test_what_is_no_sites_is_refused(which: x509.Certificate) -> None:
    with pytest.raises(RejectedError, match="no site's"):
        read_identity(which)


def test_the_root_is_the_one_that_was_pinned() -> None:
    assert pinned_root(ALL, fingerprint(ROOT.certificate)) == ROOT.certificate
    with pytest.raises(RejectedError, match="another hub"):
        pinned_root(ALL, fingerprint(make_root("here", NOW).certificate))


def test_the_own_chain_is_found_in_whatever_order_it_came() -> None:
    wanted = [MADE, CLIENTS.certificate]
    for among in ([MADE, *ALL], [*reversed(ALL), MADE], [SERVERS.certificate, CLIENTS.certificate, MADE]):
        assert own_chain(among, ROOT.certificate, "plant-01", KEY) == wanted
        assert own_chain(unpack_certificates(pack_certificates(among)), ROOT.certificate, "plant-01", KEY) == wanted
    assert load_pem(to_pem(wanted)) == wanted


def _other(site: str, key: bytes, issuer: Issuer = CLIENTS) -> list[x509.Certificate]:
    return [site_certificate(issuer, site, key, NOW), issuer.certificate]


@pytest.mark.parametrize(
    ("among", "said"),
    [
        (_other("plant-01", public_half(new_key())), "no certificate for this site's key"),
        (_other("plant-02", KEY), "of site 'plant-02'"),
        ([MADE], "does not lead up"),
        (_other("plant-01", KEY, make_below(make_root("here", NOW), "clients", NOW)), "does not lead up"),
        (_other("plant-01", KEY, Issuer(CLIENTS.certificate, SERVERS.key)), "does not lead up"),
        (ALL, "no certificate for this site's key"),
    ],
)
def test_a_chain_that_is_not_ours_is_refused(among: list[x509.Certificate], said: str) -> None:
    with pytest.raises(RejectedError, match=said):
        own_chain(among, ROOT.certificate, "plant-01", KEY)


@given(st.binary(max_size=400))
def test_only_a_refusal_leaves_the_readers(data: bytes) -> None:
    assert from_body(to_body(data)) == data
    for body in (data, to_body(data)):
        with pytest.raises(RejectedError):
            unpack_certificates(body)
    with pytest.raises(RejectedError):
        load_pem(data)


def test_an_answer_beyond_its_limit_is_not_read() -> None:
    with pytest.raises(RejectedError, match="over 65536 bytes"):
        unpack_certificates(b"A" * 65_537)
