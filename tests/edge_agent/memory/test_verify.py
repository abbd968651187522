"""edge_agent/MEMORY.md: whatever is changed behind the site's back is found, and where it is."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.memory import verify as verify_module
from edge_agent.memory.checkpoint import Checkpointer, SigningKey
from edge_agent.memory.damage import Mark, write_mark
from edge_agent.memory.draft import Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.memory.outbox import set_cursor, streams
from edge_agent.memory.rescue import rescue
from edge_agent.memory.retention import make_room
from edge_agent.memory.schema import open_as_it_is, reading
from edge_agent.memory.verify import Report, damage, verify
from edge_sync.rows import Row, chain, chain_start, row_bytes

NOW_US = 1_800_000_000_000_000
ROWS = 40


class Memory:
    """A closed memory of one site: 40 rows of telemetry, checkpoints after 20, 40 and 45 of them."""

    def __init__(self, folder: Path) -> None:
        self.path, self.key = folder / "memory.db", folder / "journal.key"
        journal = Journal(self.path, 64, lambda: NOW_US)
        checkpoints = Checkpointer(journal, "plant-01", self.key, lambda: NOW_US)
        for count in (20, 20, 5):
            journal.write(
                [
                    Draft("telemetry", "prediction", "press", NOW_US + n, to_body({"n": n}), "p-1", "ok", n / 64)
                    for n in range(count)
                ]
            )
            checkpoints.note(0.0)
        self.epoch = journal.epoch
        journal.close()

    def change(self, *statements: str) -> None:
        """As somebody would with sqlite3 and nothing else."""
        with closing(sqlite3.connect(self.path)) as db:
            for statement in statements:
                db.execute(statement)
            db.commit()

    def chain_anew(self, lane: str, first: int) -> None:
        """Compute every hash of the lane from this number on, as a forger who read the specification would."""
        with closing(sqlite3.connect(self.path)) as db:
            rows = db.execute(
                "SELECT seq, at, kind, agent, subject, label, score, ref, body, hash FROM journal"
                " WHERE lane=? ORDER BY seq",
                (lane,),
            ).fetchall()
            at_hash = chain_start(self.epoch, lane)
            for *fields, held in rows:
                row = Row(*fields)
                at_hash = held if row.seq < first else chain(at_hash, row_bytes(row))
                db.execute("UPDATE journal SET hash=? WHERE lane=? AND seq=?", (at_hash, lane, row.seq))
            db.commit()

    def verify(self, site: str | None = "plant-01", key: str | None = None) -> Report:
        with reading(self.path) as db:
            return verify(db, site, key or SigningKey(self.key).public)

    def found(self) -> list[tuple[str, int, str]]:
        return [(each.lane, each.seq, each.what) for each in self.verify().findings]


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path)


def test_a_journal_as_it_was_written_has_no_findings(memory: Memory) -> None:
    report = memory.verify()
    assert (report.findings, report.checkpoints, report.rows, report.pages) == ((), 3, 48, True)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at", "at+1"),
        ("kind", "'decision'"),
        ("agent", "'other'"),
        ("subject", "NULL"),
        ("subject", "CAST(x'ff' AS TEXT)"),
        ("label", "''"),
        ("score", "NULL"),
        ("score", "'none'"),
        ("ref", "'x'"),
        ("body", "body||' '"),
        ("body", "CAST(x'7b227fff' AS TEXT)"),
        ("body", "x'7b7d'"),
        ("body", "7"),
        ("hash", "x'00'"),
        ("hash", "'text'"),
        ("hash", "zeroblob(32)"),
    ],
)
def test_a_flipped_column_is_found_at_its_row(memory: Memory, column: str, value: str) -> None:
    memory.change(f"UPDATE journal SET {column}={value} WHERE lane='telemetry' AND seq=7")
    assert memory.found()[0] == ("telemetry", 7, "the row is not what was written, or follows another")


@pytest.mark.parametrize(
    ("statement", "first"),
    [
        ("UPDATE journal SET seq=700 WHERE lane='telemetry' AND seq=7", 7),
        ("UPDATE journal SET seq='seven' WHERE lane='telemetry' AND seq=7", 7),
        ("UPDATE journal SET lane='fast' WHERE lane='telemetry' AND seq=7", 7),
        ("UPDATE journal SET epoch='0' WHERE lane='telemetry' AND seq=7", 7),
        ("DELETE FROM journal WHERE lane='telemetry' AND seq=7", 7),
        ("DELETE FROM journal WHERE lane='telemetry' AND seq=1", 1),
    ],
)
def test_a_row_that_is_gone_is_missed_where_it_was(memory: Memory, statement: str, first: int) -> None:
    memory.change(statement)
    lane, seq, what = memory.found()[0]
    assert (lane, seq, what) == ("telemetry", first, f"rows {first} to {first} are missing, no gap says so")


def test_two_rows_that_changed_places_are_both_found(memory: Memory) -> None:
    memory.change(
        "UPDATE journal SET seq=-7 WHERE lane='telemetry' AND seq=7",
        "UPDATE journal SET seq=7 WHERE lane='telemetry' AND seq=8",
        "UPDATE journal SET seq=8 WHERE lane='telemetry' AND seq=-7",
    )
    assert {seq for _, seq, _ in memory.found()} >= {7, 8}


def test_a_forgery_whose_hashes_were_all_made_anew_is_found_by_what_was_signed(memory: Memory) -> None:
    memory.change("UPDATE journal SET label='fine' WHERE lane='telemetry' AND seq=25")
    memory.chain_anew("telemetry", 25)
    ((lane, seq, what),) = memory.found()
    assert (lane, seq) == ("telemetry", 40)
    assert what == f"rows 21 to 40 are not those that checkpoint {memory.epoch}:decision:2 signed"


def test_a_tail_cut_off_below_a_checkpoint_is_missed(memory: Memory) -> None:
    memory.change("DELETE FROM journal WHERE lane='telemetry' AND seq>35")
    assert [(lane, seq) for lane, seq, _ in memory.found()] == [("telemetry", 36)]
    assert "checkpoint" in memory.found()[0][2]


def test_a_whole_lane_that_is_gone_is_missed(memory: Memory) -> None:
    memory.change("DELETE FROM journal WHERE lane='telemetry'")
    assert ("telemetry", 1) in [(lane, seq) for lane, seq, _ in memory.found()]


def test_a_tail_cut_off_with_its_checkpoints_is_missed_by_what_the_hub_acknowledged(memory: Memory) -> None:
    memory.change(
        f"INSERT INTO cursors (epoch, lane, acked) VALUES ('{memory.epoch}', 'telemetry', 45)",
        "DELETE FROM journal WHERE lane='telemetry' AND seq>20",
        "DELETE FROM journal WHERE lane='decision' AND seq>1",
    )
    assert memory.found() == [("telemetry", 21, "rows 21 to 45 are missing: the hub acknowledged them")]


def test_a_gap_declared_over_rows_that_are_held_is_found(memory: Memory) -> None:
    memory.change(
        f"INSERT INTO gaps SELECT '{memory.epoch}', 'telemetry', 7, 9, 'evicted', hash FROM journal"
        " WHERE lane='telemetry' AND seq=9",
    )
    assert [(seq, what[:15]) for _, seq, what in memory.found()] == [(seq, "the row is held") for seq in (7, 8, 9)]


@pytest.mark.parametrize("damage", ["last='x'", "hash='x'", "last=last-1", "first=first+1", "hash=zeroblob(32)"])
def test_a_gap_that_was_changed_is_found(memory: Memory, damage: str) -> None:
    memory.change(
        f"INSERT INTO gaps SELECT '{memory.epoch}', 'telemetry', 7, 9, 'evicted', hash FROM journal"
        " WHERE lane='telemetry' AND seq=9",
        "DELETE FROM journal WHERE lane='telemetry' AND seq BETWEEN 7 AND 9",
    )
    assert memory.found() == []
    memory.change(f"UPDATE gaps SET {damage}")
    assert memory.found() != []


def test_a_checkpoint_that_was_tampered_with_can_t_be_believed(memory: Memory) -> None:
    memory.change(
        "UPDATE journal SET body=replace(body, '\"order\":1', '\"order\":2') WHERE label='checkpoint' AND seq=2"
    )
    memory.chain_anew("decision", 2)
    assert ("decision", 2, "the checkpoint can't be believed: its signature does not hold") in memory.found()


def test_a_checkpoint_of_another_site_is_told(memory: Memory) -> None:
    findings = memory.verify(site="plant-02").findings
    assert {each.what for each in findings} == {"the checkpoint is not this site's: it is of plant-01"}


def test_checkpoints_of_another_key_are_told(memory: Memory, tmp_path: Path) -> None:
    """Of a forger who can write the journal and can't read the key."""
    other = SigningKey(tmp_path / "other.key").public
    assert [each.what.split(" key ")[0] for each in memory.verify(key=other).findings] == [
        "its checkpoints are not signed with the site's"
    ]


