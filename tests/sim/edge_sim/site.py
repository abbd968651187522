"""A site's machine in the simulator: production's journal, retention and sync session, and an agent that writes."""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge_agent.fleet_facts import FleetFactsService
from edge_agent.memory.checkpoint import KEY_FILE, Checkpointer
from edge_agent.memory.damage import Mark, read_mark, take_mark_off, write_mark
from edge_agent.memory.draft import Draft, to_body
from edge_agent.memory.facts import Facts
from edge_agent.memory.integrity import AFTER_S
from edge_agent.memory.journal import Journal, JournalDamagedError, JournalUnavailableError
from edge_agent.memory.rescue import rescue
from edge_agent.memory.retention import HIGH_WATER, LOW_WATER, tend
from edge_agent.memory.schema import open_reader, open_writer
from edge_agent.memory.verify import damage
from edge_agent.records import Json
from edge_agent.refusals import Refusals
from edge_agent.rehydrate import apply
from edge_agent.sync_session import SiteSync
from edge_agent.tools.base import Call, SetFact
from edge_models.errors import RejectedError
from edge_sim.broker import Broker, Connection
from edge_sim.disk import Disk, Image
from edge_sim.ledger import Ledger
from edge_sim.site_updates import SiteSide
from edge_sim.world import Clock, World
from edge_sync.answers import opened
from edge_sync.documents import Hello, dump
from edge_sync.rehydration import MEMORY_TYPE, Rehydration, Returned
from edge_sync.rows import Lane
from edge_sync.signing import verify
from edge_sync.topics import down, up

BUDGET_MB = 1
"""Small, so that an outage of a day spends it."""

PULSE_S, IDLE_S, ALONE_S = 0.5, 15.0, 600.0
"""How often the process looks around while something is on its way, while the link is idle, and without a link."""

PRESSED = 0.6
"""Of the budget: a site that never held more has no reason to evict."""

IMAGES = 6
"""Commits that a lying disk may hold back."""


class CrashError(BaseException):
    """The process is gone at this instruction."""


class SimJournal(Journal):
    """The journal, with its host asked at every boundary of a transaction."""

    def __init__(self, host: "SimSite") -> None:
        self._host = host
        super().__init__(host.disk.path, BUDGET_MB, host.clock.us, draw=host.world.draw, flushes=False)

    @contextlib.contextmanager
    def _transaction(self, pages: int, patient: bool = True) -> Iterator[None]:
        self._host.boundary("begin")
        with super()._transaction(pages, patient):
            if self._host.full:
                raise sqlite3.OperationalError("database or disk is full")
            yield
            self._host.boundary("commit")
        self._host.committed()
        self._host.boundary("committed")

    def waits(self) -> bool:
        """Whether anything was handed over for later."""
        return bool(self._queue)


