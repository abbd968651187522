"""The operator's side of trust: what may run anywhere, signed by keys that never lie at the hub.

A folder (`edge_sync.trust.folder`) that is worked on with the hub away, and whose metadata are handed to it afterwards.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from tuf.api.metadata import TargetFile

from edge_models.errors import ConfigError, RejectedError
from edge_sync.trust.draft import HUB, ROLES, Draft
from edge_sync.trust.folder import State, commit, locked, read
from edge_sync.trust.keys import KeyRing, Secrets
from edge_sync.trust.paths import EXPIRY, KINDS, OFFLINE, ROOT_KEYS, Kind, target_path
from edge_sync.trust.status import RoleStatus, standing

Now = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Target:
    """Bytes that may run: `digest` is their sha256, `name` is for people."""

    kind: Kind
    digest: str
    size_bytes: int
    name: str

    @property
    def path(self) -> str:
        """What they are called in the metadata."""
        return target_path(self.kind, self.digest)


class Repository:
    """An operator's folder. Each change is whole or not at all, and only one is made at a time."""

    def __init__(self, folder: Path, now: Now, media: Sequence[Path] = ()) -> None:
        """`media`: further folders in which key files are looked for. Raises `ConfigError` where `folder` is none."""
        read(folder)
        self.folder, self._now, self._media = folder, now, tuple(media)

    @classmethod
    def create(
        cls,
        folder: Path,
        online: str,
        director: str,
        secrets: Secrets,
        now: Now,
        uris: Mapping[str, Sequence[str]] | None = None,
    ) -> Self:
        """A new repository for the hub with these public keys (ed25519, hex); `uris`: role → signers, else key files.

        Root has three keys, or as many as are given. Raises `ConfigError`, and then there is no folder.
        """
        uris = uris or {}
        if strange := sorted(set(uris).difference(OFFLINE)):
            raise ConfigError(f"signer for {strange[0]!r}: wanted a role of {', '.join(OFFLINE)}")
        try:
            folder.absolute().parent.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
        except OSError as error:
            raise ConfigError(f"{folder}: {error.strerror}") from None
        try:
            draft = Draft(None, KeyRing(new, secrets), now())
            for role in OFFLINE:
                given = list(uris.get(role, ()))
                missing = max(0, (ROOT_KEYS if role == "root" else 1) - len(given))
                for uri in [*given, *[None] * missing]:
                    draft.add(role, uri, None)
            draft.add("online", None, online)
            draft.add("director", None, director)
            commit(new, None, draft.signed(), draft.signers)
            new.rename(folder)  # over an empty one, but over no other
        except BaseException as error:
            shutil.rmtree(new, ignore_errors=True)
            if isinstance(error, OSError):
                raise ConfigError(f"{folder}: {os.strerror(error.errno or 0)}: wanted a new folder") from None
            raise
        return cls(folder, now)

    def add(self, targets: Iterable[Target], secrets: Secrets, again: bool = False) -> list[str]:
        """Sign what may run; the paths that were not signed before. Nothing changes where all were.

        Raises `RejectedError` for a digest that is none, or is signed with another size, or was withdrawn and is not
        to be signed `again`.
        """
        added = []
        with self._change(secrets) as draft:
            signed = self.signed()
            for target in targets:
                digest = target.path.partition("/")[2]
                if target.kind not in KINDS or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                    raise RejectedError(f"target {target.path}: wanted models, policies or agents, and a sha256")
                known = signed.get(target.path)
                if known is not None and known.size_bytes != target.size_bytes:
                    raise RejectedError(f"target {target.path}: is signed with {known.size_bytes} bytes")
                if known is None:
                    withdrawn = draft.withdrawn(target.kind)
                    if target.path in withdrawn and not again:
                        raise RejectedError(
                            f"{target.name} ({target.path}) was withdrawn: --again signs it all the same"
                        )
                    if target.path in withdrawn:
                        draft.set_withdrawn(target.kind, [path for path in withdrawn if path != target.path])
                    extra = {"custom": {"name": target.name}}
                    file = TargetFile(target.size_bytes, {"sha256": digest}, target.path, extra)
                    draft.targets(target.kind)[target.path] = file
                    signed[target.path] = target
                    added.append(target.path)
        return added

    def withdraw(self, path: str, secrets: Secrets) -> None:
        """Sign no longer what has this path. Raises `ConfigError` where it is not signed."""
        with self._change(secrets) as draft:
            if path not in self.signed():
                raise ConfigError(f"target {path!r}: is not signed; trust status --json lists what is")
            role = path.partition("/")[0]
            del draft.targets(role)[path]
            draft.set_withdrawn(role, [*draft.withdrawn(role), path])

    def add_key(self, role: str, secrets: Secrets, uri: str | None = None, public: str | None = None) -> str:
        """Give a role one more key and return its id: a new file; or the one `uri` names, whose public half `public` is
        (64 hex digits or a PEM file) where it can't be asked; of `online` and `director`, the hub's `public` key.
        """
        with self._change(secrets) as draft:
            return draft.add(_known(role), uri, public)

    def revoke_key(self, role: str, keyid: str, secrets: Secrets) -> str:
        """Take a key from a role; its id, which may be given by its first 8 digits or more, in full.

        Raises `ConfigError` where fewer keys would be left than must sign.
        """
        with self._change(secrets) as draft:
            fitting = [each for each in draft.keyids(_known(role)) if len(keyid) >= 8 and each.startswith(keyid)]
            keyid = fitting[0] if len(fitting) == 1 else keyid
            draft.revoke(role, keyid)
        return keyid

    def rotate(self, role: str, secrets: Secrets, uri: str | None = None, public: str | None = None) -> list[str]:
        """Give a role new keys in place of all it has, as many; their ids. Arguments as of `add_key`."""
        with self._change(secrets) as draft:
            old = draft.keyids(_known(role))
            if len(old) > 1 and (uri or public) and role not in HUB:
                raise ConfigError(f"{role}: has {len(old)} keys: use add-key and revoke-key to choose their signers")
            new = [draft.add(role, uri, public) for _ in (old[:1] if role in HUB else old)]
            for keyid in old:
                draft.revoke(role, keyid)
        return new

    def renew(self, secrets: Secrets, roles: Iterable[str] = OFFLINE) -> list[str]:
        """A later end for what these roles signed; those whose end is not earlier than it would be are left."""
        renewed = []
        with self._change(secrets) as draft:
            for role in roles:
                if role not in OFFLINE:
                    raise ConfigError(f"role {role!r}: wanted one of {', '.join(OFFLINE)}")
                if draft.expires(role) < (self._now() + EXPIRY[role]).replace(microsecond=0):
                    draft.touch(role)
                    renewed.append(role)
        return renewed

    def files(self) -> dict[str, bytes]:
        """What a hub is handed, by file name: every root, and the newest of the other offline roles."""
        return dict(read(self.folder).files)

    def signed(self) -> dict[str, Target]:
        """What may run, by path."""
        state = read(self.folder)
        return {
            path: Target(kind, file.hashes["sha256"], file.length, str((file.custom or {}).get("name", "")))
            for kind in KINDS
            for path, file in state.targets(kind).signed.targets.items()
        }

    def status(self) -> list[RoleStatus]:
        """Every role, and the hub's keys."""
        return standing(read(self.folder), self._ring(_none), self._now())

    def _ring(self, secrets: Secrets) -> KeyRing:
        return KeyRing(self.folder, secrets, self._media)

    @contextlib.contextmanager
    def _change(self, secrets: Secrets) -> Iterator[Draft]:
        """A draft that is signed and counts when the block ends; key files made for one that fails are removed."""
        with locked(self.folder):
            before = read(self.folder)
            now = self._now()
            _check_clock(now, before)
            ring = self._ring(secrets)
            draft = Draft(before, ring, now)
            try:
                yield draft
                if changed := draft.signed():
                    commit(self.folder, before, changed, draft.signers)
            except BaseException:
                if read(self.folder).versions == before.versions:
                    for path in ring.made:
                        path.unlink(missing_ok=True)
                raise


def _check_clock(now: datetime, before: State) -> None:
    """A clock that stands still at 1970 would sign what has ended long ago."""
    made = before.root().signed.expires - EXPIRY["root"]
    if now < made - timedelta(days=1):
        raise ConfigError(f"this machine's clock says {now:%Y-%m-%d}, and root was signed on {made:%Y-%m-%d}: set it")


def _known(role: str) -> str:
    if role not in ROLES:
        raise ConfigError(f"role {role!r}: wanted one of {', '.join(ROLES)}")
    return role


def _none(_: str) -> None:
    return None
