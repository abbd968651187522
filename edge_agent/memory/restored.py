"""A memory that came out of a backup is an older one: what must not follow from that, and how it is told.

Its numbers are never used again, since a restore begins an epoch of its own, whose first record says up to where the
epoch before is here: what that wrote later is at the hub, or lost. Acts that were open then are settled as unknown, as
they may have been done since. Facts that the hub has from later come with the first start that it answers (`catch_up`).
Guarantees: edge_agent/MEMORY.md, Backup and restore.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_agent.memory.copy import Copied, describe
from edge_agent.memory.damage import sync_folder
from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.memory.queries import OpenIntent, open_intents
from edge_agent.memory.schema import reading
from edge_agent.records import Json
from edge_models.durable import replace
from edge_sync.uplink import Stream

LABEL = "restored"
"""Of the first record, in lane decision, of the epoch that a restore begins."""

MARK = "memory.behind"
"""Beside a memory that lacks what the site knew before: the hub has not said yet what it has of that."""

_MOST = 100
"""Acts that are settled in one transaction."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a restore wrote: its epoch and that epoch's order, and how many acts are unknown."""

    epoch: str
    order: int
    unknown: int


def settle(path: Path, budget_mb: int, backup: Mapping[str, Json], now_us: Callable[[], int]) -> Settled:
    """Begin an epoch in the memory at `path`, which nobody else has open, and settle in it what the backup left open.

    `backup` is told in its first record. Raises as `Journal`.
    """
    with reading(path) as connection:
        was, left = describe(connection), open_intents(connection)
    journal = Journal(path, budget_mb, now_us, flushes=False)
    try:
        journal.write([_record(was, backup, len(left), now_us())])
        reason = "restored from a backup: whether it was done after that is not known here"
        body = to_body({"status": "unknown", "reason": reason})
        for at in range(0, len(left), _MOST):
            journal.write([_unknown(each, body, now_us()) for each in left[at : at + _MOST]])
        return Settled(journal.epoch, journal.order, len(left))
    finally:
        journal.close()


def ends(connection: sqlite3.Connection) -> dict[Stream, int]:
    """The streams that end here with a backup, not with their process, and their last number in it."""
    found: dict[Stream, int] = {}
    for (body,) in connection.execute(
        "SELECT j.body FROM epochs e JOIN journal j ON j.epoch=e.epoch AND j.lane='decision' AND j.seq=1"
        " WHERE j.kind='event' AND j.agent=? AND j.label=?",
        (JOURNAL_AGENT, LABEL),
    ):
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            said = json.loads(body)
            found |= {(said["epoch"], lane): int(last) for lane, last in said["ends"].items()}
    return found


def write_mark(path: Path, order: int) -> None:
    """Note that the memory at `path` is behind: newer than what the hub has are its epochs from this order on.

    Raises `OSError`.
    """
    replace(path.with_name(MARK), json.dumps({"order": order}).encode(), 0o600)


def read_mark(path: Path) -> int | None:
    """The order that `write_mark` noted; None where the memory is not behind."""
    try:
        return int(json.loads(path.with_name(MARK).read_bytes())["order"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return 0  # all of its epochs count as newer: what is known here stays


def take_mark_off(path: Path) -> None:
    """The hub has answered, or there is nothing to ask for."""
    path.with_name(MARK).unlink(missing_ok=True)
    sync_folder(path.parent)


def _record(was: Copied, backup: Mapping[str, Json], unknown: int, at_us: int) -> Draft:
    lasts: dict[str, Json] = {str(lane): last for lane, last in was.ends.items()}
    body = to_body({**backup, "epoch": was.epoch, "ends": lasts, "unknown": unknown})
    return Draft("decision", "event", JOURNAL_AGENT, at_us, body, label=LABEL)


def _unknown(act: OpenIntent, body: str, at_us: int) -> Draft:
    return Draft("decision", "action", act.agent, at_us, body, act.subject, act.tool, ref=act.decision, settles=True)
