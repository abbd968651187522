"""The agent loop: observe → infer → decide → remember → act → remember.

A decision is durable before its act begins; the act's result joins the next transaction. What waits in the
source is inferred together and committed in one transaction.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.actor import Actor
from edge_agent.brain import Brain
from edge_agent.inference.inputs import one, stack
from edge_agent.inference.model import Tensors
from edge_agent.inference.registry import Models
from edge_agent.memory.draft import Draft, Intent, to_body, to_json, well_formed
from edge_agent.memory.journal import Journal
from edge_agent.policy import Policy, Situation
from edge_agent.recent import Recent
from edge_agent.records import Choice, Json, Malformed, Observation, Outcome, Prediction
from edge_agent.sources.base import Source
from edge_models.errors import RejectedError


@dataclass(slots=True)
class Counts:
    """What an agent did since its process began, for /metrics and the status page."""

    observations: int = 0
    malformed: int = 0
    decisions: int = 0
    abstained: int = 0
    actions: int = 0
    failed_actions: int = 0


class Loop:
    """One agent's loop, run on the agent's own thread."""

    def __init__(
        self,
        journal: Journal,
        actor: Actor,
        models: Models,
        site: Mapping[str, str],
        facts: Callable[[], Mapping[str, Json]],
        now_us: Callable[[], int],
        monotonic_s: Callable[[], float],
    ) -> None:
        """`site` is what policies see as `site`: the site's labels and its `id`. `models` counts inferences."""
        self._journal, self._actor, self._models, self._site, self._facts = journal, actor, models, site, facts
        self._now_us, self._monotonic_s = now_us, monotonic_s
        self.counts = Counts()
        self.last: Draft | None = None
        """The newest durable decision."""
        self.last_outcome: Outcome | None = None
        """What came of acting on it; None where it did not act, or not yet."""

    def step(self, brain: Brain, source: Source, recent: Recent, timeout_s: float) -> int:
        """Take what waits, decide on it, remember, act. Returns how many things were taken.

        Raises `JournalUnavailableError` before anything is done: no record, no act.
        """
        taken = source.take(brain.spec.max_batch, timeout_s)
        lost = source.dropped()
        if not taken and not lost:
            return 0
        drafts = [self._event(brain, {"dropped": lost, "reason": "the source's queue was full"})] if lost else []
        readable = self._read(brain, taken, drafts)
        acting = self._decide(brain, readable, recent, drafts)
        self._journal.write(drafts)
        source.done()
        self.last = next((draft for draft in reversed(drafts) if draft.kind == "decision"), self.last)
        self.last_outcome = None
        for decision, choice in acting:
            outcome = self._actor.act(brain.spec, decision, choice)
            if decision is self.last:
                self.last_outcome = outcome
            self.counts.actions += 1
            self.counts.failed_actions += outcome.status != "done"
        return len(taken)

    def settle(self, brain: Brain) -> None:
        """Settle the acts that a crash of this agent cut short. Raises `JournalUnavailableError`."""
        self._actor.settle(brain.spec)

    def _read(
        self, brain: Brain, taken: Sequence[Observation | Malformed], drafts: list[Draft]
    ) -> list[tuple[Observation, Draft, Tensors]]:
        """The observations a model can take, each with its draft; what it can't becomes an event, not a crash."""
        readable = []
        for item in taken:
            if isinstance(item, Malformed):
                self.counts.malformed += 1
                drafts.append(
                    self._event(brain, {"malformed": item.reason, "source": item.source, "excerpt": item.excerpt})
                )
                continue
            self.counts.observations += 1
            observed = Draft(
                "telemetry",
                "observation",
                brain.spec.name,
                item.at_us,
                to_body(dict(item.values)),
                subject=_at_path(item.values, brain.spec.subject),
            )
            drafts.append(observed)
            try:
                readable.append(
                    (item, observed, one(brain.model.contract, brain.spec.inputs, item, brain.model.before))
                )
            except RejectedError as error:
                self.counts.malformed += 1
                drafts.append(self._event(brain, {"malformed": str(error), "source": item.source}, ref=observed))
        return readable

    def _decide(
        self,
        brain: Brain,
        readable: Sequence[tuple[Observation, Draft, Tensors]],
        recent: Recent,
        drafts: list[Draft],
    ) -> list[tuple[Draft, Choice]]:
        """Infer all of it at once, decide one by one; returns the decisions that act."""
        if not readable:
            return []
        started = self._monotonic_s()
        with self._models.measured(brain.model.contract.name):
            predictions = _predict(brain, [inputs for _, _, inputs in readable])
        infer_us = round((self._monotonic_s() - started) * 1e6 / len(readable))
        facts = _facts_for(brain.policy, self._facts())
        acting = []
        for (observation, observed, inputs), prediction in zip(readable, predictions, strict=True):
            if isinstance(prediction, RejectedError):
                self.counts.malformed += 1
                drafts.append(self._event(brain, {"not_inferred": str(prediction)}, ref=observed))
                continue
            recent.add(prediction.label, observation.at_us)
            predicted = self._predicted(brain, observed, prediction, inputs, infer_us)
            situation = Situation(
                observation=observation.values,
                prediction=prediction,
                facts=facts,
                site=self._site,
                recent=recent.counter(observation.at_us),
            )
            choice = brain.policy.decide(situation, self._monotonic_s())
            decision = self._decided(brain, predicted, prediction, choice, facts)
            drafts += (predicted, decision)
            self.counts.decisions += 1
            self.counts.abstained += choice.abstained is not None
            if choice.do is not None:
                acting.append((decision, choice))
        return acting

    def _predicted(
        self, brain: Brain, observed: Draft, prediction: Prediction, inputs: Tensors, infer_us: int
    ) -> Draft:
        body = {
            "model": brain.model.digest,
            "version": brain.model.contract.version,
            "input_sha256": _input_sha256(inputs),
            "scores": {label: round(score, 6) for label, score in prediction.scores.items()},
            "infer_us": infer_us,
        }
        if prediction.values:
            body["values"] = dict(prediction.values)
        return Draft(
            "telemetry",
            "prediction",
            brain.spec.name,
            self._now_us(),
            to_body(body),
            subject=observed.subject,
            label=prediction.label,
            score=prediction.score,
            ref=observed,
        )

    def _decided(
        self, brain: Brain, predicted: Draft, prediction: Prediction, choice: Choice, facts: Mapping[str, Json]
    ) -> Draft:
        """The decision's record: all that explaining and replaying it needs."""
        now_us = self._now_us()
        valid_until_us = now_us + round(brain.spec.valid_for_s * 1e6)
        body: dict[str, Json] = {
            "release": brain.release,
            "policy": {"name": brain.policy.name, "version": brain.policy.version, "digest": brain.policy.digest},
            "model": brain.model.digest,
            "prediction": {
                "label": prediction.label,
                "score": round(prediction.score, 6),
                **({"values": dict(prediction.values)} if prediction.values else {}),
            },
            "conditions": [
                {"rule": c.rule, "value": c.value, **({"error": c.error} if c.error else {})} for c in choice.conditions
            ],
            "facts": dict(facts),
        }
        if choice.abstained is not None:
            body["abstained"] = choice.abstained
        intent = None
        if choice.do is not None:
            body["do"] = {"tool": choice.do.tool, "args": choice.do.args}
            intent = Intent(choice.do.tool, to_json(dict(choice.do.args)), valid_until_us)
        return Draft(
            "decision",
            "decision",
            brain.spec.name,
            now_us,
            to_body(body),
            subject=predicted.subject,
            label=choice.rule or "abstain",
            score=prediction.score,
            ref=predicted,
            intent=intent,
        )

    def _event(self, brain: Brain, what: dict[str, Json], ref: Draft | None = None) -> Draft:
        return Draft("telemetry", "event", brain.spec.name, self._now_us(), to_body(what), label="source", ref=ref)


