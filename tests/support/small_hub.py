"""A small hub that enrols, over real TLS with real certificates: what a site can be answered, and how it can fail."""

import datetime
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_models.errors import RejectedError
from edge_sync.enrol.certificate import SITE_URI, fingerprint, key_of, load_pem, read_identity, to_pem
from edge_sync.enrol.clockless import leave_time_out
from edge_sync.enrol.est import CACERTS, ENROLL, REENROLL, from_body, pack_certificates
from edge_sync.enrol.request import Request, read_request
from edge_sync.enrol.token import JoinToken, read_basic

DAY = datetime.timedelta(days=1)
Moment = Callable[[], datetime.datetime]


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


class Issuer:
    """An authority: signs whatever it is told to."""

    def __init__(self, name: str, above: "Issuer | None" = None, now: Moment = utc_now) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.now = now
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        by = above or self
        self.certificate = by._sign(self.name, self.key.public_key(), 3_650 * DAY, ca=True)

    def site(self, site: str, key: bytes, life: datetime.timedelta) -> x509.Certificate:
        """A site's certificate for a public key (DER), which begins a day ago and ends `life` from now."""
        public = serialization.load_der_public_key(key)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
        names = [x509.UniformResourceIdentifier(SITE_URI + site)]
        return self._sign(name, public, life, x509.SubjectAlternativeName(names), ExtendedKeyUsageOID.CLIENT_AUTH)

    def server(self, folder: Path, life: datetime.timedelta = DAY, host: str = "localhost") -> tuple[Path, Path]:
        """A server's certificate and key, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        made = self._sign(subject, key.public_key(), life, names, ExtendedKeyUsageOID.SERVER_AUTH)
        folder.mkdir(exist_ok=True, parents=True)
        (folder / "server.pem").write_bytes(to_pem([made, self.certificate]))
        (folder / "server.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return folder / "server.pem", folder / "server.key"

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        life: datetime.timedelta,
        names: x509.SubjectAlternativeName | None = None,
        use: x509.ObjectIdentifier | None = None,
        ca: bool = False,
    ) -> x509.Certificate:
        now = self.now().replace(microsecond=0)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, now + life) - DAY)
            .not_valid_after(now + life)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names is not None and use is not None:
            made = made.add_extension(names, critical=False)
            made = made.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        return made.sign(self.key, hashes.SHA256())


@dataclass(slots=True)
class Issued:
    """One certificate the hub gave, and what it was asked."""

    certificate: x509.Certificate
    request: Request
    by: str
    """The token's name, or the serial of the certificate that was shown."""


@dataclass(slots=True)
class SmallHub:
    """Enrols sites. Its rules are those of the hub: a token counts once, the same key gets the same answer again."""

    folder: Path
    now: Moment = utc_now
    life: datetime.timedelta = 90 * DAY
    tokens: dict[str, str] = field(default_factory=dict)
    issued: list[Issued] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Paths, in order."""
    revoked: set[int] = field(default_factory=set)
    says_time: bool = True
    answers: dict[str, tuple[int, str, dict[str, str]]] = field(default_factory=dict)
    """Path → status, text and headers that it answers instead."""
    cut: set[str] = field(default_factory=set)
    """Paths where the connection breaks after all was done and before the answer."""
    stranger: x509.Certificate | None = None
    """Answered in place of what was asked for."""
    calls_all: str | None = None
    """The name that it puts into every certificate."""
    host: str = "localhost"
    knows_sites: bool = True
    """Whether it takes the certificates it gives."""
    servers_now: Moment | None = None
    """When its servers' certificates were made, if not now."""
    root: Issuer = field(init=False)
    clients: Issuer = field(init=False)
    servers: Issuer = field(init=False)
    port: int = field(init=False)
    _server: ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        self.root = Issuer("Root", now=self.now)
        self.clients = Issuer("Sites", self.root, self.now)
        self.servers = Issuer("Servers", self.root, self.servers_now or self.now)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.servers.server(self.folder, host=self.host))
        known = self.root if self.knows_sites else Issuer("Others")
        context.load_verify_locations(cadata=to_pem([known.certificate]).decode())
        context.verify_mode = ssl.CERT_OPTIONAL
        leave_time_out(context)
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def token(self, name: str, secret: str = "s" * 43) -> str:
        """A token for this name, as text."""
        self.tokens[name] = secret
        return JoinToken(fingerprint(self.root.certificate), name, secret).text()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, headers: dict[str, str], body: bytes, shown: bytes | None) -> tuple[int, bytes]:
        """What it answers; issues before it does."""
        if path == CACERTS:
            return 200, pack_certificates([each.certificate for each in (self.root, self.clients, self.servers)])
        if path == "/healthz":
            return 200, b"ok\n"
        try:
            request = read_request(from_body(body))
            if path == ENROLL:
                return self._enroll(request, read_basic(headers.get("authorization", "")))
            if path == REENROLL:
                return self._reenroll(request, shown)
        except RejectedError as error:
            return 400, str(error).encode()
        return 404, b"nothing here\n"

    def _enroll(self, request: Request, account: tuple[str, str] | None) -> tuple[int, bytes]:
        if account is None or self.tokens.get(account[0]) != account[1]:
            return 401, b"this join token is not known here: make a new one\n"
        name, group = account[0], account[0].startswith("_group-")
        again = next((each for each in self.issued if each.by == name and each.request.key == request.key), None)
        if again is None and not group and any(each.by == name for each in self.issued):
            return 401, b"this join token was used: make a new one\n"
        site = request.name or ""
        if not group and site != name:
            return 403, b"this join token is for another site\n"
        return self._give(again.certificate if again is not None else None, site, request, name)

    def _reenroll(self, request: Request, shown: bytes | None) -> tuple[int, bytes]:
        if shown is None:
            return 401, b"show a certificate\n"
        old = x509.load_der_x509_certificate(shown)
        if old.serial_number in self.revoked:
            return 403, b"this site was revoked\n"
        by = f"{old.serial_number:x}"
        again = next((each for each in self.issued if each.by == by and each.request.key == request.key), None)
        return self._give(again.certificate if again else None, read_identity(old).site, request, by)

    def _give(self, again: x509.Certificate | None, site: str, request: Request, by: str) -> tuple[int, bytes]:
        made = again or self.clients.site(self.calls_all or site, request.key, self.life)
        if again is None:
            self.issued.append(Issued(made, request, by))
        return 200, pack_certificates([self.stranger or made, self.clients.certificate])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


def _handler(hub: SmallHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say()

        def do_POST(self) -> None:
            self._say()

        def _say(self) -> None:
            connection = self.connection
            assert isinstance(connection, ssl.SSLSocket)
            hub.asked.append(self.path)
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            headers = {key.lower(): value for key, value in self.headers.items()}
            extra: dict[str, str] = {}
            if self.path in hub.answers:
                status, text, extra = hub.answers[self.path]
                answer = text.encode()
            else:
                status, answer = hub.answer(self.path, headers, body, connection.getpeercert(binary_form=True))
            if self.path in hub.cut:
                hub.cut.discard(self.path)
                connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response_only(status)
            if hub.says_time:
                self.send_header("Date", self.date_time_string(hub.now().timestamp()))
            for key, value in extra.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    return Handler


MakeHub = Callable[..., SmallHub]


def public_of(certificate: Path) -> bytes:
    """The public key, DER, of the first certificate in a file."""
    key = load_pem(certificate.read_bytes())[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key_of(key)
