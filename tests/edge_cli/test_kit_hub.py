"""What a hub answers about new sites, taken at its word only where that makes a kit."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_cli.kit_hub import WithToken, check_enrol
from edge_models.errors import ConfigError, RejectedError
from edge_sync.enrol.certificate import fingerprint, to_pem


def authority() -> x509.Certificate:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a hub")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))
    return made.sign(key, hashes.SHA256())


def answer(ca: x509.Certificate, pinned: x509.Certificate, name: str = "plant-07") -> WithToken:
    return WithToken(
        site="plant-07",
        broker_url="mqtts://hub.example:8883",
        local_username="_local_plant-07",
        local_password="plover",
        join_token=f"EK1{fingerprint(pinned)}::{name}:whimbrel-whimbrel-whimbrel",
        join_expires_us=1,
        enrol_url="https://hub.example:8443",
        ca=to_pem([ca]).decode(),
    )


def test_token_and_ca_that_belong_together() -> None:
    ca = authority()
    found = answer(ca, ca).enrolment()
    assert (found.url, found.host, found.port) == ("https://hub.example:8443", "hub.example", 8443)
    elsewhere = answer(ca, ca).enrolment("https://192.0.2.1")
    assert (elsewhere.host, elsewhere.port) == ("192.0.2.1", 8443)
    assert "whimbrel" not in repr(found) + repr(answer(ca, ca))


def test_a_ca_that_the_token_does_not_name() -> None:
    with pytest.raises(RejectedError, match="the hub's CA is not the one that its join token for plant-07 names"):
        answer(authority(), authority()).enrolment()


def test_a_token_for_another_site() -> None:
    ca = authority()
    with pytest.raises(RejectedError, match="is for plant-08"):
        answer(ca, ca, "plant-08").enrolment()


@pytest.mark.parametrize(
    "url", ["http://hub.example", "hub.example:8443", "https://", "https://h/x", "https://h:x", "https://h?x"]
)
def test_what_is_no_place_for_enrolment(url: str) -> None:
    with pytest.raises(ConfigError, match="write https://HOST:8443"):
        check_enrol(url)
