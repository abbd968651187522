"""Writing a file so that a reader, or a power cut, finds the old one or the new one, never a half."""

import os
import secrets
from pathlib import Path

from edge_models.durable import sync


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` with `data`, mode 0600, durably."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync_tree(folder: Path) -> None:
    """Make all of it durable: a rename of it may not become so before."""
    for path in [folder, *folder.rglob("*")]:
        sync(path)


def make_private(folder: Path) -> None:
    """Make the folder and those above it that are missing, all mode 0700."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
