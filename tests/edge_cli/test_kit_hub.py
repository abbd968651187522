"""What a hub answers about new sites, taken at its word only where that makes a kit."""

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_cli.hub_client import HubClient
from edge_cli.kit_hub import WithToken, check_enrol, register
from edge_k3s.table import Row
from edge_models.errors import ConfigError, KitError, RejectedError
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


class _Half(BaseHTTPRequestHandler):
    """A hub that registers the first site with a password, and then has no database."""

    def do_POST(self) -> None:
        site = json.loads(self.rfile.read(int(self.headers["content-length"])))["site"]
        said = {
            "site": site,
            "broker_url": "mqtt://127.0.0.1:1883",
            "username": site,
            "password": "plover",
            "local_username": f"_local_{site}",
            "local_password": "plover",
        }
        first = site == "plant-01"
        body = json.dumps(said if first else {"error": "the database is away"}).encode()
        self.send_response(201 if first else 503)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_who_is_registered_already_is_told_where_the_hub_fails_half_way() -> None:
    with HTTPServer(("127.0.0.1", 0), _Half) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub = HubClient(f"http://127.0.0.1:{server.server_port}", "token")
        try:
            with pytest.raises(RejectedError, match="registered the first 1 of 2 sites: use --replace the next time"):
                register([Row("plant-01", {}), Row("plant-02", {})], hub, replace=False, join_days=None)
            with pytest.raises(KitError, match="database is away"):
                register([Row("plant-02", {})], hub, replace=False, join_days=None)
        finally:
            server.shutdown()
