"""What is lost of what sites wrote: the gaps they declared, and what follows from their accounts.

An unknown tail are records that a site told of, that never came, and that it holds no more. Where it lost an epoch
that was not over, nobody knows how many more there were. A fork are records that a site holds and the hub can't take,
as it has others under the same numbers.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Select,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    null,
    or_,
    select,
    tuple_,
    union_all,
)

from edge_hub.database.schema import epochs, gaps, streams
from edge_hub.records.tombstones import LET_GO
from edge_models.errors import RejectedError
from edge_sync.rows import ERASED, EXPIRED

KINDS: Mapping[str, str] = {
    "evicted": "evicted",
    "quarantined": "quarantined",
    "damaged": "damaged",
    "dropped": "dropped",
    EXPIRED: "expired",
    ERASED: "erased",
    "unknown tail": "unknown_tail",
    "fork": "fork",
}
"""What a reason begins with → its kind; any other is of the kind `other`."""

OTHER = "other"

Cursor = tuple[str, str, str, int]
"""Site, epoch, lane and first number of a loss."""

_KEY = ("site", "epoch", "lane", "first")

_TAIL = "unknown tail: the site told of these records, they never came, and it holds them no more"
_OPEN = "unknown tail: the site lost this epoch before it was over; nobody knows what it wrote after what it told of"
_FORK = "fork: the hub holds other records under the same numbers"

_end: ColumnElement[int] = case(
    (streams.c.forked | (streams.c.high > streams.c.last), streams.c.high), else_=streams.c.last
)
"""Above it, and up to `told`, everything is lost."""

_is_lost = (streams.c.told > streams.c.high) & (streams.c.forked | (streams.c.told > streams.c.last))

UNKNOWN: ColumnElement[int] = case((_is_lost, streams.c.told - _end), else_=0)
"""Records of a stream that are lost without a gap."""

_mine = (streams.c.site == epochs.c.site) & (streams.c.epoch == epochs.c.epoch)
_went_back = exists().where(_mine & ~streams.c.forked & (streams.c.told > streams.c.last))

OPEN: ColumnElement[bool] = ~epochs.c.final & (~epochs.c.held | _went_back)
"""Whether nobody knows where an epoch ended: there may be more lost of it than `UNKNOWN`."""


def summed(amount: ColumnElement[int]) -> ColumnElement[float]:
    """The sum of it. Not of integers: SQLite refuses a sum above 2^63, and a lying site would keep all from theirs."""
    return func.sum(cast(amount, Float))


def kind_of(reason: str) -> str:
    """The kind of loss that a reason tells of."""
    return next((kind for prefix, kind in KINDS.items() if reason.startswith(prefix)), OTHER)


def page(
    db: Connection, site: str | None, kind: str | None, after: Cursor | None, limit: int
) -> tuple[list[dict[str, Any]], Cursor | None]:
    """Losses of a site, or of all, in the order of their keys; and the cursor that goes on, if any are left.

    What was let go on purpose is no loss, and named only where its kind is asked for. Raises `RejectedError` for a kind
    there is not.
    """
    parts = (part(site, kind, after) for part in (_declared, _derived, _open))
    every = union_all(*parts).subquery()
    rows = db.execute(select(every).order_by(*(every.c[name] for name in _KEY)).limit(limit + 1)).all()
    last = rows[limit - 1] if len(rows) > limit else None
    return [_shown(row) for row in rows[:limit]], last and (last.site, last.epoch, last.lane, last.first)


def _declared(site: str | None, kind: str | None, after: Cursor | None) -> Select[Any]:
    columns = (gaps.c.site, gaps.c.epoch, gaps.c.lane, gaps.c.first, gaps.c.last, gaps.c.reason)
    query = select(*columns, case((gaps.c.at_us > 0, gaps.c.at_us)).label("at_us"))
    if kind == OTHER:
        query = query.where(~or_(*(gaps.c.reason.startswith(prefix) for prefix in KINDS)))
    elif kind is not None:
        query = query.where(gaps.c.reason.startswith(_prefix(kind)))
    else:
        query = query.where(~LET_GO)
    return _from(query, gaps.c.site, tuple_(*columns[:4]), site, after)


def _derived(site: str | None, kind: str | None, after: Cursor | None) -> Select[Any]:
    first = (_end + 1).label("first")
    reason = case((streams.c.forked, literal(_FORK)), else_=literal(_TAIL)).label("reason")
    key = (streams.c.site, streams.c.epoch, streams.c.lane)
    query = select(*key, first, streams.c.told.label("last"), reason, streams.c.lost_us.label("at_us")).where(_is_lost)
    if kind is not None:
        wanted = {"fork": streams.c.forked, "unknown_tail": ~streams.c.forked}.get(kind)
        query = query.where(false() if wanted is None else wanted)
    return _from(query, streams.c.site, tuple_(*key, _end + 1), site, after)


def _open(site: str | None, kind: str | None, after: Cursor | None) -> Select[Any]:
    """Epochs of which nobody knows the end; of no lane, before those that have one."""
    lane, none = literal("").label("lane"), literal(0)
    key = (epochs.c.site, epochs.c.epoch, lane, none.label("first"))
    never = cast(null(), gaps.c.at_us.type).label("at_us")
    query = select(*key, none.label("last"), literal(_OPEN).label("reason"), never)
    query = query.where(OPEN)
    if kind not in (None, "unknown_tail"):
        query = query.where(false())
    return _from(query, epochs.c.site, tuple_(epochs.c.site, epochs.c.epoch, literal(""), literal(0)), site, after)


def _shown(row: Any) -> dict[str, Any]:
    """With its count and kind; a loss without numbers has none."""
    numbers = {"lane": row.lane, "first": row.first, "last": row.last, "count": row.last - row.first + 1}
    head = {"site": row.site, "epoch": row.epoch} | (numbers if row.lane else dict.fromkeys(numbers))
    return head | {"kind": kind_of(row.reason), "reason": row.reason, "at_us": row.at_us}


def _from(query: Select[Any], column: Any, key: Any, site: str | None, after: Cursor | None) -> Select[Any]:
    if site is not None:
        query = query.where(column == site)
    return query if after is None else query.where(key > after)


def _prefix(kind: str) -> str:
    for prefix, name in KINDS.items():
        if name == kind:
            return prefix
    raise RejectedError(f"kind of loss {kind[:40]!r}: there are {', '.join((*KINDS.values(), OTHER))}")
