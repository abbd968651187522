"""A site's view of what may run, over metadata that a real operator and a real hub signed (sync/TRUST.md)."""

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from operator_desk import Clock, Desk, no_passphrase

from edge_models.digests import digest_of
from edge_models.errors import ConfigError, RejectedError
from edge_sync.signing import public_key
from edge_sync.trust.client import Trusted
from edge_sync.trust.clock import BUILT_US, raised, reference_us
from edge_sync.trust.collection import pack, unpack
from edge_sync.trust.paths import MAX_FILE_BYTES, MAX_FILES, MAX_PACKED_BYTES
from edge_sync.trust.repository import Target

MODEL = b"the bytes of a model"
DAY_US = 86_400_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(tmp_path: Path, clock: Clock) -> Iterator[Desk]:
    made = Desk(tmp_path / "desk", clock)
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path, desk: Desk, clock: Clock) -> Trusted:
    return Trusted(tmp_path / "site", desk.root, clock.us)


def signs(desk: Desk, data: bytes) -> str:
    """The operator signs these bytes as a model; their digest."""
    digest = str(digest_of(data))
    desk.operator.repository.add([Target("models", digest, len(data), "m")], no_passphrase)
    return digest


def test_what_the_operator_signed_may_run_and_nothing_else(site: Trusted, desk: Desk) -> None:
    assert site.directors == frozenset()
    digest = signs(desk, MODEL)
    trust = site.take(desk.hand_over())
    assert trust is not None
    assert trust.allows("models", digest, len(MODEL))
    assert not trust.allows("models", digest, len(MODEL) + 1)
    assert not trust.allows("policies", digest)
    assert not trust.allows("models", str(digest_of(b"another")))
    assert site.directors == {public_key(desk.director)}
    assert site.take(desk.packed()) is None, "the same again is no news"


def test_what_was_verified_is_known_after_a_restart_and_offline(
    site: Trusted, desk: Desk, clock: Clock, tmp_path: Path
) -> None:
    site.take(desk.hand_over())
    clock.at += timedelta(days=3000)
    again = Trusted(tmp_path / "site", desk.root, clock.us)
    assert again.directors == site.directors, "running needs no fresh metadata"
    with pytest.raises(RejectedError, match=r"expired: nothing new is accepted"):
        again.refresh()


def test_an_expired_timestamp_stops_what_is_new(site: Trusted, desk: Desk, clock: Clock) -> None:
    site.take(desk.hand_over())
    clock.at += timedelta(days=8)
    with pytest.raises(RejectedError, match=r"timestamp.json is expired"):
        site.refresh()
    assert desk.trust.renew() is True
    site.take(desk.packed())


def test_an_older_state_replayed_is_refused(site: Trusted, desk: Desk) -> None:
    old = desk.packed()
    digest = signs(desk, MODEL)
    new = desk.hand_over()
    site.take(new)
    assert site.refresh().allows("models", digest)
    with pytest.raises(RejectedError, match=r"version"):
        site.take(old)
    site.take(new)
    assert site.refresh().allows("models", digest)


def test_parts_of_two_states_are_refused(site: Trusted, desk: Desk) -> None:
    old = unpack(desk.packed())
    signs(desk, MODEL)
    new = unpack(desk.hand_over())
    stale = {name: data for name, data in old.items() if name.endswith("models.json")}
    mixed = {name: data for name, data in new.items() if not name.endswith("models.json")}
    newest = next(name for name in new if name.endswith("models.json"))
    with pytest.raises(RejectedError, match=r"404|no 2.models|Failed"):
        site.take(pack(mixed | stale))
    with pytest.raises(RejectedError, match=r"length|hash|Observed"):
        site.take(pack(mixed | {newest: next(iter(stale.values()))}))


