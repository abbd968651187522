"""A site that lost its memory gets back what its hub holds of it, before its first epoch begins.

One whose memory is behind gets what is newer (`memory.catch_up`). Asked before, because the new epoch's order must be
above all that the hub knows, and because agents must not decide without the facts they had. `edge_sync.rehydration`
says what to ask and what to believe; this is its link and its file.
"""

import json
import logging
import os
import queue
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from edge_agent.config import Site
from edge_agent.enrol.identity import CERTIFICATE
from edge_agent.memory.catch_up import catch_up
from edge_agent.memory.damage import sync_folder
from edge_agent.memory.entries import entry, insert
from edge_agent.memory.restored import read_mark, take_mark_off, write_mark
from edge_agent.memory.schema import open_writer
from edge_agent.records import Json
from edge_models.errors import KitError
from edge_sync.batch import Batch
from edge_sync.documents import KnownFact, Memory, dump
from edge_sync.mqtt import Down, Event, Link, Up
from edge_sync.rehydration import MEMORY_TYPE, Rehydration, Returned
from edge_sync.signing import verify
from edge_sync.topics import FLEET_TRUST, down, up
from edge_sync.trust.client import Trusted

log = logging.getLogger(__name__)

_TICK_S = 0.05


class StoppedError(KitError):
    """The site was told to stop before it had a memory: a start without one would never ask the hub again."""


def rehydrate(
    site: Site,
    trusted: Trusted | None,
    now_us: Callable[[], int],
    stopping: Callable[[], bool] = lambda: False,
) -> dict[str, Json] | None:
    """Give a site that has a hub and no memory what the hub holds of it; returns what came back, for its journal.

    `trusted` says whose word counts; a site that has a hub has one. One whose memory is behind gets what is newer.
    None where nothing did: the site has a memory, is new, or can't reach its hub in time. Never longer than
    `edge_sync.rehydration.REHYDRATE_S`. Raises `ConfigError` where the site file's `hub` can't be used, `StoppedError`
    soon after `stopping` says so.
    """
    path, hub = site.data / "memory.db", site.config.hub
    behind = read_mark(path) if path.exists() else None
    if hub is None or trusted is None or (path.exists() and behind is None):
        return None
    back = _ask(site, trusted, stopping, behind is not None)
    try:
        if back is None:
            if behind is None:  # what the hub holds comes with the first start that it answers
                write_mark(path, 1)
            return None
        if behind is not None:
            return catch_up(path, back.memory, behind, site.config.disk.journal_mb, now_us())
        take_mark_off(path)
        return apply(path, back, site.config.disk.journal_mb, now_us())
    except Exception:  # without, as where the hub is away: whatever it said must not keep a site from working
        log.exception("rehydration_failed")
        return None


def apply(
    path: Path,
    back: Returned,
    budget_mb: int,
    now_us: int,
    draw: Callable[[], str] = lambda: secrets.token_hex(8),
) -> dict[str, Json] | None:
    """Make the memory at `path` of what came back: whole or not at all. None, and no file, where it is nothing.

    `draw` gives an epoch's id.
    """
    memory, batches = back.memory, back.batches
    if not (memory.order or memory.facts or batches):
        return None
    new = path.with_name(f"{path.name}.new")
    _remove(new)
    connection = open_writer(new, budget_mb)
    try:
        connection.execute("BEGIN IMMEDIATE")
        _put_epochs(connection, memory, batches)
        if memory.order > _highest(connection):  # an epoch of no records, so that the next one's order is above it
            connection.execute(
                "INSERT INTO epochs (epoch, ord, started_at) VALUES (?, ?, ?)", (draw(), memory.order, now_us)
            )
        _put_facts(connection, memory.facts)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except BaseException:
        connection.close()
        _remove(new)
        raise
    connection.close()
    _remove(path)  # a log that outlived its file would be worked into this one
    os.replace(new, path)
    sync_folder(path.parent)
    return {
        "facts": len(memory.facts),
        "facts_left_out": memory.left_out,
        "records": sum(len(batch.rows) for batch in batches),
        "epochs": len(batches),
        "order": memory.order,
    }


