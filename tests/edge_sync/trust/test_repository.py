"""What an operator signs, as python-tuf's own `Updater` sees it: a site that has root 1 and whatever is published."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError, RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater

from edge_models.errors import ConfigError, RejectedError, RetryableError
from edge_sync.trust.folder import locked
from edge_sync.trust.keys import KeyRing, public_from
from edge_sync.trust.paths import EXPIRY, OFFLINE, director_path
from edge_sync.trust.repository import Repository, Target

MODEL = Target("models", "sha256:" + "a" * 64, 1000, "trace 2")
POLICY = Target("policies", "sha256:" + "b" * 64, 100, "watch 1")
AGENT = Target("agents", "sha256:" + "c" * 64, 10, "watch")


def no_passphrase(name: str) -> None:
    return None


def today() -> datetime:
    return datetime.now(UTC)


def public_of(signer: CryptoSigner) -> str:
    return str(signer.public_key.keyval["public"])


class Hub:
    """The online keys, and what is published: the operator's files under a snapshot and a timestamp."""

    def __init__(self) -> None:
        self.online, self.director = CryptoSigner.generate_ed25519(), CryptoSigner.generate_ed25519()
        self.published: dict[str, bytes] = {}
        self._version = 0

    def publish(self, files: dict[str, bytes]) -> None:
        self._version += 1
        versions = {name.partition(".")[2]: int(name.partition(".")[0]) for name in files if ".root." not in name}
        snapshot = Metadata(Snapshot(self._version, expires=today() + EXPIRY["snapshot"]))
        snapshot.signed.meta = {name: MetaFile(version) for name, version in versions.items()}
        timestamp = Metadata(Timestamp(self._version, expires=today() + EXPIRY["timestamp"]))
        timestamp.signed.snapshot_meta = MetaFile(self._version)
        for metadata in (snapshot, timestamp):
            metadata.sign(self.online)
        self.published = {
            **files,
            f"{self._version}.snapshot.json": snapshot.to_bytes(),
            "timestamp.json": timestamp.to_bytes(),
        }


class Published(FetcherInterface):
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = url.rpartition("/")[2]
        if name not in self._hub.published:
            raise DownloadHTTPError(f"no {name}", 404)
        yield self._hub.published[name]


class Site:
    """Was given a root by hand; everything else comes from the hub."""

    def __init__(self, folder: Path, hub: Hub, root: bytes) -> None:
        folder.mkdir()
        self._folder, self._hub, self._root = folder, hub, root

    def updater(self) -> Updater:
        return Updater(str(self._folder), "hub:/", fetcher=Published(self._hub), bootstrap=self._root)

    def finds(self, path: str) -> TargetFile | None:
        return self.updater().get_targetinfo(path)

    def trusted_version(self, role: str) -> int:
        return int(Metadata.from_file(str(self._folder / f"{role}.json")).signed.version)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def repository(tmp_path: Path, hub: Hub) -> Repository:
    return Repository.create(tmp_path / "trust", public_of(hub.online), public_of(hub.director), no_passphrase, today)


@pytest.fixture
def site(tmp_path: Path, hub: Hub, repository: Repository) -> Site:
    return Site(tmp_path / "site", hub, repository.files()["1.root.json"])


def versions(repository: Repository) -> dict[str, int | None]:
    return {row.role: row.version for row in repository.status() if row.role in OFFLINE}


def keyids(repository: Repository, role: str) -> list[str]:
    return [key.keyid for row in repository.status() if row.role == role for key in row.keys]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_site_finds_what_was_signed_and_nothing_else(repository: Repository, hub: Hub, site: Site) -> None:
    assert repository.add([MODEL, POLICY, AGENT], no_passphrase) == [MODEL.path, POLICY.path, AGENT.path]
    hub.publish(repository.files())
    found = site.finds(MODEL.path)
    assert found is not None
    assert (found.length, found.hashes, found.custom) == (1000, {"sha256": "a" * 64}, {"name": "trace 2"})
    assert site.finds(AGENT.path) is not None
    assert site.finds("models/" + "d" * 64) is None
    director = site.finds(director_path(public_of(hub.director)))
    assert director is not None
    director.verify_length_and_hashes(bytes.fromhex(public_of(hub.director)))


