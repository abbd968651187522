"""The http source over real sockets: who may send, what comes of it, and what a bad sender can't do."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.records import Malformed, Observation
from edge_agent.sources.base import SourceContext
from edge_agent.sources.http import HttpSource
from edge_agent.sources.http_request import MAX_HEAD_BYTES, Refused, Request, RequestReader
from edge_models.errors import ConfigError, RetryableError

JSON = {"content-type": "application/json"}
MakeSource = Callable[..., HttpSource]


@pytest.fixture
def make_source(context: SourceContext) -> Iterator[MakeSource]:
    sources: list[HttpSource] = []

    def make(**options: Any) -> HttpSource:
        sources.append(HttpSource({"port": 0} | options, context))
        sources[-1].start()
        return sources[-1]

    yield make
    for source in sources:
        source.close()
        source.close()


def post(
    source: HttpSource,
    body: bytes = b"{}",
    path: str = "/",
    method: str = "POST",
    headers: dict[str, str] = JSON,
) -> tuple[int, dict[str, Any]]:
    """Status and JSON body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", source.port, timeout=20)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_a_posted_object_is_an_observation(make_source: MakeSource) -> None:
    source = make_source(path="/scale")
    assert post(source, b'{"kg": 3.5}', "/scale?x=1") == (202, {"queued": True})
    (seen,) = source.take(10, 10)
    assert isinstance(seen, Observation)
    assert (seen.values, seen.source) == ({"kg": 3.5}, "http")
    assert not source.exhausted()


def test_a_connection_serves_many_requests(make_source: MakeSource) -> None:
    source = make_source()
    connection = http.client.HTTPConnection("127.0.0.1", source.port, timeout=20)
    for n in range(5):
        connection.request("POST", "/", json.dumps({"n": n}), JSON)
        assert connection.getresponse().read() == b'{"queued":true}'
    connection.close()
    assert [o.values["n"] for o in source.take(10, 10) if isinstance(o, Observation)] == [0, 1, 2, 3, 4]


def test_what_is_no_object_is_answered_and_malformed(make_source: MakeSource) -> None:
    source = make_source()
    status, answer = post(source, b"kg=3")
    assert status == 400
    (seen,) = source.take(10, 10)
    assert isinstance(seen, Malformed)
    assert (answer["error"], seen.excerpt) == (seen.reason, "kg=3")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"path": "/other"}, 404),
        ({"method": "GET"}, 405),
        ({"method": "OPTIONS"}, 405),
        ({"headers": {"content-type": "text/plain"}}, 415),
        ({"headers": {}}, 415),
        ({"headers": JSON | {"host": "evil.example"}}, 403),
        ({"headers": JSON | {"host": "[::1"}}, 403),
        ({"body": b"x" * (256 * 1024 + 1)}, 413),
        ({"headers": JSON | {"x": "y" * MAX_HEAD_BYTES}}, 431),
    ],
)
def test_other_requests_are_refused_and_nothing_is_taken(
    make_source: MakeSource, request_: dict[str, Any], status: int
) -> None:
    source = make_source()
    got, answer = post(source, **request_)
    assert (got, list(answer)) == (status, ["error"])
    assert source.take(10, 0) == []
    assert post(source)[0] == 202, "and it goes on"


def test_a_full_queue_says_come_back(make_source: MakeSource) -> None:
    source = make_source(queue=2)
    assert [post(source)[0] for _ in range(3)] == [202, 202, 503]
    assert len(source.take(10, 0)) == 2
    assert post(source)[0] == 202
    assert source.dropped() == 0


def test_a_token_is_asked_for(make_source: MakeSource, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("open sesame\n")
    source = make_source(host="0.0.0.0", token_file="token")
    named = {"host": "plant-01.example"}
    assert post(source)[0] == 401
    assert post(source, headers=JSON | {"authorization": "Bearer wrong"})[0] == 401
    assert post(source, headers=JSON | {"authorization": "Bearer öl"})[0] == 401
    assert post(source, headers=JSON | named | {"authorization": "Bearer open sesame"})[0] == 202


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"port": 80, "hots": "x"}, "unknown key 'hots' (did you mean 'host'?)"),
        ({}, "key 'port' is missing"),
        ({"port": 70_000}, "port: Input should be less than or equal to 65535 (came 70000)"),
        ({"port": 0, "host": "0.0.0.0"}, "host '0.0.0.0' can be reached from elsewhere: set token_file"),
        ({"port": 0, "host": "::"}, "can be reached from elsewhere"),
        ({"port": 0, "path": "x"}, "path: "),
        ({"port": 0, "token_file": "none"}, "none: No such file or directory"),
        ({"port": 0, "token_file": "empty"}, "empty is empty"),
    ],
)
def test_wrong_options_are_named(context: SourceContext, tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError) as caught:
        HttpSource(options, context)
    assert problem in str(caught.value)


def test_a_port_in_use_may_be_free_later(make_source: MakeSource, context: SourceContext) -> None:
    taken = HttpSource({"port": make_source().port}, context)
    with pytest.raises(RetryableError, match="is in use by another program"):
        taken.start()
    taken.close()


