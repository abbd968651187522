"""Joining and renewing over real TLS: what is believed, what is written, and what a site does with a no."""

import datetime
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from small_hub import DAY, MakeHub, SmallHub, public_of, utc_now

from edge_agent.enrol.client import EstClient, RefusedError
from edge_agent.enrol.flow import NotDue, join, renew
from edge_agent.enrol.identity import IdentityFolder, print_of
from edge_agent.enrol.schedule import Held
from edge_models.errors import ConfigError, KitError, RejectedError, RetryableError
from edge_sync.enrol.certificate import key_of, load_pem, read_identity
from edge_sync.enrol.est import CACERTS, ENROLL, REENROLL

SITE = "plant-01"
JOURNAL_KEY = "ab" * 32


def now_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture
def folder(tmp_path: Path) -> IdentityFolder:
    return IdentityFolder(tmp_path / "data" / "identity", SITE)


def joined(hub: SmallHub, folder: IdentityFolder, name: str = SITE) -> Held:
    return join(EstClient(hub.url), folder, SITE, hub.token(name), JOURNAL_KEY)


def renewed(hub: SmallHub, folder: IdentityFolder, force: bool = True) -> Held | NotDue:
    return renew(EstClient(hub.url), folder, SITE, now_us, force)


def nothing_in(folder: IdentityFolder) -> bool:
    """Whether no key and no certificate was written."""
    return not folder.path.exists() and folder.next_key() is None


def test_a_site_joins_with_a_key_of_its_own_that_never_left_it(small_hub: SmallHub, folder: IdentityFolder) -> None:
    held = joined(small_hub, folder)
    (issued,) = small_hub.issued
    assert issued.request.name == SITE
    assert issued.request.journal_key == JOURNAL_KEY
    assert public_of(folder.certificate) == issued.request.key
    identity = read_identity(issued.certificate)
    assert (held.begins_us, held.ends_us) == (identity.begins_us, identity.ends_us)
    assert identity.renew_us(0) <= held.renew_us <= identity.renew_us(1)
    assert held.token == print_of(small_hub.token(SITE))
    assert folder.held() == held