def test_the_first_metadata_are_as_the_roles_say(repository: Repository, hub: Hub) -> None:
    files = repository.files()
    assert set(files) == {f"1.{role}.json" for role in OFFLINE}
    root: Metadata[Root] = Metadata.from_bytes(files["1.root.json"])
    assert root.signed.consistent_snapshot is True
    assert (root.signed.roles["root"].threshold, len(root.signed.roles["root"].keyids)) == (2, 3)
    assert root.signed.roles["snapshot"].keyids == [hub.online.public_key.keyid]
    assert root.signed.roles["timestamp"].keyids == [hub.online.public_key.keyid]
    targets: Metadata[Targets] = Metadata.from_bytes(files["1.targets.json"])
    assert targets.signed.delegations is not None
    assert targets.signed.delegations.roles is not None
    said = {name: (role.paths, role.terminating) for name, role in targets.signed.delegations.roles.items()}
    assert said == {kind: ([f"{kind}/*"], True) for kind in ("models", "policies", "agents")}


def test_only_what_changed_gets_a_version(repository: Repository) -> None:
    repository.add([MODEL, POLICY], no_passphrase)
    assert versions(repository) == {"root": 1, "targets": 1, "models": 2, "policies": 2, "agents": 1}
    before = contents(repository.folder)
    assert repository.add([MODEL], no_passphrase) == []
    assert contents(repository.folder) == before
    assert repository.add([MODEL, AGENT], no_passphrase) == [AGENT.path]
    assert versions(repository) == {"root": 1, "targets": 1, "models": 2, "policies": 2, "agents": 2}
    assert repository.signed()[MODEL.path] == Target("models", "a" * 64, 1000, "trace 2")


def test_a_target_that_is_withdrawn_is_gone(repository: Repository, hub: Hub, site: Site) -> None:
    repository.add([MODEL, POLICY], no_passphrase)
    hub.publish(repository.files())
    assert site.finds(MODEL.path) is not None
    repository.withdraw(MODEL.path, no_passphrase)
    hub.publish(repository.files())
    assert site.finds(MODEL.path) is None
    assert site.finds(POLICY.path) is not None
    for path in (MODEL.path, director_path(public_of(hub.director)), "nothing"):
        with pytest.raises(ConfigError, match="is not signed"):
            repository.withdraw(path, no_passphrase)


@pytest.mark.parametrize(
    "target",
    [
        Target("models", "sha256:" + "a" * 63, 1, "short"),
        Target("models", "A" * 64, 1, "upper"),
        Target("root", "a" * 64, 1, "no kind"),  # type: ignore[arg-type]
        Target("models", "a" * 64, 999, "another size"),
    ],
)
def test_a_target_that_is_none_changes_nothing(target: Target, repository: Repository) -> None:
    repository.add([MODEL], no_passphrase)
    before = contents(repository.folder)
    with pytest.raises(RejectedError, match="target"):
        repository.add([POLICY, target], no_passphrase)
    assert contents(repository.folder) == before


def test_a_site_with_root_1_follows_five_rotations_at_once(repository: Repository, hub: Hub, site: Site) -> None:
    hub.publish(repository.files())
    site.updater().refresh()
    for _ in range(4):
        repository.rotate("root", no_passphrase)
    repository.rotate("targets", no_passphrase)
    hub.online = CryptoSigner.generate_ed25519()
    repository.rotate("online", no_passphrase, public=public_of(hub.online))
    repository.rotate("models", no_passphrase)
    repository.add([MODEL], no_passphrase)
    hub.publish(repository.files())
    assert site.finds(MODEL.path) is not None
    assert site.trusted_version("root") == 7


