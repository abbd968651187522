"""An operator's folder: what of it counts, and how a change comes to count, whole or not at all.

    keys/                 key files, as far as they lie here
    signers.json          key id → where its private half is; no secrets
    metadata/N.ROLE.json  what was signed: every root, and of the other roles the newest (and the one before)
    versions.json         role → the version that counts

A change writes metadata under new names, reads it back and verifies it, and then replaces versions.json: until that one
rename nothing has changed, and what an interrupted change left behind is written over by the next.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from edge_models.durable import replace
from edge_models.errors import ConfigError, RetryableError
from edge_sync.trust.collection import pack
from edge_sync.trust.paths import OFFLINE

VERSIONS, SIGNERS, METADATA = "versions.json", "signers.json", "metadata"


@dataclass(frozen=True, slots=True)
class State:
    """What counts in a folder, verified down from the first root."""

    versions: Mapping[str, int]
    files: Mapping[str, bytes]
    """Every root, and the newest of the other roles, by file name."""
    signers: Mapping[str, str]

    def root(self) -> Metadata[Root]:
        """A copy of the newest root."""
        return Metadata.from_bytes(self.files[name_of("root", self.versions["root"])])

    def targets(self, role: str) -> Metadata[Targets]:
        """A copy of the newest metadata of `targets`, or of a role it delegates to."""
        return Metadata.from_bytes(self.files[name_of(role, self.versions[role])])


def name_of(role: str, version: int) -> str:
    """The file name of a role's version."""
    return f"{version}.{role}.json"


def read(folder: Path) -> State:
    """What counts in this folder. Raises `ConfigError` where it is none, or where a file of it is damaged."""
    if not (folder / VERSIONS).is_file():
        raise ConfigError(f"{folder}: no {VERSIONS}: is no folder of an operator's trust; trust init makes one")
    versions = _object(folder / VERSIONS)
    if set(versions) != set(OFFLINE) or not all(type(each) is int and each > 0 for each in versions.values()):
        raise ConfigError(f"{folder / VERSIONS}: wanted a version each for {', '.join(OFFLINE)}")
    return _load(folder, versions)


def commit(
    folder: Path, before: State | None, changed: Mapping[str, Metadata[Any]], signers: Mapping[str, str]
) -> State:
    """Make these metadata count, and their signers known; durable when this returns.

    Raises `ConfigError` or `RejectedError`, before anything has changed, where the whole would not verify.
    """
    versions = dict(before.versions if before else {})
    versions |= {role: metadata.signed.version for role, metadata in changed.items()}
    known = {**(before.signers if before else {}), **signers}
    try:
        (folder / METADATA).mkdir(exist_ok=True)
        for role, metadata in changed.items():
            replace(folder / METADATA / name_of(role, versions[role]), metadata.to_bytes())
        replace(folder / SIGNERS, _dump(known))
        state = _load(folder, versions)
        pack({**state.files, name_of("snapshot", 1): b"", "timestamp.json": b""})  # as the hub will send it
        replace(folder / VERSIONS, _dump(versions))
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: {error.strerror}") from None
    _tidy(folder, before, state)
    return state


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else changes this folder. Raises `RetryableError` where somebody does, `ConfigError` where it is none."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RetryableError(f"{folder}: another command is changing it") from None
        yield
    finally:
        os.close(fd)


def _load(folder: Path, versions: Mapping[str, int]) -> State:
    names = [name_of("root", version) for version in range(1, versions["root"] + 1)]
    names += [name_of(role, versions[role]) for role in OFFLINE[1:]]
    try:
        files = {name: (folder / METADATA / name).read_bytes() for name in names}
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; take it from a copy of this folder") from None
    _verify(folder, files, versions)
    signers = _object(folder / SIGNERS)
    if not all(isinstance(uri, str) for uri in signers.values()):
        raise ConfigError(f"{folder / SIGNERS}: wanted a URI each for key ids")
    return State(versions, files, signers)


def _verify(folder: Path, files: Mapping[str, bytes], versions: Mapping[str, int]) -> None:
    """As a site would, from the first root on; but for expiry, which is what an operator is about to mend."""
    name = ""

    def opened(role: str, version: int, *delegators: Metadata[Any] | None) -> Metadata[Any]:
        nonlocal name
        name = name_of(role, version)
        metadata: Metadata[Any] = Metadata.from_bytes(files[name])
        kind = Root if role == "root" else Targets
        if not isinstance(metadata.signed, kind) or metadata.signed.version != version:
            raise ValueError(f"says that it is version {metadata.signed.version} of {metadata.signed.type}")
        for delegator in delegators:
            (delegator or metadata).verify_delegate(role, metadata)
        return metadata

    try:
        root = None
        for version in range(1, versions["root"] + 1):
            root = opened("root", version, root, None)
        targets = opened("targets", versions["targets"], root)
        for role in OFFLINE[2:]:
            opened(role, versions[role], targets)
    except (RepositoryError, ValueError) as error:
        raise ConfigError(f"{folder / METADATA / name}: {error}; take it from a copy of this folder") from None


def _tidy(folder: Path, before: State | None, state: State) -> None:
    """Forget what nobody needs: the versions before the last two, and where keys are that no role has any more."""
    kept = {*state.files, *(before.files if before else ())}
    targets = state.targets("targets").signed
    keys = {*state.root().signed.keys, *(targets.delegations.keys if targets.delegations else ())}
    with contextlib.suppress(OSError):
        for path in (folder / METADATA).iterdir():
            if path.name not in kept:
                path.unlink()
        replace(folder / SIGNERS, _dump({keyid: uri for keyid, uri in state.signers.items() if keyid in keys}))


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; take it from a copy of this folder") from None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: is no JSON object; take it from a copy of this folder")
    return value


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
