"""Taking a site's backup. Held: edge_agent/MEMORY.md, Backup and restore."""

import io
import os
import secrets
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from operator_desk import Desk

from edge_agent.backup import archive
from edge_agent.backup.restoring import look_into, restore
from edge_agent.backup.taking import WORK, back_up
from edge_agent.memory.checkpoint import KEY_FILE
from edge_agent.memory.damage import Mark, write_mark
from edge_agent.memory.draft import Draft
from edge_agent.memory.verify import verify
from edge_agent.update.blobs import BlobStore
from edge_agent.update.slots import Slot, write_active
from edge_agent.update.wishes import Wishes
from edge_models.digests import Digest, digest_of
from edge_models.errors import ConfigError, KitError, RejectedError, RetryableError
from edge_sync.release import Release, describe
from edge_sync.trust.client import Trusted

NOW_US = 1_800_000_000_000_000


def now_us() -> int:
    return time.time_ns() // 1000


def unpacked(file: Path, into: Path) -> Path:
    def take(name: str) -> Any:
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")

    with file.open("rb") as source:
        archive.read(source, str(file), lambda _: None, take)
    return into


def test_it_holds_what_the_site_remembers_and_no_key_of_it(kept: Any, tmp_path: Path) -> None:
    Wishes(kept.data).hold("stocktaking")
    (kept.data / "prepared").mkdir()
    (kept.data / "prepared" / "graph").write_bytes(b"x")
    out = tmp_path / "b.tar.zst"
    manifest = back_up(kept.site, out, NOW_US)
    assert [*manifest.files] == ["memory.db", "update/hold"]
    assert (manifest.site, manifest.at_us, manifest.holds_key, manifest.release) == ("plant-01", NOW_US, False, None)
    assert "no key or password" in manifest.about
    assert {KEY_FILE in name for name in manifest.left_out if "identity" in name} == {True}
    assert out.stat().st_mode & 0o777 == 0o600
    with out.open("rb") as source:
        assert look_into(source, "b") == manifest
    copy = unpacked(out, tmp_path / "unpacked") / "memory.db"
    with closing(sqlite3.connect(copy)) as ours, closing(sqlite3.connect(kept.memory)) as theirs:
        for table in ("journal", "epochs", "gaps", "cursors", "intents", "facts", "slots"):
            query = f"SELECT * FROM {table} ORDER BY 1, 2, 3"
            assert ours.execute(query).fetchall() == theirs.execute(query).fetchall()
        assert verify(ours, "plant-01").findings == ()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b.tar.zst", "here", "unpacked"]


def test_keys_and_site_file_are_in_it_only_when_asked_for_and_it_says_so(kept: Any, tmp_path: Path) -> None:
    identity = kept.data / "identity"
    identity.mkdir()
    for name in ("key.pem", "certificate.pem", "ca.pem", "about.json"):
        (identity / name).write_text(name)
    manifest = back_up(kept.site, tmp_path / "b", NOW_US, kept.file)
    assert manifest.holds_key
    assert "ITS PRIVATE KEYS" in manifest.about
    got = unpacked(tmp_path / "b", tmp_path / "unpacked")
    assert (got / "site.yaml").read_bytes() == kept.file.read_bytes()
    assert (got / KEY_FILE).read_bytes() == (kept.data / KEY_FILE).read_bytes()
    assert (got / "identity" / "key.pem").read_text() == "key.pem"


@pytest.mark.parametrize("open_", [True, False])
def test_a_site_that_runs_goes_on_writing_and_its_backup_is_one_state(kept: Any, tmp_path: Path, open_: bool) -> None:
    journal = kept.journal()
    journal.write([Draft("decision", "event", "site", NOW_US, "{}", label="started")])
    if not open_:
        journal.close()
    manifest = back_up(kept.site, tmp_path / "b", NOW_US)
    assert (manifest.epoch, manifest.ends) == (journal.epoch, {"decision": 1})
    if open_:
        journal.write([Draft("decision", "event", "site", NOW_US, "{}", label="stopped")])
        journal.close()


