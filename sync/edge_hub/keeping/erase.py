"""Erasing a subject at the hub: its records go, gaps that carry the chain's hash stay, and nothing keeps its name."""

import contextlib
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from backports import zstd
from sqlalchemy import Connection, delete, select

from edge_hub.database.dialect import Database
from edge_hub.database.schema import facts, quarantine, records
from edge_hub.database.store import Store, UnknownError
from edge_hub.keeping import erasures
from edge_hub.keeping.erasures import Erasure, subject_sha256
from edge_hub.records import audit
from edge_hub.records.registry import row_of
from edge_hub.records.stream import Key, of_stream
from edge_hub.records.tombstones import Run, bury, overwrite_deleted, runs
from edge_models.errors import RejectedError
from edge_sync.batch import MAX_RAW_BYTES, read_header
from edge_sync.rows import ERASED, record_id

WAIT_S = 30.0
"""How long readers of the database are waited for, whose log they keep."""


@dataclass(frozen=True, slots=True)
class Erased:
    """How much went. `overwritten`: the database's log was emptied too, so that its bytes are on no page."""

    records: int
    facts: int
    quarantined: int
    overwritten: bool = True


def erase_subject(store: Store, folder: Path, site: str, subject: str, who: str, now_us: int) -> Erased:
    """Erase what this hub holds of the subject, and note that it did so without its name.

    `folder` is the hub's. Raises `UnknownError` where there is no such site, or nothing of the subject.
    """
    sha256 = subject_sha256(site, subject)
    with store.writing() as db:
        row_of(db, site)
        erased = _erase(db, site, subject, None, now_us)
        if erased is None:
            raise UnknownError(f"nothing found: this hub holds no record of that subject of site {site}")
        detail = {"site": site, "subject_sha256": sha256, "records": erased.records, "facts": erased.facts}
        audit.note(db, now_us, who, "subject erased", detail | {"quarantined": erased.quarantined})
        # Before the commit: one that is noted and was not done is done by a restore, which does no harm.
        erasures.note(folder, Erasure(site, sha256, now_us))
    return Erased(erased.records, erased.facts, erased.quarantined, empty_log(store.database))


def erase_again(db: Connection, noted: list[Erasure], now_us: int) -> int:
    """Erase what an older backup brought back of these; returns how many records went."""
    gone = 0
    for each in noted:
        held = db.scalars(
            select(records.c.subject).where(records.c.site == each.site, records.c.subject.is_not(None)).distinct()
        ).all()
        for subject in held:
            if subject_sha256(each.site, subject) == each.sha256:
                erased = _erase(db, each.site, subject, each.at_us, now_us)
                gone += erased.records if erased is not None else 0
    return gone


def empty_log(database: Database) -> bool:
    """Work SQLite's log into the database and cut it to nothing; False where that can't be now, or not be done here."""
    if not isinstance(database, Path):
        return False
    with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=WAIT_S)) as db:
        busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    return False


def _erase(db: Connection, site: str, subject: str, until_us: int | None, now_us: int) -> Erased | None:
    """None where there is nothing of it. With `until_us`, only what was received by then."""
    overwrite_deleted(db)
    found = _runs(db, site, subject, until_us)
    held, unread = _quarantined(db, site, subject)
    if not found and not held:
        return None
    known = 0
    for run in found:
        mine = of_stream(facts, run.key)
        known += db.execute(delete(facts).where(mine & facts.c.seq.between(run.first, run.last))).rowcount
    mine = (quarantine.c.site == site) & quarantine.c.digest.in_(held + unread)
    aside = db.execute(delete(quarantine).where(mine)).rowcount
    return Erased(bury(db, found, ERASED, now_us), known, aside)


def _runs(db: Connection, site: str, subject: str, until_us: int | None) -> list[Run]:
    """The subject's records, and those without a subject that follow from them."""
    columns = (records.c.epoch, records.c.lane, records.c.seq, records.c.hash)
    mine = select(*columns, records.c.ref).where(records.c.site == site)
    its = mine.where(records.c.subject == subject)
    if until_us is not None:
        its = its.where(records.c.received_us <= until_us)
    found = {(row.epoch, row.lane, row.seq): bytes(row.hash) for row in db.execute(its)}
    loose = [] if not found else db.execute(mine.where(records.c.subject.is_(None), records.c.ref.is_not(None))).all()
    ids = {record_id(*key) for key in found}
    while ids:
        following = {(row.epoch, row.lane, row.seq): bytes(row.hash) for row in loose if row.ref in ids}
        ids = {record_id(*key) for key in following.keys() - found.keys()}
        found |= following
    ordered = sorted(found.items())
    return list(runs((_key(site, *where[:2]), where[2], row_hash) for where, row_hash in ordered))


def _key(site: str, epoch: str, lane: str) -> Key:
    return (site, epoch, lane)


def _quarantined(db: Connection, site: str, subject: str) -> tuple[list[str], list[str]]:
    """Digests of the site's messages that hold the subject's name, and of those nobody can read."""
    held, unread = [], []
    for row in db.execute(select(quarantine.c.digest, quarantine.c.payload).where(quarantine.c.site == site)):
        text = _readable(row.payload)
        if text is None:
            unread.append(row.digest)
        elif subject.encode() in text:
            held.append(row.digest)
    return held, unread


def _readable(payload: bytes) -> bytes | None:
    try:
        header, packed = read_header(payload)
        return zstd.ZstdDecompressor().decompress(packed, max_length=min(header.raw_size, MAX_RAW_BYTES))
    except (RejectedError, zstd.ZstdError):
        return None if payload[:3] == b"EJ1" else payload
