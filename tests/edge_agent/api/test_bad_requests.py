"""Whatever a client sends, it gets the right status and one line, and the next client is served."""

import gzip
import json
import re
import socket
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.api import oip
from edge_agent.api.limits import Limits
from edge_models.bundle import Bundle
from edge_models.errors import RejectedError

INFER = "/v2/models/pump/infer"
RAW = struct.pack("<8f", *range(8))


def tensor(**changes: Any) -> dict[str, Any]:
    entry = {"name": "window", "shape": [1, 8], "datatype": "FP32", "data": list(range(8))}
    return {key: value for key, value in {**entry, **changes}.items() if value is not None}


def binary(size: Any = 32, raw: bytes = RAW, **changes: Any) -> tuple[bytes, int]:
    """The body of a binary request, and the size of its JSON part."""
    head = json.dumps({"inputs": [tensor(data=None, parameters={"binary_data_size": size}, **changes)]}).encode()
    return head + raw, len(head)


@pytest.fixture(autouse=True)
def _serves_on(site: Any) -> Any:
    """After every test of this module the API still answers a good request."""
    yield
    assert site.post(INFER, {"inputs": [tensor()]}).status == 200


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"nope", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "inputs: wanted a list of objects"),
        (b'{"inputs": [1]}', "inputs: wanted a list of objects"),
        (b'{"inputs": [{"name": "window", "shape": [1, 8], "datatype": "FP32", "data": [NaN]}]}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ({"inputs": [tensor(name="win")]}, "has no input 'win' (it has: window)"),
        ({"inputs": [tensor(name=["x"] * 200)]}, "has no input"),
        ({"inputs": [tensor(), tensor()]}, "came twice"),
        ({"inputs": [tensor(datatype="FP64")]}, "came datatype 'FP64', wanted 'FP32'"),
        ({"inputs": [tensor(datatype=None)]}, "came datatype None"),
        ({"inputs": [tensor(shape=[8])]}, "came (8,) float32, wanted (batch, 8) float32"),
        ({"inputs": [tensor(shape=[1, 9])]}, "came 8 values, its shape [1, 9] has 9"),
        ({"inputs": [tensor(shape=[2**40, 2**40])]}, "came 8 values"),
        ({"inputs": [tensor(shape=[-1, 8])]}, "shape is not a list of sizes"),
        ({"inputs": [tensor(shape=[True, 8])]}, "shape is not a list of sizes"),
        ({"inputs": [tensor(shape=[0, 8], data=[])]}, "came (0, 8) float32"),
        ({"inputs": [tensor(data=None)]}, "data is missing"),
        ({"inputs": [tensor(data=[0, 1, 2, 3, 4, 5, 6, "7"])]}, "came the text '7' among its values"),
        ({"inputs": [tensor(data=[0, 1, 2, 3, 4, 5, 6, True])]}, "came true among its values"),
        ({"inputs": [tensor(data=[0, 1, 2, 3, 4, 5, 6, 1e300])]}, "came NaN or infinity"),
        ({"inputs": [tensor(data=[[0, 1, 2, 3], [4, 5, 6, 7]])]}, "came (2, 4) float32, wanted (batch, 8) float32"),
        ({"inputs": [tensor(shape=[8, 1], data=[list(range(8))])]}, "shape is [8, 1], data is nested as [1, 8]"),
        ({"inputs": [tensor(data=[[0, 1, 2, 3], [4, 5, 6]])]}, "unequal length"),
        ({"inputs": [tensor(parameters=[])]}, "parameters: wanted an object"),
        ({"inputs": [tensor(parameters={"binary_data_size": 32})]}, "both data and binary_data_size"),
        ({"inputs": [tensor(parameters={"shared_memory_region": "x"})]}, "shared memory is not supported"),
        ({"inputs": [tensor()], "outputs": [{"name": "odds"}]}, "has no output 'odds' (it has: scores, logits)"),
        ({"inputs": [tensor()], "outputs": [{"name": "scores", "parameters": {"classification": 2}}]}, "not supported"),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, "binary_data_output: wanted true or false"),
        ({"inputs": [tensor()], "id": 7}, "id: wanted text"),
    ],
)
def test_a_bad_request_is_400_and_says_why(site: Any, body: Any, why: str) -> None:
    answer = site.post(INFER, body)
    assert answer.status == 400
    assert why in answer.error
    assert "\n" not in answer.error
    assert len(answer.error) < 400


@pytest.mark.parametrize(
    ("size", "raw", "shift", "why"),
    [
        (33, RAW, 0, "binary_data_size is 33, where 32 bytes of binary data are left"),
        (28, RAW[:28], 0, "came 28 bytes, its shape [1, 8] has 32"),
        (32, RAW + b"x", 0, "came 33 bytes of binary data, the inputs name 32"),
        (-1, RAW, 0, "binary_data_size is -1"),
        ("32", RAW, 0, "binary_data_size is 32, where"),
        (10**30, RAW, 0, "binary data are left"),
        (32, RAW, -1, "not JSON"),
        (32, RAW, 10**6, "Inference-Header-Content-Length is"),
        (32, struct.pack("<8f", *[float("nan")] * 8), 0, "came NaN or infinity"),
    ],
)
def test_lying_binary_sizes(site: Any, size: Any, raw: bytes, shift: int, why: str) -> None:
    body, header = binary(size, raw)
    answer = site.post(INFER, body, inference_header_content_length=str(header + shift))
    assert answer.status == 400
    assert why in answer.error


