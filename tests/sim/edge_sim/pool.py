"""What the one operator of all runs signed, made once a process: releases good and bad, and the states of trust.

Every key is made of its name, and ed25519 signs the same bytes the same way: two processes make the same metadata.
"""

import atexit
import hashlib
import json
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge_models.digests import Digest, digest_of
from edge_sim.disk import scratch
from edge_sim.world import START_US
from edge_sync.release import AgentSpec, Artifact, Release, SourceSpec, describe
from edge_sync.signing import public_key
from edge_sync.trust.paths import KINDS, OFFLINE, ROOT_KEYS, target_path
from edge_sync.trust.repository import Repository, Target

Quality = Literal["good", "golden check fails", "disappoints", "crashes"]
"""What becomes of a release where it is loaded, or on trial."""

SITE_FILE = Release.of(0, [], {})
"""What every site runs before any release came."""

QUALITIES: tuple[Quality, ...] = (
    "good",
    "good",
    "disappoints",
    "golden check fails",
    "good",
    "crashes",
    "disappoints",
    "good",
    "good",
)
"""Of the releases 1 to 9."""

UNSIGNED = 9
"""This one the operator never signs: only who has stolen the hub's key would push it."""

BUNDLE_BYTES = 300_000
"""Three chunks."""

CHANGED_BYTES = 40_000
"""Of each bundle against the one before: a delta is one chunk."""

_STEPS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("sign", (1, 2)),
    ("sign", (3, 4)),
    ("withdraw", (2,)),
    ("sign", (5, 6)),
    ("rotate", ()),
    ("sign", (7, 8)),
    ("withdraw", (5,)),
)
"""What the operator does, one after the other: signs releases, withdraws a bundle, gives a role another key."""


@dataclass(frozen=True, slots=True)
class State:
    """What the operator had signed at one time."""

    files: Mapping[str, bytes]
    versions: Mapping[str, int]
    """Role → version."""
    releases: tuple[int, ...]
    """Those that may run."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Nothing in it changes once it is made, but that `blobs` gains the deltas a hub makes."""

    root: bytes
    states: Sequence[State]
    releases: Mapping[int, Release]
    blobs: Path
    """A folder with every artifact, by its sha256: a hub's."""
    online: Path
    director: Path
    stranger: Path
    """Key files; the last is nobody's whom a site trusts."""
    signed: Mapping[tuple[str, int], frozenset[str]]
    """Role and version → the target paths it names."""

    def quality(self, release: int) -> Quality:
        """What becomes of it."""
        return "good" if release == SITE_FILE.release else QUALITIES[release - 1]

    def targets(self, release: Release) -> dict[str, str]:
        """Target path → the role that has to name it, of all that must be signed before this release may run."""
        found = {target_path("agents", release.document_digest): "agents"}
        for agent in release.agents:
            found |= {target_path("models", agent.bundle): "models", target_path("policies", agent.policy): "policies"}
        return found


@cache
def pool() -> Pool:
    """The operator's work of this process."""
    folder = scratch()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    blobs = folder / "blobs"
    blobs.mkdir()
    online, director, stranger = (key_file(folder / f"{name}.key") for name in ("online", "director", "stranger"))
    releases = _releases(blobs)
    operator = folder / "operator"
    uris = {role: [f"file2:{key_file(folder / f'{role}-{n}.pem')}" for n in range(_keys(role))] for role in OFFLINE}
    repository = Repository.create(operator, public_key(online), public_key(director), _no_passphrase, _now, uris)
    states, allowed = [_state(repository, ())], set[int]()
    for what, numbers in _STEPS:
        if what == "rotate":
            repository.rotate("models", _no_passphrase, f"file2:{key_file(folder / 'models-new.pem')}")
        for number in numbers:
            if what == "sign":
                repository.add(_targets(releases[number]), _no_passphrase)
                allowed.add(number)
            else:
                repository.withdraw(target_path("models", releases[number].agents[0].bundle), _no_passphrase)
                allowed.discard(number)
        states.append(_state(repository, tuple(sorted(allowed))))
    signed: dict[tuple[str, int], frozenset[str]] = {}
    for state in states:
        for role in KINDS:
            named = json.loads(state.files[f"{state.versions[role]}.{role}.json"])["signed"]["targets"]
            signed[role, state.versions[role]] = frozenset(named)
    root = (operator / "metadata" / "1.root.json").read_bytes()
    return Pool(root, states, releases, blobs, online, director, stranger, signed)


def key_file(path: Path) -> Path:
    """A private key, always the same for this name, in a new file."""
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(path.name.encode()).digest())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def bundle(number: int) -> bytes:
    """Says of itself what becomes of it; shares most of its bytes with the one before."""
    body = bytearray(random.Random("bundle").randbytes(BUNDLE_BYTES))
    for each in range(1, number + 1):
        body[each * 20_000 : each * 20_000 + CHANGED_BYTES] = random.Random(f"bundle {each}").randbytes(CHANGED_BYTES)
    head = json.dumps({"release": number, "quality": QUALITIES[number - 1]}).encode()
    return len(head).to_bytes(2, "big") + head + bytes(body)


def quality_in(data: bytes) -> Quality:
    """What a bundle says."""
    said: Quality = json.loads(data[2 : 2 + int.from_bytes(data[:2], "big")])["quality"]
    return said


def _releases(blobs: Path) -> dict[int, Release]:
    made = {}
    for number in range(1, len(QUALITIES) + 1):
        policy = f"policy of release {number // 3 * 3}".encode()  # several share one
        artifacts: dict[str, Artifact] = {}
        for name, data in (("bundle", bundle(number)), ("policy", policy)):
            digest = _keep(blobs, data)
            artifacts[digest] = describe(name, data)
        model, rules = artifacts
        spec = AgentSpec(name="watch", bundle=model, policy=rules, source=SourceSpec(kind="replay"))
        made[number] = Release.of(number, [spec], artifacts)
    return made


def _keep(blobs: Path, data: bytes) -> Digest:
    digest = digest_of(data)
    (blobs / digest.removeprefix("sha256:")).write_bytes(data)
    return digest


def _targets(release: Release) -> list[Target]:
    document = release.document.encode()
    found = [Target("agents", digest_of(document), len(document), "agents")]
    for agent in release.agents:
        found.append(Target("models", agent.bundle, release.artifacts[agent.bundle].size, "bundle"))
        found.append(Target("policies", agent.policy, release.artifacts[agent.policy].size, "policy"))
    return found


def _state(repository: Repository, releases: tuple[int, ...]) -> State:
    files = dict(repository.files())
    versions: dict[str, int] = {}
    for name in files:
        version, role, _ = name.split(".")
        versions[role] = max(versions.get(role, 0), int(version))
    return State(files, versions, releases)


def _keys(role: str) -> int:
    return ROOT_KEYS if role == "root" else 1


def _now() -> datetime:
    return datetime.fromtimestamp(START_US / 1e6, UTC)


def _no_passphrase(_: str) -> None:
    """Keys in plain files."""
