"""Which release runs and which ran before it: two slots in the site's memory, and how far the active one is proven.

A release becomes active unconfirmed, on trial (`trial`): then it is confirmed, or the site goes back to the previous
one and refuses it. Every function that writes does so in the caller's transaction.
"""

import json
import sqlite3
from dataclasses import dataclass
from typing import Literal

from edge_agent.update.trial import TrialRow
from edge_sync.release import Release
from edge_sync.updater import Standing


@dataclass(frozen=True, slots=True)
class Slot:
    """A release this site has run, and the generation that asked for it (0: the site file did)."""

    release: Release
    generation: int


@dataclass(frozen=True, slots=True)
class OnTrial:
    """The active release is not confirmed yet. `boots`: how often the process started since it is active."""

    boots: int
    row: TrialRow


def read_slot(connection: sqlite3.Connection, name: str) -> Slot | None:
    """The slot ``active`` or ``previous``, None while it is empty."""
    row = connection.execute("SELECT generation, document FROM slots WHERE slot=?", (name,)).fetchone()
    return None if row is None else Slot(Release.model_validate(json.loads(row[1])), row[0])


def write_active(connection: sqlite3.Connection, slot: Slot, now_us: int, running: Slot | None = None) -> None:
    """Make `slot` the active one, unconfirmed, and what was proven before it the previous one.

    One that was on trial itself never takes the place of a previous one: two bad releases in a row must not push the
    good one out. `running` is what runs now; it counts as proven where it is not the active one (the site file named
    it, or the active one could not run). The active release again, under a newer generation, goes on as it stands:
    confirmed, or with what its trial had left.
    """
    was = _release(connection, "active")
    if running is not None and running.release != was:
        if running.release != _release(connection, "previous"):
            _put(connection, "previous", running, now_us, confirmed=True)
    elif was != slot.release:
        connection.execute(
            "INSERT OR REPLACE INTO slots (slot, release, generation, document, at, confirmed)"
            " SELECT 'previous', release, generation, document, at, 1 FROM slots WHERE slot='active'"
            " AND (confirmed=1 OR NOT EXISTS (SELECT 1 FROM slots WHERE slot='previous'))"
        )
    if was == slot.release:
        connection.execute("UPDATE slots SET generation=?, at=? WHERE slot='active'", (slot.generation, now_us))
    else:
        _put(connection, "active", slot, now_us, confirmed=False)


def read_trial(connection: sqlite3.Connection) -> OnTrial | None:
    """The trial of the active release, None where it is confirmed or there is none."""
    row = connection.execute(
        "SELECT boots, trial_left_s, trial_seen FROM slots WHERE slot='active' AND confirmed=0"
    ).fetchone()
    return None if row is None else OnTrial(row[0], TrialRow(row[1], row[2]))


def keep_trial(connection: sqlite3.Connection, row: TrialRow) -> None:
    """Remember how far the trial is; nothing happens where the active release is confirmed."""
    connection.execute(
        "UPDATE slots SET trial_left_s=?, trial_seen=? WHERE slot='active' AND confirmed=0", (row.left_s, row.seen)
    )


def note_boot(connection: sqlite3.Connection) -> None:
    """Count a start of the process where the active release is on trial.

    Durable before anything of that release is loaded, or one that takes the process down is never counted.
    """
    connection.execute("UPDATE slots SET boots=boots+1 WHERE slot='active' AND confirmed=0")


def confirm(connection: sqlite3.Connection) -> None:
    """The active release has proven itself."""
    connection.execute("UPDATE slots SET confirmed=1, trial_left_s=NULL, trial_seen=NULL WHERE slot='active'")


def fallback(connection: sqlite3.Connection) -> Slot | None:
    """What `go_back` makes active: the previous release, None where there is none or it is the active one again."""
    previous = read_slot(connection, "previous")
    return None if previous is None or previous.release == _release(connection, "active") else previous


def go_back(connection: sqlite3.Connection, reason: str, now_us: int) -> None:
    """Make the previous release the active one, confirmed, and refuse the generation that was active.

    Nothing is previous then. Raises `ValueError` where there is no `fallback`.
    """
    previous = fallback(connection)
    active = connection.execute("SELECT generation FROM slots WHERE slot='active'").fetchone()
    if previous is None or active is None:
        raise ValueError("there is no previous release to go back to")
    write_refused(connection, active[0], reason, now_us, rolled_back=True)
    connection.execute("DELETE FROM slots WHERE slot='previous'")
    _put(connection, "active", previous, now_us, confirmed=True)


def write_refused(
    connection: sqlite3.Connection, generation: int, reason: str, now_us: int, rolled_back: bool = False
) -> None:
    """Remember a generation that can't run here, so that an older one stays refused after a restart.

    Of several the newest is remembered: it refuses those before it too.
    """
    connection.execute(
        "INSERT INTO slots (slot, release, generation, document, at) VALUES ('refused', 0, ?, ?, ?)"
        " ON CONFLICT (slot) DO UPDATE SET generation=excluded.generation, document=excluded.document, at=excluded.at"
        " WHERE excluded.generation>=slots.generation",
        (generation, json.dumps({"reason": reason, "rolled_back": rolled_back}), now_us),
    )


@dataclass(frozen=True, slots=True)
class Refused:
    """The newest generation that can't run here, and why."""

    generation: int
    reason: str
    rolled_back: bool = False
    """Whether it ran for a while."""


def read_refused(connection: sqlite3.Connection) -> Refused | None:
    """What `write_refused` wrote last."""
    row = connection.execute("SELECT generation, document FROM slots WHERE slot='refused'").fetchone()
    if row is None:
        return None
    said = json.loads(row[1])
    return Refused(row[0], said["reason"], bool(said.get("rolled_back")))


def standing(connection: sqlite3.Connection, running: Slot) -> Standing:
    """How the site stands when it runs this slot."""
    floor = int(connection.execute("SELECT coalesce(max(generation), 0) FROM slots").fetchone()[0])
    refused = read_refused(connection)
    if refused is not None and refused.generation > running.generation:
        state: Literal["failed", "rolled_back"] = "rolled_back" if refused.rolled_back else "failed"
        return Standing(running.release.release, refused.generation, floor, refused.reason, state)
    return Standing(running.release.release, running.generation, floor)


def _put(connection: sqlite3.Connection, name: str, slot: Slot, now_us: int, confirmed: bool) -> None:
    """Write this slot whole: what its columns said of another release is gone."""
    connection.execute(
        "INSERT OR REPLACE INTO slots (slot, release, generation, document, at, confirmed) VALUES (?, ?, ?, ?, ?, ?)",
        (name, slot.release.release, slot.generation, slot.release.model_dump_json(), now_us, confirmed),
    )


def _release(connection: sqlite3.Connection, name: str) -> Release | None:
    """The release of a slot; None also where it can't be read, which must not stand in an update's way."""
    try:
        slot = read_slot(connection, name)
    except (ValueError, TypeError):
        return None
    return None if slot is None else slot.release