def test_a_root_signed_by_one_stolen_key_is_refused(repository: Repository, hub: Hub, site: Site) -> None:
    hub.publish(repository.files())
    site.updater().refresh()
    root: Metadata[Root] = Metadata.from_bytes(repository.files()["1.root.json"])
    stolen = root.signed.keys[keyids(repository, "root")[0]]
    mine = CryptoSigner.generate_ed25519()
    root.signed.version = 2
    root.signed.roles["root"].threshold = 1
    root.signed.add_key(mine.public_key, "root")
    root.signed.add_key(mine.public_key, "targets")
    root.sign(KeyRing(repository.folder, no_passphrase).load("file2:keys/root-1.pem", stolen))
    root.sign(mine, append=True)
    hub.publish({**repository.files(), "2.root.json": root.to_bytes()})
    with pytest.raises(UnsignedMetadataError):
        site.updater().refresh()
    assert site.trusted_version("root") == 1


def stolen(repository: Repository, role: str, make: Callable[[Targets], None]) -> bytes:
    """What whoever has this role's first key file signs."""
    version = versions(repository)[role]
    metadata: Metadata[Targets] = Metadata.from_bytes(repository.files()[f"{version}.{role}.json"])
    metadata.signed.version += 1
    make(metadata.signed)
    keys = KeyRing(repository.folder, no_passphrase)
    uri, public = keys.find(f"file2:keys/{role}-1.pem")
    metadata.sign(keys.load(uri, public))
    return metadata.to_bytes()


def test_what_a_revoked_targets_key_signs_is_refused(repository: Repository, hub: Hub, site: Site) -> None:
    thief = CryptoSigner.generate_ed25519()
    raw = bytes.fromhex(public_of(thief))

    def name_thief(targets: Targets) -> None:
        path = director_path(public_of(thief))
        targets.targets[path] = TargetFile.from_data(path, raw, ["sha256"])

    forged = stolen(repository, "targets", name_thief)
    with_forged = {name: data for name, data in repository.files().items() if name != "1.targets.json"}
    hub.publish({**with_forged, "2.targets.json": forged})
    assert site.finds(director_path(public_of(thief))) is not None, "the key counts, before it is revoked"

    old = keyids(repository, "targets")[0]
    repository.add_key("targets", no_passphrase)
    repository.revoke_key("targets", old[:10], no_passphrase)
    with_forged = {name: data for name, data in repository.files().items() if not name.endswith("targets.json")}
    hub.publish({**with_forged, "2.targets.json": forged})
    with pytest.raises(UnsignedMetadataError):
        site.updater().refresh()
    hub.publish(repository.files())
    site.updater().refresh()
    assert site.finds(director_path(public_of(thief))) is None


def test_what_a_revoked_models_key_signs_is_refused(repository: Repository, hub: Hub, site: Site) -> None:
    def name_evil(targets: Targets) -> None:
        targets.targets["models/" + "e" * 64] = TargetFile(1, {"sha256": "e" * 64}, "models/" + "e" * 64)

    forged = stolen(repository, "models", name_evil)
    repository.rotate("models", no_passphrase)
    files = {name: data for name, data in repository.files().items() if not name.endswith("models.json")}
    hub.publish({**files, "2.models.json": forged})
    with pytest.raises(UnsignedMetadataError):
        site.finds("models/" + "e" * 64)
    hub.publish(repository.files())
    assert site.finds("models/" + "e" * 64) is None


def test_versions_that_a_thief_ran_ahead_are_left_behind_with_a_new_online_key(
    repository: Repository, hub: Hub, site: Site
) -> None:
    def run_ahead(targets: Targets) -> None:
        targets.version = 1_000_000

    forged = stolen(repository, "targets", run_ahead)
    files = {name: data for name, data in repository.files().items() if not name.endswith("targets.json")}
    hub.publish({**files, "1000000.targets.json": forged})
    site.updater().refresh()
    repository.rotate("targets", no_passphrase)
    hub.online = CryptoSigner.generate_ed25519()
    repository.rotate("online", no_passphrase, public=public_of(hub.online))
    repository.add([MODEL], no_passphrase)
    hub.publish(repository.files())
    assert site.finds(MODEL.path) is not None


