"""Real files, really damaged: what is proven is carried over, and the rest declared. Holds MEMORY.md, Damage."""

import itertools
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.memory.checkpoint import Checkpointer
from edge_agent.memory.damage import Mark, look, read_mark, take_mark_off, write_mark
from edge_agent.memory.draft import Draft, Fact, Intent, to_body
from edge_agent.memory.integrity import DAMAGED as EXIT_DAMAGED
from edge_agent.memory.integrity import IntegrityCheck
from edge_agent.memory.journal import Journal
from edge_agent.memory.outbox import DamagedError, hash_at, read_batch, set_cursor, streams
from edge_agent.memory.queries import open_intents
from edge_agent.memory.rescue import rescue, set_aside
from edge_agent.memory.retention import make_room
from edge_agent.memory.schema import reading
from edge_agent.memory.verify import damage, verify
from edge_agent.update.slots import Slot as ReleaseSlot
from edge_agent.update.slots import read_slot, write_active
from edge_sync.batch import decode
from edge_sync.ingest import Prefix, Store, judge
from edge_sync.release import Release
from edge_sync.rows import LANES, chain_start

BUDGET_MB = 16
BASE_US = 1_780_000_000_000_000
POSITIONS = 220
COLUMNS = "seq, at, kind, agent, subject, label, score, ref, body, hash"

Stream = tuple[str, str]
Fields = tuple[object, ...]


@dataclass
class Truth:
    """What a site wrote and what its hub has, as a sound file says."""

    folder: Path
    rows: dict[Stream, dict[int, Fields]] = field(default_factory=dict)
    ends: dict[Stream, int] = field(default_factory=dict)
    acked: dict[Stream, tuple[int, bytes]] = field(default_factory=dict)
    gaps: list[Fields] = field(default_factory=list)

    def copy(self, to: Path) -> Path:
        """The file as a kill -9 leaves it: with its WAL."""
        to.mkdir(exist_ok=True)
        for name in ("memory.db", "memory.db-wal"):
            shutil.copyfile(self.folder / name, to / name)
        return to / "memory.db"


def _clock() -> Callable[[], int]:
    ticks = itertools.count(BASE_US, 1_000)
    return lambda: next(ticks)


def _fill(journal: Journal, rng: random.Random, steps: int) -> None:
    for step in range(steps):
        seen = Draft(
            "telemetry", "observation", "press", BASE_US + step, to_body({"x": "y" * rng.choice((9, 90, 2500))})
        )
        said = Draft("telemetry", "prediction", "press", BASE_US + step, '{"scores":{}}', None, "worn", 1.0, seen)
        args = {"message": "worn"}
        body = to_body({"do": {"tool": "alert", "args": args}, "why": "z" * rng.choice((5, 700))})
        intent = Intent("alert", json.dumps(args), BASE_US + step + 60_000_000) if step == steps - 1 else None
        decided = Draft("decision", "decision", "press", BASE_US + step, body, "s", "r", 0.5, said, intent)
        journal.write([seen, said, decided])
        if step % 5 == 0:
            journal.write([Draft("alarm", "event", "site", BASE_US + step, "{}", label="crash")])
        if step % 9 == 0:
            fact = Fact(f"k{step}", '"v"', None)
            what = to_body({"key": f"k{step}", "value": "v"})
            journal.write([Draft("decision", "fact", "press", BASE_US, what, label=f"k{step}", fact=fact)])


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """Three epochs, the newest not ended: acked rows that were dropped, evicted ones, facts, an intent, a slot."""
    rng, now_us = random.Random(4), _clock()
    folder = tmp_path_factory.mktemp("site")
    live = folder / "live"
    path = live / "memory.db"
    release = Release.model_validate({"release": 7, "agents": [], "artifacts": {}})
    for number in range(3):
        journal = Journal(path, BUDGET_MB, now_us)
        checkpoints = Checkpointer(journal, "plant-01", live / "journal.key", now_us)
        checkpoints.tick(0.0)
        if number == 0:
            journal.write((), also=lambda db: write_active(db, ReleaseSlot(release, 3), BASE_US))
        _fill(journal, rng, 20)
        if number == 0:
            first = (journal.epoch, "telemetry")
            journal.write((), also=lambda db, s=first: set_cursor(db, s, 20))  # type: ignore[misc]
            journal.maintain(lambda db: make_room(db, 40))  # acknowledged: dropped
            with journal._transaction(8):
                journal._connection.execute("UPDATE cursors SET acked=trimmed")
            journal.maintain(lambda db: make_room(db, 12))  # not acknowledged: a gap
        if number == 1:
            for lane in LANES[:2]:
                acked = (journal.epoch, lane)
                journal.write((), also=lambda db, s=acked: set_cursor(db, s, 4))  # type: ignore[misc]
        checkpoints.note(1.0)
        if number < 2:
            journal.close()
    _fill(journal, rng, 4)
    made = Truth(folder / "killed")
    made.folder.mkdir()
    for name in ("memory.db", "memory.db-wal"):
        shutil.copyfile(live / name, made.folder / name)
    journal.close()
    with reading(made.copy(folder / "look")) as connection:
        assert not verify(connection).findings
        for state in streams(connection):
            stream = state.stream
            held = connection.execute(
                f"SELECT {COLUMNS} FROM journal WHERE epoch=? AND lane=? ORDER BY seq", stream
            ).fetchall()
            made.rows[stream] = {row[0]: row for row in held}
            made.ends[stream] = state.last
            made.acked[stream] = (state.acked, hash_at(connection, stream, state.acked) or b"")
        made.gaps = connection.execute("SELECT epoch, lane, first, last, reason FROM gaps").fetchall()
        assert made.gaps
        assert any(state.trimmed for state in streams(connection))
    return made


