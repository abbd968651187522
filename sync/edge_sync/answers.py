"""What a hub answers about a site's journal, acks and resumes, signed by its director.

``ES1``, the signature (64 bytes, Ed25519), the JSON document. Signed is the topic, a line feed, the document: so an
answer is of one site and of one kind. A site that knows no director yet can verify nothing, and takes what comes: it
has no other hub. Section: sync/SPEC.md, Journal sync.
"""

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from edge_models.errors import RejectedError
from edge_sync.signing import file_signer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAGIC, _SIGNATURE_BYTES = b"ES1", 64
_AT = len(MAGIC) + _SIGNATURE_BYTES


class Answers:
    """Seals answers with the private key in a file."""

    def __init__(self, key: Path) -> None:
        """Raises `ConfigError` where the file holds no such key."""
        self._signer = file_signer(key)

    def seal(self, topic: str, document: bytes) -> bytes:
        """The message for this topic."""
        return MAGIC + bytes.fromhex(self._signer.sign(_signed(topic, document)).signature) + document


def opened(topic: str, message: bytes, directors: Collection[str]) -> bytes:
    """The document in a message that came on this topic. Raises `RejectedError` where none of these keys signed it.

    `directors` are public keys, hex; where there are none, nobody's signature is asked for.
    """
    if not message.startswith(MAGIC) or len(message) < _AT:
        raise RejectedError("the hub's answer is not signed")
    signature, document = message[len(MAGIC) : _AT], message[_AT:]
    if directors and not any(_is_of(key, signature, _signed(topic, document)) for key in directors):
        raise RejectedError("the hub's answer is not signed by a director this site trusts")
    return document


def _signed(topic: str, document: bytes) -> bytes:
    return topic.encode() + b"\n" + document


def _is_of(key: str, signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 8 MB that a site without a hub does not need

    try:
        _public(key).verify(signature, signed)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=16)
def _public(key: str) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
