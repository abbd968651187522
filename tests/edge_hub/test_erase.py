"""sync/SPEC.md, Retention and erasing: a subject's records go from the hub's very bytes; the chain still holds."""

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import select

from edge_hub.database.dialect import Database
from edge_hub.database.schema import audit as audit_table
from edge_hub.database.schema import facts, gaps, records, sites
from edge_hub.database.schema import quarantine as quarantined
from edge_hub.database.store import Store, UnknownError
from edge_hub.ingest.journal import Arrived, store_batches
from edge_hub.keeping import erasures
from edge_hub.keeping.erase import erase_subject
from edge_hub.records import audit, quarantine
from edge_hub.records.chain import verify_site
from edge_models.errors import ConfigError
from edge_sync.batch import decode, encode
from edge_sync.rows import Row, chain, chain_start, row_bytes

NAME = "Mara Blom, badge 4711"
EPOCH = "00000000000000aa"
NOW = 1_800_000_000_000_000


def in_the_files(database: Database) -> bool | None:
    """Whether the name is in the database's very bytes; None where they are not ours to read."""
    if not isinstance(database, Path):
        return None
    return NAME.encode() in b"".join(path.read_bytes() for path in database.parent.glob("hub.db*"))


def write(store: Store, lane: str, *rows: tuple[str, str | None, str | None]) -> list[bytes]:
    """Rows of plant-01, as kind, subject and what they follow from; returns the chain's hashes."""
    hashes, raws = [chain_start(EPOCH, lane)], []
    for seq, (kind, subject, ref) in enumerate(rows, 1):
        body = f'{{"seen":"{subject}","pad":"{"x" * 300}"}}'
        raws.append(row_bytes(Row(seq, seq, kind, "gate", subject, None, None, ref, body)))
        hashes.append(chain(hashes[-1], raws[-1]))
    message = encode(EPOCH, lane, raws, [], (1, len(rows)), (hashes[0], hashes[-1]))
    with store.writing() as db:
        store_batches(db, [Arrived("plant-01", decode(message), message)], 5)
    return hashes


@pytest.fixture(autouse=True)
def registered(store: Store) -> None:
    with store.writing() as db:
        for name in ("plant-01", "plant-02"):
            db.execute(sites.insert().values(site=name, labels={}, created_us=1, online=False))


def test_all_of_a_subject_goes_from_the_bytes_and_gaps_carry_the_chain(store: Store, tmp_path: Path) -> None:
    seen = [("observation", NAME if seq % 5 == 0 else f"other {seq}", None) for seq in range(1, 401)]
    hashes = write(store, "telemetry", *seen)
    decided = write(store, "decision", ("decision", NAME, None), ("fact", NAME, None), ("decision", "other", None))
    with store.writing() as db:
        for key, seq in (("last", 2), ("else", 3)):
            row = {"site": "plant-01", "key": key, "value": "1", "epoch": EPOCH, "lane": "decision", "seq": seq}
            db.execute(facts.insert().values(**row, since_us=1))
    assert in_the_files(store.database) is not False

    erased = erase_subject(store, tmp_path, "plant-01", NAME, "operator", NOW)
    assert (erased.records, erased.facts, erased.quarantined) == (82, 1, 0)
    assert erased.overwritten is isinstance(store.database, Path)
    assert not in_the_files(store.database)
    assert verify_site(store, "plant-01").findings == ()
    with store.reading() as db:
        assert audit.verify(db) is None
        held = db.execute(select(gaps).order_by(gaps.c.lane, gaps.c.first)).all()
        assert [(g.lane, g.first, g.last) for g in held[:2]] == [("decision", 1, 2), ("telemetry", 5, 5)]
        for gap in held:
            assert gap.reason == "erased"
            assert gap.hash == (decided if gap.lane == "decision" else hashes)[gap.last]
        assert len(db.execute(select(records)).all()) == 403 - 82
        assert list(db.scalars(select(facts.c.key))) == ["else"]


