"""The token goes to the hub and to nobody else; every answer that is none becomes one of the kit's errors."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

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
    with pytest.raises(ConfigError, match=r"hub\.json"):
        connect(None, None, tmp_path)
    (tmp_path / "operator.token").write_text("from-folder\n")
    (tmp_path / "hub.json").write_text(f'{{"http": "{server.url}"}}')
    connect(None, None, tmp_path).request("GET", "/x")
    monkeypatch.setenv("EDGE_HUB", server.url)
    monkeypatch.setenv("EDGE_HUB_TOKEN_FILE", str(tmp_path / "operator.token"))
    connect(None, None, None).request("GET", "/x")
    assert {token for *_, token in server.came} == {"Bearer from-folder"}
