"""The uplink thread: runs a site's `SiteSync` over a real MQTT link, and passes the hub's other words on."""

import logging
import queue
import secrets
import threading
import time
from collections.abc import Callable, Collection

from edge_agent.config import Site
from edge_agent.memory.journal import Growth, Journal
from edge_agent.memory.schema import open_reader
from edge_agent.refusals import Refusals
from edge_agent.sync_session import SiteSync
from edge_models.errors import RejectedError
from edge_sync.answers import opened
from edge_sync.mqtt import Down, Event, Link, Message, Up, Will
from edge_sync.topics import FLEET_TRUST, down, fleet_chunk, site_chunk, up

log = logging.getLogger(__name__)

TICK_S = 0.25
"""The finest grain of lingering and timeouts."""

MAX_WAITING = 1_000
"""Acks and resumes in memory; those beyond it are dropped, as a link may drop them."""


class UplinkService:
    """Keeps one site's link to its hub.

    `on_desired`, `on_facts`, `on_trust` and `on_chunk` are called on the link's thread and must return at once; `on_up`
    and `on_damage` on the uplink's.
    """

    def __init__(
        self,
        site: Site,
        journal: Journal,
        versions: dict[str, str],
        now_us: Callable[[], int],
    ) -> None:
        """Raises `ConfigError` where the site file's `hub` can't be used."""
        hub = site.config.hub
        broker = site.broker()
        self._id = site.config.site
        self._alone = hub is not None and hub.update_byte_rate is not None
        self._reader = open_reader(journal.path)
        self._sync = SiteSync(
            journal,
            self._reader,
            self.publish,
            now_us,
            lambda: secrets.token_hex(8),
            versions,
            float(hub.byte_rate) if hub is not None and hub.byte_rate else None,
        )
        journal.listen(self._grew)
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self.on_desired: Callable[[bytes], None] = lambda _: None
        self.on_facts: Callable[[bytes], None] = lambda _: None
        self.on_trust: Callable[[bytes], None] = lambda _: None
        self.on_chunk: Callable[[bytes], object] = lambda _: None
        self.on_up: Callable[[], None] = lambda: None
        self.on_damage: Callable[[str], None] = lambda _: None
        self.facts_version: Callable[[], int] = lambda: 0
        """Asked up to where the fleet's facts are known here."""
        self.directors: Callable[[], Collection[str]] = lambda: ()
        """Asked for the keys, hex, whose answers count."""
        self._refusals = Refusals(journal, now_us, time.monotonic, "answer_refused")
        self._sync.on_damage, self._sync.facts_version = self._damage, self._facts
        self.problem: str | None = "not connected yet"
        """Why there is no link now, in the broker's words; None while there is."""
        self._link = Link(
            broker,
            self._heard,
            [(FLEET_TRUST, 1), *((down(self._id, what), 1) for what in ("resume", "ack", "desired", "facts"))],
            lambda: Will(up(self._id, "presence"), self._sync.connecting()),
        )
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    @property
    def online(self) -> bool:
        """Whether the link is up."""
        return self._sync.online

    def start(self) -> None:
        """Begin to connect and to send."""
        self._sync.introduce(time.monotonic())
        self._link.start()
        self._thread.start()

    def close(self, drain_s: float) -> None:
        """Send what waits for up to `drain_s` seconds, say goodbye, and end."""
        deadline = time.monotonic() + drain_s
        self._sync.hurry()
        while self.online and self.backlog() and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.online:
            self.publish("presence", self._sync.presence(False), retain=True)
        self._stop.set()
        self._events.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._link.close()
        self._reader.close()

    def backlog(self) -> int:
        """Rows the hub has not acknowledged."""
        return self._sync.backlog()

    def publish(self, what: str, payload: bytes, retain: bool = False) -> bool:
        """Say something of this site's own; lost while the link is down."""
        return self._link.publish(up(self._id, what), payload, retain=retain)

    def chunks(self, digest: str, wanted: bool) -> None:
        """Be subscribed to an artifact's chunks only while they are wanted."""
        shared = () if self._alone else (fleet_chunk(digest),)  # what all hear would come faster than it may
        for topic in (*shared, site_chunk(self._id, digest)):
            if wanted:
                self._link.subscribe(topic, 0)
            else:
                self._link.unsubscribe(topic)

    def _damage(self, reason: str) -> None:
        self.on_damage(reason)

    def _facts(self) -> int:
        return self.facts_version()

    def _heard(self, event: Event) -> None:
        """On the link's thread: hand on what others bound themselves; bound the rest here."""
        if not isinstance(event, Message):
            self._events.put(event)
        elif event.topic == down(self._id, "desired"):
            self.on_desired(event.payload)
        elif event.topic == down(self._id, "facts"):
            self.on_facts(event.payload)
        elif event.topic == FLEET_TRUST:
            self.on_trust(event.payload)
        elif event.topic in (down(self._id, "ack"), down(self._id, "resume")):
            if self._events.qsize() < MAX_WAITING:
                self._events.put(event)
        else:
            self.on_chunk(event.payload)

    def _grew(self, growth: Growth) -> None:
        """On the committing thread: the uplink looks within a tick, at once for an alarm."""
        if growth.lane == "alarm":
            self._events.put(None)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                event = self._events.get(timeout=TICK_S)
            except queue.Empty:
                event = None
            try:
                if event is not None:
                    self._handle(event)
                self._sync.turn(time.monotonic())
            except Exception:  # a defect in one turn may not end the site's link for ever
                log.exception("uplink_turn_failed")

    def _handle(self, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Up):
            self.problem = None
            self._sync.up(now)
            self.on_up()
        elif isinstance(event, Down):
            if self.online or self.problem != event.reason:
                log.warning("link_down", extra={"reason": event.reason})
            self.problem = event.reason
            self._sync.down()
        else:
            self._answered(event, now)

    def _answered(self, event: Message, now: float) -> None:
        try:
            document = opened(event.topic, event.payload, self.directors())
        except RejectedError as error:
            self._refusals.add(str(error))
            return
        self._sync.heard(event.topic.rsplit("/", 1)[1], document, now)
