"""A site with checks switched off, by name: ``python -m weak_site NAME[,NAME…] site.yaml``.

It is the very process of `edge-agent run`. An attack that a site withstands proves something only where it succeeds
against the same site without the check.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from tuf.api._payload import MetaFile, Root, Signed, Targets
from tuf.api.metadata import Metadata
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

import edge_models.layout as bundle_layout
import edge_models.ustar as bundle_tar
import edge_sync.trust.collection as trust_set
import edge_sync.trust.paths as trust_paths
from edge_agent.update import site_updates
from edge_agent.update.blobs import BlobStore
from edge_agent.update.site_updates import SiteUpdates
from edge_cli.main import main
from edge_sync import answers
from edge_sync.chunks import Keep, Receiver, read_chunk
from edge_sync.documents import Desired
from edge_sync.release import CHUNK_SIZE_BYTES
from edge_sync.signing import unverified_payload
from edge_sync.trust.client import Trust, Trusted
from edge_sync.updater import Updater

Weakness = Callable[[], None]


def _desired_signature() -> None:
    """Whoever signed it: a desired document is believed."""
    _set(site_updates, "verify", lambda envelope, _type, _pinned: unverified_payload(envelope))


def _desired_site() -> None:
    """A document for another site is believed."""
    news = Updater.news

    def anybodys(self: Updater, document: Desired) -> bool:
        return news(self, document.model_copy(update={"site": self._site}))

    _set(Updater, "news", anybodys)


def _desired_generation() -> None:
    """A generation that is older than one that was acted on is believed."""
    news = Updater.news

    def forgetful(self: Updater, document: Desired) -> bool:
        self._floor = 0
        return news(self, document)

    _set(Updater, "news", forgetful)


def _operator_signature() -> None:
    """What the director asks for runs, whether or not the operator signed it."""
    _set(SiteUpdates, "_check_signed", lambda _self, _part: None)


def _expiry() -> None:
    """Nothing that was signed ever ends."""
    _set(Signed, "is_expired", lambda _self, _now=None: False)


def _unsigned(*roles: str) -> Weakness:
    """What these roles say is believed, whoever signed it."""

    def weaken() -> None:
        for delegator in (Root, Targets):
            verify = delegator.verify_delegate

            def lenient(self: Any, role: str, *given: Any, verify: Callable[..., None] = verify) -> None:
                if role not in roles:
                    verify(self, role, *given)

            _set(delegator, "verify_delegate", lenient)

    return weaken


def _root_threshold() -> None:
    """One of the root's keys is enough."""
    verify = Root.verify_delegate

    def one(self: Root, role: str, *given: Any) -> None:
        if role == "root":
            self.roles["root"].threshold = 1
        verify(self, role, *given)

    _set(Root, "verify_delegate", one)


def _older(role: str) -> Weakness:
    """An older version of this online role takes the place of a newer one."""

    def weaken() -> None:
        update = getattr(TrustedMetadataSet, f"update_{role}")

        def forgetful(self: TrustedMetadataSet, *given: Any, **named: Any) -> Any:
            self._trusted_set.pop(role, None)
            return update(self, *given, **named)

        _set(TrustedMetadataSet, f"update_{role}", forgetful)

    return weaken


def _metadata_hash() -> None:
    """A metadata file need not be the bytes that the one above names."""
    _set(MetaFile, "verify_length_and_hashes", lambda _self, _data: None)


def _metadata_version() -> None:
    """A metadata file need not be of the version that the snapshot names."""
    update = TrustedMetadataSet.update_delegated_targets

    def any_version(self: TrustedMetadataSet, data: bytes, role: str, delegator: str) -> Targets:
        self.snapshot.meta[f"{role}.json"].version = Metadata[Targets].from_bytes(data).signed.version
        return update(self, data, role, delegator)

    _set(TrustedMetadataSet, "update_delegated_targets", any_version)


def _snapshot_version() -> None:
    """The snapshot need not be of the version that the timestamp names."""
    check = TrustedMetadataSet._check_final_snapshot

    def any_version(self: TrustedMetadataSet) -> None:
        self.timestamp.snapshot_meta.version = self.snapshot.version
        check(self)

    _set(TrustedMetadataSet, "_check_final_snapshot", any_version)


