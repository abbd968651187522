"""One seed: faults drawn, a fleet run through them, calm, judgement."""

import logging
import random
import shutil
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge_sim.disk import scratch
from edge_sim.faults import Fault, plain, plan, strike, updates
from edge_sim.fleet import HORIZON_S, LOSSLESS, Burst, Fleet, Knowledge, lanes
from edge_sim.oracle import Verdict, Violation, judge
from edge_sim.site import IDLE_S
from edge_sim.update_oracle import unsettled
from edge_sim.world import World

SPAN_S = 700.0
"""How long faults strike, outages not counted."""

ROWS = 500
"""Records a site's agents write in that time, about."""

SETTLE_S = 1_300.0
"""Two heartbeats that name all epochs: by then a hub that was restored knows what it lacks."""

CALM_S = 5_400.0
"""By then everything is delivered."""


NEW_LINK_S = 400.0
"""Time for what a new link brings to be fetched, put on and proven."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed."""

    seed: int
    faults: tuple[Fault, ...]
    verdict: Verdict
    counts: Counter[str]
    days: float
    timeline: tuple[str, ...]
    digest: str

    def without_timeline(self) -> "Outcome":
        """The same, small."""
        return replace(self, timeline=())


def run(seed: int, sites: int = 3, faults: Sequence[Fault] | None = None) -> Outcome:
    """Run it; `faults` instead of those that the seed draws."""
    logging.disable(logging.CRITICAL)
    planned = tuple(plan(seed, sites, SPAN_S) if faults is None else faults)
    folder = scratch()
    try:
        return _run(World(seed), folder, sites, planned)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        logging.disable(logging.NOTSET)


def _run(world: World, folder: Path, sites: int, planned: tuple[Fault, ...]) -> Outcome:
    lossless = plain(world.seed) and {fault.kind for fault in planned} <= {"sign", "push"}
    fleet = Fleet(world, folder, sites, updates(world.seed), LOSSLESS if lossless else None)
    try:
        verdict = _live(fleet, world, sites, planned)
    except Exception:  # noqa: BLE001 - whatever it is, it is production's defect or the simulator's, of this seed
        verdict = Verdict([Violation("no defect", "world", traceback.format_exc(limit=-6))])
    fleet.close()
    return Outcome(
        world.seed,
        planned,
        verdict,
        world.counts,
        world.now / 86_400,
        tuple(str(moment) for moment in world.timeline),
        world.digest(),
    )


def _live(fleet: Fleet, world: World, sites: int, planned: tuple[Fault, ...]) -> Verdict:
    fleet.start()
    world.run_until(5.0)
    actions: list[Fault | Burst | Knowledge] = [*planned, *_bursts(world.seed, sites), *_facts(world.seed, sites)]
    behind = 0.0
    for action in sorted(actions, key=lambda each: each.at_s):
        world.run_until(action.at_s + behind)
        if isinstance(action, Fault):
            strike(fleet, action)
            behind = max(behind, world.now - action.at_s)
        elif isinstance(action, Knowledge):
            fleet.know(action)
        else:
            fleet.write(action)
    world.run_until(world.now + HORIZON_S)
    fleet.calm()
    world.say("world", "calm")
    until = world.now + CALM_S
    while world.now < until and not fleet.quiet:
        world.run_until(world.now + 30.0)
    world.run_until(world.now + SETTLE_S)
    while world.now < until and not fleet.quiet:
        world.run_until(world.now + 30.0)
    world.run_until(world.now + 100.0)
    if any(True for machine in fleet.machines for _ in unsettled(fleet, machine)):
        world.counts["needed a new link"] += 1
        world.say(
            "world", "new links", "; ".join(what for machine in fleet.machines for _, what in unsettled(fleet, machine))
        )
        fleet.reconnect()
        until = world.now + CALM_S
        world.run_until(world.now + NEW_LINK_S)
        while world.now < until and not fleet.quiet:
            world.run_until(world.now + 30.0)
        world.run_until(world.now + 100.0)
    until = world.now + 2 * IDLE_S
    while world.now < until and not fleet.quiet:  # an answer that came just now is noted at a site's next look
        world.run_until(world.now + 1.0)
    return judge(fleet)


def _bursts(seed: int, sites: int) -> list[Burst]:
    """What agents write: mostly a few records, now and then many."""
    rng = random.Random(f"bursts {seed}")
    bursts = []
    for site in range(sites):
        left = ROWS
        while left > 0:
            count = min(left, rng.choice((1, 2, 3, 4, 5, 8, 60)))
            left -= count
            pad = rng.choice((5, 40, 40, 300, 1_500))
            bursts.append(Burst(rng.uniform(6, SPAN_S), site, lanes(rng, count), pad))
    return bursts


def _facts(seed: int, sites: int) -> list[Knowledge]:
    """What becomes known: of the fleet by its operator, of a site by its agents."""
    rng = random.Random(f"facts {seed}")
    known = [
        Knowledge(rng.uniform(6, SPAN_S), None, f"f{rng.randrange(5)}", rng.choice((None, number, number)))
        for number in range(12)
    ]
    for site in range(sites):
        known += [Knowledge(rng.uniform(6, SPAN_S), site, f"s{rng.randrange(4)}", number) for number in range(8)]
    return known


def shrink(outcome: Outcome, sites: int, most: int = 60) -> Outcome:
    """The fewest faults found that still break a promise: each is left out in turn, as long as something breaks."""
    best, tries = outcome, 0
    promises = {violation.promise for violation in outcome.verdict.violations}
    index = 0
    while index < len(best.faults) and tries < most:
        fewer = best.faults[:index] + best.faults[index + 1 :]
        tries += 1
        again = run(outcome.seed, sites, fewer)
        if promises & {violation.promise for violation in again.verdict.violations}:
            best = again
        else:
            index += 1
    return best
