"""Joining with a token, over real TLS. sync/SPEC.md, section Enrolment."""

import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from est_client import Node
from sqlalchemy import select

from edge_hub.database.schema import sites
from edge_hub.database.store import TakenError
from edge_hub.records import audit
from edge_models.errors import RejectedError
from edge_sync.enrol.certificate import fingerprint, own_chain, pinned_root
from edge_sync.enrol.est import ENROLL
from edge_sync.enrol.token import parse_token

DAY_US = 86_400_000_000
JOURNAL_KEY = "0123456789abcdef" * 4


def row(office: Any, site: str) -> Any:
    with office.store.reading() as db:
        return db.execute(select(sites).where(sites.c.site == site)).one()


@pytest.mark.parametrize("office", ["sqlite", "postgresql"], indirect=True)
def test_a_site_joins_with_its_token_and_gets_a_certificate_of_its_name(office: Any) -> None:
    (terms,) = office.invite("plant-01")
    token = parse_token(terms["join_token"])
    node = office.node("plant-01")
    among = node.cacerts()
    root = pinned_root(among, token.pin)
    assert len(among) == 3
    assert fingerprint(root) == office.means.authority.pin
    said = node.join(terms["join_token"], journal_key=JOURNAL_KEY)
    assert said.headers["content-transfer-encoding"] == "base64"
    chain = own_chain(said.chain, root, "plant-01", node.public)
    made = chain[0]
    assert [each.value for each in made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["plant-01"]
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [each.value for each in names] == ["spiffe://edge/site/plant-01"]
    uses = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert said.identity.ends_us == office.clock.now_us + 90 * DAY_US
    assert said.identity.begins_us == office.clock.now_us - DAY_US
    assert row(office, "plant-01").journal_key == JOURNAL_KEY
    assert office.brokers.users()["plant-01"].password is None
    assert office.audited()[-1][0] == "site joined"
    assert office.audited()[-1][1]["serial"] == said.identity.serial


def test_the_terms_name_all_that_a_kit_needs_and_no_password_of_the_hubs(office: Any) -> None:
    (terms,) = office.invite("plant-01")
    assert set(terms) == {
        "site", "join_token", "join_expires_us", "enrol_url", "broker_url", "ca", "local_username", "local_password"
    }  # fmt: skip
    assert terms["enrol_url"].startswith("https://localhost:")
    assert terms["broker_url"] == "mqtts://localhost:8883"
    assert terms["join_expires_us"] == office.clock.now_us + 7 * DAY_US
    assert terms["ca"] == office.means.authority.root_pem.decode()


def test_no_secret_is_kept_anywhere(office: Any) -> None:
    token = office.token("plant-01")
    node = office.node("plant-01")
    assert node.join(token).status == 200
    node.new_key()
    assert node.join(token).status == 401
    office.store.close()
    secret = parse_token(token).secret.encode()
    for path in Path(office.folder).rglob("*"):
        if path.is_file() and path.parent.name != "node":
            assert secret not in path.read_bytes(), path


def test_an_answer_that_was_lost_is_given_again_and_a_replay_is_refused(office: Any) -> None:
    token = office.token("plant-01")
    node = office.node("plant-01")
    first, again = node.join(token), node.join(token)
    assert again.identity == first.identity
    assert len(office.certificates("plant-01")) == 1
    thief = office.node("plant-01", "thief")
    said = thief.join(token)
    assert (said.status, said.text) == (401, "this join token was used already: ask the operator for a new one\n")
    assert said.headers["www-authenticate"].startswith("Basic")
    assert len(office.certificates("plant-01")) == 1
    what, detail = office.audited()[-1]
    assert (what, detail["by"], detail["status"]) == ("enrolment refused", "plant-01", 401)
    assert node.join(token).identity == first.identity, "the thief's try changed nothing"


def test_a_token_is_spent_by_a_certificate_and_by_nothing_else(office: Any) -> None:
    token = office.token("plant-01")
    node = office.node("plant-01")
    assert node.join(token, name="plant-02").status == 403
    shown = base64.b64encode(f"plant-01:{parse_token(token).secret}".encode()).decode()
    for body in (b"", b"nonsense", base64.b64encode(b"nonsense")):
        said = node.ask("POST", ENROLL, body, authorization=f"Basic {shown}")
        assert (said.status, said.text.count("\n")) == (400, 1)
    assert node.join(token).status == 200


def test_a_token_is_for_its_own_site_only(office: Any) -> None:
    office.invite("plant-02")
    token = office.token("plant-01")
    node = office.node("plant-02")
    said = node.join(token)
    assert (said.status, said.text) == (403, "this join token is for site plant-01, not 'plant-02'\n")
    assert node.join(token, user="plant-02").status == 401
    assert not office.certificates("plant-02")


@pytest.mark.parametrize("name", ["_hub", "_hub-1", "hub", "fleet", "plant-01/x", "+", "#", "Plant-01", ""])
def test_no_request_makes_a_name_that_is_no_sites(office: Any, name: str) -> None:
    node = office.node("plant-01")
    assert node.join(office.group("north", 3), name=name or " ").status == 403
    assert node.join(office.token("plant-01"), name=name or " ").status == 403
    assert not office.brokers.users().keys() & {name}


def test_a_token_that_is_not_known_is_refused_whatever_is_wrong_with_it(office: Any) -> None:
    office.token("plant-01")
    node, pin = office.node("plant-01"), office.means.authority.pin
    for name in ("plant-01", "plant-77", "_group-north"):
        said = node.join(f"EK1{pin}::{name}:{'x' * 43}")
        assert (said.status, said.text) == (401, "no such join token: ask the operator for a new one\n")
    assert node.ask("POST", ENROLL, node.request()).status == 401


def test_a_token_ends_by_age_by_its_operator_and_by_a_newer_one(office: Any) -> None:
    old = office.token("plant-01", days=2)
    node = office.node("plant-01")
    office.clock.go_on(1)
    newer = office.token("plant-01", replace=True)
    assert node.join(old).status == 401
    office.clock.go_on(7.01)
    said = node.join(newer)
    assert (said.status, "this join token ended on 2040-01-" in said.text) == (401, True)
    last = office.token("plant-01", replace=True)
    office.enrolment.void("plant-01", "operator")
    assert "was taken back" in node.join(last).text


def test_a_lost_answer_is_not_given_again_when_the_token_is_over(office: Any) -> None:
    token = office.token("plant-01")
    node = office.node("plant-01")
    node.join(token)
    office.clock.go_on(8)
    assert node.join(token).status == 401


def test_a_groups_token_lets_in_as_many_as_it_is_for_and_registers_them(office: Any) -> None:
    token = office.group("north", 2, kind="shop")
    nodes = [office.node(f"shop-{number}") for number in (1, 2, 3)]
    assert [node.join(token).status for node in nodes] == [200, 200, 401]
    assert row(office, "shop-1").labels == {"kind": "shop", "group": "north"}
    assert office.brokers.users()["shop-1"].password is None
    assert nodes[0].join(token).status == 200, "its answer was lost"
    nodes[0].new_key()
    assert nodes[0].join(token).status == 401
    (listed,) = office.enrolment.tokens()
    assert (listed["id"], listed["used"], listed["sites"], listed["state"]) == ("_group-north", 2, 2, "spent")
    with office.store.reading() as db:
        assert audit.verify(db) is None


def test_a_groups_token_takes_over_no_site_that_is_there(office: Any) -> None:
    token = office.group("north", 9)
    office.joined("plant-01")
    office.sites.register("plant-02", {}, replace=False, who="operator")
    for site in ("plant-01", "plant-02"):
        said = office.node(site, "thief").join(token)
        assert (said.status, "not this group's to join" in said.text) == (403, True)
    office.sites.register("plant-03", {"group": "north"}, replace=False, who="operator")
    assert office.node("plant-03").join(token).status == 200, "it was registered for the group, and never came"
    assert office.node("plant-03", "thief").join(token).status == 401


def test_a_group_has_one_token_that_is_good(office: Any) -> None:
    old = office.group("north", 2)
    with pytest.raises(TakenError, match="has a join token that is good"):
        office.group("north", 2)
    office.enrolment.invite_group("north", 2, {}, 7, replace=True, who="operator")
    assert office.node("shop-1").join(old).status == 401
    for wrong in ({"group": "No:rth"}, {"count": 0}, {"days": 91}):
        asked: dict[str, Any] = {"group": "south", "count": 1, "labels": {}, "days": 7, "replace": False} | wrong
        with pytest.raises(RejectedError):
            office.enrolment.invite_group(**asked, who="operator")


def test_of_many_that_ask_at_once_with_one_token_one_gets_a_certificate(office: Any) -> None:
    token = office.token("plant-01")
    nodes = [office.node("plant-01", f"node-{number}") for number in range(8)]
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda node=node: statuses.append(node.join(token).status)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + 7 * [401]
    assert len(office.certificates("plant-01")) == 1


def test_a_hub_that_ends_between_list_and_commit_has_given_nothing(
    office: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = office.token("plant-01")
    node = office.node("plant-01")

    def torn(*_: Any) -> None:
        raise OSError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr("edge_hub.enrol.issuing.add", torn)
        assert node.join(token).status == 500
    assert len(office.means.ledger.issued()) == 1
    assert not office.certificates("plant-01")
    office.close()
    office.open()
    (known,) = office.certificates("plant-01")
    node.url = office.enrolment.url
    said = node.join(token)
    assert said.status == 200
    office.revoking.revoke("plant-01", "", "operator")
    assert set(office.means.ledger.revoked()) == {known.serial, said.identity.serial}


def test_a_site_that_is_registered_anew_is_another_and_what_it_had_counts_no_more(office: Any) -> None:
    old = office.joined("plant-01")
    token = office.token("plant-01", replace=True)
    assert old.renew().status == 403
    new = office.node("plant-01", "new")
    assert new.join(token, journal_key=JOURNAL_KEY).status == 200
    assert new.renew().status == 200
    assert old.renew().status == 403


def test_a_lost_disk_asks_with_a_new_key_and_is_told_what_to_do(office: Any) -> None:
    token = office.token("plant-01")
    node: Node = office.node("plant-01")
    node.join(token)
    node.new_key()
    assert "ask the operator for a new one" in node.join(token).text
