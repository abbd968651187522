from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from operator_desk import Desk, no_passphrase
from sqlalchemy import select, update

from edge_hub.database.schema import artifacts, sites, trust
from edge_hub.database.schema import audit as audit_table
from edge_hub.database.store import Store, TakenError, UnknownError
from edge_hub.delivery.releases import MAX_BELIEVED, MAX_RAISES, Releases, envelope
from edge_hub.records import audit
from edge_models.digests import Digest, digest_of
from edge_models.errors import RejectedError
from edge_sync.documents import DESIRED_TYPE, Desired, Reported, load
from edge_sync.release import AgentSpec, Release, SourceSpec, describe
from edge_sync.signing import public_key, verify

BUNDLE, POLICY = b"a bundle", b"a policy"
BLOBS: dict[Digest, bytes] = {digest_of(data): data for data in (BUNDLE, POLICY)}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def desk(store: Store, tmp_path: Path) -> Desk:
    """The operator, who handed this hub its trust metadata."""
    return Desk(tmp_path / "desk", store=store)


@pytest.fixture
def pinned(desk: Desk) -> str:
    return public_key(desk.director)


def made(number: int, **changed: Any) -> Release:
    described = {str(digest_of(data)): describe(name, data) for name, data in (("m", BUNDLE), ("p", POLICY))}
    agent = AgentSpec(name="press", bundle=digest_of(BUNDLE), policy=digest_of(POLICY), source=SourceSpec(kind="mqtt"))
    return Release.of(number, [agent], described).model_copy(update=changed)


@pytest.fixture
def release() -> Callable[..., Release]:
    return made


@pytest.fixture
def unsigned(store: Store, desk: Desk, said: list[str]) -> Releases:
    """Two sites and two artifacts; nothing of a release is signed."""
    with store.writing() as db:
        for name in ("plant-01", "store-01"):
            db.execute(sites.insert().values(site=name, labels={}, created_us=1, online=False))
    made = Releases(store, desk.director, said.append, lambda: 99)
    for data in (BUNDLE, POLICY):
        made.add_artifact(digest_of(data), describe("", data), "operator")
    return made


@pytest.fixture
def releases(unsigned: Releases, desk: Desk) -> Releases:
    """The same, and the operator has signed what `release` makes."""
    desk.sign(made(1), BLOBS)
    return unsigned


def wish(store: Store, site: str, pinned: str) -> Desired:
    with store.reading() as db:
        document = envelope(db, site)
    assert document is not None
    return load(Desired, verify(document, DESIRED_TYPE, pinned))


def test_a_push_is_signed_numbered_and_said(
    releases: Releases, store: Store, release: Any, said: list[str], pinned: str
) -> None:
    releases.create(release(1), "operator")
    releases.create(release(2), "operator")
    assert [(each.site, each.generation) for each in releases.push(1, None, "operator")] == [
        ("plant-01", 1),
        ("store-01", 1),
    ]
    assert [each.generation for each in releases.push(2, ["plant-01"], "operator")] == [2]
    assert said == ["plant-01", "store-01", "plant-01"]
    asked = wish(store, "plant-01", pinned)
    assert (asked.site, asked.generation, asked.issued_us) == ("plant-01", 2, 99)
    assert Release.model_validate(asked.release) == release(2)
    assert wish(store, "store-01", pinned).generation == 1
    with store.reading() as db:
        assert audit.verify(db) is None


def test_a_generation_is_above_what_the_site_says_it_saw(releases: Releases, store: Store, release: Any) -> None:
    releases.create(release(1), "operator")
    with store.writing() as db:
        db.execute(update(sites).where(sites.c.site == "plant-01").values(generation=41))
    assert releases.push(1, ["plant-01"], "operator")[0].generation == 42


def test_a_site_or_release_nobody_knows(releases: Releases, release: Any, said: list[str]) -> None:
    releases.create(release(1), "operator")
    with pytest.raises(UnknownError, match="no site 'plant-99'"):
        releases.push(1, ["plant-01", "plant-99"], "operator")
    with pytest.raises(UnknownError, match="no release 7"):
        releases.push(7, None, "operator")
    assert said == []


def test_what_the_operator_has_not_signed_is_kept_and_not_pushed(
    unsigned: Releases, store: Store, release: Any, said: list[str], desk: Desk
) -> None:
    unsigned.create(release(1), "operator")
    with pytest.raises(RejectedError, match=r"release 1: its agents document is not signed.* release create --trust"):
        unsigned.push(1, None, "operator")
    desk.sign(release(1), BLOBS)
    for digest, kind, says in (
        (digest_of(BUNDLE), "models", "bundle m of agent 'press' is not signed, or was withdrawn"),
        (digest_of(POLICY), "policies", "policy p of agent 'press' is not signed, or was withdrawn"),
    ):
        desk.operator.repository.withdraw(f"{kind}/{digest.removeprefix('sha256:')}", no_passphrase)
        desk.hand_over()
        with pytest.raises(RejectedError, match=says):
            unsigned.push(1, ["plant-01"], "operator")
        desk.sign(release(1), BLOBS)
    assert said == []
    with store.reading() as db:
        assert envelope(db, "plant-01") is None
    assert [each.generation for each in unsigned.push(1, ["plant-01"], "operator")] == [1]


