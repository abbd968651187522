"""Checkpoints as they come in: held against what is held here. One that does not fit is an incident, never a refusal.

Lanes travel apart: what a checkpoint names and is not here yet is looked at when the site is verified (`chain`).
"""

from collections.abc import Sequence

from sqlalchemy import Connection, select, update

from edge_hub.database.schema import epochs, records, sites
from edge_hub.records import incidents
from edge_hub.records.chain import held_hash
from edge_hub.records.stream import Key, of_stream
from edge_models.errors import RejectedError
from edge_sync.checkpoint import AGENT, KIND, LABEL, Checkpoint, read
from edge_sync.rows import Row, record_id

MAX_A_BATCH = 20
"""Looked at of one batch, the newest, which sign what the others do. A batch may hold 2,000, each worth a millisecond
of a transaction that others wait for; those that are passed over are looked at when the site is verified."""


_IS_CHECKPOINT = (records.c.label == LABEL) & (records.c.kind == KIND) & (records.c.agent == AGENT)

LOOK_BACK = 5
"""Epochs before this one in which a checkpoint is looked for: each begins with one, unless it was cut off at once."""


def check(db: Connection, now_us: int, came: Sequence[tuple[Key, Row]]) -> None:
    """Look at these, whose records were just stored, in the same transaction."""
    for (site, epoch, lane), row in came:
        where = record_id(epoch, lane, row.seq)
        try:
            found = _believed(site, row)
        except RejectedError as error:
            incidents.note(db, now_us, site, "checkpoint", epoch, {"record": where, "reason": str(error)})
            continue
        pinned = _pin(db, site, epoch, found.key)
        if pinned not in (None, found.key) and not _signed_before(db, (site, epoch, lane), row.seq, found.key):
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


def _pin(db: Connection, site: str, epoch: str, key: str) -> str | None:
    """The site's key. The first that comes is believed: nothing binds it to the machine until sites are enrolled.

    None where there is none, and this epoch is not the site's newest: a backup brings what an older key signed.
    """
    pinned: str | None = db.scalar(select(sites.c.journal_key).where(sites.c.site == site))
    if pinned is None:
        order = (epochs.c.ord.desc(), epochs.c.since_us.desc())
        newest = db.scalar(select(epochs.c.epoch).where(epochs.c.site == site).order_by(*order).limit(1))
        if newest not in (None, epoch):
            return None
        unknown = (sites.c.site == site) & sites.c.journal_key.is_(None)
        db.execute(update(sites).where(unknown).values(journal_key=key))
        return key
    return pinned


def _signed_before(db: Connection, stream: Key, seq: int, key: str) -> bool:
    """Whether this key signed what is held of this epoch before this number, or else of the last one before it.

    A site with a new disk has a new key, and its backup may bring what the hub never had of the time before.
    """
    site, epoch, lane = stream
    mine = epochs.c.site == site
    order = select(epochs.c.ord).where(mine, epochs.c.epoch == epoch).scalar_subquery()
    older = select(epochs.c.epoch).where(mine, epochs.c.ord > 0, epochs.c.ord < order)
    before = db.scalars(older.order_by(epochs.c.ord.desc()).limit(LOOK_BACK)).all()
    for name, end in ((epoch, seq), *((name, None) for name in before)):
        signed = select(records.c.body).where(of_stream(records, (site, name, lane)), _IS_CHECKPOINT)
        if end is not None:
            signed = signed.where(records.c.seq < end)
        body = db.scalar(signed.order_by(records.c.seq).limit(1))
        if body is not None:
            return _key_of(body) == key
    return False


def _key_of(body: str) -> str | None:
    try:
        return read(body).key
    except RejectedError:
        return None
