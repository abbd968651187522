import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError, TimeoutError

from edge_hub.database.schema import gaps, quarantine, records, sites, streams
from edge_hub.database.store import Store
from edge_hub.ingest.inbox import Heard, Inbox, LinkChanged
from edge_hub.ingest.thread import Ingest, Outgoing
from edge_hub.metrics import Metrics
from edge_hub.records import audit, incidents
from edge_sync.batch import encode
from edge_sync.documents import (
    Ack,
    EpochState,
    Heartbeat,
    Hello,
    Presence,
    Reported,
    Resume,
    dump,
    load,
)
from edge_sync.rows import chain_start

NOW = 1_800_000_000_000_000
EPOCH = "00000000000000aa"


@dataclass
class Desk:
    """An ingest without its thread, and what it said."""

    ingest: Ingest
    inbox: Inbox
    store: Store
    metrics: Metrics
    said: list[tuple[str, bytes]] = field(default_factory=list)
    desired: list[str | None] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    held_when_said: list[int] = field(default_factory=list)

    def hear(self, *batches: bytes, site: str = "plant-01") -> None:
        """Batches of a site, waiting together."""
        self.ingest.handle([Heard(site, "journal", each) for each in batches])

    def tell(self, what: str, document: Any, retained: bool = False) -> None:
        """A document of plant-01."""
        self.ingest.handle([Heard("plant-01", what, dump(document), retained)])

    def acks(self) -> list[tuple[str, int, bool]]:
        """Site, seq and fork of each ack since the last look."""
        acks = [(topic.split("/")[2], load(Ack, payload)) for topic, payload in self.said if topic.endswith("/ack")]
        self.said.clear()
        return [(site, ack.seq, ack.fork) for site, ack in acks]

    def count(self, table: Any) -> int:
        """Rows of a table."""
        with self.store.reading() as db:
            return len(db.execute(select(table)).all())

    def site(self) -> Any:
        """The row of plant-01."""
        with self.store.reading() as db:
            return db.execute(select(sites).where(sites.c.site == "plant-01")).one()


@pytest.fixture
def desk(store: Store) -> Iterator[Desk]:
    metrics, desired, gone = Metrics(), list[str | None](), list[str]()

    def publish(topic: str, payload: bytes) -> None:
        made.said.append((topic, payload))
        made.held_when_said.append(made.count(records))

    inbox = Inbox()
    ingest = Ingest(store, inbox, metrics, Outgoing(publish, desired.append, gone.append), lambda: NOW)
    made = Desk(ingest, inbox, store, metrics, desired=desired, gone=gone)
    with store.writing() as db:
        for name in ("plant-01", "plant-02"):
            db.execute(sites.insert().values(site=name, labels={}, created_us=1, online=False))
    yield made
    ingest.close()
    with store.reading() as db:
        assert audit.verify(db) is None


@pytest.fixture
def tried(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Callable[[int | Callable[[], Any]], None]:
    """Waits until the thread, which does not pause long here, failed so often, or until something is true."""
    monkeypatch.setattr("edge_hub.ingest.thread._PAUSE_S", 0.01)

    def wait(wanted: int | Callable[[], Any]) -> None:
        def failed() -> bool:
            return isinstance(wanted, int) and desk.metrics.value("edge_hub_ingest_failures_total") >= wanted

        deadline = time.monotonic() + 20
        while not (failed() if isinstance(wanted, int) else wanted()):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)

    return wait


def test_rows_arrive_as_they_were_written(desk: Desk, stream: Any) -> None:
    written = stream().grow(7)
    desk.hear(written.batch(1, 3), written.batch(4, 7))
    assert desk.acks() == [("plant-01", 7, False)]
    with desk.store.reading() as db:
        rows = db.execute(select(records).order_by(records.c.seq)).all()
        held = db.execute(select(streams)).one()
    assert [row.seq for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row.hash for row in rows] == written.hashes[1:]
    first = rows[0]
    assert (first.site, first.epoch, first.lane) == ("plant-01", EPOCH, "decision")
    assert (first.at, first.kind, first.agent, first.subject) == (1_700_000_000_000_001, "decision", "press", None)
    assert (first.label, first.score, first.ref, first.body) == ("ok", 0.5, None, '{"n":1}')
    assert (first.received_us, held.high, held.hash) == (NOW, 7, written.hashes[7])
    assert desk.metrics.value("edge_hub_records_total") == 7


