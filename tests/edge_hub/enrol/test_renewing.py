"""Renewing with the certificate before, and recovering with one that ran out. sync/SPEC.md, section Enrolment."""

import ssl
from pathlib import Path
from typing import Any

import pytest
from certificates import CLIENT, Authorities

from edge_hub.enrol.authority import moment
from edge_hub.enrol.making import site_certificate
from edge_sync.enrol.certificate import to_pem
from edge_sync.enrol.est import REENROLL
from edge_sync.enrol.request import new_key

DAY_US = 86_400_000_000


def next_key(folder: Path, name: str = "next.key") -> Path:
    path = folder / name
    path.write_bytes(new_key())
    return path


@pytest.mark.parametrize("office", ["sqlite", "postgresql"], indirect=True)
def test_a_site_renews_with_its_certificate_for_the_same_key_or_a_new_one(office: Any) -> None:
    node = office.joined("plant-01")
    first = office.certificates("plant-01")[0]
    office.clock.go_on(31)
    said = node.renew()
    assert said.identity.ends_us == office.clock.now_us + 90 * DAY_US
    assert said.identity.key == node.public
    node.keep(said)
    office.clock.go_on(31)
    key = next_key(office.folder)
    rekeyed = node.renew(key=key)
    assert rekeyed.identity.key != node.public
    node.key = key
    node.keep(rekeyed)
    assert node.renew().status == 200
    what, detail = office.audited()[-1]
    assert (what, detail["before"]) == ("certificate renewed", rekeyed.identity.serial)
    assert first.token is not None
    assert all(each.token is None for each in office.certificates("plant-01")[1:])


def test_the_old_certificate_says_whose_the_new_one_is_never_the_request(office: Any) -> None:
    office.joined("plant-02")
    node = office.joined("plant-01")
    for name in ("plant-02", "_hub", "nobody's"):
        assert node.renew(name).identity.site == "plant-01"


def test_a_renewal_whose_answer_was_lost_is_answered_alike(office: Any) -> None:
    node = office.joined("plant-01")
    office.clock.go_on(31)
    key = next_key(office.folder)
    first, again = node.renew(key=key), node.renew(key=key)
    assert first.identity == again.identity
    assert len(office.certificates("plant-01")) == 2
    same, once_more = node.renew(), node.renew()
    assert same.identity == once_more.identity
    assert len(office.certificates("plant-01")) == 3


@pytest.mark.parametrize("days", [91, 300, 454])
def test_a_certificate_that_ran_out_gets_another_for_a_year(office: Any, days: int) -> None:
    node = office.joined("plant-01")
    office.clock.go_on(days)
    said = node.renew()
    assert said.identity.ends_us == office.clock.now_us + 90 * DAY_US
    assert office.audited()[-1][0] == "certificate recovered"


def test_after_a_year_it_is_told_what_to_do(office: Any) -> None:
    node = office.joined("plant-01")
    office.clock.go_on(90 + 366)
    said = node.renew()
    assert said.status == 403
    assert "over a year ago: make it a new kit with edge-agent node provision plant-01 --replace" in said.text


def test_an_old_one_that_ran_out_is_worth_nothing_once_there_is_a_newer(office: Any) -> None:
    node = office.joined("plant-01")
    office.clock.go_on(31)
    node.renew(key=next_key(office.folder))
    assert node.renew().status == 200, "it is good until it ends"
    office.clock.go_on(60)
    said = node.renew(key=next_key(office.folder, "thief.key"))
    assert (said.status, "not plant-01's newest" in said.text) == (403, True)


def test_a_site_whose_last_answer_was_lost_recovers_with_the_key_it_had_made(office: Any) -> None:
    node = office.joined("plant-01")
    office.clock.go_on(31)
    key = next_key(office.folder)
    lost = node.renew(key=key)
    office.clock.go_on(200)
    said = node.renew(key=key)
    assert said.identity.serial != lost.identity.serial
    assert said.identity.ends_us == office.clock.now_us + 90 * DAY_US


def test_a_clock_that_was_set_back_does_not_change_which_is_the_newest(office: Any) -> None:
    node = office.joined("plant-01")
    office.clock.now_us -= 20 * DAY_US
    key = next_key(office.folder)
    newer = node.renew(key=key)
    assert office.certificates("plant-01")[-1].serial == newer.identity.serial
    office.clock.go_on(150)
    assert node.renew(key=next_key(office.folder, "thief.key")).status == 403
    node.key = key
    node.keep(newer)
    assert node.renew().status == 200


def test_a_revoked_certificate_renews_nothing_good_or_run_out(office: Any) -> None:
    node = office.joined("plant-01")
    office.revoking.revoke("plant-01", "stolen", "operator")
    for days in (0, 100):
        office.clock.go_on(days)
        said = node.renew()
        assert (said.status, "site plant-01 was revoked" in said.text) == (403, True)


def test_a_hub_that_was_set_back_still_knows_what_was_revoked(office: Any) -> None:
    node = office.joined("plant-01")
    office.revoking.revoke("plant-01", "stolen", "operator")
    with office.store.writing() as db:
        db.exec_driver_sql("DELETE FROM certificates")
        db.exec_driver_sql("UPDATE sites SET revoked_us=NULL")
    assert node.renew().status == 403
    office.close()
    office.open()
    node.url = office.enrolment.url
    assert node.renew().status == 403
    (known,) = office.certificates("plant-01")
    assert known.revoked_us is not None


def test_a_site_of_which_the_hub_has_forgotten_the_newest_certificate_renews(office: Any) -> None:
    node = office.joined("plant-01")
    with office.store.writing() as db:
        db.exec_driver_sql("DELETE FROM certificates")
    assert node.renew().status == 200
    with office.store.writing() as db:
        db.exec_driver_sql("DELETE FROM sites")
    assert "not registered here" in node.renew().text


def test_without_a_certificate_or_with_one_of_elsewhere_nobody_renews(office: Any, tmp_path: Path) -> None:
    node = office.joined("plant-01")
    said = node.ask("POST", REENROLL, node.request())
    assert (said.status, "show the site's certificate" in said.text) == (401, True)
    others = Authorities(tmp_path / "others").clients.issue("plant-01", CLIENT, tmp_path)
    context = node.context(certificate=False)
    context.load_cert_chain(others, others.with_suffix(".key"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        node.ask("POST", REENROLL, node.request(), context)


def test_a_server_of_the_hub_is_no_site(office: Any) -> None:
    node = office.joined("plant-01")
    context = node.context(certificate=False)
    context.load_cert_chain(*office.means.equipment.own)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        node.ask("POST", REENROLL, node.request(), context)


def test_the_authority_of_servers_makes_no_sites(office: Any) -> None:
    """Even with a certificate of the very form: what may sign for servers may not sign for sites."""
    node = office.joined("plant-01")
    servers = office.means.authority.servers
    forged = site_certificate(servers, "plant-01", node.public, moment(office.clock.now_us))
    node.certificate.write_bytes(to_pem([forged, servers.certificate]))
    said = node.renew()
    assert (said.status, "not one that this hub gave" in said.text) == (403, True)


def test_a_clock_that_is_wrong_by_years_hinders_no_join_and_no_renewal(office: Any) -> None:
    node = office.joined("plant-01")
    assert node.renew().status == 200
    asking = ssl.create_default_context(cadata=node.root)
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        node.ask("GET", "/healthz", context=asking)
