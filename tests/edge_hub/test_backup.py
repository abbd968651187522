"""docs/operations.md, Backup and restore: whole or not there, checked before it is used, nothing half-written."""

import fcntl
import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from edge_hub.backup.restoring import RESTORED, restore
from edge_hub.backup.taking import MANIFEST, back_up
from edge_hub.broker import BrokerFolder
from edge_hub.database.schema import VERSION, gaps, meta, records, sites
from edge_hub.database.store import Store
from edge_hub.folder import HubFolder
from edge_hub.ingest.journal import Arrived, store_batches
from edge_hub.keeping import erasures
from edge_hub.keeping.erase import erase_subject
from edge_hub.records import audit
from edge_models.errors import ConfigError, RejectedError, RetryableError
from edge_sync.batch import decode

BLOB = b"an artifact"
NOW = 1_800_000_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> HubFolder:
    """A hub's folder with a bit of everything in it."""
    made = HubFolder(tmp_path / "hub")
    BrokerFolder(made.broker).add_user("plant-01", "site")
    (made.blobs / "aa").write_bytes(BLOB)
    (made.blobs / ".incoming-1").write_bytes(b"half")
    return made


@pytest.fixture
def hub(folder: HubFolder, stream: Any) -> Any:
    """Its database, open and in use as in a running hub: what is new is in the log."""
    store = Store(folder.database)
    with store.writing() as db:
        db.execute(sites.insert().values(site="plant-01", labels={}, created_us=1, online=False))
    deliver(store, stream().grow(20).batch(1, 20))
    yield store
    store.close()


def deliver(store: Store, message: bytes, now_us: int = 5) -> None:
    with store.writing() as db:
        store_batches(db, [Arrived("plant-01", decode(message), message)], now_us)


def seqs(database: Path) -> list[int]:
    store = Store(database)
    try:
        with store.reading() as db:
            assert audit.verify(db) is None
            return list(db.scalars(select(records.c.seq).order_by(records.c.seq)))
    finally:
        store.close()


@pytest.mark.parametrize("name", ["backup", "backup.tar"])
def test_what_is_restored_is_what_the_running_hub_was(name: str, folder: HubFolder, hub: Store, tmp_path: Path) -> None:
    manifest = back_up(folder.path, tmp_path / name, NOW)
    deliver_more(hub)
    again = tmp_path / "again"
    done = restore(tmp_path / name, again, False, NOW + 1)
    assert (done.manifest, done.set_aside) == (manifest, None)
    assert (manifest.at_us, manifest.schema_version) == (NOW, VERSION)
    assert seqs(again / "hub.db") == list(range(1, 21))
    for file in ("director.key", "online.key", "operator.token", "broker/credentials.json", "blobs/sha256/aa"):
        assert (again / file).read_bytes() == (folder.path / file).read_bytes()
    assert not list(again.rglob(".incoming-*"))
    assert HubFolder(again).director_key == folder.director_key
    with closing(sqlite3.connect(again / "hub.db")) as db:
        assert db.execute("SELECT value FROM meta WHERE key=?", (RESTORED,)).fetchone() == (str(NOW + 1),)
        assert db.execute("SELECT what FROM audit ORDER BY id DESC LIMIT 1").fetchone() == ("hub restored",)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def deliver_more(store: Store) -> None:
    with store.writing() as db:
        db.execute(meta.insert().values(key="later", value="than the backup"))


def test_a_backup_is_for_its_owner_alone_and_shares_what_never_changes(
    folder: HubFolder, hub: Store, tmp_path: Path
) -> None:
    back_up(folder.path, tmp_path / "backup", NOW)
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "backup").rglob("*"):
        if path.name != "aa":
            assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "backup/blobs/sha256/aa").stat().st_ino == (folder.blobs / "aa").stat().st_ino
    back_up(folder.path, tmp_path / "backup.tar", NOW)
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600