def test_a_models_key_signs_no_policy(repository: Repository, hub: Hub, site: Site) -> None:
    def name_policy(targets: Targets) -> None:
        targets.targets[POLICY.path] = TargetFile(1, {"sha256": "b" * 64}, POLICY.path)

    forged = stolen(repository, "models", name_policy)
    files = {name: data for name, data in repository.files().items() if not name.endswith("models.json")}
    hub.publish({**files, "2.models.json": forged})
    assert site.finds(POLICY.path) is None


def test_directors_come_and_go(repository: Repository, hub: Hub, site: Site) -> None:
    old, new = public_of(hub.director), public_of(CryptoSigner.generate_ed25519())
    assert repository.add_key("director", no_passphrase, public=new) == new
    hub.publish(repository.files())
    assert site.finds(director_path(old)) is not None
    assert site.finds(director_path(new)) is not None
    repository.revoke_key("director", old, no_passphrase)
    hub.publish(repository.files())
    assert site.finds(director_path(old)) is None
    with pytest.raises(ConfigError, match="director: needs 1 of its 1 keys"):
        repository.revoke_key("director", new, no_passphrase)
    third = public_of(CryptoSigner.generate_ed25519())
    assert repository.rotate("director", no_passphrase, public=third) == [third]
    assert keyids(repository, "director") == [third]


def test_two_online_keys_while_the_hub_changes_over(repository: Repository, hub: Hub, site: Site) -> None:
    old, new = hub.online, CryptoSigner.generate_ed25519()
    repository.add_key("online", no_passphrase, public=public_of(new))
    for signer in (old, new):
        hub.online = signer
        hub.publish(repository.files())
        site.updater().refresh()
    repository.revoke_key("online", old.public_key.keyid, no_passphrase)
    hub.online = old
    hub.publish(repository.files())
    with pytest.raises(UnsignedMetadataError):
        site.updater().refresh()


def test_no_role_is_left_with_fewer_keys_than_must_sign(repository: Repository) -> None:
    before = contents(repository.folder)
    for role in ("targets", "models", "online"):
        with pytest.raises(ConfigError, match=f"{role}: needs 1 of its 1 keys"):
            repository.revoke_key(role, keyids(repository, role)[0], no_passphrase)
    assert contents(repository.folder) == before
    repository.revoke_key("root", keyids(repository, "root")[0], no_passphrase)
    with pytest.raises(ConfigError, match="root: needs 2 of its 2 keys"):
        repository.revoke_key("root", keyids(repository, "root")[0], no_passphrase)
    with pytest.raises(ConfigError, match="has no key 0123456789"):
        repository.revoke_key("root", "0123456789", no_passphrase)


def test_a_new_root_needs_two_of_the_old_keys(repository: Repository, hub: Hub, site: Site) -> None:
    keys, stick = repository.folder / "keys", repository.folder.parent / "stick"
    stick.mkdir()
    for name in ("root-2.pem", "root-3.pem"):
        (keys / name).rename(stick / name)
    before = contents(repository.folder)
    with pytest.raises(ConfigError, match=r"root: 1 of 2 signatures: key file2:keys/root-2\.pem: no such file.*--keys"):
        repository.rotate("root", no_passphrase)
    assert contents(repository.folder) == before, "the key files made for it are gone too"
    assert [key.here for row in repository.status() if row.role == "root" for key in row.keys] == [True, False, False]

    repository.add([MODEL], no_passphrase)  # no root key is needed for that
    with_stick = Repository(repository.folder, today, [stick])
    with_stick.rotate("root", no_passphrase)
    assert sorted(path.name for path in keys.glob("root-*")) == ["root-1.pem", *(f"root-{n}.pem" for n in (4, 5, 6))]
    hub.publish(repository.files())
    assert site.finds(MODEL.path) is not None
    assert site.trusted_version("root") == 2


