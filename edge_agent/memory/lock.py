"""One process at a time writes to a site's data folder: two writers of one journal would fork it."""

import fcntl
import os
from pathlib import Path

from edge_models.errors import ConfigError


def lock_data(data: Path) -> int:
    """Hold the data folder for this process alone; returns what to close in the end. Raises `ConfigError`."""
    fd = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise ConfigError(f"{data}: another process runs this site; stop it first") from None
    return fd
