"""Who made a kit: an Ed25519 signature over its SHA256SUMS, by a key that the hub does not hold.

A bare machine verifies it with ``openssl pkeyutl -verify -rawin -pubin -inkey signing-key.pem -in SHA256SUMS -sigfile
SHA256SUMS.sig``. The key is one of the operator's `targets` role, which the kit's root.json names: whoever has that
root by another way than the kit needs to believe nothing in it. TUF signs JSON objects, and a list of sums is none: a
signature of one is never one of the other.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge_models.errors import RejectedError

SUMS, SIGNATURE, KEY = "SHA256SUMS", "SHA256SUMS.sig", "signing-key.pem"


@dataclass(frozen=True, slots=True)
class Sealer:
    """A signing key, wherever its private half is."""

    public: str
    """64 hex digits."""
    sign: Callable[[bytes], bytes]
    """64 bytes of signature."""


def sums_of(digests: dict[str, str]) -> bytes:
    """Path → sha256 as ``sha256sum -c`` reads it."""
    return "".join(f"{digests[path]}  {path}\n" for path in sorted(digests)).encode()


def read_sums(data: bytes) -> dict[str, str]:
    """The opposite of `sums_of`. Raises `RejectedError` for a line that is none, or a path that leaves the kit."""
    found: dict[str, str] = {}
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        digest, gap, path = line[:64], line[64:66], line[66:]
        if gap != "  " or set(digest) - set("0123456789abcdef") or not _stays_inside(path) or path in found:
            raise RejectedError(f"{SUMS}: line {number} is no sum of a file of a kit")
        found[path] = digest
    return found


def public_pem(public: str) -> bytes:
    """The key (64 hex digits) as openssl reads it."""
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def targets_keys(root: bytes) -> frozenset[str]:
    """The Ed25519 keys (hex) of the `targets` role in this root of trust. Raises `RejectedError` where it is none."""
    return role_keys(root, "targets")


def role_keys(root: bytes, role: str) -> frozenset[str]:
    """The same of any role: of `snapshot` they are the hub's online key."""
    try:
        signed = json.loads(root)["signed"]
        keys = [signed["keys"][keyid] for keyid in signed["roles"][role]["keyids"]]
        return frozenset(str(key["keyval"]["public"]) for key in keys if key["keytype"] == "ed25519")
    except (ValueError, KeyError, TypeError):
        raise RejectedError("root.json is no root of trust") from None


def verify(sums: bytes, signature: bytes, keys: Iterable[str]) -> str:
    """The key (hex) of these that signed. Raises `RejectedError` where none did."""
    for public in sorted(keys):
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, sums)
        except (InvalidSignature, ValueError):
            continue
        return public
    raise RejectedError("no key of the operator's targets role made this signature")


def fingerprint(sums: bytes) -> str:
    """sha256 of the sums, and so of the whole kit."""
    return hashlib.sha256(sums).hexdigest()


def _stays_inside(path: str) -> bool:
    return bool(path) and not path.startswith("/") and not {"", ".", ".."} & set(path.split("/"))
