"""A checkpoint: what a site signs of its journal, as the body of an ordinary record. Format, signature, check.

It names the end of every lane of an epoch, so one signature holds all rows before: who changes a row and computes
every hash after it anew still needs the site's key. Source: sync/SPEC.md, section Checkpoints.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_models.errors import RejectedError
from edge_sync.rows import LANES, Kind, Lane, Row
from edge_sync.topics import SITE_PATTERN

KIND: Kind = "event"
LANE: Lane = "decision"
LABEL, AGENT = "checkpoint", "site"
"""What tells a checkpoint from other records of its lane."""

_TAG = "edge/v1 checkpoint"
"""Of what this key signs it is the first line: a signature is good for nothing else."""

_Epoch = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
_Hex32 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{128}\Z")]
_Site = Annotated[str, Meta(pattern=SITE_PATTERN.removesuffix("$") + r"\Z")]
_Seq = Annotated[int, Meta(ge=1, lt=2**53)]
_Order = Annotated[int, Meta(ge=0, lt=2**53)]


class End(msgspec.Struct, array_like=True, frozen=True):
    """A place in a stream: a number, and the chain's hash there as 64 hex digits."""

    seq: _Seq
    hash: _Hex32


class Ends(msgspec.Struct, frozen=True):
    """How far an epoch's lanes had come; a lane without a record is left out."""

    epoch: _Epoch
    order: _Order
    streams: dict[Lane, End]


class Checkpoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of a checkpoint. `before` are the ends of the epoch before, in the first one of an epoch."""

    v: Literal[1]
    site: _Site
    epoch: _Epoch
    order: _Order
    at_us: int
    streams: dict[Lane, End]
    key: _Hex32
    """The public key, ed25519."""
    sig: _Hex64
    before: Ends | None = None

    @property
    def ends(self) -> tuple[Ends, ...]:
        """All that it names, the older epoch first."""
        own = Ends(self.epoch, self.order, self.streams)
        return (own,) if self.before is None else (self.before, own)


_decoder = msgspec.json.Decoder(Checkpoint)


def is_checkpoint(row: Row) -> bool:
    """Whether this record says that it is one."""
    return row.label == LABEL and row.kind == KIND and row.agent == AGENT


def sign(site: str, now: Ends, before: Ends | None, at_us: int, key: str, signature: Callable[[bytes], bytes]) -> str:
    """The body of a checkpoint, JSON. `signature` signs bytes with the private half of `key`."""
    bare = Checkpoint(1, site, now.epoch, now.order, at_us, now.streams, key, "", before)
    return msgspec.json.encode(msgspec.structs.replace(bare, sig=signature(signed_bytes(bare)).hex())).decode()


def read(body: str) -> Checkpoint:
    """The checkpoint in this body, which is signed with the key it names. Raises `RejectedError` saying what is wrong.

    Whether that key is the site's is for the caller to know.
    """
    try:
        found = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise RejectedError(f"it is no checkpoint: {str(error)[:200]}") from None  # which may repeat what was sent
    if not _verifies(found):
        raise RejectedError("its signature does not hold")
    return found


def signed_bytes(checkpoint: Checkpoint) -> bytes:
    """What is signed: lines of plain words. No two checkpoints that differ are signed alike."""
    lines = [_TAG, checkpoint.site, f"{checkpoint.epoch} {checkpoint.order} {checkpoint.at_us}"]
    lines += _lines(checkpoint.streams)
    if checkpoint.before is not None:
        lines.append(f"before {checkpoint.before.epoch} {checkpoint.before.order}")
        lines += _lines(checkpoint.before.streams)
    return "\n".join([*lines, f"key {checkpoint.key}"]).encode()


def _lines(streams: Mapping[Lane, End]) -> list[str]:
    return [f"{lane} {streams[lane].seq} {streams[lane].hash}" for lane in LANES if lane in streams]


def _verifies(checkpoint: Checkpoint) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - 7 MB, for who meets a checkpoint
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(checkpoint.key))
        key.verify(bytes.fromhex(checkpoint.sig), signed_bytes(checkpoint))
    except (InvalidSignature, ValueError):
        return False
    return True