def test_what_it_got_is_a_client_certificate_that_leads_up_to_the_pinned_root(
    small_hub: SmallHub, folder: IdentityFolder
) -> None:
    joined(small_hub, folder)
    assert load_pem(folder.ca.read_bytes()) == [small_hub.root.certificate]
    chain = load_pem(folder.certificate.read_bytes())
    assert [each.subject for each in chain[1:]] == [small_hub.clients.certificate.subject]
    context = ssl.create_default_context(cafile=folder.ca)
    context.load_cert_chain(folder.certificate, folder.key)
    with (
        socket.create_connection(("localhost", small_hub.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as shown,
    ):
        shown.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"200" in shown.recv(100)


def test_a_group_token_lets_each_site_name_itself(small_hub: SmallHub, tmp_path: Path) -> None:
    token = small_hub.token("_group-north")
    for site in ("plant-01", "plant-02"):
        join(EstClient(small_hub.url), IdentityFolder(tmp_path / site / "identity", site), site, token, None)
    assert [each.request.name for each in small_hub.issued] == ["plant-01", "plant-02"]


def test_a_hub_that_is_not_of_the_tokens_root_gets_no_token_and_nothing_is_written(
    small_hub: SmallHub, make_small_hub: MakeHub, folder: IdentityFolder
) -> None:
    other = make_small_hub()
    with pytest.raises(RejectedError, match="it is another hub"):
        join(EstClient(other.url), folder, SITE, small_hub.token(SITE), None)
    assert other.asked == [CACERTS]
    assert nothing_in(folder)


def test_a_server_that_sends_the_right_root_and_has_no_certificate_of_it_gets_no_token(
    small_hub: SmallHub, make_small_hub: MakeHub, folder: IdentityFolder
) -> None:
    thief = make_small_hub()
    thief.root.certificate = small_hub.root.certificate
    with pytest.raises(RejectedError, match="is not this site's hub: its certificate does not count"):
        join(EstClient(thief.url), folder, SITE, small_hub.token(SITE), None)
    assert thief.asked == [CACERTS]
    assert not folder.path.exists()


def test_a_hub_by_another_name_than_its_certificate_says_is_refused(
    make_small_hub: MakeHub, folder: IdentityFolder
) -> None:
    with pytest.raises(RejectedError, match="Hostname mismatch"):
        joined(make_small_hub(host="hub.example.com"), folder)


def test_a_spent_token_is_one_clear_line_and_leaves_what_there_is(
    small_hub: SmallHub, folder: IdentityFolder, tmp_path: Path
) -> None:
    joined(small_hub, folder)
    thief = IdentityFolder(tmp_path / "thief" / "identity", SITE)
    with pytest.raises(RefusedError, match="this join token was used: make a new one") as refused:
        joined(small_hub, thief)
    assert refused.value.status == 401
    assert not thief.path.exists()
    assert len(small_hub.issued) == 1


def test_a_token_of_another_site_is_not_even_sent(small_hub: SmallHub, folder: IdentityFolder) -> None:
    with pytest.raises(ConfigError, match="the join token is for site 'plant-02', and this is 'plant-01'"):
        joined(small_hub, folder, "plant-02")
    assert small_hub.asked == []


@pytest.mark.parametrize("text", ["", "EK1:hunter2", "hunter2", "EK1" + "0" * 64 + "::UP:" + "s" * 43])
def test_what_is_no_token_is_said_without_showing_it(small_hub: SmallHub, folder: IdentityFolder, text: str) -> None:
    with pytest.raises(ConfigError, match="this is no join token") as error:
        join(EstClient(small_hub.url), folder, SITE, text, None)
    assert not text or text not in str(error.value)


def test_an_answer_that_was_lost_comes_again_for_the_same_key(small_hub: SmallHub, folder: IdentityFolder) -> None:
    small_hub.cut.add(ENROLL)
    with pytest.raises(RetryableError, match=r"no answer|answers no HTTP"):
        joined(small_hub, folder)
    key = folder.next_key()
    joined(small_hub, folder)
    assert len(small_hub.issued) == 1
    assert folder.key.read_bytes() == key


def test_a_damaged_key_that_was_asked_with_gives_way_to_a_new_one(small_hub: SmallHub, folder: IdentityFolder) -> None:
    with folder.locked():
        folder.keep_key(b"-----BEGIN")
    joined(small_hub, folder)
    assert public_of(folder.certificate) == small_hub.issued[0].request.key


def test_a_renewal_has_a_new_key_and_is_proven_by_the_old_certificate(
    small_hub: SmallHub, folder: IdentityFolder
) -> None:
    first = joined(small_hub, folder)
    old, serial = folder.key.read_bytes(), read_identity(small_hub.issued[0].certificate).serial
    held = renewed(small_hub, folder)
    assert isinstance(held, Held)
    assert held.token == first.token
    assert small_hub.issued[1].by == serial
    assert folder.key.read_bytes() != old
    assert public_of(folder.certificate) == small_hub.issued[1].request.key
    assert small_hub.issued[1].request.journal_key is None


def test_a_renewal_whose_answer_was_lost_goes_on_with_the_key_that_it_asked_with(
    small_hub: SmallHub, folder: IdentityFolder
) -> None:
    joined(small_hub, folder)
    before = folder.certificate.read_bytes()
    small_hub.cut.add(REENROLL)
    with pytest.raises(RetryableError):
        renewed(small_hub, folder)
    assert folder.certificate.read_bytes() == before
    renewed(small_hub, folder)
    assert len(small_hub.issued) == 2
    assert public_of(folder.certificate) == small_hub.issued[1].request.key


@pytest.mark.parametrize("ago", [1, 300])
def test_a_site_whose_certificate_ran_out_recovers(make_small_hub: MakeHub, folder: IdentityFolder, ago: int) -> None:
    hub = make_small_hub(life=-ago * DAY)
    assert joined(hub, folder).ends_us < now_us()
    hub.life = 90 * DAY
    held = renewed(hub, folder, force=False)
    assert isinstance(held, Held)
    assert held.ends_us > now_us()


def test_the_hubs_clock_says_whether_a_certificate_is_due(small_hub: SmallHub, folder: IdentityFolder) -> None:
    held = joined(small_hub, folder)
    came = renew(EstClient(small_hub.url), folder, SITE, lambda: held.ends_us)
    assert isinstance(came, NotDue)
    assert abs(came.time_us - now_us()) < 60_000_000
    small_hub.now = lambda: datetime.datetime.fromtimestamp(held.renew_us / 1e6 + 1, datetime.UTC)
    assert isinstance(renew(EstClient(small_hub.url), folder, SITE, lambda: 0), Held)


def test_a_hub_that_does_not_say_the_time_leaves_it_to_the_site(small_hub: SmallHub, folder: IdentityFolder) -> None:
    held = joined(small_hub, folder)
    small_hub.says_time = False
    assert renew(EstClient(small_hub.url), folder, SITE, lambda: held.renew_us - 1) == NotDue(held.renew_us - 1)
    assert isinstance(renew(EstClient(small_hub.url), folder, SITE, lambda: held.renew_us), Held)


@pytest.mark.parametrize("years", [-56, 56])
def test_wrong_clock_simulated_by_a_hub_of_another_time_joins_and_renews(
    make_small_hub: MakeHub, folder: IdentityFolder, years: int
) -> None:
    """To this machine all certificates have begun in 56 years, or ended long ago: as if its clock were so wrong."""
    hub = make_small_hub(now=lambda: utc_now() + years * 365 * DAY)
    joined(hub, folder)
    came = renewed(hub, folder, force=False)
    assert isinstance(came, NotDue)
    assert came.time_us == pytest.approx(now_us() + years * 365 * 86_400e6, abs=60e6)
    assert isinstance(renewed(hub, folder), Held)


def test_a_revoked_site_keeps_its_certificate_and_says_why(small_hub: SmallHub, folder: IdentityFolder) -> None:
    held = joined(small_hub, folder)
    small_hub.revoked.add(small_hub.issued[0].certificate.serial_number)
    with pytest.raises(RefusedError, match="this site was revoked"):
        renewed(small_hub, folder)
    assert folder.held() == held


def test_a_new_token_gives_a_new_key_and_takes_the_place_of_what_there_was(
    small_hub: SmallHub, folder: IdentityFolder
) -> None:
    joined(small_hub, folder)
    old = folder.key.read_bytes()
    small_hub.issued.clear()  # as registering a site anew does: its tokens and certificates are forgotten
    held = join(EstClient(small_hub.url), folder, SITE, small_hub.token(SITE, "t" * 43), None)
    assert folder.held() == held
    assert folder.key.read_bytes() != old


def test_a_hub_of_another_authority_is_told_as_such_at_a_renewal(
    small_hub: SmallHub, make_small_hub: MakeHub, folder: IdentityFolder
) -> None:
    joined(small_hub, folder)
    with pytest.raises(RejectedError, match="is not this site's hub"):
        renewed(make_small_hub(), folder)


def test_nothing_to_renew_is_said(small_hub: SmallHub, folder: IdentityFolder) -> None:
    with pytest.raises(ConfigError, match="has no certificate to renew: join first"):
        renewed(small_hub, folder)


@pytest.mark.parametrize("name", ["key.pem", "certificate.pem", "ca.pem"])
def test_a_damaged_identity_is_said_and_what_to_do(small_hub: SmallHub, folder: IdentityFolder, name: str) -> None:
    joined(small_hub, folder)
    (folder.path / name).write_bytes(b"-----BEGIN RUBBISH-----\n")
    with pytest.raises(ConfigError, match=r"is damaged .* join with a new token"):
        renewed(small_hub, folder)


def wrong_key(hub: SmallHub) -> None:
    key = key_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    hub.stranger = hub.clients.site(SITE, key, 90 * DAY)


def wrong_authority(hub: SmallHub) -> None:
    clients, hub.clients = hub.clients, type(hub.clients)("Sites")
    hub.clients.certificate = clients.certificate


def wrong_name(hub: SmallHub) -> None:
    hub.calls_all = "plant-66"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (wrong_key, "no certificate for this site's key"),
        (wrong_authority, "does not lead up to its root"),
        (wrong_name, "a certificate of site 'plant-66'"),
    ],
)
def test_a_certificate_that_is_not_what_was_asked_for_is_not_taken(
    small_hub: SmallHub, folder: IdentityFolder, spoil: Callable[[SmallHub], None], says: str
) -> None:
    spoil(small_hub)
    with pytest.raises(RejectedError, match=says):
        joined(small_hub, folder)
    assert not folder.path.exists()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, RefusedError) for status in (302, 400, 401, 403, 404)),
        *((status, RetryableError) for status in (429, 500, 503)),
    ],
)
def test_what_the_hub_says_is_passed_on_in_one_printable_line(
    small_hub: SmallHub, folder: IdentityFolder, status: int, kind: type[KitError]
) -> None:
    small_hub.answers[ENROLL] = status, "make a new \x1b[31mtoken\nsecond line", {"Location": "https://elsewhere"}
    with pytest.raises(kind) as error:
        joined(small_hub, folder)
    assert str(error.value) == f"{small_hub.url}: make a new  [31mtoken"