def test_nothing_is_acknowledged_before_it_is_committed(desk: Desk, stream: Any) -> None:
    desk.hear(stream().grow(5).batch(1, 5))
    assert desk.held_when_said == [5]


def test_a_duplicate_changes_nothing_and_is_acknowledged(desk: Desk, stream: Any) -> None:
    written = stream().grow(4)
    for _ in range(2):
        desk.hear(written.batch(1, 4), written.batch(1, 4))
        assert desk.acks() == [("plant-01", 4, False)]
    desk.hear(written.batch(2, 3))
    assert desk.acks() == [("plant-01", 4, False)]
    assert desk.count(records) == 4


def test_an_overlapping_batch_adds_only_what_is_new(desk: Desk, stream: Any) -> None:
    written = stream().grow(6)
    desk.hear(written.batch(1, 4))
    desk.hear(written.batch(3, 6))
    assert desk.acks()[-1] == ("plant-01", 6, False)
    assert desk.count(records) == 6


def test_a_hole_stores_nothing_and_asks_to_go_back(desk: Desk, stream: Any) -> None:
    written = stream().grow(9)
    desk.hear(written.batch(1, 2))
    desk.hear(written.batch(6, 9))
    assert desk.acks() == [("plant-01", 2, False), ("plant-01", 2, False)]
    assert desk.count(records) == 2


@pytest.mark.parametrize("span", [(1, 4), (3, 4), (3, 6), (5, 6), (2, 3)])
def test_a_fork_is_put_aside_and_said(desk: Desk, stream: Any, span: tuple[int, int]) -> None:
    desk.hear(stream().grow(4).batch(1, 4))
    desk.acks()
    desk.hear(stream().grow(6, label="other").batch(*span))
    assert desk.acks() == [("plant-01", 4, True)]
    assert (desk.count(records), desk.count(quarantine)) == (4, 1)
    assert desk.metrics.value("edge_hub_forks_total") == 1


def test_a_fork_of_rows_that_wait_in_the_same_transaction(desk: Desk, stream: Any) -> None:
    written = stream().grow(4)
    desk.hear(written.batch(1, 2), written.batch(3, 4), stream().grow(2, label="other").batch(1, 2))
    assert desk.acks() == [("plant-01", 4, True)]
    assert desk.count(records) == 4


def test_what_cannot_be_read_is_kept_whole_once_and_not_acknowledged(desk: Desk, stream: Any) -> None:
    noise = b"XX" + stream().grow(3).batch(1, 3)
    for _ in range(3):
        desk.hear(noise)
    assert desk.acks() == []
    with desk.store.reading() as db:
        kept = db.execute(select(quarantine)).one()
    assert (kept.site, kept.payload, kept.times) == ("plant-01", noise, 3)
    assert "does not begin" in kept.reason
    assert (desk.count(gaps), desk.count(streams)) == (0, 0)
    assert desk.metrics.value("edge_hub_quarantined_total") == 3


def poison(stream: Any, first: int, last: int) -> bytes:
    """A batch as a site sends it whose journal was hurt on its disk: its rows do not lead to the hash it names."""
    other = stream().grow(last, label="hurt")
    good = stream().grow(last)
    ends = (good.hashes[first - 1], good.hashes[last])
    return encode(EPOCH, "decision", other.raws[first - 1 : last], [], (first, last), ends)


