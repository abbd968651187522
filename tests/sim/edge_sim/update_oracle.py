"""The judge of updates: what each site runs at last, against what its hub wants, what was signed, and what it is worth.

What a process does wrong on its way is seen while it runs (`site_updates`, `site_blobs`); here is what is left of it.
"""

import json
import re
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge_sim.delivery import Sent
from edge_sim.pool import pool
from edge_sim.site import SimSite
from edge_sim.site_blobs import chunks_of
from edge_sync.documents import Reported

if TYPE_CHECKING:
    from edge_sim.fleet import Fleet

AHEAD_US = 6 * 86_400_000_000
"""A clock so far ahead takes the hub's timestamp for expired: nothing new is accepted there."""

BOUND = 1.15
"""What leaves the hub for an update, in what one site needs. Source: docs/design.md section 8."""

EPISODE_S = 200.0
"""In a run where nothing goes wrong, one release has settled before the next is pushed."""

Found = Iterator[tuple[str, str]]
"""Promise, and how it is broken."""


def unsettled(fleet: "Fleet", machine: SimSite) -> Found:
    """What a new link between hub and site may still mend."""
    side = machine.updates
    said = None if side is None else side.reported()
    if side is None or said is None:
        return
    database = sqlite3.connect(fleet.hub.disk.path)
    try:
        query = "SELECT generation, release FROM desired WHERE site=?"
        wanted = database.execute(query, (machine.site,)).fetchone()
        query = "SELECT release, generation, state FROM sites WHERE site=?"
        known = database.execute(query, (machine.site,)).fetchone()
    finally:
        database.close()
    if wanted is not None:
        yield from _runs(fleet, machine, said, *wanted)
    if known != (said.release, said.generation, said.state):
        yield "what runs where", f"the hub believes {known}, the truth is {said}"


def settled_wrongly(fleet: "Fleet", machine: SimSite) -> Found:
    """What nothing may mend any more."""
    side = machine.updates
    if side is None:
        return
    yield from unsettled(fleet, machine)
    if not side.settled:
        yield "updates settle", f"something is still on its way: {side.reported()}"
    for digest, artifact in side.runs.release.artifacts.items():
        if not all(side.right(digest, index) for index in range(len(artifact.chunks))) and not side.hurt:
            yield "what runs is whole", f"{digest} of release {side.runs.release.release}"
    if side.quality != "good":
        yield "a bad release goes", f"release {side.runs.release.release} {side.quality}, and runs"
    if not machine.ledger.faults and not machine.ledger.pressed and not fleet.hub.restored:
        yield from _refusals(fleet, machine, side.refusals)


def bytes_sent(fleet: "Fleet") -> Found:
    """Where nothing was lost: each chunk left the hub once for all sites, or hardly more often.

    Not counted is what went to one site that asked before or after the others, when the hub did not gather their
    wishes: of three sites that is a third, of a thousand nothing.
    """
    episodes: dict[tuple[int, str], list[Sent]] = {}
    for each in fleet.hub.sent:
        episodes.setdefault((int(each.at_s / EPISODE_S), each.digest), []).append(each)
    for (_, digest), sent in sorted(episodes.items()):
        shared = [each.index for each in sent if each.site is None]
        counted = [*shared, *({each.index for each in sent} - set(shared))]
        needed = len(chunks_of(digest))
        if len(counted) > BOUND * needed or len(sent) > 2 * needed:
            yield (
                "one publish reaches all",
                f"{len(sent)} chunks of {digest[:19]} left the hub, one site needs {needed}",
            )


def _runs(fleet: "Fleet", machine: SimSite, said: Reported, generation: int, release: int) -> Found:
    """It runs what the newest document names, or says why not."""
    side = machine.updates
    assert side is not None
    assert fleet.office is not None
    allowed = release in fleet.office.state.releases
    ahead = machine.clock.us() - fleet.hub.clock.us() > AHEAD_US
    if said.generation != generation:
        cause = "expired" if ahead else "is not signed" if not allowed else None
        if cause is None or not (machine.ledger.pressed or any(cause in reason for reason in side.refusals)):
            yield "what is wanted runs", f"generation {generation} (release {release}) is wanted, here is {said}"
    elif said.state == "active":
        if said.release != release:
            yield "what is wanted runs", f"release {release} is wanted and said to be active, here is {said}"
    elif said.state in ("failed", "rolled_back"):
        good = pool().quality(release) == "good"
        reason = said.reason or ""
        told = "at the site" in reason or (not allowed and "not signed" in reason)
        # A trial takes a release for bad that does not stay up; it can't know that its power was cut each time.
        starts = re.match(r"the site started (\d+) times", reason)
        told = told or (starts is not None and int(starts[1]) <= side.ended[release] + 1)
        if good and not told and not side.hurt:
            yield "what is wanted runs", f"release {release} is good, here is {said}"
    else:
        yield "what is wanted runs", f"it never ends: {said}"


def _refusals(fleet: "Fleet", machine: SimSite, refused: set[str]) -> Found:
    """What a site refused is known at the hub."""
    database = sqlite3.connect(fleet.hub.disk.path)
    try:
        query = "SELECT body FROM records WHERE site=? AND label='update_refused'"
        told = {json.loads(body)["reason"] for (body,) in database.execute(query, (machine.site,))}
    finally:
        database.close()
    for reason in sorted(refused - told):
        yield "refusals are told", f"the hub was not told: {reason}"
