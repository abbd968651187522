"""What a site's certificate says, until when it is good, and whether it leads up to the hub's root."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_models.errors import RejectedError
from edge_sync.topics import site_id

SITE_URI = "spiffe://edge/site/"
"""With the site's id behind it, in the certificate beside its common name."""

LIFE_DAYS = 90
BACKDATED_S = 86_400
"""How long before it was made a certificate begins: clocks differ, and few by more than a day."""

RECOVER_DAYS = 365
"""So long after its end a site's newest certificate still gets it another one."""

UNREADABLE = (x509.InvalidVersion, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm)
"""What `cryptography` raises, beside `ValueError`, for what is well formed and still nothing it knows."""

_S = 1_000_000


@dataclass(frozen=True, slots=True)
class Identity:
    """A site's certificate, as far as anybody acts on it. Times are UTC microseconds."""

    site: str
    serial: str
    """Hex, in lower case."""
    begins_us: int
    ends_us: int
    key: bytes
    """The public key as DER SubjectPublicKeyInfo."""

    @property
    def made_us(self) -> int:
        """When it was issued, by its issuer's clock."""
        return self.begins_us + BACKDATED_S * _S

    def renew_us(self, spread: float) -> int:
        """When to ask for the next one: at a third of its life, and up to a tenth later by `spread` from 0 to 1."""
        life_us = self.ends_us - self.made_us
        return self.made_us + int(life_us * (1 / 3 + spread / 10))


def read_identity(certificate: x509.Certificate) -> Identity:
    """Whose it is. Says nothing of who signed it. Raises `RejectedError` for one that is no site's."""
    try:
        names = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
        key = certificate.public_key()
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError, *UNREADABLE):
        raise RejectedError("this certificate is no site's") from None
    if len(names) != 1 or uris != [SITE_URI + names[0]] or not isinstance(key, ec.EllipticCurvePublicKey):
        raise RejectedError("this certificate is no site's")
    return Identity(
        str(site_id(names[0])),
        serial_text(certificate.serial_number),
        to_us(certificate.not_valid_before_utc),
        to_us(certificate.not_valid_after_utc),
        key_of(key),
    )


def serial_text(serial: int) -> str:
    """A serial number as lists and tables have it."""
    return f"{serial:x}"


def to_us(moment: datetime) -> int:
    """UTC microseconds."""
    return int(moment.timestamp()) * _S


def key_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as DER SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(certificate: x509.Certificate) -> str:
    """sha256 of its DER, 64 hex digits: of a root, the pin in tokens."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def to_pem(certificates: Sequence[x509.Certificate]) -> bytes:
    """One after the other."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def load_pem(data: bytes) -> list[x509.Certificate]:
    """The certificates in a PEM file, one at least. Raises `RejectedError`."""
    try:
        return x509.load_pem_x509_certificates(data)
    except (ValueError, *UNREADABLE):
        raise RejectedError("there is no certificate in PEM") from None


def pinned_root(certificates: Sequence[x509.Certificate], pin: str) -> x509.Certificate:
    """The one that the pin names, whoever sent them. Raises `RejectedError` where it is not among them."""
    for each in certificates:
        if fingerprint(each) == pin:
            return each
    raise RejectedError("this hub's certificates are not of the authority that the token names: it is another hub")


def own_chain(
    certificates: Sequence[x509.Certificate], root: x509.Certificate, site: str, key: bytes
) -> list[x509.Certificate]:
    """Of what a hub answered, the certificate of this site and public key, and those between it and `root`, in order.

    Raises `RejectedError` where there is none, or where it does not lead up to the root. Dates are not looked at.
    """
    for each in certificates:
        try:
            identity = read_identity(each)
        except RejectedError:
            continue
        if identity.key == key:
            if identity.site != site:
                raise RejectedError(f"the hub answered with a certificate of site {identity.site!r}, not of {site!r}")
            return _up_to(root, [each], certificates)
    raise RejectedError("the hub answered with no certificate for this site's key")


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` signed it and is named in it."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _up_to(
    root: x509.Certificate, chain: list[x509.Certificate], among: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    while not issued_by(chain[-1], root):
        above = next((each for each in among if each not in chain and issued_by(chain[-1], each)), None)
        if above is None:
            raise RejectedError("the hub answered with a certificate that does not lead up to its root")
        chain.append(above)
    return chain
