"""The uplink thread: runs the pure `Uplink` over a real MQTT link and the site's journal."""

import logging
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable

from edge_agent.config import Site
from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.journal import Growth, Journal
from edge_agent.memory.outbox import DamagedError, StreamState, read_batch, set_cursor, streams
from edge_agent.memory.schema import open_reader, snapshot
from edge_models.errors import RejectedError
from edge_sync.documents import Ack, EpochState, Heartbeat, LaneSeqs, Presence, Resume, dump, load
from edge_sync.mqtt import Down, Event, Link, Message, Up, Will
from edge_sync.topics import down, fleet_chunk, site_chunk, up
from edge_sync.uplink import Effect, Forked, MoveCursor, SayHello, Stream, Uplink

log = logging.getLogger(__name__)

TICK_S = 0.25
"""The finest grain of lingering and timeouts."""

HEARTBEAT_S = 30.0

MAX_WAITING = 1_000
"""Acks and resumes in memory; those beyond it are dropped, as a link may drop them."""


class UplinkService:
    """Keeps one site's link to its hub.

    `on_desired` and `on_chunk` are called on the link's thread and must return at once; `on_up` on the uplink's.
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
        self._id = site.config.site
        self._journal, self._versions, self._now_us = journal, versions, now_us
        self._first_order = journal.order
        self._connections = 0
        self._uplink = Uplink(float(hub.byte_rate) if hub is not None and hub.byte_rate else None)
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._grown: dict[Stream, Growth] = {}
        self._damaged: set[Stream] = set()
        self._stop = threading.Event()
        self._heartbeat_at = 0.0
        self.on_desired: Callable[[bytes], None] = lambda _: None
        self.on_chunk: Callable[[bytes], None] = lambda _: None
        self.on_up: Callable[[], None] = lambda: None
        self.online = False
        self.problem: str | None = "not connected yet"
        """Why there is no link now, in the broker's words; None while there is."""
        self._link = Link(
            site.broker(),
            self._heard,
            [(down(self._id, what), 1) for what in ("resume", "ack", "desired")],
            self._will,
        )
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    def start(self) -> None:
        """Begin to connect and to send."""
        self._journal.listen(self._grew)
        self._link.start()
        self._thread.start()

    def close(self, drain_s: float) -> None:
        """Send what waits for up to `drain_s` seconds, say goodbye, and end."""
        deadline = time.monotonic() + drain_s
        self._uplink.hurry()
        while self.online and self._uplink.backlog() and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.online:
            self._link.publish(up(self._id, "presence"), self._presence(False), retain=True)
        self._stop.set()
        self._events.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._link.close()

    def backlog(self) -> int:
        """Rows the hub has not acknowledged."""
        return self._uplink.backlog()

    def publish(self, what: str, payload: bytes, retain: bool = False) -> None:
        """Say something of this site's own; lost while the link is down."""
        self._link.publish(up(self._id, what), payload, retain=retain)

    def chunks(self, digest: str, wanted: bool) -> None:
        """Be subscribed to an artifact's chunks only while they are wanted."""
        for topic in (fleet_chunk(digest), site_chunk(self._id, digest)):
            if wanted:
                self._link.subscribe(topic, 0)
            else:
                self._link.unsubscribe(topic)

    def _heard(self, event: Event) -> None:
        """On the link's thread: hand on what others bound themselves; bound the rest here."""
        if not isinstance(event, Message):
            self._events.put(event)
        elif event.topic == down(self._id, "desired"):
            self.on_desired(event.payload)
        elif event.topic in (down(self._id, "ack"), down(self._id, "resume")):
            if self._events.qsize() < MAX_WAITING:
                self._events.put(event)
        else:
            self.on_chunk(event.payload)

    def _grew(self, growth: Growth) -> None:
        """On the committing thread: note it; the uplink looks within a tick, at once for an alarm."""
        self._grown[growth.epoch, growth.lane] = growth
        if growth.lane == "alarm":
            self._events.put(None)

    def _run(self) -> None:
        connection = open_reader(self._journal.path)
        try:
            self._introduce(connection)
            while not self._stop.is_set():
                try:
                    event = self._events.get(timeout=TICK_S)
                except queue.Empty:
                    event = None
                try:
                    self._turn(connection, event)
                except Exception:  # a defect in one turn may not end the site's link for ever
                    log.exception("uplink_turn_failed")
        finally:
            connection.close()

    def _turn(self, connection: sqlite3.Connection, event: Event | None) -> None:
        self._note_growth()
        if event is not None:
            self._handle(connection, event)
        now = time.monotonic()
        self._perform(self._uplink.tick(now))
        if self.online and now >= self._heartbeat_at:
            self._heartbeat_at = now + HEARTBEAT_S
            with snapshot(connection):
                held = streams(connection)
                heartbeat = self._heartbeat(connection, held)
            self._uplink.forget(self._uplink.epochs() - {state.epoch for state in held} - {self._journal.epoch})
            self._link.publish(up(self._id, "heartbeat"), dump(heartbeat), retain=True)
        self._send(connection)

    def _introduce(self, connection: sqlite3.Connection) -> None:
        now = time.monotonic()
        for state in streams(connection):
            self._uplink.grew(state.epoch, state.order, state.lane, state.last, now)

    def _note_growth(self) -> None:
        for stream in list(self._grown):
            growth = self._grown.pop(stream)
            self._uplink.grew(growth.epoch, growth.order, growth.lane, growth.last, time.monotonic())

    def _handle(self, connection: sqlite3.Connection, event: Event) -> None:
        now = time.monotonic()
        if isinstance(event, Up):
            self.online, self.problem = True, None
            cursors: dict[Stream, int] = {state.stream: state.acked for state in streams(connection)}
            self._link.publish(up(self._id, "presence"), self._presence(True), retain=True)
            self._heartbeat_at = 0.0
            self._perform(self._uplink.up(secrets.token_hex(8), cursors, now))
            self.on_up()
        elif isinstance(event, Down):
            if self.online or self.problem != event.reason:
                log.warning("link_down", extra={"reason": event.reason})
            self.online, self.problem = False, event.reason
            self._uplink.down()
        else:
            try:
                self._read(event, now)
            except RejectedError as error:
                log.warning("message_refused", extra={"topic": event.topic, "reason": str(error)})

    def _read(self, message: Message, now: float) -> None:
        if message.topic == down(self._id, "ack"):
            self._perform(self._uplink.ack(load(Ack, message.payload), now))
        else:
            self._perform(self._uplink.resume(load(Resume, message.payload), now))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SayHello):
                for page in effect.pages:
                    self._link.publish(up(self._id, "hello"), dump(page))
            elif isinstance(effect, MoveCursor):
                stream, seq = effect.stream, effect.seq
                self._journal.later(also=lambda db, stream=stream, seq=seq: set_cursor(db, stream, seq))  # type: ignore[misc]
            elif isinstance(effect, Forked):
                self._begin_again(effect.stream)

    def _begin_again(self, stream: Stream) -> None:
        """The hub holds other rows under this epoch's numbers: a rolled-back disk, or a second process with this id."""
        log.error("stream_forked", extra={"epoch": stream[0], "lane": stream[1]})
        if stream[0] == self._journal.epoch:
            self._journal.new_epoch()
        what = {"epoch": stream[0], "lane": stream[1], "reason": "the hub holds other rows under these numbers"}
        event = Draft("alarm", "event", JOURNAL_AGENT, self._now_us(), to_body(what), label="fork")
        self._journal.later([event])

    def _leave_alone(self, stream: Stream, problem: str) -> None:
        """A stream that can't be read must not hold up the others; it is an alarm once."""
        self._uplink.stalled(stream, time.monotonic())
        if stream in self._damaged:
            return
        self._damaged.add(stream)
        log.error("journal_damaged", extra={"epoch": stream[0], "lane": stream[1], "reason": problem})
        what = {"epoch": stream[0], "lane": stream[1], "reason": problem}
        event = Draft("alarm", "event", JOURNAL_AGENT, self._now_us(), to_body(what), label="journal_damaged")
        self._journal.later([event])

    def _send(self, connection: sqlite3.Connection) -> None:
        while self.online and (pull := self._uplink.pull(time.monotonic())) is not None:
            try:
                outgoing = read_batch(connection, pull.stream, pull.after)
                problem = "there is nothing where records should be"
            except DamagedError as error:
                outgoing, problem = None, str(error)
            if outgoing is None:
                self._leave_alone(pull.stream, problem)
                continue
            if not self._link.publish(up(self._id, "journal"), outgoing.message):
                return
            self._uplink.sent(pull.stream, outgoing.last, len(outgoing.message), time.monotonic())

    def _will(self) -> Will:
        """On the link's thread, before each connection: the will is of that connection's session."""
        self._connections += 1
        return Will(up(self._id, "presence"), self._presence(False))

    def _presence(self, online: bool) -> bytes:
        """Sessions grow with every start of the process and every connection of it, whatever the clock says."""
        session = (self._first_order << 20) + self._connections
        return dump(Presence(online=online, epoch=self._journal.epoch, session=session))

    def _heartbeat(self, connection: sqlite3.Connection, held: list[StreamState]) -> Heartbeat:
        """Every epoch held, with what was evicted of it, so that the hub can name what it never receives."""
        evicted: dict[str, LaneSeqs] = {}
        for epoch, lane, count in connection.execute(
            "SELECT epoch, lane, sum(last - first + 1) FROM gaps GROUP BY epoch, lane"
        ):
            evicted.setdefault(epoch, {})[lane] = count
        epochs: dict[str, EpochState] = {}
        lasts: dict[str, LaneSeqs] = {}
        for state in held:
            lasts.setdefault(state.epoch, {})[state.lane] = state.last
            epochs[state.epoch] = EpochState(
                epoch=state.epoch, order=state.order, last=lasts[state.epoch], evicted=evicted.get(state.epoch, {})
            )
        newest = sorted(epochs.values(), key=lambda state: -state.order)[:200]
        return Heartbeat(at_us=self._now_us(), epochs=newest, versions=self._versions)
