"""The ingest thread: takes all that waits, stores it in one transaction, commits, and only then answers.

Guarantees: sync/SPEC.md, section Journal sync. What one site sends can't hold up another: a message that makes
a transaction fail is found and put aside, and the others are stored without it. While the database refuses, what
came waits and is tried again.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection
from sqlalchemy.exc import (
    DatabaseError,
    DataError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    TimeoutError,
)

from edge_hub.database.store import Store
from edge_hub.ingest.inbox import Heard, Inbox, Item, LinkChanged
from edge_hub.ingest.journal import Arrived, Poison, Stored, store_batches
from edge_hub.metrics import Metrics
from edge_hub.records import quarantine, registry
from edge_hub.records.accounts import Accounts
from edge_hub.records.words import word_of_heartbeat, word_of_hello
from edge_models.errors import RejectedError
from edge_sync.batch import decode, read_header
from edge_sync.documents import EPOCHS_PER_PAGE, Ack, Heartbeat, Hello, Presence, Reported, dump, load
from edge_sync.rows import LANES
from edge_sync.topics import down

log = logging.getLogger(__name__)

MOST = 64
"""Messages in one transaction."""

_PAUSE_S = 1.0
"""After a message alone was refused by the database, as on a full disk."""

_TRIES = 5
"""How often in a row one message alone may be refused before it gives way to the others."""

_MOST_BEHIND = len(LANES) * EPOCHS_PER_PAGE
"""Streams of a site that are remembered as behind though its last heartbeat did not name them."""

_MOST_OTHERS = 10_000

UNKNOWN_SITE = "site is not registered"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What the thread may do once a transaction is committed."""

    publish: Callable[[str, bytes], None]
    """Topic and payload, QoS 1."""
    desired: Callable[[str | None], None]
    """Publish the desired document of this site again; None: of all sites."""
    gone: Callable[[str], None]
    """The site's link is down: send it no chunks."""
    reported: Callable[[Connection, str, Reported], bool] = lambda *_: False
    """Asked in the transaction: whether what the site reports makes its desired document new."""
    lacks_facts: Callable[[Connection, str, int], bool] = lambda *_: False
    """Asked in the transaction: whether a site that has the fleet's facts up to this version lacks some."""
    facts: Callable[[str], None] = lambda _: None
    """Publish what the site lacks of the fleet's facts."""
    memory: Callable[[str, str], None] = lambda *_: None
    """Publish what is known of a site that has no memory, as the answer to its hello with this sync id."""


