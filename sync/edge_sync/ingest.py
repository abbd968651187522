"""The hub's side of journal sync, pure: what one batch means to the stream it belongs to.

The shell (`edge_hub.ingest.thread`) holds the stream's row locked, asks `judge`, stores what it says in the same
transaction, COMMITs, and only then acks. Guarantees: sync/SPEC.md, section Journal sync.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edge_sync.batch import Batch
from edge_sync.rows import Gap, Row


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the hub holds of a stream: everything up to `high`, where the chain's hash is `hash`."""

    high: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Store:
    """Insert these, move the prefix, commit, then ack at its end."""

    rows: tuple[tuple[Row, bytes], ...]
    gaps: tuple[Gap, ...]
    prefix: Prefix


@dataclass(frozen=True, slots=True)
class AckOnly:
    """Nothing new: ack at `high`. After a hole this asks the site to go back to it."""

    high: int


@dataclass(frozen=True, slots=True)
class Fork:
    """The same numbers with other bytes: quarantine the batch, raise an alarm, tell the site."""

    reason: str


Verdict = Store | AckOnly | Fork


def judge(prefix: Prefix, batch: Batch, hash_at: Callable[[int], bytes | None]) -> Verdict:
    """What to do with a verified batch.

    `prefix` is what is held (`high` 0 and the stream's `chain_start` for an unknown one); `hash_at(seq)` is
    the chain's hash the hub holds there, None where it holds none. Where the next row would be inside a gap of
    the batch (the site evicted rows this hub already has), the chain goes on from the gap's end: the site no
    longer knows the hash before it.
    """
    first, last = batch.header.first, batch.header.last
    if first > prefix.high + 1:
        return AckOnly(prefix.high)
    if last <= prefix.high:
        held = prefix.hash if last == prefix.high else hash_at(last)
        if held is not None and held != batch.header.after:
            return Fork(f"batch {first}-{last} differs from what is held")
        return AckOnly(prefix.high)
    before = batch.header.before if first == prefix.high + 1 else _hash_in(batch, prefix.high)
    across = any(gap.first <= prefix.high + 1 <= gap.last for gap in batch.gaps)
    if not across and before != prefix.hash:
        return Fork(f"batch {first}-{last} does not follow what is held up to {prefix.high}")
    return _store(batch, prefix.high)


def _hash_in(batch: Batch, seq: int) -> bytes | None:
    for row, row_hash in zip(batch.rows, batch.hashes, strict=True):
        if row.seq == seq:
            return row_hash
    return next((gap.hash for gap in batch.gaps if gap.last == seq), None)


def _store(batch: Batch, high: int) -> Store:
    rows = tuple((row, h) for row, h in zip(batch.rows, batch.hashes, strict=True) if row.seq > high)
    gaps = tuple(Gap(max(gap.first, high + 1), gap.last, gap.reason, gap.hash) for gap in batch.gaps if gap.last > high)
    return Store(rows, gaps, Prefix(batch.header.last, batch.header.after))