def test_a_batch_that_was_poison_at_its_site_is_kept_whole_and_gone_past(desk: Desk, stream: Any) -> None:
    written = stream().grow(9)
    message = poison(stream, 4, 6)
    desk.hear(written.batch(1, 3), message, written.batch(7, 9))
    assert desk.acks() == [("plant-01", 9, False)]
    with desk.store.reading() as db:
        gap = db.execute(select(gaps)).one()
        kept = db.execute(select(quarantine)).one()
        held = db.execute(select(streams)).one()
        rows = list(db.scalars(select(records.c.seq)))
    assert (gap.first, gap.last, gap.reason, gap.hash) == (4, 6, "quarantined", written.hashes[6])
    assert (kept.payload, kept.times, "chain" in kept.reason) == (message, 1, True)
    assert (held.high, held.hash, rows) == (9, written.hashes[9], [1, 2, 3, 7, 8, 9])
    desk.hear(message)  # the ack was lost
    assert desk.acks() == [("plant-01", 9, False)]
    assert (desk.count(gaps), desk.count(quarantine), desk.count(records)) == (1, 1, 6)
    assert desk.metrics.value("edge_hub_batches_total") == 2
    assert desk.metrics.value("edge_hub_quarantined_total") == 2


def test_of_poison_only_what_is_not_held_yet_becomes_a_gap(desk: Desk, stream: Any) -> None:
    written = stream().grow(8)
    desk.hear(written.batch(1, 5))
    desk.hear(poison(stream, 3, 7))
    assert desk.acks()[-1] == ("plant-01", 7, False)
    with desk.store.reading() as db:
        assert [(g.first, g.last) for g in db.execute(select(gaps))] == [(6, 7)]
    desk.hear(written.batch(8, 8))
    assert desk.acks() == [("plant-01", 8, False)]
    assert desk.count(records) == 6


def test_poison_behind_a_hole_moves_nothing(desk: Desk, stream: Any) -> None:
    desk.hear(stream().grow(2).batch(1, 2))
    desk.hear(poison(stream, 5, 7))
    assert desk.acks() == [("plant-01", 2, False)]
    assert (desk.count(gaps), desk.count(quarantine)) == (0, 1)


def test_poison_of_a_site_nobody_registered_moves_nothing(desk: Desk, stream: Any) -> None:
    desk.hear(poison(stream, 1, 3), site="stranger")
    assert (desk.acks(), desk.count(streams), desk.count(gaps), desk.count(quarantine)) == ([], 0, 0, 1)


def test_a_batch_that_was_hurt_on_its_way_is_waited_for_once(desk: Desk, stream: Any) -> None:
    written = stream().grow(6)
    hurt = bytearray(written.batch(1, 3))
    hurt[-1] ^= 1
    desk.hear(bytes(hurt))
    assert (desk.acks(), desk.count(gaps)) == ([], 0)
    desk.hear(written.batch(1, 3))  # it comes again whole: nothing is lost
    assert (desk.acks(), desk.count(records)) == ([("plant-01", 3, False)], 3)
    hurt = bytearray(written.batch(4, 6))
    hurt[-1] ^= 1
    desk.hear(bytes(hurt))
    assert desk.acks() == []
    desk.hear(bytes(hurt))  # it comes again the same: it was so at the site
    assert (desk.acks(), desk.count(gaps), desk.count(records)) == ([("plant-01", 6, False)], 1, 3)


def test_a_site_nobody_registered_gets_no_answer(desk: Desk, stream: Any) -> None:
    desk.hear(stream().grow(3).batch(1, 3), site="stranger")
    desk.ingest.handle([Heard("stranger", "hello", dump(Hello(sync="x", epochs=[])))])
    assert (desk.said, desk.desired) == ([], [])
    assert (desk.count(records), desk.count(quarantine)) == (0, 2)


def test_the_topic_says_whose_records_they_are(desk: Desk, stream: Any) -> None:
    written = stream().grow(2)
    desk.hear(written.batch(1, 2), site="plant-01")
    desk.hear(written.batch(1, 2), site="plant-02")
    assert desk.acks() == [("plant-01", 2, False), ("plant-02", 2, False)]
    assert desk.count(records) == 4


