"""What the hub gives back to a site that lost its memory: its facts, and the newest of its decisions.

The records go as journal messages, made anew from the rows, so that the site checks them as the hub did. Of each epoch
it is the end of what is held, without a hole. Guarantees: sync/SPEC.md, section A site that lost its memory.
"""

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from edge_hub.database.schema import epochs, records, sites, streams
from edge_hub.facts.site_facts import known
from edge_hub.records.chain import held_hash
from edge_hub.records.stream import of_stream
from edge_sync.batch import encode
from edge_sync.documents import KnownFact, Memory, Tail, dump
from edge_sync.facts import MAX_KEYS
from edge_sync.rehydration import MEMORY_TYPE
from edge_sync.rows import Row, chain, chain_start, record_id, row_bytes
from edge_sync.signing import sign

MAX_RECORDS = 200
"""Of the decision lane, the newest."""

MAX_EPOCHS = 50
"""Looked at for them, the newest."""

MAX_FACTS_BYTES = 120 * 1024
MAX_TAILS_BYTES = 100 * 1024
"""Of the document, which is at most 256 KiB. What does not fit is left out: old records, and facts set long ago."""

MAX_RAW_BYTES = 1024 * 1024
"""Of the records before they are packed."""

_LANE = "decision"


class MemoryBack:
    """`ask` on a site's hello; the answer is composed later, on the thread that publishes it."""

    def __init__(self, key: Path, say: Callable[[str], None], now_us: Callable[[], int]) -> None:
        self._key, self._say, self._now_us = key, say, now_us
        self._asked: dict[str, str] = {}

    def ask(self, site: str, sync: str) -> None:
        """The site has no memory, and says so in the session `sync`."""
        self._asked[site] = sync
        self._say(site)

    def compose(self, db: Connection, site: str) -> bytes | None:
        """The signed answer to what the site asked last; None where it was answered."""
        sync = self._asked.pop(site, None)
        return None if sync is None else sign(dump(memory_of(db, site, sync, self._now_us())), MEMORY_TYPE, self._key)


def memory_of(db: Connection, site: str, sync: str, now_us: int) -> Memory:
    """What is known of a site: nothing, where it is new."""
    held, left_out = _facts(db, site, now_us)
    return Memory(site=site, sync=sync, order=_order(db, site), facts=held, left_out=left_out, batches=_tails(db, site))


def _order(db: Connection, site: str) -> int:
    """The highest order of an epoch that the site ever told, in a hello or in its last heartbeat."""
    highest = db.scalar(select(func.max(epochs.c.ord)).where(epochs.c.site == site)) or 0
    heartbeat = db.scalar(select(sites.c.heartbeat).where(sites.c.site == site)) or {}
    return max([int(highest), *(int(state["order"]) for state in heartbeat.get("epochs", ()))])


def _facts(db: Connection, site: str, now_us: int) -> tuple[list[KnownFact], int]:
    """The site's facts, the newest first, and how many more there are than there is room for."""
    held, size = list[KnownFact](), 0
    rows = known(db, site, now_us)
    for row in rows:
        fact = KnownFact(
            key=row.key,
            value=json.loads(row.value),
            expires_at=row.expires_at,
            origin=record_id(row.epoch, row.lane, row.seq),
            order=row.ord,
        )
        size += len(dump(fact)) + 1
        if size > MAX_FACTS_BYTES or len(held) == MAX_KEYS:
            break
        held.append(fact)
    return held, len(rows) - len(held)


def _tails(db: Connection, site: str) -> list[Tail]:
    """The newest records of the newest epochs, oldest epoch first."""
    join = (epochs.c.site == streams.c.site) & (epochs.c.epoch == streams.c.epoch)
    since, order = func.coalesce(epochs.c.since_us, streams.c.since_us), func.coalesce(epochs.c.ord, 0)
    query = (
        select(streams.c.epoch, streams.c.high, order.label("ord"))
        .select_from(streams.outerjoin(epochs, join))
        .where(streams.c.site == site, streams.c.lane == _LANE, streams.c.high > 0)
        .order_by(since.desc(), order.desc())
        .limit(MAX_EPOCHS)
    )
    tails, left, raw, room = list[Tail](), MAX_RECORDS, MAX_RAW_BYTES, MAX_TAILS_BYTES
    for row in db.execute(query).all():
        ends, raws = _end_of(db, site, row.epoch, row.high, left, raw)
        batch = _packed(row.epoch, row.high, ends, raws, room)
        if batch is None:
            continue
        tails.append(Tail(order=row.ord, batch=batch))
        left, raw, room = left - len(raws), raw - sum(map(len, raws)), room - len(batch)
        if left <= 0 or raw <= 0:
            break
    return tails[::-1]


def _end_of(
    db: Connection, site: str, epoch: str, high: int, most: int, most_bytes: int
) -> tuple[list[bytes], list[bytes]]:
    """The stream's last records up to `high`, as they were hashed, without a hole, and the hashes around them.

    There is one hash more than records: the one before the first. A record that is not what was hashed ends them too.
    """
    newest = (
        select(records)
        .where(of_stream(records, (site, epoch, _LANE)), records.c.seq <= high)
        .order_by(records.c.seq.desc())
        .limit(most + 1)
    )
    rows = db.execute(newest).all()
    ends, raws, size = list[bytes](), list[bytes](), 0
    for seq, row in zip(range(high, 0, -1), rows, strict=False):
        if row.seq != seq:
            break
        raw = _raw(row)
        before = _hash_before(db, site, epoch, seq, rows[len(raws) + 1 :])
        size += len(raw)
        if before is None or chain(before, raw) != row.hash or len(raws) == most or size > most_bytes:
            break
        raws.append(raw)
        ends = ends or [row.hash]
        ends.append(before)
    return ends[::-1], raws[::-1]


def _hash_before(db: Connection, site: str, epoch: str, seq: int, older: Sequence[Any]) -> bytes | None:
    if seq == 1:
        return chain_start(epoch, _LANE)
    if older and older[0].seq == seq - 1:
        return bytes(older[0].hash)
    return held_hash(db, (site, epoch, _LANE), seq - 1)


def _packed(epoch: str, high: int, ends: list[bytes], raws: list[bytes], room: int) -> str | None:
    """The journal message in base64, of as many of the last records as there is room for; None where of none."""
    while raws:
        message = encode(epoch, _LANE, raws, [], (high - len(raws) + 1, high), (ends[0], ends[-1]))
        packed = base64.b64encode(message).decode()
        if len(packed) <= room:
            return packed
        drop = -(-len(raws) // 2)
        del raws[:drop], ends[:drop]
    return None


def _raw(row: Any) -> bytes:
    return row_bytes(Row(row.seq, row.at, row.kind, row.agent, row.subject, row.label, row.score, row.ref, row.body))
