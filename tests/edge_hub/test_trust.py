"""The hub's half of trust, by the operator's real signatures. Held: sync/TRUST.md."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from operator_desk import Clock, Desk, Operator, no_passphrase
from sqlalchemy import delete, select
from tuf.api.metadata import Metadata, Root

from edge_hub.backup.restoring import restore
from edge_hub.backup.taking import back_up
from edge_hub.broker import BrokerFolder
from edge_hub.database.dialect import lock
from edge_hub.database.schema import audit as audit_table
from edge_hub.database.schema import trust as table
from edge_hub.database.store import Store, UnknownError
from edge_hub.delivery.trust import MAX_AHEAD, MAX_MEDIA_DAYS, RAISE_PAUSE_US, Trust, packed_set, unsigned
from edge_hub.folder import HubFolder
from edge_hub.hub import Hub
from edge_hub.records import audit
from edge_models.digests import digest_of
from edge_models.errors import RejectedError
from edge_sync.documents import Reported
from edge_sync.signing import make_key
from edge_sync.trust.client import Trusted
from edge_sync.trust.collection import unpack
from edge_sync.trust.paths import Kind
from edge_sync.trust.repository import Repository, Target

MODEL = b"the bytes of a model"
FIRST = {"root": 1, "targets": 1, "models": 1, "policies": 1, "agents": 1, "snapshot": 1, "timestamp": 1}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(store: Store, tmp_path: Path, clock: Clock) -> Desk:
    """An operator who handed the first set over."""
    return Desk(tmp_path / "desk", clock, store)


@pytest.fixture
def site(tmp_path: Path, desk: Desk, clock: Clock) -> Trusted:
    """A site that was given the operator's root."""
    return Trusted(tmp_path / "site", desk.root, clock.us)


def sign(desk: Desk, data: bytes = MODEL) -> None:
    """The operator signs a model; the hub does not know of it."""
    desk.operator.repository.add([Target("models", str(digest_of(data)), len(data), "m")], no_passphrase)


def take(desk: Desk, files: Mapping[str, bytes] | None = None) -> dict[str, int]:
    return desk.trust.take(desk.operator.repository.files() if files is None else files, "operator")


def refused(desk: Desk, files: Mapping[str, bytes], says: str) -> None:
    """What is handed over is refused, and what is held stays."""
    before, told = desk.packed(), desk.told
    with pytest.raises(RejectedError, match=says):
        take(desk, files)
    assert (desk.packed(), desk.told) == (before, told)


def noted(store: Store) -> list[tuple[str, str, Any]]:
    with store.reading() as db:
        assert audit.verify(db) is None
        rows = db.execute(select(audit_table).order_by(audit_table.c.id))
        return [(row.who, row.what, row.detail) for row in rows]


def expires(desk: Desk, role: str) -> float:
    """In how many days what is published of this role ends, from the clock's first second."""
    files = unpack(desk.packed())
    [data] = [data for name, data in files.items() if name.endswith(f"{role}.json")]
    metadata: Metadata[Any] = Metadata.from_bytes(data)
    lasts: timedelta = metadata.signed.expires - Clock().at
    return lasts / timedelta(days=1)


def test_the_first_set_is_held_signed_and_published(desk: Desk, site: Trusted, store: Store) -> None:
    assert (desk.trust.standing()["versions"], desk.told) == (FIRST, 1)
    assert desk.trust.standing()["root"] == desk.root.decode()
    assert set(unpack(desk.packed())) == {*desk.operator.repository.files(), "1.snapshot.json", "timestamp.json"}
    trust = site.take(desk.packed())
    assert trust is not None
    assert trust.versions == FIRST
    assert site.directors == {desk.trust.director}
    assert noted(store) == [("operator", "trust metadata", {"versions": FIRST})]


