"""Who gets the hub's figures without a token: this machine itself, and nobody through a proxy on it."""

import socket
from collections.abc import Iterator

import pytest

from edge_hub.api.app import make_app
from edge_hub.http_server import HttpServer, bind
from edge_hub.hub import Hub

FIGURE = b"edge_hub_sites"


@pytest.fixture
def port(hub: Hub) -> Iterator[int]:
    """Of a hub's API."""
    listening = bind("127.0.0.1:0")
    port = int(listening.getsockname()[1])
    server = HttpServer(make_app(hub), listening)
    server.start()
    yield port
    server.close()


def ask(port: int, *headers: str, version: str = "HTTP/1.1") -> bytes:
    """The answer to ``GET /metrics`` with exactly these header lines."""
    lines = (f"GET /metrics {version}", *headers, "Connection: close", "", "")
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8600", "localhost:8600", "LocalHost", "[::1]:8600"])
def test_a_program_of_this_machine_is_told_them(port: int, host: str) -> None:
    answer = ask(port, f"Host: {host}", "Accept: text/plain", "X-Prometheus-Scrape-Timeout-Seconds: 10")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert FIGURE in answer


@pytest.mark.parametrize(
    "mark",
    [
        "Forwarded: for=203.0.113.9",
        "forwarded: for=127.0.0.1",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-For:",
        "x-forwarded-proto: https",
        "X-Forwarded-Host: localhost",
        "X-Real-IP: 127.0.0.1",
        "Via: 1.1 proxy",
    ],
)
def test_a_request_that_bears_a_proxys_mark_needs_the_token(port: int, hub: Hub, mark: str) -> None:
    answer = ask(port, "Host: 127.0.0.1", mark)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert FIGURE not in answer
    assert FIGURE in ask(port, "Host: 127.0.0.1", mark, f"Authorization: Bearer {hub.folder.token}")


@pytest.mark.parametrize(
    "host", ["hub.example.com", "hub.example.com:443", "127.0.0.1.example.com", "203.0.113.9", "[::1", "", "a:b:c"]
)
def test_so_does_one_that_came_under_another_name(port: int, host: str) -> None:
    """As through a proxy that adds no mark, or from a web page whose name was made to mean this machine."""
    assert FIGURE not in ask(port, f"Host: {host}")


def test_so_does_one_under_no_name_or_two(port: int) -> None:
    assert FIGURE not in ask(port)
    assert FIGURE not in ask(port, "Host: 127.0.0.1", "Host: hub.example.com")


def test_so_does_one_in_the_http_that_nginx_speaks_by_itself(port: int) -> None:
    """It adds no mark then, and asks by the name in `proxy_pass`."""
    answer = ask(port, "Host: 127.0.0.1:8600", version="HTTP/1.0")
    assert b" 401 " in answer.partition(b"\r\n")[0]
    assert FIGURE not in answer
