"""A damaged memory is set aside whole, and a new one with all that can be proven of it takes its place.

A kill at any instruction leads to the same again: the mark beside the file says how far it has come, and the damaged
file is read under its old name, or under the one it was set aside as, until the new one stands. Guarantees:
edge_agent/MEMORY.md, Damage.
"""

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edge_agent.memory.aside import second_name
from edge_agent.memory.damage import Mark, look, read_mark, sync_folder, take_mark_off, write_mark
from edge_agent.memory.salvage import Salvaged, salvage
from edge_agent.memory.small_tables import implausible
from edge_agent.records import Json
from edge_models.errors import RetryableError

log = logging.getLogger(__name__)

ASIDE = "memory.damaged-"
"""What the name of a file that was set aside begins with; it ends in `.db`."""

MIN_FREE_BYTES = 4 * 1024 * 1024
"""Less than that is no room for a new memory."""

_SHARE = 0.8
"""Of the disk's free room: some is for what the rescue itself needs beside the file."""

_TOLD_GAPS = 20

_PARTS = ("", "-wal", "-shm")


def rescue(path: Path, budget_mb: int, now_us: Callable[[], int]) -> dict[str, Json] | None:
    """Mend the memory at `path` where it is marked as damaged, or no site could start on it; None where it is whole.

    Returns what came of it, for the journal; `damage.take_mark_off` once that is durable. Where nothing of the file is
    left, there is no memory afterwards. Raises `RetryableError` where the disk has no room for a new file.
    """
    mark = read_mark(path)
    if mark is None:
        reason = look(path) or implausible(path)
        if reason is None:
            return None
        mark = Mark(reason)
        write_mark(path, mark)
    if mark.report is not None:
        _tidy(path, mark.report)
        return mark.report
    aside = path.with_name(mark.aside) if mark.aside else None
    source = aside if aside is not None and aside.exists() else path
    if not source.exists():  # somebody took it away: there is nothing to mend, as after a lost disk
        take_mark_off(path)
        return None
    log.error("memory_damaged", extra={"reason": mark.reason})
    new = path.with_name(f"{path.name}.new")
    _remove(new)
    found = _salvaged(source, new, budget_mb)
    if source is path:
        aside = second_name(path, ASIDE, now_us())
        mark = replace(mark, aside=aside.name)
        write_mark(path, mark)
    assert aside is not None  # noqa: S101 - it is the source, or was just made
    _put_in_place(path, new, found.anything)
    report: dict[str, Json] = {
        "reason": mark.reason,
        "rows": found.rows,
        "lost_at_most": found.lost,
        "gaps": [*found.gaps[:_TOLD_GAPS]],
        "more_gaps": max(0, len(found.gaps) - _TOLD_GAPS),
        "left_out": {**found.left_out},
        "kept_as": aside.name if _has_room(path, budget_mb) else None,
    }
    write_mark(path, replace(mark, report=report))
    _tidy(path, report)
    log.warning("memory_mended", extra={"rows": found.rows, "lost_at_most": found.lost})
    return report


def set_aside(folder: Path) -> list[Path]:
    """Damaged memories that are kept in a data folder, oldest first."""
    return sorted(folder.glob(f"{ASIDE}*.db"))


def _salvaged(source: Path, new: Path, budget_mb: int) -> Salvaged:
    room = int(shutil.disk_usage(new.parent).free * _SHARE)
    if room < MIN_FREE_BYTES:
        raise RetryableError(f"{source}: is damaged, and there is no room to mend it: free disk space", 60.0)
    try:
        return salvage(source, new, budget_mb, room)
    except (OSError, sqlite3.OperationalError) as error:
        _remove(new)
        text = f"{source}: is damaged, and can't be mended now ({error}): free disk space"
        raise RetryableError(text, 60.0) from None
    except Exception:  # a site that works without its past is better than none; the file stays for who can read it
        log.exception("memory_not_salvaged")
        _remove(new)
        return Salvaged()


def _put_in_place(path: Path, new: Path, anything: bool) -> None:
    """The new file takes the old one's name; a WAL that outlived its file would be worked into this one."""
    for part in ("-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)
    sync_folder(path.parent)
    if anything:
        os.replace(new, path)
    else:
        path.unlink(missing_ok=True)
        _remove(new)
    sync_folder(path.parent)


def _has_room(path: Path, budget_mb: int) -> bool:
    """Whether the disk can hold a damaged file and still the whole budget."""
    held = path.stat().st_size if path.exists() else 0
    return shutil.disk_usage(path.parent).free >= budget_mb * 1024 * 1024 - held


def _tidy(path: Path, report: Mapping[str, Json]) -> None:
    """Of files that were set aside only the one that the report names stays."""
    for old in set_aside(path.parent):
        if old.name != report["kept_as"]:
            _remove(old)
        old.with_name(f"{old.name}-shm").unlink(missing_ok=True)


def _remove(path: Path) -> None:
    """A database, as far as there is one."""
    for part in _PARTS:
        path.with_name(path.name + part).unlink(missing_ok=True)