def test_a_hub_that_was_handed_nothing(store: Store, tmp_path: Path, clock: Clock) -> None:
    key = tmp_path / "online.key"
    make_key(key)
    trust = Trust(store, key, "0" * 64, lambda: pytest.fail("nothing is new"), clock.us)
    assert trust.standing() == {"versions": {}, "root": None}
    assert trust.renew() is False
    with store.writing() as db:
        assert packed_set(db) is None
        assert trust.answer(db, "plant-01", reported(9)) is False
        with pytest.raises(UnknownError, match="holds no trust metadata"):
            unsigned(db, {})
    with pytest.raises(UnknownError, match="holds no trust metadata"):
        trust.media(30, "operator")
    for files in ({}, {"1.targets.json": b"{}"}):
        with pytest.raises(RejectedError, match=r"it holds no 1\.root\.json"):
            trust.take(files, "operator")


def test_the_same_again_changes_nothing(desk: Desk, store: Store) -> None:
    before = desk.packed()
    assert take(desk) == FIRST
    assert take(desk, unpack(before)) == FIRST, "with what the hub itself signed beside it"
    assert (desk.packed(), desk.told, len(noted(store))) == (before, 1, 1)


def test_what_is_newer_takes_its_place(desk: Desk, site: Trusted, store: Store) -> None:
    site.take(desk.packed())
    sign(desk)
    versions = take(desk)
    assert versions == FIRST | {"models": 2, "snapshot": 2, "timestamp": 2}
    assert (desk.trust.standing()["versions"], desk.told) == (versions, 2)
    assert "1.models.json" not in unpack(desk.packed()), "only the newest is published"
    site.take(desk.packed())
    assert site.refresh().allows("models", str(digest_of(MODEL)), len(MODEL))


def test_what_is_older_is_refused(desk: Desk) -> None:
    old = desk.operator.repository.files()
    sign(desk)
    take(desk)
    refused(desk, old, r"1\.models\.json is older than version 2, which this hub holds")


def test_two_copies_of_the_operators_folder_do_not_undo_each_others_work(desk: Desk, tmp_path: Path) -> None:
    shutil.copytree(desk.operator.folder, tmp_path / "copy")
    other = Repository(tmp_path / "copy", desk.operator.now)
    sign(desk)
    desk.hand_over()
    other.add([Target("models", str(digest_of(b"another")), 7, "m")], no_passphrase)
    with pytest.raises(RejectedError, match=r"holds another 2\.models\.json: are there two copies"):
        desk.trust.take(other.files(), "operator")


def test_another_operator_is_refused(desk: Desk, tmp_path: Path, clock: Clock) -> None:
    another = Operator(tmp_path / "another", desk.trust.online_key, desk.trust.director, clock)
    refused(desk, another.repository.files(), r"holds another 1\.root\.json: is it of another operator\?")


def test_the_root_is_walked_from_the_one_that_is_held(desk: Desk, site: Trusted) -> None:
    site.take(desk.packed())
    for version in (2, 3, 4):
        desk.operator.repository.rotate("root", no_passphrase)
        if version != 3:  # two at once are taken as well
            assert take(desk)["root"] == version
    newest = desk.operator.repository.files()["4.root.json"]
    assert desk.trust.standing()["root"] == newest.decode()
    site.take(desk.packed())
    assert site.refresh().versions["root"] == 4, "a site that has the first one follows"


def resigned(data: bytes, keep: Callable[[str, int], bool]) -> bytes:
    """The root with only some of its signatures, by key id and place."""
    document = json.loads(data)
    kept = [each for place, each in enumerate(document["signatures"]) if keep(each["keyid"], place)]
    return json.dumps(document | {"signatures": kept}).encode()


def test_a_root_that_the_one_before_it_did_not_sign_is_refused(desk: Desk) -> None:
    first: Metadata[Root] = Metadata.from_bytes(desk.root)
    old = set(first.signed.roles["root"].keyids)
    desk.operator.repository.rotate("root", no_passphrase)
    files = desk.operator.repository.files()
    new = files["2.root.json"]
    for keep in (
        lambda *_: False,
        lambda keyid, _: keyid not in old,  # whoever made it, and nobody else
        lambda keyid, _: keyid in old,  # and not the ones it names
    ):
        refused(desk, files | {"2.root.json": resigned(new, keep)}, "was signed by 0/2 keys")
    assert take(desk)["root"] == 2