def test_a_host_that_is_not_this_machine_is_named(context: SourceContext, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    with pytest.raises(ConfigError, match=r"http source: 192\.0\.2\.1 port 0: "):
        HttpSource({"port": 0, "host": "192.0.2.1", "token_file": "token"}, context).start()


def test_slow_senders_do_not_keep_others_out(make_source: MakeSource) -> None:
    source = make_source()
    idlers = [socket.create_connection(("127.0.0.1", source.port)) for _ in range(20)]
    for idler in idlers:
        idler.sendall(b"POST / HTTP/1.1\r\ncontent-le")
    assert post(source)[0] == 202
    for idler in idlers:
        idler.close()


def test_more_connections_than_it_holds_are_closed(make_source: MakeSource) -> None:
    source = make_source()
    held = [socket.create_connection(("127.0.0.1", source.port), timeout=20) for _ in range(64)]
    for each in held:  # answered, so counted
        each.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert each.recv(4096).startswith(b"HTTP/1.1 405")
    with socket.create_connection(("127.0.0.1", source.port), timeout=20) as refused:
        assert refused.recv(1) == b""
    for each in held:
        each.close()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            assert post(source)[0] == 202
            break
        except (OSError, http.client.HTTPException):
            continue
    assert len(source.take(1, 0)) == 1


def test_closing_ends_open_connections_and_frees_the_port(make_source: MakeSource, context: SourceContext) -> None:
    source = make_source()
    idler = socket.create_connection(("127.0.0.1", source.port), timeout=20)
    idler.sendall(b"POST / HTTP/1.1\r\n")
    assert post(source)[0] == 202
    source.close()
    assert idler.recv(1) == b""
    idler.close()
    again = HttpSource({"port": source.port}, context)
    again.start()
    again.close()


def test_expect_continue_is_answered(make_source: MakeSource) -> None:
    source = make_source()
    with socket.create_connection(("127.0.0.1", source.port), timeout=20) as sender:
        head = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
        sender.sendall(head + b"expect: 100-continue\r\n\r\n")
        assert sender.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sender.sendall(b"{}")
        assert sender.recv(100).startswith(b"HTTP/1.1 202")


def test_many_senders_at_once_lose_nothing(make_source: MakeSource) -> None:
    source = make_source()

    def send(sender: int) -> None:
        for n in range(25):
            assert post(source, json.dumps({"id": [sender, n]}).encode())[0] == 202

    senders = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    seen = [tuple(o.values["id"]) for o in source.take(1000, 0) if isinstance(o, Observation)]
    assert sorted(seen) == [(sender, n) for sender in range(8) for n in range(25)]


GOOD = b'POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{"a":1}'


@given(st.lists(st.integers(1, 40), max_size=20))
def test_a_request_reads_the_same_however_it_is_cut(cuts: list[int]) -> None:
    reader, whole, rest = RequestReader(1000), [], GOOD * 2
    for cut in [*cuts, len(rest)]:
        whole += reader.feed(rest[:cut])
        rest = rest[cut:]
    assert whole == [Request("POST", "/a", {"host": "x", "content-length": "7"}, b'{"a":1}', True)] * 2


@given(st.lists(st.binary(max_size=200) | st.sampled_from([GOOD, b"\r\n", b"POST ", b"a: b\r\n"]), max_size=30))
@settings(deadline=None)
def test_any_bytes_are_requests_or_refused_once(pieces: list[bytes]) -> None:
    reader = RequestReader(1000)
    for piece in pieces:
        whole = reader.feed(piece)
        if whole and isinstance(whole[-1], Refused):
            assert whole[-1].status in (400, 413, 431)
            return
        assert all(isinstance(request, Request) and len(request.body) <= 1000 for request in whole)


@pytest.mark.parametrize(
    "endless",
    [
        b"POST /" + b"a" * 1000,
        b"POST / HTTP/1.1\r\nx: " + b"a" * 1000,
        b"POST / HTTP/1.1\r\n" + b"a: b\r\n" * 200,
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"1;" + b"x" * 1000,
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 100,
    ],
    ids=["target", "header", "headers", "chunk extension", "chunks"],
)
def test_what_never_ends_is_refused(endless: bytes) -> None:
    reader, fed = RequestReader(1000), 0
    repeated = endless[-1:] if endless[-1:] in b"ax" else endless[endless.index(b"\r\n") + 2 :].split(b"\r\n\r\n")[-1]
    whole = reader.feed(endless)
    while not whole:
        piece = repeated * (1000 // len(repeated) + 1)
        fed += len(piece)
        assert fed < 200_000
        whole = reader.feed(piece)
    assert isinstance(whole[-1], Refused)


@pytest.mark.parametrize(
    "smuggled",
    [
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    ],
)
def test_what_two_parsers_could_read_two_ways_is_refused(smuggled: bytes) -> None:
    whole = RequestReader(1000).feed(smuggled)
    assert isinstance(whole[-1], Refused)
    assert whole[-1].status == 400
