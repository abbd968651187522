"""A place made of a backup. Held: edge_agent/MEMORY.md, Backup and restore."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.backup import restoring, taking
from edge_agent.backup.restoring import restore
from edge_agent.backup.taking import back_up
from edge_agent.memory import restored
from edge_agent.memory.checkpoint import KEY_FILE, SigningKey
from edge_agent.memory.copy import copy_memory
from edge_agent.memory.draft import Draft
from edge_agent.memory.lock import lock_data
from edge_agent.memory.queries import open_intents
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import verify
from edge_models.errors import ConfigError, RejectedError, RetryableError

NOW_US = 1_800_000_000_000_000
LATER_US = NOW_US + 3_600_000_000

ROWS = "SELECT epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash FROM journal ORDER BY id"


def ask(memory: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(memory)) as db:
        return db.execute(query).fetchall()


@pytest.fixture
def backup(kept: Any, tmp_path: Path) -> Path:
    """Of `kept`, with its keys."""
    back_up(kept.site, tmp_path / "b", NOW_US, kept.file)
    return tmp_path / "b"


def put(backup: Path, kept: Any, force: bool = False, now_us: int = LATER_US) -> Any:
    with backup.open("rb") as source:
        return restore(source, "b", kept.site, force, now_us)


def test_a_new_place_remembers_what_the_old_one_did(kept: Any, backup: Path, make_site: Callable[..., Any]) -> None:
    new = make_site(folder="new")
    done = put(backup, new)
    assert (done.set_aside, done.kept, done.unknown) == (None, (), 2)
    held, was = ask(new.memory, ROWS), ask(kept.memory, ROWS)
    assert held[: len(was)] == was
    assert ask(new.memory, "SELECT key, value FROM facts") == [("seen", '"spike"')]
    assert (new.data / KEY_FILE).read_bytes() == (kept.data / KEY_FILE).read_bytes()
    assert {each.stat().st_mode & 0o777 for each in new.data.rglob("*") if each.is_file()} == {0o600}
    assert sorted(each.name for each in new.data.iterdir()) == [KEY_FILE, "lock", "memory.db"]
    with reading(new.memory) as db:
        assert verify(db, "plant-01", SigningKey(new.data / KEY_FILE).public).findings == ()


def test_it_goes_on_in_an_epoch_of_its_own_whose_first_record_says_what_it_is(
    kept: Any, backup: Path, make_site: Callable[..., Any]
) -> None:
    [(old, order)] = ask(kept.memory, "SELECT epoch, ord FROM epochs")
    new = make_site(folder="new")
    done = put(backup, new)
    assert ask(new.memory, "SELECT epoch, ord FROM epochs ORDER BY ord") == [(old, order), (done.epoch, order + 1)]
    rows = ask(new.memory, f"SELECT lane, seq, kind, label, ref, body, at FROM journal WHERE epoch='{done.epoch}'")
    assert [row[:4] for row in rows] == [
        ("decision", 1, "event", restored.LABEL), ("decision", 2, "action", "mqtt.publish"),
        ("decision", 3, "action", "mqtt.publish"),
    ]  # fmt: skip
    said = json.loads(rows[0][5])
    ends = {"decision": 4, "telemetry": 40}
    assert said == {"backup_us": NOW_US, "kit": said["kit"], "epoch": old, "ends": ends, "unknown": 2}
    with reading(new.memory) as db:
        assert restored.ends(db) == {(old, lane): last for lane, last in ends.items()}


def test_acts_that_were_open_are_unknown_and_are_not_done_again(
    kept: Any, backup: Path, make_site: Callable[..., Any]
) -> None:
    """They may have been done after the backup: done again in time, and one that is not idempotent, is done twice."""
    with reading(kept.memory) as db:
        left = {each.decision for each in open_intents(db)}
    new = make_site(folder="new")
    put(backup, new, now_us=NOW_US)  # in time
    with reading(new.memory) as db:
        assert open_intents(db) == []
    settled = ask(new.memory, "SELECT ref, body FROM journal WHERE kind='action'")
    assert {ref for ref, _ in settled} == left
    assert {json.loads(body)["status"] for _, body in settled} == {"unknown"}


def test_where_there_is_a_memory_it_wants_force_and_sets_that_aside(kept: Any, backup: Path) -> None:
    kept.live()
    was = ask(kept.memory, ROWS)
    with pytest.raises(ConfigError, match="say --force"):
        put(backup, kept)
    assert ask(kept.memory, ROWS) == was
    done = put(backup, kept, force=True)
    assert done.set_aside is not None
    assert ask(done.set_aside, ROWS) == was
    assert len(ask(kept.memory, ROWS)) < len(was)
    again = put(backup, kept, force=True)
    assert again.set_aside not in (None, done.set_aside)


def test_records_that_are_only_in_the_log_are_set_aside_too(kept: Any, backup: Path, tmp_path: Path) -> None:
    journal = kept.journal()  # killed: its log is not folded up
    journal.write([Draft("alarm", "event", "site", NOW_US, "{}", label="crash")])
    shutil.copytree(kept.data, tmp_path / "killed")
    journal.close()
    shutil.rmtree(kept.data)
    shutil.copytree(tmp_path / "killed", kept.data)
    assert (kept.data / "memory.db-wal").stat().st_size
    done = put(backup, kept, force=True)
    assert ask(done.set_aside, "SELECT label FROM journal WHERE lane='alarm'") == [("crash",)]
    assert ask(kept.memory, "SELECT label FROM journal WHERE lane='alarm'") == []


def test_a_mark_of_damage_goes_with_the_memory_that_was_damaged(kept: Any, backup: Path) -> None:
    kept.memory.write_bytes(b"x" * 4096)
    (kept.data / "memory.damaged").write_text('{"reason": "a page"}')
    done = put(backup, kept, force=True)
    assert done.set_aside.read_bytes() == b"x" * 4096
    assert not (kept.data / "memory.damaged").exists()
    with reading(kept.memory) as db:
        assert verify(db).findings == ()


def test_a_site_that_runs_is_left_alone(kept: Any, backup: Path) -> None:
    lock = lock_data(kept.data)
    was = kept.memory.read_bytes()
    try:
        with pytest.raises(ConfigError, match="another process runs this site; stop it first"):
            put(backup, kept, force=True)
    finally:
        os.close(lock)
    assert kept.memory.read_bytes() == was


def test_another_sites_backup_is_refused_and_nothing_is_written(backup: Path, make_site: Callable[..., Any]) -> None:
    other = make_site("plant-02", "other")
    with pytest.raises(RejectedError, match=r"backup b: it is of site 'plant-01', and this is 'plant-02'"):
        put(backup, other)
    assert not other.data.exists()


def test_what_is_torn_is_refused_and_the_place_stays_as_it_was(
    kept: Any, backup: Path, make_site: Callable[..., Any]
) -> None:
    data = backup.read_bytes()
    kept_names = {"lock", "memory.db", KEY_FILE}
    was = ask(kept.memory, ROWS)
    new = make_site(folder="new")
    for end in (0, 10, len(data) // 2, len(data) - 1):
        backup.write_bytes(data[:end])
        with pytest.raises(RejectedError, match="backup b: "):
            put(backup, kept, force=True)
        with pytest.raises(RejectedError, match="backup b: "):
            put(backup, new)
    assert ask(kept.memory, ROWS) == was
    assert {each.name.removesuffix("-wal").removesuffix("-shm") for each in kept.data.iterdir()} == kept_names
    assert not new.data.exists()


def test_a_kit_that_never_ran_is_left_as_it_was(backup: Path, make_site: Callable[..., Any]) -> None:
    """It may have a data folder: it tried to join."""
    new = make_site(folder="new")
    whole = backup.read_bytes()
    backup.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RejectedError):
        put(backup, new)
    assert not new.data.exists()
    new.data.mkdir()
    (new.data / "identity.lock").touch()
    with pytest.raises(RejectedError):
        put(backup, new)
    assert [each.name for each in new.data.iterdir()] == ["identity.lock"]
    backup.write_bytes(whole)
    put(backup, new)
    with pytest.raises(ConfigError, match="holds a memory"):
        put(backup, new)
    assert (new.data / "lock").exists()


def test_what_a_newer_kit_made_and_what_has_no_room_is_refused_before_it_is_unpacked(
    kept: Any, backup: Path, make_site: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = make_site(folder="new")
    monkeypatch.setattr(restoring, "VERSION", 2)
    with pytest.raises(ConfigError, match=r"whose memory is newer \(schema 3, this one knows 2\)"):
        put(backup, new)
    monkeypatch.setattr(restoring, "VERSION", 3)
    monkeypatch.setattr(restoring, "_ROOM_BYTES", 2**60)
    with pytest.raises(RetryableError, match="free disk space"):
        put(backup, new)
    assert not new.data.exists()


def test_what_the_place_has_beside_its_memory_stays(kept: Any, backup: Path) -> None:
    """It is newer or the same: older words take nothing back."""
    kept.memory.unlink()
    (kept.data / KEY_FILE).unlink()
    mine = SigningKey(kept.data / KEY_FILE).public
    done = put(backup, kept)
    assert done.kept == (KEY_FILE,)
    assert SigningKey(kept.data / KEY_FILE).public == mine


def test_a_site_with_a_hub_notes_that_it_is_behind_it(make_site: Callable[..., Any], tmp_path: Path) -> None:
    site = make_site(hub={"broker": "mqtt://127.0.0.1:1", "root": "root.json"})
    site.live()
    back_up(site.site, tmp_path / "b", NOW_US)
    done = put(tmp_path / "b", site, force=True)
    assert restored.read_mark(site.memory) == 2
    assert ask(site.memory, f"SELECT ord FROM epochs WHERE epoch='{done.epoch}'") == [(2,)]


KILLED = """
import io, os, sys
from pathlib import Path
from edge_agent.backup.restoring import restore
from edge_agent.config import load_site
left = int(sys.argv[3])
def count(event, args):
    global left
    if event in ("os.rename", "os.link", "os.remove", "os.mkdir", "shutil.rmtree", "os.chmod"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), 9)