class Ingest:
    """Runs the thread. `handle` is what it does with all that waited."""

    def __init__(
        self,
        store: Store,
        inbox: Inbox,
        metrics: Metrics,
        outgoing: Outgoing,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._store, self._inbox, self._metrics = store, inbox, metrics
        self._outgoing, self._now_us = outgoing, now_us
        self._behind: dict[str, registry.Behind] = {}
        self._accounts = Accounts()
        self._others: dict[tuple[str, str], int] = {}
        """Site and epoch of a process that is not the site's → when its last heartbeat was said, by its own clock."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End after the transaction that runs."""
        self._stopping.set()
        self._inbox.close()
        if self._thread.is_alive():
            self._thread.join()

    def handle(self, items: Sequence[Item]) -> None:
        """Store what these messages bring, then answer them.

        Raises `DBAPIError` or `TimeoutError` where the database refuses for a reason that lies in no message; nothing
        was acknowledged.
        """
        try:
            self._transact(items)
        except DBAPIError as error:
            if _is_operational(error):
                raise
            self._isolate(items, error)
        except TimeoutError:  # no connection was free
            raise
        except Exception as error:  # noqa: BLE001 - whatever one message provokes must not stop the others
            self._isolate(items, error)

    def _run(self) -> None:
        most, tries = MOST, 0
        while items := self._inbox.take(most):
            try:
                self.handle(items)
                most, tries = MOST, 0
            except Exception as error:
                self._metrics.add("edge_hub_ingest_failures_total")
                log.exception("ingest_failed", extra={"reason": str(error), "messages": len(items)})
                if len(items) > 1:  # fewer at once: where the database refuses one message only, it is found so
                    self._inbox.put_back(items)
                    most, tries = len(items) // 2, 0
                    continue
                most, tries = 1, tries + 1
                if tries < _TRIES or isinstance(items[0], LinkChanged):
                    self._inbox.put_back(items)
                else:
                    self._give_way(items[0])
                    most, tries = MOST, 0
                self._stopping.wait(_PAUSE_S)

    def _give_way(self, item: Heard) -> None:
        """The database refuses this one again and again. A batch comes again by itself; a document goes to the end."""
        log.error("message_gave_way", extra={"site": item.site, "document": item.what})
        if item.what != "journal":
            self._inbox.put_last(item)

    def _transact(self, items: Sequence[Item]) -> None:
        began = time.perf_counter()
        decoded = {id(item): _decode(item) for item in items if isinstance(item, Heard) and item.what == "journal"}
        turn = _Turn(self._now_us())
        with self._store.writing(shared=True) as db:
            turn.known = registry.known(db, {item.site for item in items if isinstance(item, Heard)})
            journal = [each for each in decoded.values() if not isinstance(each, _Broken) and each.site in turn.known]
            stored = store_batches(db, journal, turn.now_us)
            for item in items:
                self._take(db, turn, item, decoded.get(id(item)))
            registry.seen(db, turn.seen, turn.now_us)
        self._count(stored, turn, len(journal) - stored.poison, time.perf_counter() - began)
        for (site, _, _), ack in stored.acks.items():
            self._outgoing.publish(down(site, "ack"), dump(ack))
        for say in turn.says:
            say()

    def _take(self, db: Connection, turn: "_Turn", item: Item, batch: "Arrived | Poison | _Broken | None") -> None:
        """Everything but batches whose header can be read, which are done already."""
        if isinstance(item, LinkChanged):
            registry.offline(db, item.sites)
            if item.up and item.sites is None:
                turn.says.append(lambda: self._outgoing.desired(None))
        elif item.site not in turn.known:
            turn.aside += 1
            _put_aside(db, turn.now_us, item, UNKNOWN_SITE)
        else:
            if not item.retained:  # a retained message may be old: it does not say that the site is there
                turn.seen.add(item.site)
            if isinstance(batch, _Broken):
                turn.aside += 1
                _put_aside(db, turn.now_us, item, batch.reason)
            elif batch is None:
                self._document(db, turn, item)

    def _document(self, db: Connection, turn: "_Turn", item: Heard) -> None:
        """Take a document other than a batch."""
        site, payload = item.site, item.payload
        try:
            match item.what:
                case "hello":
                    hello = load(Hello, payload)
                    if hello.asks:
                        turn.says.append(lambda: self._outgoing.memory(site, hello.sync))
                        return
                    highs = self._accounts.take(db, site, word_of_hello(hello, item.retained), turn.now_us)
                    answer = dump(registry.resume(hello, highs))
                    if hello.lost:
                        turn.says.append(lambda: self._outgoing.memory(site, hello.sync))
                    elif self._outgoing.lacks_facts(db, site, hello.facts):
                        turn.says.append(lambda: self._outgoing.facts(site))
                    turn.says.append(lambda: self._outgoing.publish(down(site, "resume"), answer))
                    turn.says.append(lambda: self._outgoing.desired(site))
                case "presence":
                    present = load(Presence, payload)
                    taken = registry.presence(db, turn.now_us, site, present, item.retained)
                    if taken and not present.online:
                        turn.says.append(lambda: self._outgoing.gone(site))
                case "heartbeat":
                    beat = load(Heartbeat, payload)
                    current = registry.heartbeat(db, site, beat)
                    word = word_of_heartbeat(beat, item.retained)
                    if word.newest is not None and current not in (None, word.newest.epoch) and not item.retained:
                        self._of_another(db, turn.now_us, site, word.newest.epoch, str(current), beat.at_us)
                    behind = registry.behind(word, self._accounts.take(db, site, word, turn.now_us))
                    named = {state.epoch for state in word.epochs}
                    turn.says.append(lambda: self._remind(site, named, behind))
                    if not item.retained and self._outgoing.lacks_facts(db, site, beat.facts):
                        turn.says.append(lambda: self._outgoing.facts(site))
                case "reported":
                    said = load(Reported, payload)
                    registry.reported(db, site, said)
                    if self._outgoing.reported(db, site, said):
                        turn.says.append(lambda: self._outgoing.desired(site))
        except RejectedError as error:
            self._metrics.add("edge_hub_refused_documents_total")
            log.warning("document_refused", extra={"site": site, "document": item.what, "reason": str(error)})

    def _of_another(self, db: Connection, now_us: int, site: str, epoch: str, current: str, at_us: int) -> None:
        """A heartbeat of another process than the site's: the first may have been on its way, a second was not."""
        before = self._others.get((site, epoch))
        if before is None and len(self._others) >= _MOST_OTHERS:
            self._others.clear()
        self._others[site, epoch] = at_us
        if before not in (None, at_us):
            registry.goes_on(db, now_us, site, epoch, current)

    def _remind(self, site: str, named: set[str], behind: registry.Behind) -> None:
        """Say where the hub is in each stream that goes on at the site, while nothing of it came since the heartbeat
        that named it before: the site may believe that all of it is here, as when this hub was restored from a backup.

        Most heartbeats name the newest epochs only: what was behind of others is kept until they are named again.
        """
        before = self._behind.pop(site, {})
        others = [(stream, high) for stream, high in before.items() if stream[0] not in named]
        kept = dict(others[-_MOST_BEHIND:]) | dict(behind)
        if kept:
            self._behind[site] = kept
        for (epoch, lane), high in behind.items():
            if before.get((epoch, lane)) == high:
                self._outgoing.publish(down(site, "ack"), dump(Ack(epoch=epoch, lane=lane, seq=high)))

    def _isolate(self, items: Sequence[Item], error: Exception) -> None:
        """Some message made the transaction fail: halve until it stands alone, and put it aside."""
        if len(items) > 1:
            half = len(items) // 2
            self.handle(items[:half])
            self.handle(items[half:])
            return
        log.error("message_put_aside", exc_info=error, extra={"reason": str(error)})
        if isinstance(items[0], Heard):
            self._metrics.add("edge_hub_quarantined_total")
            acks = list[Ack]()
            with self._store.writing() as db:
                reason = f"unexpected {type(error).__name__}: {error}"[:500]
                if isinstance(error, DataError | OverflowError) and items[0].what == "journal":
                    acks = self._skip(db, items[0], reason)
                else:
                    _put_aside(db, self._now_us(), items[0], reason)
            for ack in acks:
                self._outgoing.publish(down(items[0].site, "ack"), dump(ack))

    def _skip(self, db: Connection, item: Heard, reason: str) -> list[Ack]:
        """A whole batch of values that no table takes (a text with a NUL in PostgreSQL) must not hold up its stream."""
        if registry.known(db, [item.site]):
            header, _ = read_header(item.payload)
            poison = Poison(item.site, header, item.payload, reason, hurt=False)
            return list(store_batches(db, [poison], self._now_us()).acks.values())
        return []

    def _count(self, stored: Stored, turn: "_Turn", batches: int, seconds: float) -> None:
        for name, amount in (
            ("batches", batches),
            ("records", stored.rows),
            ("forks", stored.forks),
            ("quarantined", stored.forks + stored.poison + turn.aside),
            ("ingest_transactions", 1),
            ("ingest_seconds", seconds),
        ):
            self._metrics.add(f"edge_hub_{name}_total", amount)


@dataclass(frozen=True, slots=True)
class _Broken:
    """A batch of which not even the header can be read, and why."""

    reason: str


@dataclass(slots=True)
class _Turn:
    """What one transaction finds out, for when it is committed."""

    now_us: int
    known: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    aside: int = 0
    says: list[Callable[[], None]] = field(default_factory=list)


def _decode(item: Heard) -> Arrived | Poison | _Broken:
    try:
        return Arrived(item.site, decode(item.payload), item.payload)
    except RejectedError as error:
        reason = str(error)[:500]
    try:
        header, packed = read_header(item.payload)
    except RejectedError:
        return _Broken(reason)
    hurt = hashlib.sha256(packed).digest() != header.sha256
    return Poison(item.site, header, item.payload, reason, hurt)


def _put_aside(db: Connection, now_us: int, item: Heard, reason: str) -> None:
    if quarantine.put(db, now_us, item.site, item.payload, reason[:500]) == 1:
        log.error("quarantined", extra={"site": item.site, "document": item.what, "reason": reason[:500]})


def _is_operational(error: DBAPIError) -> bool:
    """Whether the database itself is in trouble (full disk, lock, damage, no such table), whatever the message."""
    return type(error) in (OperationalError, DatabaseError, InterfaceError, InternalError, ProgrammingError)