def test_a_new_key_may_begin_with_an_epoch_and_the_old_one_may_not_come_back(tmp_path: Path) -> None:
    """A site that lost its disk has a new key, and its hub gave old records back to it."""
    for name in ("old", "new", "old"):
        journal = Journal(tmp_path / "memory.db", 64, lambda: NOW_US)
        Checkpointer(journal, "plant-01", tmp_path / f"{name}.key", lambda: NOW_US).note(0.0)
        journal.close()
        with reading(tmp_path / "memory.db") as db:
            findings = verify(db, "plant-01", SigningKey(tmp_path / "new.key").public).findings if name != "old" else ()
        assert findings == ()
    with reading(tmp_path / "memory.db") as db:
        back = verify(db, "plant-01", SigningKey(tmp_path / "new.key").public).findings
    assert [each.what.split(" the key ")[0] for each in back] == ["from here, checkpoints are signed with"]


def test_the_end_of_an_epoch_is_held_by_the_next_one(tmp_path: Path) -> None:
    path, key = tmp_path / "memory.db", tmp_path / "journal.key"
    epochs = []
    for _ in range(2):
        journal = Journal(path, 64, lambda: NOW_US)
        Checkpointer(journal, "plant-01", key, lambda: NOW_US).note(0.0)
        journal.write([Draft("alarm", "event", "press", NOW_US, "{}") for _ in range(3)])
        epochs.append(journal.epoch)
        journal.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE journal SET hash=zeroblob(32) WHERE epoch=? AND lane='alarm' AND seq=3", (epochs[0],))
        db.commit()
    with reading(path) as db:
        whats = [each.what for each in verify(db).findings if each.epoch == epochs[0]]
    assert any("checkpoint" in what and epochs[1] in what for what in whats)