def _predict(brain: Brain, batches: Sequence[Tensors]) -> list[Prediction | RejectedError]:
    """A prediction for each, inferred together; only where that fails one by one, to find which are to blame."""
    try:
        return list(brain.model.predict(stack(batches)))
    except RejectedError as error:
        if len(batches) == 1:
            return [error]
    return [answer for batch in batches for answer in _predict(brain, [batch])]


def _at_path(values: Mapping[str, Json], path: str | None) -> str | None:
    """What the observation is about, as text; None where the path leads nowhere."""
    if path is None:
        return None
    current: Json = values
    for part in path.split("."):
        if not isinstance(current, Mapping) or part not in current:
            return None
        current = current[part]
    return well_formed(str(current)[:200])


def _facts_for(policy: Policy, facts: Mapping[str, Json]) -> Mapping[str, Json]:
    """The facts that the policy can read: all that it is given of them, and all that its decisions' records hold."""
    if policy.facts_read is None:
        return facts
    return {key: facts[key] for key in sorted(policy.facts_read) if key in facts}


def _input_sha256(inputs: Tensors) -> str:
    """The hash of what the model was given: each input's name, then its array's bytes, in order of name."""
    h = hashlib.sha256()
    for name in sorted(inputs):
        h.update(name.encode())
        h.update(np.ascontiguousarray(inputs[name]).data)
    return h.hexdigest()
