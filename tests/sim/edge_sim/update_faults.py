"""What happens to releases in a run, and when: signed, pushed, good or bad, withdrawn, held up, attacked."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge_sim.pool import UNSIGNED
from edge_sim.site import SimSite
from edge_sync.topics import FLEET_TRUST

if TYPE_CHECKING:
    from edge_sim.fleet import Fleet

Strike = Callable[["Fleet", SimSite, float], None]

WATCH_S = 0.3
"""How often it is looked whether a site is where it shall die."""


def _sign(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    """The operator signs the next releases, withdraws one, or gives a role another key."""
    if fleet.office is not None:
        fleet.office.sign()


def _push(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    """To all sites or one: mostly what is signed, good or bad, new or old; else what the hub must refuse to push."""
    if fleet.office is None:
        return
    signed = fleet.office.state.releases
    numbers = signed if signed and int(chance * 1_000) % 10 else tuple(range(1, UNSIGNED))
    number = numbers[int(chance * len(numbers))]
    fleet.office.push(number, machine.site if int(chance * 100) % 5 == 0 else None)


def _late_trust(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    """What was signed reaches the sites after what they should run."""
    fleet.hub.trust_late_until = fleet.world.now + 5 + chance * 150


def _lost_trust(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    """The broker forgets what it kept of it."""
    fleet.broker.retained.pop(FLEET_TRUST, None)


def _old_desired(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    if fleet.attacker is not None:
        fleet.attacker.replay_desired(machine.site, chance)


def _cross_desired(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    others = [other.site for other in fleet.machines if other is not machine]
    if fleet.attacker is not None and others:
        fleet.attacker.cross_desired(machine.site, others[int(chance * len(others))])


def _old_trust(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    if fleet.attacker is not None:
        fleet.attacker.replay_trust(chance)


def _forged_chunks(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    if fleet.attacker is not None:
        fleet.attacker.forge_chunks(20 + chance * 200)


def _forged_desired(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    if fleet.attacker is not None:
        fleet.attacker.forge_desired(machine.site, stolen=chance < 0.6)


def _crash_in_update(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    """The process dies, or the power goes, while it fetches, puts a release on, or has one on trial."""
    until = fleet.world.now + 300
    fetching = int(chance * 100) % 3 != 0

    def watch() -> None:
        side = machine.updates
        if side is None or fleet.world.now > until:
            return
        if side.fetches if fetching else side.on_trial:
            machine.fuse, machine.power = 1 + int(chance * (15 if fetching else 30)), int(chance * 1_000) % 2 == 0
        else:
            fleet.world.after(WATCH_S, watch)

    watch()


def _flipped_blob(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    """One bit of an artifact changes on a disk."""
    machine.crash()
    if machine.updates is not None:
        fleet.world.say(machine.name, "disk", machine.updates.flip(fleet.world.rng))
    fleet.restart(machine, 1 + chance * 10)


def _hold(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    """A technician wants nothing new for a while."""
    if machine.updates is not None:
        wishes = machine.updates.wishes
        wishes.hold("audit")
        fleet.world.after(10 + chance * 250, wishes.unhold)


def _back(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    """A technician wants the release before."""
    if machine.updates is not None:
        machine.updates.wishes.go_back("the technician")


def _stick(fleet: "Fleet", machine: SimSite, chance: float) -> None:
    if fleet.office is not None:
        fleet.office.stick(machine, 2 + chance * 120)


UPDATE_KINDS: dict[str, tuple[int, Strike]] = {
    "sign": (6, _sign),
    "push": (12, _push),
    "late trust": (2, _late_trust),
    "lost trust": (2, _lost_trust),
    "old desired": (2, _old_desired),
    "other's desired": (1, _cross_desired),
    "old trust": (1, _old_trust),
    "forged chunks": (3, _forged_chunks),
    "forged desired": (2, _forged_desired),
    "crash in update": (6, _crash_in_update),
    "flipped blob": (1, _flipped_blob),
    "hold": (2, _hold),
    "back": (2, _back),
    "stick": (2, _stick),
}
"""Kind → weight and what it does."""


def draw(rng: random.Random, span_s: float) -> list[tuple[float, str]]:
    """When, and what: the first release is signed and pushed early, the rest is anything."""
    kinds, weights = list(UPDATE_KINDS), [weight for weight, _ in UPDATE_KINDS.values()]
    drawn = [(rng.uniform(6, 30), "sign"), (rng.uniform(20, 80), "push")]
    drawn += [(rng.uniform(30, span_s), rng.choices(kinds, weights)[0]) for _ in range(rng.randint(5, 16))]
    return drawn


def draw_plain(rng: random.Random) -> list[tuple[float, str]]:
    """Nothing goes wrong: what is signed is pushed, one release after the other has settled."""
    drawn = [(6.0, "sign"), (12.0, "push")]
    for at_s in (220.0, 430.0, 640.0):
        drawn += [(at_s - 10, "sign"), (at_s, "push")]
    return drawn
