"""The fleet of one run: a broker, a hub and the sites' machines, with what their agents write."""

import random
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from edge_sim.broker import Broker, Vices
from edge_sim.disk import Disk, Image
from edge_sim.hub import CLIENT, SimHub
from edge_sim.ledger import Key, Ledger
from edge_sim.office import Attacker, Office
from edge_sim.site import SimSite
from edge_sim.site_updates import SiteSide
from edge_sim.world import World
from edge_sync.rows import LANES, Lane
from edge_sync.signing import public_key
from edge_sync.topics import up

HORIZON_S = 900.0
"""Longer than anything a fault sets going by itself."""


LOSSLESS = Vices(0.0, 0.0, 0.05)
"""Nothing is lost and little late."""


@dataclass(frozen=True, slots=True)
class Burst:
    """An agent writes so many records at once, of this size."""

    at_s: float
    site: int
    lanes: tuple[Lane, ...]
    pad: int


@dataclass(frozen=True, slots=True)
class Knowledge:
    """Somebody sets a fact: an agent at a site, or the operator for the fleet (`site` None). No value: deleted."""

    at_s: float
    site: int | None
    key: str
    value: int | None


class Fleet:
    """Everything a seed decides about the machines is drawn here; faults are struck from outside."""

    def __init__(
        self, world: World, folder: Path, sites: int, updates: bool = False, vices: Vices | None = None
    ) -> None:
        """With `updates` the hub pushes releases; `vices`: instead of those that are drawn."""
        self.world, self._folder = world, folder
        rng = world.rng
        drawn = Vices(
            drop=rng.choice((0.0, 0.01, 0.05, 0.15)),
            double=rng.choice((0.0, 0.02, 0.1)),
            late_s=rng.choice((0.05, 0.3, 2.0)),
        )
        self.lossless = vices == LOSSLESS
        self.vices = vices or drawn
        self.broker = Broker(world, self.vices)
        self.hub = SimHub(world, self.broker, folder / "hub", updates)
        self.ledgers = {f"site-{n}": Ledger(f"site-{n}") for n in range(1, sites + 1)}
        self.machines = [
            SimSite(world, self.broker, site, site, folder / site, ledger, public_key(self.hub.key))
            for site, ledger in self.ledgers.items()
        ]
        self.twins: list[SimSite] = []
        self._numbers = 0
        self.office = Office(self) if updates else None
        self.attacker = Attacker(self) if updates else None
        if updates:
            for machine in self.machines:
                machine.updates = SiteSide(machine)

    def start(self) -> None:
        """The hub first, then the sites."""
        self.hub.start()
        self.hub.register(list(self.ledgers))
        for machine in self.machines:
            self.world.after(self.world.rng.uniform(0, 3), machine.start)

    def write(self, burst: Burst) -> None:
        """An agent writes; its twin, if there is one, sees the same and writes too."""
        for machine in (self.machines[burst.site], *self.twins):
            if machine.site == self.machines[burst.site].site:
                machine.write(list(burst.lanes), burst.pad, self._numbers)
                self._numbers += len(burst.lanes)

    def know(self, fact: Knowledge) -> None:
        """Set the fact."""
        if fact.site is None:
            self.hub.set_fact(fact.key, fact.value)
        elif fact.value is not None:
            self.machines[fact.site].know(fact.key, fact.value)

    def poison(self, machine: SimSite, noise: bytes) -> None:
        """Nonsense in the site's name."""
        machine.ledger.poisoned = True
        self.broker.forge(up(machine.site, "journal"), noise)

    def restart(self, machine: SimSite, after_s: float) -> None:
        """Start the machine's process again in a while."""
        self.world.after(after_s, machine.start)

    def partition(self, machine: SimSite, for_s: float) -> None:
        """The machine's network is gone for a while."""
        machine.cut_until = max(machine.cut_until, self.world.now + for_s)
        self.broker.cut(machine.site)
        self.world.at(machine.cut_until, machine.heal)

    def outage(self, for_s: float) -> None:
        """No machine reaches the broker, for so long; agents go on, sometimes with more than the disk has room for."""
        rng = self.world.rng
        until = self.world.now + for_s
        for machine in self.machines:
            machine.cut_until = max(machine.cut_until, until)
            self.broker.cut(machine.site)
        heavy = rng.random() < 0.6
        moments = sorted(rng.uniform(self.world.now, until) for _ in range(rng.randint(3, 12) * (3 if heavy else 1)))
        for at_s in moments:
            self.world.run_until(at_s)
            pad, most = rng.choice(((3_000, 20), (20_000, 4))) if heavy else rng.choice(((10, 60), (200, 60)))
            self.write(Burst(at_s, rng.randrange(len(self.machines)), lanes(rng, rng.randint(1, most)), pad))
        self.world.run_until(until)
        for machine in self.machines:
            machine.heal()

    def disk_fault(self, machine: SimSite, what: str, image: Image, whole: bool = True) -> None:
        """The disk of a machine that does not run holds this now; note what nobody can know any more.

        Not `whole`: its folders stay as they are.
        """
        machine.disk.restore(image, whole)
        if machine.updates is not None:
            machine.updates.forget()
        machine.ledger.faults.add(what)
        self.world.say(machine.name, "disk", what)
        self._note_lost(machine.site)

    def flip(self, machine: SimSite) -> None:
        """One bit of a disk changes, of a machine that does not run."""
        machine.ledger.faults.add("flipped bit")
        if machine.updates is not None:
            machine.updates.forget()
        self.world.say(machine.name, "disk", f"flipped: {machine.disk.flip(self.world.rng)}")
        for entry in machine.ledger.durable():  # a log with a wrong bit ends before it, and nobody can tell
            entry.gone_from_disk = True

    def clone(self, machine: SimSite, for_s: float) -> None:
        """A second machine with a copy of the disk and the same id, for a while; then it is scrapped."""
        name = f"{machine.name}-twin{len(self.twins)}"
        twin = SimSite(
            self.world, self.broker, machine.site, name, self._folder / name, machine.ledger, machine.director_key
        )
        twin.disk.restore(machine.disk.image())
        if machine.updates is not None:
            twin.updates = SiteSide(twin)
            twin.updates.forget()
        machine.ledger.faults.add("twin")
        self.twins.append(twin)
        twin.start()

        def scrap() -> None:
            twin.crash()
            twin.retired = True
            self.twins.remove(twin)
            self._note_lost(machine.site)

        self.world.after(for_s, scrap)

    def calm(self) -> None:
        """Faults stop: everything that can run, runs."""
        self.broker.calm = True
        self.hub.full = self.hub.partitioned = False
        self.hub.start()
        for machine in self.machines:
            machine.full = machine.lies = False
            machine.fuse = None
            machine.cut_until = 0.0
            machine.heal()
            machine.start()
            if machine.updates is not None:
                machine.updates.wishes.unhold()
        if self.office is not None and self.attacker is not None:
            self.hub.trust_late_until = 0.0
            self.attacker.forget()
            self.office.hand_over()

    def reconnect(self) -> None:
        """Every link ends and begins anew."""
        for client in (CLIENT, *self.ledgers):
            self.broker.cut(client)
        for machine in self.machines:
            machine.heal()

    def close(self) -> None:
        """Close every file."""
        self.hub.crash()
        for machine in (*self.machines, *self.twins):
            machine.crash()

    @property
    def quiet(self) -> bool:
        """Whether there is nothing left to deliver."""
        return self.hub.quiet and all(machine.running and machine.quiet for machine in self.machines)

    def _note_lost(self, site: str) -> None:
        """Records that no disk of this site holds any more."""
        held: set[Key] = set()
        for machine in (*self.machines, *self.twins):
            if machine.site == site:
                held |= keys_on(machine.disk)
        ledger = self.ledgers[site]
        for entry in ledger.durable():
            if entry.key not in held:
                entry.gone_from_disk = True


def lanes(rng: random.Random, count: int) -> tuple[Lane, ...]:
    """Lanes of so many records, as agents write them: few alarms, much telemetry."""
    return tuple(rng.choices(LANES, (1, 5, 14), k=count))


def keys_on(disk: Disk) -> set[Key]:
    """What a disk's database holds, read from a copy: the machine may be running."""
    if not disk.path.exists():
        return set()
    copy = Disk(disk.folder.parent / f"{disk.folder.name}.look", disk.path.name)
    copy.restore(disk.image(whole=False))
    connection = sqlite3.connect(copy.path)
    try:
        return set(connection.execute("SELECT epoch, lane, seq FROM journal"))
    except sqlite3.DatabaseError:
        return set()
    finally:
        connection.close()
        copy.wipe()
