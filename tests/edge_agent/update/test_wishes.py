"""What people at a site wish of its updates, as the update thread does it: hold, go back, a stick (sync/TRUST.md)."""

from pathlib import Path

import pytest
from update_bench import Fixture

from edge_agent.memory.schema import reading
from edge_agent.update.overview import read_overview
from edge_agent.update.proving import count_boot
from edge_agent.update.slots import read_slot, read_trial
from edge_agent.update.trial import TrialSettings
from edge_agent.update.wishes import GoBackNow, TakeStick, Wishes
from edge_models.errors import ConfigError
from edge_sync.documents import DESIRED_TYPE, Desired, dump
from edge_sync.release import Release
from edge_sync.signing import make_key, sign


def runs(fx: Fixture, number: int, generation: int, bundle: str) -> Release:
    """Have the site run a release, all of it by chunks."""
    release, blobs = fx.release(number, bundle)
    fx.desired(generation, release)
    fx.deliver(blobs)
    fx.wait_for(lambda: fx.state() == ("active", number))
    return release


def stick(fx: Fixture, release: Release, generation: int, blobs: dict[str, bytes]) -> None:
    """What `edge-agent update import` leaves for the site."""
    document = Desired(site="plant-01", generation=generation, issued_us=0, release=release.model_dump(mode="json"))
    with Wishes(fx.folder).stick() as offer:
        offer.put("trust.bin", fx.desk.packed())
        offer.put("desired.json", sign(dump(document), DESIRED_TYPE, fx.desk.director))
        for digest, data in blobs.items():
            source = fx.folder / "source"
            source.write_bytes(data)
            offer.put_blob(digest, source)
        offer.done()


def test_a_held_site_takes_nothing_new_until_it_is_let_go(fx: Fixture) -> None:
    Wishes(fx.folder).hold("stocktaking")
    fx.wait_for(lambda: fx.service.reported().hold == "stocktaking")
    release, blobs = fx.release(2)
    fx.desired(1, release)
    fx.service.link_up()
    fx.wait_for(lambda: fx.reported[-1].hold == "stocktaking")
    assert (fx.wanted, fx.state()) == ([], ("active", 1))
    assert Wishes(fx.folder).unhold() is True
    fx.deliver(blobs)
    fx.wait_for(lambda: fx.state() == ("active", 2))
    assert fx.service.reported().hold is None
    assert Wishes(fx.folder).unhold() is False


