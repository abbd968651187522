"""The token goes to the hub and to nobody else; every answer that is none becomes one of the kit's errors."""

import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from certificates import SERVER, Authority

from edge_cli.hub_client import HubClient, HubRefusal, connect
from edge_models.errors import ConfigError, KitError, RetryableError


@dataclass
class Server:
    """Answers every request with `answer`, and notes what came."""

    url: str = ""
    answer: tuple[int, bytes] = (200, b'{"ok": true}')
    headers: dict[str, str] = field(default_factory=dict)
    came: list[tuple[str, str, bytes, str | None]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            state.came.append((self.command, self.path, body, self.headers["Authorization"]))
            status, data = state.answer
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **state.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = handle_any

        def log_message(self, format: str, *args: object) -> None:
            """A test's output is the test's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        state.url = f"http://127.0.0.1:{listening.server_port}"
        yield state
        listening.shutdown()
        thread.join()


def test_json_bytes_and_files_are_sent(server: Server, tmp_path: Path) -> None:
    client = HubClient(server.url + "/", "secret")
    (tmp_path / "file").write_bytes(b"x" * 300_000)
    assert client.request("POST", "/a", json={"b": 1}) == {"ok": True}
    client.request("PUT", "/c", body=tmp_path / "file")
    client.request("PUT", "/d", body=b"bytes")
    client.request("GET", "/e")
    assert server.came == [
        ("POST", "/a", b'{"b":1}', "Bearer secret"),
        ("PUT", "/c", b"x" * 300_000, "Bearer secret"),
        ("PUT", "/d", b"bytes", "Bearer secret"),
        ("GET", "/e", b"", "Bearer secret"),
    ]
    with pytest.raises(ConfigError, match="absent"):
        client.request("PUT", "/f", body=tmp_path / "absent")


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        ((404, b'{"error": "no such site"}'), HubRefusal, "the hub refused: no such site"),
        ((409, b"<html>"), HubRefusal, "Conflict"),
        ((401, b"{}"), ConfigError, "does not know this token"),
        ((503, b'{"error": "busy"}'), RetryableError, "busy"),
        ((200, b"<html>"), RetryableError, "no JSON"),
    ],
)
def test_refusals(server: Server, answer: tuple[int, bytes], kind: type[KitError], says: str) -> None:
    server.answer = answer
    with pytest.raises(kind, match=says) as caught:
        HubClient(server.url, "secret").request("GET", "/x")
    if isinstance(caught.value, HubRefusal):
        assert caught.value.status == answer[0]


def test_a_redirect_does_not_take_the_token_along(server: Server) -> None:
    server.answer, server.headers = (302, b""), {"Location": "/elsewhere"}
    with pytest.raises(HubRefusal):
        HubClient(server.url, "secret").request("GET", "/x")
    assert [path for _, path, _, _ in server.came] == ["/x"]


def test_a_proxy_is_not_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert HubClient(server.url, "secret").request("GET", "/x") == {"ok": True}


@pytest.mark.parametrize("url", ["http://hub.example", "ftp://127.0.0.1", "127.0.0.1:8600", "http:///x"])
def test_where_a_token_is_not_sent(url: str) -> None:
    with pytest.raises(ConfigError, match="https://"):
        HubClient(url, "secret")


def test_who_is_asked_comes_from_options_or_variables(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGE_HUB", raising=False)
    monkeypatch.delenv("EDGE_HUB_TOKEN_FILE", raising=False)
    with pytest.raises(ConfigError, match="which hub"):
        connect(None, None, None)
    with pytest.raises(ConfigError, match="who asks"):
        connect(server.url, None, None)
    with pytest.raises(ConfigError, match=r"is no hub's folder: no operator\.token is in it"):
        connect(None, None, tmp_path)
    (tmp_path / "operator.token").write_text("from-folder\n")
    with pytest.raises(RetryableError, match=r"does not run: start it \(edge-agent hub serve "):
        connect(None, None, tmp_path)
    (tmp_path / "hub.json").write_text(f'{{"http": "{server.url}"}}')
    connect(None, None, tmp_path).request("GET", "/x")
    monkeypatch.setenv("EDGE_HUB", server.url)
    monkeypatch.setenv("EDGE_HUB_TOKEN_FILE", str(tmp_path / "operator.token"))
    connect(None, None, None).request("GET", "/x")
    assert {token for *_, token in server.came} == {"Bearer from-folder"}


def test_a_hub_that_is_away_is_told_of_with_what_to_do(server: Server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RetryableError) as caught:
            HubClient(url, "secret").request("GET", "/x")
    assert str(caught.value) == (
        f"the hub at {url} does not answer: Connection refused. Does it run, and there? Then try again"
    )


def test_a_certificate_that_does_not_count_here_is_no_hub_that_is_away(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of the port where sites join: its authority is the hub's own."""
    authority = Authority("the hub's own")
    (tmp_path / "ca.pem").write_bytes(authority.chain)
    certificate = authority.issue("hub", SERVER, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://localhost:{listening.getsockname()[1]}"

        def greet() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                try:
                    with context.wrap_socket(connection, server_side=True) as secured:
                        secured.recv(65_536)
                        secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                except OSError:
                    connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(ConfigError) as caught:
            HubClient(url, "secret").request("GET", "/x")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert HubClient(url, "secret").request("GET", "/x") == {}, "what the message says to do does not help"
        thread.join(30)
    said = str(caught.value)
    assert f"what answers at {url} shows a certificate that does not count on this machine (" in said
    assert "is that the hub's API? Where sites join (hub serve --enrol) is another address. " in said
    assert "SSL_CERT_FILE=FILE" in said


def test_what_answers_in_another_language_is_not_the_api(server: Server) -> None:
    with pytest.raises(ConfigError, match=r"speaks no TLS: is that the hub's API\?"):
        HubClient(server.url.replace("http:", "https:"), "secret").request("GET", "/x")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"220 mail.example\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(ConfigError, match=r"speaks no HTTP: is that the hub's API\?"):
            HubClient(f"http://127.0.0.1:{listening.getsockname()[1]}", "secret").request("GET", "/x")
        thread.join(30)