def test_a_key_of_the_operators_own_replaces_a_file(repository: Repository, hub: Hub, site: Site) -> None:
    uri, public = KeyRing(repository.folder.parent, no_passphrase).make("theirs")
    uri = f"file2:{repository.folder.parent / uri.partition(':')[2]}"
    assert repository.rotate("models", no_passphrase, uri) == [public.keyid]
    added = repository.add_key("policies", no_passphrase, uri, public_of_key(public))
    assert added == public.keyid
    repository.add([MODEL], no_passphrase)
    hub.publish(repository.files())
    assert site.finds(MODEL.path) is not None
    with pytest.raises(ConfigError, match=r"has key .* already"):
        repository.add_key("models", no_passphrase, uri)


def public_of_key(key: Any) -> str:
    return str(key.keyval["public"])


def test_roles_and_keys_that_are_none(repository: Repository, hub: Hub, tmp_path: Path) -> None:
    uri, public = KeyRing(tmp_path, no_passphrase).make("theirs")
    uri = f"file2:{tmp_path / uri.partition(':')[2]}"
    hex_ = public_of_key(public)
    before = contents(repository.folder)
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("role 'modles'", lambda: repository.add_key("modles", no_passphrase)),
        ("role 'online'", lambda: repository.renew(no_passphrase, ["online"])),
        ("use add-key and revoke-key", lambda: repository.rotate("root", no_passphrase, uri)),
        ("give its public half", lambda: repository.add_key("online", no_passphrase)),
        ("give its public half", lambda: repository.add_key("director", no_passphrase, uri)),
        ("can't sign", lambda: repository.add_key("models", no_passphrase, None, hex_)),
        ("a key of the hub's", lambda: repository.add_key("models", no_passphrase, uri, public_of(hub.online))),
        ("a key of the hub's", lambda: repository.add_key("root", no_passphrase, uri, public_of(hub.director))),
        ("another key", lambda: repository.rotate("models", no_passphrase, uri, "00" * 31 + "01")),
        ("already", lambda: repository.add_key("online", no_passphrase, public=public_of(hub.online))),
    ]
    for says, attempt in attempts:
        with pytest.raises(ConfigError, match=says):
            attempt()
    assert contents(repository.folder) == before


def test_a_wrong_passphrase_changes_nothing_and_names_the_file(tmp_path: Path, hub: Hub) -> None:
    def right(name: str) -> str | None:
        return "right" if name.startswith("models") else None

    repository = Repository.create(tmp_path / "trust", public_of(hub.online), public_of(hub.director), right, today)
    before = contents(repository.folder)
    with pytest.raises(ConfigError, match=r"models: 0 of 1 signatures: .*models-1\.pem: the passphrase is wrong"):
        repository.add([MODEL], lambda name: "wrong")
    assert contents(repository.folder) == before
    repository.add([MODEL], right)
    assert MODEL.path in repository.signed()


def test_renewing_moves_every_end(tmp_path: Path, hub: Hub) -> None:
    clock = datetime(2026, 1, 1, tzinfo=UTC)
    repository = Repository.create(
        tmp_path / "trust", public_of(hub.online), public_of(hub.director), no_passphrase, lambda: clock
    )
    assert repository.renew(no_passphrase) == []
    clock += timedelta(days=400)
    left = {row.role: row.days_left for row in repository.status()}
    assert left == {
        "root": 330, "targets": -35, "models": -35, "policies": -35, "agents": -35, "online": None, "director": None
    }  # fmt: skip
    assert repository.renew(no_passphrase, ["targets", "models"]) == ["targets", "models"]
    assert repository.renew(no_passphrase) == ["root", "policies", "agents"]
    assert {row.role: row.days_left for row in repository.status() if row.role in OFFLINE} == {
        role: EXPIRY[role].days for role in OFFLINE
    }
    assert set(versions(repository).values()) == {2}
    clock = datetime(1970, 1, 1, tzinfo=UTC)
    with pytest.raises(ConfigError, match="clock says 1970-01-01"):
        repository.add([MODEL], no_passphrase)


