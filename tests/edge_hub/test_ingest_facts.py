"""What a hello or a heartbeat asks of facts and memory. Held: sync/SPEC.md, Facts, and A site that lost its memory."""

from typing import Any

import pytest
from sqlalchemy import Connection, select

from edge_hub.database.schema import epochs, sites, streams
from edge_hub.database.store import Store
from edge_hub.facts.fleet_facts import FleetFactLog, newest
from edge_hub.ingest.inbox import Heard, Inbox
from edge_hub.ingest.thread import Ingest, Outgoing
from edge_hub.metrics import Metrics
from edge_sync.documents import Document, EpochState, Heartbeat, Hello, dump

NOW = 1_800_000_000_000_000


class Desk:
    """An ingest without its thread, over a hub that has one fact."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.facts: list[str] = []
        self.memory: list[tuple[str, str]] = []
        self.asked: list[tuple[str, int]] = []
        self.log = FleetFactLog(store, lambda: None, lambda: NOW)
        outgoing = Outgoing(
            publish=lambda _topic, _payload: None,
            desired=lambda _site: None,
            gone=lambda _site: None,
            lacks_facts=self._lacks,
            facts=self.facts.append,
            memory=lambda site, sync: self.memory.append((site, sync)),
        )
        self.ingest = Ingest(store, Inbox(), Metrics(), outgoing, lambda: NOW)
        with store.writing() as db:
            db.execute(sites.insert().values(site="p1", labels={}, created_us=1, online=True))
        self.log.put("mode", "go", None, "operator")
        with store.reading() as db:
            self.version = newest(db)

    def tell(self, what: str, document: Document, retained: bool = False) -> None:
        self.ingest.handle([Heard("p1", what, dump(document), retained)])

    def stands(self) -> Any:
        with self.store.reading() as db:
            return db.scalar(select(sites.c.facts_version).where(sites.c.site == "p1"))

    def _lacks(self, db: Connection, site: str, version: int) -> bool:
        self.asked.append((site, version))
        return self.log.told(db, site, version)


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


@pytest.mark.parametrize("what", ["hello", "heartbeat"])
def test_a_site_that_lacks_facts_is_sent_them_and_one_that_has_all_is_not(desk: Desk, what: str) -> None:
    def say(version: int) -> None:
        hello = Hello(sync="s1", epochs=[], facts=version)
        desk.tell(what, hello if what == "hello" else Heartbeat(at_us=1, epochs=[], facts=version))

    say(0)
    assert (desk.facts, desk.stands()) == (["p1"], 0)
    say(desk.version)
    assert (desk.facts, desk.stands()) == (["p1"], desk.version)
    say(desk.version + 5)
    assert desk.facts == ["p1", "p1"], "the log went on above what the site says"
    assert desk.memory == []


def test_a_heartbeat_that_the_broker_kept_says_nothing_of_now(desk: Desk) -> None:
    desk.tell("heartbeat", Heartbeat(at_us=1, epochs=[], facts=0), retained=True)
    assert (desk.facts, desk.asked, desk.stands()) == ([], [], None)


def test_a_hello_without_a_memory_is_answered_with_what_is_known(desk: Desk) -> None:
    desk.tell("hello", Hello(sync="s7", epochs=[], lost=True))
    assert (desk.memory, desk.facts, desk.stands()) == ([("p1", "s7")], [], None)


def test_a_site_that_asks_takes_nothing_away(desk: Desk) -> None:
    """Its memory is behind: it says nothing of what it holds, and hears what is known."""
    state = EpochState(epoch="00000000000000aa", order=3, last={"decision": 9})
    desk.tell("heartbeat", Heartbeat(at_us=1, epochs=[state]))

    def accounts() -> list[Any]:
        with desk.store.reading() as db:
            return [db.execute(select(table)).all() for table in (epochs, streams)]

    before = accounts()
    desk.tell("hello", Hello(sync="s8", epochs=[], asks=True))
    assert desk.memory == [("p1", "s8")]
    assert accounts() == before
    assert before[0][0].held
