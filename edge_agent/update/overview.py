"""How a site stands with its updates, read from its folder: whether or not it runs, and without disturbing it."""

import sqlite3
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from edge_agent.update.slots import read_refused, read_slot, read_trial
from edge_agent.update.wishes import Wishes
from edge_models.errors import ConfigError
from edge_sync.trust.paths import OFFLINE, ONLINE


@dataclass(frozen=True, slots=True)
class Role:
    """Trust metadata of one role, as the site last verified it."""

    version: int
    ends: str
    """When it does, ISO 8601."""


@dataclass(frozen=True, slots=True)
class Overview:
    """One site's updates."""

    release: int | None
    """None: no release ever came, and what the site file names runs."""
    generation: int
    """Of the document that asked for it; 0: the site file did."""
    previous: int | None
    on_trial: bool
    trial_left_s: float | None
    boots: int
    refused_generation: int | None
    refusal: str | None
    floor: int
    """Below this generation everything is a replay."""
    held: str | None
    """Why nothing new is taken."""
    waiting: int
    """Sticks and wishes that the site has not taken up yet."""
    arriving: int
    """Artifacts of which a part is here."""
    trust: dict[str, Role]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        runs = "what the site file names" if self.release is None else f"release {self.release}"
        asked = f"generation {self.generation}" if self.generation else "as the site file says"
        lines = [f"runs      {runs}, {asked}"]
        if self.on_trial:
            left = "" if self.trial_left_s is None else f", {self.trial_left_s:.0f} s left"
            lines.append(f"on trial  not confirmed yet{left}; {self.boots} starts")
        if self.previous is not None:
            lines.append(f"before    release {self.previous}: `edge-agent update rollback` runs it again")
        if self.refusal is not None:
            lines.append(f"refused   generation {self.refused_generation}: {self.refusal}")
        if self.held is not None:
            lines.append(f"held      {self.held}")
        if self.arriving:
            lines.append(f"arriving  {self.arriving} artifacts")
        if self.waiting:
            lines.append(f"waiting   {self.waiting} wishes, taken up when the site runs")
        if self.trust:
            first = min(self.trust.items(), key=lambda each: each[1].ends)
            versions = ", ".join(f"{name} {role.version}" for name, role in self.trust.items())
            lines.append(f"trusts    {versions}; {first[0]} ends first, {first[1].ends}")
        else:
            lines.append("trusts    nothing yet: no trust metadata came so far")
        return lines


def read_overview(data: Path) -> Overview:
    """The overview of the site whose data folder this is. Raises `ConfigError` where there is none."""
    memory = data / "memory.db"
    if not memory.exists():
        raise ConfigError(f"{data}: this site never ran: start it with `edge-agent run`")
    wishes = Wishes(data)
    try:
        with closing(sqlite3.connect(f"{memory.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            return _read(db, data, wishes)
    except sqlite3.Error as error:
        raise ConfigError(f"{memory}: {error}") from None


def _read(db: sqlite3.Connection, data: Path, wishes: Wishes) -> Overview:
    active, previous = read_slot(db, "active"), read_slot(db, "previous")
    refused, trial = read_refused(db), read_trial(db)
    floor = int(db.execute("SELECT coalesce(max(generation), 0) FROM slots").fetchone()[0])
    waiting = sum(not path.name.startswith(".") and path.name != "hold" for path in wishes.folder.glob("*"))
    return Overview(
        release=active.release.release if active is not None else None,
        generation=active.generation if active is not None else 0,
        previous=previous.release.release if previous is not None else None,
        on_trial=trial is not None,
        trial_left_s=trial.row.left_s if trial is not None else None,
        boots=trial.boots if trial is not None else 0,
        refused_generation=refused.generation if refused is not None else None,
        refusal=refused.reason if refused is not None else None,
        floor=floor,
        held=wishes.held(),
        waiting=waiting,
        arriving=len(list((data / "blobs").glob("*.part"))),
        trust=_trust(data / "trust" / "metadata"),
    )


def _trust(folder: Path) -> dict[str, Role]:
    from tuf.api.metadata import Metadata  # noqa: PLC0415 - only where somebody looks

    found = {}
    for name in (*OFFLINE, *ONLINE):
        with suppress(Exception):  # it is not there yet, or a start that was cut short left half of it
            signed = Metadata.from_file(str(folder / f"{name}.json")).signed
            found[name] = Role(signed.version, signed.expires.astimezone(UTC).isoformat())
    return found
