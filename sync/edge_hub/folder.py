"""A hub's folder: what lies where, made at the first start."""

import fcntl
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_hub.files import write_private
from edge_models.errors import ConfigError
from edge_sync.signing import make_key, public_key

AUTHORITY = "ca"
"""The folder of the authority for certificates, unless it lies elsewhere."""

_OURS = frozenset({"hub.db", "director.key", "online.key", "operator.token", "blobs", "broker", "hub.json", AUTHORITY})


class HubFolder:
    """The folder of one hub, mode 0700. One hub process at a time may `lock` it."""

    def __init__(self, path: Path) -> None:
        """Makes what is missing. Raises `ConfigError` for a folder that holds other things."""
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = {entry.name for entry in path.iterdir()}
        except OSError as error:
            raise ConfigError(f"hub folder {path}: {error.strerror}") from None
        if there and not there & _OURS:
            raise ConfigError(f"{path} is no hub's folder: it holds {sorted(there)[0]!r}; name an empty or new one")
        self.path = path.resolve()
        self._lock: int | None = None
        for key in (self.key, self.online_key):
            with suppress(FileExistsError):
                make_key(key)
        if not self.token_file.exists():
            write_private(self.token_file, secrets.token_urlsafe(32).encode() + b"\n")
        self.blobs.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def database(self) -> Path:
        """SQLite."""
        return self.path / "hub.db"

    @property
    def key(self) -> Path:
        """The director's private key: signs what each site should run."""
        return self.path / "director.key"

    @property
    def online_key(self) -> Path:
        """The private key that signs which version of the trust metadata is the newest."""
        return self.path / "online.key"

    @property
    def token_file(self) -> Path:
        """The operator's bearer token."""
        return self.path / "operator.token"

    @property
    def blobs(self) -> Path:
        """Artifacts by sha256."""
        return self.path / "blobs" / "sha256"

    @property
    def broker(self) -> Path:
        """The broker's folder."""
        return self.path / "broker"

    @property
    def authority(self) -> Path:
        """The authority's folder, unless it lies elsewhere."""
        return self.path / AUTHORITY

    @property
    def director_key(self) -> str:
        """The public half, which sites pin, as hex."""
        return public_key(self.key)

    @property
    def token(self) -> str:
        """The operator's bearer token."""
        return self.token_file.read_text().strip()

    def lock(self) -> None:
        """Claim the folder for this process. Raises `ConfigError` where another hub runs in it."""
        self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise ConfigError(f"a hub runs in {self.path} already") from None

    def unlock(self) -> None:
        """Give the folder back; nothing happens where it is not claimed."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def announce(self, facts: dict[str, Any]) -> None:
        """Write `hub.json`: a hub is ready, and here is where."""
        write_private(self.path / "hub.json", json.dumps(facts, indent=1).encode() + b"\n")

    def withdraw(self) -> None:
        """Take `hub.json` away."""
        (self.path / "hub.json").unlink(missing_ok=True)
