"""Why a site did something, by the hub's records."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event

from edge_hub.database.schema import records
from edge_hub.database.store import Store, UnknownError
from edge_hub.records.explain import NEAR_ROWS, explain
from edge_sync.rows import record_id

A, B = f"{10:016x}", f"{11:016x}"
Write = Callable[..., str]


@pytest.fixture
def write(store: Store) -> Write:
    """Writes one record as if it had come, and returns its id."""

    def insert(lane: str, seq: int, kind: str, ref: str | None = None, site: str = "plant-01", epoch: str = A) -> str:
        row: dict[str, Any] = {"site": site, "epoch": epoch, "lane": lane, "seq": seq, "kind": kind, "ref": ref}
        row |= {"at": seq, "agent": "press", "subject": None, "label": None, "score": None, "body": "{}"}
        with store.writing() as db:
            db.execute(records.insert().values(row | {"hash": b"", "received_us": seq}))
        return record_id(epoch, lane, seq)

    return insert


def ids(store: Store, asked: str, site: str = "plant-01") -> tuple[list[str], tuple[str, ...]]:
    with store.reading() as db:
        found = explain(db, site, asked)
    return [each.id for each in found.chain], found.missing


def test_the_chain_from_observation_to_action_and_override(store: Store, write: Write) -> None:
    observed = write("telemetry", 5, "observation")
    write("telemetry", 6, "observation")
    predicted = write("telemetry", 7, "prediction", observed)
    write("telemetry", 8, "prediction", record_id(A, "telemetry", 6))
    decided = write("decision", 1, "decision", predicted)
    override = write("decision", 2, "approval", decided)
    acted = write("alarm", 3, "action", decided, epoch=B)
    write("decision", 1, "decision", predicted, site="plant-02")
    whole = [observed, predicted, decided, override, acted]
    for asked in (observed, predicted, decided):
        assert ids(store, asked) == (whole, ())
    assert ids(store, acted) == ([observed, predicted, decided, acted], ())


def test_what_is_not_here_is_named(store: Store, write: Write) -> None:
    gone = record_id(A, "telemetry", 7)
    decided = write("decision", 1, "decision", gone)
    assert ids(store, decided) == ([decided], (gone,))
    nonsense = write("decision", 2, "decision", "what I felt like")
    assert ids(store, nonsense) == ([nonsense], ("what I felt like",))
    with pytest.raises(UnknownError, match="of site 'plant-02'"):
        ids(store, decided, "plant-02")


def test_in_telemetry_what_follows_is_looked_for_close_behind(store: Store, write: Write) -> None:
    observed = write("telemetry", 1, "observation")
    near = write("telemetry", 1 + NEAR_ROWS, "prediction", observed)
    write("telemetry", 2 + NEAR_ROWS, "prediction", observed)
    write("telemetry", 2, "prediction", observed, epoch=B)
    assert ids(store, observed) == ([observed, near], ())


def test_what_follows_is_found_by_an_index(store: Store, write: Write) -> None:
    if isinstance(store.database, str):
        pytest.skip("PostgreSQL plans by what the table holds")
    decided = write("decision", 1, "decision")
    asked: list[tuple[str, Any]] = []
    with store.reading() as db:
        event.listen(db, "before_cursor_execute", lambda *args: asked.append(args[2:4]))
        explain(db, "plant-01", decided)
        sql, parameters = asked[-1]
        plan = db.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", parameters).all()
    assert any("records_ref" in str(line) for line in plan), plan
