"""edge_agent/MEMORY.md: what is durable, in what order, and what a full disk does."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent.memory import keeper as keeper_module
from edge_agent.memory import outbox, queries
from edge_agent.memory.draft import Draft, Fact, Intent, to_body
from edge_agent.memory.journal import GROUP_COMMIT_S, Growth, Journal, JournalUnavailableError
from edge_agent.memory.keeper import Keeper
from edge_agent.memory.retention import make_room
from edge_agent.memory.schema import VERSION, open_writer, reading
from edge_agent.memory.verify import verify
from edge_models.errors import ConfigError
from edge_sync.batch import decode
from edge_sync.rows import LANES, MAX_BODY_BYTES, Lane


def now_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "memory.db", 64, now_us)
    yield made
    made.close()


def chain_of_three(agent: str = "a", tool: str | None = None) -> list[Draft]:
    observed = Draft("telemetry", "observation", agent, now_us(), '{"x": 1}')
    predicted = Draft("telemetry", "prediction", agent, now_us(), "{}", label="ok", score=0.5, ref=observed)
    intent = Intent(tool, "{}", now_us() + 10**9) if tool else None
    return [observed, predicted, Draft("decision", "decision", agent, now_us(), "{}", ref=predicted, intent=intent)]


def wait_for(condition: Callable[[], bool], deadline_s: float = 5.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        threading.Event().wait(0.005)


def test_numbers_are_contiguous_from_one_in_each_lane_and_references_are_ids(journal: Journal) -> None:
    for _ in range(3):
        journal.write(chain_of_three())
    with reading(journal.path) as db:
        for lane, count in (("telemetry", 6), ("decision", 3)):
            seqs = [row[0] for row in db.execute("SELECT seq FROM journal WHERE lane=? ORDER BY id", (lane,))]
            assert seqs == list(range(1, count + 1))
        decision = queries.record(db, f"{journal.epoch}:decision:2")
        assert decision is not None
        assert decision.ref == f"{journal.epoch}:telemetry:4"


def test_write_is_durable_on_return_and_later_within_the_group_commit(journal: Journal) -> None:
    drafts = chain_of_three()
    journal.write(drafts)
    assert all(draft.id for draft in drafts)
    action = Draft("decision", "action", "a", now_us(), "{}", ref=drafts[2])
    started = time.monotonic()
    journal.later([action])
    wait_for(lambda: action.id is not None)
    assert time.monotonic() - started < GROUP_COMMIT_S * 20


def test_what_comes_while_a_group_is_committed_waits_no_longer_than_that_group(journal: Journal) -> None:
    first, second = (Draft("decision", "event", "a", now_us(), "{}") for _ in range(2))

    def once_more(_: Growth) -> None:
        journal._listeners.clear()
        journal.later([second])

    journal.listen(once_more)
    started = time.monotonic()
    journal.later([first])
    wait_for(lambda: second.id is not None)
    assert time.monotonic() - started < 0.8, "a second is for a disk that is full"


def test_threads_share_transactions(journal: Journal) -> None:
    def work() -> None:
        for _ in range(100):
            journal.write(chain_of_three())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.last("telemetry") == 1200
    assert journal.commits < 600
    with reading(journal.path) as db:
        assert verify(db).findings == ()


def test_a_unit_that_is_wrong_does_not_take_others_with_it(journal: Journal) -> None:
    good = chain_of_three()
    journal.later(good)
    with pytest.raises(ValueError, match="make it with to_body"):
        journal.write([Draft("alarm", "event", "a", now_us(), "x" * (MAX_BODY_BYTES + 1))])
    journal.flush()
    assert all(draft.id for draft in good)
    journal.write(chain_of_three())
    with reading(journal.path) as db:
        assert verify(db).findings == ()


@pytest.mark.parametrize(
    "wrong",
    [
        Draft("urgent", "event", "a", 1, "{}"),  # type: ignore[arg-type]
        Draft("decision", "event", "a", 2**63, "{}"),
        Draft("decision", "event", "a", 2**65, "{}"),
        Draft("decision", "event", "a", 1, "\udcff"),
        Draft("decision", "event", "a", None, "{}"),  # type: ignore[arg-type]
        Draft("decision", "event", "a", 1, "{}", ref=Draft("decision", "event", "a", 1, "{}")),
    ],
    ids=["lane", "at", "at-huge", "surrogate", "no-time", "ref"],
)
def test_whatever_is_wrong_with_a_unit_only_its_own_writer_hears_of_it(journal: Journal, wrong: Draft) -> None:
    good = [chain_of_three() for _ in range(3)]
    heard: list[Exception | None] = []

    def write(drafts: list[Draft]) -> None:
        try:
            journal.write(drafts)
            heard.append(None)
        except Exception as error:  # noqa: BLE001 - whatever it is
            heard.append(error)

    threads = [threading.Thread(target=write, args=(drafts,)) for drafts in ([wrong], *good)]
    with journal._commit_lock:  # so that all of it is one transaction
        journal.later([wrong])
        for thread in threads:
            thread.start()
        wait_for(lambda: len(journal._queue) == 5)
    for thread in threads:
        thread.join()
    assert sorted(error is None for error in heard) == [False, True, True, True]
    assert not any(isinstance(error, JournalUnavailableError) for error in heard), "waiting would not help"
    assert wrong.id is None
    late = chain_of_three()
    journal.later(late)  # the thread that writes by itself lives
    wait_for(lambda: late[-1].id is not None)
    with reading(journal.path) as db:
        assert all(queries.record(db, draft.id or "") for drafts in (*good, late) for draft in drafts)
        assert db.execute("SELECT count(*) FROM journal").fetchone() == (12,)
        assert verify(db).findings == ()


def test_an_interrupted_commit_is_durable_for_nobody(journal: Journal) -> None:
    def interrupt(_: sqlite3.Connection) -> None:
        raise KeyboardInterrupt

    drafts, heard = chain_of_three(), []

    def write() -> None:
        with pytest.raises(JournalUnavailableError, match="cut short"):
            journal.write(drafts)
        heard.append(True)

    thread = threading.Thread(target=write)
    with journal._commit_lock:
        journal.later(also=interrupt)
        thread.start()
        wait_for(lambda: len(journal._queue) == 2)
        with pytest.raises(KeyboardInterrupt):
            journal._commit_waiting()
    thread.join()
    assert heard == [True]
    journal.write(drafts)
    with reading(journal.path) as db:
        assert verify(db).rows == 3


def test_a_new_epoch_that_finds_the_disk_full_leaves_all_as_it_was(journal: Journal) -> None:
    before = (journal.epoch, journal.order)
    budget = journal._connection.execute("PRAGMA max_page_count").fetchone()[0]
    journal._connection.execute("PRAGMA max_page_count=1")
    journal._connection.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON main.epochs BEGIN"
        " INSERT INTO journal VALUES (NULL, 'e', 'alarm', 1, 1, 'k', 'a', NULL, NULL, NULL, NULL,"
        " hex(zeroblob(9000000)), x''); END"
    )
    with pytest.raises(JournalUnavailableError, match="full"):
        journal.new_epoch()
    assert not journal._connection.in_transaction
    assert (journal.epoch, journal.order) == before
    journal._connection.execute(f"PRAGMA max_page_count={budget}")
    journal._connection.execute("DROP TRIGGER full")
    journal.write(chain_of_three())
    journal.new_epoch()
    assert journal.order == before[1] + 1


def test_maintenance_that_fails_is_undone(journal: Journal) -> None:
    journal.write(chain_of_three())

    def fail(db: sqlite3.Connection) -> int:
        db.execute("DELETE FROM journal")
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        journal.maintain(fail)
    journal.write(chain_of_three())
    with reading(journal.path) as db:
        assert verify(db).rows == 6


def test_the_keeper_outlives_a_file_that_is_locked_for_long(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper_module, "LOOK_S", 0.01)
    journal._connection.execute("PRAGMA busy_timeout=50")
    other = sqlite3.connect(journal.path, isolation_level=None)
    keeper = Keeper(journal)
    keeper.start()
    other.execute("BEGIN IMMEDIATE")
    wait_for(lambda: "keeper_waits" in caplog.messages)
    other.execute("ROLLBACK")
    other.close()

    def fail(*_: object) -> int:
        raise KeyError("a bug")

    monkeypatch.setattr(keeper_module, "tend", fail)
    wait_for(lambda: "keeper_failed" in caplog.messages)
    called = threading.Event()

    def note(*_: object) -> int:
        called.set()
        return 0

    monkeypatch.setattr(keeper_module, "tend", note)
    assert called.wait(5)
    keeper.close()


def test_nobody_else_may_read_what_a_site_remembers(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        journal = Journal(tmp_path / "memory.db", 64, now_us)
        journal.write(chain_of_three())
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("memory.db*")}
        journal.close()
    finally:
        os.umask(umask)
    assert modes == {"memory.db": 0o600, "memory.db-wal": 0o600, "memory.db-shm": 0o600}


def test_a_file_that_cant_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.db: cannot be opened as a site's memory"):
        open_writer(tmp_path / "folder.db", 64)


def test_an_intent_is_open_until_its_action_is_recorded(journal: Journal) -> None:
    drafts = chain_of_three(tool="alert")
    journal.write(drafts)
    with reading(journal.path) as db:
        [intent] = queries.open_intents(db)
        assert (intent.decision, intent.tool) == (drafts[2].id, "alert")
        journal.write([Draft("alarm", "action", "a", now_us(), "{}", ref=drafts[2].id, settles=True)])
        assert queries.open_intents(db) == []


def test_a_fact_is_set_with_its_record_and_its_version_grows(journal: Journal) -> None:
    for value in ("1", "2"):
        journal.write([Draft("decision", "fact", "a", now_us(), "{}", fact=Fact("mode", value, None))])
    with reading(journal.path) as db:
        assert db.execute("SELECT value, version, origin FROM facts").fetchall() == [
            ("2", 2, f"{journal.epoch}:decision:2")
        ]


def test_each_start_is_an_epoch_of_its_own(tmp_path: Path) -> None:
    epochs = []
    for _ in range(3):
        journal = Journal(tmp_path / "memory.db", 64, now_us)
        journal.write(chain_of_three())
        epochs.append((journal.order, journal.epoch))
        journal.close()
    assert [order for order, _ in epochs] == [1, 2, 3]
    assert len({epoch for _, epoch in epochs}) == 3
    with reading(tmp_path / "memory.db") as db:
        assert len(outbox.streams(db)) == 6
        assert verify(db).findings == ()


def test_growth_is_told_after_the_commit(journal: Journal) -> None:
    heard: list[Growth] = []
    journal.listen(heard.append)
    journal.write(chain_of_three())
    assert [(g.lane, g.last) for g in heard] == [("decision", 1), ("telemetry", 2)]
    assert {g.epoch for g in heard} == {journal.epoch}


def read_all(db: sqlite3.Connection, stream: tuple[str, Lane], after: int = 0) -> tuple[list[int], list[int]]:
    """Seqs sent as rows and seqs inside declared gaps, by reading batch after batch as the uplink does."""
    rows: list[int] = []
    gone: list[int] = []
    while (outgoing := outbox.read_batch(db, stream, after)) is not None:
        batch = decode(outgoing.message)
        rows += [row.seq for row in batch.rows]
        gone += [seq for gap in batch.gaps for seq in range(gap.first, gap.last + 1)]
        assert batch.header.first == after + 1
        after = outgoing.last
    return rows, gone


def test_batches_hold_every_row_once_in_order(journal: Journal) -> None:
    for _ in range(700):
        journal.write(chain_of_three())
    with reading(journal.path) as db:
        rows, gone = read_all(db, (journal.epoch, "telemetry"))
    assert rows == list(range(1, 1401))
    assert gone == []


def test_large_rows_make_smaller_batches(journal: Journal) -> None:
    noise = to_body({"x": os.urandom(28_000).hex()})
    for _ in range(40):
        journal.write([Draft("telemetry", "observation", "a", now_us(), noise)])
    with reading(journal.path) as db:
        assert read_all(db, (journal.epoch, "telemetry"))[0] == list(range(1, 41))


def test_acknowledged_rows_go_first_and_unacknowledged_ones_leave_a_gap(journal: Journal) -> None:
    for _ in range(1500):
        journal.write(chain_of_three())
    telemetry, decision = (journal.epoch, "telemetry"), (journal.epoch, "decision")
    journal.write((), also=lambda db: outbox.set_cursor(db, telemetry, 1000))  # type: ignore[arg-type]
    assert journal.maintain(make_room) == 1000
    with reading(journal.path) as db:
        assert db.execute("SELECT count(*) FROM gaps").fetchone() == (0,)
        assert read_all(db, telemetry, after=1000)[0] == list(range(1001, 3001))  # type: ignore[arg-type]
    evicted = 0
    while evicted < 2000:
        evicted += journal.maintain(make_room)
    assert evicted == 2000, "no step begins with one lane and ends with another"
    with reading(journal.path) as db:
        assert read_all(db, telemetry, after=1000) == ([], list(range(1001, 3001)))  # type: ignore[arg-type]
        assert read_all(db, decision)[0] == list(range(1, 1501))  # type: ignore[arg-type]
        assert verify(db).findings == ()
    while journal.maintain(make_room):
        pass
    journal.write(chain_of_three())
    with reading(journal.path) as db:
        assert read_all(db, decision) == ([1501], list(range(1, 1501)))  # type: ignore[arg-type]
        assert verify(db).findings == ()


def test_rows_dropped_after_their_ack_are_told_to_a_hub_that_lost_them(journal: Journal) -> None:
    for _ in range(10):
        journal.write(chain_of_three())
    stream: tuple[str, Lane] = (journal.epoch, "decision")
    journal.write((), also=lambda db: outbox.set_cursor(db, stream, 6))
    while journal.maintain(make_room) != 6:
        pass
    with reading(journal.path) as db:
        assert read_all(db, stream) == ([7, 8, 9, 10], [1, 2, 3, 4, 5, 6])


KILLED = """
import sys, time
from pathlib import Path
from edge_agent.memory.draft import Draft, Intent
from edge_agent.memory.journal import Journal
j = Journal(Path(sys.argv[1]), 64, lambda: time.time_ns() // 1000)
print(j.epoch, flush=True)
while True:
    o = Draft("telemetry", "observation", "a", 1, "{}")
    d = Draft("decision", "decision", "a", 1, "{}", ref=o, intent=Intent("alert", "{}", 1))
    j.write([o, d])
    print(d.id, flush=True)
    j.later([Draft("decision", "action", "a", 1, "{}", ref=d, settles=True)])
"""


@pytest.mark.parametrize("lines", [5, 60, 333])
def test_kill_9_loses_nothing_that_was_said_to_be_durable(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "memory.db"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    epoch = child.stdout.readline().strip()
    said = [child.stdout.readline().strip() for _ in range(lines)]
    child.kill()
    child.wait()
    child.stdout.close()
    journal = Journal(path, 64, now_us)
    journal.close()
    with reading(path) as db:
        assert verify(db).findings == ()
        for public_id in said:
            assert queries.record(db, public_id) is not None
        decisions = db.execute("SELECT count(*) FROM journal WHERE kind='decision'").fetchone()[0]
        settled = db.execute("SELECT count(*) FROM journal WHERE kind='action'").fetchone()[0]
        assert len(queries.open_intents(db)) == decisions - settled
        assert {state.epoch for state in outbox.streams(db)} == {epoch}


def test_a_changed_row_is_found_and_named(journal: Journal, tmp_path: Path) -> None:
    for _ in range(5):
        journal.write(chain_of_three())
    journal.close()
    raw = sqlite3.connect(tmp_path / "memory.db")
    raw.execute("UPDATE journal SET label='fine' WHERE lane='decision' AND seq=3")
    raw.execute("DELETE FROM journal WHERE lane='telemetry' AND seq BETWEEN 4 AND 5")
    raw.commit()
    raw.close()
    with reading(tmp_path / "memory.db") as db:
        findings = {(f.lane, f.seq): f.what for f in verify(db).findings}
    assert findings["decision", 3].startswith("the row is not what was written")
    assert findings["telemetry", 4].startswith("rows 4 to 5 are missing")


def test_a_file_that_is_no_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    path.write_bytes(b"not a database, " * 100)
    with pytest.raises(ConfigError, match="cannot be opened as a site's memory"):
        open_writer(path, 64)


def test_a_file_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    open_writer(path, 64).close()
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version={VERSION + 1}")
    raw.close()
    with pytest.raises(ConfigError, match="newer edge-agent"):
        open_writer(path, 64)


def test_every_lane_is_known_to_the_epochs_table(journal: Journal) -> None:
    with reading(journal.path) as db:
        columns = {row[1] for row in db.execute("PRAGMA table_info(epochs)")}
    assert set(LANES) <= columns
