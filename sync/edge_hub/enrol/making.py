"""The certificates of a hub, made: a root, an authority below it for sites and one for servers, and what those issue.

Pure but for the drawing of keys and serial numbers. Source: RFC 5280; what strict verifiers (Python 3.13) ask for too.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_sync.enrol.certificate import BACKDATED_S, LIFE_DAYS, SITE_URI

ROOT_DAYS, BELOW_DAYS = 3_650, 1_825
SERVER_DAYS = 90

CRL_DAYS = 30
"""A broker lets nobody in once its list is older than this."""

_BACKDATED = timedelta(seconds=BACKDATED_S)


@dataclass(frozen=True, slots=True)
class Issuer:
    """An authority: its certificate, and the key it signs with."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_root(label: str, now: datetime) -> Issuer:
    """A root that signs authorities below it, and nothing else."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name(f"Edge hub root {label}")
    made = _begin(name, name, key.public_key(), now, now + timedelta(days=ROOT_DAYS))
    made = _as_authority(made, key.public_key(), path_length=1)
    return Issuer(made.sign(key, hashes.SHA384()), key)


def make_below(root: Issuer, what: str, now: datetime, key: ec.EllipticCurvePrivateKey | None = None) -> Issuer:
    """An authority that signs what is no authority, with this key or a new one."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    ends = min(now + timedelta(days=BELOW_DAYS), root.certificate.not_valid_after_utc)
    made = _begin(_name(f"Edge hub {what}"), root.certificate.subject, key.public_key(), now, ends)
    made = _as_authority(made, key.public_key(), path_length=0).add_extension(_issuer_key(root), critical=False)
    return Issuer(made.sign(root.key, hashes.SHA384()), key)


def site_certificate(issuer: Issuer, site: str, key: bytes, now: datetime) -> x509.Certificate:
    """For a site's public key, DER SubjectPublicKeyInfo: good for showing who it is, and for nothing else."""
    names = [x509.UniformResourceIdentifier(SITE_URI + site)]
    return _leaf(issuer, site, names, key, LIFE_DAYS, ExtendedKeyUsageOID.CLIENT_AUTH, now)


def server_certificate(issuer: Issuer, names: Sequence[str], key: bytes, now: datetime) -> x509.Certificate:
    """For a server that is reached under these names, DNS names or IP addresses."""
    shown = [_server_name(each) for each in names]
    return _leaf(issuer, names[0][:64], shown, key, SERVER_DAYS, ExtendedKeyUsageOID.SERVER_AUTH, now)


def server_names(certificate: x509.Certificate) -> set[str]:
    """The opposite: under which names. Raises `x509.ExtensionNotFound`."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(each) for each in names.get_values_for_type(x509.IPAddress)}
    return addresses | set(names.get_values_for_type(x509.DNSName))


def revocation_list(issuer: Issuer, revoked: Iterable[tuple[str, int]], now: datetime) -> bytes:
    """PEM: that these serials (hex, and since when, UTC µs) count no more."""
    made = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    made = made.last_update(now - _BACKDATED).next_update(now + timedelta(days=CRL_DAYS))
    made = made.add_extension(_issuer_key(issuer), critical=False)
    made = made.add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
    for serial, at_us in sorted(revoked):
        since = datetime.fromtimestamp(at_us // 1_000_000, UTC)
        entry = x509.RevokedCertificateBuilder().serial_number(int(serial, 16)).revocation_date(since)
        made = made.add_revoked_certificate(entry.build())
    return made.sign(issuer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _leaf(
    issuer: Issuer,
    common_name: str,
    names: Sequence[x509.GeneralName],
    key: bytes,
    days: int,
    use: x509.ObjectIdentifier,
    now: datetime,
) -> x509.Certificate:
    public = serialization.load_der_public_key(key)
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise TypeError("a certificate is for an elliptic curve's key")
    ends = min(now + timedelta(days=days), issuer.certificate.not_valid_after_utc)
    made = _begin(_name(common_name), issuer.certificate.subject, public, now, ends)
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = made.add_extension(_usage(signs_certificates=False), critical=True)
    made = made.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    made = made.add_extension(_issuer_key(issuer), critical=False)
    return made.sign(issuer.key, hashes.SHA256())


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    made = made.serial_number(x509.random_serial_number())
    return made.not_valid_before(now - _BACKDATED).not_valid_after(ends)


def _as_authority(
    made: x509.CertificateBuilder, key: ec.EllipticCurvePublicKey, path_length: int
) -> x509.CertificateBuilder:
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    made = made.add_extension(_usage(signs_certificates=True), critical=True)
    return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_key(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _server_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
