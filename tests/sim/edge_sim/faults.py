"""What goes wrong in a run, and when: drawn from its seed before it begins, so that it can be repeated with less."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from edge_sim.fleet import Fleet
from edge_sim.hub import CLIENT
from edge_sim.site import SimSite
from edge_sim.update_faults import UPDATE_KINDS, draw, draw_plain
from edge_sim.world import START_US
from edge_sync.answers import MAGIC
from edge_sync.documents import Ack, Heartbeat, dump, load
from edge_sync.topics import down, up

DAY_S = 86_400.0

OPERATOR_S = 60.0
"""After a hub was restored, until its operator hands it what was signed since."""

UPDATES, PLAIN = 1 / 3, 1 / 8
"""Of all seeds, those whose hub pushes releases; and of these, those in which nothing else happens."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. `site` indexes the fleet's machines; `chance` decides what the kind leaves open."""

    at_s: float
    kind: str
    site: int
    chance: float

    def __str__(self) -> str:
        return f"{self.at_s:9.1f} s  {self.kind} (site {self.site}, {self.chance:.4f})"


def _crash(fleet: Fleet, machine: SimSite, chance: float) -> None:
    machine.fuse, machine.power = 1 + int(chance * 25), int(chance * 1_000) % 2 == 0


def _kill(fleet: Fleet, machine: SimSite, chance: float) -> None:
    machine.crash()
    fleet.restart(machine, chance * 60)


def _partition(fleet: Fleet, machine: SimSite, chance: float) -> None:
    fleet.partition(machine, 5 + chance * 300)


def _lying_disk(fleet: Fleet, machine: SimSite, chance: float) -> None:
    """Commits that were said to be safe are gone after a power cut."""
    machine.lies = True

    def power_cut() -> None:
        machine.lies = False
        machine.crash()
        if machine.images:
            fleet.disk_fault(machine, "lost commits", machine.images[int(chance * len(machine.images))])
        machine.images = []
        fleet.restart(machine, 1 + chance * 10)

    fleet.world.after(5 + chance * 60, power_cut)


def _rollback(fleet: Fleet, machine: SimSite, chance: float) -> None:
    """Somebody brings back an older image of the machine's disk, or of its database alone."""
    whole = machine.updates is None or int(chance * 1_000) % 2 == 0
    image = machine.disk.image(whole)

    def bring_back() -> None:
        machine.crash()
        fleet.disk_fault(machine, "rolled back", image, whole)
        fleet.restart(machine, 1 + chance * 10)

    fleet.world.after(20 + chance * 400, bring_back)


def _replace(fleet: Fleet, machine: SimSite, chance: float) -> None:
    machine.crash()
    fleet.disk_fault(machine, "replaced", {})
    fleet.restart(machine, 1 + chance * 30)


def _flip(fleet: Fleet, machine: SimSite, chance: float) -> None:
    """A bit of the database is another than was written, when the process starts again."""
    machine.crash()
    fleet.flip(machine)
    fleet.restart(machine, 1 + chance * 10)


def _full_disk(fleet: Fleet, machine: SimSite, chance: float) -> None:
    machine.full = True
    fleet.world.after(2 + chance * 60, lambda: setattr(machine, "full", False))


def _clock(fleet: Fleet, machine: SimSite, chance: float) -> None:
    """The clock jumps by years, drifts, or starts in 1970."""
    years = 365.25 * DAY_S * 1e6
    machine.clock.offset_us = (0, round(3 * years), -round(2 * years), -START_US)[int(chance * 4)]


def _twin(fleet: Fleet, machine: SimSite, chance: float) -> None:
    fleet.clone(machine, 20 + chance * 200)


def _hub_crash(fleet: Fleet, machine: SimSite, chance: float) -> None:
    fleet.hub.fuse = 1 + int(chance * 30)


def _hub_kill(fleet: Fleet, machine: SimSite, chance: float) -> None:
    fleet.hub.crash()
    fleet.world.after(0.5 + chance * 90, fleet.hub.start)


def _hub_partition(fleet: Fleet, machine: SimSite, chance: float) -> None:
    fleet.hub.partitioned = True
    fleet.broker.cut(CLIENT)
    fleet.world.after(5 + chance * 200, lambda: setattr(fleet.hub, "partitioned", False))


def _hub_full(fleet: Fleet, machine: SimSite, chance: float) -> None:
    fleet.hub.full = True
    fleet.world.after(2 + chance * 60, lambda: setattr(fleet.hub, "full", False))


def _hub_backup(fleet: Fleet, machine: SimSite, chance: float) -> None:
    fleet.hub.back_up()


def _hub_restore(fleet: Fleet, machine: SimSite, chance: float) -> None:
    if fleet.hub.backups:
        fleet.hub.restore(int(chance * len(fleet.hub.backups)))
        if fleet.office is not None:
            fleet.world.after(OPERATOR_S, fleet.office.hand_over)