def interrupted(
    tmp_path: Path, name: str, change: Callable[[Repository], object], repository: Repository
) -> Repository:
    """The folder as a power cut leaves it before the rename that makes a change count."""
    import shutil

    done = tmp_path / f"{name}-done"
    shutil.copytree(repository.folder, done)
    change(Repository(done, today))
    (done / "versions.json").write_bytes((repository.folder / "versions.json").read_bytes())
    signers = {path: json.loads((path / "signers.json").read_bytes()) for path in (repository.folder, done)}
    (done / "signers.json").write_text(json.dumps({**signers[repository.folder], **signers[done]}))
    (done / "metadata" / "9.models.json.new").write_bytes(b"half of i")
    return Repository(done, today)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("add", lambda r: r.add([POLICY, AGENT], no_passphrase)),
        ("targets", lambda r: r.rotate("targets", no_passphrase)),
        ("models", lambda r: r.rotate("models", no_passphrase)),
        ("root", lambda r: r.rotate("root", no_passphrase)),
        ("renew", lambda r: r.renew(no_passphrase)),
    ],
)
def test_an_interrupted_change_is_none_and_can_be_made_again(
    name: str, change: Callable[[Repository], object], repository: Repository, hub: Hub, site: Site, tmp_path: Path
) -> None:
    repository.add([MODEL], no_passphrase)
    before = repository.files()
    after = interrupted(tmp_path, name, change, repository)
    assert after.files() == before
    change(after)
    after.add([POLICY], no_passphrase)
    hub.publish(after.files())
    assert site.finds(MODEL.path) is not None
    assert site.finds(POLICY.path) is not None
    assert not list(after.folder.glob("metadata/*.new"))