@pytest.mark.parametrize("value", ["-1", "x", "1e3", "0", "9" * 40])
def test_a_header_length_that_is_none(site: Any, value: str) -> None:
    assert site.post(INFER, binary()[0], inference_header_content_length=value).status == 400


def test_an_inference_header_that_is_too_large(site: Any) -> None:
    head = json.dumps({"inputs": [tensor()], "x": "y" * 1024 * 1024}).encode()
    answer = site.post(INFER, head + b"z", inference_header_content_length=str(len(head)))
    assert answer.status == 400
    assert "the most is 1048576" in answer.error


def test_too_many_json_values(site: Any) -> None:
    answer = site.post(INFER, {"inputs": [tensor(shape=[140_000, 8], data=[0] * 1_120_000)]})
    assert answer.status == 400
    assert "send them as binary tensors" in answer.error


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_bodies(site: Any, encoding: str) -> None:
    pack = gzip.compress if encoding == "gzip" else zlib.compress
    good = pack(json.dumps({"inputs": [tensor()]}).encode())
    assert site.post(INFER, good, content_encoding=encoding).status == 200
    for body, why in (
        (good[:-9], f"not one whole {encoding} stream"),
        (good + b"more", f"not one whole {encoding} stream"),
        (b"plain", f"the body is not {encoding}"),
        (pack(bytes(200 * 1024 * 1024)), "larger than 16777216 bytes when decompressed"),
    ):
        answer = site.post(INFER, body, content_encoding=encoding)
        assert answer.status == 400
        assert why in answer.error


def test_an_unknown_encoding_is_415(site: Any) -> None:
    answer = site.post(INFER, b"x", content_encoding="br")
    assert (answer.status, answer.error) == (415, "content-encoding 'br': wanted gzip, deflate or none")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", INFER, 405),
        ("DELETE", "/v2/models/pump", 405),
        ("POST", "/healthz", 405),
        ("PUT", "/", 405),
        ("GET", "/nothing", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/fan", 404),
        ("GET", "/v2/models/pump/versions", 404),
        ("GET", "/v2/models/pump/versions/2/ready", 404),
        ("GET", "/v2/models/pump/config", 404),
        ("GET", "/v2/models/%2e%2e%2fetc", 404),
    ],
)
def test_methods_and_paths(site: Any, method: str, path: str, status: int) -> None:
    answer = site.ask(f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n".encode())
    assert answer.status == status
    assert answer.error
    assert ("allow" in answer.headers) == (status == 405)


def test_no_length_is_411(site: Any) -> None:
    assert site.ask(f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()).status == 411


def test_chunks_are_a_body_too(site: Any) -> None:
    body = json.dumps({"inputs": [tensor()]}).encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:20], body[20:]))
    head = f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    assert site.ask(head + chunks + b"0\r\n\r\n").status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /v2/models/pump/infer HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v2/models/pump/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /v2/models/pump/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
    ids=["text", "tls", "version", "header", "negative", "smuggling", "chunk", "connect"],
)
def test_what_is_no_http_is_400(site: Any, data: bytes) -> None:
    answer = site.ask(data)
    assert answer.status == 400
    assert answer.error in ("this is not HTTP", "this is no path")


def test_an_upgrade_is_refused(site: Any) -> None:
    answer = site.post(INFER, {"inputs": [tensor()]}, connection="Upgrade", upgrade="websocket")
    assert answer.status == 400


