"""What the hub is sent while the site goes on: each read is of one moment."""

import sqlite3
import threading
import time
from collections.abc import Iterator

import pytest

from edge_agent.memory import outbox
from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.retention import make_room
from edge_agent.memory.schema import open_reader, snapshot
from edge_agent.memory.verify import verify
from edge_sync.batch import decode
from edge_sync.ingest import Prefix, Store, judge
from edge_sync.rows import Lane


def rows(journal: Journal, count: int, lane: Lane = "telemetry") -> None:
    journal.write([Draft(lane, "event", "a", 1, "{}") for _ in range(count)])


@pytest.fixture
def reader(journal: Journal) -> Iterator[sqlite3.Connection]:
    connection = open_reader(journal.path)
    yield connection
    connection.close()


def test_a_batch_read_while_rows_are_evicted_follows_the_one_before(
    journal: Journal, reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows(journal, 3000)
    stream: tuple[str, Lane] = (journal.epoch, "telemetry")
    first = outbox.read_batch(reader, stream, 0)
    assert first is not None
    hash_at = outbox.hash_at

    def evicting(connection: sqlite3.Connection, of: tuple[str, Lane], seq: int) -> bytes | None:
        journal.maintain(make_room)  # between the batch's rows and its first hash
        return hash_at(connection, of, seq)

    monkeypatch.setattr(outbox, "hash_at", evicting)
    second = outbox.read_batch(reader, stream, first.last)
    assert second is not None
    header = decode(first.message).header
    assert isinstance(judge(Prefix(header.last, header.after), decode(second.message), lambda _: None), Store)
    assert not reader.in_transaction


def test_every_batch_can_be_decoded_while_agents_write_and_the_keeper_evicts(
    journal: Journal, reader: sqlite3.Connection
) -> None:
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            rows(journal, 100)

    def evict() -> None:
        while not stop.is_set():
            journal.maintain(make_room)
            stop.wait(0.005)

    threads = [threading.Thread(target=work) for work in (write, evict)]
    for thread in threads:
        thread.start()
    after, batches, until = 0, 0, time.monotonic() + 3
    try:
        while time.monotonic() < until:
            outgoing = outbox.read_batch(reader, (journal.epoch, "telemetry"), after)
            if outgoing is not None:
                assert decode(outgoing.message).header.first == after + 1
                after, batches = outgoing.last, batches + 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert batches > 10


def test_a_snapshot_inside_another_is_part_of_it(journal: Journal, reader: sqlite3.Connection) -> None:
    rows(journal, 1)
    with snapshot(reader):
        before = outbox.streams(reader)
        rows(journal, 1)
        assert outbox.streams(reader) == before
    assert outbox.streams(reader) != before


def test_a_trimmed_range_that_begins_with_a_gap_is_no_finding(journal: Journal, reader: sqlite3.Connection) -> None:
    rows(journal, 3000)
    evicted = journal.maintain(make_room)
    assert evicted < 2500
    journal.write((), also=lambda db: outbox.set_cursor(db, (journal.epoch, "telemetry"), 2500))
    dropped = 0
    while dropped < 2500 - evicted:
        dropped += journal.maintain(make_room)
    report = verify(reader)
    assert report.findings == ()
    assert (report.rows, report.evicted) == (500, 2500)


@pytest.mark.parametrize("damage", ["body='[]'", "hash=zeroblob(32)", "at='never'", "body=CAST(x'ff' AS TEXT)"])
def test_a_row_that_is_not_what_was_written_is_not_sent(
    journal: Journal, reader: sqlite3.Connection, damage: str
) -> None:
    rows(journal, 20)
    journal.maintain(lambda db: db.execute(f"UPDATE journal SET {damage} WHERE seq=7").rowcount)
    stream: tuple[str, Lane] = (journal.epoch, "telemetry")
    with pytest.raises(outbox.DamagedError, match=f"{journal.epoch}:telemetry"):
        outbox.read_batch(reader, stream, 0)
    before = outbox.read_batch(reader, stream, 0, 6)
    assert before is not None
    assert before.last == 6
