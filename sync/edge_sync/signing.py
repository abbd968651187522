"""Signed documents: DSSE envelopes with ed25519, through securesystemslib (the library under python-tuf).

A key file holds a private key as unencrypted PKCS#8 PEM, mode 0600; its public half is pinned at each site
as 64 hex digits. What is signed is the payload's exact bytes; what is verified is the bytes that came.
"""

import base64
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from edge_models.errors import ConfigError, RejectedError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

MAX_ENVELOPE_BYTES = 512 * 1024


def make_key(path: Path) -> str:
    """Write a new private key to `path` (mode 0600, never over an existing file); returns the public key's hex."""
    from securesystemslib.signer import CryptoSigner  # noqa: PLC0415 - 8 MB a site needs only at an update

    signer = CryptoSigner.generate_ed25519()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(signer.private_bytes)
    return str(signer.public_key.keyval["public"])


def public_key(path: Path) -> str:
    """The hex of the public half of the private key in `path`. Raises `ConfigError`."""
    return str(file_signer(path).public_key.keyval["public"])


def sign(payload: bytes, payload_type: str, key: Path) -> bytes:
    """The DSSE envelope, as JSON, of `payload` signed with the private key in file `key`."""
    from securesystemslib.dsse import Envelope  # noqa: PLC0415

    envelope = Envelope(payload, payload_type, {})
    envelope.sign(file_signer(key))
    return json.dumps(envelope.to_dict(), separators=(",", ":")).encode()


def verify(envelope: bytes, payload_type: str, pinned: str | Collection[str]) -> bytes:
    """The payload, if the envelope is of this type and signed by a pinned key (hex). Raises `RejectedError`."""
    from securesystemslib.dsse import Envelope  # noqa: PLC0415
    from securesystemslib.exceptions import VerificationError  # noqa: PLC0415
    from securesystemslib.signer import SSlibKey  # noqa: PLC0415

    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise RejectedError(f"signed document: {len(envelope)} bytes, the most is {MAX_ENVELOPE_BYTES}")
    try:
        opened = Envelope.from_dict(json.loads(envelope))
    except Exception as error:  # noqa: BLE001 - whatever a hostile envelope provokes in the parser is one refusal
        raise RejectedError(f"signed document: not a DSSE envelope ({type(error).__name__})") from None
    if opened.payload_type != payload_type:
        raise RejectedError(f"signed document: its type is not {payload_type!r}")
    keyid = next(iter(opened.signatures), "")
    for public in [pinned] if isinstance(pinned, str) else pinned:
        try:
            opened.verify([SSlibKey(keyid, "ed25519", "ed25519", {"public": public})], 1)
        except VerificationError:
            continue
        return bytes(opened.payload)
    raise RejectedError("signed document: not signed by the key this site trusts")


def file_signer(path: Path) -> "CryptoSigner":
    """The signer of the private key in this file. Raises `ConfigError`."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415
    from securesystemslib.signer import CryptoSigner  # noqa: PLC0415

    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))
    except OSError as error:
        raise ConfigError(f"key {path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise ConfigError(f"key {path}: is no unencrypted PEM private key") from None


def unverified_payload(envelope: bytes) -> bytes:
    """What an envelope says, whoever signed it: to be shown, never to be acted on. Raises `RejectedError`."""
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise RejectedError(f"signed document: {len(envelope)} bytes, the most is {MAX_ENVELOPE_BYTES}")
    try:
        return base64.b64decode(json.loads(envelope)["payload"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RejectedError("signed document: not a DSSE envelope") from None
