"""Why a site did something, from the records the hub has of it."""

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from edge_hub.database.schema import is_follower, records
from edge_hub.database.store import UnknownError
from edge_sync.explain import Explanation
from edge_sync.explain import explain as walk
from edge_sync.rows import LANES, record_id

NEAR_ROWS = 10_000
"""How far behind a record of telemetry another can stand that follows from it: both are of one transaction."""

MOST_FOLLOWING = 100
"""Records looked at that follow from one."""

_ID = re.compile(rf"([0-9a-f]{{16}}):({'|'.join(LANES)}):([1-9][0-9]{{0,15}})")


@dataclass(frozen=True, slots=True)
class Held:
    """A record held here, and what walking needs of it."""

    row: Any

    @property
    def id(self) -> str:
        """The public id."""
        return record_id(self.row.epoch, self.row.lane, self.row.seq)

    @property
    def ref(self) -> str | None:
        """What it follows from."""
        ref: str | None = self.row.ref
        return ref


def explain(db: Connection, site: str, public_id: str) -> Explanation[Held]:
    """What this record follows from and what followed from it. Raises `UnknownError` where it is not held."""
    start = _record(db, site, public_id)
    if start is None:
        raise UnknownError(f"no record {public_id} of site {site!r} is held here")
    return walk(start, lambda each: _record(db, site, each), lambda each: _following(db, site, each))


def _record(db: Connection, site: str, public_id: str) -> Held | None:
    parts = _ID.fullmatch(public_id)
    if parts is None:
        return None  # a site may write anything there
    epoch, lane, seq = parts.groups()
    key = (records.c.epoch == epoch) & (records.c.lane == lane) & (records.c.seq == int(seq))
    row = db.execute(select(records).where((records.c.site == site) & key)).first()
    return None if row is None else Held(row)


def _following(db: Connection, site: str, start: Held) -> list[Held]:
    """In the order they came."""
    follows = (records.c.site == site) & (records.c.ref == start.id)
    order = (records.c.received_us, records.c.epoch, records.c.lane, records.c.seq)
    found = list(db.execute(select(records).where(follows & is_follower).order_by(*order).limit(MOST_FOLLOWING)))
    if start.row.lane == "telemetry":
        seq = start.row.seq
        near = (records.c.epoch == start.row.epoch) & (records.c.lane == "telemetry")
        near &= records.c.seq.between(seq + 1, seq + NEAR_ROWS)
        found += db.execute(select(records).where(follows & near).order_by(records.c.seq).limit(MOST_FOLLOWING))
    return [Held(row) for row in found]
