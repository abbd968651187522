"""Files and folders that are for the hub's own user only."""

from pathlib import Path

from edge_models.durable import replace


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` with `data`, mode 0600, durably: a reader finds the old one or the new one, never a half."""
    replace(path, data, 0o600)


def make_private(folder: Path) -> None:
    """Make the folder and those above it that are missing, all mode 0700."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
