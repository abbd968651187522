"""What a person should look at, counted: one row for each thing that is wrong, however often it is seen."""

import logging
from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, func, select, update

from edge_hub.database.schema import incidents
from edge_hub.records import audit

log = logging.getLogger(__name__)

What = Literal["fork", "journal_went_back", "two_processes", "checkpoint"]

MAX_PER_SITE = 200
"""A site that is broken for weeks must not fill the hub's disk."""

OTHERS = "*"
"""The key that stands for all beyond `MAX_PER_SITE`."""


def note(db: Connection, now_us: int, site: str, what: What, key: str, detail: Mapping[str, Any]) -> bool:
    """Count an incident in the transaction that saw it; whether it is new. `key` tells it from others of its sort.

    `detail` is kept as it was at first. Beyond `MAX_PER_SITE` of a site they are counted together, without detail.
    """
    if _again(db, now_us, site, what, key):
        return False
    mine = select(func.count()).select_from(incidents).where(incidents.c.site == site)
    if (db.scalar(mine) or 0) >= MAX_PER_SITE:
        key, detail = OTHERS, {}
        if _again(db, now_us, site, what, key):
            return False
    row = {"site": site, "what": what, "key": key, "first_us": now_us, "last_us": now_us, "times": 1}
    db.execute(incidents.insert().values(**row, detail=dict(detail)))
    audit.note(db, now_us, site, f"incident: {what}", {"key": key, **detail})
    log.error("incident", extra={"site": site, "what": what, "key": key, "detail": dict(detail)})
    return True


def listed(db: Connection, site: str | None, most: int) -> list[dict[str, Any]]:
    """A site's incidents, or those of all, the one seen last first."""
    query = select(incidents).order_by(incidents.c.last_us.desc(), *incidents.primary_key).limit(most)
    if site is not None:
        query = query.where(incidents.c.site == site)
    return [
        {str(column.name): value for column, value in zip(incidents.c, row, strict=True)} for row in db.execute(query)
    ]


def count(db: Connection) -> int:
    """How many there are."""
    return int(db.scalar(select(func.count()).select_from(incidents)) or 0)


def _again(db: Connection, now_us: int, site: str, what: str, key: str) -> bool:
    """Count one that is known; whether it was."""
    same = (incidents.c.site == site) & (incidents.c.what == what) & (incidents.c.key == key)
    seen = update(incidents).where(same).values(times=incidents.c.times + 1, last_us=now_us)
    return bool(db.execute(seen).rowcount)