def test_a_batch_that_breaks_the_database_is_put_aside_alone(desk: Desk, stream: Any) -> None:
    poison = stream().grow(3, at=2**63)
    good = stream().grow(3)
    items = [
        Heard("plant-02", "journal", good.batch(1, 1)),
        Heard("plant-01", "journal", poison.batch(1, 3)),
        Heard("plant-02", "journal", good.batch(2, 3)),
    ]
    desk.ingest.handle(items)
    assert {(site, seq) for site, seq, _ in desk.acks()} >= {("plant-02", 3)}
    assert (desk.count(records), desk.count(quarantine)) == (3, 1)
    with desk.store.reading() as db:
        assert db.execute(select(quarantine)).one().site == "plant-01"


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_full_disk_loses_and_acknowledges_nothing(desk: Desk, stream: Any) -> None:
    written = stream().grow(400, body='{"x":"%s"}' % ("y" * 500))
    with desk.store.reading() as db:
        pages = db.exec_driver_sql("PRAGMA page_count").scalar_one()
        db.exec_driver_sql(f"PRAGMA max_page_count={pages + 5}")
    with pytest.raises(OperationalError, match="full"):
        desk.hear(written.batch(1, 400))
    assert desk.acks() == []
    assert (desk.count(records), desk.count(quarantine)) == (0, 0)
    with desk.store.reading() as db:
        db.exec_driver_sql("PRAGMA max_page_count=100000")
    desk.hear(written.batch(1, 400))
    assert desk.acks() == [("plant-01", 400, False)]


def test_gaps_are_kept_and_neighbours_merge(desk: Desk, stream: Any) -> None:
    written = stream().grow(12)
    desk.hear(written.with_gap(1, 3, "evicted", 3), written.with_gap(4, 6, "evicted", 8))
    desk.hear(written.with_gap(9, 9, "evicted", 9), written.with_gap(10, 10, "quarantined", 12))
    assert desk.acks()[-1] == ("plant-01", 12, False)
    with desk.store.reading() as db:
        held = [(g.first, g.last, g.reason, g.hash) for g in db.execute(select(gaps).order_by(gaps.c.first))]
    assert held == [
        (1, 6, "evicted", written.hashes[6]),
        (9, 9, "evicted", written.hashes[9]),
        (10, 10, "quarantined", written.hashes[10]),
    ]
    assert desk.count(records) == 4


def test_hello_is_answered_with_where_to_resume_and_what_is_desired(desk: Desk, stream: Any) -> None:
    desk.hear(stream().grow(5).batch(1, 5))
    desk.said.clear()
    epochs = [
        EpochState(epoch=EPOCH, order=1, last={"decision": 9, "alarm": 2}),
        EpochState(epoch="00000000000000bb", order=2, last={"telemetry": 1}),
    ]
    desk.tell("hello", Hello(sync="s1", epochs=epochs))
    topic, payload = desk.said[0]
    answer = load(Resume, payload)
    assert (topic, answer.sync, desk.desired) == ("edge/v1/plant-01/down/resume", "s1", ["plant-01"])
    assert answer.cursors == {EPOCH: {"decision": 5, "alarm": 0}, "00000000000000bb": {"telemetry": 0}}


def test_the_will_of_an_older_session_is_ignored(desk: Desk) -> None:
    desk.tell("presence", Presence(online=True, epoch=EPOCH, session=7))
    desk.tell("presence", Presence(online=False, epoch="00000000000000bb", session=6))
    assert (desk.site().online, desk.site().epoch, desk.site().session) == (True, EPOCH, 7)
    assert desk.gone == []
    desk.tell("presence", Presence(online=False, epoch=EPOCH, session=7))
    assert (desk.site().online, desk.gone) == (False, ["plant-01"])


def test_a_retained_message_does_not_prove_that_a_site_is_there(desk: Desk) -> None:
    report = Reported(release=3, generation=5, state="active")
    desk.tell("reported", report, retained=True)
    assert (desk.site().release, desk.site().generation, desk.site().state) == (3, 5, "active")
    assert desk.site().last_seen_us is None
    desk.tell("heartbeat", Heartbeat(at_us=1, epochs=[EpochState(epoch=EPOCH, order=1, last={"alarm": 4})]))
    assert desk.site().last_seen_us == NOW
    assert desk.site().heartbeat["epochs"][0]["last"] == {"alarm": 4}


def beat(last: int) -> Heartbeat:
    return Heartbeat(at_us=1, epochs=[EpochState(epoch=EPOCH, order=1, last={"decision": last, "alarm": 2})])


