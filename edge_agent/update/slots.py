"""Which release runs and which ran before it: two slots in the site's memory, changed in one transaction."""

import json
import sqlite3
from dataclasses import dataclass

from edge_sync.release import Release
from edge_sync.updater import Standing


@dataclass(frozen=True, slots=True)
class Slot:
    """A release this site has run, and the generation that asked for it (0: the site file did)."""

    release: Release
    generation: int


def read_slot(connection: sqlite3.Connection, name: str) -> Slot | None:
    """The slot ``active`` or ``previous``, None while it is empty."""
    row = connection.execute("SELECT generation, document FROM slots WHERE slot=?", (name,)).fetchone()
    return None if row is None else Slot(Release.model_validate(json.loads(row[1])), row[0])


def write_active(connection: sqlite3.Connection, slot: Slot, now_us: int) -> None:
    """Make `slot` the active one; the one that was becomes the previous one. The caller's transaction."""
    connection.execute(
        "INSERT OR REPLACE INTO slots"
        " SELECT 'previous', release, generation, document, at FROM slots WHERE slot='active'"
    )
    connection.execute(
        "INSERT OR REPLACE INTO slots (slot, release, generation, document, at) VALUES ('active', ?, ?, ?, ?)",
        (slot.release.release, slot.generation, slot.release.model_dump_json(), now_us),
    )


def write_refused(connection: sqlite3.Connection, generation: int, reason: str, now_us: int) -> None:
    """Remember a generation that can't run here, so that an older one stays refused after a restart."""
    connection.execute(
        "INSERT OR REPLACE INTO slots (slot, release, generation, document, at) VALUES ('refused', 0, ?, ?, ?)",
        (generation, json.dumps({"reason": reason}), now_us),
    )


@dataclass(frozen=True, slots=True)
class Refused:
    """The newest generation that can't run here, and why."""

    generation: int
    reason: str


def read_refused(connection: sqlite3.Connection) -> Refused | None:
    """What `write_refused` wrote last."""
    row = connection.execute("SELECT generation, document FROM slots WHERE slot='refused'").fetchone()
    return None if row is None else Refused(row[0], json.loads(row[1])["reason"])


def standing(connection: sqlite3.Connection, running: Slot) -> Standing:
    """How the site stands when it runs this slot."""
    floor = int(connection.execute("SELECT coalesce(max(generation), 0) FROM slots").fetchone()[0])
    refused = read_refused(connection)
    if refused is not None and refused.generation > running.generation:
        return Standing(running.release.release, refused.generation, floor, refused.reason)
    return Standing(running.release.release, running.generation, floor)