def test_a_hold_during_a_download_keeps_the_release_from_running(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    fx.desired(1, release)
    fx.wait_for(lambda: len(fx.wanted) >= 2)
    Wishes(fx.folder).hold("wait")
    fx.deliver(blobs)
    fx.wait_for(lambda: fx.state() == ("staged", 1))
    fx.wait_for(lambda: fx.service.reported().hold == "wait")
    assert fx.switched == []
    Wishes(fx.folder).unhold()
    fx.wait_for(lambda: fx.state() == ("active", 2))


def test_the_technician_goes_back_and_only_a_newer_wish_of_the_hub_brings_it_again(fx: Fixture) -> None:
    runs(fx, 2, 1, "1")
    fx.confirm()
    third = runs(fx, 3, 2, "2")
    Wishes(fx.folder).go_back("labels the wrong shelf")
    fx.wait_for(lambda: fx.state() == ("rolled_back", 2))
    assert fx.switched == [2, 3, 2]
    assert fx.service.reported().reason == "at the site: labels the wrong shelf"
    assert fx.alarms()[-1] == {"release": 3, "to": 2, "reason": "at the site: labels the wrong shelf"}
    said = read_overview(fx.folder)
    assert (said.release, said.previous, said.refused_generation) == (2, None, 2)
    fx.desired(2, third)
    fx.service.link_up()
    fx.restart()
    assert fx.state() == ("rolled_back", 2)
    fx.desired(3, third)
    fx.wait_for(lambda: fx.state() == ("active", 3))


def test_going_back_where_there_is_nothing_before_is_refused_and_recorded(fx: Fixture) -> None:
    Wishes(fx.folder).go_back("why not")
    fx.wait_for(fx.alarms)
    assert fx.alarms()[0]["reason"] == "release 1 stays: there is none before it (at the site: why not)"
    assert Wishes(fx.folder).next() is None


def test_a_stick_brings_a_release_without_any_link(fx: Fixture) -> None:
    release, blobs = fx.release(2, signed=False)
    fx.desk.sign(release, blobs)
    stick(fx, release, 1, {str(digest): data for digest, data in blobs.items()})
    fx.wait_for(lambda: fx.state() == ("active", 2))
    assert fx.wanted == []
    fx.wait_for(lambda: not list(Wishes(fx.folder).folder.iterdir()))


def test_a_stick_with_other_bytes_than_it_says_changes_nothing(fx: Fixture) -> None:
    release, blobs = fx.release(2, signed=False)
    fx.desk.sign(release, blobs)
    stick(fx, release, 1, dict.fromkeys(map(str, blobs), b"evil"))
    fx.wait_for(fx.alarms)
    assert "its chunks make other bytes" in fx.alarms()[0]["reason"]
    assert (fx.state(), fx.switched) == (("active", 1), [])
    assert fx.blobs.digests() == set()


def test_a_stick_that_another_director_signed_is_refused(fx: Fixture, tmp_path: Path) -> None:
    release, blobs = fx.release(2, signed=False)
    fx.desk.sign(release, blobs)
    fx.desk.director = tmp_path / "evil.key"
    make_key(fx.desk.director)
    stick(fx, release, 1, {str(digest): data for digest, data in blobs.items()})
    fx.wait_for(fx.alarms)
    assert "not signed by the key" in fx.alarms()[0]["reason"]
    assert fx.blobs.digests() == set(), "nothing is copied for a document that nobody signed"


def test_a_command_that_was_cut_short_leaves_nothing_that_is_taken(tmp_path: Path) -> None:
    wishes = Wishes(tmp_path)
    with wishes.stick() as offer:
        offer.put("trust.bin", b"half")
        assert wishes.next() is None
    assert list(wishes.folder.iterdir()) == []
    (wishes.folder / ".stick-0").mkdir()
    (wishes.folder / ".back-0").write_text("x")
    wishes.clear_unfinished()
    assert list(wishes.folder.iterdir()) == []


def test_wishes_are_taken_in_order_of_kind_and_cleared(tmp_path: Path) -> None:
    wishes = Wishes(tmp_path)
    with wishes.stick() as offer:
        offer.put("trust.bin", b"t")
        offer.done()
    wishes.go_back("first")
    first = wishes.next()
    assert isinstance(first, GoBackNow)
    wishes.clear(first)
    second = wishes.next()
    assert isinstance(second, TakeStick)
    assert second.trust.read_bytes() == b"t"
    wishes.clear(second)
    assert wishes.next() is None


def test_a_release_that_takes_the_process_down_again_and_again_goes(fx: Fixture) -> None:
    runs(fx, 2, 1, "1")
    fx.confirm()
    runs(fx, 3, 2, "2")
    settings = TrialSettings(window_s=10.0, max_boots=2)
    for boots in (1, 2):
        count_boot(fx.journal, settings, fx.now_us)
        with reading(fx.journal.path) as db:
            on_trial = read_trial(db)
        assert on_trial is not None
        assert on_trial.boots == boots
    count_boot(fx.journal, settings, fx.now_us)
    with reading(fx.journal.path) as db:
        active = read_slot(db, "active")
        assert read_trial(db) is None
    assert active is not None
    assert active.release.release == 2
    assert fx.alarms()[-1]["reason"] == "the site started 3 times before it was confirmed"


def test_a_release_that_nothing_speaks_against_is_confirmed_after_its_window(fx: Fixture) -> None:
    runs(fx, 2, 1, "1")
    assert fx.service.reported().on_trial
    fx.wait_for(lambda: not fx.service.reported().on_trial, 30.0)
    fx.journal.flush()
    with reading(fx.journal.path) as db:
        assert read_trial(db) is None
        (body,) = db.execute("SELECT body FROM journal WHERE label='release_confirmed'").fetchone()
    assert '"quiet":true' in body.replace(" ", "")


def test_a_folder_without_a_memory_has_no_overview(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="never ran"):
        read_overview(tmp_path)
