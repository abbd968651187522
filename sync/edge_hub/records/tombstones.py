"""Records that this hub held and let go: a gap stands in their place, so that the chain can still be followed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, delete, or_

from edge_hub.database.schema import gaps, records
from edge_hub.records.stream import Key, of_stream, put_gap
from edge_sync.rows import ERASED, EXPIRED, Gap

LET_GO: ColumnElement[bool] = or_(gaps.c.reason.startswith(EXPIRED), gaps.c.reason.startswith(ERASED))
"""Whether a gap is of records that were let go, and not lost."""


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
        mine = of_stream(records, run.key)
        buried += db.execute(delete(records).where(mine & records.c.seq.between(run.first, run.last))).rowcount
        put_gap(db, run.key, Gap(run.first, run.last, reason, run.hash), now_us)
    return buried


def overwrite_deleted(db: Connection) -> None:
    """What this connection deletes from now on is overwritten in the file, where the database would leave it there."""
    if db.dialect.name == "sqlite":
        db.exec_driver_sql("PRAGMA secure_delete=ON")
