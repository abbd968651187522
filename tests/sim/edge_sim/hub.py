"""The hub's machine in the simulator: production's ingest over a real database file."""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection as Database
from sqlalchemy import Dialect
from sqlalchemy.exc import OperationalError

from edge_hub.database.schema import sites
from edge_hub.database.store import Store, UnknownError
from edge_hub.facts.fleet_facts import FleetFactEnvelopes, FleetFactLog, online
from edge_hub.facts.memory_back import MemoryBack
from edge_hub.ingest.inbox import Heard, Inbox, Item, LinkChanged
from edge_hub.ingest.thread import MOST, Ingest, Outgoing
from edge_hub.metrics import Metrics
from edge_models.errors import RejectedError
from edge_sim.broker import Broker, Connection
from edge_sim.delivery import RENEW_LOOK_S, Delivery, Sent, stocked
from edge_sim.disk import Disk, Image
from edge_sim.pool import pool
from edge_sim.world import Clock, World
from edge_sync.answers import Answers
from edge_sync.batch import read_header
from edge_sync.signing import make_key
from edge_sync.topics import down, parse_up

CLIENT = "_hub"

Witness = dict[tuple[str, str, str], int]
"""Site, epoch, lane → the highest number that any word committed here told of; kept beside the hub, not by it."""


_COMPILED: dict[Any, Any] = {}
_DIALECT: dict[None, Dialect] = {}
"""Of this process's first hub, and all statements compiled for it: else each start of a hub compiles its own."""


class CrashError(BaseException):
    """The process is gone at this instruction."""


class SimStore(Store):
    """The store, with its host asked before a writing transaction commits."""

    def __init__(self, host: "SimHub") -> None:
        self._host = host
        super().__init__(host.disk.path)
        self._engine = self._engine.execution_options(compiled_cache=_COMPILED)
        self._engine.dialect = _DIALECT.setdefault(None, self._engine.dialect)

    @contextmanager
    def writing(self, *, shared: bool = False) -> Iterator[Database]:
        with super().writing(shared=shared) as db:
            if self._host.full and self._host.running:
                raise OperationalError("commit", {}, Exception("database or disk is full"))
            yield db
            self._host.boundary("commit")
        self._host.committed()
        self._host.boundary("committed")