def test_a_site_whose_records_do_not_come_is_told_where_this_hub_is(desk: Desk, stream: Any) -> None:
    written = stream().grow(9)
    desk.hear(written.batch(1, 5))
    desk.acks()
    desk.tell("heartbeat", beat(9), retained=True)
    assert desk.acks() == []  # what is behind may be on its way
    desk.tell("heartbeat", beat(9))
    assert sorted(desk.acks()) == [("plant-01", 0, False), ("plant-01", 5, False)]
    desk.tell("heartbeat", beat(9))
    assert len(desk.acks()) == 2
    desk.hear(written.batch(6, 7))
    desk.acks()
    desk.tell("heartbeat", beat(9))  # the decisions came on, the alarms did not
    assert desk.acks() == [("plant-01", 0, False)]
    desk.hear(written.batch(8, 9), stream(lane="alarm").grow(2).batch(1, 2))
    desk.acks()
    for _ in range(2):
        desk.tell("heartbeat", beat(9))
    assert desk.acks() == []
    assert desk.ingest._behind == {}


def test_of_very_many_epochs_the_newest_are_looked_at(desk: Desk) -> None:
    epochs = [EpochState(epoch=f"{n:016x}", order=n, last={"alarm": 1}) for n in range(1, 1001)]
    for _ in range(2):
        desk.tell("heartbeat", Heartbeat(at_us=1, epochs=epochs))
    named = {load(Ack, payload).epoch for _, payload in desk.said}
    assert named == {f"{n:016x}" for n in range(801, 1001)}


def test_an_epoch_that_few_heartbeats_name_is_reminded_of_too(desk: Desk) -> None:
    old, new = (EpochState(epoch=f"{n:016x}", order=n, last={"alarm": 1}) for n in (1, 2))
    for at_us, named in enumerate(([old, new], [new], [new]), 1):
        desk.tell("heartbeat", Heartbeat(at_us=at_us, after=1 if named == [new] else 0, epochs=named))
    desk.said.clear()
    desk.tell("heartbeat", Heartbeat(at_us=9, epochs=[old, new]))
    assert {load(Ack, payload).epoch for _, payload in desk.said} == {old.epoch, new.epoch}


def test_what_came_while_the_database_refused_is_taken_when_it_is_well(desk: Desk, stream: Any, tried: Any) -> None:
    with desk.store.writing() as db:
        db.exec_driver_sql("ALTER TABLE streams RENAME TO away")
        db.exec_driver_sql("ALTER TABLE sites RENAME TO sites_away")
    desk.inbox.put(Heard("plant-01", "presence", dump(Presence(online=True, epoch=EPOCH, session=7))))
    desk.inbox.put(Heard("plant-01", "reported", dump(Reported(release=3, generation=5, state="active"))))
    desk.inbox.put(Heard("plant-02", "hello", dump(Hello(sync="s1", epochs=[]))))
    desk.inbox.put(Heard("plant-02", "journal", stream().grow(3).batch(1, 3)))
    desk.ingest.start()
    tried(2)
    assert desk.said == []
    with desk.store.writing() as db:
        db.exec_driver_sql("ALTER TABLE away RENAME TO streams")
        db.exec_driver_sql("ALTER TABLE sites_away RENAME TO sites")
    tried(lambda: desk.count(records) == 3)
    desk.ingest.close()
    assert (desk.site().online, desk.site().release) == (True, 3)
    assert {topic for topic, _ in desk.said} == {"edge/v1/plant-02/down/resume", "edge/v1/plant-02/down/ack"}


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_what_alone_is_refused_for_ever_lets_the_others_past(desk: Desk, tried: Any) -> None:
    with desk.store.writing() as db:
        db.exec_driver_sql(
            "CREATE TRIGGER damaged BEFORE UPDATE OF online ON sites WHEN old.site = 'plant-01'"
            " BEGIN SELECT abs(-9223372036854775808 + 0 * length(old.site)); END"
        )
    online = [dump(Presence(online=True, epoch=EPOCH, session=n)) for n in (1, 2)]
    desk.inbox.put(Heard("plant-01", "presence", online[0]))
    desk.inbox.put(Heard("plant-02", "presence", online[0]))
    desk.ingest.start()

    def second_is_online() -> bool:
        with desk.store.reading() as db:
            return bool(db.scalar(select(sites.c.online).where(sites.c.site == "plant-02")))

    tried(second_is_online)
    assert not desk.site().online
    with desk.store.writing() as db:
        db.exec_driver_sql("DROP TRIGGER damaged")
    tried(lambda: desk.site().online)
    desk.ingest.close()


