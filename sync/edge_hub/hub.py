"""A hub: its store, its link to the broker, and the threads between them."""

import logging
import time
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from edge_hub.broker import HUB, BrokerFolder
from edge_hub.database.dialect import Database
from edge_hub.database.store import Store
from edge_hub.delivery.blobs import Blobs
from edge_hub.delivery.deltas import Deltas
from edge_hub.delivery.releases import Releases, envelope, wanted_sites
from edge_hub.delivery.sender import Sender
from edge_hub.delivery.trust import Trust, packed_set
from edge_hub.enrol.enrolment import Enrolment, Means
from edge_hub.enrol.revoking import Revoking
from edge_hub.facts.fleet_facts import FleetFactEnvelopes, FleetFactLog, online
from edge_hub.facts.memory_back import MemoryBack
from edge_hub.facts.site_facts import SiteFacts
from edge_hub.folder import HubFolder
from edge_hub.ingest.inbox import Heard, Inbox, LinkChanged
from edge_hub.ingest.thread import Ingest, Outgoing
from edge_hub.keeping.housekeeping import Housekeeping
from edge_hub.metrics import Metrics
from edge_hub.sites import Sites
from edge_hub.speaker import Speaker, Subject
from edge_models.errors import RejectedError
from edge_sync.answers import Answers
from edge_sync.documents import Reported, Want, load
from edge_sync.mqtt import Broker, Down, Event, Link, Message, Up
from edge_sync.topics import ALL_UP, FLEET_TRUST, parse_up, up

log = logging.getLogger(__name__)

_FLEET = "fleet"
"""Who is told what all are told at once; no site has this name."""


def now_us() -> int:
    """This machine's clock: UTC microseconds."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Part:
    """What a process does of a hub's work, as whom it is known at the broker, and what it listens to at first."""

    user: str
    leads: bool
    """Sends chunks, serves the API, says everything again when the broker was away: one process of a hub."""
    ingests: bool
    topics: tuple[str, ...] = ()


WHOLE = Part(HUB, leads=True, ingests=True, topics=(ALL_UP,))
LEADER = Part(HUB, leads=True, ingests=False, topics=(up("+", "want"), up("+", "presence")))


def worker(number: int) -> Part:
    """One of several processes that ingest, each what the sites send to which it is told to `listen`."""
    return Part(f"{HUB}-{number}", leads=False, ingests=True)


