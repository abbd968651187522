"""edge_agent/MEMORY.md, Budget: what each decision makes the disk write is counted, noted and told."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_agent.memory.schema import reading
from edge_agent.memory.wear import NOTE_S, Wear, WearMeter, process_written_bytes, recent


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "memory.db", 16, lambda: 1)) as made:
        yield made


def decide(journal: Journal, count: int) -> None:
    for _ in range(count):
        journal.write([Draft("decision", "decision", "a", 1, '{"x": "%s"}' % ("y" * 800))])


def test_the_kernel_counts_what_a_journal_writes(journal: Journal) -> None:
    before = process_written_bytes()
    decide(journal, 50)
    after = process_written_bytes()
    if before is None or after is None or before == after:
        pytest.skip("this kernel does not count, or the folder for temporary files is no disk")
    assert after - before >= 50 * 4096, "each commit is at least a page of the file system"


def test_bytes_and_decisions_are_counted_from_the_start_of_the_process(journal: Journal) -> None:
    written = iter([1_000, 1_500, 41_000])
    meter = WearMeter(journal, lambda: next(written))
    assert meter.wear() == Wear(500, 0)
    assert Wear(500, 0).per_decision == 0
    decide(journal, 4)
    wear = meter.wear()
    assert wear == Wear(40_000, 4)
    assert wear.per_decision == 10_000


def test_what_was_noted_is_there_for_doctor_and_is_noted_once(journal: Journal) -> None:
    written = iter([0, 1_000, 2_000, 2_000, 5_000])
    meter = WearMeter(journal, lambda: next(written))
    decide(journal, 2)
    meter.tick(100.0)
    meter.tick(100.0 + NOTE_S / 2)
    decide(journal, 1)
    meter.tick(100.0 + NOTE_S)
    meter.note()  # nothing was decided since
    journal.new_epoch()
    decide(journal, 1)
    meter.note()
    journal.flush()
    with reading(journal.path) as db:
        assert db.execute("SELECT written_bytes, decided FROM epochs ORDER BY ord").fetchall() == [
            (2_000, 3),
            (3_000, 1),
        ]
        assert recent(db) == Wear(5_000, 4)


def test_a_kernel_that_does_not_say_is_no_fault(journal: Journal) -> None:
    meter = WearMeter(journal, lambda: None)
    decide(journal, 1)
    assert meter.wear() is None
    meter.note()
    journal.flush()
    with reading(journal.path) as db:
        assert recent(db) == Wear(0, 0)