def test_when_the_link_returns_everything_desired_is_said_again(desk: Desk) -> None:
    desk.tell("presence", Presence(online=True, epoch=EPOCH, session=7))
    desk.ingest.handle([LinkChanged(up=False)])
    assert (desk.site().online, desk.desired) == (False, [])
    retained = Heard("plant-01", "presence", dump(Presence(online=True, epoch=EPOCH, session=7)), retained=True)
    desk.ingest.handle([LinkChanged(up=True), retained])
    assert (desk.site().online, desk.desired) == (True, [None])


def test_a_document_that_cannot_be_read_is_counted(desk: Desk) -> None:
    desk.ingest.handle([Heard("plant-01", "hello", b"{}"), Heard("plant-01", "new-thing", b"?")])
    assert desk.metrics.value("edge_hub_refused_documents_total") == 1
    assert desk.said == []


def test_a_stream_begins_at_its_own_start(desk: Desk, stream: Any) -> None:
    desk.hear(stream(start=chain_start(EPOCH, "alarm")).grow(2).batch(1, 2))
    assert desk.acks() == [("plant-01", 0, True)]
    assert desk.count(records) == 0


def test_without_a_free_connection_what_came_waits_and_nothing_is_put_aside(
    desk: Desk, stream: Any, tried: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, failures = desk.store.writing, [TimeoutError("QueuePool limit of size 5 overflow 10 reached")] * 3

    def refuse(**how: Any) -> Any:
        if failures:
            raise failures.pop()
        return writing(**how)

    monkeypatch.setattr(desk.store, "writing", refuse)
    desk.inbox.put(Heard("plant-01", "journal", stream().grow(3).batch(1, 3)))
    desk.inbox.put(Heard("plant-01", "presence", dump(Presence(online=True, epoch=EPOCH, session=1))))
    desk.ingest.start()
    tried(lambda: desk.site().online)
    assert desk.acks() == [("plant-01", 3, False)]
    assert (failures, desk.count(quarantine)) == ([], 0)


def test_a_process_that_was_replaced_and_goes_on_is_an_alarm_though_it_never_connects_anew(desk: Desk) -> None:
    """Not every broker ends a connection when another one comes with the same client id."""

    def beat(epoch: str, at_us: int, retained: bool = False) -> None:
        document = Heartbeat(at_us=at_us, epochs=[EpochState(epoch=epoch, order=1, last={})])
        desk.tell("heartbeat", document, retained)

    def noted() -> list[str]:
        with desk.store.reading() as db:
            return [each["what"] for each in incidents.listed(db, "plant-01", 10)]

    first, second = f"{10:016x}", f"{11:016x}"
    desk.tell("presence", Presence(online=True, epoch=first, session=1))
    beat(first, 1)
    desk.tell("presence", Presence(online=True, epoch=second, session=1))
    beat(first, 2)
    beat(first, 2)
    beat(first, 3, retained=True)
    assert noted() == [], "it may have been on its way, come twice, or been kept"
    beat(second, 3)
    beat(second, 4)
    assert noted() == []
    beat(first, 5)
    assert noted() == ["two_processes"]


def test_heartbeats_whose_presence_was_lost_are_no_alarm(desk: Desk) -> None:
    desk.tell("presence", Presence(online=True, epoch=f"{10:016x}", session=1))
    for at_us in range(1, 5):
        state = EpochState(epoch=f"{11:016x}", order=2, last={})
        desk.tell("heartbeat", Heartbeat(at_us=at_us, epochs=[state]))
    with desk.store.reading() as db:
        assert incidents.listed(db, "plant-01", 10) == []