@pytest.mark.parametrize(("said", "waits_s"), [("17", 17.0), ("999999", 3600.0), ("soon", 5.0), ("", 5.0)])
def test_a_busy_hub_says_when_to_come_again(
    small_hub: SmallHub, folder: IdentityFolder, said: str, waits_s: float
) -> None:
    small_hub.answers[ENROLL] = 429, "too many", {"Retry-After": said}
    with pytest.raises(RetryableError) as error:
        joined(small_hub, folder)
    assert error.value.retry_after_s == waits_s


@pytest.mark.parametrize("body", ["", "no base64!", "AAAA", "A" * 70_000])
def test_an_answer_that_is_none_is_refused(small_hub: SmallHub, folder: IdentityFolder, body: str) -> None:
    small_hub.answers[ENROLL] = 200, body, {}
    with pytest.raises(RejectedError):
        joined(small_hub, folder)
    assert not folder.path.exists()


def test_a_hub_that_does_not_know_its_own_certificates_any_more_is_for_later_and_changes_nothing(
    make_small_hub: MakeHub, folder: IdentityFolder
) -> None:
    hub = make_small_hub(knows_sites=False)
    held = joined(hub, folder)
    with pytest.raises(RetryableError, match=r"TLS fails|no answer"):
        renewed(hub, folder)
    assert folder.held() == held


