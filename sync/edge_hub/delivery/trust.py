"""The hub's part of trust: it holds what the operator signed, and says which version of it is the newest.

Its own key signs `snapshot` and `timestamp` and nothing else: whoever steals it can hold sites at a state for a while,
and install nothing. Every set that comes is verified as a site would before it takes the place of the one that is
held. Guarantees: sync/TRUST.md.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete

from edge_hub.database.dialect import lock
from edge_hub.database.schema import trust as table
from edge_hub.database.store import Store, UnknownError
from edge_hub.delivery.trust_set import HeldSet, SignedSet, held_versions, newest, read_set, verified
from edge_hub.records import audit
from edge_models.errors import RejectedError
from edge_sync.documents import Reported
from edge_sync.signing import file_signer, public_key
from edge_sync.trust.clock import as_datetime
from edge_sync.trust.collection import check, pack
from edge_sync.trust.paths import EXPIRY, KINDS, Kind, director_path, target_path

log = logging.getLogger(__name__)

RENEW = timedelta(days=1)
"""The timestamp is signed again when it is so old; it ends a week after it was signed."""

MAX_AHEAD = 2**32
"""A site may say that it saw online versions so far above this hub's, no further: they end at 2**53."""

RAISE_PAUSE_US = 60_000_000
"""Between two times that the versions are raised above what a site says, or are said again because it is behind."""

MAX_MEDIA_DAYS = 365

MISSING = "this hub holds no trust metadata: `edge-agent trust init` makes it, `trust push` hands it over"


