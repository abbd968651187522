"""Acting: the grants, the deadline, the tool, and the record of what came of it."""

import logging
from collections.abc import Callable, Mapping

from edge_agent.memory.draft import Draft, to_body
from edge_agent.memory.journal import Journal
from edge_agent.memory.queries import OpenIntent, latest_at, open_intents
from edge_agent.memory.schema import reading
from edge_agent.records import Choice, Outcome
from edge_agent.tools.base import Call, Tool
from edge_agent.tools.grants import allowed
from edge_models.errors import KitError
from edge_sync.release import AgentSpec

log = logging.getLogger(__name__)

MAX_VALID_S = 86_400
"""The longest `valid_for_s` that a release may give."""


class Actor:
    """Runs tools for all agents of a site, within what the release and the site file grant."""

    def __init__(
        self, journal: Journal, tools: Mapping[str, Tool], ceiling: frozenset[str], now_us: Callable[[], int]
    ) -> None:
        """`ceiling`: the tools any agent of this site may call at all."""
        self._journal, self._tools, self._ceiling, self._now_us = journal, tools, ceiling, now_us

    def act(self, spec: AgentSpec, decision: Draft, choice: Choice) -> Outcome:
        """Do what a durable decision says; its result is recorded with the next transaction."""
        do, intent = choice.do, decision.intent
        if do is None or intent is None or decision.id is None:
            raise ValueError("only a durable decision that names a tool can be acted on")
        call = Call(decision.id, spec.name, decision.subject, intent.valid_until_us)
        outcome = self._run(do.tool, do.args, call, frozenset(spec.grants))
        self._record(call, do.tool, outcome)
        return outcome

    def settle(self, spec: AgentSpec) -> int:
        """Settle what an agent of this process left open when it crashed; returns how many.

        Raises `JournalUnavailableError`: a result that still waits to be written must not look like none.
        """
        self._journal.flush()
        with reading(self._journal.path) as connection:
            left = open_intents(connection, spec.name)
        return self.resolve(left, {spec.name: spec})

    def resolve(self, intents: list[OpenIntent], specs: Mapping[str, AgentSpec]) -> int:
        """Settle what agents that ended left open; returns how many.

        In time and idempotent: done again under the same decision id. Else: recorded as expired or unknown.
        """
        with reading(self._journal.path) as connection:
            not_before_us = latest_at(connection)
        for intent in intents:
            call = Call(intent.decision, intent.agent, intent.subject, intent.valid_until_us)
            outcome = self._resolved(intent, specs.get(intent.agent), call, not_before_us)
            self._record(call, intent.tool, outcome)
        return len(intents)

    def _resolved(self, intent: OpenIntent, spec: AgentSpec | None, call: Call, not_before_us: int) -> Outcome:
        tool, now_us = self._tools.get(intent.tool), self._now_us()
        if max(now_us, not_before_us) >= intent.valid_until_us:
            return Outcome("expired", {"reason": "the agent ended before it was done; too late to do it now"})
        if now_us < intent.at_us or intent.valid_until_us - now_us > MAX_VALID_S * 1_000_000:
            return Outcome("unknown", {"reason": "the clock was set back, so nobody knows how old this decision is"})
        if spec is None or tool is None or not tool.idempotent:
            return Outcome("unknown", {"reason": "the agent ended while it was being done"})
        outcome = self._run(intent.tool, intent.args, call, frozenset(spec.grants))
        return Outcome(outcome.status, {**outcome.detail, "repeated": True})

    def _run(self, name: str, args: Mapping[str, object], call: Call, grants: frozenset[str]) -> Outcome:
        refused = allowed(name, grants, self._ceiling)
        tool = self._tools.get(name)
        if refused is not None or tool is None:
            return Outcome("refused", {"reason": refused or f"no tool is named {name!r} here"})
        if self._now_us() >= call.deadline_us:
            return Outcome("expired", {"reason": "decided too long ago"})
        try:
            return Outcome("done", dict(tool.run(args, call) or {}))
        except KitError as error:
            return Outcome("failed", {"error": str(error)})
        except Exception as error:  # a third party's tool must not take its agent down
            log.exception("tool_crashed", extra={"tool": name, "agent": call.agent})
            return Outcome("failed", {"error": f"{type(error).__name__}: {error}"[:500]})

    def _record(self, call: Call, tool: str, outcome: Outcome) -> None:
        """Record what came of an act. Where that can't be, its intent stays open, and the next act has its turn."""
        try:
            self._journal.later([self._result(call, tool, outcome)])
        except Exception:  # a full disk, or what a third party's tool returned is no JSON
            log.exception("result_not_recorded", extra={"decision": call.decision, "status": outcome.status})

    def _result(self, call: Call, tool: str, outcome: Outcome) -> Draft:
        lane = self._tools[tool].lane if tool in self._tools and outcome.status == "done" else "decision"
        body = to_body({"status": outcome.status, **outcome.detail})
        return Draft(
            lane,
            "action",
            call.agent,
            self._now_us(),
            body,
            subject=call.subject,
            label=tool,
            ref=call.decision,
            settles=True,
        )
