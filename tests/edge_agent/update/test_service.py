"""The update thread: real journal, real blobs, real signatures, real models; only the link is a list."""

import pytest
from operator_desk import no_passphrase
from update_bench import Fixture, chunks, now_us, wait_for

from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import JournalUnavailableError
from edge_agent.memory.schema import reading
from edge_agent.update.slots import read_slot
from edge_agent.update.wishes import Wishes
from edge_models.delta import make_delta
from edge_models.digests import Digest, digest_of
from edge_sync.documents import Delta
from edge_sync.release import Release, describe
from edge_sync.signing import make_key

POLICY = "policy: p\nversion: 1\nrules:\n  - {name: a, when: 'true'}\n"


def test_a_release_is_fetched_checked_remembered_and_switched_to(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    fx.desired(1, release)
    wait_for(lambda: len(fx.wanted) == 2)
    assert fx.subscribed == set(blobs)
    for digest, data in blobs.items():
        for message in chunks(digest, data):
            fx.service.chunk(message)
    wait_for(lambda: fx.state() == ("active", 2))
    assert fx.switched == [2]
    assert fx.subscribed == set()
    assert [said.state for said in fx.reported] == ["active", "downloading", "staged", "active"]
    assert fx.reported[0].trust["models"] == 2, "the first says which metadata it verified"
    with reading(fx.journal.path) as db:
        slot = read_slot(db, "active")
    assert slot is not None
    assert (slot.release.release, slot.generation) == (2, 1)


def test_what_arrived_before_a_restart_is_not_asked_for_again(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    bundle = Digest(next(digest for digest, artifact in release.artifacts.items() if len(artifact.chunks) == 2))
    fx.desired(1, release)
    wait_for(lambda: len(fx.wanted) == 2)
    fx.service.chunk(chunks(bundle, blobs[bundle])[1])
    wait_for(lambda: fx.blobs.held_chunks(bundle, release.artifacts[bundle]) == [1])
    fx.service.close()
    fx.wanted.clear()
    fx.start()
    fx.desired(1, release)
    wait_for(lambda: len(fx.wanted) == 2)
    assert next(want["missing"] for want in fx.wanted if want["digest"] == bundle) == [[0, 0]]


def test_chunks_that_make_other_bytes_are_fetched_again(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    bundle = Digest(next(digest for digest, artifact in release.artifacts.items() if len(artifact.chunks) == 2))
    for digest, data in blobs.items():
        if digest != bundle:
            fx.blobs.put(digest, data)
    fx.desired(1, release)
    wait_for(lambda: len(fx.wanted) == 1)
    first, second = chunks(bundle, blobs[bundle])
    fx.service.chunk(first)
    wait_for(lambda: fx.blobs.held_chunks(bundle, release.artifacts[bundle]) == [0])
    [part] = (fx.folder / "blobs").glob("*.part")
    part.write_bytes(b"the disk gave other bytes back")
    fx.service.chunk(second)
    wait_for(lambda: len(fx.wanted) >= 2)
    for message in (first, second):
        fx.service.chunk(message)
    wait_for(lambda: fx.state() == ("active", 2))


def test_a_full_journal_delays_an_activation_and_does_not_lose_it(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    for digest, data in blobs.items():
        fx.blobs.put(digest, data)

    with fx.journal._commit_lock:  # simulated: SQLite may not make the file larger
        most = fx.journal._connection.execute("PRAGMA max_page_count").fetchone()[0]
        fx.journal._connection.execute("PRAGMA max_page_count=1")
    with pytest.raises(JournalUnavailableError):
        fx.journal.write([Draft("telemetry", "observation", "a", now_us(), "{}")])
    fx.desired(1, release)
    wait_for(lambda: fx.state() == ("staged", 1))
    with fx.journal._commit_lock:
        fx.journal._connection.execute(f"PRAGMA max_page_count={most}")
    wait_for(lambda: fx.state() == ("active", 2))
    assert fx.switched == [2]


def test_a_release_that_cannot_run_here_fails_and_a_newer_one_is_taken(fx: Fixture) -> None:
    fx.refuse.append("agent 'watch': no endpoint is named 'x'")
    release, blobs = fx.release(2)
    for digest, data in blobs.items():
        fx.blobs.put(digest, data)
    fx.desired(1, release)
    wait_for(lambda: fx.state() == ("failed", 1))
    fx.desired(1, release)
    fx.desired(2, release.model_copy(update={"release": 3}))
    wait_for(lambda: fx.state() == ("active", 3))
    assert fx.switched == [3]


def test_a_refused_generation_is_remembered_over_a_restart(fx: Fixture) -> None:
    fx.refuse.append("no")
    release, blobs = fx.release(2)
    for digest, data in blobs.items():
        fx.blobs.put(digest, data)
    fx.desired(5, release)
    wait_for(lambda: fx.state() == ("failed", 1))
    fx.service.close()
    fx.journal.flush()
    fx.start()
    assert (fx.service.reported().state, fx.service.reported().reason) == ("failed", "no")
    fx.desired(4, release)
    wait_for(lambda: any("generation 4 is older than 5" in alarm["reason"] for alarm in fx.alarms()))


def test_a_flood_of_chunks_does_not_push_out_a_desired_document(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    for digest, data in blobs.items():
        fx.blobs.put(digest, data)
    for _ in range(5000):
        fx.service.chunk(b"no chunk")
    fx.desired(1, release)
    for _ in range(5000):
        fx.service.chunk(b"no chunk")
    wait_for(lambda: fx.state() == ("active", 2))


def test_a_flood_of_forgeries_is_a_handful_of_records(fx: Fixture) -> None:
    for n in range(3000):
        fx.service.desired(b"{}")
        fx.service.chunk(b"no chunk %d" % n)
    wait_for(lambda: len(fx.alarms()) >= 2)
    fx.service.close()
    assert {alarm["reason"] for alarm in fx.alarms()} == {
        "signed document: not a DSSE envelope (KeyError)",
        "chunk: is no chunk message",
    }
    assert len(fx.alarms()) == 2


def test_a_release_that_the_operator_has_not_signed_is_refused_recorded_and_taken_once_it_is_signed(
    fx: Fixture,
) -> None:
    release, blobs = fx.release(2, signed=False)
    fx.service.trust(fx.desk.packed())
    fx.desired(1, release)
    wait_for(fx.alarms)
    assert "agents document is not signed by the operator" in fx.alarms()[0]["reason"]
    assert (fx.wanted, fx.state()) == ([], ("active", 1))
    fx.service.trust(fx.desk.sign(release, blobs))
    wait_for(lambda: len(fx.wanted) == 2)


def test_a_model_that_is_not_signed_is_refused_though_its_agents_are(fx: Fixture) -> None:
    release, blobs = fx.release(2, signed=False)
    fx.desk.operator.sign(release, blobs)
    bundle = release.agents[0].bundle
    fx.desk.operator.repository.withdraw(f"models/{bundle.removeprefix('sha256:')}", no_passphrase)
    fx.service.trust(fx.desk.hand_over())
    fx.desired(1, release)
    wait_for(fx.alarms)
    assert f"models/{bundle[7:19]}" in fx.alarms()[0]["reason"]
    assert fx.wanted == []


def test_a_model_that_is_withdrawn_while_it_is_fetched_does_not_run(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    fx.desired(1, release)
    wait_for(lambda: len(fx.wanted) == 2)
    bundle = release.agents[0].bundle
    fx.desk.operator.repository.withdraw(f"models/{bundle.removeprefix('sha256:')}", no_passphrase)
    fx.service.trust(fx.desk.hand_over())
    for digest, data in blobs.items():
        for message in chunks(digest, data):
            fx.service.chunk(message)
    wait_for(lambda: fx.state() == ("failed", 1))
    assert fx.switched == []


def test_a_director_that_no_operator_named_is_refused(fx: Fixture) -> None:
    release, _ = fx.release(2)
    fx.key = fx.folder / "another.key"
    make_key(fx.key)
    fx.desired(1, release)
    wait_for(fx.alarms)
    assert "not signed by the key" in fx.alarms()[0]["reason"]


def with_delta(fx: Fixture, delta: bytes | None = None) -> tuple[Release, dict[Digest, bytes], bytes]:
    """The site runs release 2; release 3 is wished for with a delta from its bundle: the right one, or another."""
    before, blobs = fx.release(2, "1")
    fx.desired(1, before)
    fx.deliver(blobs)
    wait_for(lambda: fx.state() == ("active", 2))
    after, blobs = fx.release(3, "2")
    old, new = Digest(before.agents[0].bundle), Digest(after.agents[0].bundle)
    made = delta or make_delta(fx.blobs.read(old), blobs[new])
    assert made is not None
    described = describe("delta", made).model_dump(mode="json")
    wish = Delta(base=old, target=new, digest=digest_of(made), artifact=described)
    fx.wanted.clear()
    fx.desired(2, after, [wish])
    wait_for(lambda: fx.wanted)
    return after, blobs, made


def test_a_site_makes_the_new_bundle_of_the_old_one_and_a_delta(fx: Fixture) -> None:
    after, _, delta = with_delta(fx)
    assert [want["digest"] for want in fx.wanted] == [digest_of(delta)]
    for message in chunks(digest_of(delta), delta):
        fx.service.chunk(message)
    wait_for(lambda: fx.state() == ("active", 3))
    assert fx.blobs.digests() >= set(after.artifacts)
    assert digest_of(delta) not in fx.blobs.digests(), "it is of no use any more"


def test_a_delta_that_makes_other_bytes_is_recorded_and_the_whole_is_fetched(fx: Fixture) -> None:
    after, blobs, delta = with_delta(fx, b"the director's key was stolen")
    for message in chunks(digest_of(delta), delta):
        fx.service.chunk(message)
    bundle = after.agents[0].bundle
    wait_for(lambda: fx.wanted[-1]["digest"] == bundle)
    assert "it is fetched whole" in fx.alarms()[-1]["reason"]
    for message in chunks(bundle, blobs[Digest(bundle)]):
        fx.service.chunk(message)
    wait_for(lambda: fx.state() == ("active", 3))


def test_a_forged_document_does_not_take_the_place_of_the_one_that_waits(fx: Fixture) -> None:
    """Found by the simulator: only what was verified may wait for the operator's signature."""
    release, blobs = fx.release(2, signed=False)
    fx.service.trust(fx.desk.packed())
    fx.desired(1, release)
    wait_for(fx.alarms)
    genuine, fx.key = fx.key, fx.folder / "thief.key"
    make_key(fx.key)
    fx.desired(9, release)
    wait_for(lambda: len(fx.alarms()) == 2)
    fx.key = genuine
    fx.service.trust(fx.desk.sign(release, blobs))
    wait_for(lambda: len(fx.wanted) == 2)


def test_what_is_whole_on_disk_is_used_and_not_asked_for(fx: Fixture) -> None:
    """Found by the simulator: a process that ended between a delta's last byte and its use."""
    before, blobs = fx.release(2, "1")
    fx.desired(1, before)
    fx.deliver(blobs)
    wait_for(lambda: fx.state() == ("active", 2))
    after, new_blobs = fx.release(3, "2")
    old, new = Digest(before.agents[0].bundle), Digest(after.agents[0].bundle)
    delta = make_delta(fx.blobs.read(old), new_blobs[new])
    assert delta is not None
    fx.blobs.put(digest_of(delta), delta)
    described = describe("delta", delta).model_dump(mode="json")
    fx.wanted.clear()
    fx.desired(2, after, [Delta(base=old, target=new, digest=digest_of(delta), artifact=described)])
    wait_for(lambda: fx.state() == ("active", 3))
    assert fx.wanted == []


def test_an_artifact_that_a_disk_changed_is_fetched_anew_and_the_release_runs(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    bundle = Digest(release.agents[0].bundle)
    fx.blobs.put(bundle, blobs[bundle])
    path = fx.folder / "blobs" / bundle.removeprefix("sha256:")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    fx.desired(1, release)
    wait_for(lambda: fx.wanted)
    fx.deliver(blobs)
    wait_for(lambda: any("it is fetched anew" in each["reason"] for each in fx.alarms()))
    wait_for(lambda: fx.wanted[-1]["digest"] == bundle)
    for message in chunks(bundle, blobs[bundle]):
        fx.service.chunk(message)
    wait_for(lambda: fx.state() == ("active", 2))


def test_a_release_before_that_lost_an_artifact_is_made_whole_and_runs_again(fx: Fixture) -> None:
    before, old = fx.release(2, "1")
    fx.desired(1, before)
    fx.deliver(old)
    wait_for(lambda: fx.state() == ("active", 2))
    fx.confirm()
    after, new = fx.release(3, "2")
    fx.desired(2, after)
    fx.deliver(new)
    wait_for(lambda: fx.state() == ("active", 3))
    lost = Digest(before.agents[0].bundle)
    (fx.folder / "blobs" / lost.removeprefix("sha256:")).unlink()
    fx.wanted.clear()
    Wishes(fx.folder).go_back("it disappoints")
    wait_for(lambda: any("it is not here" in each["reason"] for each in fx.alarms()))
    assert fx.state() == ("active", 3)
    wait_for(lambda: [want["digest"] for want in fx.wanted] == [lost])
    for message in chunks(lost, old[lost]):
        fx.service.chunk(message)
    wait_for(lambda: fx.blobs.has(lost))
    Wishes(fx.folder).go_back("it disappoints")
    wait_for(lambda: fx.state() == ("rolled_back", 2))


def test_going_back_while_the_active_release_is_damaged_settles_that_it_is_not_fetched_anew(fx: Fixture) -> None:
    release, blobs = fx.release(2)
    fx.desired(1, release)
    fx.deliver(blobs)
    wait_for(lambda: fx.state() == ("active", 2))
    fx.confirm()
    (fx.folder / "blobs" / release.agents[0].bundle.removeprefix("sha256:")).unlink()
    fx.restart(passed_over=True)
    wishes = Wishes(fx.folder)
    wishes.hold("audit")
    fx.desired(1, release)
    wishes.go_back("it disappoints")
    wait_for(lambda: fx.state() == ("rolled_back", 1))
    assert fx.service.reported().generation == 1
    fx.wanted.clear()
    wishes.unhold()
    fx.service.link_up()
    fx.desired(1, release)
    wait_for(lambda: fx.service.reported().hold is None)
    newer, more = fx.release(3, "1")
    fx.desired(2, newer)
    fx.deliver({digest: data for digest, data in more.items() if digest not in release.artifacts})
    wait_for(lambda: fx.state() == ("active", 3))
    assert release.agents[0].bundle not in {want["digest"] for want in fx.wanted}