class SimSite:
    """One machine. `name` tells twins apart; `site` is the id both of them say."""

    def __init__(
        self, world: World, broker: Broker, site: str, name: str, folder: Path, ledger: Ledger, director_key: str
    ) -> None:
        self.world, self.broker, self.site, self.name = world, broker, site, name
        self.director_key = director_key
        self.disk = Disk(folder, "memory.db")
        self.clock = Clock(world, rate=1 + world.rng.uniform(-1e-5, 1e-5))
        self.ledger = ledger
        self.running = False
        self.full = False
        self.cut_until = 0.0
        """Until when nothing passes between it and the broker."""
        self._soon = -1
        """The life whose process will write what was handed over within `PULSE_S`."""
        self.fuse: int | None = None
        """Boundaries until the process dies."""
        self.images: list[Image] = []
        self.lies = False
        """The disk says that commits are safe when they are not."""
        self.retired = False
        self.dying = False
        """The process is gone, and what Python still does on the way out never happened."""
        self.power = False
        """Its end will be a power cut: what was not synced is gone with it."""
        self.updates: SiteSide | None = None
        """None: this fleet's hub pushes no releases."""
        self.life = 0
        self._tended = (-1, 0)
        """The life and its commits when its journal was last looked through: nothing goes where nothing was written."""
        self._watched = (-1, 0)
        """The life and the version of the memory that was last looked at."""
        self._journal: SimJournal | None = None
        self._reader: sqlite3.Connection | None = None
        self._sync: SiteSync | None = None
        self._facts: Facts | None = None
        self._fleet_facts: FleetFactsService | None = None
        self._checkpoints: Checkpointer | None = None
        self._connection: Connection | None = None
        self._mended: dict[str, Json] | None = None
        self._keep_at = 0.0
        self._cursors: dict[str, int] = {}
        self._resumed = False
        self._evicted: dict[str, int] = {}
        self._newest = 0
        self.over_budget = 0
        self.monitors: list[str] = []
        """What the process itself was seen to do wrong."""
        self.process_epoch = ""

    # The process

    def start(self) -> None:
        """Start the process; it crashes where the fuse ends. Without a memory it asks the hub for it first."""
        if self.running or self.retired:
            return
        self.life += 1
        self.running = True
        self.dying = self.power = False
        self._mended = self._mend() if self._hurt else None
        if self.disk.path.exists():
            self._begin()
        else:
            Asking(self, self.life).start()

    def _begin(self) -> None:
        self.guard(self._open)
        if self.running:
            life = self.life
            if self._hurt:
                self.world.after(AFTER_S, lambda: self._check(life))
            self.world.after(0.01, lambda: self._pulse(life))
            self.world.after(self.world.rng.uniform(0.05, 1.0), lambda: self._connect(life))

    def remember(self, life: int, back: Returned | None) -> None:
        """The question is over: start with what came back, or without."""
        if not self.running or life != self.life:
            return
        if back is not None and apply(self.disk.path, back, BUDGET_MB, self.clock.us(), self.world.draw) is not None:
            self.world.say(self.name, "rehydrated", f"{len(back.memory.facts)} facts, {len(back.batches)} tails")
            self.world.counts["rehydrated"] += 1
        elif not self.disk.path.exists():
            for name, content in template().items():
                (self.disk.folder / name).write_bytes(content)
        self._begin()

    @property
    def _hurt(self) -> bool:
        """Whether the disk was: only then is it worth the time to look at it as production always does."""
        return "flipped bit" in self.ledger.faults

    def _mend(self) -> dict[str, Json] | None:
        """What production does before it opens a memory."""
        mended = rescue(self.disk.path, BUDGET_MB, self.clock.us)
        if mended is not None:
            self.world.counts["memory mended"] += 1
            self.world.say(self.name, "mended", f"{mended['rows']} rows, lost at most {mended['lost_at_most']}")
        return mended

    def _check(self, life: int) -> None:
        """What production's child does after an unclean stop."""
        if self.lives(life) and self._reader is not None:
            found = damage(self._reader)
            if found:
                self._on_damage(found[0].what)

    def lives(self, life: int) -> bool:
        """Whether it is still that process."""
        return self.running and life == self.life

    def _open(self) -> None:
        try:
            journal = self._journal = SimJournal(self)
        except JournalDamagedError as error:
            if not self._hurt:
                raise
            write_mark(self.disk.path, Mark(str(error)))
            self._restart()
            return
        journal.on_damage = self._on_damage
        if self._mended is not None:
            event = Draft("alarm", "event", "site", self.clock.us(), to_body(self._mended), label="journal_damaged")
            journal.write([event])
            take_mark_off(self.disk.path)
        self._reader = open_reader(self.disk.path)
        self._sync = SiteSync(journal, self._reader, self.publish, self.clock.us, self.world.draw, {})
        self._sync.on_damage = self._on_damage
        self.process_epoch = journal.epoch
        self._cursors, self._evicted, self._newest = {}, {}, 0
        self._watch_evictions()
        self._newest = 0
        self._facts = Facts(journal, self.clock.us)
        facts = self._facts
        self._sync.facts_version = lambda: facts.fleet_version
        refusals = Refusals(journal, self.clock.us, lambda: self.world.now, "facts_refused")
        self._fleet_facts = FleetFactsService(lambda: (self.director_key,), facts, refusals)
        self._checkpoints = Checkpointer(journal, self.site, self._key(), self.clock.us)
        self._sync.introduce(self.world.now)
        if self.updates is not None:
            self.updates.open(journal, self._reader)
        self.world.say(self.name, "started", f"epoch {journal.epoch} order {journal.order}")

    def _key(self) -> Path:
        """The journal's key, as production makes it, but of the world's own chance."""
        path = self.disk.folder / KEY_FILE
        if not path.exists():
            key = Ed25519PrivateKey.from_private_bytes(self.world.rng.randbytes(32))
            path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return path

    def _on_damage(self, problem: str) -> None:
        if not self._hurt:
            self.monitors.append(f"the journal can't be read, and nothing hurt it: {problem}")
        elif read_mark(self.disk.path) is None:
            self.world.say(self.name, "damaged", problem)
            write_mark(self.disk.path, Mark(problem))
            self.world.after(0.0, self._restart)

    def _restart(self) -> None:
        self.crash()
        self.world.after(0.5, self.start)

    def crash(self) -> Image:
        """The process dies here; returns what its disk holds."""
        if self.updates is not None and self.power:
            self.updates.power_cut()
        image = self.disk.image()
        if not self.running:
            return image
        self.running = False
        self.fuse = None
        self.world.say(self.name, "crashed")
        self._close_files()
        if self._connection is not None:
            self.broker.vanish(self.site) if self._connection.alive else None
            self._connection = None
        self.disk.restore(image)
        return image

    def stop(self) -> None:
        """SIGTERM: what waits is written, the goodbye is said."""
        if not self.running or self._journal is None:
            return

        def end() -> None:
            assert self._journal is not None
            assert self._sync is not None
            if self._connection is not None:
                self.publish("presence", self._sync.presence(False), retain=True)
                self.broker.goodbye(self._connection)
                self._connection = None
            with contextlib.suppress(JournalUnavailableError):
                assert self._checkpoints is not None
                if self.updates is not None:
                    self.updates.close()
                self._checkpoints.note(self.world.now)
                self._journal.flush()
            self._close_files()
            self.running = False
            self.world.say(self.name, "stopped")

        self.guard(end)

    def _close_files(self) -> None:
        if self._reader is not None:
            self._reader.close()
        if self._journal is not None:
            self._journal._connection.close()
        self._journal = self._reader = self._sync = None
        self._facts = self._fleet_facts = self._checkpoints = None
        if self.updates is not None:
            self.updates.close_files()

    def boundary(self, _what: str) -> None:
        """An effect begins or has just happened: the place where a process may die."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse <= 0:
                self.world.counts["crash at a boundary"] += 1
                self.dying = True
                raise CrashError

    def committed(self) -> None:
        """A transaction is on disk, as far as the disk says."""
        if self.lies:
            self.images = [*self.images[-IMAGES:], self.disk.image()]
        used = self.disk.used_bytes()
        if used > BUDGET_MB * 1024 * 1024 * PRESSED:
            self.ledger.pressed = True
        if used > BUDGET_MB * 1024 * 1024:
            self.over_budget = max(self.over_budget, used)

    def guard(self, do: Callable[[], None]) -> None:
        try:
            do()
        except CrashError:
            self.crash()
            self.world.after(self.world.rng.uniform(0.5, 20.0), self.start)
        except JournalUnavailableError:
            self.world.counts["journal unavailable"] += 1
            if self._sync is None:  # it could not even start
                self.crash()
                self.world.after(10.0, self.start)

    def _pulse(self, life: int, again: bool = True) -> None:
        if not self.lives(life) or self._journal is None:
            return
        again_s = PULSE_S

        def look() -> None:
            nonlocal again_s
            assert self._journal is not None
            assert self._sync is not None
            written = (self.life, self._journal.commits)
            if self.world.now >= self._keep_at and written != self._tended:
                self._keep_at, self._tended = self.world.now + 1.0, written
                above = HIGH_WATER
                while self._journal.maintain(lambda db, above=above: tend(db, above)):  # type: ignore[misc]
                    above = LOW_WATER
            if self._checkpoints is not None:
                self._checkpoints.tick(self.world.now)
            if self._journal.waits():
                self._journal.flush()
            self._watch()
            self._sync.turn(self.world.now)
            if not self._journal.waits() and not (self._sync.online and self._sync.backlog()):
                again_s = IDLE_S if self._sync.online else ALONE_S

        self.guard(look)
        if self.updates is not None and self.lives(life):
            self.updates.turn()
            again_s = min(again_s, self.updates.again_s())
        if again:
            self.world.after(again_s, lambda: self._pulse(life))

    def commit_soon(self) -> None:
        """What was handed over is written within `PULSE_S`, as production's own thread does sooner."""
        if self._soon == (life := self.life):
            return
        self._soon = life

        def pulse() -> None:
            if self._soon == life:
                self._soon = -1
            self._pulse(life, again=False)

        self.world.after(PULSE_S, pulse)

    def _watch(self) -> None:
        """The promises that another reader of the memory sees kept or broken, where something was written."""
        assert self._reader is not None
        version = self._reader.execute("PRAGMA data_version").fetchone()[0]
        if self._resumed or self._watched != (self.life, version):
            self._watched = (self.life, version)
            self._watch_cursors()
            self._watch_evictions()

    def _watch_cursors(self) -> None:
        """The promise of cursors: only a resume moves one back."""
        assert self._reader is not None
        now = dict(self._reader.execute("SELECT epoch || ':' || lane, acked FROM cursors"))
        for stream, seq in now.items():
            if seq < self._cursors.get(stream, 0) and not self._resumed:
                self.monitors.append(f"{stream}: the cursor went back to {seq}, and the hub did not say so")
        self._cursors, self._resumed = now, False

    def _watch_evictions(self) -> None:
        """The promise of lanes: a decision goes only where no telemetry is left, an alarm where no decision is."""
        assert self._reader is not None
        evicted = dict(
            self._reader.execute(
                "SELECT lane, sum(last - first + 1) FROM gaps WHERE reason LIKE 'evicted%' GROUP BY lane"
            )
        )
        for above, below in (("alarm", "decision"), ("decision", "telemetry")):
            if evicted.get(above, 0) > self._evicted.get(above, 0):
                query = (
                    "SELECT count(*) FROM journal j LEFT JOIN cursors c ON c.epoch=j.epoch AND c.lane=j.lane"
                    " WHERE j.lane=? AND j.id<=? AND j.seq>coalesce(c.acked, 0)"
                )
                left = self._reader.execute(query, (below, self._newest)).fetchone()[0]
                if left:
                    self.monitors.append(f"{above} was evicted, though {left} older rows of {below} were there to go")
        self._evicted = evicted
        self._newest = self._reader.execute("SELECT coalesce(max(id), 0) FROM journal").fetchone()[0]

    # The agent

    def write(self, lanes: list[Lane], pad: int, first_number: int) -> None:
        """Write these records in one transaction, each with a number of its own in its body."""
        if not self.running or self._journal is None:
            return
        drafts, entries = [], []
        for number, lane in enumerate(lanes, first_number):
            body = json.dumps({"n": number, "pad": "x" * pad}, separators=(",", ":"))
            kind = {"alarm": "event", "decision": "decision", "telemetry": "observation"}[lane]
            drafts.append(Draft(lane, kind, "agent", self.clock.us(), body, label=f"n{number}"))  # type: ignore[arg-type]
            entries.append(self.ledger.open(number, lane, f"n{number}", body))

        def put() -> None:
            assert self._journal is not None
            try:
                self._journal.write(drafts)
            except JournalUnavailableError:
                for entry in entries:
                    entry.state = "refused"
                raise
            for draft, entry in zip(drafts, entries, strict=True):
                assert draft.id is not None
                epoch, lane, seq = draft.id.split(":")
                entry.key, entry.state = (epoch, lane, int(seq)), "durable"

        self.guard(put)
        self.commit_soon()

    def know(self, key: str, value: int) -> None:
        """The agent sets a fact."""
        if not self.running or self._facts is None:
            return
        facts = self._facts
        call = Call("0" * 16 + ":decision:1", "agent", None, 2**62)

        def put() -> None:
            self.ledger.facts_tried.setdefault(key, set()).add(value)
            facts.set(SetFact(key, value), call)
            self.ledger.facts[key] = value

        self.guard(put)

    def fleet_facts(self) -> dict[str, object]:
        """What of the fleet's facts the process knows, whatever its clock says of their age."""
        return {} if self._facts is None else {k: f.value for k, f in self._facts._fleet.facts.items()}

    def own_facts(self) -> dict[str, object]:
        """What of its own facts the process knows."""
        return {} if self._facts is None else {key: value for key, (value, _) in self._facts._known.items()}

    # The link

    def heal(self) -> None:
        """The network is back, unless something else keeps it away."""
        if not self.partitioned:
            life = self.life
            self.world.after(self.world.rng.uniform(0.5, 20.0), lambda: self._connect(life))

    @property
    def online(self) -> bool:
        """Whether it has a link, as far as it knows."""
        return self._connection is not None

    @property
    def partitioned(self) -> bool:
        """Whether nothing passes now."""
        return self.world.now < self.cut_until

    def _connect(self, life: int) -> None:
        if not self.lives(life) or self._connection is not None or self._sync is None:
            return
        if not self.partitioned:
            will = (up(self.site, "presence"), self._sync.connecting())
            mine = down(self.site, "")
            updates, chunks = self.updates, down(self.site, "chunk/")

            def wants(topic: str) -> bool:
                if topic.startswith(mine) and not topic.startswith(chunks):
                    return True
                return updates is not None and updates.wants(topic)

            connection = Connection(self.site, wants, self._heard, lambda: None, will)
            connection.lost = lambda: self._lost(connection)
            if self.broker.connect(connection):
                self._connection = connection
                self.world.say(self.name, "connected")
                sync = self._sync
                self.guard(lambda: sync.up(self.world.now))
                if self.updates is not None and self.lives(life):
                    self.updates.greet()
                self.world.after(0.1, lambda: self._pulse(life, again=False))
            else:
                self.world.after(self.world.rng.uniform(1.0, 30.0), lambda: self._connect(life))

    def _lost(self, connection: Connection) -> None:
        if self._connection is not connection or not self.running:
            return
        self._connection = None
        assert self._sync is not None
        self._sync.down()
        self.world.say(self.name, "link down")
        life = self.life
        self.world.after(self.world.rng.uniform(1.0, 5.0), lambda: self._connect(life))

    def _heard(self, topic: str, payload: bytes, _retained: bool) -> None:
        if not self.running or self._sync is None:
            return
        what = topic.rsplit("/", 1)[1]
        if self.updates is not None:
            self.updates.heard(topic, payload)
        if what == "facts" and self._fleet_facts is not None:
            service = self._fleet_facts
            self.guard(lambda: service.take(payload))
        if what in ("ack", "resume"):
            sync = self._sync
            try:
                document = opened(topic, payload, (self.director_key,))
            except RejectedError:
                self.world.counts["answer refused"] += 1
                return
            self._resumed = self._resumed or what == "resume"
            self.guard(lambda: sync.heard(what, document, self.world.now))
            if self.running:
                self.guard(lambda: sync.turn(self.world.now))

    def publish(self, what: str, payload: bytes, retain: bool = False) -> bool:
        self.boundary("publish")
        if self._connection is None:
            return False
        self.broker.publish(self._connection, up(self.site, what), payload, retain)
        self.boundary("published")
        return True

    def backlog(self) -> int:
        """Records not acknowledged, as the process knows them."""
        return -1 if self._sync is None else self._sync.backlog()

    @property
    def waits(self) -> bool:
        """Whether its process has something to write that nobody waited for."""
        return self._journal is not None and self._journal.waits()

    @property
    def quiet(self) -> bool:
        """Whether all it has is acknowledged."""
        if self._journal is None or self._sync is None:
            return False
        settled = self.updates is None or self.updates.settled
        return settled and self._sync.online and not self._sync.backlog() and not self._journal.waits()


