"""edge_agent/MEMORY.md, Budget: the file, its WAL and the WAL's index together, at every moment."""

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.memory import outbox
from edge_agent.memory.budget import MIN_BUDGET_BYTES, divide
from edge_agent.memory.draft import Draft, Fact, Intent, to_body
from edge_agent.memory.journal import Journal, JournalUnavailableError
from edge_agent.memory.keeper import Keeper
from edge_agent.memory.schema import READ_LIMIT_S, open_reader, reading, snapshot
from edge_agent.memory.verify import verify
from edge_models.errors import KitError
from edge_sync.batch import decode
from edge_sync.rows import LANES, Lane

BUDGET_MB = 16


class Watch:
    """A thread that looks at the sizes of a memory's files, again and again."""

    def __init__(self, path: Path) -> None:
        self._files = [path.with_name(path.name + end) for end in ("", "-wal", "-shm")]
        self.most = self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def look(self) -> int:
        """All of them together, now. In this order: what a checkpoint moves is counted twice rather than not."""
        held = 0
        for file in self._files:
            with contextlib.suppress(FileNotFoundError):
                held += os.stat(file).st_size
        self.most = max(self.most, held)
        self.looks += 1
        return held

    def _run(self) -> None:
        while not self._stop.wait(0.0005):
            self.look()

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.look()


