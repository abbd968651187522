"""A client of a hub's enrolment: plain HTTPS, and nothing of the site's own."""

import base64
import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from edge_sync.enrol.certificate import Identity, load_pem, read_identity, to_pem
from edge_sync.enrol.clockless import leave_time_out
from edge_sync.enrol.est import CACERTS, ENROLL, REENROLL, unpack_certificates
from edge_sync.enrol.request import make_request, new_key, public_half
from edge_sync.enrol.token import parse_token

UNVERIFIED = ssl._create_unverified_context
"""What a site does before it knows the root."""


@dataclass(frozen=True, slots=True)
class Said:
    """What the hub answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def chain(self) -> list[x509.Certificate]:
        """The certificates in it: the site's own, and those above it."""
        assert self.status == 200, self.text
        assert self.headers["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
        found = unpack_certificates(self.body)
        return sorted(found, key=lambda each: "Edge hub" in each.subject.rfc4514_string())

    @property
    def identity(self) -> Identity:
        return read_identity(self.chain[0])


class Node:
    """A machine that joins: its folder, its key, its certificate."""

    def __init__(self, folder: Path, url: str, root: str, site: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.url, self.root, self.site, self.strict = url, root, site, True
        self.key, self.certificate = folder / f"{site}.key", folder / f"{site}.pem"
        self.new_key()

    def new_key(self) -> None:
        self.key.write_bytes(new_key())

    @property
    def public(self) -> bytes:
        return public_half(self.key.read_bytes())

    def request(self, name: str | None = None, journal_key: str | None = None) -> bytes:
        """A request's body."""
        return base64.encodebytes(make_request(self.key.read_bytes(), name or self.site, journal_key))

    def context(self, certificate: bool = True) -> ssl.SSLContext:
        """That verifies the hub strictly in all but dates, and shows the certificate."""
        context = ssl.create_default_context(cadata=self.root)
        if self.strict:
            context.verify_flags |= ssl.VERIFY_X509_STRICT
        leave_time_out(context)
        if certificate:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def ask(
        self, method: str, path: str, body: bytes | None = None, context: ssl.SSLContext | None = None, **headers: str
    ) -> Said:
        address = urlsplit(self.url)
        connection = http.client.HTTPSConnection(
            address.hostname or "", address.port, timeout=30, context=context or self.context(certificate=False)
        )
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Said(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def cacerts(self) -> list[x509.Certificate]:
        said = self.ask("GET", CACERTS, context=UNVERIFIED())
        assert (said.status, said.headers["content-type"]) == (200, "application/pkcs7-mime")
        return unpack_certificates(said.body)

    def join(
        self, token: str, name: str | None = None, user: str | None = None, journal_key: str | None = None
    ) -> Said:
        """Ask with a token, as it is or with another name of it."""
        parsed = parse_token(token)
        shown = base64.b64encode(f"{user or parsed.name}:{parsed.secret}".encode()).decode()
        body = self.request(name, journal_key)
        return self._kept(self.ask("POST", ENROLL, body, authorization=f"Basic {shown}"))

    def renew(self, name: str | None = None, key: Path | None = None) -> Said:
        """Ask with the certificate that is there, for the key that is there or another."""
        body = self.request(name) if key is None else base64.encodebytes(make_request(key.read_bytes(), self.site))
        return self.ask("POST", REENROLL, body, self.context())

    def _kept(self, said: Said) -> Said:
        if said.status == 200:
            self.keep(said)
        return said

    def keep(self, said: Said) -> None:
        """Use this certificate from now on."""
        self.certificate.write_bytes(to_pem(said.chain))
        assert load_pem(self.certificate.read_bytes())
