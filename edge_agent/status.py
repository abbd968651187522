"""The site at this moment, for the technician's page and for Prometheus."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version

from edge_agent.api.metrics import Family, Sample
from edge_agent.api.status import AgentStatus, HubStatus, LastDecision, MemoryStatus, ReleaseStatus, Status
from edge_agent.config import Site
from edge_agent.enrol.service import EnrolmentService
from edge_agent.loop import Loop
from edge_agent.memory.journal import Journal
from edge_agent.memory.wear import WearMeter
from edge_agent.supervisor import Supervisor
from edge_agent.update.service import UpdateService
from edge_agent.uplink import UplinkService
from edge_agent.worker import Worker

_STARTED_S = time.monotonic()

COUNTERS = {
    "observations": "What the agent saw.",
    "malformed": "What it received and could not read or infer.",
    "decisions": "Decisions made, abstentions included.",
    "abstained": "Decisions to abstain.",
    "actions": "Acts begun.",
    "failed_actions": "Acts refused, failed or too late.",
}
"""Field of `Counts` → its help line; the metric is ``edge_agent_FIELD_total``."""


@dataclass(frozen=True, slots=True)
class Watched:
    """The parts of a site process that are looked at. `uplink` and `updates` are None where there is no hub."""

    site: Site
    journal: Journal
    wear: WearMeter
    supervisor: Supervisor
    uplink: UplinkService | None
    updates: UpdateService | None
    first_release: int
    """What ran when the process began."""
    enrolment: EnrolmentService | None = None
    """None where the site gets no certificate from its hub."""

    @property
    def release(self) -> int:
        """The number of the release that runs."""
        return self.updates.reported().release if self.updates is not None else self.first_release


def status(process: Watched) -> Status:
    """What the page shows."""
    agents = [_agent(worker) for worker in process.supervisor.workers()]
    down = [agent for agent in agents if agent["light"] == "down"]
    waiting = [agent for agent in agents if agent["light"] == "attention"]
    shown: Status = {
        "site": process.site.config.site,
        "version": version("edge-agent-kit"),
        "uptime_s": time.monotonic() - _STARTED_S,
        "now_us": time.time_ns() // 1000,
        "release": _release(process),
        "agents": agents,
        "memory": _memory(process),
    }
    hub = _hub(process)
    if hub is not None:
        shown["hub"] = hub
    if down:
        shown["light"], shown["headline"] = "down", f"Agent {down[0]['name']} does not run: {down[0]['error']}"
    elif waiting:
        shown["light"] = "attention"
        shown["headline"] = f"Agent {waiting[0]['name']} gets nothing from its machines: {waiting[0]['error']}"
    elif hub is not None and not hub["connected"]:
        shown["light"] = "attention"
        shown["headline"] = "All agents run. The link to the hub is down; nothing is lost, records wait on this disk."
    else:
        shown["light"], shown["headline"] = "ok", "All is well."
    return shown


def families(process: Watched) -> Iterable[Family]:
    """What /metrics says beside the models' own numbers."""
    workers = process.supervisor.workers()
    for field, text in COUNTERS.items():
        samples = (Sample(getattr(w.loop.counts, field), {"agent": w.brain.spec.name}) for w in workers)
        yield Family(f"edge_agent_{field}_total", "counter", text, tuple(samples))
    yield _gauge("edge_agents_down", "Agents that do not run now.", sum(w.problem is not None for w in workers))
    yield _gauge("edge_release", "The release that runs.", process.release)
    yield Family(
        "edge_journal_commits_total", "counter", "Transactions of the journal.", (Sample(process.journal.commits, {}),)
    )
    memory = _memory(process)
    wear = process.wear.wear()
    if wear is not None:
        text = "Bytes this process made the disk write, checkpoints and updates included."
        yield Family("edge_disk_written_bytes_total", "counter", text, (Sample(wear.written_bytes, {}),))
        yield _gauge("edge_disk_written_bytes_per_decision", "Of these, for each decision.", wear.per_decision)
    yield _gauge("edge_journal_budget_bytes", "What the journal may take of the disk.", memory["budget_bytes"])
    yield _gauge("edge_journal_bytes", "The journal on disk, its WAL included.", memory["used_bytes"])
    if process.uplink is not None:
        yield _gauge("edge_outbox_rows", "Records the hub has not acknowledged.", process.uplink.backlog())
        yield _gauge("edge_hub_online", "Whether the link to the hub is up.", int(process.uplink.online))
    if process.enrolment is not None and process.enrolment.held is not None:
        ends_s = process.enrolment.held.ends_us / 1e6
        yield _gauge("edge_certificate_ends_timestamp_seconds", "When the site's certificate ends, UTC.", ends_s)


def _gauge(name: str, text: str, value: float) -> Family:
    return Family(name, "gauge", text, (Sample(value, {}),))


def _agent(worker: Worker) -> AgentStatus:
    brain, loop = worker.brain, worker.loop
    shown: AgentStatus = {
        "name": brain.spec.name,
        "light": "down" if worker.problem else "attention" if worker.waits_for else "ok",
        "state": f"policy {brain.policy.name} {brain.policy.version}",
        "model": f"{brain.model.contract.name} {brain.model.contract.version}",
        "digest": brain.model.digest,
        "decisions": loop.counts.decisions,
    }
    problem = worker.problem or worker.waits_for
    if problem is not None:
        shown["error"] = problem
    if loop.last is not None:
        shown["last"] = _last(loop)
    return shown


def _last(loop: Loop) -> LastDecision:
    draft = loop.last
    if draft is None:
        raise ValueError("no decision was made yet")
    shown: LastDecision = {
        "id": draft.id or "",
        "at_us": draft.at_us,
        "rule": draft.label or "",
        "score": draft.score or 0.0,
    }
    if draft.subject is not None:
        shown["subject"] = draft.subject
    if draft.intent is not None:
        outcome = loop.last_outcome
        shown["action"] = f"{draft.intent.tool}: {outcome.status if outcome else 'under way'}"
    return shown


def _hub(process: Watched) -> HubStatus | None:
    uplink, hub = process.uplink, process.site.config.hub
    if uplink is None or hub is None:
        return None
    shown: HubStatus = {"connected": uplink.online, "address": hub.broker, "backlog_rows": uplink.backlog()}
    if process.enrolment is not None and process.enrolment.problem is not None:
        shown["certificate"] = process.enrolment.problem
    return shown


def _release(process: Watched) -> ReleaseStatus:
    shown: ReleaseStatus = {"number": process.release, "state": "active"}
    if process.updates is not None:
        reported = process.updates.reported()
        shown["state"] = reported.state
        if reported.reason is not None:
            shown["detail"] = reported.reason
        elif reported.target is not None:
            shown["detail"] = f"on the way to release {reported.target}"
    return shown


def _memory(process: Watched) -> MemoryStatus:
    path = process.journal.path
    files = (path.with_name(path.name + end) for end in ("", "-wal", "-shm"))
    shown: MemoryStatus = {
        "used_bytes": sum(os.stat(file).st_size for file in files if file.exists()),
        "budget_bytes": process.site.config.disk.journal_mb * 1024 * 1024,
    }
    wear = process.wear.wear()
    if wear is not None and wear.decided:
        shown["written_bytes_per_decision"] = round(wear.per_decision)
    return shown