def test_a_backup_is_written_to_a_new_name_outside_the_hub(folder: HubFolder, hub: Store, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for wrong, why in (
        (tmp_path / "taken", "exists already"),
        (tmp_path / "no" / "such", "there is no folder"),
        (folder.path / "backup", "the hub's own folder"),
    ):
        with pytest.raises(ConfigError, match=why):
            back_up(folder.path, wrong, NOW)
    with pytest.raises(ConfigError, match="is no hub's folder"):
        back_up(tmp_path / "nothing", tmp_path / "backup", NOW)
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_copy_that_fails_leaves_nothing_behind(folder: HubFolder, tmp_path: Path) -> None:
    folder.database.write_bytes(b"this is no database, however long one looks at it" * 100)
    with pytest.raises(RetryableError, match="backup of"):
        back_up(folder.path, tmp_path / "backup", NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub"]


def test_a_hub_whose_database_is_elsewhere_keeps_the_rest(folder: HubFolder, tmp_path: Path) -> None:
    manifest = back_up(folder.path, tmp_path / "backup", NOW)
    assert manifest.schema_version is None
    restore(tmp_path / "backup", tmp_path / "again", False, NOW)
    assert not (tmp_path / "again/hub.db").exists()
    assert HubFolder(tmp_path / "again").token == folder.token


Damage = Callable[[Path], Any]


def renamed(files: dict[str, Any]) -> dict[str, Any]:
    return {"../outside" if name == "hub.db" else name: entry for name, entry in files.items()}


def rewrite(change: Callable[[dict[str, Any]], Any]) -> Damage:
    def damage(backup: Path) -> None:
        path = backup / MANIFEST
        document = json.loads(path.read_text())
        path.write_text(json.dumps(document | change(document)))

    return damage


DAMAGES: dict[str, tuple[Damage, str]] = {
    "a byte of the database": (lambda b: flip(b / "hub.db"), "hub.db is not what manifest.json says"),
    "a byte of the key": (lambda b: flip(b / "director.key"), "director.key is not what"),
    "a byte of the online key": (lambda b: flip(b / "online.key"), "online.key is not what"),
    "the database cut short": (lambda b: os.truncate(b / "hub.db", 8192), "hub.db is not what"),
    "an artifact gone": (lambda b: (b / "blobs/sha256/aa").unlink(), "aa is missing"),
    "an artifact that is a link": (lambda b: relink(b / "blobs/sha256/aa"), "aa is missing"),
    "no manifest": (lambda b: (b / MANIFEST).unlink(), "not a whole one"),
    "a manifest that is none": (lambda b: (b / MANIFEST).write_text("{"), "manifest.json: document"),
    "a manifest of another format": (rewrite(lambda d: {"format": 2}), "format"),
    "a path out of it": (rewrite(lambda d: {"files": renamed(d["files"])}), "no path inside it"),
    "no key in the manifest": (
        rewrite(lambda d: {"files": {n: e for n, e in d["files"].items() if n != "director.key"}}),
        "names no director.key",
    ),
}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def relink(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_backup_that_is_not_whole_is_refused_and_nothing_is_written(
    damage: str, folder: HubFolder, hub: Store, tmp_path: Path
) -> None:
    back_up(folder.path, tmp_path / "backup", NOW)
    do, why = DAMAGES[damage]
    do(tmp_path / "backup")
    with pytest.raises(RejectedError, match=why):
        restore(tmp_path / "backup", tmp_path / "again", False, NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "hub"]
    assert not (tmp_path / "outside").exists()


def test_a_tar_that_is_cut_short_or_leads_outside_is_refused(folder: HubFolder, hub: Store, tmp_path: Path) -> None:
    back_up(folder.path, tmp_path / "backup.tar", NOW)
    os.truncate(tmp_path / "backup.tar", (tmp_path / "backup.tar").stat().st_size // 2)
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.add(folder.token_file, "../outside")
    (tmp_path / "text.tar").write_text("no tar")
    for name in ("backup.tar", "evil.tar", "text.tar"):
        with pytest.raises(RejectedError, match="not a whole"):
            restore(tmp_path / name, tmp_path / "again", False, NOW)
    with pytest.raises(RejectedError, match="is no backup"):
        restore(tmp_path / "nothing", tmp_path / "again", False, NOW)
    assert not (tmp_path / "again").exists()
    assert not (tmp_path / "outside").exists()


def test_a_backup_of_a_newer_version_is_refused(folder: HubFolder, hub: Store, tmp_path: Path) -> None:
    back_up(folder.path, tmp_path / "backup", NOW)
    rewrite(lambda d: {"schema_version": VERSION + 1, "kit": "9.9"})(tmp_path / "backup")
    with pytest.raises(ConfigError, match=r"made by edge-agent-kit 9\.9, whose database is newer"):
        restore(tmp_path / "backup", tmp_path / "again", False, NOW)


def test_only_an_empty_folder_is_restored_into(folder: HubFolder, hub: Store, tmp_path: Path) -> None:
    back_up(folder.path, tmp_path / "backup", NOW)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        restore(tmp_path / "backup", mine, False, NOW)
    with pytest.raises(ConfigError, match=r"is no hub's folder: it holds 'file'"):
        restore(tmp_path / "backup", mine, True, NOW)
    (mine / "file").unlink()
    with pytest.raises(ConfigError, match="is a mount point"):
        restore(tmp_path / "backup", Path("/"), True, NOW)
    restore(tmp_path / "backup", mine, False, NOW)
    assert seqs(mine / "hub.db") == list(range(1, 21))


def test_a_hub_that_runs_is_not_replaced(folder: HubFolder, hub: Store, tmp_path: Path) -> None:
    back_up(folder.path, tmp_path / "backup", NOW)
    folder.lock()
    with pytest.raises(ConfigError, match="stop it first"):
        restore(tmp_path / "backup", folder.path, True, NOW)
    folder.unlock()
    hub.close()
    done = restore(tmp_path / "backup", folder.path, True, NOW)
    assert done.set_aside == tmp_path / "hub.replaced-20270115T080000Z"
    assert (done.set_aside / "hub.db").exists()
    fd = os.open(folder.path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)


def test_what_was_erased_since_the_backup_is_erased_again_where_the_list_is_there(
    folder: HubFolder, hub: Store, tmp_path: Path, stream: Any
) -> None:
    person = stream("00000000000000bb").grow(4, subject="Mara Blom")
    deliver(hub, person.batch(1, 4))
    back_up(folder.path, tmp_path / "backup", NOW)
    assert erase_subject(hub, folder.path, "plant-01", "Mara Blom", "operator", NOW).records == 4
    hub.close()
    restore(tmp_path / "backup", tmp_path / "fresh", False, NOW + 1)
    assert b"Mara Blom" in (tmp_path / "fresh/hub.db").read_bytes(), "nobody told this one"

    done = restore(tmp_path / "backup", folder.path, True, NOW + 1)
    assert done.erased_again == 4
    assert b"Mara Blom" not in b"".join(p.read_bytes() for p in folder.path.glob("hub.db*"))
    assert [each.at_us for each in erasures.noted(folder.path)] == [NOW]
    store = Store(folder.database)
    with store.reading() as db:
        [gap] = db.execute(select(gaps)).all()
    store.close()
    assert (gap.first, gap.last, gap.reason, gap.hash) == (1, 4, "erased", person.hashes[4])

    shutil.rmtree(tmp_path / "backup")
    back_up(folder.path, tmp_path / "backup", NOW + 2)
    assert erasures.ERASURES in json.loads((tmp_path / "backup" / MANIFEST).read_text())["files"]
