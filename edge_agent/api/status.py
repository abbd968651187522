"""What the status page shows: the caller fills in what it knows, and the page leaves out the rest."""

from typing import Literal, TypedDict

Light = Literal["ok", "attention", "down"]
"""How something is: as it should be, needs a look, or does not work."""


class HubStatus(TypedDict, total=False):
    """The link to the hub."""

    connected: bool
    address: str
    for_s: float
    """How long it has been so."""
    backlog_rows: int
    """Records the hub has not acknowledged."""
    autonomy_s: float
    """How long the site may go on without the hub, by its disk."""
    certificate: str
    """Why it has no certificate, or no newer one, where it was tried in vain."""


class ReleaseStatus(TypedDict, total=False):
    """What the site runs."""

    number: int
    state: str
    detail: str
    """Why it is in that state, where that needs saying."""


class LastDecision(TypedDict, total=False):
    """An agent's latest decision."""

    id: str
    at_us: int
    """UTC microseconds."""
    subject: str
    label: str
    score: float
    rule: str
    action: str
    """What was done: a tool and what came of it; left out where the policy abstained."""


class AgentStatus(TypedDict, total=False):
    """One agent."""

    name: str
    light: Light
    state: str
    model: str
    digest: str
    decisions: int
    error: str
    last: LastDecision


class MemoryStatus(TypedDict, total=False):
    """The journal."""

    used_bytes: int
    budget_bytes: int
    evicted_rows: int
    written_bytes_per_decision: int
    """What the process made the disk write, for each decision it made."""


class Status(TypedDict, total=False):
    """The site at this moment."""

    site: str
    light: Light
    headline: str
    """One sentence for the technician: all is well, or what to do."""
    version: str
    uptime_s: float
    now_us: int
    """The site's clock, UTC microseconds."""
    hub: HubStatus
    release: ReleaseStatus
    agents: list[AgentStatus]
    memory: MemoryStatus
