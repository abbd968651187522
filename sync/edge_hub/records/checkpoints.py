"""Checkpoints as they come in: held against what is held here. One that does not fit is an incident, never a refusal.

Lanes travel apart: what a checkpoint names and is not here yet is looked at when the site is verified (`chain`).
"""

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from edge_hub.database.schema import sites
from edge_hub.records import incidents
from edge_hub.records.chain import held_hash
from edge_hub.records.stream import Key
from edge_models.errors import RejectedError
from edge_sync.checkpoint import Checkpoint, read
from edge_sync.rows import Row, record_id

MAX_A_BATCH = 20
"""Looked at of one batch, the newest, which sign what the others do. A batch may hold 2,000, each worth a millisecond
of a transaction that others wait for; those that are passed over are looked at when the site is verified."""


def check(db: Connection, now_us: int, came: Sequence[tuple[Key, Row]]) -> None:
    """Look at these, whose records were just stored, in the same transaction."""
    for (site, epoch, lane), row in came:
        where = record_id(epoch, lane, row.seq)
        try:
            found = _believed(site, row)
        except RejectedError as error:
            incidents.note(db, now_us, site, "checkpoint", epoch, {"record": where, "reason": str(error)})
            continue
        pinned = _pin(db, site, found.key)
        if pinned != found.key:
            reason = "it is signed with another key than this site's: another disk, or another machine"
            detail = {"record": where, "reason": reason, "pinned": pinned, "key": found.key}
            incidents.note(db, now_us, site, "checkpoint", found.key, detail)
        for ends in found.ends:
            for name, end in ends.streams.items():
                held = held_hash(db, (site, ends.epoch, name), end.seq)
                if held is not None and held.hex() != end.hash:
                    reason = f"records up to {record_id(ends.epoch, name, end.seq)} are not those it names"
                    detail = {"record": where, "reason": reason, "held": held.hex(), "signed": end.hash}
                    incidents.note(db, now_us, site, "checkpoint", f"{ends.epoch}:{name}", detail)


def _believed(site: str, row: Row) -> Checkpoint:
    found = read(row.body)
    if found.site != site:
        raise RejectedError(f"it is of site {found.site}")
    return found


def _pin(db: Connection, site: str, key: str) -> str | None:
    """The site's key. The first that comes is believed: nothing binds it to the machine until sites are enrolled."""
    pinned: str | None = db.scalar(select(sites.c.journal_key).where(sites.c.site == site))
    if pinned is None:
        unknown = (sites.c.site == site) & sites.c.journal_key.is_(None)
        db.execute(update(sites).where(unknown).values(journal_key=key))
        return key
    return pinned
