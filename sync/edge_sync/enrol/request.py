"""A site's key, and the request (PKCS#10) for a certificate that it makes of it and the hub reads."""

import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_models.errors import ConfigError, RejectedError
from edge_sync.enrol.certificate import UNREADABLE, key_of

JOURNAL_KEY_URN = "urn:edge:journal-key:"
"""With the public half of the key that signs the site's checkpoints, ed25519, as 64 hex digits."""

_MAX_NAMES = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What is read of a request; all else in it counts for nothing."""

    name: str | None
    """Its common name: the site that it asks to be."""
    key: bytes
    """The public key, P-256, as DER SubjectPublicKeyInfo: who made the request holds the private half."""
    journal_key: str | None


def new_key() -> bytes:
    """A private key, P-256, as unencrypted PKCS#8 PEM: to be kept, mode 0600, before anything is made of it."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_half(key: bytes) -> bytes:
    """The public half of a private key, as `Request.key` has it. Raises `ConfigError`."""
    return key_of(_private(key).public_key())


def make_request(key: bytes, site: str, journal_key: str | None = None) -> bytes:
    """A request, DER, for a certificate of `site` over this private key. Raises `ConfigError` for no such key."""
    made = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
    )
    if journal_key is not None:
        uri = x509.UniformResourceIdentifier(JOURNAL_KEY_URN + journal_key)
        made = made.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    return made.sign(_private(key), hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def read_request(der: bytes) -> Request:
    """What a request says, which its key signed. Raises `RejectedError` saying what is wrong with it."""
    try:
        found = x509.load_der_x509_csr(der)
        key = found.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise RejectedError("the request's key is no P-256 key")
        if not isinstance(found.signature_hash_algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512):
            raise RejectedError("the request is not signed with SHA-256 or better")
        if not found.is_signature_valid:
            raise RejectedError("the request's signature does not hold")
        names = [str(each.value) for each in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        return Request(names[0] if len(names) == 1 else None, key_of(key), _journal_key(found))
    except (ValueError, TypeError, InvalidSignature, *UNREADABLE) as error:
        raise RejectedError(f"this is no certificate request (PKCS#10): {str(error)[:100]}") from None


def _journal_key(found: x509.CertificateSigningRequest) -> str | None:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    except x509.DuplicateExtension as error:
        raise RejectedError(f"the request has an extension twice: {error}") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)[:_MAX_NAMES]
    keys = [each.removeprefix(JOURNAL_KEY_URN) for each in uris if each.startswith(JOURNAL_KEY_URN)]
    if not keys:
        return None
    if len(keys) > 1 or not re.fullmatch(r"[0-9a-f]{64}", keys[0]):
        raise RejectedError(f"the request's {JOURNAL_KEY_URN}… is not one key of 64 hex digits")
    return keys[0]


def _private(key: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        found = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        found = None
    if not isinstance(found, ec.EllipticCurvePrivateKey) or not isinstance(found.curve, ec.SECP256R1):
        raise ConfigError("the key is no unencrypted P-256 private key in PEM")
    return found
