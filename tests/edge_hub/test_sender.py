import os
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from edge_hub.database.schema import artifacts
from edge_hub.database.store import Store
from edge_hub.delivery.blobs import Blobs
from edge_hub.delivery.sender import MOST_UNKNOWN, Sender
from edge_hub.metrics import Metrics
from edge_models.digests import Digest, digest_of
from edge_sync.chunks import Receiver, read_chunk
from edge_sync.documents import Want
from edge_sync.release import CHUNK_SIZE_BYTES, describe

DATA = os.urandom(2 * CHUNK_SIZE_BYTES + 100)
DIGEST = digest_of(DATA)
Said = queue.SimpleQueue[tuple[str, bytes]]


@pytest.fixture
def said() -> Said:
    return queue.SimpleQueue()


@pytest.fixture
def queries(store: Store) -> list[str]:
    """What is asked of the table of artifacts from now on."""
    asked: list[str] = []

    @event.listens_for(store._engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT") and "artifacts" in statement:
            asked.append(statement)

    return asked


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def sender(store: Store, tmp_path: Path, metrics: Metrics, said: Said) -> Iterator[Sender]:
    (tmp_path / "blobs").mkdir()
    blobs = Blobs(tmp_path / "blobs")
    incoming = blobs.receive(DIGEST)
    incoming.feed(DATA)
    incoming.finish()
    with store.writing() as db:
        db.execute(artifacts.insert().values(digest=DIGEST, name="m", size=len(DATA), document={}))

    def publish(topic: str, message: bytes) -> bool:
        said.put((topic, message))
        return True

    made = Sender(store, blobs, metrics, publish)
    made.start()
    yield made
    made.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def want(*ranges: tuple[int, int], digest: Digest = DIGEST) -> Want:
    return Want(digest=digest, missing=list(ranges))


def test_one_site_gets_what_it_lacks_on_its_own_topic(sender: Sender, said: Said) -> None:
    sender.want("plant-01", want((1, 2)))
    got = [said.get(timeout=10) for _ in range(2)]
    assert {topic for topic, _ in got} == {f"edge/v1/plant-01/down/chunk/{DIGEST[7:]}"}
    assert [read_chunk(message)[0].index for _, message in got] == [1, 2]


def test_what_two_sites_lack_is_sent_once_and_is_what_was_signed(sender: Sender, said: Said, metrics: Metrics) -> None:
    receiver = Receiver()
    receiver.fetch(DIGEST, describe("m", DATA), [], 0.0, 0.0)
    sender.want("plant-01", want((0, 2)))
    sender.want("plant-02", want((0, 2)))
    kept = {}
    for _ in range(3):
        topic, message = said.get(timeout=10)
        assert topic == f"edge/v1/fleet/chunk/{DIGEST[7:]}"
        keep = receiver.chunk(message, 0.0)
        assert keep is not None
        kept[keep.offset] = keep.data
    assert b"".join(kept[offset] for offset in sorted(kept)) == DATA
    assert said.empty()
    until(lambda: metrics.value("edge_hub_chunks_sent_total") == 3)  # counted when it is said


@pytest.mark.parametrize("ranges", [((2, 2**50),), ((2, 5), (2, 2), (7, 9)), ((2, 2),) * 4000])
def test_hostile_ranges_cost_no_more_than_the_artifact_has(
    sender: Sender, said: Said, ranges: tuple[tuple[int, int], ...]
) -> None:
    sender.want("plant-01", want(*ranges))
    _, message = said.get(timeout=10)
    assert read_chunk(message)[0].index == 2
    sender.want("plant-01", want((0, 0)))
    _, message = said.get(timeout=10)
    assert read_chunk(message)[0].index == 0


def test_an_artifact_nobody_has_is_not_sent_and_stops_nobody(
    sender: Sender, said: Said, caplog: pytest.LogCaptureFixture
) -> None:
    for site in ("plant-01", "plant-02"):
        sender.want(site, want((0, 0), digest=digest_of(b"unknown")))
        until(lambda: not sender._asked)
    sender.want("plant-01", want((0, 0)))
    assert read_chunk(said.get(timeout=10)[1])[0].digest == DIGEST
    assert caplog.messages == ["unknown_artifact_wanted"]


def test_an_unknown_artifact_costs_one_query_and_is_found_once_it_is_there(
    sender: Sender, said: Said, store: Store, queries: list[str], tmp_path: Path
) -> None:
    digest = digest_of(b"late")
    for n in range(20):
        sender.want(f"plant-{n}", want((0, 0), digest=digest))
        until(lambda: not sender._asked)
    assert len(queries) == 1
    sender._unknown[digest] = 0.0  # as if some time had passed
    with store.writing() as db:
        db.execute(artifacts.update().values(digest=digest))
    (tmp_path / "blobs" / DIGEST[7:]).rename(tmp_path / "blobs" / digest[7:])
    sender.want("plant-01", want((0, 0), digest=digest))
    assert read_chunk(said.get(timeout=10)[1])[0].digest == digest


def test_the_memory_of_unknown_artifacts_is_bounded(sender: Sender) -> None:
    for n in range(MOST_UNKNOWN + 50):
        sender.want("plant-01", want((0, 0), digest=digest_of(str(n).encode())))
        if n % 500 == 0:
            until(lambda: not sender._asked)
    until(lambda: not sender._asked)
    assert len(sender._unknown) == MOST_UNKNOWN


def test_a_database_that_refuses_stops_nobody(
    sender: Sender, said: Said, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with store.writing() as db:
        db.exec_driver_sql("ALTER TABLE artifacts RENAME TO away")
    sender.want("plant-01", want((0, 0)))
    until(lambda: "wants_failed" in caplog.messages)
    with store.writing() as db:
        db.exec_driver_sql("ALTER TABLE away RENAME TO artifacts")
    sender.want("plant-01", want((1, 1)))
    assert read_chunk(said.get(timeout=10)[1])[0].index == 1


def test_an_artifact_whose_file_is_gone_stops_nobody(
    sender: Sender, said: Said, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    lost = digest_of(b"lost")
    with store.writing() as db:
        db.execute(artifacts.insert().values(digest=lost, name="m", size=4, document={}))
    sender.want("plant-01", want((0, 0), digest=lost))
    sender.want("plant-01", want((0, 0)))
    assert read_chunk(said.get(timeout=10)[1])[0].digest == DIGEST
    assert "chunk_failed" in caplog.messages


def test_a_site_that_left_is_not_sent_to(sender: Sender, said: Said) -> None:
    sender.want("plant-01", want((0, 1)))
    sender.gone("plant-01")
    sender.want("plant-02", want((2, 2)))
    topic, message = said.get(timeout=10)
    assert (topic.split("/")[2], read_chunk(message)[0].index) == ("plant-02", 2)
