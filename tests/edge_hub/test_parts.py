"""The small parts of the hub: inbox, quarantine, audit, metrics, database, folder."""

import stat
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select, update

from edge_hub.broker import BrokerFolder
from edge_hub.database.schema import audit as audit_table
from edge_hub.database.schema import meta
from edge_hub.database.schema import quarantine as quarantine_table
from edge_hub.database.store import Store
from edge_hub.folder import HubFolder
from edge_hub.ingest.inbox import MAX_JOURNAL_BYTES_A_SITE, Heard, Inbox, LinkChanged
from edge_hub.metrics import Metrics
from edge_hub.records import audit, quarantine
from edge_hub.workers.crew import AGAIN_S, Crew
from edge_models.errors import ConfigError
from edge_sync.signing import public_key, sign, verify


def test_the_inbox_is_bounded_in_bytes_and_keeps_the_order() -> None:
    inbox = Inbox(max_bytes=3_000)
    taken = [inbox.put(Heard("plant-01", "journal", bytes([n]) * 1_000)) for n in range(4)]
    assert taken == [True, True, False, False]
    assert inbox.put(LinkChanged(up=True))  # no site sends it, so none can fill the inbox with it
    first, second = inbox.take(2)
    assert isinstance(first, Heard)
    assert isinstance(second, Heard)
    assert (first.payload[0], second.payload[0]) == (0, 1)
    assert inbox.put(Heard("plant-01", "journal", b"x" * 1_000))
    assert inbox.take(9)[0] == LinkChanged(up=True)


def test_a_flood_of_one_sites_batches_keeps_no_other_site_out_nor_waiting_for_long() -> None:
    inbox, big = Inbox(), b"x" * 256 * 1024
    flood = [inbox.put(Heard("loud", "journal", big)) for _ in range(400)]
    assert flood.count(True) * len(big) <= MAX_JOURNAL_BYTES_A_SITE
    assert flood.count(True) >= 12  # more than a site's window of 8
    assert inbox.put(Heard("loud", "heartbeat", b"{}"))
    assert inbox.put(Heard("quiet", "journal", big))
    taken = inbox.take(64)
    assert taken[-1] == Heard("quiet", "journal", big)
    assert inbox.put(Heard("loud", "journal", big))
    inbox.put_back(taken)
    assert not inbox.put(Heard("loud", "journal", big))


def test_what_is_put_back_into_the_inbox_comes_first_and_what_is_put_last_gives_way_to_newer() -> None:
    inbox = Inbox()
    old, other, new = (Heard(site, "reported", data) for site, data in (("a", b"1"), ("b", b"2"), ("a", b"3")))
    for item in (old, other):
        inbox.put(item)
    inbox.put_back(inbox.take(2))
    assert inbox.take(1) == [old]
    inbox.put_last(old)
    assert inbox.take(9) == [other, old]
    inbox.put(new)
    inbox.put_last(old)
    assert inbox.take(9) == [new]


def test_closing_the_inbox_ends_the_waiting() -> None:
    inbox, got = Inbox(), list[object]()
    waiting = threading.Thread(target=lambda: got.append(inbox.take(5)))
    waiting.start()
    inbox.close()
    waiting.join(timeout=10)
    assert got == [[]]


def test_quarantine_is_bounded_a_site(store: Store) -> None:
    with store.writing() as db:
        kept = [
            quarantine.put(db, n, "plant-01", str(n).encode(), "no batch") for n in range(quarantine.MAX_PER_SITE + 5)
        ]
        assert quarantine.put(db, 1, "plant-02", b"0", "no batch") == 1
        assert kept.count(1) == quarantine.MAX_PER_SITE == quarantine.count(db, "plant-01")
        assert kept.count(0) == 5
        assert quarantine.put(db, 77, "plant-01", b"0", "no batch") == 2
        mine = (quarantine_table.c.site == "plant-01") & (quarantine_table.c.payload == b"0")
        again = db.execute(select(quarantine_table).where(mine)).first()
    assert again is not None
    assert (again.times, again.at_us, again.last_us) == (2, 0, 77)


def test_a_changed_audit_row_breaks_the_chain(store: Store) -> None:
    with store.writing() as db:
        for n in range(5):
            audit.note(db, n, "operator", "did", {"n": n})
        assert (audit.verify(db), audit.count(db)) == (None, 5)
        db.execute(update(audit_table).where(audit_table.c.id == 3).values(who="somebody else"))
        assert audit.verify(db) == 3