def sealed(tmp_path: Path, budget_mb: int = BUDGET_MB) -> Journal:
    return Journal(tmp_path / "memory.db", budget_mb, lambda: time.time_ns() // 1000)


def observation(size: int, lane: Lane = "telemetry") -> Draft:
    return Draft(lane, "observation", "a", 1, to_body({"x": "y" * size}))


def fails(journal: Journal) -> bool:
    try:
        journal.write([observation(3_000)])
    except JournalUnavailableError:
        return True
    return False


def everything(path: Path, epoch: str, lane: Lane) -> list[int]:
    """Every seq of a stream once, in a row or in a gap."""
    found: list[int] = []
    with reading(path) as db:
        assert verify(db).findings == ()
        while (outgoing := outbox.read_batch(db, (epoch, lane), found[-1] if found else 0)) is not None:
            batch = decode(outgoing.message)
            found += sorted(
                [row.seq for row in batch.rows] + [s for gap in batch.gaps for s in range(gap.first, gap.last + 1)]
            )
    return found


@pytest.mark.parametrize("megabytes", [16, 64, 512, 1_000_000])
@pytest.mark.parametrize("page_bytes", [1024, 4096])
def test_the_parts_of_a_budget_are_no_more_than_the_whole(megabytes: int, page_bytes: int) -> None:
    total = megabytes * 2**20
    budget = divide(total, page_bytes)
    index = 32_768 * (1 + (budget.frames + 34) // 4096)
    assert 32 + budget.frames * (page_bytes + 24) <= budget.wal_bytes
    assert budget.pages * page_bytes + budget.wal_bytes + index <= total
    assert budget.transaction_pages + budget.cache_pages <= budget.frames
    assert 3 * budget.step_pages <= budget.transaction_pages


@pytest.mark.parametrize("size", [10, 300, 900, 3_000, 65_000])
def test_a_writer_at_full_speed_stays_inside_and_never_has_to_stop(tmp_path: Path, size: int) -> None:
    journal = sealed(tmp_path)
    with Watch(journal.path) as watch:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            journal.write([observation(size) for _ in range(max(1, 200_000 // (size + 300)))])
            watch.look()
    last = journal.last("telemetry")
    journal.close()
    assert watch.most <= MIN_BUDGET_BYTES
    assert watch.looks > 100
    assert size < 100 or watch.most > 0.7 * MIN_BUDGET_BYTES, "and uses it"
    assert everything(journal.path, journal.epoch, "telemetry") == list(range(1, last + 1))


def test_a_reader_that_holds_on_for_two_seconds_stops_nobody_for_good(tmp_path: Path) -> None:
    journal = sealed(tmp_path)
    for _ in range(100):
        journal.write([observation(60_000)])
    stop = threading.Event()

    def read() -> None:
        connection = open_reader(journal.path)
        while not stop.is_set():
            with snapshot(connection):
                connection.execute("SELECT count(*) FROM journal").fetchone()
                stop.wait(READ_LIMIT_S)
        connection.close()

    reader = threading.Thread(target=read)
    reader.start()
    with Watch(journal.path) as watch:
        until = time.monotonic() + 3 * READ_LIMIT_S
        while time.monotonic() < until:
            journal.write([observation(20_000), observation(200, "decision")])
            watch.look()
        stop.set()
        reader.join()
    journal.close()
    assert watch.most <= MIN_BUDGET_BYTES


def test_while_a_reader_never_lets_go_there_is_no_record_and_then_there_is(tmp_path: Path) -> None:
    journal = sealed(tmp_path)
    journal.write([observation(10)])
    journal.room.patience_s = 0.02
    connection = open_reader(journal.path)
    with Watch(journal.path) as watch:
        with snapshot(connection):
            connection.execute("SELECT count(*) FROM journal").fetchone()
            written = 0
            while not fails(journal):
                written += 1
            wal_bytes = (tmp_path / "memory.db-wal").stat().st_size
            for _ in range(5):
                with pytest.raises(JournalUnavailableError, match="a reader does not let go"):
                    journal.write([observation(3_000)])
        journal.write([observation(3_000)])
    connection.close()
    journal.close()
    assert written > 100
    assert wal_bytes > divide(MIN_BUDGET_BYTES).wal_bytes / 2, "its share was used"
    assert watch.most <= MIN_BUDGET_BYTES


def test_many_who_wait_are_more_than_one_transaction_may_hold(tmp_path: Path) -> None:
    journal = sealed(tmp_path)
    drafts = [observation(60_000) for _ in range(200)]
    with Watch(journal.path) as watch:
        with journal._commit_lock:
            for draft in drafts:
                journal.later([draft])
        journal.flush()
    assert [draft.id for draft in drafts] == [f"{journal.epoch}:telemetry:{seq}" for seq in range(1, 201)]
    assert journal.commits > 3
    journal.close()
    assert watch.most <= MIN_BUDGET_BYTES
    assert everything(journal.path, journal.epoch, "telemetry") == list(range(1, 201))


def test_one_unit_that_is_more_than_a_transaction_may_hold_is_written_in_parts(tmp_path: Path) -> None:
    journal = sealed(tmp_path)
    drafts: list[Draft] = []
    for number in range(90):
        observed = observation(60_000)
        decision = Draft("decision", "decision", "a", 1, "{}", ref=observed, intent=Intent("alert", "{}", number))
        drafts += (observed, decision)
    with Watch(journal.path) as watch:
        journal.write(drafts, also=lambda db: outbox.set_cursor(db, (journal.epoch, "alarm"), 0))
    assert drafts[-1].id == f"{journal.epoch}:decision:90"
    assert journal.decided == 90
    with reading(journal.path) as db:
        assert db.execute("SELECT count(*) FROM intents").fetchone() == (90,)
        assert db.execute("SELECT count(*) FROM cursors").fetchone() == (1,)
    journal.close()
    assert watch.most <= MIN_BUDGET_BYTES


def test_a_transaction_that_no_wal_can_hold_is_refused_and_holds_up_nobody(tmp_path: Path) -> None:
    journal = sealed(tmp_path)

    def too_much(db: sqlite3.Connection) -> None:
        for number in range(100):
            db.execute("INSERT INTO facts VALUES ('site', ?, ?, 1, NULL, NULL)", (str(number), "x" * 100_000))

    with Watch(journal.path) as watch:
        journal.later(also=too_much)
        journal.later([observation(10)])
        with pytest.raises((ValueError, JournalUnavailableError)):
            journal.write((), also=too_much)
        journal.flush()
        journal.write([observation(10)])
    assert journal.last("telemetry") == 2
    with reading(journal.path) as db:
        assert db.execute("SELECT count(*) FROM facts").fetchone() == (0,)
    journal.close()
    assert watch.most <= MIN_BUDGET_BYTES


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_written_read_and_evicted_the_bound_holds(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.memory.keeper.LOOK_S", 0.05)
    draw = random.Random(seed)
    journal = sealed(tmp_path)
    keeper = Keeper(journal)
    stop = threading.Event()

    def write(seed: int) -> None:
        mine = random.Random(seed)
        while not stop.is_set():
            unit = []
            for _ in range(mine.choice((1, 3, 30, 400))):
                lane = mine.choice(LANES)
                ref = f"{mine.getrandbits(64):016x}:telemetry:{mine.randrange(10**9)}"
                body = "é" * mine.choice((0, 50, 600, 1_000, 4_000)) if mine.random() < 0.99 else "z" * 65_000
                fact = Fact(f"f{mine.randrange(200)}", '"' + "v" * mine.randrange(9_000) + '"', None)
                unit.append(
                    Draft(
                        lane, "fact", "a", 1, to_body({"x": body}), ref=ref, fact=fact if mine.random() < 0.05 else None
                    )
                )
            with contextlib.suppress(JournalUnavailableError):
                journal.write(unit)

    def read() -> None:
        connection = open_reader(journal.path)
        mine = random.Random(seed)
        while not stop.is_set():
            with snapshot(connection):
                connection.execute("SELECT max(id) FROM journal").fetchone()
                stop.wait(mine.choice((0.001, 0.05, 0.5)))
        connection.close()

    def acknowledge() -> None:
        while not stop.wait(0.01):
            lane: Lane = draw.choice(LANES)
            stream = (journal.epoch, lane)
            last = journal.last(lane)
            journal.later(also=lambda db, stream=stream, last=last: outbox.set_cursor(db, stream, last))  # type: ignore[misc]

    threads = [
        threading.Thread(target=work) for work in (lambda: write(seed), lambda: write(-seed - 1), read, acknowledge)
    ]
    with Watch(journal.path) as watch:
        keeper.start()
        for thread in threads:
            thread.start()
        time.sleep(4)  # the time under test, not luck
        stop.set()
        for thread in threads:
            thread.join()
        keeper.close()
        journal.close()
    assert watch.most <= MIN_BUDGET_BYTES
    with reading(journal.path) as db:
        assert verify(db).findings == ()
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_housekeeping_that_a_reader_holds_up_holds_up_no_record(tmp_path: Path) -> None:
    """A step changes more pages than a record: it must not wait for readers where a record has room."""
    journal = sealed(tmp_path)
    step = journal.room.budget.step_pages
    connection = open_reader(journal.path)
    with snapshot(connection):
        connection.execute("SELECT count(*) FROM journal").fetchone()
        wal = tmp_path / "memory.db-wal"
        while journal.room.budget.frames * 1048 - wal.stat().st_size > (step + journal.room.budget.cache_pages) * 1048:
            journal.write([observation(20_000)])
        started = time.monotonic()
        with pytest.raises(JournalUnavailableError, match="a reader does not let go"):
            journal.maintain(lambda _: 0)
        assert time.monotonic() - started < journal.room.patience_s / 5
        journal.write([observation(100)])
    connection.close()
    assert journal.maintain(lambda _: 7) == 7
    journal.close()


@contextlib.contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A disk of so many MiB at `folder`."""
    mount = shutil.which("mount")
    if mount is None or os.getuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder.mkdir()
    if subprocess.run([mount, "-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder], check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def wait_for(condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.005)


def test_a_full_disk_means_no_record_and_the_site_recovers_by_itself(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with disk(folder, 24):
        journal = Journal(folder / "memory.db", 64, lambda: 1)
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(8 * 2**20))
        assert any(fails(journal) for _ in range(10_000)), "16 MiB hold no 10,000 records of 3 kB"
        held = journal.last("telemetry")
        kept = observation(3_000)
        journal.later([kept])
        for _ in range(10):
            assert fails(journal)
        assert journal.last("telemetry") == held
        assert kept.id is None
        ballast.unlink()
        wait_for(lambda: kept.id is not None)
        assert not fails(journal)
        journal.close()
        assert everything(folder / "memory.db", journal.epoch, "telemetry") == list(range(1, held + 3))


def test_a_site_that_starts_on_a_full_disk_says_so_and_starts_when_there_is_room(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with disk(folder, 8):
        sealed(folder).close()
        ballast = folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        with pytest.raises(KitError):
            sealed(folder)
        ballast.unlink()
        journal = sealed(folder)
        journal.write([observation(10)])
        journal.close()


def fill(path: Path, budget_mb: int) -> str:
    journal = Journal(path, budget_mb, lambda: 1)
    while journal.room.used_pages() < 0.7 * journal.room.budget.pages:
        journal.write([observation(700) for _ in range(300)] + [observation(100, "decision") for _ in range(10)])
    journal.close()
    return journal.epoch


def test_a_file_that_is_larger_than_a_lowered_budget_comes_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.memory.keeper.LOOK_S", 0.01)
    path = tmp_path / "memory.db"
    epoch = fill(path, 64)
    before = path.stat().st_size
    assert before > 2 * MIN_BUDGET_BYTES
    journal = sealed(tmp_path)
    keeper = Keeper(journal)
    with Watch(path) as watch:
        journal.write([observation(700)])
        keeper.start()
        wait_for(lambda: watch.look() <= MIN_BUDGET_BYTES and journal.room.excess_pages() <= 0, 60)
        down = Watch(path)
        with down:
            for _ in range(300):
                journal.write([observation(700) for _ in range(50)])
        keeper.close()
        journal.close()
    assert watch.most <= before + divide(MIN_BUDGET_BYTES).wal_bytes + 2**16, "it never grew meanwhile"
    assert down.most <= MIN_BUDGET_BYTES, "and stays down"
    assert path.stat().st_size <= divide(MIN_BUDGET_BYTES).pages * 1024
    for lane in LANES:
        seqs = everything(path, epoch, lane)
        assert seqs == list(range(1, len(seqs) + 1))
    assert len(everything(path, epoch, "decision")) > 100
    with reading(path) as db:
        assert db.execute("SELECT sum(last-first+1) FROM gaps WHERE lane<>'telemetry'").fetchone() == (None,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_that_is_full_when_the_site_starts_takes_records_at_once(tmp_path: Path) -> None:
    fill(tmp_path / "memory.db", 64)
    journal = sealed(tmp_path)
    for _ in range(100):
        journal.write([observation(700)])
    assert journal.last("telemetry") == 100
    journal.close()


def test_nothing_that_may_go_is_left_simulated(tmp_path: Path) -> None:
    """SQLite may not make the file larger: as where facts and gaps alone fill the budget."""
    journal = sealed(tmp_path)
    journal._connection.execute("PRAGMA max_page_count=1")
    with pytest.raises(JournalUnavailableError, match="budget is full"):
        journal.write([observation(10)])
    journal.write((), also=lambda db: outbox.set_cursor(db, (journal.epoch, "alarm"), 0))
    journal.close()
