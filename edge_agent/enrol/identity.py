"""Who a site is to its hub: a folder with its key and certificate, and how the next pair takes its place.

    DATA/identity/        key.pem, certificate.pem (with those between it and the root), ca.pem (the root), about.json
    DATA/identity.next/   a key, durable before it is asked with; with about.json, the last to be written, all is there
    DATA/identity.old/    what was before, on its way out
    DATA/identity.lock    held by who changes any of them

Guarantee: after a kill or a power cut at any instruction, `settle` finds the old pair or the new one, whole, and the
key that was asked with; a key and a certificate that do not belong together are never in `identity/`.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from edge_agent.enrol.schedule import Held
from edge_models.durable import replace, sync
from edge_models.errors import ConfigError, RetryableError

KEY, CERTIFICATE, CA, ABOUT = "key.pem", "certificate.pem", "ca.pem", "about.json"

UNKNOWN = Held(0, 0, 0, "")
"""A certificate of which nothing is known but that it is there: it is due, and the next one comes with all."""


def print_of(token: str) -> str:
    """What tells two join tokens apart and says nothing of either."""
    return sha256(token.strip().encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Pair:
    """A key, the certificates up to the root, and the root; PEM."""

    key: bytes
    certificate: bytes
    ca: bytes


class IdentityFolder:
    """One site's, at `path`. What changes anything has to hold `locked`."""

    def __init__(self, path: Path, site: str) -> None:
        """Reads and makes nothing yet."""
        self.path, self._site = path, site
        self._next, self._old = (path.with_name(f"{path.name}.{end}") for end in ("next", "old"))

    @property
    def key(self) -> Path:
        return self.path / KEY

    @property
    def certificate(self) -> Path:
        return self.path / CERTIFICATE

    @property
    def ca(self) -> Path:
        return self.path / CA

    def held(self) -> Held | None:
        """What this site's certificate is good for; None where there is none. Changes nothing.

        Raises `ConfigError` where what lies there is another site's.
        """
        file = next((each for each in (self._next / ABOUT, self.path / ABOUT) if each.exists()), None)
        if file is None:
            return None
        try:
            about: dict[str, Any] = json.loads(file.read_bytes())
            times = [int(about[name]) for name in ("begins_us", "renew_us", "ends_us")]
            held = Held(times[0], times[1], times[2], str(about["token"]))
            site = str(about["site"])
        except (OSError, ValueError, KeyError, TypeError):
            return UNKNOWN
        if site != self._site:
            raise ConfigError(f"{self.path} is the identity of site {site!r}, not of {self._site!r}: join anew")
        return held

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one who changes it, and have what was cut short settled. Raises `RetryableError`, `OSError`."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RetryableError(f"another process asks for a certificate into {self.path} now") from None
            self._settle()
            yield
        finally:
            os.close(fd)

    def settle(self) -> None:
        """Bring to its end what a kill or a power cut cut short; nothing where another process is at it."""
        if self._next.exists() or self._old.exists():
            try:
                with self.locked():
                    pass
            except RetryableError:
                pass

    def next_key(self) -> bytes | None:
        """The key that was asked with, or is about to be."""
        try:
            return (self._next / KEY).read_bytes()
        except FileNotFoundError:
            return None

    def keep_key(self, key: bytes) -> None:
        """Have this as `next_key`, durable on return."""
        self._next.mkdir(exist_ok=True, mode=0o700)
        replace(self._next / KEY, key, 0o600)
        sync(self._next.parent)

    def take(self, pair: Pair, held: Held) -> None:
        """From now on the site is who `pair` says; durable on return."""
        self._next.mkdir(exist_ok=True, mode=0o700)
        for name, data in ((KEY, pair.key), (CERTIFICATE, pair.certificate), (CA, pair.ca)):
            replace(self._next / name, data, 0o600)
        about = {"site": self._site, "begins_us": held.begins_us, "renew_us": held.renew_us, "ends_us": held.ends_us}
        replace(self._next / ABOUT, json.dumps(about | {"token": held.token}, indent=1).encode(), 0o600)
        sync(self._next.parent)
        self._settle()

    def _settle(self) -> None:
        if self._old.exists():
            shutil.rmtree(self._old)
        if (self._next / ABOUT).exists():
            # Cut short between the two renames, all of the new pair is there, and it goes on the same way. One follows
            # the other at once: who connects just then finds neither pair, and has to try again.
            if self.path.exists():
                self.path.rename(self._old)
            self._next.rename(self.path)
            sync(self.path.parent)
            shutil.rmtree(self._old, ignore_errors=True)
