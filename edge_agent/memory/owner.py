"""Whose memory a folder holds. Under another site's name its records would go to the hub as that site's."""

import json
import sqlite3
from contextlib import suppress
from pathlib import Path

from edge_agent.memory.draft import JOURNAL_AGENT
from edge_agent.memory.schema import UNREADABLE, reading
from edge_models.errors import ConfigError, KitError
from edge_sync.checkpoint import LABEL

_EPOCHS, _ROWS = 5, 2_000
"""Looked at of the newest: each epoch begins with a checkpoint, and has one more at least every thousand records."""


def refuse_another(data: Path, site: str) -> None:
    """Raises `ConfigError` where the memory in this folder is of another site."""
    found = owner(data / "memory.db")
    if found not in (None, site):
        raise ConfigError(
            f"{data}: the memory there is of site {found}, and this is {site}: name another folder with --data, or "
            "move it away if nobody wants it"
        )


def owner(path: Path) -> str | None:
    """The site that its newest checkpoint names; None where there is no memory, or it does not say."""
    if not path.exists():
        return None
    with suppress(*UNREADABLE, KitError), reading(path) as connection:  # what is damaged is mended at the start
        for (epoch,) in connection.execute("SELECT epoch FROM epochs ORDER BY ord DESC LIMIT ?", (_EPOCHS,)).fetchall():
            site = _named(connection, epoch)
            if site is not None:
                return site
    return None


def _named(connection: sqlite3.Connection, epoch: str) -> str | None:
    row = connection.execute(
        "SELECT body FROM (SELECT kind, agent, label, body FROM journal WHERE epoch=? AND lane='decision'"
        " ORDER BY seq LIMIT ?) WHERE kind='event' AND agent=? AND label=? LIMIT 1",
        (epoch, _ROWS, JOURNAL_AGENT, LABEL),
    ).fetchone()
    with suppress(TypeError, ValueError, KeyError):
        said = json.loads(row[0])["site"]
        return said if isinstance(said, str) else None
    return None
