"""sync/SPEC.md, section Desired and reported: a site's way from one release to the next."""

import pytest

from edge_models.digests import digest_of
from edge_models.errors import RejectedError
from edge_sync.documents import Desired
from edge_sync.release import AgentSpec, Artifact, Release, SourceSpec, describe
from edge_sync.updater import Activate, Fetch, Report, Standing, Updater

BUNDLE, POLICY, OTHER = b"bundle", b"policy", b"other"


def release(number: int = 2, where: dict[str, str] | None = None) -> Release:
    agents = [
        AgentSpec(
            name=name,
            where=place,
            bundle=digest_of(bundle),
            policy=digest_of(POLICY),
            source=SourceSpec(kind="mqtt"),
        )
        for name, place, bundle in (("here", where or {}, BUNDLE), ("elsewhere", {"kind": "shop"}, OTHER))
    ]
    blobs: dict[str, Artifact] = {digest_of(data): describe("x", data) for data in (BUNDLE, POLICY, OTHER)}
    return Release(release=number, agents=agents, artifacts=blobs)


def desired(generation: int, site: str = "plant-01", number: int = 2) -> Desired:
    return Desired(site=site, generation=generation, issued_us=0, release=release(number).model_dump(mode="json"))


def updater() -> Updater:
    return Updater("plant-01", {"kind": "factory"}, Standing(release=1, generation=3, floor=3))


def test_only_what_this_site_runs_is_fetched_then_it_is_activated() -> None:
    u = updater()
    fetch, report = u.desired(desired(4), have=[digest_of(POLICY)])
    assert fetch == Fetch((digest_of(BUNDLE),))
    assert isinstance(report, Report)
    assert (report.reported.state, report.reported.release, report.reported.target) == ("downloading", 1, 2)
    _staged, activate = u.have(digest_of(BUNDLE))
    assert isinstance(activate, Activate)
    [done] = u.activated()
    assert isinstance(done, Report)
    assert (done.reported.state, done.reported.release, done.reported.generation) == ("active", 2, 4)


def test_what_is_on_disk_is_not_fetched() -> None:
    effects = updater().desired(desired(4), have=[digest_of(BUNDLE), digest_of(POLICY)])
    assert [type(effect) for effect in effects] == [Report, Activate]


def test_the_same_generation_again_is_nothing_new() -> None:
    assert updater().desired(desired(3), have=[]) == []


def test_an_older_generation_is_refused() -> None:
    with pytest.raises(RejectedError, match="generation 2 is older than 3"):
        updater().desired(desired(2), have=[])


def test_what_was_acted_on_and_does_not_run_any_more_is_acted_on_again() -> None:
    """Generation 5 ran, its bundle was damaged on disk, and the site fell back to what generation 3 asked for."""
    u = Updater("plant-01", {"kind": "factory"}, Standing(release=1, generation=3, floor=5))
    with pytest.raises(RejectedError, match="generation 4 is older than 5"):
        u.desired(desired(4), have=[])
    assert isinstance(u.desired(desired(5), have=[])[0], Fetch)


def test_a_refused_release_is_still_refused_after_a_restart() -> None:
    u = Updater("plant-01", {"kind": "factory"}, Standing(release=1, generation=5, floor=5, refused="golden check"))
    assert u.desired(desired(5), have=[]) == []
    reported = u.report().reported
    assert (reported.state, reported.reason, reported.release) == ("failed", "golden check", 1)


def test_another_sites_document_is_refused() -> None:
    with pytest.raises(RejectedError, match="is for site 'plant-02'"):
        updater().desired(desired(9, site="plant-02"), have=[])


def test_a_newer_document_replaces_one_that_is_being_fetched() -> None:
    u = updater()
    u.desired(desired(4), have=[])
    u.desired(desired(5, number=3), have=[])
    u.have(digest_of(BUNDLE))
    [_, activate] = u.have(digest_of(POLICY))
    assert isinstance(activate, Activate)
    assert (activate.release.release, activate.generation) == (3, 5)


def test_a_failure_leaves_the_old_release_and_is_not_tried_again() -> None:
    u = updater()
    u.desired(desired(4), have=[digest_of(BUNDLE), digest_of(POLICY)])
    [report] = u.failed("golden check failed")
    assert isinstance(report, Report)
    assert (report.reported.state, report.reported.release, report.reported.target) == ("failed", 1, 2)
    assert report.reported.reason == "golden check failed"
    assert u.desired(desired(4), have=[]) == []


def test_a_release_that_names_what_it_does_not_describe_fails() -> None:
    document = desired(4).model_dump()
    del document["release"]["artifacts"][digest_of(BUNDLE)]
    [report] = updater().desired(Desired.model_validate(document), have=[])
    assert isinstance(report, Report)
    assert report.reported.state == "failed"


def test_a_malformed_release_is_refused_naming_the_field() -> None:
    document = Desired(site="plant-01", generation=9, issued_us=0, release={"release": "two"})
    with pytest.raises(RejectedError, match="release: release"):
        updater().desired(document, have=[])
