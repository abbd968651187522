"""A memory that another takes the place of is kept under a second name, for who wants to look into it."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.memory.damage import sync_folder


def second_name(path: Path, begins: str, now_us: int) -> Path:
    """Give the file and its WAL a second name beside it, durably; it begins with `begins` and tells the time.

    Raises `OSError`.
    """
    stamp = datetime.fromtimestamp(now_us / 1e6, UTC).strftime("%Y%m%dT%H%M%S")
    number = 0
    while (aside := path.with_name(f"{begins}{stamp}{f'-{number}' if number else ''}.db")).exists():
        number += 1
    for part in ("-wal", ""):  # the file last: where it is, all of it is
        old, new = (each.with_name(each.name + part) for each in (path, aside))
        new.unlink(missing_ok=True)
        if old.exists():
            try:
                os.link(old, new)
            except OSError:  # a file system that knows no second names
                shutil.copyfile(old, new)
    sync_folder(path.parent)
    return aside