def test_a_missing_audit_row_breaks_the_chain(store: Store) -> None:
    with store.writing() as db:
        for n in range(5):
            audit.note(db, n, "operator", "did", {"n": n})
        db.execute(audit_table.delete().where(audit_table.c.id == 2))
        assert audit.verify(db) == 2


def test_metrics_are_prometheus_text() -> None:
    metrics = Metrics()
    metrics.add("edge_hub_records_total", 500)
    metrics.add("edge_hub_records_total")
    text = metrics.render([("edge_hub_sites", "Registered sites.", 3)])
    assert "# TYPE edge_hub_records_total counter\nedge_hub_records_total 501\n" in text
    assert text.endswith("# TYPE edge_hub_sites gauge\nedge_hub_sites 3\n")
    with pytest.raises(KeyError):
        metrics.add("edge_hub_nothing_total")


def test_a_transaction_that_raises_leaves_nothing(store: Store) -> None:
    def fail() -> None:
        with store.writing() as db:
            audit.note(db, 1, "operator", "did", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.reading() as db:
        assert audit.count(db) == 0


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_the_database_is_durable_and_private(store: Store, tmp_path: Path) -> None:
    with store.writing() as db:
        assert db.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        assert db.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    assert stat.S_IMODE((tmp_path / "hub.db").stat().st_mode) == 0o600


def test_a_newer_or_foreign_database_is_refused(tmp_path: Path) -> None:
    made = Store(tmp_path / "hub.db")
    with made.writing() as db:
        db.execute(update(meta).values(value="99"))
    made.close()
    with pytest.raises(ConfigError, match="schema 99 is newer"):
        Store(tmp_path / "hub.db")
    (tmp_path / "other.db").write_bytes(b"no database at all, but long enough to be looked at" * 50)
    with pytest.raises(ConfigError, match="not a database"):
        Store(tmp_path / "other.db")


def test_a_hub_folder_keeps_its_secrets_and_its_key(tmp_path: Path) -> None:
    folder = HubFolder(tmp_path / "hub")
    for path in (folder.key, folder.online_key, folder.token_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    again = HubFolder(tmp_path / "hub")
    assert (again.token, again.director_key) == (folder.token, folder.director_key)
    assert public_key(again.online_key) == public_key(folder.online_key) != folder.director_key
    assert verify(sign(b"x", "t", folder.key), "t", folder.director_key) == b"x"


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(ConfigError, match=r"is no hub's folder: it holds 'holiday\.jpg'"):
        HubFolder(tmp_path)
    assert not (tmp_path / "director.key").exists()


def test_one_hub_a_folder(tmp_path: Path) -> None:
    first, second = HubFolder(tmp_path), HubFolder(tmp_path)
    first.lock()
    with pytest.raises(ConfigError, match="a hub runs in"):
        second.lock()
    first.unlock()
    second.lock()
    second.unlock()


def test_a_count_is_shown_to_its_last_digit() -> None:
    metrics = Metrics()
    metrics.add("edge_hub_records_total", 123_456_789)
    text = metrics.render([("edge_hub_lost_records", "x", 2_345_678)], {"_hub-1": {"edge_hub_records_total": 7654321}})
    for line in (
        "edge_hub_records_total 123456789",
        'edge_hub_records_total{worker="_hub-1"} 7654321',
        "edge_hub_lost_records 2345678",
    ):
        assert f"{line}\n" in text


def test_a_worker_that_cannot_be_started_now_is_tried_again_and_ends_nothing(tmp_path: Path) -> None:
    now = 0.0
    program = tmp_path / "worker"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.stdin.read()\n")
    program.chmod(0o700)
    crew = Crew(tmp_path, BrokerFolder(tmp_path / "broker"), "mqtt://x", None, 2, [str(program)], lambda: now)
    crew.start()
    first = crew.pids
    away = program.rename(tmp_path / "away")
    deadline = time.monotonic() + 20
    while any(child.poll() is None for child, _ in crew._children.values()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    now = AGAIN_S
    crew.look_after()
    assert crew.pids == first
    away.rename(program)
    crew.look_after()
    assert crew.pids == first, "not before it waited again"
    now = 2 * AGAIN_S
    crew.look_after()
    assert set(crew.pids).isdisjoint(first)
    crew.stop()