def _broker_restart(fleet: Fleet, machine: SimSite, chance: float) -> None:
    fleet.broker.restart(keeps=chance < 0.5, down_s=1 + chance * 40)


def _broker_old_store(fleet: Fleet, machine: SimSite, chance: float) -> None:
    """The broker comes back with the retained messages of a while ago."""
    old = dict(fleet.broker.retained)

    def bring_back() -> None:
        fleet.broker.restart(keeps=True, down_s=2)
        fleet.broker.retained = old

    fleet.world.after(20 + chance * 200, bring_back)


def _outage(fleet: Fleet, machine: SimSite, chance: float) -> None:
    """No site reaches the broker, for hours or for weeks; agents go on."""
    fleet.outage(3_600 * 3 ** (chance * 5))


def _poison(fleet: Fleet, machine: SimSite, chance: float) -> None:
    """A message that is no batch."""
    fleet.poison(machine, fleet.world.rng.randbytes(1 + int(chance * 2_000)))


def _stop(fleet: Fleet, machine: SimSite, chance: float) -> None:
    machine.stop()
    fleet.restart(machine, chance * 60)


def _forged_answer(fleet: Fleet, machine: SimSite, chance: float) -> None:
    """Whoever owns the broker says that the hub has it all, or holds other rows. What to say is in the heartbeat."""
    beat = fleet.broker.retained.get(up(machine.site, "heartbeat"))
    if beat is None:
        return
    topic, forged = down(machine.site, "ack"), MAGIC + fleet.world.rng.randbytes(64)
    for epoch in load(Heartbeat, beat).epochs:
        for lane, last in epoch.last.items():
            ack = Ack(epoch=epoch.epoch, lane=lane, seq=last, fork=chance < 0.5)
            fleet.broker.forge(topic, forged + dump(ack))
    fleet.world.say("attacker", "ATTACK", "answers that the hub did not give")


KINDS: dict[str, tuple[int, Callable[[Fleet, SimSite, float], None]]] = {
    "crash": (8, _crash),
    "kill": (4, _kill),
    "stop": (2, _stop),
    "partition": (6, _partition),
    "outage": (4, _outage),
    "lying disk": (2, _lying_disk),
    "rollback": (2, _rollback),
    "replaced disk": (2, _replace),
    "flipped bit": (2, _flip),
    "full disk": (3, _full_disk),
    "clock": (3, _clock),
    "twin": (1, _twin),
    "poison": (1, _poison),
    "hub crash": (5, _hub_crash),
    "hub kill": (3, _hub_kill),
    "hub full": (2, _hub_full),
    "hub partition": (2, _hub_partition),
    "hub backup": (5, _hub_backup),
    "hub restore": (3, _hub_restore),
    "broker restart": (3, _broker_restart),
    "broker old store": (1, _broker_old_store),
}
"""Kind → weight and what it does."""


FORGED = "forged answer"
"""Of every fourth seed, some; drawn apart, so that what else happens to a seed stays as it is."""


def updates(seed: int) -> bool:
    """Whether this seed's hub pushes releases."""
    return random.Random(f"updates {seed}").random() < UPDATES


def plain(seed: int) -> bool:
    """Whether nothing goes wrong in this seed: then an update must cost no more than it has to."""
    return updates(seed) and random.Random(f"plain {seed}").random() < PLAIN


def plan(seed: int, sites: int, span_s: float) -> list[Fault]:
    """The faults of a seed, in order of time."""
    rng = random.Random(f"faults {seed}")
    kinds, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
    faults = [
        Fault(rng.uniform(5, span_s), rng.choices(kinds, weights)[0], rng.randrange(sites), rng.random())
        for _ in range(rng.randint(4, 26))
    ]
    if updates(seed):
        more = draw_plain(rng) if plain(seed) else draw(rng, span_s)
        faults = [] if plain(seed) else faults
        faults += [Fault(at_s, kind, rng.randrange(sites), rng.random()) for at_s, kind in more]
    forging = random.Random(f"forged {seed}")
    if forging.random() < 1 / 4 and not plain(seed):
        faults += [
            Fault(forging.uniform(20, span_s), FORGED, forging.randrange(sites), forging.random())
            for _ in range(forging.randint(1, 5))
        ]
    return sorted(faults, key=lambda fault: fault.at_s)


def strike(fleet: Fleet, fault: Fault) -> None:
    """Let it happen now."""
    machine = fleet.machines[fault.site]
    fleet.world.counts[f"fault: {fault.kind}"] += 1
    fleet.world.say(machine.name, "FAULT", f"{fault.kind} ({fault.chance:.4f})")
    (KINDS | UPDATE_KINDS | {FORGED: (0, _forged_answer)})[fault.kind][1](fleet, machine, fault.chance)