def test_standard_output_gets_the_same_and_nothing_stays(kept: Any) -> None:
    (kept.data / WORK).mkdir()
    (kept.data / WORK / "memory.db").write_bytes(b"of one that was killed")
    out = io.BytesIO()
    manifest = back_up(kept.site, out, NOW_US)
    out.seek(0)
    assert look_into(out, "-") == manifest
    assert not (kept.data / WORK).exists()


def test_a_second_one_at_the_same_time_waits_for_the_first(kept: Any) -> None:
    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            with pytest.raises(RetryableError, match="another backup is made now"):
                back_up(kept.site, io.BytesIO(), NOW_US)
            return super().write(data)

    out = Slow()
    back_up(kept.site, out, NOW_US)
    out.seek(0)
    look_into(out, "-")


def test_where_it_cannot_be_written_nothing_is(kept: Any, make_site: Any, tmp_path: Path) -> None:
    out = tmp_path / "b"
    out.write_text("mine")
    never = make_site("plant-02", "never")
    for site, to, why in (
        (kept, out, "exists already"),
        (kept, tmp_path / "no" / "b", "there is no folder"),
        (kept, kept.data / "b", "in the site's own folder"),
        (never, tmp_path / "c", "never ran"),
    ):
        with pytest.raises(ConfigError, match=why):
            back_up(site.site, to, NOW_US)
    assert out.read_text() == "mine"
    assert not never.data.exists()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["b", "here", "never"]


def test_a_full_disk_leaves_nothing(kept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk that the kernel has for this: whatever is written to it has no room."""
    real = os.open

    def full(path: Any, *args: Any, **kw: Any) -> int:
        return real("/dev/full", os.O_WRONLY) if str(path).endswith("/whole") else real(path, *args, **kw)

    monkeypatch.setattr("edge_agent.backup.taking.os.open", full)
    with pytest.raises(RetryableError, match=r"no room in .*: free disk space"):
        back_up(kept.site, tmp_path / "b", NOW_US)
    assert [each.name for each in tmp_path.iterdir()] == ["here"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    at = tmp_path / "disk"
    at.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", at], check=False).returncode != 0:
        pytest.skip("a tmpfs can't be mounted here: needs root")
    yield at
    subprocess.run(["umount", "-l", at], check=True)


@pytest.mark.parametrize("left_kb", [0, 4, 40, 100])
def test_a_full_disk_is_no_fault_of_the_memory(kept: Any, small_disk: Path, left_kb: int) -> None:
    """However far it came: nothing of it is left, and the words are about the disk."""
    journal = kept.journal()
    journal.write([Draft("telemetry", "observation", "press", NOW_US, f'"{secrets.token_hex(4000)}"')] * 20)
    journal.close()
    (small_disk / "other").write_bytes(bytes((256 - left_kb) * 1024))
    with pytest.raises(RetryableError) as caught:
        back_up(kept.site, small_disk / "b", NOW_US)
    assert str(caught.value) == f"backup of plant-01: no room in {small_disk}: free disk space"
    assert [each.name for each in small_disk.iterdir()] == ["other"]


@pytest.mark.parametrize("left_kb", [0, 16, 40])
def test_a_full_disk_of_the_sites_own_keeps_nothing_of_it(
    make_site: Callable[..., Any], small_disk: Path, left_kb: int
) -> None:
    """To standard output the copy is made in the site's own folder."""
    made = make_site(data=str(small_disk))
    made.live(rows=2, open_acts=0)
    left = shutil.disk_usage(small_disk).free
    assert left > left_kb * 1024
    (small_disk / "other").write_bytes(bytes(left - left_kb * 1024))
    with pytest.raises(RetryableError, match=r"no room in .*: free disk space"):
        back_up(made.site, io.BytesIO(), NOW_US)
    assert not (small_disk / WORK).exists()


def test_a_site_that_joined_and_never_ran_is_told_where_its_keys_are(make_site: Callable[..., Any]) -> None:
    made = make_site()
    with pytest.raises(ConfigError, match=r"this site never ran$"):
        back_up(made.site, made.file.parent / "b", NOW_US)
    (made.data / "identity").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"never ran; it has joined.*run it once.*or copy .*/data itself"):
        back_up(made.site, made.file.parent / "b", NOW_US, made.file)


