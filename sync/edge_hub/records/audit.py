"""Who did what at the hub, in a chain: a row changed or taken out breaks it from there on."""

import hashlib
import json
from typing import Any

from sqlalchemy import Connection, func, select

from edge_hub.database.dialect import lock
from edge_hub.database.schema import audit

LOCK = "audit"
"""Held by whoever adds a row, until its transaction ends."""

_START = hashlib.sha256(b"edge/v1 audit").digest()


def note(db: Connection, now_us: int, who: str, what: str, detail: dict[str, Any]) -> None:
    """Add a row, in the transaction that does what it tells of; no other adds one until that ends."""
    lock(db, LOCK)
    last = db.execute(select(audit.c.id, audit.c.hash).order_by(audit.c.id.desc()).limit(1)).first()
    row_id, before = (last.id + 1, last.hash) if last is not None else (1, _START)
    row_hash = _hash(before, row_id, now_us, who, what, detail)
    db.execute(audit.insert().values(id=row_id, at_us=now_us, who=who, what=what, detail=detail, hash=row_hash))


def verify(db: Connection) -> int | None:
    """The first row that does not follow from the one before it, or None where the chain holds."""
    before, expected = _START, 1
    for row in db.execute(select(audit).order_by(audit.c.id)):
        if row.id != expected or _hash(before, row.id, row.at_us, row.who, row.what, row.detail) != row.hash:
            return int(expected)
        before, expected = row.hash, expected + 1
    return None


def count(db: Connection) -> int:
    """How many rows there are."""
    return int(db.scalar(select(func.count()).select_from(audit)) or 0)


def _hash(before: bytes, row_id: int, at_us: int, who: str, what: str, detail: dict[str, Any]) -> bytes:
    text = json.dumps([row_id, at_us, who, what, detail], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(before + text.encode()).digest()
