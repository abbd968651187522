"""The listener: what it serves, how often, how long, and what of it is in the audit."""

import base64
import socket
import ssl
import time
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from edge_hub.enrol import est, issuing, listener
from edge_hub.enrol.issuing import GROUP_BURST, SITE_BURST
from edge_sync.enrol.est import CACERTS, ENROLL, MAX_BODY_BYTES
from edge_sync.enrol.token import parse_token


def test_it_serves_four_paths_and_no_other(office: Any) -> None:
    node = office.node("plant-01")
    for method, path in (("GET", "/"), ("GET", "/metrics"), ("GET", "/api/v1/sites"), ("GET", "/docs")):
        assert node.ask(method, path).status == 404
    for method, path in (("POST", CACERTS), ("GET", ENROLL), ("PUT", ENROLL)):
        assert node.ask(method, path).status == 405
    assert node.ask("GET", "/healthz").text == "ok\n"


def test_a_large_body_is_not_read_to_its_end(office: Any) -> None:
    node = office.node("plant-01")
    shown = base64.b64encode(f"plant-01:{parse_token(office.token('plant-01')).secret}".encode()).decode()
    said = node.ask("POST", ENROLL, b"A" * (MAX_BODY_BYTES + 1), authorization=f"Basic {shown}")
    assert (said.status, said.text) == (413, "the body is over 16384 bytes\n")


def test_one_address_that_asks_too_often_is_told_when_to_come_again(office: Any) -> None:
    node = office.node("plant-01")
    statuses = [node.ask("POST", ENROLL, b"x").status for _ in range(est.ADDRESS_BURST)]
    assert set(statuses) == {401}
    said = node.ask("GET", CACERTS)
    assert (said.status, said.headers["retry-after"]) == (429, "1")
    assert node.ask("GET", "/healthz").status == 200


def test_who_guesses_uses_up_nothing_of_a_sites(office: Any) -> None:
    node, token = office.node("plant-01"), office.token("plant-01")
    for _ in range(2 * SITE_BURST):
        assert node.join(f"EK1{office.means.authority.pin}::plant-01:{'x' * 43}").status == 401
    assert node.join(token).status == 200


def test_a_site_that_asks_and_asks_is_slowed_down_by_name(office: Any) -> None:
    node = office.joined("plant-01")
    statuses = [node.renew().status for _ in range(SITE_BURST)]
    assert statuses[-1] == 429
    assert 200 in statuses
    other = office.joined("plant-02")
    assert other.renew().status == 200
    office.clock.seconds += 61
    assert node.renew().status == 200
    assert GROUP_BURST > SITE_BURST


def test_of_a_flood_of_refusals_few_are_in_the_audit_and_the_others_are_counted(office: Any) -> None:
    node = office.joined("plant-01")
    before = len(office.audited())
    for _ in range(50):
        assert node.ask("POST", ENROLL, b"x").status == 401
    assert len(office.audited()) - before == 20
    thief = office.node("plant-01", "thief")
    office.clock.seconds += 1
    assert node.renew("x").status == 200
    assert thief.join(f"EK1{office.means.authority.pin}::_group-x:{'x' * 43}").status == 401
    office.enrolment.refusals.flush()
    what, detail = office.audited()[-1]
    assert (what, detail) == ("enrolments refused and not noted one by one", {"proven": 0, "others": 31})
    office.enrolment.refusals.flush()
    assert len(office.audited()) - before == 22


def test_a_flood_hides_no_refusal_of_somebody_with_a_true_secret(office: Any) -> None:
    token = office.token("plant-01")
    node = office.node("plant-01")
    node.join(token)
    for _ in range(30):
        assert node.ask("POST", ENROLL, b"x").status == 401
    thief = office.node("plant-01", "thief")
    assert thief.join(token).status == 401
    what, detail = office.audited()[-1]
    assert (what, "used already" in detail["reason"]) == ("enrolment refused", True)


def test_a_connection_that_says_nothing_is_ended(office: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "CONNECTION_S", 0.3)
    node = office.node("plant-01")
    port = int(node.url.rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
        node.context(certificate=False).wrap_socket(plain, server_hostname="localhost") as idle,
    ):
        idle.sendall(b"POST /.well-known/est/simpleenroll HTTP/1.1\r\n")
        began = time.monotonic()
        with suppress(ssl.SSLError, ConnectionError):
            assert idle.recv(1) == b""
        assert time.monotonic() - began < 15


def test_who_only_opens_connections_takes_no_place_of_others(office: Any) -> None:
    node = office.node("plant-01")
    port = int(node.url.rpartition(":")[2])
    held = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(listener.MAX_OF_ONE)]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as one_more:
        assert one_more.recv(1) == b""
    office_open = office.server._http._socket
    assert sum(each.fileno() != -1 for each in office_open._inside) == listener.MAX_OF_ONE
    held.pop().close()
    _until(lambda: _answers(node))
    for each in held:
        each.close()


def _answers(node: Any) -> bool:
    try:
        return bool(node.ask("GET", "/healthz").text == "ok\n")
    except (ssl.SSLError, ConnectionError):
        return False


def _until(true: Any) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_address_in_a_header_is_not_believed(office: Any) -> None:
    node = office.node("plant-01")
    node.ask("POST", ENROLL, b"x", **{"x-forwarded-for": "192.0.2.1"})
    assert office.audited()[-1][1]["address"] == "127.0.0.1"


def test_without_its_database_it_says_when_to_come_again(office: Any) -> None:
    node, token = office.node("plant-01"), office.token("plant-01")

    def refuse(*_: Any, **__: Any) -> Any:
        raise OperationalError("BEGIN", None, Exception("disk full"))

    before = office.store.writing
    office.store.writing = refuse
    try:
        said = node.join(token)
    finally:
        office.store.writing = before
    assert (said.status, said.headers["retry-after"]) == (503, "60")
    assert node.join(token).status == 200


def test_it_shows_its_newest_certificate_without_a_restart(office: Any) -> None:
    node = office.node("plant-01")

    def shown() -> bytes:
        port = int(node.url.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as plain,
            node.context(certificate=False).wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            return bytes(connection.getpeercert(True) or b"")

    first = shown()
    office.server.look_after()
    assert shown() == first
    office.clock.go_on(31)
    office.server.look_after()
    assert shown() != first


def test_when_the_hubs_clock_was_set_its_list_is_made_anew_at_once(office: Any) -> None:
    revoked = office.brokers.tls / "revoked.pem"
    first = revoked.read_bytes()
    office.clock.seconds += 30
    office.clock.now_us += 30_000_000
    assert not office.enrolment.look_after()
    assert revoked.read_bytes() == first
    for days in (-20_000, 20_000):
        office.clock.now_us += days * 86_400_000_000
        assert office.enrolment.look_after()
        assert not office.enrolment.look_after()
        assert revoked.read_bytes() != first
        first = revoked.read_bytes()


def test_the_limits_are_those_that_the_page_names() -> None:
    assert (est.ADDRESS_BURST, est.ADDRESS_PER_S) == (60, 1.0)
    assert (issuing.SITE_BURST, issuing.SITE_PER_S) == (10, 1 / 60)