def test_a_memory_of_another_site_is_not_backed_up_under_this_ones_name(kept: Any, tmp_path: Path) -> None:
    kept.file.write_text(kept.file.read_text().replace("plant-01", "plant-02"))
    with pytest.raises(ConfigError, match="the memory there is of site plant-01, and this is plant-02"):
        back_up(kept.site, tmp_path / "b", NOW_US)
    assert not (tmp_path / "b").exists()


def test_a_damaged_memory_is_told_of_and_not_backed_up(kept: Any, tmp_path: Path) -> None:
    whole = kept.memory.read_bytes()
    at = whole.index(b'{"n":7}')
    kept.memory.write_bytes(whole[:at] + b'{"n":8}' + whole[at + 7 :])
    with pytest.raises(RejectedError, match=r"is damaged .* restart the site"):
        back_up(kept.site, tmp_path / "b", NOW_US)
    kept.memory.write_bytes(b"x" * 4096)
    with pytest.raises(KitError, match="damaged"):
        back_up(kept.site, tmp_path / "b", NOW_US)
    kept.memory.write_bytes(whole)
    write_mark(kept.memory, Mark("SQLite: a page"))
    with pytest.raises(RejectedError, match="SQLite: a page"):
        back_up(kept.site, tmp_path / "b", NOW_US)
    (kept.data / "memory.damaged").unlink()
    back_up(kept.site, tmp_path / "b", NOW_US)


def test_what_was_deleted_is_not_in_its_bytes(kept: Any, tmp_path: Path, make_site: Callable[..., Any]) -> None:
    """Freed pages are not overwritten with zeros in the site's own file (Budget)."""
    journal = kept.journal()
    secret = "Erika Mustermann" * 20
    journal.write([Draft("telemetry", "observation", "press", NOW_US, f'"{secret}"') for _ in range(50)])
    journal.maintain(lambda db: db.execute("DELETE FROM journal WHERE kind='observation'").rowcount)
    journal.maintain(
        lambda db: (
            db.execute(
                "INSERT INTO gaps SELECT ?, 'telemetry', 1, 50, 'expired', zeroblob(32)", (journal.epoch,)
            ).rowcount
        )
    )
    journal.close()
    back_up(kept.site, tmp_path / "b", NOW_US)
    shutil.rmtree(tmp_path / "u", ignore_errors=True)
    assert b"Erika" not in (unpacked(tmp_path / "b", tmp_path / "u") / "memory.db").read_bytes()


def run_release(kept: Any, blobs: Mapping[Digest, bytes], generation: int = 3) -> None:
    """The site has come by a release from its hub and runs it."""
    store = BlobStore(kept.data / "blobs")
    release = Release.of(2, [], {str(digest): describe(digest, data) for digest, data in blobs.items()})
    for digest, data in blobs.items():
        store.put(digest, data)
    journal = kept.journal()
    journal.write((), also=lambda db: write_active(db, Slot(release, generation), NOW_US))
    journal.close()


MODELS = {digest_of(data): data for data in (b"a bundle" * 1000, b"a policy")}


def test_the_release_that_runs_is_in_it_and_what_arrives_is_not(kept: Any, tmp_path: Path) -> None:
    run_release(kept, MODELS)
    (kept.data / "blobs" / f"{'0' * 64}.part").write_bytes(b"half")
    (kept.data / "blobs" / ("f" * 64)).write_bytes(b"of no slot")
    manifest = back_up(kept.site, tmp_path / "b", NOW_US)
    names = sorted(f"blobs/{digest.removeprefix('sha256:')}" for digest in MODELS)
    assert (manifest.release, sorted(name for name in manifest.files if "blobs" in name)) == (2, names)
    got = unpacked(tmp_path / "b", tmp_path / "unpacked")
    assert {(got / name).read_bytes() for name in names} == set(MODELS.values())
    without = back_up(kept.site, tmp_path / "c", NOW_US, with_models=False)
    assert [*without.files] == ["memory.db"]
    assert "blobs" in without.left_out


