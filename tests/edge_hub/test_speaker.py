import threading
import time
from collections.abc import Callable, Iterator

import pytest

from edge_hub.database.dialect import BulkInsert
from edge_hub.database.schema import desired
from edge_hub.database.store import Store
from edge_hub.delivery.releases import envelope, wanted_sites
from edge_hub.speaker import Speaker, Subject

SITES = ("p1", "p2", "p3")


class Broker:
    """Takes documents, but not those of sites in `refused`, and none while it is not `open`."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.tried: list[str] = []
        self.refused: set[str] = set()
        self.open = threading.Event()
        self.open.set()

    def publish(self, topic: str, envelope: bytes, retain: bool) -> bool:
        site = topic.split("/")[2]
        assert (topic, retain) == (f"edge/v1/{site}/down/desired", True)
        self.tried.append(site)
        assert self.open.wait(20)
        if site in self.refused:
            return False
        self.taken.append((site, envelope))
        return True


@pytest.fixture
def broker() -> Iterator[Broker]:
    made = Broker()
    yield made
    made.open.set()


def wish(store: Store, site: str, envelope: bytes) -> None:
    with store.writing() as db:
        BulkInsert(desired, update=("envelope",))(db, [(site, 1, 1, envelope)])


@pytest.fixture
def speaker(store: Store, broker: Broker) -> Iterator[Speaker]:
    for site in SITES:
        wish(store, site, b"old")
    made = Speaker(store, broker.publish, {"desired": Subject(envelope, wanted_sites, retain=True)}, again_s=0.05)
    made.start()
    yield made
    broker.open.set()
    made.close()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_what_the_broker_does_not_take_is_said_again_and_holds_up_nobody(
    speaker: Speaker, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.refused = {"p1"}
    speaker.say("desired", None)
    until(lambda: broker.tried.count("p1") >= 3)
    assert broker.taken == [("p2", b"old"), ("p3", b"old")]
    broker.refused = set()
    until(lambda: ("p1", b"old") in broker.taken)
    assert len(broker.taken) == 3
    assert caplog.messages.count("document_not_published") < broker.tried.count("p1")


def test_a_flood_of_hellos_is_answered_once_with_what_is_desired_then(
    speaker: Speaker, broker: Broker, store: Store
) -> None:
    broker.open.clear()
    speaker.say("desired", "p1")
    until(lambda: broker.tried == ["p1"])
    for _ in range(1000):
        speaker.say("desired", "p2")
    wish(store, "p2", b"new")
    broker.open.set()
    speaker.say("desired", "p3")
    until(lambda: ("p3", b"old") in broker.taken)
    assert broker.taken == [("p1", b"old"), ("p2", b"new"), ("p3", b"old")]


def test_a_document_that_is_being_said_and_changes_is_said_again(
    speaker: Speaker, broker: Broker, store: Store
) -> None:
    broker.open.clear()
    speaker.say("desired", "p1")
    until(lambda: broker.tried == ["p1"])
    wish(store, "p1", b"new")
    speaker.say("desired", "p1")
    broker.open.set()
    until(lambda: ("p1", b"new") in broker.taken)
    assert broker.taken == [("p1", b"old"), ("p1", b"new")]


def test_a_database_that_refuses_is_asked_again(speaker: Speaker, broker: Broker, store: Store) -> None:
    with store.writing() as db:
        db.exec_driver_sql("ALTER TABLE desired RENAME TO away")
    speaker.say("desired", None)
    speaker.say("desired", "p2")
    until(
        lambda: {("desired", None), ("desired", "p2")} <= speaker._pending.keys() and min(speaker._pending.values()) > 0
    )
    with store.writing() as db:
        db.exec_driver_sql("ALTER TABLE away RENAME TO desired")
    until(lambda: {site for site, _ in broker.taken} == set(SITES))


def test_a_site_with_nothing_desired_is_told_nothing(speaker: Speaker, broker: Broker) -> None:
    speaker.say("desired", "stranger")
    speaker.say("desired", "p1")
    until(lambda: broker.taken == [("p1", b"old")])
    assert broker.tried == ["p1"]