def test_a_root_by_one_key_of_those_that_must_sign_is_refused(desk: Desk, store: Store) -> None:
    desk.operator.repository.renew(no_passphrase, ["root"])
    desk.operator.repository.add_key("targets", no_passphrase)
    files = desk.operator.repository.files()
    one = {"2.root.json": resigned(files["2.root.json"], lambda _, place: place == 0)}
    refused(desk, files | one, "root was signed by 1/2 keys")
    first = files | {"1.root.json": resigned(desk.root, lambda _, place: place == 0)}
    refused(desk, first, r"holds another 1\.root\.json")
    with store.writing() as db:
        db.execute(delete(table))
    with pytest.raises(RejectedError, match="root was signed by 1/2 keys"):
        take(desk, first)
    assert desk.trust.standing()["versions"] == {}


def test_a_root_that_skips_one_does_not_count(desk: Desk) -> None:
    for _ in range(2):
        desk.operator.repository.rotate("root", no_passphrase)
    files = desk.operator.repository.files()
    del files["2.root.json"]
    assert take(desk, files)["root"] == 1
    assert "3.root.json" not in unpack(desk.packed())


def test_targets_that_their_role_did_not_sign_are_refused(desk: Desk) -> None:
    sign(desk)
    files = desk.operator.repository.files()
    for name in ("1.targets.json", "2.models.json"):
        document = json.loads(files[name])
        document["signed"]["expires"] = "2099-01-01T00:00:00Z"
        refused(desk, files | {name: json.dumps(document).encode()}, "was signed by 0/1 keys")
    files["3.models.json"] = files["2.models.json"]
    refused(desk, files, r"3\.models\.json is version 2")


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("1.root.json", b"{}", "trust metadata: "),
        ("2.root.json", b'{"signatures": [], "signed": {"_type": "root"}}', "trust metadata: "),
        ("2.root.json", b"\xff", "trust metadata: "),
        ("1.models.json", b"[" * 100_000, "trust metadata: "),
        ("1.models.json", b"null", "trust metadata: "),
        ("readme.txt", b"", "'readme.txt' is no name of it"),
        ("../1.root.json", b"", "is no name of it"),
        ("9.targets.json", bytes(4 * 1024 * 1024 + 1), "the most is"),
    ],
)
def test_what_is_no_metadata_is_refused(desk: Desk, name: str, data: bytes, says: str) -> None:
    refused(desk, desk.operator.repository.files() | {name: data}, says)


def test_a_set_that_lacks_a_role_is_refused(desk: Desk) -> None:
    for name, role in (("1.targets.json", "targets"), ("1.policies.json", "policies")):
        files = desk.operator.repository.files()
        del files[name]
        refused(desk, files, f"it holds no {role}")


def test_another_hubs_keys_are_refused_with_what_to_do(desk: Desk, tmp_path: Path, clock: Clock, store: Store) -> None:
    other = make_key(tmp_path / "other.key")
    online, director = desk.trust.online_key, desk.trust.director
    with store.writing() as db:
        db.execute(delete(table))
    for number, keys, says in (
        (1, (other, director), f"made anew: `edge-agent trust rotate online` with {online}"),
        (2, (online, other), f"do not name this hub's director key.* trust rotate director` with {director}"),
    ):
        made = Operator(tmp_path / f"operator-{number}", *keys, clock)
        with pytest.raises(RejectedError, match=says):
            take(desk, made.repository.files())
    made.repository.rotate("director", no_passphrase, public=director)
    assert take(desk, made.repository.files())["targets"] == 2, "and that is the way out"


