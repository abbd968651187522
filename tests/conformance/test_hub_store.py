"""What every database of a hub must do. Held: sync/SPEC.md, sections Journal sync, the hub, and Several workers."""

import hashlib
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from edge_hub.database.dialect import BulkInsert
from edge_hub.database.schema import audit as audit_table
from edge_hub.database.schema import desired, fleet_facts, gaps, records, streams
from edge_hub.database.schema import quarantine as quarantined
from edge_hub.database.store import Store
from edge_hub.records import audit, quarantine
from edge_hub.sites import Sites
from edge_sync.documents import EpochState, Hello, Resume, dump, load
from edge_sync.rows import MAX_REF_CHARS

EPOCH = "00000000000000aa"
KEY = ("plant-01", EPOCH, "decision")


def test_a_batch_after_a_hole_stores_nothing_and_is_answered_where_the_hub_is(desk: Any, stream: Any) -> None:
    written = stream().grow(30)
    desk.hear(written.batch(1, 10))
    desk.hear(written.batch(21, 30))
    assert desk.acks() == [("plant-01", 10, False), ("plant-01", 10, False)]
    assert (desk.count(records), desk.highs()) == (10, {KEY: 10})


def test_what_is_held_already_is_acknowledged_again(desk: Any, stream: Any) -> None:
    written = stream().grow(20)
    desk.hear(written.batch(1, 20))
    desk.hear(written.batch(1, 20), written.batch(5, 9))
    assert desk.acks() == [("plant-01", 20, False)] * 2
    assert desk.count(records) == 20


def test_what_goes_on_is_stored_and_acknowledged_once_others_can_see_it(desk: Any, stream: Any) -> None:
    written = stream().grow(20)
    desk.hear(written.batch(1, 12), written.batch(13, 16))
    desk.hear(written.batch(10, 20))
    assert desk.acks() == [("plant-01", 16, False), ("plant-01", 20, False)]
    assert desk.visible == [16, 20]
    with desk.store.reading() as db:
        held = db.execute(select(records).order_by(records.c.seq)).all()
        end = db.execute(select(streams)).one()
    assert [(row.seq, row.body, row.hash) for row in held] == [
        (n, f'{{"n":{n}}}', written.hashes[n]) for n in range(1, 21)
    ]
    assert (end.high, end.hash) == (20, written.hashes[20])


def test_values_come_back_as_they_were(desk: Any, stream: Any) -> None:
    odd = {"label": "größer 🙂 '\"\\ {}", "subject": "", "score": 1e-300, "ref": "a:b:1", "at": 2**63 - 1}
    desk.hear(stream().grow(3, **odd).batch(1, 3))
    with desk.store.reading() as db:
        row = db.execute(select(records).where(records.c.seq == 2)).one()
    assert {name: getattr(row, name) for name in odd} == odd


def test_the_same_numbers_with_other_bytes_are_put_aside_whole(desk: Any, stream: Any) -> None:
    mine, other = stream().grow(10), stream().grow(15, label="other").batch(1, 15)
    desk.hear(mine.batch(1, 10))
    desk.hear(other)
    assert desk.acks() == [("plant-01", 10, False), ("plant-01", 10, True)]
    with desk.store.reading() as db:
        assert db.scalar(select(quarantined.c.payload)) == other
    assert (desk.count(records), desk.highs()) == (10, {KEY: 10})


def test_what_cannot_be_read_at_all_is_put_aside_and_not_answered(desk: Any) -> None:
    desk.hear(b"EJ1 is no batch")
    assert (desk.acks(), desk.count(quarantined), desk.count(streams)) == ([], 1, 0)