@pytest.mark.parametrize("says", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_port_where_something_else_speaks_is_for_later(
    small_hub: SmallHub, folder: IdentityFolder, says: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def speak() -> None:
            with listening.accept()[0] as connection:
                connection.sendall(says)
                connection.recv(4096)

        speaker = threading.Thread(target=speak)
        speaker.start()
        with pytest.raises(RetryableError):
            join(
                EstClient(f"https://localhost:{listening.getsockname()[1]}"), folder, SITE, small_hub.token(SITE), None
            )
        speaker.join()
    assert nothing_in(folder)


def test_a_hub_that_is_away_is_for_later(folder: IdentityFolder, small_hub: SmallHub) -> None:
    token = small_hub.token(SITE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RetryableError, match="no answer from"):
        join(EstClient(f"https://localhost:{port}"), folder, SITE, token, None)
    with pytest.raises(RetryableError, match="no answer from"):
        join(EstClient("https://nowhere.invalid"), folder, SITE, token, None)
    assert nothing_in(folder)


@pytest.mark.parametrize("url", ["http://hub", "hub:8443", "https://", "https://hub:0x1"])
def test_a_url_that_is_none_is_said(url: str) -> None:
    with pytest.raises(ConfigError, match=r"hub\.enrol"):
        EstClient(url)