def test_what_follows_from_an_erased_record_goes_with_it(store: Store, tmp_path: Path) -> None:
    ids = [f"{EPOCH}:telemetry:{seq}" for seq in range(6)]
    write(
        store, "telemetry",
        ("observation", NAME, None), ("event", None, ids[1]), ("event", None, ids[2]),
        ("observation", "other", None), ("event", None, ids[4]), ("event", None, ids[5]),
    )  # fmt: skip
    assert erase_subject(store, tmp_path, "plant-01", NAME, "operator", NOW).records == 3
    with store.reading() as db:
        assert list(db.scalars(select(records.c.seq))) == [4, 5, 6]


def test_it_is_in_the_audit_and_in_the_list_without_the_name(store: Store, tmp_path: Path) -> None:
    write(store, "telemetry", ("observation", NAME, None))
    erase_subject(store, tmp_path, "plant-01", NAME, "operator", NOW)
    sha256 = hashlib.sha256(f"plant-01\n{NAME}".encode()).hexdigest()
    with store.reading() as db:
        [row] = db.execute(select(audit_table)).all()
    assert (row.what, row.who) == ("subject erased", "operator")
    assert row.detail == {"site": "plant-01", "subject_sha256": sha256, "records": 1, "facts": 0, "quarantined": 0}
    assert erasures.noted(tmp_path) == [erasures.Erasure("plant-01", sha256, NOW)]
    assert (tmp_path / erasures.ERASURES).stat().st_mode & 0o777 == 0o600


def test_messages_put_aside_go_where_they_hold_the_name_or_nobody_can_read_them(store: Store, tmp_path: Path) -> None:
    def batch(subject: str) -> bytes:
        raw = row_bytes(Row(1, 1, "observation", "gate", subject, None, None, None, "{}" * 500))
        start = chain_start(EPOCH, "alarm")
        return encode(EPOCH, "alarm", [raw], [], (1, 1), (start, chain(start, raw)))

    kept = [batch("other"), b'{"site": "other"}']
    with store.writing() as db:
        for payload in (batch(NAME), b"EJ1 is no batch", NAME.encode(), *kept):
            quarantine.put(db, 1, "plant-01", payload, "why")
        quarantine.put(db, 1, "plant-02", batch(NAME), "why")
    assert erase_subject(store, tmp_path, "plant-01", NAME, "operator", NOW).quarantined == 3
    with store.reading() as db:
        mine = db.scalars(select(quarantined.c.payload).where(quarantined.c.site == "plant-01")).all()
        assert sorted(mine) == sorted(kept)
        assert quarantine.count(db, "plant-02") == 1


def test_nothing_found_changes_nothing(store: Store, tmp_path: Path) -> None:
    write(store, "telemetry", ("observation", "other", None))
    with store.writing() as db:
        quarantine.put(db, 1, "plant-01", b"EJ1 is no batch", "why")
    with pytest.raises(UnknownError, match="nothing found"):
        erase_subject(store, tmp_path, "plant-01", NAME, "operator", NOW)
    with pytest.raises(UnknownError, match="no site 'plant-09'"):
        erase_subject(store, tmp_path, "plant-09", NAME, "operator", NOW)
    assert erasures.noted(tmp_path) == []
    with store.reading() as db:
        assert quarantine.count(db, "plant-01") == 1


def test_a_reader_that_does_not_end_is_told_of(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, "telemetry", ("observation", NAME, None))
    monkeypatch.setattr("edge_hub.keeping.erase.WAIT_S", 0.1)
    with store.reading() as db:
        db.execute(select(records)).all()
        assert not erase_subject(store, tmp_path, "plant-01", NAME, "operator", NOW).overwritten


def test_records_that_follow_themselves_do_not_hold_it_up(store: Store, tmp_path: Path) -> None:
    ids = [f"{EPOCH}:telemetry:{seq}" for seq in range(4)]
    write(store, "telemetry", ("observation", NAME, ids[3]), ("event", None, ids[1]), ("event", None, ids[3]))
    assert erase_subject(store, tmp_path, "plant-01", NAME, "operator", NOW).records == 2


def test_a_damaged_list_of_erasures_is_named(tmp_path: Path) -> None:
    (tmp_path / erasures.ERASURES).write_text('{"site":"a","sha256":"b","at_us":1}\n{"site":\n')
    with pytest.raises(ConfigError, match="line 2 is no erasure"):
        erasures.noted(tmp_path)