@pytest.mark.parametrize(
    ("held", "first", "last", "acks", "high"),
    [(2, 5, 8, [], 2), (2, 3, 8, [8], 8), (2, 1, 8, [8], 8), (8, 3, 6, [8], 8)],
    ids=["after a hole", "next", "over the end", "before the end"],
)
def test_a_batch_that_is_wrong_at_its_site(
    desk: Any, stream: Any, held: int, first: int, last: int, acks: list[int], high: int
) -> None:
    written = stream().grow(9)
    desk.hear(written.batch(1, held))
    desk.acks()
    desk.hear(written.poison(first, last))
    assert [seq for _, seq, _ in desk.acks()] == acks
    assert (desk.highs()[KEY], desk.count(quarantined)) == (high, 1)
    if high > held:
        with desk.store.reading() as db:
            gap = db.execute(select(gaps)).one()
        assert (gap.first, gap.last, gap.reason, gap.hash) == (held + 1, last, "quarantined", written.hashes[last])
    desk.hear(written.batch(high + 1, 9))
    assert desk.acks() == [("plant-01", 9, False)]


def test_a_batch_hurt_on_its_way_is_waited_for_once(desk: Any, stream: Any) -> None:
    written = stream().grow(6)
    hurt = bytearray(written.batch(1, 6))
    hurt[-3] ^= 4
    desk.hear(bytes(hurt))
    assert (desk.acks(), desk.count(quarantined)) == ([], 1)
    desk.hear(written.batch(1, 6))
    assert (desk.acks(), desk.count(gaps)) == ([("plant-01", 6, False)], 0)


def test_a_value_that_no_table_takes_does_not_stand_in_the_way(desk: Any, stream: Any) -> None:
    """A NUL in a text is nothing to SQLite, and refused by PostgreSQL; a time beyond 64 bits is refused by both."""
    written = stream().grow(2).grow(1, at=2**63).grow(1, subject="a\0b").grow(2)
    desk.hear(written.batch(1, 2))
    desk.hear(written.batch(3, 3))
    desk.hear(written.batch(4, 4), written.batch(5, 6))
    assert desk.acks()[-1] == ("plant-01", 6, False)
    with desk.store.reading() as db:
        lost = db.scalar(select(func.sum(gaps.c.last - gaps.c.first + 1)))
    assert int(lost or 0) + desk.count(records) == 6
    assert desk.count(quarantined) == lost


def test_the_site_is_the_topics(desk: Any, stream: Any) -> None:
    same = stream().grow(4).batch(1, 4)
    desk.hear(same, site="plant-01")
    desk.hear(same, site="plant-02")
    desk.hear(same, site="nobody")
    assert desk.acks() == [("plant-01", 4, False), ("plant-02", 4, False)]
    assert (desk.count(records), desk.count(quarantined)) == (8, 1)


def test_hello_is_answered_with_where_the_hub_is_in_every_lane(desk: Any, stream: Any) -> None:
    desk.hear(stream().grow(5).batch(1, 5))
    known = EpochState(epoch=EPOCH, order=1, last={"decision": 9, "alarm": 2})
    new = EpochState(epoch="00000000000000bb", order=2, last={"telemetry": 1})
    desk.said.clear()
    desk.hear(dump(Hello(sync="s1", epochs=[known, new])), what="hello")
    answer = load(Resume, desk.said[0][1])
    assert answer.cursors == {EPOCH: {"decision": 5, "alarm": 0}, "00000000000000bb": {"telemetry": 0}}
    assert desk.desired == ["plant-01"]


def test_adjacent_gaps_of_one_reason_are_one(desk: Any, stream: Any) -> None:
    written = stream().grow(12)
    desk.hear(written.with_gap(1, 3, until=3), written.with_gap(4, 6, until=8))
    desk.hear(written.with_gap(9, 9, until=9), written.with_gap(10, 10, until=12, reason="quarantined"))
    with desk.store.reading() as db:
        held = [(gap.first, gap.last, gap.reason) for gap in db.execute(select(gaps).order_by(gaps.c.first))]
    assert held == [(1, 6, "evicted"), (9, 9, "evicted"), (10, 10, "quarantined")]
    assert (desk.count(records), desk.highs()) == (4, {KEY: 12})


