"""What is on the disk for good: a file or folder synced, and a file replaced whole."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Make a file's content, or what was made and renamed in a folder, durable. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(path: Path, data: bytes) -> None:
    """All of `data` at `path`, durable, or nothing new there. Raises `OSError`.

    After a power cut a ``.NAME.PID.part`` may lie beside it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)
