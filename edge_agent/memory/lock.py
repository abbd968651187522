"""One process at a time writes to a site's data folder: two writers of one journal would fork it."""

import fcntl
import os
from pathlib import Path

from edge_models.errors import ConfigError


def is_locked(data: Path) -> bool:
    """Whether a process holds this data folder now; nothing is made, and nothing changes."""
    try:
        fd = os.open(data / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def lock_data(data: Path) -> int:
    """Hold the data folder for this process alone; returns what to close in the end. Raises `ConfigError`."""
    fd = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise ConfigError(f"{data}: another process runs this site; stop it first") from None
    return fd