def test_a_power_cut_at_any_rename_leaves_the_old_or_the_new(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    repository.add([MODEL], no_passphrase)
    before = repository.files()
    replace, left = Path.replace, 0

    def cut(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        return replace(self, target)

    seen = set()
    for renames in range(8):
        folder = tmp_path / f"cut-{renames}"
        shutil.copytree(repository.folder, folder)
        left = renames
        monkeypatch.setattr(Path, "replace", cut)
        try:
            Repository(folder, today).rotate("targets", no_passphrase)
        except KeyboardInterrupt:
            pass
        finally:
            monkeypatch.setattr(Path, "replace", replace)
        after = Repository(folder, today)
        counts = after.files() != before
        assert counts is ("2.root.json" in after.files())
        assert counts is ("2.targets.json" in after.files())
        seen.add(counts)
        after.add([POLICY], no_passphrase)
        after.rotate("targets", no_passphrase)
    assert seen == {False, True}


@pytest.mark.parametrize("name", ["1.root.json", "2.root.json", "2.targets.json", "2.models.json"])
def test_a_flipped_bit_is_noticed(name: str, repository: Repository) -> None:
    repository.add([MODEL], no_passphrase)
    repository.rotate("targets", no_passphrase)
    file = repository.folder / "metadata" / name
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"expires":"2', b'"expires":"3', 1))
    for attempt in (repository.files, lambda: repository.add([POLICY], no_passphrase)):
        with pytest.raises(ConfigError, match=name):
            attempt()
    file.unlink()
    with pytest.raises(ConfigError, match=f"{name}: No such file"):
        Repository(repository.folder, today)
    file.write_bytes(data)
    assert Repository(repository.folder, today).add([POLICY], no_passphrase) == [POLICY.path]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"root": 1}', '{"root": "1", "targets": 1}'])
def test_folders_that_are_none(text: str, repository: Repository, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ConfigError, match="trust init"):
            Repository(folder, today)
    (repository.folder / "versions.json").write_text(text)
    with pytest.raises(ConfigError, match=r"versions\.json"):
        Repository(repository.folder, today)


def test_one_command_at_a_time(repository: Repository) -> None:
    with locked(repository.folder), pytest.raises(RetryableError, match="another command"):
        repository.add([MODEL], no_passphrase)
    repository.add([MODEL], no_passphrase)


def test_old_versions_go_but_every_root_stays(repository: Repository) -> None:
    for digit in "123":
        repository.add([Target("models", digit * 64, 1, digit)], no_passphrase)
        repository.rotate("targets", no_passphrase)
    names = {path.name for path in (repository.folder / "metadata").iterdir()}
    assert names >= {"1.root.json", "2.root.json", "3.root.json", "4.root.json"}
    assert len([name for name in names if name.endswith("models.json")]) <= 2
    assert set(json.loads((repository.folder / "signers.json").read_bytes())) == {
        keyid for role in OFFLINE for keyid in keyids(repository, role)
    }


def test_a_folder_is_moved_and_made_only_where_none_is(repository: Repository, hub: Hub, tmp_path: Path) -> None:
    repository.folder.rename(tmp_path / "moved")
    moved = Repository(tmp_path / "moved", today)
    moved.add([MODEL], no_passphrase)
    before = contents(tmp_path)
    online, director = public_of(hub.online), public_of(hub.director)
    with pytest.raises(ConfigError, match="wanted a new folder"):
        Repository.create(tmp_path / "moved", online, director, no_passphrase, today)
    for uris in ({"modles": ["hsm:"]}, {"models": ["hsm:"]}, {"root": ["file2:absent.pem"]}):
        with pytest.raises(ConfigError):
            Repository.create(tmp_path / "other", online, director, no_passphrase, today, uris)
    with pytest.raises(ConfigError, match="64 hex digits"):
        Repository.create(tmp_path / "other", "no key", director, no_passphrase, today)
    assert contents(tmp_path) == before
    assert not list(tmp_path.glob(".other*"))


def test_keys_that_exist_are_taken_at_the_start(hub: Hub, tmp_path: Path) -> None:
    theirs = KeyRing(tmp_path, no_passphrase)
    made = [theirs.make("theirs") for _ in range(2)]
    uris = [f"file2:{tmp_path / uri.partition(':')[2]}" for uri, _ in made]
    repository = Repository.create(
        tmp_path / "trust",
        public_of(hub.online),
        public_of(hub.director),
        no_passphrase,
        today,
        {"root": uris, "models": uris[:1]},
    )
    assert keyids(repository, "root")[:2] == [public.keyid for _, public in made]
    assert keyids(repository, "models") == [made[0][1].keyid]
    assert sorted(path.name for path in (repository.folder / "keys").iterdir()) == [
        "agents-1.pem", "policies-1.pem", "root-1.pem", "targets-1.pem"
    ]  # fmt: skip
    assert public_from(public_of(hub.online)).keyid == keyids(repository, "online")[0]


def test_metadata_beyond_what_a_hub_sends_is_not_made(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_sync.trust import collection

    monkeypatch.setattr(collection, "MAX_SET_BYTES", sum(map(len, repository.files().values())) + 100)
    before = contents(repository.folder)
    with pytest.raises(RejectedError, match="bytes together"):
        repository.add([MODEL], no_passphrase)
    assert {name: data for name, data in contents(repository.folder).items() if name in before} == before
    assert repository.signed() == {}


def test_a_site_refuses_what_has_ended(hub: Hub, tmp_path: Path) -> None:
    long_ago = today() - timedelta(days=400)
    repository = Repository.create(
        tmp_path / "trust", public_of(hub.online), public_of(hub.director), no_passphrase, lambda: long_ago
    )
    site = Site(tmp_path / "site", hub, repository.files()["1.root.json"])
    hub.publish(repository.files())
    with pytest.raises(RepositoryError, match="expired"):
        site.updater().refresh()
    Repository(repository.folder, today).renew(no_passphrase, OFFLINE[1:])
    hub.publish(repository.files())
    site.updater().refresh()


def test_what_was_withdrawn_is_not_signed_again_by_the_way(repository: Repository) -> None:
    repository.add([MODEL], no_passphrase)
    repository.withdraw(MODEL.path, no_passphrase)
    with pytest.raises(RejectedError, match=r"was withdrawn: --again signs it all the same"):
        repository.add([MODEL, POLICY], no_passphrase)
    assert repository.signed() == {}, "nothing of it was signed"
    assert repository.add([MODEL], no_passphrase, again=True) == [MODEL.path]
    repository.withdraw(MODEL.path, no_passphrase)
    with pytest.raises(RejectedError, match="was withdrawn"):
        repository.add([MODEL], no_passphrase)
