"""edge_agent/MEMORY.md, Erasing: a subject goes from a stopped site's very bytes, and the chain still holds."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.memory import outbox
from edge_agent.memory.draft import Draft, Fact, Intent, to_body
from edge_agent.memory.erase import erase_subject
from edge_agent.memory.journal import Journal
from edge_agent.memory.lock import lock_data
from edge_agent.memory.retention import tend
from edge_agent.memory.schema import open_reader, reading
from edge_agent.memory.verify import verify
from edge_models.errors import ConfigError
from edge_sync.batch import decode
from edge_sync.rows import LANES

NAME = "Mara “M” Blom, badge 4711"


def in_files(memory: Path) -> bool:
    return NAME.encode() in b"".join(path.read_bytes() for path in memory.parent.glob("memory.db*"))


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def journal(memory: Path) -> Iterator[Journal]:
    made = Journal(memory, 16, lambda: 1)
    yield made
    made.close()


def observation(subject: str | None, size: int = 10, ref: Draft | None = None) -> Draft:
    body = to_body({"pad": "x" * size})
    return Draft("telemetry", "observation" if ref is None else "event", "gate", 1, body, subject=subject, ref=ref)


def test_all_of_a_subject_goes_from_the_bytes_and_gaps_take_its_place(memory: Path, journal: Journal) -> None:
    drawn = random.Random(4711)
    for _ in range(40):
        journal.write(
            [observation(NAME if drawn.random() < 0.2 else "other", drawn.randrange(6_000)) for _ in range(50)]
        )
    decided = Draft("decision", "decision", "gate", 1, "{}", subject=NAME, intent=Intent("alert", '{"a":1}', 9))
    journal.write([decided])
    for key, subject in (("last", NAME), ("else", "other")):
        fact = Fact(key, f'"{subject}"', None)
        journal.write([Draft("decision", "fact", "gate", 1, "{}", subject=subject, fact=fact)])
    journal.close()
    with reading(memory) as db:
        [(mine,)] = db.execute("SELECT count(*) FROM journal WHERE subject=?", (NAME,))
        [(others,)] = db.execute("SELECT count(*) FROM journal WHERE subject<>?", (NAME,))

    erased = erase_subject(memory, 16, NAME)
    assert (erased.records, erased.facts, erased.intents, erased.mentions) == (mine, 1, 1, 0)
    assert erased.overwritten
    assert not in_files(memory)
    with reading(memory) as db:
        assert verify(db).findings == ()
        assert db.execute("SELECT count(*) FROM journal").fetchone() == (others,)
        assert db.execute("SELECT sum(last-first+1), min(reason), max(reason) FROM gaps").fetchone() == (
            mine, "erased", "erased",
        )  # fmt: skip
        assert db.execute("SELECT key FROM facts").fetchall() == [("else",)]


def test_what_the_hub_lacks_travels_as_a_gap(memory: Path, journal: Journal) -> None:
    journal.write([observation(each) for each in ("other", NAME, NAME, "other", NAME)])
    epoch = journal.epoch
    journal.close()
    erase_subject(memory, 16, NAME)
    after = Journal(memory, 16, lambda: 2)
    assert after.order == 2
    after.close()
    with reading(memory) as db:
        outgoing = outbox.read_batch(db, (epoch, "telemetry"), 0)
    assert outgoing is not None
    batch = decode(outgoing.message)
    assert [row.subject for row in batch.rows] == ["other", "other"]
    assert [(gap.first, gap.last, gap.reason) for gap in batch.gaps] == [(2, 3, "erased"), (5, 5, "erased")]


def test_traces_of_records_that_went_before_go_too(memory: Path, journal: Journal) -> None:
    """Those evicted or dropped after their ack left their bytes in free pages, where SQLite was told to let them."""
    journal._connection.execute("PRAGMA secure_delete=OFF")
    journal.write([observation(NAME, 3_000) for _ in range(300)])
    for lane in LANES:
        journal.write((), also=lambda db, lane=lane: outbox.set_cursor(db, (journal.epoch, lane), 300))  # type: ignore[misc]
    while journal.maintain(lambda db: tend(db, above=0.0)):
        pass
    journal.write([observation("other")])
    journal.close()
    assert in_files(memory)
    erased = erase_subject(memory, 16, NAME)
    assert (erased.records, erased.overwritten) == (0, True)
    assert not in_files(memory)


def test_what_follows_from_it_without_a_subject_goes_with_it(memory: Path, journal: Journal) -> None:
    seen, other = observation(NAME), observation("other")
    journal.write([seen, other])
    said = observation(None, ref=seen)
    journal.write([said, observation(None, ref=other)])
    journal.write([observation(None, ref=said)])
    journal.close()
    assert erase_subject(memory, 16, NAME).records == 3
    with reading(memory) as db:
        assert [seq for (seq,) in db.execute("SELECT seq FROM journal ORDER BY seq")] == [2, 4]


def test_records_of_others_that_name_it_are_counted_and_stay(memory: Path, journal: Journal) -> None:
    journal.write([Draft("decision", "decision", "gate", 1, to_body({"facts": {"seen": NAME}}), subject="other")])
    journal.write([observation(NAME)])
    journal.close()
    erased = erase_subject(memory, 16, NAME)
    assert (erased.records, erased.mentions, erased.overwritten) == (1, 1, True)


def test_nothing_found_changes_nothing(memory: Path, journal: Journal) -> None:
    journal.write([observation("other")])
    journal.close()
    erased = erase_subject(memory, 16, NAME)
    assert (erased.records, erased.facts, erased.intents, erased.mentions) == (0, 0, 0, 0)
    with reading(memory) as db:
        assert db.execute("SELECT subject FROM journal").fetchall() == [("other",)]
        assert db.execute("SELECT count(*) FROM gaps").fetchone() == (0,)


def test_a_site_that_runs_is_left_alone(memory: Path, journal: Journal) -> None:
    journal.write([observation(NAME)])
    journal.close()
    running = lock_data(memory.parent)
    with pytest.raises(ConfigError, match="another process runs this site; stop it first"):
        erase_subject(memory, 16, NAME)
    os.close(running)
    assert erase_subject(memory, 16, NAME).records == 1


def test_wrong_words_are_refused(memory: Path) -> None:
    with pytest.raises(ConfigError, match="no such memory"):
        erase_subject(memory, 16, NAME)
    with pytest.raises(ConfigError, match="the subject is empty"):
        erase_subject(memory, 16, "")


def test_a_reader_that_does_not_end_is_told_of(memory: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.memory.schema.READ_LIMIT_S", -0.9)
    journal.write([observation(NAME)])
    journal.close()
    reader = open_reader(memory)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM journal").fetchall()
    assert not erase_subject(memory, 16, NAME).overwritten
    reader.close()
    erased = erase_subject(memory, 16, NAME)
    assert (erased.records, erased.overwritten) == (0, True)
    assert not in_files(memory)