def test_a_truncated_body_harms_nobody(site: Any) -> None:
    connection = site.connect()
    connection.sendall(f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900\r\n\r\n{{".encode())
    connection.close()


def test_a_body_larger_than_allowed_is_413_whether_declared_or_not(open_site: Callable[..., Any]) -> None:
    small = open_site(body_bytes=1000, drain_bytes=100_000)
    assert small.post(INFER, bytes(5000)).status == 413
    head = f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    answer = small.ask(head + b"1388\r\n" + bytes(5000) + b"\r\n0\r\n\r\n")
    assert (answer.status, answer.error) == (413, "the body is larger than 1000 bytes")
    assert answer.headers["connection"] == "close"


def test_a_body_without_end_is_answered_and_cut_off(open_site: Callable[..., Any]) -> None:
    small = open_site(body_bytes=1000, drain_bytes=100_000)
    head = f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {10**12}\r\n\r\n".encode()
    connection = small.connect()
    connection.sendall(head)
    answer = small.ask(bytes(1_000_000), connection)
    assert (answer.status, answer.error) == (413, "the body is larger than 1000 bytes")


def test_fields_without_end_after_the_body_are_cut_off(open_site: Callable[..., Any]) -> None:
    small = open_site(body_bytes=1000, drain_bytes=100_000)
    connection = small.connect()
    connection.sendall(f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    assert small.ask(b"1\r\nx\r\n0\r\nx-filler: " + bytes([121]) * 1_000_000, connection).status == 413


def test_a_client_that_asks_first_is_told_to_go_on_or_why_not(site: Any) -> None:
    body = json.dumps({"inputs": [tensor()]}).encode()
    head = f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: "
    connection = site.connect()
    connection.sendall(f"{head}{len(body)}\r\n\r\n".encode())
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert site.ask(body, connection).status == 200
    assert site.ask(f"{head}{10**12}\r\n\r\n".encode()).status == 413


def test_what_came_whole_is_answered_before_the_garbage_behind_it(site: Any) -> None:
    connection = site.connect()
    connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\ngarbage\r\n\r\n")
    with connection.makefile("rb") as file:
        received = file.read()
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"400"]


def test_too_many_large_bodies_at_once_is_503(open_site: Callable[..., Any]) -> None:
    narrow = open_site(held_bytes=1500)
    slow = narrow.connect()
    slow.sendall(f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n".encode() + bytes(900))
    # Until the server has read that, the second body is still let in.
    while (answer := narrow.post(INFER, bytes(900))).status == 400:
        pass
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    slow.close()
    while (answer := narrow.post(INFER, bytes(900))).status == 503:
        pass
    assert answer.status == 400


def test_a_slow_body_is_408(open_site: Callable[..., Any]) -> None:
    hasty = open_site(body_timeout_s=0.2)
    answer = hasty.ask(f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900\r\n\r\n{{".encode())
    assert (answer.status, answer.error) == (408, "no whole request came in time")


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n", b"\r\n"])
def test_a_slow_head_is_408(open_site: Callable[..., Any], data: bytes) -> None:
    hasty = open_site(header_timeout_s=0.2)
    assert hasty.ask(data).status == 408


def test_endless_header_fields_are_431(site: Any) -> None:
    connection = site.connect()
    connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n")
    answer = site.ask(b"x-filler: " + b"y" * 1_000_000, connection)
    assert answer.status == 431


def test_an_idle_connection_is_closed_even_if_it_sends_line_breaks(open_site: Callable[..., Any]) -> None:
    hasty = open_site(header_timeout_s=0.2, idle_timeout_s=0.2)
    connection = hasty.connect()
    assert hasty.ask(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", connection).status == 200
    connection.sendall(b"\r\n")
    while connection.recv(4096):
        pass


def test_connections_beyond_the_limit_are_503(open_site: Callable[..., Any]) -> None:
    narrow = open_site(connections=2)
    held = [narrow.connect() for _ in range(2)]
    for connection in held:
        assert narrow.ask(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", connection).status == 200
    answer = narrow.get("/healthz")
    assert (answer.status, answer.error) == (503, "more than 2 connections: try again")
    held[0].close()
    while narrow.get("/healthz").status == 503:
        pass


def test_a_client_that_does_not_read_is_cut_off(open_site: Callable[..., Any]) -> None:
    hasty = open_site(stalled_timeout_s=0.2)
    body = {"inputs": [tensor(shape=[20_000, 8], data=[0.5] * 160_000)]}
    data = json.dumps(body).encode()
    head = f"POST {INFER} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(data)}\r\n\r\n".encode()
    connection = hasty.connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with pytest.raises(OSError, match=r"reset|Broken"):
        connection.sendall((head + data) * 200)


def test_many_pipelined_requests_are_answered_in_order(site: Any) -> None:
    connection = site.connect()
    count = 50
    connection.sendall(b"GET /v2/models/pump/ready HTTP/1.1\r\nhost: localhost\r\n\r\n" * count)
    with connection.makefile("rb") as file:
        for _ in range(count):
            assert file.readline() == b"HTTP/1.1 200 OK\r\n"
            while line := file.readline().strip():
                if line.startswith(b"content-length"):
                    length = int(line.split()[1])
            assert json.loads(file.read(length)) == {"name": "pump", "ready": True}


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.sampled_from(["window", "FP32", "scores", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["inputs", "outputs", "name", "shape", "datatype", "data", "parameters", "id"]), inner
        )
    ),
    max_leaves=20,
)


@given(document=_json | st.builds(lambda e: {"inputs": [e]}, _json), raw=st.binary(max_size=40), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_only_rejected_errors_leave_the_decoder(bundle: Bundle, document: Any, raw: bytes, data: Any) -> None:
    head = json.dumps(document).encode()
    size = data.draw(st.none() | st.integers(-1, len(head) + len(raw) + 1) | st.just(len(head)))
    try:
        request = oip.decode(bundle.contract, head + raw, size, Limits())
    except RejectedError:
        return
    assert set(request.inputs) <= {"window"}