def test_a_running_site_that_evicts_and_forgets_meanwhile_is_no_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two slices the keeper drops acknowledged and unacknowledged rows, and the journal grows."""
    monkeypatch.setattr(verify_module, "SLICE_ROWS", 50)
    path = tmp_path / "memory.db"
    for _ in range(2):
        journal = Journal(path, 64, lambda: NOW_US)
        checkpoints = Checkpointer(journal, "plant-01", tmp_path / "journal.key", lambda: NOW_US)
        for _ in range(4):
            journal.write([Draft("telemetry", "event", "press", NOW_US, "{}") for _ in range(100)])
            checkpoints.note(0.0)
        if journal.order == 1:
            journal.close()
    with reading(path) as db:
        held = streams(db)
    acked = [state for state in held if state.epoch != journal.epoch]
    calls = 0
    real = verify_module._rows

    def rows(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        found = real(*args)
        if calls == 2:
            journal.write([Draft("telemetry", "event", "press", NOW_US, "{}")], also=lambda db: _acknowledge(db, acked))
        if calls in (3, 5, 7, 9):
            journal.maintain(lambda db: make_room(db, 2))
            journal.write([Draft("telemetry", "event", "press", NOW_US, "{}")])
        return found

    monkeypatch.setattr(verify_module, "_rows", rows)
    with reading(path) as db:
        report = verify(db, "plant-01")
        left = db.execute("SELECT count(*) FROM journal").fetchone()[0]
    assert report.findings == ()
    assert calls > 9
    assert left < 816
    journal.close()


def _acknowledge(db: sqlite3.Connection, states: Any) -> None:
    for state in states:
        set_cursor(db, state.stream, state.last)


def test_a_file_with_a_flipped_page_is_found_wherever_it_is(memory: Memory) -> None:
    raw = bytearray(memory.path.read_bytes())
    at = raw.index(b'{"n":17}')
    raw[at + 5] ^= 1
    memory.path.write_bytes(raw)
    assert [(lane, seq) for lane, seq, _ in memory.found()] == [("telemetry", 18)]
    raw[4096 * 3 : 4096 * 4] = b"\xaa" * 4096
    memory.path.write_bytes(raw)
    assert any(what.startswith("SQLite: ") for _, _, what in memory.found())


NASTY: list[dict[str, Any]] = [
    {"score": 0},
    {"score": 1},
    {"score": -0.0},
    {"score": 0.1 + 0.2},
    {"score": 5e-324},
    {"score": 1 - 2**-53},
    {"score": None, "subject": None, "label": None, "ref": None},
    {"subject": "", "label": "", "ref": ""},
    {"subject": "Größe 🦆 \u2028 \x00 x", "label": "e\u0301"},
    {"at_us": 0},
    {"at_us": 2**63 - 1},
    {"body": json.dumps({"big": 10**40, "deep": [[[1e308]]], "text": "\ud83e\udd86"})},
    {"body": ""},
    {"body": "x" * 65_536},
]


@pytest.mark.parametrize("fields", NASTY)
def test_the_file_gives_back_the_very_bytes_that_were_hashed(tmp_path: Path, fields: dict[str, Any]) -> None:
    journal = Journal(tmp_path / "memory.db", 64, lambda: NOW_US)
    plain: dict[str, Any] = {"lane": "decision", "kind": "event", "agent": "a", "at_us": 1, "body": "{}"}
    journal.write([Draft(**plain | fields)])
    journal.close()
    with reading(tmp_path / "memory.db") as db:
        assert verify(db).findings == ()
        assert verify(db).rows == 1


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.1])
def test_a_score_that_is_none_is_refused_to_its_writer(tmp_path: Path, score: float) -> None:
    journal = Journal(tmp_path / "memory.db", 64, lambda: NOW_US)
    with pytest.raises(ValueError, match="a score of"):
        journal.write([Draft("decision", "event", "a", 1, "{}", score=score)])
    journal.close()


def test_any_bit_of_a_row_or_of_its_place_in_the_index_that_flips_is_found(tmp_path: Path) -> None:
    """What an index leaves out is never read; what it calls a number may be none (simulator, seed 1894)."""
    path = tmp_path / "memory.db"
    journal = Journal(path, 16, lambda: 1)
    for number in range(3):
        journal.write([Draft("decision", "decision", "watch", 1, f'{{"mark":"row {number} of three"}}')])
    key = journal.epoch.encode() + b"decision\x02"
    journal.close()
    sound = path.read_bytes()
    places = [at for at in range(len(sound)) if sound.startswith(key, at)]
    assert len(places) == 2, "the row itself, and its entry in the index"
    unseen = []
    for place, length in zip(places, (len(key) + 60, len(key) + 1), strict=True):
        for at in range(place - 5, place + length):
            for bit in range(8):
                data = bytearray(sound)
                data[at] ^= 1 << bit
                path.write_bytes(data)
                with closing(open_as_it_is(path)) as connection:
                    if not damage(connection):
                        unseen.append((at - place, bit))
    assert unseen == []


def test_an_index_that_leaves_rows_out_is_mended_and_they_are_back(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    journal = Journal(path, 16, lambda: 1)
    for number in range(3):
        journal.write([Draft("decision", "decision", "watch", 1, f'{{"mark":"row {number} of three"}}')])
    key = journal.epoch.encode() + b"decision\x02"
    journal.close()
    data = bytearray(path.read_bytes())
    data[data.rindex(key) + 3] ^= 1
    path.write_bytes(data)
    write_mark(path, Mark("rows are not where their index says"))
    mended = rescue(path, 16, lambda: 1)
    assert mended is not None
    assert (mended["rows"], mended["lost_at_most"]) == (3, 0)
