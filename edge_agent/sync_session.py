"""One site's side of journal sync over its own journal: without a thread, a socket or a clock of its own.

`edge_agent.uplink` runs it over MQTT; the fleet simulator runs it in virtual time. The rules are those of the pure
`edge_sync.uplink.Uplink`; this class reads the journal for it and says what it decides.
"""

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.journal import Growth, Journal
from edge_agent.memory.outbox import DamagedError, StreamState, epochs, read_batch, set_cursor, set_forked, streams
from edge_agent.memory.schema import snapshot
from edge_models.errors import RejectedError
from edge_sync.documents import EPOCHS_PER_PAGE, Ack, EpochState, Heartbeat, LaneSeqs, Presence, Resume, dump, load
from edge_sync.rows import ERASED, EXPIRED
from edge_sync.uplink import Effect, Forked, MoveCursor, SayHello, Stream, Uplink

log = logging.getLogger(__name__)

HEARTBEAT_S = 30.0

HEARTBEAT_EPOCHS = 20
"""The newest epochs, which a heartbeat names; a site that is started often holds hundreds."""

FULL_EVERY = 20
"""Of so many heartbeats the first names up to `EPOCHS_PER_PAGE`: a hub that was restored learns of older ones."""

PRESENCE_EVERY = 4
"""Of so many heartbeats one brings the presence again."""


class Publish(Protocol):
    """Hands a document to the link: its name in the topic, its bytes. False: the link did not take it."""

    def __call__(self, what: str, payload: bytes, retain: bool = False) -> bool: ...


