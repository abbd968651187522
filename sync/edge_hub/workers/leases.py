"""Which ingest worker listens to which site, decided by each worker for itself: pure, `(state, now) -> effects`.

Leases spread work, no more: two workers that listen to one site for a while do no harm, since a transaction locks the
sites it is about and every message may come twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass

RENEW_S = 3.0
"""How often a worker renews what it holds, and looks for what it should hold."""

LAST_S = 15.0
"""A worker that has not renewed for so long is gone, and its sites are anybody's."""


@dataclass(frozen=True, slots=True)
class View:
    """What the database says: registered sites, workers and until when they live, leases and who holds them."""

    sites: frozenset[str]
    workers: Mapping[str, int]
    leases: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Plan:
    """The sites a worker holds until `until_us`, which of them are new, and which leases it takes out of the table."""

    hold: frozenset[str]
    take: frozenset[str]
    drop: frozenset[str]
    until_us: int


def plan(me: str, view: View, now_us: int) -> Plan:
    """A worker's turn: keep what is its own up to its share, give up the rest, take what is free.

    Shares differ by one at most, the workers that come first by name having one more; together they are all sites.
    """
    alive = sorted({worker for worker, until_us in view.workers.items() if until_us > now_us} | {me})
    share, more = divmod(len(view.sites), len(alive))
    share += alive.index(me) < more
    own = {site for site, worker in view.leases.items() if worker == me}
    others = {site for site, worker in view.leases.items() if worker != me and worker in alive}
    keep = frozenset(sorted(own & view.sites)[:share])
    take = frozenset(sorted(view.sites - own - others)[: share - len(keep)])
    drop = (own | (view.leases.keys() - view.sites)) - others - keep
    return Plan(keep | take, take, frozenset(drop), now_us + int(LAST_S * 1e6))
