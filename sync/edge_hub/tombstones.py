"""Records that this hub held and let go: a gap stands in their place, so that the chain can still be followed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, or_, select, update

from edge_hub.schema import gaps, records
from edge_sync.rows import ERASED, EXPIRED

LET_GO: ColumnElement[bool] = or_(gaps.c.reason.startswith(EXPIRED), gaps.c.reason.startswith(ERASED))
"""Whether a gap is of records that were let go, and not lost."""

Key = tuple[str, str, str]
"""Site, epoch, lane."""


@dataclass(frozen=True, slots=True)
class Run:
    """Records of one stream without a hole between them, and the chain's hash at the last."""

    key: Key
    first: int
    last: int
    hash: bytes


def runs(found: Iterable[tuple[Key, int, bytes]]) -> Iterator[Run]:
    """Stream, number and hash of records, in the order of their keys, as runs."""
    run: Run | None = None
    for key, seq, row_hash in found:
        if run is not None and run.key == key and run.last == seq - 1:
            run = Run(key, run.first, seq, row_hash)
            continue
        if run is not None:
            yield run
        run = Run(key, seq, seq, row_hash)
    if run is not None:
        yield run


def bury(db: Connection, found: Sequence[Run], reason: str, now_us: int) -> int:
    """Delete these records and leave gaps in their place, which grow into one where they meet; returns how many."""
    overwrite_deleted(db)
    buried = 0
    for run in found:
        site, epoch, lane = run.key
        mine = (records.c.site == site) & (records.c.epoch == epoch) & (records.c.lane == lane)
        buried += db.execute(delete(records).where(mine & records.c.seq.between(run.first, run.last))).rowcount
        _declare(db, run, reason, now_us)
    return buried


def overwrite_deleted(db: Connection) -> None:
    """What this connection deletes from now on is overwritten in the file, where the database would leave it there."""
    if db.dialect.name == "sqlite":
        db.exec_driver_sql("PRAGMA secure_delete=ON")


def _declare(db: Connection, run: Run, reason: str, now_us: int) -> None:
    site, epoch, lane = run.key
    mine = (gaps.c.site == site) & (gaps.c.epoch == epoch) & (gaps.c.lane == lane) & (gaps.c.reason == reason)
    last, end_hash = run.last, run.hash
    after = db.execute(select(gaps.c.last, gaps.c.hash).where(mine & (gaps.c.first == run.last + 1))).first()
    if after is not None:
        last, end_hash = after.last, after.hash
        db.execute(delete(gaps).where(mine & (gaps.c.first == run.last + 1)))
    before = mine & (gaps.c.last == run.first - 1)
    if not db.execute(update(gaps).where(before).values(last=last, hash=end_hash)).rowcount:
        row = {"site": site, "epoch": epoch, "lane": lane, "first": run.first, "last": last}
        db.execute(gaps.insert().values(**row, reason=reason, hash=end_hash, at_us=now_us))
