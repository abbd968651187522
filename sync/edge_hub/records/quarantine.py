"""Messages that could not be taken, kept whole for whoever finds out why."""

import hashlib

from sqlalchemy import Connection, func, select, update

from edge_hub.database.dialect import lock
from edge_hub.database.schema import quarantine
from edge_hub.records import audit

MAX_PER_SITE = 50
"""A site that is broken for weeks must not fill the hub's disk: the broker takes no message above 1 MiB."""


def put(db: Connection, now_us: int, site: str, payload: bytes, reason: str) -> int:
    """Keep a message; returns how often this very one came (sites send again what is not acknowledged).

    0: it is not kept, there are too many of this site.
    """
    lock(db, audit.LOCK)  # sites that are not registered have no row that would be locked
    digest = hashlib.sha256(payload).hexdigest()
    mine = (quarantine.c.site == site) & (quarantine.c.digest == digest)
    held: int | None = db.scalar(select(quarantine.c.times).where(mine))
    if held is not None:
        db.execute(update(quarantine).where(mine).values(times=held + 1, last_us=now_us))
        return held + 1
    if count(db, site) >= MAX_PER_SITE:
        return 0
    row = {"site": site, "digest": digest, "at_us": now_us, "last_us": now_us, "times": 1}
    db.execute(quarantine.insert().values(**row, reason=reason, payload=payload))
    audit.note(db, now_us, site, "quarantined", {"digest": digest, "reason": reason, "size": len(payload)})
    return 1


def count(db: Connection, site: str) -> int:
    """How many messages of the site are here."""
    held = select(func.count()).select_from(quarantine).where(quarantine.c.site == site)
    return int(db.scalar(held) or 0)
