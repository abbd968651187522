"""Secrets of a kit that is no longer wanted: written over, and gone."""

import os
from collections.abc import Iterator
from pathlib import Path

from edge_k3s.rendering import SECRETS_FILE
from edge_models.durable import sync
from edge_models.errors import ConfigError

SITE_KEYS = ("identity/key.pem", "identity.next/key.pem", "identity.old/key.pem", "journal.key")
"""Private keys that a site makes in its data folder: of its certificate, the next one's, and its journal's."""

_DATA = ("data", "data/restore.partial")
"""Where a site that is run from its kit has them; the second where a restore was killed."""


def wipe_secrets(kit: Path) -> list[str]:
    """Remove every file of this kit that holds a secret, and return their names.

    Also the keys that a site which was run from it has made there since.

    Each is written over first, which reaches what a magnetic disk had there; a flash disk may keep an old copy that
    no program reads. Raises `ConfigError` where `kit` is no kit, or a file cannot be removed.
    """
    if not (kit / "kit.env").is_file() and not (kit / "site.yaml").is_file():
        raise ConfigError(f"{kit}: is no kit: neither kit.env nor site.yaml is in it")
    wiped = []
    for path in _secrets(kit):
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


def _secrets(kit: Path) -> Iterator[Path]:
    yield from sorted((kit / "secrets").glob("*"))
    yield kit / "manifests" / SECRETS_FILE
    keys = (kit / folder / name for folder in _DATA for name in SITE_KEYS)
    yield from (each for each in keys if each.resolve().is_relative_to(kit.resolve()))  # a link may lead to others'


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
