"""What only a database with a server of its own can do to a hub. Held: sync/SPEC.md, section Several ingest workers."""

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from edge_hub.database.dialect import lock
from edge_hub.database.schema import records, sites
from edge_hub.database.store import Store
from edge_hub.facts.fleet_facts import FleetFactLog
from edge_hub.ingest.inbox import Heard
from edge_hub.records import audit, incidents
from edge_models.errors import ConfigError, KitError, RetryableError


def wait_until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_commit_is_durable_and_a_reader_cannot_write(postgres_url: str) -> None:
    store = Store(postgres_url)
    with store.writing() as db:
        assert db.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
        assert db.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "read committed"
    with store.reading() as db:
        assert db.exec_driver_sql("SHOW transaction_isolation").scalar_one() == "repeatable read"
        assert db.exec_driver_sql("SHOW transaction_read_only").scalar_one() == "on"
    store.close()


def test_what_comes_while_the_server_is_away_is_taken_when_it_is_back(
    postgres: Any, postgres_url: str, new_desk: Any, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_hub.ingest.thread._PAUSE_S", 0.05)
    store = Store(postgres_url)
    with store.writing() as db:
        db.execute(sites.insert().values(site="plant-01", labels={}, created_us=1, online=False))
    desk, written = new_desk(store), stream().grow(60)
    desk.ingest.start()
    desk.inbox.put(Heard("plant-01", "journal", written.batch(1, 20)))
    wait_until(lambda: desk.acks() == [("plant-01", 20, False)])
    postgres.stop()
    try:
        desk.inbox.put(Heard("plant-01", "journal", written.batch(21, 40)))
        desk.inbox.put(Heard("plant-01", "journal", written.batch(41, 60)))
        wait_until(lambda: desk.metrics.value("edge_hub_ingest_failures_total") >= 2)
        assert desk.said == []
        with pytest.raises(RetryableError, match="refused") as away:
            Store(postgres_url)
        assert "\n" not in str(away.value)
    finally:
        postgres.start()
    desk.inbox.put(Heard("plant-01", "journal", written.batch(21, 60)))  # what gave way meanwhile, a site sends again
    wait_until(lambda: desk.acks()[-1:] == [("plant-01", 60, False)])
    desk.ingest.close()
    with store.reading() as db:
        assert db.scalar(select(func.count()).select_from(records)) == 60
    store.close()


def test_a_deadlock_ends_one_transaction_and_it_is_tried_again(
    postgres_url: str, new_desk: Any, stream: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_hub.ingest.thread._PAUSE_S", 0.05)
    store = Store(postgres_url)
    with store.writing() as db:
        db.execute(sites.insert().values(site="plant-01", labels={}, created_us=1, online=False))
    desk = new_desk(store)
    with store.writing(shared=True) as db:  # takes what ingest takes, in the other order
        db.exec_driver_sql("SET LOCAL deadlock_timeout = '30s'")
        lock(db, audit.LOCK)
        desk.ingest.start()
        desk.inbox.put(Heard("plant-01", "journal", b"no batch"))
        with store.reading() as other:
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            wait_until(lambda: other.exec_driver_sql(waits).scalar_one() == 1)
        db.execute(sites.update().values(labels={"a": "b"}))
    desk.inbox.put(Heard("plant-01", "journal", stream().grow(3).batch(1, 3)))
    wait_until(lambda: desk.acks() == [("plant-01", 3, False)])
    desk.ingest.close()
    assert desk.metrics.value("edge_hub_ingest_failures_total") >= 1
    assert desk.metrics.value("edge_hub_quarantined_total") == 1
    store.close()


@pytest.mark.parametrize(
    ("url", "error", "says"),
    [
        ("postgresql://edge@127.0.0.1:1/hub", RetryableError, "refused"),
        ("postgresql://edge@no-such-host.invalid/hub", RetryableError, "no-such-host"),
        ("postgresql://edge:s3cret@127.0.0.1/hub", ConfigError, "no password in its URL"),
        ("postgresql://edge@127.0.0.1/hub?password=s3cret", ConfigError, "no password in its URL"),
        ("mysql://edge@127.0.0.1/hub", ConfigError, "write postgresql://USER@HOST/DATABASE"),
        ("postgresql+asyncpg://edge@127.0.0.1/hub", ConfigError, "write postgresql://USER@HOST/DATABASE"),
        ("postgresql://edge@127.0.0.1:port/hub", ConfigError, "write postgresql://USER@HOST/DATABASE"),
        ("hub.db", ConfigError, "write postgresql://USER@HOST/DATABASE"),
    ],
)
def test_a_url_that_is_wrong_or_leads_nowhere_is_one_line(url: str, error: type[KitError], says: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(error, match=says) as raised:
        Store(url)
    assert "\n" not in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_a_database_that_is_not_there_and_a_wrong_password_are_for_people_to_mend(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match='database "nowhere" does not exist'):
        Store(postgres_url.rpartition("/")[0] + "/nowhere")
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="no password supplied"):
        Store(postgres_url)
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(ConfigError, match="password authentication failed") as raised:
        Store(postgres_url)
    assert "\n" not in str(raised.value)


def test_the_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"needs the extra \[postgres\].*pip install 'edge-agent-kit\[postgres\]'"):
        Store("postgresql://edge@127.0.0.1/hub")


def test_raising_the_facts_takes_its_locks_in_the_order_of_all_others(postgres_url: str) -> None:
    store = Store(postgres_url)
    with store.writing() as db:
        for name in ("plant-01", "plant-02"):
            db.execute(sites.insert().values(site=name, labels={}, created_us=1, online=False))
    log, raised = FleetFactLog(store, lambda: None, lambda: 10**15), list[bool]()

    def beat() -> None:
        with store.writing(shared=True) as other:
            raised.append(log.told(other, "plant-02", 1_000))

    def waits() -> int:
        with store.reading() as other:
            return int(other.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar_one())

    with store.writing(shared=True) as db:
        incidents.note(db, 1, "plant-01", "fork", "a", {})
        thread = threading.Thread(target=beat)
        thread.start()
        wait_until(waits)
        assert not log.told(db, "plant-01", 0)
        lock(db, "fleet facts")
    thread.join(60)
    assert raised == [True]
    store.close()
