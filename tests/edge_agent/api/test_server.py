"""Where the API listens, whom it answers, and how it starts and ends."""

import base64
import json
import logging
import resource
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent.api.server import LocalApi
from edge_agent.inference.registry import Models
from edge_models.errors import ConfigError

TOKEN = "correct-horse-battery"


def no_status() -> Any:
    return {}


def make(**options: Any) -> LocalApi:
    return LocalApi(Models(), no_status, tuple, **options)


def test_a_port_in_use_names_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        api = make(port=port)
        with pytest.raises(ConfigError, match=rf"^port {port} on 127\.0\.0\.1 is in use: set api\.port"):
            api.start()
        api.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "plant.example", ""])
def test_other_machines_are_let_in_only_with_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match=r"can be reached from other machines: set api\.token_file"):
        make(host=host)


@pytest.mark.parametrize("token", ["", " ", "a b\n", "\u00e9", " x"])
def test_a_token_that_http_cannot_carry(token: str) -> None:
    with pytest.raises(ConfigError, match="API token"):
        make(token=token)


def test_an_address_that_is_not_ours() -> None:
    api = make(host="192.0.2.1", port=0, token=TOKEN)
    with pytest.raises(ConfigError, match=r"'192\.0\.2\.1' is no address of this machine"):
        api.start()
    api.close()


def test_it_ends_with_idle_connections_open_and_leaves_no_thread(open_site: Callable[..., Any]) -> None:
    site = open_site()
    idle, kept = site.connect(), site.connect()
    assert site.ask(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", kept).status == 200
    assert site.ask(b"garbage\r\n\r\n").status == 400
    assert any(thread.name == "local-api" for thread in threading.enumerate())
    site.api.close()
    site.api.close()
    assert not any(thread.name == "local-api" for thread in threading.enumerate())
    assert idle.recv(100) == b""
    with pytest.raises(ConnectionRefusedError):
        site.connect()


def test_the_port_can_be_had_again_at_once(open_site: Callable[..., Any]) -> None:
    first = open_site()
    assert first.get("/healthz").status == 200
    first.api.close()
    again = make(port=first.api.port)
    again.start()
    again.close()


def test_no_server_field_and_no_access_log(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = site.get("/healthz")
        site.ask(b"garbage\r\n\r\n")
    assert "server" not in answer.headers
    assert "uvicorn" not in {record.name.split(".")[0] for record in caplog.records}


def test_ready_means_that_a_model_is_active(site: Any) -> None:
    assert site.get("/v2/health/ready").status == 200
    site.models.swap({})
    answer = site.get("/v2/health/ready")
    assert (answer.status, json.loads(answer.body)) == (503, {"ready": False})
    assert site.get("/healthz").status == 200


def test_a_token_is_wanted_for_all_but_probes(open_site: Callable[..., Any]) -> None:
    site = open_site(token=TOKEN, host="0.0.0.0")
    for path in ("/", "/metrics", "/v2", "/v2/models/pump", "/nothing"):
        answer = site.get(path)
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Bearer, Basic")
        assert site.get(path, authorization="Bearer wrong").status == 401
        assert site.get(path, authorization=f"Bearer {TOKEN}").status == (404 if path == "/nothing" else 200)
    for path in ("/healthz", "/v2/health/live", "/v2/health/ready"):
        assert site.get(path).status == 200
    body = b'{"inputs": []}'
    assert site.post("/v2/models/pump/infer", body).status == 401
    assert site.post("/v2/models/pump/infer", body, authorization=f"Bearer {TOKEN}").status == 400


@pytest.mark.parametrize(
    ("credentials", "status"),
    [(f"anyone:{TOKEN}", 200), (f":{TOKEN}", 200), (TOKEN, 401), ("anyone:wrong", 401), ("anyone:", 401)],
)
def test_a_browser_shows_the_token_as_a_password(open_site: Callable[..., Any], credentials: str, status: int) -> None:
    site = open_site(token=TOKEN)
    basic = base64.b64encode(credentials.encode()).decode()
    assert site.get("/", authorization=f"Basic {basic}").status == status
    assert site.get("/", authorization=f"Basic {basic}!").status == 401


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "192.0.2.1", ""])
def test_a_name_that_was_made_to_point_here_is_refused(site: Any, host: str) -> None:
    answer = site.get("/", host=host)
    assert answer.status == 403
    assert answer.error == "the Host field does not name this machine"


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080", "[::1]"])
def test_this_machines_names_are_fine(site: Any, host: str) -> None:
    assert site.get("/", host=host).status == 200


def test_a_fault_of_ours_is_500_without_its_traceback(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise KeyError("secret detail")

    api = LocalApi(Models(), broken, tuple, port=0)
    api.start()
    try:
        with socket.create_connection(("127.0.0.1", api.port), timeout=10) as connection:
            answer = site.ask(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", connection)
    finally:
        api.close()
    assert answer.status == 500
    assert "secret" not in answer.error
    assert [record.message for record in caplog.records] == ["local API request failed"]


def test_one_who_says_no_more_is_still_answered(site: Any) -> None:
    connection = site.connect()
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    connection.shutdown(socket.SHUT_WR)
    assert site.answer(connection).status == 200
    assert connection.recv(100) == b""


def test_those_who_stay_after_their_last_answer_keep_nobody_out(open_site: Callable[..., Any]) -> None:
    narrow = open_site(connections=1)
    for _ in range(3):
        assert narrow.ask(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").status == 200
    assert narrow.get("/healthz").status == 200


def test_who_says_nothing_keeps_nobody_out(open_site: Callable[..., Any]) -> None:
    narrow = open_site(connections=3)
    silent = [narrow.connect() for _ in range(9)]
    for _ in range(5):
        assert narrow.get("/healthz", connection="close").status == 200
    assert silent[0].recv(100) == b""


def test_many_small_pieces_of_a_body_take_no_more_memory_than_they_are(open_site: Callable[..., Any]) -> None:
    site = open_site(held_bytes=3_000_000)
    connection = site.connect()
    head = b"POST /v2/models/pump/infer HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
    before = resident_bytes()
    connection.sendall(head + b"2\r\nxx\r\n" * 1_000_000)
    answer = site.ask(b"0\r\n\r\n", connection)
    assert answer.status == 400
    assert resident_bytes() - before < 60_000_000


def resident_bytes() -> int:
    """The most that this process ever had in memory, more or less."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_head_is_get_without_its_body(site: Any) -> None:
    connection = site.connect()
    connection.sendall(b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    received = b""
    while part := connection.recv(4096):
        received += part
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert received.endswith(b"\r\n\r\n")
