"""Passwords of broker users: made here, shown once, kept only as salted hashes that mosquitto reads too.

A password is 32 random bytes, so the hash needs no slow stretching: a fleet that reconnects all at once after a
broken link must not keep the broker busy.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass

_ITERATIONS = 1_000
_SALT_BYTES = 12
"""What mosquitto expects."""


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """PBKDF2-HMAC-SHA512 of a password."""

    iterations: int
    salt: bytes
    hash: bytes

    def matches(self, password: str) -> bool:
        """Whether this is the hash of `password`; takes the same time for every wrong one."""
        return hmac.compare_digest(self.hash, _derive(password, self.salt, self.iterations))

    def as_text(self) -> str:
        """The hash in mosquitto's own notation, ``$7$iterations$salt$hash``."""
        return f"$7${self.iterations}${_b64(self.salt)}${_b64(self.hash)}"

    @classmethod
    def from_text(cls, text: str) -> "PasswordHash":
        """The opposite of `as_text`. Raises `ValueError`."""
        _, kind, iterations, salt, digest = text.split("$")
        if kind != "7":
            raise ValueError(f"hash of kind {kind!r}")
        return cls(int(iterations), base64.b64decode(salt), base64.b64decode(digest))


def new_password() -> str:
    """A password nobody has: 43 characters that need no quoting anywhere."""
    return secrets.token_urlsafe(32)


def hash_password(password: str) -> PasswordHash:
    """A salted hash of `password`."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return PasswordHash(_ITERATIONS, salt, _derive(password, salt, _ITERATIONS))


def _derive(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