class SimHub:
    """One hub. It is up to its faults when it runs."""

    def __init__(self, world: World, broker: Broker, folder: Path, updates: bool = False) -> None:
        """With `updates` it holds the pool's releases, and its director is the pool's."""
        self.world, self.broker = world, broker
        self.disk = Disk(folder, "hub.db")
        self.clock = Clock(world)
        self.running = False
        self.full = False
        self.partitioned = False
        self.fuse: int | None = None
        self.backups: list[tuple[float, Image, Witness]] = []
        self.restored = 0
        self._present: dict[str, tuple[str, int]] = {}
        """By site, the epoch and session that came online last."""
        self.monitors: list[str] = []
        """What the process itself was seen to do wrong."""
        self.witness: Witness = {}
        self.life = 0
        self._woken = False
        self._store: SimStore | None = None
        self._ingest: Ingest | None = None
        self.fleet_facts: FleetFactLog | None = None
        self.delivery: Delivery | None = None
        self.sent: list[Sent] = []
        self.trust_late_until = 0.0
        """Until when it says nothing of what the operator signed."""
        self._updates = updates
        if updates:
            self.key = pool().director
            self.disk.restore(stocked())
        else:
            self.key = folder.parent / "director.key"
            make_key(self.key)
        self._inbox: list[Item] = []
        self._handling: list[Item] = []
        self._connection: Connection | None = None

    def start(self) -> None:
        """Start the process."""
        if self.running:
            return
        self.life += 1
        life = self.life
        self._inbox = []
        self._woken = False
        self.fuse = None
        self._store = SimStore(self)
        self.fleet_facts = FleetFactLog(self._store, self._tell_all, self.clock.us, self.world.rng.randrange)
        self._envelopes, self._answers = FleetFactEnvelopes(self.key), Answers(self.key)
        memory = MemoryBack(self.key, lambda site: self._tell(site, "memory", memory.compose), self.clock.us)
        delivery = self.delivery = Delivery(self, self._store) if self._updates else None
        outgoing = Outgoing(
            self._publish,
            (lambda _site: None) if delivery is None else delivery.desired,
            (lambda _site: None) if delivery is None else delivery.gone,
            (lambda *_: False) if delivery is None else delivery.reported,
            lacks_facts=self.fleet_facts.told,
            facts=lambda site: self._tell(site, "facts", self._envelopes.for_site),
            memory=memory.ask,
        )
        self._ingest = Ingest(self._store, Inbox(), Metrics(), outgoing, self.clock.us)
        self.running = True
        self.world.say("hub", "started")
        self.world.after(0.1, lambda: self._connect(life))
        if delivery is not None:
            self._renew(life)

    def lives(self, life: int) -> bool:
        """Whether it is still that process."""
        return self.running and life == self.life

    def _renew(self, life: int) -> None:
        """What the housekeeping's thread does for trust."""
        if self.lives(life) and self.delivery is not None:
            self.delivery.renew()
            self.world.after(RENEW_LOOK_S, lambda: self._renew(life))

    def register(self, names: list[str]) -> None:
        """Make these sites known."""
        assert self._store is not None
        with Store.writing(self._store) as db:
            for name in names:
                db.execute(sites.insert().values(site=name, labels={}, created_us=1, online=False))

    def crash(self) -> None:
        """The process dies here."""
        if not self.running:
            return
        image = self.disk.image()
        self.running = False
        self.fuse = None
        self.world.say("hub", "crashed")
        assert self._store is not None
        self._store.close()
        if self._connection is not None:
            self.broker.vanish(CLIENT)
            self._connection = None
        self.disk.restore(image)

    def back_up(self) -> None:
        """Keep what the database holds now."""
        if self.running:
            self.backups.append((self.world.now, self.disk.image(), dict(self.witness)))
            self.world.say("hub", "backup")

    def restore(self, which: int) -> None:
        """Begin again from an earlier backup."""
        self.crash()
        at, image, witness = self.backups[which]
        self.disk.restore(image)
        self.witness = dict(witness)
        self._present = {}
        self.restored += 1
        self.world.say("hub", "restored", f"from the backup of {at:.0f} s")
        self.start()

    @property
    def quiet(self) -> bool:
        """Whether it runs and nothing waits for it."""
        return self.running and self._connection is not None and not self._inbox

    def boundary(self, _what: str) -> None:
        """An effect begins or has just happened: the place where a process may die."""
        if self.fuse is not None and self.running:
            self.fuse -= 1
            if self.fuse <= 0:
                self.world.counts["crash at a boundary"] += 1
                raise CrashError

    def committed(self) -> None:
        """What was being handled is durable: from now on its word was heard."""
        for item in self._handling:
            if isinstance(item, Heard):
                for epoch, lane, last in told_by(item):
                    key = (item.site, epoch, lane)
                    self.witness[key] = max(last, self.witness.get(key, 0))
                if item.what == "presence":
                    self._watch_presence(item.site, json.loads(item.payload))

    def _watch_presence(self, site: str, said: dict[str, Any]) -> None:
        """The promise of wills: one that an older session left behind changes nothing."""
        with contextlib.closing(sqlite3.connect(self.disk.path)) as other:
            row = other.execute("SELECT epoch, session FROM sites WHERE site=?", (site,)).fetchone()
        word, before = (said["epoch"], said["session"]), self._present.get(site)
        if said["online"]:
            if row == word:
                self._present[site] = word
        elif before is not None and row == word and (word[0] != before[0] or word[1] < before[1]):
            self.monitors.append(f"{site}: the will of {word} was believed, and {before} had come online after it")

    def guard(self, do: Callable[[], None]) -> None:
        try:
            do()
        except CrashError:
            self.crash()
            self.world.after(self.world.rng.uniform(0.5, 20.0), self.start)

    def _connect(self, life: int) -> None:
        if not self.lives(life) or self._connection is not None:
            return
        if not self.partitioned:
            connection = Connection(CLIENT, lambda topic: "/up/" in topic, self._heard, lambda: None, None)
            connection.lost = lambda: self._lost(connection)
            if self.broker.connect(connection):
                self._connection = connection
                self._put(LinkChanged(True))
                return
        self.world.after(self.world.rng.uniform(1.0, 5.0), lambda: self._connect(life))

    def _lost(self, connection: Connection) -> None:
        if self._connection is connection and self.running:
            self._connection = None
            self._put(LinkChanged(False))
            life = self.life
            self.world.after(1.0, lambda: self._connect(life))

    def _heard(self, topic: str, payload: bytes, retained: bool) -> None:
        parsed = parse_up(topic)
        if not self.running or parsed is None:
            return
        if parsed[1] == "want":
            if self.delivery is not None:
                self.delivery.want(parsed[0], payload)
        else:
            self._put(Heard(parsed[0], parsed[1], payload, retained))

    def _put(self, item: Item) -> None:
        self._inbox.append(item)
        if not self._woken:
            self._woken = True
            life = self.life
            self.world.after(0.02, lambda: self._work(life))

    def _work(self, life: int) -> None:
        """What the ingest thread does: all that waits, in one transaction; what the database refuses waits on."""
        if not self.lives(life):
            return
        self._woken = False
        items, self._inbox = self._inbox[:MOST], self._inbox[MOST:]
        again_s = 0.02

        def handle() -> None:
            nonlocal again_s
            assert self._ingest is not None
            self._handling = items
            try:
                self._ingest.handle(items)
            except OperationalError:
                self.world.counts["hub refused"] += 1
                self._inbox = [*items, *self._inbox]
                again_s = 1.0
            finally:  # what commits after a crash or a refusal is another transaction: these were not heard
                self._handling = []

        self.guard(handle)
        if self._inbox and self.lives(life):
            self._woken = True
            self.world.after(again_s, lambda: self._work(life))

    def _watch(self, site: str, ack: dict[str, Any]) -> None:
        """The promise of an ack, as another reader of the database sees it: what it names is committed."""
        with contextlib.closing(sqlite3.connect(self.disk.path)) as other:
            query = "SELECT high FROM streams WHERE site=? AND epoch=? AND lane=?"
            row = other.execute(query, (site, ack["epoch"], ack["lane"])).fetchone()
        high = row[0] if row is not None else 0
        if ack["seq"] > high:
            self.monitors.append(
                f"{site}: {ack['epoch']}:{ack['lane']} was acknowledged up to {ack['seq']}, is at {high}"
            )

    def set_fact(self, key: str, value: int | None) -> None:
        """The operator sets or deletes a fact of the fleet."""
        if not self.running or self.fleet_facts is None:
            return
        log = self.fleet_facts

        def change() -> None:
            with contextlib.suppress(OperationalError, UnknownError):
                if value is None:
                    log.delete(key, "operator")
                else:
                    log.put(key, value, None, "operator")

        self.guard(change)

    def _tell_all(self) -> None:
        assert self._store is not None
        with self._store.reading() as db:
            for site in online(db):
                self._tell(site, "facts", self._envelopes.for_site)

    def _tell(self, site: str, what: str, compose: Callable[[Database, str], bytes | None]) -> None:
        self.later(down(site, what), lambda db: compose(db, site))

    def later(
        self, topic: str, compose: Callable[[Database], bytes | None], retain: bool = False, late_s: float = 0.0
    ) -> None:
        """What the speaker's thread does: the document as it is by then."""
        life = self.life

        def say() -> None:
            if not self.lives(life) or self._store is None:
                return
            with self._store.reading() as db:
                document = compose(db)
            if document is not None:
                self.say(topic, document, retain)

        self.world.after(0.05 + late_s, say)

    def say(self, topic: str, payload: bytes, retain: bool = False) -> None:
        """Publish it, where there is a link."""
        if self._connection is not None:
            self.broker.publish(self._connection, topic, payload, retain)

    def _publish(self, topic: str, payload: bytes) -> None:
        if topic.endswith("/ack"):
            self._watch(topic.split("/")[2], json.loads(payload))
        self.boundary("publish")
        if self._connection is not None:
            self.broker.publish(self._connection, topic, self._answers.seal(topic, payload))


def told_by(item: Heard) -> list[tuple[str, str, int]]:
    """Epoch, lane and number of the streams' ends that a message tells of."""
    if item.what == "journal":
        try:
            header, _ = read_header(item.payload)
        except RejectedError:
            return []
        return [(header.epoch, header.lane, header.last)]
    if item.what not in ("hello", "heartbeat"):
        return []
    document = json.loads(item.payload)
    return [(each["epoch"], lane, last) for each in document["epochs"] for lane, last in each["last"].items()]
