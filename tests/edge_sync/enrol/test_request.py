"""Requests for certificates: what is made is read, and nothing that its key did not sign."""

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtensionOID, NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from edge_models.errors import ConfigError, RejectedError
from edge_sync.enrol.request import JOURNAL_KEY_URN, make_request, new_key, public_half, read_request

JOURNAL_KEY = "0123456789abcdef" * 4
SHA256 = hashes.SHA256()
KEY = new_key()
MADE = make_request(KEY, "plant-01", JOURNAL_KEY)


def name(*names: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each) for each in names])


def request(key: Any, *uris: str, names: tuple[str, ...] = ("plant-01",), digest: Any = SHA256) -> bytes:
    made = x509.CertificateSigningRequestBuilder().subject_name(name(*names))
    if uris:
        listed = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(each) for each in uris])
        made = made.add_extension(listed, critical=False)
    return made.sign(key, digest).public_bytes(serialization.Encoding.DER)


def with_names(der: bytes) -> bytes:
    """A request whose other names are these bytes."""
    made = x509.CertificateSigningRequestBuilder().subject_name(name("plant-01"))
    made = made.add_extension(x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, der), critical=False)
    return made.sign(P256, SHA256).public_bytes(serialization.Encoding.DER)


P256 = ec.generate_private_key(ec.SECP256R1())


def test_a_request_says_the_site_its_key_and_the_key_of_its_journal() -> None:
    read = read_request(MADE)
    assert (read.name, read.key, read.journal_key) == ("plant-01", public_half(KEY), JOURNAL_KEY)
    assert read_request(make_request(KEY, "plant-01")).journal_key is None
    assert len(MADE) < 600


def test_a_key_is_private_pem_without_a_password() -> None:
    assert KEY.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert new_key() != KEY
    with pytest.raises(ConfigError, match="no unencrypted P-256"):
        make_request(b"no key", "plant-01")


@pytest.mark.parametrize(
    ("der", "said"),
    [
        (request(ec.generate_private_key(ec.SECP384R1())), "no P-256 key"),
        (request(rsa.generate_private_key(65537, 2048)), "no P-256 key"),
        (request(ed25519.Ed25519PrivateKey.generate(), digest=None), "no P-256 key"),
        (request(P256, JOURNAL_KEY_URN + "ab"), "not one key of 64"),
        (request(P256, JOURNAL_KEY_URN + JOURNAL_KEY, JOURNAL_KEY_URN + "0" * 64), "not one key of 64"),
        (with_names(b"\x30\x02\xa3\x00"), "no certificate request"),  # an X.400 address
        (with_names(b"\x30\x02"), "no certificate request"),
        (b"", "no certificate request"),
        (b"\x30\x03\x02\x01\x01", "no certificate request"),
    ],
)
def test_a_request_that_does_not_count(der: bytes, said: str) -> None:
    with pytest.raises(RejectedError, match=said):
        read_request(der)


def test_two_names_are_none_and_other_names_are_passed_over() -> None:
    assert read_request(request(P256, names=("plant-01", "plant-02"))).name is None
    assert read_request(request(P256, names=())).name is None
    read = read_request(request(P256, "spiffe://edge/site/plant-02", "https://x"))
    assert (read.name, read.journal_key) == ("plant-01", None)


@given(st.integers(0, len(MADE) - 1), st.integers(1, 255))
@example(9, 1)  # its version
def test_a_request_that_was_changed_anywhere_is_refused(at: int, by: int) -> None:
    changed = bytearray(MADE)
    changed[at] ^= by
    with pytest.raises(RejectedError):
        read_request(bytes(changed))


@given(st.binary(max_size=600))
def test_only_a_refusal_leaves_the_reader(data: bytes) -> None:
    with pytest.raises(RejectedError):
        read_request(data)