def _check(path: Path, truth: Truth) -> None:
    """What must hold of a file that took a damaged one's place."""
    with reading(path) as connection:
        assert verify(connection).findings == ()
        assert damage(connection) == ()
        here = {state.stream: state for state in streams(connection)}
        for stream, rows in truth.rows.items():
            held = {
                row[0]: row
                for row in connection.execute(f"SELECT {COLUMNS} FROM journal WHERE epoch=? AND lane=?", stream)
            }
            for seq, row in held.items():
                assert seq not in rows or row == rows[seq]
            end = here[stream].last if stream in here else 0
            assert end <= truth.ends[stream]
            gaps = connection.execute(
                "SELECT first, last FROM gaps WHERE epoch=? AND lane=? AND reason='damaged'", stream
            ).fetchall()
            acked, known = truth.acked[stream]
            for seq in rows:
                if acked < seq <= end and seq not in held:
                    assert any(first <= seq <= last for first, last in gaps), (stream, seq)
            _deliver(connection, stream, Prefix(acked, known), end)
        assert {stream for stream in here if stream in truth.rows} == set(here)


def _deliver(connection: sqlite3.Connection, stream: Stream, prefix: Prefix, end: int) -> None:
    """The hub takes every batch, from the prefix it has."""
    while prefix.high < end:
        outgoing = read_batch(connection, stream, prefix.high, 50)  # type: ignore[arg-type]
        assert outgoing is not None
        verdict = judge(prefix, decode(outgoing.message), lambda _: None)
        assert isinstance(verdict, Store), (stream, verdict)
        prefix = verdict.prefix