sys.addaudithook(count)
with open(sys.argv[1], "rb") as source:
    restore(source, "b", load_site(Path(sys.argv[2])), True, 1_800_003_600_000_000)
"""


def test_killed_at_any_operation_the_place_has_the_old_memory_or_the_new_and_it_can_be_done_again(
    kept: Any, backup: Path, tmp_path: Path
) -> None:
    journal = kept.journal()  # of a process that is killed too: a record is only in its log
    journal.write([Draft("alarm", "event", "site", NOW_US, "{}", label="crash")])
    shutil.copytree(kept.data, tmp_path / "before")
    was = ask(kept.memory, ROWS)
    journal.close()
    backed = len(was) - 1
    for left in range(100):
        shutil.rmtree(kept.data)
        shutil.copytree(tmp_path / "before", kept.data)
        words = [sys.executable, "-c", KILLED, str(backup), str(kept.file), str(left)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        rows = ask(kept.memory, ROWS)
        assert rows == was or (rows[:backed] == was[:backed] and rows[backed][7] == restored.LABEL)
        put(backup, kept, force=True)
        with reading(kept.memory) as db:
            assert verify(db, "plant-01").findings == ()
        assert not list(kept.data.glob("*.partial"))
    assert 5 < left < 99


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have another user's folder")
def test_root_works_in_no_folder_of_another(kept: Any, backup: Path, tmp_path: Path) -> None:
    """Its owner could have put links there, and root would follow them."""
    os.chown(kept.data, 10_001, 10_001)
    before = sorted(path.name for path in kept.data.iterdir())
    with pytest.raises(ConfigError, match=r"is user 10001's, .* run this as that user \(sudo -u '#10001'"):
        back_up(kept.site, tmp_path / "b2", NOW_US)
    with pytest.raises(ConfigError, match="is user 10001's"):
        put(backup, kept, force=True)
    assert sorted(path.name for path in kept.data.iterdir()) == before


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("CREATE TRIGGER t AFTER INSERT ON journal BEGIN DELETE FROM facts; END", "does things by itself"),
        ("UPDATE epochs SET ord = 9223372036854775807", "numbers that no site counts to"),
    ],
)
def test_a_memory_that_no_site_wrote_is_refused(
    kept: Any, tmp_path: Path, make_site: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, statement: str, why: str
) -> None:
    real = copy_memory

    def changed(source: Path, target: Path) -> Any:
        copied = real(source, target)
        with closing(sqlite3.connect(target)) as db, db:
            db.execute(statement)
        return copied

    monkeypatch.setattr(taking, "copy_memory", changed)
    back_up(kept.site, tmp_path / "b", NOW_US)
    new = make_site(folder="new")
    with pytest.raises(RejectedError, match=why):
        put(tmp_path / "b", new)
    assert not new.data.exists()