def test_a_damaged_model_is_told_of_and_not_backed_up(kept: Any, tmp_path: Path) -> None:
    run_release(kept, MODELS)
    (damaged, gone) = (kept.data / "blobs" / digest.removeprefix("sha256:") for digest in MODELS)
    damaged.write_bytes(b"A bundle" * 1000)
    with pytest.raises(RejectedError, match=r"is damaged on this disk.*--no-models"):
        back_up(kept.site, tmp_path / "b", NOW_US)
    gone.unlink()
    with pytest.raises(RetryableError, match=r"of release 2: No such file.*--no-models"):
        back_up(kept.site, tmp_path / "b", NOW_US)
    back_up(kept.site, tmp_path / "b", NOW_US, with_models=False)


def test_what_the_site_trusts_is_in_it_and_counts_again_where_it_is_restored(
    make_site: Callable[..., Any], tmp_path: Path
) -> None:
    """Without it, words older than those it has verified would count again."""
    desk = Desk(tmp_path / "desk")
    sites = [
        make_site(folder=name, hub={"broker": "mqtt://127.0.0.1:1", "root": "root.json"}) for name in ("here", "new")
    ]
    for each in sites:
        (each.file.parent / "root.json").write_bytes(desk.root)
    old, new = sites
    old.live()
    first, data = desk.packed(), b"a bundle"
    second = desk.sign(Release.of(2, [], {digest_of(data): describe("it", data)}), {digest_of(data): data})
    trusted = Trusted(old.data / "trust", old.site.trust_root(), now_us)
    trusted.take(first)
    was = trusted.take(second)
    assert was is not None
    trusted.heard_time(now_us(), was)
    desk.close()
    back_up(old.site, tmp_path / "b", NOW_US)
    with (tmp_path / "b").open("rb") as source:
        restore(source, "b", new.site, False, NOW_US)
    again = Trusted(new.data / "trust", new.site.trust_root(), now_us)
    assert again.held().versions == was.versions
    assert again.directors == trusted.directors != frozenset()
    assert (new.data / "trust" / "floor").read_bytes() == (old.data / "trust" / "floor").read_bytes()
    with pytest.raises(RejectedError):
        again.take(first)


def test_notes_are_in_it_and_stay_where_there_are_any(kept: Any, make_site: Callable[..., Any], tmp_path: Path) -> None:
    def note(data: Path, text: str) -> sqlite3.Connection:
        data.mkdir(exist_ok=True)
        db = sqlite3.connect(data / "notes.db", isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE documents (id INTEGER PRIMARY KEY, text TEXT)")
        db.execute("INSERT INTO documents (text) VALUES (?)", (text,))
        return db

    def noted(data: Path) -> list[Any]:
        with closing(sqlite3.connect(data / "notes.db")) as db:
            return db.execute("SELECT text FROM documents").fetchall()

    with closing(note(kept.data, "the bearing of press 7 is new")):  # somebody has it open
        back_up(kept.site, tmp_path / "b", NOW_US)
    new, noting = make_site(folder="new"), make_site(folder="noting")
    note(noting.data, "mine").close()
    for each, kept_here in ((new, ()), (noting, ("notes.db",))):
        with (tmp_path / "b").open("rb") as source:
            assert restore(source, "b", each.site, False, NOW_US).kept == kept_here
    assert noted(new.data) == [("the bearing of press 7 is new",)]
    assert noted(noting.data) == [("mine",)]
    (kept.data / "notes.db").write_bytes(b"x" * 4096)
    (kept.data / "notes.db-wal").unlink(missing_ok=True)
    with pytest.raises(RejectedError, match=r"notes\.db: can't be read"):
        back_up(kept.site, tmp_path / "c", NOW_US)