def _positions(truth: Truth) -> list[tuple[str, int]]:
    rng = random.Random(11)
    size, wal = ((truth.folder / name).stat().st_size for name in ("memory.db", "memory.db-wal"))
    found = [
        ("memory.db", at) for at in (0, 16, 17, 18, 19, 20, 24, 28, 31, 40, 44, 47, 52, 56, 59, 60, 63, 96, 100, 101)
    ]
    found += [("memory.db", rng.randrange(100, 1024)) for _ in range(20)]
    found += [("memory.db", page * 1024 + rng.randrange(16)) for page in range(1, size // 1024, max(1, size // 60_000))]
    found += [("memory.db-wal", rng.randrange(wal)) for _ in range(40)]
    while len(found) < POSITIONS:
        found.append(("memory.db", rng.randrange(size)))
    return found


def _mend(path: Path, reason: str = "a test said so") -> dict[str, object]:
    if read_mark(path) is None:
        write_mark(path, Mark(reason))
    report = rescue(path, BUDGET_MB, _clock())
    assert report is not None
    take_mark_off(path)
    return dict(report)


def test_every_flipped_byte_leaves_what_is_proven_and_gaps(truth: Truth, tmp_path: Path) -> None:
    positions = _positions(truth)
    assert len(positions) >= 200
    rng = random.Random(5)
    for number, (name, at) in enumerate(positions):
        path = truth.copy(tmp_path / str(number))
        with (path.parent / name).open("r+b") as file:
            file.seek(at)
            was = file.read(1)[0]
            file.seek(at)
            file.write(bytes([was ^ rng.choice((1, 2, 16, 64, 128, 255))]))
        _mend(path)
        _check(path, truth)
        before = path.read_bytes()
        assert rescue(path, BUDGET_MB, _clock()) is None
        assert path.read_bytes() == before
        shutil.rmtree(path.parent)


def test_a_schema_whose_words_are_no_text_any_more_is_mended(truth: Truth, tmp_path: Path) -> None:
    """SQLite quotes the schema in what it says then, and Python can't read that."""
    quoted = 0
    words = [
        match.start() for match in re.finditer(rb"journal|epochs|facts", (truth.folder / "memory.db").read_bytes())
    ]
    for number, at in enumerate(words[:12]):
        path = truth.copy(tmp_path / str(number))
        path.with_name("memory.db-wal").unlink(missing_ok=True)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"\xa0")
        with closing(sqlite3.connect(path)) as raw:
            try:
                raw.execute("SELECT name FROM sqlite_schema").fetchall()
            except UnicodeDecodeError:
                quoted += 1
            except sqlite3.Error:
                pass
        rescue(path, BUDGET_MB, _clock())
        with reading(path) as connection:
            assert not damage(connection)
    assert quoted, "none of these was what this test is for"


@pytest.mark.parametrize(
    "damaged", ["UPDATE slots SET document = replace(document, 'release', 'relezse')", "UPDATE facts SET value = '{'"]
)
def test_a_small_row_that_no_site_wrote_is_left_out(truth: Truth, tmp_path: Path, damaged: str) -> None:
    """As a flipped bit leaves it: SQLite finds nothing, no chain covers it, and a start would stumble over it."""
    path = truth.copy(tmp_path / "site")
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(damaged).rowcount
    report = rescue(path, BUDGET_MB, _clock())
    assert report is not None
    assert report["left_out"]
    assert report["lost_at_most"] == 0
    with reading(path) as connection:
        assert read_slot(connection, "active") is None or "slots" not in damaged


def test_a_sound_file_is_carried_over_whole(truth: Truth, tmp_path: Path) -> None:
    path = truth.copy(tmp_path / "site")
    report = _mend(path)
    assert report["lost_at_most"] == 0
    assert not report["gaps"]
    assert not report["left_out"]
    _check(path, truth)
    with reading(path) as new, reading(path.with_name(str(report["kept_as"]))) as old:
        for table in ("facts", "slots", "intents", "gaps"):
            assert new.execute(f"SELECT * FROM {table}").fetchall() == old.execute(f"SELECT * FROM {table}").fetchall()
        assert [(s.epoch, s.order, s.lane, s.last) for s in streams(new)] == [
            (s.epoch, s.order, s.lane, s.last) for s in streams(old)
        ]
        assert open_intents(new)
        slot = read_slot(new, "active")
        assert slot is not None
        assert slot.release.release == 7


def test_a_large_file_is_read_with_its_own_page_size(tmp_path: Path) -> None:
    """Larger pages find a part of the rows too: the file is asked at the same places with each size."""
    path = tmp_path / "memory.db"
    journal = Journal(path, BUDGET_MB, _clock())
    for _ in range(4):
        journal.write([Draft("telemetry", "event", "a", BASE_US, to_body({"x": "y" * 200})) for _ in range(4000)])
    journal.close()
    with path.open("r+b") as file:
        file.write(bytes(100))
    assert _mend(path)["rows"] == 16_000


@pytest.mark.parametrize("ruined", [0.1, 0.5])
def test_ruined_pages_lose_only_themselves(truth: Truth, tmp_path: Path, ruined: float) -> None:
    for seed in range(8):
        rng, path = random.Random(seed), truth.copy(tmp_path / str(seed))
        with path.open("r+b") as file:
            for page in range(path.stat().st_size // 1024):
                if rng.random() < ruined:
                    file.seek(page * 1024)
                    file.write(rng.randbytes(1024))
        report = _mend(path)
        assert report["rows"]
        _check(path, truth)


def _one(truth: Truth) -> Stream:
    """The newest epoch's decisions."""
    return [stream for stream in truth.rows if stream[1] == "decision"][-1]


@pytest.mark.parametrize(
    ("damaged", "gap"),
    [
        ("UPDATE journal SET body=body||'x' WHERE {here}", [(9, 9)]),
        ("UPDATE journal SET hash=zeroblob(32) WHERE {here}", []),  # the next row proves what it was
        ("UPDATE journal SET seq=99999 WHERE {here}", [(9, 10)]),
        ("UPDATE journal SET epoch='0123456789abcdef' WHERE {here}", [(9, 10)]),
        ("UPDATE journal SET lane='alarm', seq=77777 WHERE {here}", [(9, 10)]),
        ("UPDATE journal SET body='{{}}', hash=zeroblob(32) WHERE {here}", [(9, 10)]),
    ],
)
def test_the_gap_is_as_small_as_can_be_proven(
    truth: Truth, tmp_path: Path, damaged: str, gap: list[tuple[int, int]]
) -> None:
    path, stream = truth.copy(tmp_path / "site"), _one(truth)
    here = f"epoch='{stream[0]}' AND lane='decision' AND seq=9"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute(damaged.format(here=here))
        connection.commit()
    _mend(path)
    _check(path, truth)
    with reading(path) as connection:
        found = connection.execute("SELECT first, last FROM gaps WHERE reason='damaged'").fetchall()
    assert found == gap


def test_a_row_that_went_without_a_gap_is_declared(truth: Truth, tmp_path: Path) -> None:
    path, stream = truth.copy(tmp_path / "site"), _one(truth)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("DELETE FROM journal WHERE epoch=? AND lane=? AND seq BETWEEN 9 AND 12", stream)
        connection.commit()
    report = _mend(path)
    _check(path, truth)
    assert report["gaps"] == [f"{stream[0]}:decision:9-13"]
    assert report["lost_at_most"] == 5


def test_an_intent_that_is_not_what_was_decided_does_not_act(truth: Truth, tmp_path: Path) -> None:
    path = truth.copy(tmp_path / "site")
    with closing(sqlite3.connect(path)) as connection:
        count = connection.execute('UPDATE intents SET args=\'{"message":"open all valves"}\'').rowcount
        connection.execute("UPDATE facts SET value='{' WHERE key='k9'")
        connection.commit()
    report = _mend(path)
    assert report["left_out"] == {"intents": count, "facts": 1}
    with reading(path) as connection:
        assert not open_intents(connection)


def test_a_kill_in_the_middle_of_a_rescue_loses_nothing(truth: Truth, tmp_path: Path) -> None:
    """Every call that changes the folder is the last one of a process once."""
    code = (
        "import os, sys; from pathlib import Path; from edge_agent.memory.rescue import rescue\n"
        "left = int(sys.argv[2])\n"
        "def cut(event, args):\n"
        "    global left\n"
        "    if event in ('os.rename', 'os.remove', 'os.link') or (event == 'open' and args[2] & os.O_CREAT):\n"
        "        left -= 1\n"
        "        if left < 0: os._exit(9)\n"
        "sys.addaudithook(cut)\n"
        "rescue(Path(sys.argv[1]), 16, lambda: 1_780_000_000_000_000)\n"
    )
    for cut in range(100):
        path = truth.copy(tmp_path / str(cut))
        with path.open("r+b") as file:
            file.write(b"not SQLite any more")
        write_mark(path, Mark("a test said so"))
        child = subprocess.run([sys.executable, "-c", code, str(path), str(cut)], capture_output=True, check=False)
        assert child.returncode in (0, 9), child.stderr
        _mend(path)
        _check(path, truth)
        with reading(path) as connection:
            count = connection.execute("SELECT count(*) FROM journal").fetchone()[0]
        assert count == sum(map(len, truth.rows.values()))
        assert len(set_aside(path.parent)) == 1
        if child.returncode == 0:
            assert cut > 8
            return
    pytest.fail("the rescue never ended")


def test_a_torn_wal_is_no_damage(truth: Truth, tmp_path: Path) -> None:
    """SQLite goes back to the last commit that is whole: a prefix of every stream, and nothing is set aside."""
    rng = random.Random(8)
    wal = (truth.folder / "memory.db-wal").stat().st_size
    for number in range(40):
        path = truth.copy(tmp_path / str(number))
        log, keep = path.with_name("memory.db-wal"), rng.randrange(wal)
        os.truncate(log, keep)
        if number % 2:
            with log.open("r+b") as file:
                file.seek(max(0, keep - 700))
                file.write(rng.randbytes(min(keep, 700)))
        assert IntegrityCheck(path).needed == (log.stat().st_size > 0)
        assert look(path) is None
        with reading(path) as connection:
            assert damage(connection) == ()
            for state in streams(connection):
                assert state.last <= truth.ends[state.stream]
        assert rescue(path, BUDGET_MB, _clock()) is None
        journal = Journal(path, BUDGET_MB, _clock())
        journal.close()
        assert not set_aside(path.parent)


def test_a_smaller_budget_keeps_the_newest(truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = truth.copy(tmp_path / "site")
    monkeypatch.setattr("edge_agent.memory.rescue.MIN_FREE_BYTES", 0)
    usage = shutil.disk_usage(path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=250_000))
    report = _mend(path)
    assert report["kept_as"] is None
    assert not set_aside(path.parent)
    with reading(path) as connection:
        assert verify(connection).findings == ()
        held = connection.execute("SELECT count(*) FROM journal WHERE lane='decision'").fetchone()[0]
        evicted = connection.execute("SELECT count(*) FROM gaps WHERE reason LIKE 'evicted%'").fetchone()[0]
        for stream, (acked, known) in truth.acked.items():
            _deliver(connection, stream, Prefix(acked, known), truth.ends[stream])
    assert held
    assert evicted
    assert path.stat().st_size <= 300_000


def test_what_is_not_ours_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    assert look(path) is None
    assert rescue(tmp_path / "none.db", BUDGET_MB, _clock()) is None


def test_nothing_left_of_a_file_leaves_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    path.write_bytes(random.Random(1).randbytes(40_000))
    report = _mend(path)
    assert report["rows"] == 0
    assert not path.exists()
    assert [file.name for file in set_aside(tmp_path)] == [report["kept_as"]]


def test_the_check_after_an_unclean_stop_finds_damage(truth: Truth, tmp_path: Path) -> None:
    path, stream = truth.copy(tmp_path / "site"), _one(truth)
    now = 0.0
    sound = IntegrityCheck(path, lambda: now)
    now = 6.0
    deadline = time.monotonic() + 30
    while sound.needed and time.monotonic() < deadline:
        assert sound.poll() is None
        time.sleep(0.02)
    assert not sound.needed
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE journal SET body='{}' WHERE epoch=? AND lane=? AND seq=9", stream)
        connection.commit()
    child = subprocess.run(
        [sys.executable, "-m", "edge_agent.memory.integrity", str(path)], capture_output=True, check=False, text=True
    )
    assert child.returncode == EXIT_DAMAGED
    assert f"{stream[0]}:decision:9: " in child.stdout


def test_a_mark_whose_file_was_taken_away_keeps_no_site_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    write_mark(path, Mark("a test said so"))
    assert rescue(path, BUDGET_MB, _clock()) is None
    assert read_mark(path) is None
    write_mark(path, Mark("a test said so", "memory.damaged-gone.db"))
    assert rescue(path, BUDGET_MB, _clock()) is None
    Journal(path, BUDGET_MB, _clock()).close()


def test_a_check_ends_with_its_site(truth: Truth, tmp_path: Path) -> None:
    path = truth.copy(tmp_path / "site")
    code = "import sys, time; from edge_agent.memory import integrity; integrity.damage = lambda _: time.sleep(60)\n"
    code += "sys.exit(integrity.main(sys.argv[1], '--with-stdin'))"
    started = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    with child:
        assert child.stdin is not None
        child.stdin.close()  # as a kill -9 of the site does
        assert child.wait(30) not in (0, EXIT_DAMAGED)
    assert time.monotonic() - started < 30


def test_a_machine_without_room_for_a_process_is_not_looked_through(
    truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    check = IntegrityCheck(truth.copy(tmp_path / "site"), lambda: now)
    now = 6.0
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no such program"))
    assert check.poll() is None
    assert not check.needed


def test_the_start_of_a_chain_is_that_of_its_stream(truth: Truth) -> None:
    assert all(known == chain_start(*stream) for stream, (acked, known) in truth.acked.items() if not acked)


def test_a_name_that_a_disk_changed_in_the_schema_is_found_or_changes_nothing(truth: Truth, tmp_path: Path) -> None:
    """SQLite does not call that damage: it says that there is no such column."""
    folded = truth.copy(tmp_path / "folded")
    with closing(sqlite3.connect(folded)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        text: str = connection.execute("SELECT sql FROM sqlite_schema WHERE name='journal'").fetchone()[0]
    whole = folded.read_bytes()
    start = whole.index(text.encode())
    found = 0
    for at in range(start, start + len(text.encode())):
        path = tmp_path / "hurt.db"
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        if look(path) is not None:
            found += 1
            continue
        try:
            with reading(path) as connection:
                for stream in truth.rows:
                    assert read_batch(connection, stream, 0) is not None  # type: ignore[arg-type]
        except DamagedError:  # another type, and so another value
            found += 1
    assert found > len("epoch lane seq at kind agent subject label score ref body hash")
