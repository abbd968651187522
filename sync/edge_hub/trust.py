"""The hub's part of trust: it holds what the operator signed, and says which version of it is the newest.

Its own key signs `snapshot` and `timestamp` and nothing else: whoever steals it can hold sites at a state for a while,
and install nothing. Every set that comes is verified as a site would before it takes the place of the one that is
held. Guarantees: sync/TRUST.md.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, select

from edge_hub import audit
from edge_hub.dialect import lock
from edge_hub.schema import trust as table
from edge_hub.store import Store, UnknownError
from edge_models.errors import RejectedError
from edge_sync.documents import Reported
from edge_sync.signing import file_signer, public_key
from edge_sync.trust.clock import as_datetime
from edge_sync.trust.collection import check, pack
from edge_sync.trust.paths import EXPIRY, KINDS, Kind, director_path, target_path

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Root, Targets

log = logging.getLogger(__name__)

RENEW = timedelta(days=1)
"""The timestamp is signed again when it is so old; it ends a week after it was signed."""

MAX_AHEAD = 2**32
"""A site may say that it saw online versions so far above this hub's, no further: they end at 2**53."""

RAISE_PAUSE_US = 60_000_000
"""Between two times that the versions are raised above what a site says."""

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

    @property
    def online_key(self) -> str:
        """The public half of the online key, hex."""
        return public_key(self._key)

    def standing(self) -> dict[str, Any]:
        """Role → version, and the newest root's text; empty and None where nothing was handed over yet."""
        with self._store.reading() as db:
            held = _read(db)
        if held is None:
            return {"versions": {}, "root": None}
        return {"versions": held.versions(), "root": held.files[_newest(held.files, "root")].decode()}

    def take(self, files: Mapping[str, bytes], who: str) -> dict[str, int]:
        """Hold this set from now on. Raises `RejectedError` where a site would not follow from the one that is held."""
        check(files)
        with self._store.writing() as db:
            lock(db, "trust")
            now_us = self._now_us()
            held = _read(db)
            new = _verified(files, held, as_datetime(now_us))
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
            held = _read(db)
            now_us = self._now_us()
            if held is None or held.expires("timestamp") > as_datetime(now_us) + EXPIRY["timestamp"] - RENEW:
                return False
            self._sign(db, held.as_new(), held, now_us)
        self._changed()
        return True

    def answer(self, db: Connection, site: str, said: Reported) -> bool:
        """In the caller's transaction: whether the online versions were raised above those that a site says it saw.

        A hub that was restored from a backup is behind its sites, which would refuse what it says.
        """
        theirs = max(said.trust.get("timestamp", 0), said.trust.get("snapshot", 0))
        mine = _versions(db) if said.trust else {}
        if not mine:
            return False
        for role in ("root", "targets", *KINDS):
            if said.trust.get(role, 0) > mine[role]:
                log.error("trust_metadata_behind", extra={"site": site, "role": role, "version": mine[role]})
        ahead = said.trust.get("timestamp", 0) > mine["timestamp"] or said.trust.get("snapshot", 0) > mine["snapshot"]
        now_us = self._now_us()
        paused = self._raised_us is not None and 0 <= now_us - self._raised_us < RAISE_PAUSE_US
        if not ahead or theirs - mine["timestamp"] > MAX_AHEAD or paused:
            return False
        lock(db, audit.LOCK)  # before that of trust, as others have it already where they come here
        lock(db, "trust")
        held = _read(db)  # another worker may have raised them meanwhile
        if held is None:
            return False
        self._raised_us = now_us
        self._sign(db, held.as_new(), held, now_us, above=theirs)
        audit.note(db, now_us, "hub", "trust versions raised", {"site": site, "above": theirs})
        return True

    def media(self, valid_days: int, who: str) -> bytes:
        """The set, packed, with a timestamp that ends so many days from now: for a stick that travels long."""
        if not 1 <= valid_days <= MAX_MEDIA_DAYS:
            raise RejectedError(f"valid for {valid_days} days: wanted 1 to {MAX_MEDIA_DAYS}")
        with self._store.writing() as db:
            lock(db, "trust")
            held = _read(db)
            if held is None:
                raise UnknownError(MISSING)
            now_us = self._now_us()
            lasts = timedelta(days=valid_days)
            self._sign(db, held.as_new(), held, now_us, lasts=lasts)
            travels = _read(db) or held
            # What the broker has must end in a week as ever, and not be older than what a stick has.
            self._sign(db, held.as_new(), travels, now_us)
            audit.note(db, now_us, who, "trust metadata for media", {"valid_days": valid_days})
        self._changed()
        return pack(travels.files)

    def _check_keys(self, new: "_New") -> None:
        mine = self.online_key
        for role in ("snapshot", "timestamp"):
            named = new.root.signed.roles[role]
            keys = [new.root.signed.keys[keyid].keyval.get("public") for keyid in named.keyids]
            if mine not in keys or named.threshold != 1:
                raise RejectedError(
                    f"trust metadata: its root names another {role} key than this hub's: "
                    f"`edge-agent trust rotate online` with {mine}"
                )
        if director_path(self.director) not in new.targets.signed.targets:
            raise RejectedError(
                "trust metadata: its targets do not name this hub's director key, so sites would not believe it: "
                f"`edge-agent trust rotate director` with {self.director}"
            )

    def _sign(
        self,
        db: Connection,
        new: "_New",
        held: "_Held | None",
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


@dataclass(frozen=True, slots=True)
class _New:
    """A verified set of what the operator signed: all roots, and the newest of every other role."""

    files: dict[str, bytes]
    root: "Metadata[Root]"
    targets: "Metadata[Targets]"
    kinds: dict[str, "Metadata[Targets]"]

    def roles(self) -> dict[str, tuple[int, bytes]]:
        """Role → version and bytes, without the root."""
        found = {}
        for role, metadata in (("targets", self.targets), *self.kinds.items()):
            version = metadata.signed.version
            found[role] = (version, self.files[f"{version}.{role}.json"])
        return found


@dataclass(frozen=True, slots=True)
class _Held:
    """The set as it lies in the database; it was verified when it came."""

    files: dict[str, bytes]
    _parsed: dict[str, Any] = field(default_factory=dict)

    def offline(self) -> dict[str, bytes]:
        """What the operator signed."""
        return {n: data for n, data in self.files.items() if n != "timestamp.json" and not n.endswith("snapshot.json")}

    def metadata(self, role: str) -> Any:
        """The newest of this role."""
        from tuf.api.metadata import Metadata  # noqa: PLC0415

        if role not in self._parsed:
            self._parsed[role] = Metadata.from_bytes(self.files[_newest(self.files, role)])
        return self._parsed[role]

    def versions(self) -> dict[str, int]:
        """Role → version."""
        return {
            role: int(self.metadata(role).signed.version)
            for role in ("root", "targets", *KINDS, "snapshot", "timestamp")
        }

    def expires(self, role: str) -> datetime:
        """When it does."""
        found: datetime = self.metadata(role).signed.expires
        return found

    def as_new(self) -> _New:
        """The same, to be signed again."""
        kinds: dict[str, Metadata[Targets]] = {kind: self.metadata(kind) for kind in KINDS}
        return _New(self.offline(), self.metadata("root"), self.metadata("targets"), kinds)


def packed_set(db: Connection) -> bytes | None:
    """The set as it is published; None where nothing was handed over yet."""
    held = _read(db)
    return None if held is None else pack(held.files)


def unsigned(db: Connection, wanted: Mapping[tuple[Kind, str], str]) -> str | None:
    """The first of these, by kind and digest, that the operator has not signed, as it is called; None: all are.

    Raises `UnknownError` where there is no trust metadata.
    """
    held = _read(db)
    if held is None:
        raise UnknownError(MISSING)
    for (kind, digest), name in wanted.items():
        if target_path(kind, digest) not in held.metadata(kind).signed.targets:
            return name
    return None


def _read(db: Connection) -> _Held | None:
    files = {row.name: bytes(row.data) for row in db.execute(select(table.c.name, table.c.data))}
    return _Held(files) if files else None


def _versions(db: Connection) -> dict[str, int]:
    """Role → version, by the names alone: asked for every report. Snapshot and timestamp are always of one version."""
    versions: dict[str, int] = {}
    for name in db.scalars(select(table.c.name)):
        number, _, role = name.removesuffix(".json").partition(".")
        if role:
            versions[role] = max(int(number), versions.get(role, 0))
    return versions | {"timestamp": versions["snapshot"]} if versions else {}


def _newest(files: Mapping[str, bytes], role: str) -> str:
    if role == "timestamp":
        return "timestamp.json"
    versions = [int(name.split(".")[0]) for name in files if name.split(".")[1:] == [role, "json"]]
    if not versions:
        raise RejectedError(f"trust metadata: it holds no {role}")
    return f"{max(versions)}.{role}.json"


def _verified(files: Mapping[str, bytes], held: _Held | None, now: datetime) -> _New:
    """The set, verified as python-tuf's updater does, from the roots that are held on."""
    from tuf.api.exceptions import RepositoryError  # noqa: PLC0415
    from tuf.api.metadata import Metadata  # noqa: PLC0415

    known = held.offline() if held is not None else {}
    kept: dict[str, bytes] = {name: data for name, data in known.items() if name.endswith(".root.json")}
    try:
        root = _walk_roots(files, kept)
        chosen: dict[str, Metadata[Targets]] = {}
        for role in ("targets", *KINDS):
            name = _newest(files, role)
            metadata: Metadata[Targets] = Metadata.from_bytes(files[name])
            delegator = root.signed if role == "targets" else chosen["targets"].signed
            delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
            if name != f"{metadata.signed.version}.{role}.json":
                raise RejectedError(f"trust metadata: {name} is version {metadata.signed.version}")
            if metadata.signed.is_expired(now):
                raise RejectedError(f"trust metadata: {name} is expired: `edge-agent trust renew`")
            if held is not None and metadata.signed.version < held.versions()[role]:
                raise RejectedError(
                    f"trust metadata: {name} is older than version {held.versions()[role]}, which this hub holds"
                )
            if known.get(name, files[name]) != files[name]:
                raise RejectedError(
                    f"trust metadata: this hub holds another {name}: are there two copies of the operator's folder? "
                    "Sign again in the newer one"
                )
            chosen[role], kept[name] = metadata, files[name]
        if root.signed.is_expired(now):
            raise RejectedError("trust metadata: its newest root is expired: `edge-agent trust renew`")
    except RepositoryError as error:
        raise RejectedError(f"trust metadata: {str(error)[:300]}") from None
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise RejectedError(f"trust metadata: {type(error).__name__}: {str(error)[:200]}") from None
    return _New(kept, root, chosen["targets"], {kind: chosen[kind] for kind in KINDS})


def _walk_roots(files: Mapping[str, bytes], kept: dict[str, bytes]) -> "Metadata[Root]":
    """The newest root that follows, version by version, from those that are held; the first of all is believed."""
    from tuf.api.metadata import Metadata, Root  # noqa: PLC0415

    def read(name: str, data: bytes) -> "Metadata[Root]":
        metadata: Metadata[Root] = Metadata.from_bytes(data)
        if metadata.signed.type != Root.type or name != f"{metadata.signed.version}.root.json":
            raise RejectedError(f"trust metadata: {name} is {metadata.signed.type} {metadata.signed.version}")
        return metadata

    first = _newest(kept, "root") if kept else "1.root.json"
    if first not in kept and first not in files:
        raise RejectedError("trust metadata: it holds no 1.root.json")
    root = read(first, kept.get(first) or files[first])
    root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    for name, data in kept.items():
        if name in files and files[name] != data:
            raise RejectedError(f"trust metadata: this hub holds another {name}: is it of another operator?")
    kept.setdefault(first, files.get(first, b""))
    while (name := f"{root.signed.version + 1}.root.json") in files:
        new = read(name, files[name])
        root.signed.verify_delegate("root", new.signed_bytes, new.signatures)
        new.signed.verify_delegate("root", new.signed_bytes, new.signatures)
        root, kept[name] = new, files[name]
    return root


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
