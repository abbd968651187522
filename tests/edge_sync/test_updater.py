"""sync/SPEC.md, section Desired and reported: a site's way from one release to the next."""

import pytest

from edge_models.digests import digest_of
from edge_models.errors import RejectedError
from edge_sync.documents import Delta, Desired
from edge_sync.release import AgentSpec, Artifact, Release, SourceSpec, describe
from edge_sync.updater import Activate, Fetch, Patch, Report, Standing, Updater

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
    return Release.of(number, agents, blobs)


def desired(generation: int, site: str = "plant-01", number: int = 2) -> Desired:
    return Desired(site=site, generation=generation, issued_us=0, release=release(number).model_dump(mode="json"))


def all_signed(_: Release) -> None:
    """An operator who signed everything."""


def updater() -> Updater:
    return Updater("plant-01", {"kind": "factory"}, Standing(release=1, generation=3, floor=3))


def test_only_what_this_site_runs_is_fetched_then_it_is_activated() -> None:
    u = updater()
    fetch, report = u.desired(desired(4), have=[digest_of(POLICY)], may_run=all_signed)
    assert fetch == Fetch((digest_of(BUNDLE),))
    assert isinstance(report, Report)
    assert (report.reported.state, report.reported.release, report.reported.target) == ("downloading", 1, 2)
    _staged, activate = u.have(digest_of(BUNDLE))
    assert isinstance(activate, Activate)
    [done] = u.activated()
    assert isinstance(done, Report)
    assert (done.reported.state, done.reported.release, done.reported.generation) == ("active", 2, 4)


def test_what_is_on_disk_is_not_fetched() -> None:
    effects = updater().desired(desired(4), have=[digest_of(BUNDLE), digest_of(POLICY)], may_run=all_signed)
    assert [type(effect) for effect in effects] == [Report, Activate]


def test_the_same_generation_again_is_nothing_new() -> None:
    assert updater().desired(desired(3), have=[], may_run=all_signed) == []


def test_an_older_generation_is_refused() -> None:
    with pytest.raises(RejectedError, match="generation 2 is older than 3"):
        updater().desired(desired(2), have=[], may_run=all_signed)


def test_what_was_acted_on_and_does_not_run_any_more_is_acted_on_again() -> None:
    """Generation 5 ran, its bundle was damaged on disk, and the site fell back to what generation 3 asked for."""
    u = Updater("plant-01", {"kind": "factory"}, Standing(release=1, generation=3, floor=5))
    with pytest.raises(RejectedError, match="generation 4 is older than 5"):
        u.desired(desired(4), have=[], may_run=all_signed)
    assert isinstance(u.desired(desired(5), have=[], may_run=all_signed)[0], Fetch)


def test_what_the_start_passed_over_is_settled_when_it_is_rolled_back() -> None:
    """As before, and somebody at the site wants it back for good, whether it is being fetched anew or not."""
    for fetching in (False, True):
        u = Updater("plant-01", {"kind": "factory"}, Standing(release=1, generation=3, floor=5))
        if fetching:
            u.desired(desired(5), have=[], may_run=all_signed)
        [report] = u.rolled_back(1, 5, "at the site: it disappoints")
        assert isinstance(report, Report)
        assert (report.reported.state, report.reported.release, report.reported.generation) == ("rolled_back", 1, 5)
        assert u.wanted() == {}
        assert u.desired(desired(5), have=[], may_run=all_signed) == []


def test_a_refused_release_is_still_refused_after_a_restart() -> None:
    u = Updater("plant-01", {"kind": "factory"}, Standing(release=1, generation=5, floor=5, refused="golden check"))
    assert u.desired(desired(5), have=[], may_run=all_signed) == []
    reported = u.report().reported
    assert (reported.state, reported.reason, reported.release) == ("failed", "golden check", 1)


def test_another_sites_document_is_refused() -> None:
    with pytest.raises(RejectedError, match="is for site 'plant-02'"):
        updater().desired(desired(9, site="plant-02"), have=[], may_run=all_signed)


def test_a_newer_document_replaces_one_that_is_being_fetched() -> None:
    u = updater()
    u.desired(desired(4), have=[], may_run=all_signed)
    u.desired(desired(5, number=3), have=[], may_run=all_signed)
    u.have(digest_of(BUNDLE))
    [_, activate] = u.have(digest_of(POLICY))
    assert isinstance(activate, Activate)
    assert (activate.release.release, activate.generation) == (3, 5)


