"""What is on the disk for good: a file or folder synced, and a file replaced whole."""

import os
import secrets
from pathlib import Path


def sync(path: Path) -> None:
    """Make a file's content, or what was made and renamed in a folder, durable. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(folder: Path) -> None:
    """Make all of it durable: a rename of it may not become so before. Raises `OSError`."""
    for path in [folder, *folder.rglob("*")]:
        sync(path)


def replace(path: Path, data: bytes, mode: int = 0o666) -> None:
    """All of `data` at `path`, durable, or nothing new there. Raises `OSError`.

    `mode`: of the new file, less what the umask takes. After a power cut a ``.NAME.TOKEN.part`` may lie beside it.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync(path.parent)