def _ask(site: Site, trusted: Trusted, stopping: Callable[[], bool], has_memory: bool) -> Returned | None:
    """What the hub answers; None where it does not in time."""
    without = "started_behind_its_hub" if has_memory else "started_without_memory"
    if site.config.hub is not None and site.config.hub.enrol is not None and not (site.identity / CERTIFICATE).exists():
        log.warning(without, extra={"reason": "this site has no certificate yet"})
        return None
    name = site.config.site
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    began = time.monotonic()
    question = Rehydration(name, secrets.token_hex(8), partial(_verified, trusted), began, has_memory)
    link = Link(site.broker(), events.put, [(FLEET_TRUST, 1), (down(name, "memory"), 1)])
    link.start()
    try:
        while question.outcome is None:
            if stopping():
                raise StoppedError("stopped before the hub had said what it holds of this site's memory")
            now, hello = time.monotonic(), None
            try:
                event = events.get(timeout=_TICK_S)
            except queue.Empty:
                hello = question.tick(now)
            else:
                if isinstance(event, Up):
                    hello = question.up(now)
                elif isinstance(event, Down):
                    question.down(event.reason)
                elif event.topic == FLEET_TRUST:
                    _take_trust(trusted, event.payload)
                else:
                    question.heard(event.payload)
            if hello is not None:
                link.publish(up(name, "hello"), dump(hello))
    finally:
        # In a thread of its own: where a broker does not even refuse, it ends only with the connection's timeout.
        threading.Thread(target=link.close, name="rehydrate", daemon=True).start()
    took_s = round(time.monotonic() - began, 3)
    if isinstance(question.outcome, Returned):
        log.info("memory_asked_for", extra={"order": question.outcome.memory.order, "took_s": took_s})
        return question.outcome
    log.warning(without, extra={"reason": question.outcome.reason, "took_s": took_s})
    return None


def _verified(trusted: Trusted, envelope: bytes) -> bytes:
    return verify(envelope, MEMORY_TYPE, trusted.directors)


def _take_trust(trusted: Trusted, message: bytes) -> None:
    """Whose word counts, for a disk that never knew. What is refused here, the update thread says when it runs."""
    try:
        trusted.take(message)
    except KitError as error:
        log.warning("trust_refused", extra={"reason": str(error)})


def _put_epochs(connection: sqlite3.Connection, memory: Memory, batches: Sequence[Batch]) -> None:
    """The epochs with their records, as if all that is not here had been dropped after the hub acknowledged it."""
    limit, orders = max(memory.order, len(batches)), list[int]()
    for number in range(len(batches), 0, -1):  # newest first; two of one order were on a disk that was rolled back
        orders.append(max(number, min(memory.batches[number - 1].order, limit)))
        limit = orders[-1] - 1
    for batch, order in zip(batches, reversed(orders), strict=True):
        header = batch.header
        stream = (header.epoch, header.lane)
        connection.execute(
            "INSERT INTO epochs (epoch, ord, started_at, decision) VALUES (?, ?, ?, ?)",
            (header.epoch, order, batch.rows[0].at, header.last),
        )
        trimmed = (header.first - 1, header.before) if header.first > 1 else (0, None)
        connection.execute(
            "INSERT INTO cursors (epoch, lane, acked, trimmed, trimmed_hash) VALUES (?, ?, ?, ?, ?)",
            (*stream, header.last, *trimmed),
        )
        insert(connection, (entry(*stream, *held) for held in zip(batch.rows, batch.hashes, strict=True)))


def _highest(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(ord), 0) FROM epochs").fetchone()[0])


def _put_facts(connection: sqlite3.Connection, facts: Sequence[KnownFact]) -> None:
    connection.executemany(
        "INSERT INTO facts (scope, key, value, version, origin, expires_at) VALUES ('site', ?, ?, 1, ?, ?)",
        [(f.key, json.dumps(f.value, separators=(",", ":")), f.origin, f.expires_at) for f in facts],
    )


def _remove(path: Path) -> None:
    """What there is of a database, as an attempt that was cut short leaves it."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