class Hub:
    """Everything but HTTP. `start` connects; `close` ends whatever was started."""

    def __init__(
        self,
        folder: HubFolder,
        broker_folder: BrokerFolder,
        broker_url: str,
        database: Database | None = None,
        part: Part = WHOLE,
        means: Means | None = None,
        enrol_url: str = "",
    ) -> None:
        """Opens the database; None: the folder's own. With `means` the hub enrols sites, at `enrol_url`.

        Raises `ConfigError`, or `RetryableError` where the database is away.
        """
        self._part, self._broker_folder = part, broker_folder
        self.folder = folder
        self.broker_url = broker_url
        self.director_key = folder.director_key
        self.metrics = Metrics()
        self.store = Store(folder.database if database is None else database)
        self.blobs = Blobs(folder.blobs)
        self._inbox = Inbox()
        self._link = Link(
            Broker(broker_url, part.user, part.user, broker_folder.service_user(part.user, "hub"), reconnect_max_s=5),
            self._on_event,
            [(topic, 1) for topic in part.topics],
        )
        memory = MemoryBack(folder.key, lambda site: self._speaker.say("memory", site), now_us)
        subjects = {
            "desired": Subject(envelope, wanted_sites, retain=True),
            "facts": Subject(FleetFactEnvelopes(folder.key).for_site, online),
            "memory": Subject(memory.compose, lambda _: ()),
            "trust": Subject(lambda db, _: packed_set(db), lambda _: (_FLEET,), retain=True, topic=FLEET_TRUST),
        }
        self._speaker = Speaker(self.store, self._publish_and_wait, subjects)
        self._sender = Sender(self.store, self.blobs, self.metrics, lambda t, p: self._link.publish(t, p, qos=0))
        self.trust = Trust(self.store, folder.online_key, self.director_key, self._say_trust, now_us)
        self.deltas = Deltas(self.store, self.blobs)
        self.releases = Releases(
            self.store, folder.key, partial(self._speaker.say, "desired"), now_us, self.deltas.ensure
        )
        self.facts = SiteFacts(self.store, now_us)
        self.fleet_facts = FleetFactLog(self.store, lambda: self._speaker.say("facts", None), now_us)
        self._answers = Answers(folder.key)
        outgoing = Outgoing(
            self._answer,
            self._say_desired,
            self._sender.gone,
            self._reported,
            self.fleet_facts.told,
            partial(self._speaker.say, "facts"),
            memory.ask,
        )
        self._outgoing = outgoing
        self._ingest = Ingest(self.store, self._inbox, self.metrics, outgoing, now_us)
        self.enrolment: Enrolment | None = None
        if means is None:
            self.revoking = Revoking(self.store, broker_folder, now_us)
        else:
            self.enrolment = Enrolment(self.store, broker_folder, means, enrol_url, now_us)
            self.revoking = Revoking(self.store, broker_folder, now_us, means.ledger, means.equipment)
        self.sites = Sites(self.store, broker_folder, now_us, self.revoking)
        self._housekeeping = Housekeeping(self.store, now_us, self.trust.renew)
        self.online = False
        self._listening: frozenset[str] = frozenset()
        self._said: str | None = None
        self._closing = False

    def is_site(self, name: str, password: str) -> bool:
        """Whether this is a site's name and its password at the broker."""
        return self._broker_folder.knows(name, "site", password)

    def start(self) -> None:
        """Begin to listen to sites; returns at once, whether or not the broker can be reached."""
        if self._part.ingests:
            self._ingest.start()
        self._speaker.start()
        if self._part.leads:
            self._sender.start()
            self._housekeeping.start()
        self._link.start()

    def listen(self, sites: frozenset[str]) -> None:
        """Listen to these sites and no others from now on; for a part with no topics of its own."""
        for site in self._listening - sites:
            self._link.unsubscribe(up(site, "#"))
        new, self._listening = sites - self._listening, sites
        for site in sorted(new):
            self._link.subscribe(up(site, "#"), 1)

    def close(self) -> None:
        """End in the order that loses nothing: whatever was not acknowledged comes again."""
        self._closing = True
        self._housekeeping.close()
        self._ingest.close()
        self._sender.close()
        self._speaker.close()
        self._link.close()
        self.store.close()

    def _say_trust(self) -> None:
        self._speaker.say("trust", _FLEET)

    def _say_desired(self, site: str | None) -> None:
        """None: the broker may have lost whatever it kept."""
        self._speaker.say("desired", site)
        if site is None:
            self._say_trust()

    def _reported(self, db: Connection, site: str, said: Reported) -> bool:
        if self.trust.answer(db, site, said):
            self._say_trust()
        return self.releases.answer(db, site, said)

    def _answer(self, topic: str, document: bytes) -> None:
        if not self._link.publish(topic, self._answers.seal(topic, document)):
            log.warning("not_published", extra={"topic": topic})

    def _publish_and_wait(self, topic: str, payload: bytes, retain: bool) -> bool:
        return self._link.publish_and_wait(topic, payload, retain=retain)

    def _on_event(self, event: Event) -> None:
        """On the link's thread: pass it on at once. Nothing here asks the database."""
        match event:
            case Up():
                self.online, self._said = True, None
                log.info("broker_connected", extra={"broker": self.broker_url})
                self._link_changed(True)
            case Down(reason):
                if reason != self._said and not self._closing:  # the link goes on trying; one line a reason is enough
                    log.warning("broker_away", extra={"broker": self.broker_url, "reason": reason})
                if self.online:
                    self._link_changed(False)
                self.online, self._said = False, reason
            case Message():
                self._on_message(event)

    def _link_changed(self, is_up: bool) -> None:
        if self._part.ingests:
            self._inbox.put(LinkChanged(is_up, None if self._part.leads else self._listening))
        elif is_up:
            self._outgoing.desired(None)

    def _on_message(self, message: Message) -> None:
        parsed = parse_up(message.topic)
        if parsed is None:
            return
        site, what = parsed
        if what == "want":
            if self._part.leads:
                self._on_want(site, message.payload)
        elif not self._part.ingests:
            self._sender.gone(site)  # its link came or went: its worker knows which, and it asks again if it is there
        elif not self._inbox.put(Heard(site, what, message.payload, message.retained)):
            self.metrics.add("edge_hub_dropped_messages_total")

    def _on_want(self, site: str, payload: bytes) -> None:
        try:
            self._sender.want(site, load(Want, payload))
        except RejectedError as error:
            self.metrics.add("edge_hub_refused_documents_total")
            log.warning("document_refused", extra={"site": site, "document": "want", "reason": str(error)})
