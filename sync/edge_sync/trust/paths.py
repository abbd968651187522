"""The roles of the trust metadata, what each may name, and how large and how old it may be."""

from datetime import timedelta
from typing import Literal

from edge_sync.release import AgentSpec

Kind = Literal["models", "policies", "agents"]
"""What the operator signs, and the name of the role that does."""

MODELS: Kind = "models"
POLICIES: Kind = "policies"
AGENTS: Kind = "agents"
KINDS: tuple[Kind, ...] = (MODELS, POLICIES, AGENTS)

OFFLINE = ("root", "targets", *KINDS)
"""Roles whose keys the operator has."""

ONLINE = ("snapshot", "timestamp")
"""Roles whose key the hub has: they say which version of the others is the newest, and nothing else."""

ROOT_KEYS, ROOT_THRESHOLD = 3, 2

EXPIRY = {
    "root": timedelta(days=730),
    "targets": timedelta(days=365),
    "models": timedelta(days=365),
    "policies": timedelta(days=365),
    "agents": timedelta(days=365),
    "snapshot": timedelta(days=90),
    "timestamp": timedelta(days=7),
}
"""For how long what a role signs may be accepted."""

MAX_FILES = 128
"""Of one metadata set: 60 or so rotations of the root, and what belongs to one state."""

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_SET_BYTES = 8 * 1024 * 1024
"""Of all files of a set, unpacked."""

MAX_PACKED_BYTES = 768 * 1024
"""Of a set as one message: less than what brokers are set to pass on."""


def parts_of(agent: AgentSpec) -> tuple[tuple[Kind, str], tuple[Kind, str]]:
    """What of an agent has to be signed beside the document that names it, by kind and digest."""
    return (MODELS, agent.bundle), (POLICIES, agent.policy)


def target_path(kind: Kind, digest: str) -> str:
    """What the bytes with this sha256 are called in the metadata."""
    return f"{kind}/{digest.removeprefix('sha256:')}"


def director_path(public: str) -> str:
    """What a director's key (ed25519, 64 hex digits) is called in the metadata."""
    return f"director/{public}"
