"""Secrets of a kit that is no longer wanted: written over, and gone."""

import os
from pathlib import Path

from edge_k3s.rendering import SECRETS_FILE
from edge_models.durable import sync
from edge_models.errors import ConfigError


def wipe_secrets(kit: Path) -> list[str]:
    """Remove every file of this kit that holds a secret, and return their names.

    Each is written over first, which reaches what a magnetic disk had there; a flash disk may keep an old copy that
    no program reads. Raises `ConfigError` where `kit` is no kit, or a file cannot be removed.
    """
    if not (kit / "kit.env").is_file() and not (kit / "site.yaml").is_file():
        raise ConfigError(f"{kit}: is no kit: neither kit.env nor site.yaml is in it")
    wiped = []
    for path in [*sorted((kit / "secrets").glob("*")), kit / "manifests" / SECRETS_FILE]:
        if not path.is_file() or path.is_symlink():
            continue
        try:
            _overwrite(path)
            path.unlink()
            sync(path.parent)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}: remove it by hand") from None
        wiped.append(path.relative_to(kit).as_posix())
    return wiped


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
