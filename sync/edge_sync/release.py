"""What a site should run: the agents document people write, and the release document made from it.

A person writes *agents* with paths to a bundle and a policy (in a site file, or in a release file);
`resolve` turns that into a `Release`, where every path has become the sha256 of the bytes it named.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

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
    """Model input → dotted path in the observation; an input not named here is read from its own name, or, if it has
    columns, from the observation itself."""
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

    @model_validator(mode="after")
    def _chunks_fit(self) -> "Artifact":
        if len(self.chunks) != (count := -(-self.size // CHUNK_SIZE_BYTES)):
            raise ValueError(f"{len(self.chunks)} chunks, where {self.size} bytes have {count}")
        return self


class Release(BaseModel):
    """One coherent set of agents, bundles and policies, everything by digest."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    release: Annotated[int, Field(ge=0)]
    document: str
    """The agents document: JSON text, as it was signed. Only its very bytes have its digest."""
    artifacts: dict[DigestField, Artifact]

    @classmethod
    def of(cls, number: int, agents: Iterable[AgentSpec], artifacts: Mapping[str, Artifact]) -> "Release":
        """The release of these agents."""
        return cls(release=number, document=agents_document(agents), artifacts=dict(artifacts))

    @model_validator(mode="before")
    @classmethod
    def _from_before_documents(cls, value: Any) -> Any:
        """Releases that were kept before agents were signed have a list of them."""
        if not isinstance(value, dict) or "document" in value or "agents" not in value:
            return value
        agents = TypeAdapter(list[AgentSpec]).validate_python(value["agents"])
        return value | {"document": agents_document(agents)}

    @field_validator("document")
    @classmethod
    def _names_agents(cls, value: str) -> str:
        _read_agents(value)
        return value

    @cached_property
    def agents(self) -> tuple[AgentSpec, ...]:
        """What the document says."""
        return _read_agents(self.document)

    @property
    def document_digest(self) -> Digest:
        """What its signature names."""
        return digest_of(self.document.encode())

    def agents_for(self, labels: Mapping[str, str]) -> tuple[AgentSpec, ...]:
        """Those that run at a site with these labels."""
        return tuple(a for a in self.agents if all(labels.get(k) == v for k, v in a.where.items()))

    def for_site(self, labels: Mapping[str, str]) -> "Release":
        """This release with only the artifacts that a site with these labels needs."""
        needed = {digest for a in self.agents_for(labels) for digest in (a.bundle, a.policy)}
        return self.model_copy(update={"artifacts": {d: a for d, a in self.artifacts.items() if d in needed}})


class _Agents(BaseModel):
    """The agents document, for a machine."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    agents: tuple[AgentSpec, ...]


def agents_document(agents: Iterable[AgentSpec]) -> str:
    """The text in which agents are signed; equal for equal agents."""
    said = [agent.model_dump(mode="json", exclude_defaults=True) for agent in agents]
    return json.dumps({"agents": said}, sort_keys=True, separators=(",", ":"))


def _read_agents(document: str) -> tuple[AgentSpec, ...]:
    try:
        return _Agents.model_validate_json(document).agents
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise ValueError(f"agents document: {where or 'text'}: {first['msg']}") from None


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
    return Release.of(number, resolved, artifacts), blobs
