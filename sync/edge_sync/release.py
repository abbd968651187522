"""What a site should run: the agents document people write, and the release document made from it.

A person writes *agents* with paths to a bundle and a policy (in a site file, or in a release file);
`resolve` turns that into a `Release`, where every path has become the sha256 of the bytes it named.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from edge_models.digests import Digest, digest_of
from edge_models.errors import ConfigError

CHUNK_SIZE_BYTES = 128 * 1024
"""Bytes of an artifact in one message. Source: measured, docs/design.md section 6."""

MAX_ARTIFACT_BYTES = 512 * 1024 * 1024
"""The largest artifact a site accepts; 4,096 chunks."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
DigestField = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class SourceSpec(BaseModel):
    """Where an agent's observations come from; keys other than `kind` belong to that kind of source."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str

    @property
    def options(self) -> dict[str, Any]:
        """The source's own keys."""
        return dict(self.model_extra or {})


class AgentSpec(BaseModel):
    """One agent: a source, a model, a policy, and what it may do."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Name
    where: dict[str, str] = {}
    """Site labels this agent runs at; empty: at every site."""
    bundle: str
    """A path in a file that a person writes; a digest in a release."""
    policy: str
    source: SourceSpec
    inputs: dict[str, str] = {}
    """Model input → dotted path in the observation; an input not named here is read from its own name."""
    subject: str | None = None
    """Dotted path in the observation of what it is about (a machine, a shelf)."""
    grants: list[str] = []
    """Tools this agent may call; the site file's ceiling must grant them too."""
    valid_for_s: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """A decision older than this, found unresolved after a restart, is not acted on any more."""
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 32
    """Most observations inferred and committed together."""


class Artifact(BaseModel):
    """Bytes a release needs, by digest, and how to verify each chunk of them on arrival."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    name: str
    size: Annotated[int, Field(ge=0, le=MAX_ARTIFACT_BYTES)]
    chunks: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]
    """sha256 of each chunk of `CHUNK_SIZE_BYTES`; the last may be shorter."""


class Release(BaseModel):
    """One coherent set of agents, bundles and policies, everything by digest."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    release: Annotated[int, Field(ge=0)]
    agents: list[AgentSpec]
    artifacts: dict[DigestField, Artifact]

    def for_site(self, labels: Mapping[str, str]) -> "Release":
        """The part of this release that a site with these labels runs, with only the artifacts that part needs."""
        agents = [a for a in self.agents if all(labels.get(k) == v for k, v in a.where.items())]
        needed = {a.bundle for a in agents} | {a.policy for a in agents}
        artifacts = {d: a for d, a in self.artifacts.items() if d in needed}
        return Release(release=self.release, agents=agents, artifacts=artifacts)


def describe(name: str, data: bytes) -> Artifact:
    """The artifact entry for `data`."""
    starts = range(0, len(data), CHUNK_SIZE_BYTES)
    hashes = [hashlib.sha256(data[i : i + CHUNK_SIZE_BYTES]).hexdigest() for i in starts]
    return Artifact(name=name, size=len(data), chunks=hashes)


def resolve(number: int, agents: list[AgentSpec], base: Path) -> tuple[Release, dict[Digest, bytes]]:
    """The release that these agents make, and the bytes of its artifacts.

    Paths are relative to `base`. Raises `ConfigError` where a file is missing or two agents share a name.
    """
    blobs: dict[Digest, bytes] = {}
    artifacts: dict[str, Artifact] = {}
    resolved = []
    names: set[str] = set()
    for agent in agents:
        if agent.name in names:
            raise ConfigError(f"two agents are named {agent.name!r}: each needs a name of its own")
        names.add(agent.name)
        digests = {}
        for key in ("bundle", "policy"):
            path = base / getattr(agent, key)
            try:
                data = path.read_bytes()
            except OSError as error:
                raise ConfigError(f"agent {agent.name!r}: {key} {path}: {error.strerror}") from None
            digest = digest_of(data)
            blobs[digest] = data
            artifacts[digest] = describe(path.name, data)
            digests[key] = digest
        resolved.append(agent.model_copy(update=digests))
    return Release(release=number, agents=resolved, artifacts=artifacts), blobs