def test_a_hub_without_trust_metadata_pushes_nothing(
    unsigned: Releases, store: Store, release: Any, said: list[str]
) -> None:
    with store.writing() as db:
        db.execute(trust.delete())
    unsigned.create(release(1), "operator")
    with pytest.raises(UnknownError, match="holds no trust metadata: `edge-agent trust init` makes it"):
        unsigned.push(1, None, "operator")
    assert said == []


def test_a_number_is_given_once(releases: Releases, release: Any) -> None:
    releases.create(release(1), "operator")
    with pytest.raises(TakenError, match="release 1 exists already"):
        releases.create(release(1), "operator")


def test_what_cannot_run_is_refused(releases: Releases, release: Any) -> None:
    with pytest.raises(RejectedError, match="begins at 1"):
        releases.create(release(0), "operator")
    described = release(1).artifacts
    with pytest.raises(RejectedError, match="is none of its artifacts"):
        releases.create(release(1, artifacts={}), "operator")
    absent = {**described, "sha256:" + "0" * 64: describe("x", b"x")}
    with pytest.raises(RejectedError, match="was not uploaded"):
        releases.create(release(1, artifacts=absent), "operator")
    wrong = {**described, str(digest_of(POLICY)): describe("p", b"a poLicy")}
    with pytest.raises(RejectedError, match="described wrongly"):
        releases.create(release(1, artifacts=wrong), "operator")
    many = {f"sha256:{n:064x}": describe("x" * 200, b"x") for n in range(1000)}
    with pytest.raises(RejectedError, match="the most is"):
        releases.create(release(1, artifacts=described | many), "operator")
    assert releases.all() == []


def test_lists_and_names(releases: Releases, store: Store, release: Any) -> None:
    releases.create(release(1), "operator")
    assert releases.all() == [{"release": 1, "agents": ["press"], "artifacts": 2, "created_us": 99}]
    assert Release.model_validate(releases.get(1)) == release(1)
    with store.reading() as db:
        assert set(db.scalars(select(artifacts.c.name))) == {"m", "p"}


def report(release: int, generation: int, state: str = "active", target: int | None = None) -> Reported:
    return Reported(release=release, generation=generation, state=state, target=target)


@pytest.fixture
def answer(store: Store, releases: Releases) -> Callable[..., bool]:
    """What plant-01 reports."""

    def tell(*words: Any, **named: Any) -> bool:
        with store.writing() as db:
            return releases.answer(db, "plant-01", report(*words, **named))

    return tell


def test_a_site_that_acted_on_a_generation_this_hub_does_not_know_is_given_one_above_it(
    releases: Releases, release: Any, store: Store, pinned: str, answer: Any
) -> None:
    releases.create(release(1), "operator")
    releases.push(1, ["plant-01"], "operator")
    assert answer(release=2, generation=7)
    document = wish(store, "plant-01", pinned)
    assert (document.generation, document.release["release"]) == (8, 1)
    assert not answer(release=1, generation=8), "it is where it should be: no loop"
    assert answer(release=2, generation=7), "it has not heard of it: it is told again"
    assert wish(store, "plant-01", pinned).generation == 8
    with store.reading() as db:
        assert audit.verify(db) is None
        [row] = db.execute(select(audit_table).where(audit_table.c.what == "generation raised")).all()
    assert row.detail == {"site": "plant-01", "reported": 7, "from": 1, "to": 8}


def test_the_same_generation_of_another_release_is_raised_too(
    releases: Releases, release: Any, store: Store, pinned: str, answer: Any
) -> None:
    releases.create(release(1), "operator")
    releases.push(1, ["plant-01"], "operator")
    assert not answer(release=9, generation=1, state="failed"), "it refused release 1, and says so"
    assert not answer(release=9, generation=1, state="downloading", target=1)
    assert answer(release=1, generation=1, state="downloading", target=2)
    assert wish(store, "plant-01", pinned).generation == 2
    assert answer(release=2, generation=2)
    assert wish(store, "plant-01", pinned).generation == 3


def test_nothing_is_raised_for_a_site_that_should_run_nothing_or_that_cannot_be_believed(
    releases: Releases, release: Any, store: Store, pinned: str, answer: Any
) -> None:
    assert not answer(release=2, generation=7)
    releases.create(release(1), "operator")
    releases.push(1, None, "operator")
    for lie in (2**53 - 1, MAX_BELIEVED):
        assert not answer(release=2, generation=lie)
        with store.writing() as db:
            db.execute(update(sites).where(sites.c.site == "plant-01").values(generation=lie))
        assert [each.generation for each in releases.push(1, None, "operator")] == [
            wish(store, name, pinned).generation for name in ("plant-01", "store-01")
        ], "a site's lie may not keep the others from a release"
    assert answer(release=2, generation=MAX_BELIEVED - 2)
    assert wish(store, "plant-01", pinned).generation == MAX_BELIEVED - 1
    assert releases.push(1, ["plant-01"], "operator")[0].generation == MAX_BELIEVED


def test_a_site_that_reports_ever_higher_generations_does_not_fill_the_audit(
    releases: Releases, release: Any, store: Store, answer: Any
) -> None:
    releases.create(release(1), "operator")
    releases.push(1, None, "operator")
    raised = [answer(release=2, generation=generation) for generation in range(10, 10 + 5 * MAX_RAISES)]
    assert raised == [True] * MAX_RAISES + [False] * 4 * MAX_RAISES
    with store.reading() as db:
        noted = db.execute(select(audit_table).where(audit_table.c.what == "generation raised")).all()
    assert len(noted) == MAX_RAISES