@pytest.mark.parametrize(
    ("days", "renewed", "says"),
    [
        (366, [], r"1\.targets\.json is expired: `edge-agent trust renew`"),
        (366, ["targets", "models", "policies"], r"1\.agents\.json is expired"),
        (731, ["targets", "models", "policies", "agents"], "its newest root is expired"),
    ],
)
def test_what_has_ended_is_refused(desk: Desk, clock: Clock, days: int, renewed: list[str], says: str) -> None:
    sign(desk)
    files = desk.operator.repository.files()
    clock.at += timedelta(days=days)
    if renewed:
        desk.operator.repository.renew(no_passphrase, renewed)
        files = desk.operator.repository.files()
    refused(desk, files, says)
    desk.operator.repository.renew(no_passphrase)
    take(desk)


def test_the_timestamp_is_signed_anew_each_day(desk: Desk, site: Trusted, clock: Clock) -> None:
    assert (expires(desk, "timestamp"), expires(desk, "snapshot")) == (7, 90)
    version = 1
    for hours, due in ((12, False), (11, False), (1, True), (23, False), (1, True), (24 * 6, True), (24 * 300, True)):
        clock.at += timedelta(hours=hours)
        before, told = desk.packed(), desk.told
        assert desk.trust.renew() is due
        assert (desk.packed() != before, desk.told - told) == (due, int(due))
        version += due
        assert desk.trust.standing()["versions"] == FIRST | {"snapshot": version, "timestamp": version}
        site.take(desk.packed())
        assert site.refresh().versions["timestamp"] == version
        assert desk.trust.renew() is False


def reported(timestamp: int, **more: int) -> Reported:
    trust = FIRST | {"timestamp": timestamp, "snapshot": 1, **more}
    return Reported(release=1, generation=1, state="active", trust=trust)


@pytest.fixture
def answer(desk: Desk, store: Store) -> Callable[..., bool]:
    """What plant-01 reports."""

    def tell(timestamp: int, **more: int) -> bool:
        with store.writing() as db:
            return desk.trust.answer(db, "plant-01", reported(timestamp, **more))

    return tell


def online(desk: Desk) -> tuple[int, int]:
    versions = desk.trust.standing()["versions"]
    return versions["snapshot"], versions["timestamp"]


def test_versions_are_raised_above_what_a_site_saw(
    desk: Desk, site: Trusted, store: Store, answer: Callable[..., bool], clock: Clock
) -> None:
    for nothing_new in (0, 1):
        assert answer(nothing_new) is False
    assert answer(41) is True
    assert online(desk) == (42, 42)
    clock.at += timedelta(microseconds=RAISE_PAUSE_US)
    assert answer(42) is False, "it is where it should be"
    assert answer(7, snapshot=50) is True
    assert online(desk) == (51, 51)
    assert desk.trust.standing()["versions"] == FIRST | {"snapshot": 51, "timestamp": 51}
    site.take(desk.packed())
    assert site.refresh().versions["timestamp"] == 51
    raised = ("hub", "trust versions raised", {"site": "plant-01", "above": 41})
    assert noted(store)[1] == raised


def test_a_site_that_is_behind_is_told_again_once_a_minute_and_nothing_is_signed(
    desk: Desk, store: Store, answer: Callable[..., bool], clock: Clock
) -> None:
    assert desk.trust.renew() is False
    before = desk.packed()
    with store.writing() as db:
        nothing = Reported(release=1, generation=1, state="active")
        assert [desk.trust.answer(db, "plant-01", nothing) for _ in range(3)] == [True, False, False]
    clock.at += timedelta(microseconds=RAISE_PAUSE_US)
    with store.writing() as db:
        assert desk.trust.answer(db, "plant-01", nothing) is True
    assert answer(41) is True, "what has to be raised does not wait for that"
    assert before != desk.packed()


def test_a_site_of_another_history_at_the_same_version_is_signed_above(desk: Desk, answer: Callable[..., bool]) -> None:
    """A hub that was restored reached by itself the very version that its sites have of before."""
    assert answer(1, models=5) is True
    assert online(desk) == (2, 2)