def test_a_failure_leaves_the_old_release_and_is_not_tried_again() -> None:
    u = updater()
    u.desired(desired(4), have=[digest_of(BUNDLE), digest_of(POLICY)], may_run=all_signed)
    [report] = u.failed("golden check failed")
    assert isinstance(report, Report)
    assert (report.reported.state, report.reported.release, report.reported.target) == ("failed", 1, 2)
    assert report.reported.reason == "golden check failed"
    assert u.desired(desired(4), have=[], may_run=all_signed) == []


def test_a_release_that_names_what_it_does_not_describe_fails() -> None:
    document = desired(4).model_dump()
    del document["release"]["artifacts"][digest_of(BUNDLE)]
    [report] = updater().desired(Desired.model_validate(document), have=[], may_run=all_signed)
    assert isinstance(report, Report)
    assert report.reported.state == "failed"


def test_a_malformed_release_is_refused_naming_the_field() -> None:
    document = Desired(site="plant-01", generation=9, issued_us=0, release={"release": "two"})
    with pytest.raises(RejectedError, match="release: release"):
        updater().desired(document, have=[], may_run=all_signed)


def test_what_the_operator_has_not_signed_changes_nothing_and_may_be_signed_later() -> None:
    u = updater()
    asked: list[Release] = []

    def unsigned(part: Release) -> None:
        asked.append(part)
        raise RejectedError("not signed")

    with pytest.raises(RejectedError, match="not signed"):
        u.desired(desired(4), have=[], may_run=unsigned)
    assert set(asked[0].artifacts) == {digest_of(BUNDLE), digest_of(POLICY)}, "only what would run here is asked for"
    assert (u.report().reported.generation, u.report().reported.state) == (3, "active")
    assert isinstance(u.desired(desired(4), have=[], may_run=all_signed)[0], Fetch)


OLD, DELTA = b"the bundle before", b"what changed"


def with_delta(generation: int, base: bytes = OLD) -> Desired:
    described = describe("delta", DELTA).model_dump(mode="json")
    delta = Delta(base=digest_of(base), target=digest_of(BUNDLE), digest=digest_of(DELTA), artifact=described)
    return desired(generation).model_copy(update={"deltas": [delta]})


def test_a_site_that_has_the_base_fetches_the_delta_and_makes_the_artifact_of_it() -> None:
    u = updater()
    fetch, _ = u.desired(with_delta(4), have=[digest_of(OLD), digest_of(POLICY)], may_run=all_signed)
    assert fetch == Fetch((digest_of(DELTA),))
    assert set(u.wanted()) == {digest_of(DELTA)}
    assert u.have(digest_of(DELTA)) == [Patch(digest_of(OLD), digest_of(BUNDLE), digest_of(DELTA), len(BUNDLE))]
    _staged, activate = u.have(digest_of(BUNDLE))
    assert isinstance(activate, Activate)


def test_a_delta_that_does_not_make_the_artifact_is_forgotten_and_the_whole_is_fetched() -> None:
    u = updater()
    u.desired(with_delta(4), have=[digest_of(OLD), digest_of(POLICY)], may_run=all_signed)
    u.have(digest_of(DELTA))
    assert u.no_patch(digest_of(BUNDLE)) == [Fetch((digest_of(BUNDLE),))]
    assert set(u.wanted()) == {digest_of(BUNDLE)}
    assert u.no_patch(digest_of(BUNDLE)) == [], "once is enough"
    assert u.have(digest_of(DELTA)) == []
    assert isinstance(u.have(digest_of(BUNDLE))[1], Activate)


def test_a_delta_from_what_is_not_here_or_that_is_described_wrongly_is_left() -> None:
    fetch, _ = updater().desired(with_delta(4, base=b"another"), have=[digest_of(POLICY)], may_run=all_signed)
    assert fetch == Fetch((digest_of(BUNDLE),))
    wrong = with_delta(4)
    broken = wrong.deltas[0].model_copy(update={"artifact": {"name": "delta", "size": -1, "chunks": []}})
    wrong = wrong.model_copy(update={"deltas": [broken]})
    fetch, _ = updater().desired(wrong, have=[digest_of(OLD), digest_of(POLICY)], may_run=all_signed)
    assert fetch == Fetch((digest_of(BUNDLE),))