def test_targets_that_the_hubs_own_key_signed_are_refused(site: Trusted, desk: Desk) -> None:
    """Whoever has the hub can sign snapshot and timestamp over a model of their own: sites refuse it."""
    from tuf.api.metadata import Metadata, MetaFile, Snapshot, TargetFile, Targets, Timestamp

    from edge_sync.signing import file_signer

    files = unpack(desk.packed())
    forged = {name: data for name, data in files.items() if not name.endswith(("snapshot.json", "timestamp.json"))}
    models: Metadata[Targets] = Metadata.from_bytes(forged.pop("1.models.json"))
    evil = str(digest_of(b"evil")).removeprefix("sha256:")
    models.signed.targets[f"models/{evil}"] = TargetFile(4, {"sha256": evil}, f"models/{evil}")
    models.signed.version = 2
    online = file_signer(desk.director.with_name("online.key"))
    models.sign(online)
    forged["2.models.json"] = models.to_bytes()
    old: Metadata[Snapshot] = Metadata.from_bytes(next(d for n, d in files.items() if n.endswith("snapshot.json")))
    snapshot = Metadata(Snapshot(version=9, expires=old.signed.expires, meta=dict(old.signed.meta)))
    snapshot.signed.meta["models.json"] = MetaFile(2)
    snapshot.sign(online)
    timestamp = Metadata(Timestamp(version=9, expires=old.signed.expires, snapshot_meta=MetaFile(9)))
    timestamp.sign(online)
    forged |= {"9.snapshot.json": snapshot.to_bytes(), "timestamp.json": timestamp.to_bytes()}
    with pytest.raises(RejectedError, match=r"models was signed by 0/1"):
        site.take(pack(forged))


def test_a_site_follows_five_roots_that_it_slept_through(site: Trusted, desk: Desk) -> None:
    site.take(desk.packed())
    assert site.refresh().versions["root"] == 1
    for _ in range(5):
        desk.operator.repository.rotate("targets", no_passphrase)
    site.take(desk.hand_over())
    assert site.refresh().versions["root"] == 6


def test_a_withdrawn_model_may_not_run_any_more(site: Trusted, desk: Desk) -> None:
    digest = signs(desk, MODEL)
    site.take(desk.hand_over())
    assert site.refresh().allows("models", digest)
    desk.operator.repository.withdraw(f"models/{digest.removeprefix('sha256:')}", no_passphrase)
    site.take(desk.hand_over())
    assert not site.refresh().allows("models", digest)


def test_a_director_that_was_revoked_counts_no_more(site: Trusted, desk: Desk, tmp_path: Path) -> None:
    site.take(desk.hand_over())
    # The key of targets is revoked by a new root; the targets it signed are worth nothing, even before new ones come.
    desk.operator.repository.rotate("targets", no_passphrase)
    files = unpack(desk.packed()) | {"2.root.json": desk.operator.repository.files()["2.root.json"]}
    with pytest.raises(RejectedError):
        site.take(pack(files))
    assert site.directors == frozenset()


def test_a_clock_in_1970_does_not_make_old_metadata_fresh(desk: Desk, clock: Clock, tmp_path: Path) -> None:
    packed = desk.packed()
    site = Trusted(tmp_path / "clockless", desk.root, lambda: 0)
    site.take(packed)
    trust = site.refresh()
    assert site.behind_us == BUILT_US
    site.heard_time(clock.us() + 30 * DAY_US, trust)
    with pytest.raises(RejectedError, match=r"timestamp.json is expired"):
        site.refresh()
    again = Trusted(tmp_path / "clockless", desk.root, lambda: 0)
    assert again.behind_us == clock.us() + 30 * DAY_US, "the floor is kept"


def test_a_time_signed_online_raises_the_floor_at_most_to_the_day_before_offline_signatures_end(
    desk: Desk, clock: Clock, tmp_path: Path
) -> None:
    site = Trusted(tmp_path / "clockless", desk.root, lambda: 0)
    site.take(desk.packed())
    trust = site.refresh()
    site.heard_time(2**52, trust)
    assert site.behind_us == trust.ends_us - DAY_US
    assert abs(trust.ends_us - (clock.us() + 365 * DAY_US)) < DAY_US