def test_what_is_lost_and_put_aside_is_counted_apart(desk: Any, stream: Any, tmp_path: Any) -> None:
    from edge_hub.broker import BrokerFolder

    written = stream().grow(9)
    desk.hear(written.batch(1, 2))
    desk.hear(written.poison(3, 6))
    desk.hear(written.with_gap(7, 8, until=9))
    shown = Sites(desk.store, BrokerFolder(tmp_path / "broker"), lambda: 1).get("plant-01")
    assert (shown["records"], shown["lost"], shown["quarantined"]) == (3, 6, 1)


def test_quarantine_is_bounded_a_site(store: Store) -> None:
    with store.writing() as db:
        kept = [quarantine.put(db, n, "plant-01", b"%d" % n, "no batch") for n in range(quarantine.MAX_PER_SITE + 2)]
        assert quarantine.put(db, 77, "plant-01", b"0", "no batch") == 2
        assert (kept.count(1), kept.count(0)) == (quarantine.MAX_PER_SITE, 2)


def test_the_audit_chain_shows_a_changed_and_a_missing_row(store: Store) -> None:
    with store.writing() as db:
        for n in range(5):
            audit.note(db, n, "operator", "did", {"n": n, "ü": [1.5, None, {"b": 1, "a": 2}]})
        assert (audit.verify(db), audit.count(db)) == (None, 5)
    with store.writing() as db:
        db.execute(audit_table.update().where(audit_table.c.id == 3).values(who="somebody else"))
        assert audit.verify(db) == 3
        db.rollback()


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    def fail() -> None:
        with store.writing() as db:
            audit.note(db, 1, "operator", "did", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.reading() as db:
        assert audit.count(db) == 0


def test_a_reader_sees_one_state_and_writes_nothing(store: Store) -> None:
    with store.reading() as before:
        assert audit.count(before) == 0
        with store.writing() as db:
            audit.note(db, 1, "operator", "did", {})
        assert audit.count(before) == 0
    with store.reading() as after:
        assert audit.count(after) == 1


def test_rows_in_bulk_are_set_anew_where_their_key_is_taken_and_refused_without_leave(store: Store) -> None:
    insert, upsert = BulkInsert(desired), BulkInsert(desired, update=("generation", "envelope"))
    with store.writing() as db:
        insert(db, [("plant-01", 1, 7, b"\0a"), ("plant-02", 1, 7, b"b")])
        insert(db, [])
        upsert(db, [("plant-02", 2, 8, b"c"), ("plant-03", 1, 8, b"d")])
        held = db.execute(select(desired).order_by(desired.c.site)).all()
    assert [tuple(row) for row in held] == [
        ("plant-01", 1, 7, b"\0a"),
        ("plant-02", 2, 7, b"c"),
        ("plant-03", 1, 8, b"d"),
    ]
    with pytest.raises(DBAPIError, match=r"(?i)unique"), store.writing() as db:
        insert(db, [("plant-01", 3, 9, b"e")])
    with store.writing() as db:
        BulkInsert(fleet_facts)(db, [("limit", None, 1, None, 5), ("shift", '"a"', 2, 9, 5)])
        values = select(fleet_facts.c.value, fleet_facts.c.expires_at).order_by(fleet_facts.c.version)
        assert [tuple(row) for row in db.execute(values)] == [(None, None), ('"a"', 9)]


def test_a_ref_that_no_index_takes_does_not_stand_in_the_way(desk: Any, stream: Any) -> None:
    long = "".join(hashlib.sha256(bytes([n])).hexdigest() for n in range(200))  # no database packs it small enough
    desk.hear(stream().grow(2, ref=long).batch(1, 2))
    desk.hear(stream().grow(2, ref="r" * MAX_REF_CHARS).batch(1, 2), site="plant-02")
    assert desk.acks() == [("plant-01", 2, False), ("plant-02", 2, False)]
    assert (desk.count(records), desk.count(gaps), desk.count(quarantined)) == (2, 1, 1)
