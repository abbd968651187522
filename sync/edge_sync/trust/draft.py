"""A change to an operator's metadata, from what counts to what is signed anew; nothing of it is on disk yet."""

import hashlib
from datetime import datetime
from typing import Any

from securesystemslib.signer import Key
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Role, Root, TargetFile, Targets

from edge_models.errors import ConfigError
from edge_sync.trust.folder import State
from edge_sync.trust.keys import KeyRing, public_from
from edge_sync.trust.paths import EXPIRY, KINDS, OFFLINE, ONLINE, ROOT_THRESHOLD, director_path

HUB = ("online", "director")
"""Names of the hub's keys: of its roles snapshot and timestamp, and of its word on what a site should run."""

ROLES = (*OFFLINE, *HUB)

WITHDRAWN = "x-withdrawn"
"""A field of a role's metadata, beside those of the standard: what it named once and no longer does, on purpose."""


class Draft:
    """Metadata that may be changed, until `signed` makes new versions of what was."""

    def __init__(self, before: State | None, ring: KeyRing, now: datetime) -> None:
        """A change of `before`; of None: the first version of everything, which has no keys yet."""
        self._before, self._ring, self._now = before, ring, now
        self._signers = dict(before.signers if before else {})
        self._root = before.root() if before else Metadata(_first_root())
        self._targets: dict[str, Metadata[Targets]] = {
            role: before.targets(role) if before else Metadata(Targets(version=1)) for role in OFFLINE[1:]
        }
        self._touched = set() if before else set(OFFLINE)
        if before is None:
            self._targets["targets"].signed.delegations = Delegations({}, {kind: _delegated(kind) for kind in KINDS})

    @property
    def signers(self) -> dict[str, str]:
        """Key id → URI."""
        return self._signers

    def touch(self, role: str) -> None:
        """Make a new version of what this role signed."""
        self._touched.add(role)

    def targets(self, role: str) -> dict[str, TargetFile]:
        """What this role names, by path, to be changed: there will be a new version of it."""
        self.touch(role)
        return self._targets[role].signed.targets

    def withdrawn(self, role: str) -> list[str]:
        """The paths that this role no longer names on purpose; a copy."""
        return list(self._targets[role].signed.unrecognized_fields.get(WITHDRAWN, []))

    def set_withdrawn(self, role: str, paths: list[str]) -> None:
        """With the next version of this role."""
        self.touch(role)
        self._targets[role].signed.unrecognized_fields[WITHDRAWN] = sorted(set(paths))

    def threshold(self, role: str) -> int:
        """How many of its keys must sign."""
        return 1 if role == "director" else self._role(role).threshold

    def expires(self, role: str) -> datetime:
        """When what this role signed so far ends."""
        return (self._root if role == "root" else self._targets[role]).signed.expires

    def keyids(self, role: str) -> list[str]:
        """The keys of a role; a director's is named by its public key's hex."""
        if role == "director":
            prefix = director_path("")
            paths = self._targets["targets"].signed.targets
            return [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
        return list(self._role(role).keyids)

    def add(self, role: str, uri: str | None, public: str | None) -> str:
        """Give a role a key, and return its id: a new file, or the one a URI names; of the hub, its public half."""
        if role in HUB:
            if public is None or uri is not None:
                raise ConfigError(
                    f"{role}: this key is the hub's own: give its public half, 64 hex digits (--public-key)"
                )
            key: Key = public_from(public)
            if key.keytype != "ed25519":
                raise ConfigError(f"{role}: the hub signs with ed25519, and this key is {key.keytype}")
        elif uri is None:
            if public is not None:
                raise ConfigError(f"{role}: a public key alone can't sign: give its signer's URI too")
            uri, key = self._ring.make(role, self._signers.values())
        elif public is None:
            uri, key = self._ring.find(uri)
        else:
            key = public_from(public)
        keyid = key.keyval["public"] if role == "director" else key.keyid
        if keyid in self.keyids(role):
            raise ConfigError(f"{role}: has key {keyid} already")
        if role == "director":
            raw = bytes.fromhex(keyid)
            file = TargetFile(len(raw), {"sha256": hashlib.sha256(raw).hexdigest()}, director_path(keyid))
            self.targets("targets")[file.path] = file
            return str(keyid)
        self.touch(self._namer(role).type)
        for each in ONLINE if role == "online" else (role,):
            self._namer(role).add_key(key, each)
        if uri is not None:
            self._signers[keyid] = uri
        return keyid

    def revoke(self, role: str, keyid: str) -> None:
        """Take a key from a role. Raises `ConfigError` where the role has not got it, or could not do without it."""
        keyids, threshold = self.keyids(role), self.threshold(role)
        if keyid not in keyids:
            raise ConfigError(f"{role}: has no key {keyid}; it has {', '.join(keyids)}")
        if len(keyids) <= threshold:
            raise ConfigError(f"{role}: needs {threshold} of its {len(keyids)} keys to sign: add one before")
        if role == "director":
            del self.targets("targets")[director_path(keyid)]
            return
        self.touch(self._namer(role).type)
        for each in ONLINE if role == "online" else (role,):
            self._namer(role).revoke_key(keyid, each)

    def signed(self) -> dict[str, Metadata[Any]]:
        """New versions of what was touched, and of what a change of keys left without enough signatures.

        Raises `ConfigError` where too few of the keys can be used, with the reason for each.
        """
        self._keep_apart()
        changed: dict[str, Metadata[Any]] = {}
        for role in OFFLINE:
            metadata: Metadata[Any] = self._root if role == "root" else self._targets[role]
            namers: list[Root | Targets] = [self._namer(role)]
            if role == "root" and self._before is not None:
                namers.insert(0, self._before.root().signed)
            if role not in self._touched and namers[-1].get_verification_result(
                role, metadata.signed_bytes, metadata.signatures
            ):
                continue
            metadata.signed.version += 0 if self._before is None else 1
            metadata.signed.expires = self._now + EXPIRY[role]
            self._sign(role, metadata, namers)
            changed[role] = metadata
        return changed

    def _sign(self, role: str, metadata: Metadata[Any], namers: list[Root | Targets]) -> None:
        """Signatures of as many keys as each of `namers` wants; no key is asked for more than that needs."""
        metadata.signatures.clear()
        failed: dict[str, str] = {}
        lasting = set(namers[-1].get_delegated_role(role).keyids)
        for namer in namers:
            wanted = namer.get_delegated_role(role)
            for keyid in sorted(wanted.keyids, key=lambda each: each not in lasting):
                if namer.get_verification_result(role, metadata.signed_bytes, metadata.signatures):
                    break
                if keyid not in metadata.signatures and keyid not in failed:
                    try:
                        self._sign_with(metadata, namer.get_key(keyid))
                    except ConfigError as error:
                        failed[keyid] = str(error)
            result = namer.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
            if not result:
                reasons = "; ".join(failed.values()) or "the signatures that were made do not verify"
                raise ConfigError(f"{role}: {len(result.signed)} of {wanted.threshold} signatures: {reasons}")

    def _sign_with(self, metadata: Metadata[Any], key: Key) -> None:
        if (uri := self._signers.get(key.keyid)) is None:
            raise ConfigError(f"key {key.keyid}: signers.json does not say where it is")
        try:
            metadata.sign(self._ring.load(uri, key), append=True)
        except UnsignedMetadataError as error:
            if isinstance(error.__cause__, ConfigError):
                raise error.__cause__ from None
            raise ConfigError(f"key {uri}: {error}") from None

    def _namer(self, role: str) -> Root | Targets:
        """Who says which keys this role has."""
        return self._targets["targets"].signed if role in KINDS else self._root.signed

    def _role(self, role: str) -> Role:
        return self._namer(role).get_delegated_role(ONLINE[0] if role == "online" else role)

    def _keep_apart(self) -> None:
        """What lies at the hub must sign nothing that is the operator's."""
        hub = {*self.keyids("online"), *(public_from(key).keyid for key in self.keyids("director"))}
        if mixed := [role for role in OFFLINE if hub.intersection(self.keyids(role))]:
            raise ConfigError(f"{mixed[0]}: has a key of the hub's: whoever has the hub would sign for you")


def _first_root() -> Root:
    roles = {name: Role([], 1) for name in ("root", "targets", *ONLINE)}
    roles["root"].threshold = ROOT_THRESHOLD
    return Root(version=1, roles=roles, consistent_snapshot=True)


def _delegated(kind: str) -> DelegatedRole:
    return DelegatedRole(kind, [], 1, terminating=True, paths=[f"{kind}/*"])