class SiteSync:
    """Delivers one journal to the hub. Every method takes `now` in monotonic seconds; one thread calls them."""

    def __init__(
        self,
        journal: Journal,
        connection: sqlite3.Connection,
        publish: Publish,
        now_us: Callable[[], int],
        draw: Callable[[], str],
        versions: Mapping[str, str],
        byte_rate: float | None = None,
    ) -> None:
        """`connection` reads the journal's file; `draw` gives the id of a session, new at each call."""
        self._journal, self._connection, self._publish = journal, connection, publish
        self._now_us, self._draw, self._versions = now_us, draw, dict(versions)
        self._uplink = Uplink(byte_rate)
        self._epoch, self._first_order = journal.epoch, journal.order
        self._connections = 0
        self._grown: dict[Stream, Growth] = {}
        self._damaged: set[Stream] = set()
        self._heartbeat_at = 0.0
        self._heartbeats = 0
        self.online = False
        self.facts_version: Callable[[], int] = lambda: 0
        """Up to where the fleet's facts are known here."""
        self.on_damage: Callable[[str], None] = lambda _: None
        """Told why the journal can't be read as it was written."""
        journal.listen(self._grew)

    def introduce(self, now: float) -> None:
        """Learn what the journal holds already; once, before the first link."""
        for epoch, order in epochs(self._connection).items():
            self._uplink.began(epoch, order)
        for state in streams(self._connection):
            self._uplink.grew(state.epoch, state.order, state.lane, state.last, now)
            if state.forked:
                self._uplink.give_up(state.stream)

    def backlog(self) -> int:
        """Rows the hub has not acknowledged."""
        return self._uplink.backlog()

    def hurry(self) -> None:
        """The site is about to stop: nothing waits for company any more."""
        self._uplink.hurry()

    def presence(self, online: bool) -> bytes:
        """The presence document of this connection; offline, it is the connection's will.

        Its epoch is the one the process began with, its session grows with every connection, whatever the clock says.
        """
        session = (self._first_order << 20) + self._connections
        return dump(Presence(online=online, epoch=self._epoch, session=session))

    def connecting(self) -> bytes:
        """A new connection begins: its will."""
        self._connections += 1
        return self.presence(False)

    def up(self, now: float) -> None:
        """The link is up and subscribed."""
        self.online = True
        cursors: dict[Stream, int] = {state.stream: state.acked for state in streams(self._connection)}
        self._publish("presence", self.presence(True), retain=True)
        self._heartbeat_at, self._heartbeats = now, 0
        self._perform(self._uplink.up(self._draw(), cursors, now))

    def down(self) -> None:
        """The link is gone."""
        self.online = False
        self._uplink.down()

    def heard(self, what: str, payload: bytes, now: float) -> None:
        """The hub said `ack` or `resume`; what is no such document is refused."""
        try:
            if what == "ack":
                self._perform(self._uplink.ack(load(Ack, payload), now))
            else:
                self._perform(self._uplink.resume(load(Resume, payload), now))
        except RejectedError as error:
            log.warning("message_refused", extra={"document": what, "reason": str(error)})

    def turn(self, now: float) -> None:
        """Time passes: note what was written, say what is due, send what may be sent."""
        for stream in list(self._grown):
            growth = self._grown.pop(stream)
            self._uplink.grew(growth.epoch, growth.order, growth.lane, growth.last, now)
        self._perform(self._uplink.tick(now))
        if self.online and now >= self._heartbeat_at:
            self._heartbeat_at = now + HEARTBEAT_S
            with snapshot(self._connection):
                orders = epochs(self._connection)
                most = HEARTBEAT_EPOCHS if self._heartbeats % FULL_EVERY else EPOCHS_PER_PAGE
                heartbeat = self._heartbeat(orders, streams(self._connection), most)
            self._heartbeats += 1
            self._uplink.forget(self._uplink.epochs() - orders.keys() - {self._journal.epoch})
            self._publish("heartbeat", dump(heartbeat), retain=True)
            if self._heartbeats % PRESENCE_EVERY == 0:  # brokers forget what they retained
                self._publish("presence", self.presence(True), retain=True)
        self._send(now)

    def _grew(self, growth: Growth) -> None:
        """On the committing thread."""
        self._grown[growth.epoch, growth.lane] = growth

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, SayHello):
                for page in effect.pages:
                    self._publish("hello", dump(page.model_copy(update={"facts": self.facts_version()})))
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
            self._uplink.began(self._journal.epoch, self._journal.order)
        self._journal.later(also=lambda db: set_forked(db, stream))
        self._alarm("fork", stream, "the hub holds other rows under these numbers")

    def _send(self, now: float) -> None:
        while self.online and (pull := self._uplink.pull(now)) is not None:
            try:
                outgoing = read_batch(self._connection, pull.stream, pull.after)
                problem = "there is nothing where records should be"
            except DamagedError as error:
                outgoing, problem = None, str(error)
            if outgoing is None:
                self._leave_alone(pull.stream, problem, now)
                continue
            if not self._publish("journal", outgoing.message):
                return
            self._uplink.sent(pull.stream, outgoing.last, len(outgoing.message), now)

    def _leave_alone(self, stream: Stream, problem: str, now: float) -> None:
        """A stream that can't be read must not hold up the others; it is told of once."""
        self._uplink.stalled(stream, now)
        if stream in self._damaged:
            return
        self._damaged.add(stream)
        log.error("stream_unreadable", extra={"epoch": stream[0], "lane": stream[1], "reason": problem})
        self.on_damage(problem)

    def _alarm(self, label: str, stream: Stream, reason: str) -> None:
        what = to_body({"epoch": stream[0], "lane": stream[1], "reason": reason})
        self._journal.later([Draft("alarm", "event", JOURNAL_AGENT, self._now_us(), what, label=label)])

    def _heartbeat(self, orders: Mapping[str, int], held: Sequence[StreamState], most: int) -> Heartbeat:
        """The newest epochs held, with what was evicted of them, so that the hub can name what it never receives."""
        evicted: dict[str, LaneSeqs] = {}
        for epoch, lane, count in self._connection.execute(
            "SELECT epoch, lane, sum(last - first + 1) FROM gaps WHERE reason NOT IN (?, ?) GROUP BY epoch, lane",
            (EXPIRED, ERASED),
        ):
            evicted.setdefault(epoch, {})[lane] = count
        lasts: dict[str, LaneSeqs] = {epoch: {} for epoch in orders}
        for state in held:
            lasts[state.epoch][state.lane] = state.last
        newest = sorted(orders, key=lambda epoch: -orders[epoch])
        left_out = newest[most:]
        return Heartbeat(
            at_us=self._now_us(),
            after=orders[left_out[0]] if left_out else 0,
            epochs=[
                EpochState(epoch=epoch, order=orders[epoch], last=lasts[epoch], evicted=evicted.get(epoch, {}))
                for epoch in newest[:most]
            ],
            versions=self._versions,
            facts=self.facts_version(),
        )
