"""A stream at the hub: its key, its rows in any table that is keyed by streams, and the one way a gap is noted."""

from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Connection, Table, bindparam, delete, select, update

from edge_hub.database.schema import gaps
from edge_sync.rows import Gap

Key = tuple[str, str, str]
"""Site, epoch, lane."""

Asked = tuple[BindParameter[str], BindParameter[str], BindParameter[str]]

ASKED: Asked = (bindparam("site"), bindparam("epoch"), bindparam("lane"))
"""In a statement that is made once: the stream that it is run for, given as `asked` says."""


def asked(key: Key) -> dict[str, Any]:
    """The parameters that `ASKED` stands for."""
    return dict(zip(("site", "epoch", "lane"), key, strict=True))


def of_stream(table: Table, key: Key | Asked) -> ColumnElement[bool]:
    """Whether a row of the table is of this stream."""
    return (table.c.site == key[0]) & (table.c.epoch == key[1]) & (table.c.lane == key[2])


def put_gap(db: Connection, key: Key, gap: Gap, now_us: int) -> None:
    """Note a gap, in the caller's transaction; with those of its reason that it touches it becomes one."""
    mine = of_stream(gaps, key) & (gaps.c.reason == gap.reason)
    last, end_hash = gap.last, gap.hash
    behind = mine & (gaps.c.first == gap.last + 1)
    after = db.execute(select(gaps.c.last, gaps.c.hash).where(behind)).first()
    if after is not None:
        last, end_hash = after.last, after.hash
        db.execute(delete(gaps).where(behind))
    before = mine & (gaps.c.last == gap.first - 1)
    if not db.execute(update(gaps).where(before).values(last=last, hash=end_hash)).rowcount:
        site, epoch, lane = key
        row = {"site": site, "epoch": epoch, "lane": lane, "first": gap.first, "last": last}
        db.execute(gaps.insert().values(**row, reason=gap.reason, hash=end_hash, at_us=now_us))
