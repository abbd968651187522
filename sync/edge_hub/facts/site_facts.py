"""What each site knows, as the hub has it: the newest `fact` record of each key.

Newer is what a later epoch says, and in one epoch what stands later in its lane. An epoch is later where this hub heard
of it later; of those it first heard of together, the site's own order decides. No clock of a site is asked: what comes
late, of an epoch from before (backfill), replaces nothing that a later one said.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, or_, select, update

from edge_hub.database.schema import epochs, facts
from edge_hub.database.store import Store
from edge_hub.records.registry import row_of
from edge_models.errors import RejectedError
from edge_sync.facts import MAX_KEY_CHARS, value_text
from edge_sync.rows import Row, record_id

MAX_SITE_KEYS = 1_000
"""Of one site. A sound one has 500 at a time; what has expired goes first, then what was set the longest ago."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact as a record says it; `value` is JSON text."""

    key: str
    value: str
    expires_at: int | None


def read_fact(row: Row) -> Fact | None:
    """The fact in a record's body; None where it says none. Never raises: a body is what anybody may have sent."""
    if row.kind != "fact":
        return None
    try:
        body = json.loads(row.body)
        key, value, expires_at = body["key"], value_text(body["value"]), body.get("expires_at")
        key.encode()  # half a surrogate pair can be stored nowhere
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, RejectedError):
        return None
    if not isinstance(key, str) or not 1 <= len(key) <= MAX_KEY_CHARS or "\0" in key:
        return None
    if expires_at is not None and (type(expires_at) is not int or not 0 <= expires_at < 2**63):
        return None
    return Fact(key, value, expires_at)


def note(db: Connection, now_us: int, stream: tuple[str, str, str], rows: Iterable[Row]) -> None:
    """Keep the facts among these records of a site's epoch's lane, in the transaction that stores them."""
    said = {fact.key: (fact, row.seq) for row in rows if (fact := read_fact(row)) is not None}
    if not said:
        return
    site, epoch, lane = stream
    mine = facts.c.site == site
    held = {row.key: row for row in db.execute(select(facts).where(mine, facts.c.key.in_(list(said))))}
    since = _since(db, site, {epoch, *(row.epoch for row in held.values())})
    this = since.get(epoch, (now_us, 0))
    for key, (fact, seq) in said.items():
        values = {"value": fact.value, "expires_at": fact.expires_at, "epoch": epoch, "lane": lane, "seq": seq}
        values["since_us"] = this[0]
        before = held.get(key)
        if before is None:
            db.execute(facts.insert().values(site=site, key=key, **values))
        elif (*this, seq) > (*since.get(before.epoch, (before.since_us, 0)), before.seq):
            db.execute(update(facts).where(mine, facts.c.key == key).values(**values))
    if len(said) > len(held):
        _bound(db, site, now_us)


def known(db: Connection, site: str, now_us: int) -> Sequence[Any]:
    """The rows of a site's facts that have not expired, newest first; `ord`: their epoch's order, 0 if not known."""
    alive = or_(facts.c.expires_at.is_(None), facts.c.expires_at > now_us)
    epoch = (epochs.c.site == facts.c.site) & (epochs.c.epoch == facts.c.epoch)
    since, order = func.coalesce(epochs.c.since_us, facts.c.since_us), func.coalesce(epochs.c.ord, 0)
    query = select(facts, order.label("ord")).select_from(facts.outerjoin(epochs, epoch))
    newest = (since.desc(), order.desc(), facts.c.seq.desc(), facts.c.key)
    return db.execute(query.where(facts.c.site == site, alive).order_by(*newest)).all()


class SiteFacts:
    """Answers questions about what sites know."""

    def __init__(self, store: Store, now_us: Callable[[], int]) -> None:
        self._store, self._now_us = store, now_us

    def of(self, site: str) -> list[dict[str, Any]]:
        """What a site knows, by key. Raises `UnknownError`."""
        with self._store.reading() as db:
            row_of(db, site)
            rows = sorted(known(db, site, self._now_us()), key=lambda row: str(row.key))
        return [
            {
                "key": row.key,
                "value": json.loads(row.value),
                "expires_at_us": row.expires_at,
                "origin": record_id(row.epoch, row.lane, row.seq),
            }
            for row in rows
        ]


def _since(db: Connection, site: str, names: Iterable[str]) -> Mapping[str, tuple[int, int]]:
    """Since when the hub knows these epochs, and their order at the site."""
    query = select(epochs.c.epoch, epochs.c.since_us, epochs.c.ord)
    rows = db.execute(query.where(epochs.c.site == site, epochs.c.epoch.in_(list(names))))
    return {row.epoch: (row.since_us, row.ord) for row in rows}


def _bound(db: Connection, site: str, now_us: int) -> None:
    mine = facts.c.site == site
    count = select(func.count()).select_from(facts).where(mine)
    if (db.scalar(count) or 0) <= MAX_SITE_KEYS:
        return
    db.execute(facts.delete().where(mine, facts.c.expires_at <= now_us))
    beyond = [row.key for row in known(db, site, now_us)[MAX_SITE_KEYS:]]
    if beyond:
        db.execute(facts.delete().where(mine, facts.c.key.in_(beyond)))