def test_a_site_that_reports_ever_higher_versions_raises_them_once_a_minute(
    desk: Desk, store: Store, answer: Callable[..., bool], clock: Clock
) -> None:
    assert [answer(version) for version in range(10, 20)] == [True] + [False] * 9
    clock.at += timedelta(microseconds=RAISE_PAUSE_US - 1)
    assert answer(30) is False
    clock.at += timedelta(microseconds=1)
    assert answer(30) is True
    assert (online(desk), len(noted(store))) == ((31, 31), 3)


def test_versions_beyond_belief_are_not_raised(desk: Desk, answer: Callable[..., bool]) -> None:
    for lie in (2**53 - 1, 1 + MAX_AHEAD + 1):
        assert answer(lie) is False
        assert answer(1, snapshot=lie) is False
    assert online(desk) == (1, 1)
    assert answer(1 + MAX_AHEAD) is True
    assert online(desk) == (2 + MAX_AHEAD, 2 + MAX_AHEAD)


def test_what_the_operator_signed_is_never_raised(
    desk: Desk, answer: Callable[..., bool], caplog: pytest.LogCaptureFixture
) -> None:
    assert answer(1, root=9, models=9, a_newer_kits_role=9) is True
    assert desk.trust.standing()["versions"] == FIRST | {"snapshot": 2, "timestamp": 2}
    assert [(each.msg, getattr(each, "role", None)) for each in caplog.records] == [
        ("trust_metadata_behind", "root"),
        ("trust_metadata_behind", "models"),
    ], "the operator has to hand it over again"


@pytest.mark.parametrize("store", ["postgresql"], indirect=True)
def test_two_workers_that_raise_at_once_do_not_go_back(desk: Desk, store: Store, clock: Clock) -> None:
    """The second one reads what is held only when it is alone with it."""
    second = Trust(store, desk.online, desk.trust.director, lambda: None, clock.us)
    outcome: list[bool] = []

    def other_worker() -> None:
        with store.writing(shared=True) as db:
            outcome.append(second.answer(db, "plant-02", reported(20)))

    thread = threading.Thread(target=other_worker)
    with store.writing(shared=True) as db:
        lock(db, audit.LOCK)
        lock(db, "trust")
        thread.start()
        wait_until(lambda: waiting(store))
        assert desk.trust.answer(db, "plant-01", reported(40))
    thread.join(20)
    assert outcome == [True]
    assert online(desk)[1] > 41
    with store.reading() as db:
        assert audit.verify(db) is None


def waiting(store: Store) -> bool:
    """Whether somebody waits for a lock of this database."""
    query = (
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE datname = current_database() AND NOT granted"
    )
    with store.reading() as db:
        return bool(db.exec_driver_sql(query).scalar_one())


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_stick_may_travel_longer_than_what_is_published_lasts(
    desk: Desk, site: Trusted, clock: Clock, store: Store, tmp_path: Path
) -> None:
    stick = desk.trust.media(60, "operator")
    assert desk.told == 2
    assert (expires(desk, "timestamp"), expires(desk, "snapshot")) == (7, 90)
    assert noted(store)[-1] == ("operator", "trust metadata for media", {"valid_days": 60})
    clock.at += timedelta(days=59)
    site.take(stick)
    assert site.refresh().versions == FIRST | {"snapshot": 2, "timestamp": 2}
    late = Trusted(tmp_path / "late", desk.root, clock.us)
    with pytest.raises(RejectedError, match=r"timestamp.json is expired"):
        late.take(desk.packed())
    assert desk.trust.renew()
    site.take(desk.packed())
    assert site.refresh().versions["timestamp"] == 4, "the link brings nothing older than the stick did"
    clock.at += timedelta(days=2)
    with pytest.raises(RejectedError, match=r"timestamp.json is expired"):
        late.take(stick)