class Trust:
    """Takes in what the operator signs; `changed` is told after each new state that is committed."""

    def __init__(
        self, store: Store, key: Path, director: str, changed: Callable[[], None], now_us: Callable[[], int]
    ) -> None:
        """`key` is the file of the online key, `director` the public key (hex) that signs desired documents here."""
        self._store, self._key, self._changed, self._now_us = store, key, changed, now_us
        self.director = director
        self._raised_us: int | None = None
        self._said_us: int | None = None

    @property
    def online_key(self) -> str:
        """The public half of the online key, hex."""
        return public_key(self._key)

    def standing(self) -> dict[str, Any]:
        """Role → version, and the newest root's text; empty and None where nothing was handed over yet."""
        with self._store.reading() as db:
            held = read_set(db)
        if held is None:
            return {"versions": {}, "root": None}
        return {"versions": held.versions(), "root": held.files[newest(held.files, "root")].decode()}

    def take(self, files: Mapping[str, bytes], who: str) -> dict[str, int]:
        """Hold this set from now on. Raises `RejectedError` where a site would not follow from the one that is held."""
        check(files)
        with self._store.writing() as db:
            lock(db, "trust")
            now_us = self._now_us()
            held = read_set(db)
            new = verified(files, held, as_datetime(now_us))
            self._check_keys(new)
            if held is not None and new.files == held.offline():
                return held.versions()
            versions = self._sign(db, new, held, now_us)
            audit.note(db, now_us, who, "trust metadata", {"versions": versions})
        self._changed()
        return versions

    def renew(self) -> bool:
        """Sign the timestamp again where that is due; whether it was."""
        with self._store.writing() as db:
            lock(db, "trust")
            held = read_set(db)
            now_us = self._now_us()
            if held is None or held.expires("timestamp") > as_datetime(now_us) + EXPIRY["timestamp"] - RENEW:
                return False
            self._sign(db, held.as_new(), held, now_us)
        self._changed()
        return True

    def answer(self, db: Connection, site: str, said: Reported) -> bool:
        """In the caller's transaction: whether what is published has to be said again, for this site.

        Its versions are raised above those that the site says it saw: a hub that was restored from a backup is behind
        its sites, which would refuse what it says.
        """
        theirs = max(said.trust.get("timestamp", 0), said.trust.get("snapshot", 0))
        mine = held_versions(db)
        if not mine:
            return False
        for role in ("root", "targets", *KINDS):
            if said.trust.get(role, 0) > mine[role]:
                log.error("trust_metadata_behind", extra={"site": site, "role": role, "version": mine[role]})
        # At the same version another history may have been signed: python-tuf takes the one for the other.
        differs = any(said.trust.get(role, 0) != mine[role] for role in ("root", "targets", *KINDS))
        ahead = theirs > mine["timestamp"] or (theirs == mine["timestamp"] and differs)
        now_us = self._now_us()
        paused = self._raised_us is not None and 0 <= now_us - self._raised_us < RAISE_PAUSE_US
        if not ahead:
            return theirs < mine["timestamp"] and self._may_say_again(now_us)
        if paused or theirs - mine["timestamp"] > MAX_AHEAD:
            return False
        lock(db, audit.LOCK)  # before that of trust, as others have it already where they come here
        lock(db, "trust")
        held = read_set(db)  # another worker may have raised them meanwhile
        if held is None:
            return False
        self._raised_us = now_us
        self._sign(db, held.as_new(), held, now_us, above=theirs)
        audit.note(db, now_us, "hub", "trust versions raised", {"site": site, "above": theirs})
        return True

    def _may_say_again(self, now_us: int) -> bool:
        """To a site that is behind: a broker may have lost what it was told to keep."""
        if self._said_us is not None and 0 <= now_us - self._said_us < RAISE_PAUSE_US:
            return False
        self._said_us = now_us
        return True

    def media(self, valid_days: int, who: str) -> bytes:
        """The set, packed, with a timestamp that ends so many days from now: for a stick that travels long."""
        if not 1 <= valid_days <= MAX_MEDIA_DAYS:
            raise RejectedError(f"valid for {valid_days} days: wanted 1 to {MAX_MEDIA_DAYS}")
        with self._store.writing() as db:
            lock(db, "trust")
            held = read_set(db)
            if held is None:
                raise UnknownError(MISSING)
            now_us = self._now_us()
            lasts = timedelta(days=valid_days)
            self._sign(db, held.as_new(), held, now_us, lasts=lasts)
            travels = read_set(db) or held
            # What the broker has must end in a week as ever, and not be older than what a stick has.
            self._sign(db, held.as_new(), travels, now_us)
            audit.note(db, now_us, who, "trust metadata for media", {"valid_days": valid_days})
        self._changed()
        return pack(travels.files)

    def _check_keys(self, new: SignedSet) -> None:
        mine = self.online_key
        for role in ("snapshot", "timestamp"):
            named = new.root.signed.roles[role]
            keys = [new.root.signed.keys[keyid].keyval.get("public") for keyid in named.keyids]
            if mine not in keys or named.threshold != 1:
                raise RejectedError(
                    f"trust metadata: its root names another {role} key than this hub's: is it the operator's folder "
                    f"of another hub? If this hub's keys were made anew: `edge-agent trust rotate online` with {mine}"
                )
        if director_path(self.director) not in new.targets.signed.targets:
            raise RejectedError(
                "trust metadata: its targets do not name this hub's director key, so sites would not believe it: "
                f"`edge-agent trust rotate director` with {self.director}"
            )

    def _sign(
        self,
        db: Connection,
        new: SignedSet,
        held: HeldSet | None,
        now_us: int,
        above: int = 0,
        lasts: timedelta = EXPIRY["timestamp"],
    ) -> dict[str, int]:
        """Write this state with new online metadata, both of a version above all that was given."""
        from tuf.api.metadata import Metadata, MetaFile, Snapshot, Timestamp  # noqa: PLC0415 - only when it changes

        signer, now = file_signer(self._key), as_datetime(now_us)
        before = held.versions() if held is not None else {}
        version = max(before.get("snapshot", 0), before.get("timestamp", 0), above) + 1
        meta = {
            f"{role}.json": MetaFile(v, len(data), {"sha256": _sha256(data)}) for role, (v, data) in new.roles().items()
        }
        snapshot = Metadata(Snapshot(version=version, expires=now + max(lasts, EXPIRY["snapshot"]), meta=meta))
        snapshot.sign(signer)
        data = snapshot.to_bytes()
        info = MetaFile(version, len(data), {"sha256": _sha256(data)})
        timestamp = Metadata(Timestamp(version=version, expires=now + lasts, snapshot_meta=info))
        timestamp.sign(signer)
        files = new.files | {f"{version}.snapshot.json": data, "timestamp.json": timestamp.to_bytes()}
        pack(files)  # within the limits, or it is not taken
        db.execute(delete(table))
        db.execute(table.insert(), [{"name": name, "data": file} for name, file in files.items()])
        return {name: v for name, (v, _) in new.roles().items()} | {
            "root": new.root.signed.version,
            "snapshot": version,
            "timestamp": version,
        }


def packed_set(db: Connection) -> bytes | None:
    """The set as it is published; None where nothing was handed over yet."""
    held = read_set(db)
    return None if held is None else pack(held.files)


def unsigned(db: Connection, wanted: Mapping[tuple[Kind, str], str]) -> str | None:
    """The first of these, by kind and digest, that the operator has not signed, as it is called; None: all are.

    Raises `UnknownError` where there is no trust metadata.
    """
    held = read_set(db)
    if held is None:
        raise UnknownError(MISSING)
    for (kind, digest), name in wanted.items():
        if target_path(kind, digest) not in held.metadata(kind).signed.targets:
            return name
    return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