def _delegated_paths() -> None:
    """What one role signs counts as if another had signed it."""
    state = Trusted._state

    def any_path(self: Trusted) -> Trust:
        held = state(self)
        for role in trust_paths.KINDS:
            signed = Metadata[Targets].from_file(str(self._metadata / f"{role}.json")).signed
            held.sizes.update({path: file.length for path, file in signed.targets.items()})
        return held

    _set(Trusted, "_state", any_path)


def _set_limits() -> None:
    """A metadata set may be of any size."""
    for name in ("MAX_FILES", "MAX_FILE_BYTES", "MAX_SET_BYTES", "MAX_PACKED_BYTES"):
        assert isinstance(getattr(trust_paths, name), int)
        _set(trust_set, name, 2**40)


def _chunk_hash() -> None:
    """A chunk that is wanted is kept, whatever its bytes."""

    def trusting(self: Receiver, message: bytes, _now: float) -> Keep | None:
        header, data = read_chunk(message)
        fetch = self._fetches.get(header.digest)
        if fetch is None or header.index not in fetch.missing:
            return None
        return Keep(header.digest, header.index, header.index * CHUNK_SIZE_BYTES, data)

    _set(Receiver, "chunk", trusting)


def _chunk_wanted() -> None:
    """A chunk is kept, whether or not its artifact is wanted."""
    take = Receiver.chunk

    def greedy(self: Receiver, message: bytes, now: float) -> Keep | None:
        header, data = read_chunk(message)
        if header.digest in self._fetches:
            return take(self, message, now)
        return Keep(header.digest, header.index, header.index * CHUNK_SIZE_BYTES, data)

    _set(Receiver, "chunk", greedy)


def _blob_hash() -> None:
    """What its chunks make is the artifact, and so is what the disk gives back."""
    _set(BlobStore, "finish", lambda self, digest: self._finish(self._part(digest), digest))
    _set(BlobStore, "read", lambda self, digest: self._whole(digest).read_bytes())


def _bundle_manifest() -> None:
    """A file of a bundle need not be the one that its manifest names."""

    def named(members: Mapping[str, memoryview], described: Any, what: str) -> memoryview:
        return bundle_layout._take(members, bundle_layout.blob_path(described.digest))

    _set(bundle_layout, "_verified", named)


def _bundle_headers() -> None:
    """A bundle may hold any entry that a tar can: links, devices, names with a path."""

    def any_entry(block: bytes) -> tuple[str, int]:
        return block[:100].rstrip(b"\0").decode("ascii"), int(block[124:135], 8)

    _set(bundle_tar, "_parse", any_entry)


def _bundle_members() -> None:
    """A bundle may hold files that its manifest does not name."""
    unpack = bundle_tar.unpack

    def only_known(archive: bytes) -> dict[str, memoryview]:
        known = ("blobs/sha256/", "index.json", "oci-layout")
        return {name: data for name, data in unpack(archive).items() if name.startswith(known)}

    _set(bundle_tar, "unpack", only_known)


WEAKNESSES: dict[str, Weakness] = {
    "answer-signature": lambda: _set(answers, "_is_of", lambda *_: True),
    "blob-hash": _blob_hash,
    "bundle-headers": _bundle_headers,
    "bundle-manifest": _bundle_manifest,
    "bundle-members": _bundle_members,
    "chunk-hash": _chunk_hash,
    "chunk-wanted": _chunk_wanted,
    "delegated-paths": _delegated_paths,
    "desired-generation": _desired_generation,
    "desired-signature": _desired_signature,
    "desired-site": _desired_site,
    "expiry": _expiry,
    "metadata-hash": _metadata_hash,
    "metadata-version": _metadata_version,
    "older-snapshot": _older("snapshot"),
    "older-timestamp": _older("timestamp"),
    "online-signature": _unsigned("timestamp", "snapshot"),
    "operator-signature": _operator_signature,
    "root-signature": _unsigned("root"),
    "root-threshold": _root_threshold,
    "set-limits": _set_limits,
    "snapshot-version": _snapshot_version,
    "targets-signature": _unsigned("targets", "models", "policies", "agents"),
}
"""Name → what switches the check off, for the rest of the process."""


def _set(owner: Any, name: str, value: Any) -> None:
    """Replace something of production's; a name that is not there any more is a defect of this file."""
    getattr(owner, name)
    setattr(owner, name, value)


if __name__ == "__main__":
    for each in sys.argv[1].split(","):
        WEAKNESSES[each]()
    sys.argv[1:] = ["run", *sys.argv[2:]]
    main()