def test_a_stick_for_a_year_has_a_snapshot_that_lasts_as_long(desk: Desk, site: Trusted, clock: Clock) -> None:
    stick = desk.trust.media(364, "operator")
    clock.at += timedelta(days=363)
    site.take(stick)
    assert site.refresh().versions["snapshot"] == 2


@pytest.mark.parametrize("days", [0, -1, MAX_MEDIA_DAYS + 1])
def test_a_stick_for_no_time_or_for_ever(desk: Desk, days: int) -> None:
    with pytest.raises(RejectedError, match=f"valid for {days} days: wanted 1 to {MAX_MEDIA_DAYS}"):
        desk.trust.media(days, "operator")
    assert online(desk) == (1, 1)


def test_what_is_not_signed_is_named(desk: Desk, store: Store) -> None:
    digest = str(digest_of(MODEL))
    wanted: dict[tuple[Kind, str], str] = {("models", digest): "the model", ("policies", digest): "the policy"}

    def first_missing(*kinds: Kind) -> str | None:
        with store.reading() as db:
            return unsigned(db, {(kind, digest): wanted[kind, digest] for kind in kinds})

    assert first_missing() is None
    assert first_missing("models", "policies") == "the model"
    sign(desk)
    assert first_missing("models") == "the model", "the hub was not told yet"
    take(desk)
    assert first_missing("models") is None
    assert first_missing("models", "policies") == "the policy", "what is a model is no policy"
    desk.operator.repository.withdraw(f"models/{digest.removeprefix('sha256:')}", no_passphrase)
    take(desk)
    assert first_missing("models") == "the model"


@pytest.fixture
def hubs(tmp_path: Path) -> Iterator[Callable[[Path], Hub]]:
    """Opens a hub's folder; no link is started."""
    made: list[Hub] = []

    def open_hub(path: Path) -> Hub:
        folder = HubFolder(path)
        made.append(Hub(folder, BrokerFolder(folder.broker), "mqtt://127.0.0.1:1883"))
        return made[-1]

    yield open_hub
    for hub in made:
        hub.close()


def test_a_hub_that_is_restored_signs_above_what_its_sites_saw(hubs: Callable[[Path], Hub], tmp_path: Path) -> None:
    """With its old online key, which the backup holds: no operator is needed."""
    hub = hubs(tmp_path / "hub")
    operator = Operator(tmp_path / "trust", hub.trust.online_key, hub.director_key)
    hub.trust.take(operator.repository.files(), "operator")
    back_up(hub.folder.path, tmp_path / "backup", 1)
    site = Trusted(tmp_path / "site", operator.root, lambda: time.time_ns() // 1000)
    operator.repository.add([Target("models", str(digest_of(MODEL)), len(MODEL), "m")], no_passphrase)
    hub.trust.take(operator.repository.files(), "operator")
    for _ in range(3):
        hub.trust.media(9, "operator")
    saw = refreshed(site, hub)
    assert (saw["timestamp"], saw["models"]) == (8, 2)

    restore(tmp_path / "backup", tmp_path / "again", False, 2)
    again = hubs(tmp_path / "again")
    assert again.trust.online_key == hub.trust.online_key
    assert again.trust.standing()["versions"] == FIRST
    with pytest.raises(RejectedError, match="version"):
        refreshed(site, again)
    with again.store.writing() as db:
        assert again.trust.answer(db, "plant-01", reported(saw["timestamp"], models=2, snapshot=saw["snapshot"]))
    with pytest.raises(RejectedError, match="models"):
        refreshed(site, again)  # what the operator signed since is missing: nothing goes back
    again.trust.take(operator.repository.files(), "operator")
    assert refreshed(site, again) == saw | {"snapshot": 10, "timestamp": 10}


def refreshed(site: Trusted, hub: Hub) -> dict[str, int]:
    """What the site verified of what the hub publishes."""
    with hub.store.reading() as db:
        packed = packed_set(db)
    assert packed is not None
    trust = site.take(packed)
    assert trust is not None
    return trust.versions
