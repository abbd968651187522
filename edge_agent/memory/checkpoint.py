"""Writes signed checkpoints into the journal: now and then, at the start of each epoch, and at a clean stop.

Whoever changes the journal behind the site's back, and computes its hashes anew, does not have what was signed: the
checkpoints lie at the hub too, and the key in a file of its own. Guarantees: edge_agent/MEMORY.md, Checkpoints.
"""

import logging
import math
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

from edge_agent.memory.draft import JOURNAL_AGENT, Draft, to_body
from edge_agent.memory.journal import Heads, Journal
from edge_agent.memory.outbox import hash_at
from edge_agent.memory.schema import reading
from edge_models.durable import replace
from edge_models.errors import ConfigError
from edge_sync import checkpoint
from edge_sync.checkpoint import End, Ends
from edge_sync.rows import LANES, Lane

log = logging.getLogger(__name__)

KEY_FILE = "journal.key"
"""In the site's data folder, for its owner's eyes only."""

CHECKPOINT_ROWS = 1_000
CHECKPOINT_S = 600.0
"""A checkpoint after so many records, or so long after the last one where there is any record since."""


class Checkpointer:
    """Writes the checkpoints of one journal. Without a thread or a clock of its own; safe to call from any thread."""

    def __init__(self, journal: Journal, site: str, key: Path, now_us: Callable[[], int]) -> None:
        """`key`: the file of the site's journal key, made where there is none. Nothing is read or written yet."""
        self._journal, self._site, self._file, self._now_us = journal, site, key, now_us
        self._lock = threading.Lock()
        self._key: SigningKey | None = None
        self._epoch = ""
        self._rows = 0
        """Records of the epoch when the last checkpoint was written, itself included."""
        self._at = -math.inf
        self._failed = False

    def tick(self, now: float) -> None:
        """Time passes, `now` in monotonic seconds: write one where it is due; it joins the next transaction."""
        with self._lock:
            heads = self._journal.heads()
            grown = heads.rows - self._rows
            late = grown > 0 and now - self._at >= CHECKPOINT_S
            if heads.epoch == self._epoch:
                if grown >= CHECKPOINT_ROWS or late:
                    self._write(heads, now, self._journal.later)
            elif not self._failed or now - self._at >= CHECKPOINT_S:
                self._write(heads, now, self._journal.later)

    def note(self, now: float) -> None:
        """Write one of all that is there, as before a stop; durable on return. Raises `JournalUnavailableError`."""
        with self._lock:
            heads = self._journal.heads()
            if heads.epoch != self._epoch or heads.rows > self._rows:
                self._write(heads, now, self._journal.write)

    def _write(self, heads: Heads, now: float, put: Callable[[list[Draft]], None]) -> None:
        """One that can't be signed is told of once, and tried again after `CHECKPOINT_S`: the site works without."""
        at_us = self._now_us()
        try:
            body = self._signed(heads, at_us)
        except (ConfigError, OSError, sqlite3.Error) as error:
            log.error("checkpoint_failed", extra={"reason": str(error)})
            if not self._failed:
                what = to_body({"reason": str(error)})
                self._journal.later([Draft("alarm", "event", JOURNAL_AGENT, at_us, what, label="checkpoint_failed")])
            self._failed, self._at, self._rows = True, now, heads.rows
            return
        put([Draft(checkpoint.LANE, checkpoint.KIND, checkpoint.AGENT, at_us, body, label=checkpoint.LABEL)])
        self._failed, self._epoch, self._rows, self._at = False, heads.epoch, heads.rows + 1, now

    def _signed(self, heads: Heads, at_us: int) -> str:
        if self._key is None:
            self._key = SigningKey(self._file)
        before = None if heads.epoch == self._epoch else ends_before(self._journal.path, heads.order)
        now = Ends(heads.epoch, heads.order, {lane: End(*end) for lane, end in heads.ends.items()})
        return checkpoint.sign(self._site, now, before, at_us, self._key.public, self._key.sign)


class SigningKey:
    """The private half of a journal's key. What is signed with it is a checkpoint, and nothing else."""

    def __init__(self, path: Path) -> None:
        """Read the key, or make one, durably. Raises `ConfigError` where the file is none, `OSError`."""
        # The library under securesystemslib, which would cost twice as much memory. Not at import: see there.
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

        if not path.exists():
            _make(path)
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"key {path}: is no ed25519 private key in PEM: restore it, or delete it for a new one")
        self.sign: Callable[[bytes], bytes] = key.sign
        self.public = key.public_key().public_bytes_raw().hex()


def ends_before(path: Path, order: int) -> Ends | None:
    """How far the lanes of the newest epoch with an order below had come, where the journal knows one."""
    with reading(path) as connection:
        found = connection.execute(
            "SELECT epoch, ord, alarm, decision, telemetry FROM epochs WHERE ord<? ORDER BY ord DESC LIMIT 1", (order,)
        ).fetchone()
        if found is None:
            return None
        epoch, before, *lasts = found
        streams: dict[Lane, End] = {}
        for lane, last in zip(LANES, lasts, strict=True):
            known = hash_at(connection, (epoch, lane), last) if last else None
            if known is not None:
                streams[lane] = End(last, known.hex())
    return Ends(epoch, before, streams)


def _make(path: Path) -> None:
    """A new key. It is on the disk before anything is signed with it: the hub knows a site's journal by its key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: PLC0415

    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    replace(path, pem, 0o600)
