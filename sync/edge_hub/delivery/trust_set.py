"""A set of trust metadata at the hub: as it lies in the table, and as one that was handed over is verified."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from edge_hub.database.schema import trust as table
from edge_models.errors import RejectedError
from edge_sync.trust.collection import versions_of
from edge_sync.trust.paths import KINDS

if TYPE_CHECKING:
    from tuf.api.metadata import Metadata, Root, Targets


@dataclass(frozen=True, slots=True)
class SignedSet:
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
class HeldSet:
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
            self._parsed[role] = Metadata.from_bytes(self.files[newest(self.files, role)])
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

    def as_new(self) -> SignedSet:
        """The same, to be signed again."""
        kinds: dict[str, Metadata[Targets]] = {kind: self.metadata(kind) for kind in KINDS}
        return SignedSet(self.offline(), self.metadata("root"), self.metadata("targets"), kinds)


def read_set(db: Connection) -> HeldSet | None:
    """The set in the table; None where nothing was handed over yet."""
    files = {row.name: bytes(row.data) for row in db.execute(select(table.c.name, table.c.data))}
    return HeldSet(files) if files else None


def held_versions(db: Connection) -> dict[str, int]:
    """Role → version, by the names alone: asked for every report. Snapshot and timestamp are always of one version."""
    versions = versions_of(db.scalars(select(table.c.name)))
    return versions | {"timestamp": versions["snapshot"]} if versions else {}


def newest(files: Mapping[str, bytes], role: str) -> str:
    """The name of this role's newest file. Raises `RejectedError` where there is none."""
    if role == "timestamp":
        return "timestamp.json"
    if (version := versions_of(files).get(role)) is None:
        raise RejectedError(f"trust metadata: it holds no {role}")
    return f"{version}.{role}.json"


def verified(files: Mapping[str, bytes], held: HeldSet | None, now: datetime) -> SignedSet:
    """The set, verified as python-tuf's updater does, from the roots that are held on."""
    from tuf.api.exceptions import RepositoryError  # noqa: PLC0415
    from tuf.api.metadata import Metadata  # noqa: PLC0415

    known = held.offline() if held is not None else {}
    kept: dict[str, bytes] = {name: data for name, data in known.items() if name.endswith(".root.json")}
    try:
        root = _walk_roots(files, kept)
        chosen: dict[str, Metadata[Targets]] = {}
        for role in ("targets", *KINDS):
            name = newest(files, role)
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
    return SignedSet(kept, root, chosen["targets"], {kind: chosen[kind] for kind in KINDS})


def _walk_roots(files: Mapping[str, bytes], kept: dict[str, bytes]) -> "Metadata[Root]":
    """The newest root that follows, version by version, from those that are held; the first of all is believed."""
    from tuf.api.metadata import Metadata, Root  # noqa: PLC0415

    def read(name: str, data: bytes) -> "Metadata[Root]":
        metadata: Metadata[Root] = Metadata.from_bytes(data)
        if metadata.signed.type != Root.type or name != f"{metadata.signed.version}.root.json":
            raise RejectedError(f"trust metadata: {name} is {metadata.signed.type} {metadata.signed.version}")
        return metadata

    first = newest(kept, "root") if kept else "1.root.json"
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
