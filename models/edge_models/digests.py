"""The one way the kit names bytes."""

import hashlib
from typing import NewType

Digest = NewType("Digest", str)
"""``sha256:`` and 64 hex digits: the name of an artifact's exact bytes."""


def digest_of(data: bytes | memoryview) -> Digest:
    """The digest of `data`."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
