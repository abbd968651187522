"""Certificates for tests: an authority over two, one for clients and one for servers, and what they issue."""

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Authority:
    """Issues certificates and says which of them no longer count."""

    def __init__(self, name: str, above: "Authority | None" = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self._above = above
        self._revoked: list[x509.RevokedCertificate] = []
        self.certificate: x509.Certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name) if above is None else above.certificate.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - DAY)
            .not_valid_after(_now() + 100 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign((above or self).key, hashes.SHA256())
        )

    @property
    def chain(self) -> bytes:
        """Its certificate and those above it, PEM."""
        own = self.certificate.public_bytes(serialization.Encoding.PEM)
        return own + (self._above.chain if self._above else b"")

    def issue(self, common_name: str, use: x509.ObjectIdentifier, folder: Path, ends: datetime.timedelta = DAY) -> Path:
        """A key and a certificate for it, good from two days ago until `ends` from now: ``CN.key`` and ``CN.pem``."""
        key = ec.generate_private_key(ec.SECP256R1())
        made = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_now() - 2 * DAY)
            .not_valid_after(_now() + ends)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        folder.mkdir(exist_ok=True)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{common_name}.key").write_bytes(private)
        path = folder / f"{common_name}.pem"
        path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + self.chain)
        return path

    def revoke(self, certificate: Path) -> None:
        """The certificate in this file no longer counts."""
        serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_now())
        self._revoked.append(entry.build())

    def revoked(self) -> bytes:
        """The list of what no longer counts, PEM."""
        made = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        made = made.last_update(_now() - DAY).next_update(_now() + 30 * DAY)
        for entry in self._revoked:
            made = made.add_revoked_certificate(entry)
        return made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Authorities:
    """The root, and below it one authority for the sites and one for the broker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = Authority("Root")
        self.clients = Authority("Sites", self.root)
        self.servers = Authority("Servers", self.root)
        folder.mkdir(parents=True, exist_ok=True)
        self.root_file = folder / "root.pem"
        self.root_file.write_bytes(self.root.chain)

    def equip(self, tls: Path) -> None:
        """Put into a broker's folder what its listener reads."""
        tls.mkdir(exist_ok=True)
        shown = self.servers.issue("broker", SERVER, self.folder)
        (tls / "server.pem").write_bytes(shown.read_bytes())
        (tls / "server.key").write_bytes(shown.with_suffix(".key").read_bytes())
        (tls / "clients.pem").write_bytes(self.clients.chain)
        self.publish_revoked(tls)

    def publish_revoked(self, tls: Path) -> None:
        """Put the newest list there."""
        part = tls / ".revoked.part"
        part.write_bytes(self.clients.revoked())
        part.replace(tls / "revoked.pem")

    def context(self, certificate: Path | None) -> ssl.SSLContext:
        """Of a client that knows the root and shows this certificate, or none."""
        context = ssl.create_default_context(cafile=self.root_file)
        if certificate is not None:
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
        return context