class Asking:
    """A process without a memory asks its hub, before its first epoch begins."""

    def __init__(self, host: SimSite, life: int) -> None:
        self._host, self._life = host, life
        world = host.world
        pinned = host.director_key
        self._question = Rehydration(
            host.site, world.draw(), lambda envelope: verify(envelope, MEMORY_TYPE, pinned), world.now
        )
        self._connection: Connection | None = None

    def start(self) -> None:
        """Connect, and look every half second."""
        host = self._host
        if not host.partitioned:
            mine = down(host.site, "memory")
            connection = Connection(host.site, lambda topic: topic == mine, self._heard, lambda: None, None)
            if host.broker.connect(connection):
                self._connection = connection
                self._say(self._question.up(host.world.now))
        self._look()

    def _look(self) -> None:
        if not self._host.lives(self._life):
            return
        self._say(self._question.tick(self._host.world.now))
        outcome = self._question.outcome
        if outcome is None:
            self._host.world.after(0.5, self._look)
            return
        if self._connection is not None:
            self._host.broker.goodbye(self._connection)
        self._host.remember(self._life, outcome if isinstance(outcome, Returned) else None)

    def _heard(self, _topic: str, payload: bytes, _retained: bool) -> None:
        self._question.heard(payload)

    def _say(self, hello: Hello | None) -> None:
        if hello is not None and self._connection is not None:
            self._host.broker.publish(self._connection, up(self._host.site, "hello"), dump(hello))


_template: Image = {}


def template() -> Image:
    """A memory as production makes it, without its first epoch; made once, since migrations take their time."""
    if not _template:
        from edge_sim.disk import scratch

        disk = Disk(scratch() / "template", "memory.db")
        open_writer(disk.path, BUDGET_MB).close()
        _template.update(disk.image())
        disk.remove()
    return dict(_template)