@given(st.integers(0, 2**53), st.integers(0, 2**53), st.integers(0, 2**53))
def test_the_reference_never_falls(now: int, floor: int, signed: int) -> None:
    ends = 2**52
    after = raised(floor, signed, ends)
    assert after >= floor
    assert reference_us(now, after) >= max(now, floor, BUILT_US)


def test_a_root_that_is_none_is_refused_at_the_start(desk: Desk, clock: Clock, tmp_path: Path) -> None:
    changed = json.loads(desk.root)
    changed["signed"]["version"] = 2
    for root in (b"", b"{}", b"[" * 100_000, json.dumps(changed).encode()):
        with pytest.raises(ConfigError, match="root"):
            Trusted(tmp_path / "none", root, clock.us)


def test_another_operators_metadata_are_refused(desk: Desk, clock: Clock, tmp_path: Path) -> None:
    other = Desk(tmp_path / "other", clock)
    site = Trusted(tmp_path / "site", other.root, clock.us)
    with pytest.raises(RejectedError, match="was signed by 0"):
        site.take(desk.packed())
    other.close()


def test_hostile_sets_are_refused_and_what_is_trusted_stays(site: Trusted, desk: Desk) -> None:
    digest = signs(desk, MODEL)
    good = desk.hand_over()
    site.take(good)
    for name in ("../x.json", "1.root.json/..", "0.root.json", "x.json", "1.evil.json", "timestamp.json\0"):
        with pytest.raises(RejectedError, match="no name"):
            pack({name: b"{}"})
    many = {f"{n}.root.json": b"" for n in range(1, MAX_FILES + 2)}
    with pytest.raises(RejectedError, match="the most is"):
        pack(many)
    with pytest.raises(RejectedError, match="the most is"):
        pack({"1.root.json": bytes(MAX_FILE_BYTES + 1)})
    with pytest.raises(RejectedError, match="packed"):
        site.take(b"ET1" + bytes(MAX_PACKED_BYTES))
    for hostile in (
        b"{}",
        b"[" * 200_000,
        b'{"signed": 1, "signatures": 2}',
        json.dumps({"signed": {"_type": "timestamp", "version": "1"}, "signatures": []}).encode(),
    ):
        with pytest.raises(RejectedError):
            site.take(pack(unpack(good) | {"timestamp.json": hostile}))
    site.take(good)
    assert site.refresh().allows("models", digest)


def test_a_power_cut_while_the_root_is_renamed_loses_no_director(
    site: Trusted, desk: Desk, clock: Clock, tmp_path: Path
) -> None:
    desk.operator.repository.rotate("targets", no_passphrase)
    site.take(desk.hand_over())
    (tmp_path / "site" / "metadata" / "root.json").unlink()
    assert Trusted(tmp_path / "site", desk.root, clock.us).directors == site.directors != frozenset()


def test_a_bomb_is_not_unpacked() -> None:
    from backports import zstd

    bomb = b"ET1" + zstd.compress(bytes(512 * 1024 * 1024))
    assert len(bomb) < MAX_PACKED_BYTES
    with pytest.raises(RejectedError, match="over"):
        unpack(bomb)


@given(st.binary(max_size=2000))
def test_only_a_refusal_leaves_the_unpacker(data: bytes) -> None:
    for message in (data, b"ET1" + data):
        with contextlib.suppress(RejectedError):
            unpack(message)


def test_metadata_are_durable_before_anything_rests_on_them(
    site: Trusted, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def note(fd: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        real(fd)

    monkeypatch.setattr(os, "fsync", note)
    site.take(desk.packed())
    assert {"timestamp.json", "snapshot.json", "targets.json", "models.json", "metadata"} <= set(synced)
