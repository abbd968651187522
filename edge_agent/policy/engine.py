"""A loaded policy, and how it decides."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_agent.policy.arguments import ArgumentError, Arguments
from edge_agent.policy.cel import Expression, Scope
from edge_agent.policy.limit import Limit, Window
from edge_agent.policy.situation import Situation
from edge_agent.records import Choice, Condition, Do, Json
from edge_models.digests import Digest

NO_RULE = "no rule"
"""Why a policy abstains when no condition was true."""

LIMITED = "limit"
"""Why a policy abstains when the rule that decided has acted too often."""

_TEXT = r"""["']([^"'\\]*)["']"""
_LABELS = (
    re.compile(rf"prediction\.label\s*[!=]=\s*{_TEXT}"),
    re.compile(rf"{_TEXT}\s*[!=]=\s*prediction\.label"),
    re.compile(rf"prediction\.scores\[{_TEXT}\]"),
    re.compile(rf"\brecent\(\s*{_TEXT}"),
)
_LABEL_LIST = re.compile(r"prediction\.label\s+in\s+\[([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule, compiled. Without a `tool` it decides to do nothing, on purpose."""

    name: str
    when: Expression
    tool: str | None
    arguments: Arguments
    limit: Limit | None


@dataclass(frozen=True, slots=True)
class Case:
    """A situation that the policy's author wrote down, and what the policy must decide in it."""

    name: str
    situation: Situation
    expect: str
    """A rule's name, or ``abstain``."""
    expect_with: Mapping[str, Json] | None


@dataclass(slots=True, eq=False)
class Policy:
    """Rules in order; the first whose condition is true decides.

    What is compiled has no state and may be shared by threads; the rate limits are state, so one `Policy`
    belongs to one thread, and `fresh` gives another thread its own.
    """

    name: str
    version: int
    digest: Digest
    """Of the file's bytes."""
    abstain_below: float
    rules: tuple[Rule, ...]
    cases: tuple[Case, ...]
    facts_read: frozenset[str] | None = field(init=False, repr=False)
    """The facts that the rules can read; None where one of them computes a key, so it may be any."""
    _windows: dict[str, Window] = field(init=False, repr=False)
    _reads: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._windows = {rule.name: Window(rule.limit) for rule in self.rules if rule.limit}
        self._reads = frozenset().union(*(each.reads for each in self._expressions()))
        facts = [each.facts_read for each in self._expressions()]
        self.facts_read = None if None in facts else frozenset().union(*(keys for keys in facts if keys is not None))

    @property
    def tools(self) -> frozenset[str]:
        """Every tool that a rule names: what the agent must be granted."""
        return frozenset(rule.tool for rule in self.rules if rule.tool)

    @property
    def labels(self) -> frozenset[str]:
        """The model's labels that the rules speak of, as far as their texts show it.

        One that the bundle does not know is a typing error that no type check finds.
        """
        texts = [each.text for each in self._expressions()]
        found = {label for text in texts for pattern in _LABELS for label in pattern.findall(text)}
        lists = [inside for text in texts for inside in _LABEL_LIST.findall(text)]
        return frozenset(found.union(*(re.findall(_TEXT, inside) for inside in lists)))

    def fresh(self) -> "Policy":
        """The same policy with none of its limits used."""
        return Policy(self.name, self.version, self.digest, self.abstain_below, self.rules, self.cases)

    def decide(self, situation: Situation, now_s: float) -> Choice:
        """What to do in this situation, and every condition that was looked at. Never raises for data.

        `now_s` is monotonic seconds; it counts towards the limits of the rules that act.
        """
        if not situation.prediction.score >= self.abstain_below:  # so written, NaN abstains too
            return Choice(None, None, f"score below {self.abstain_below:g}", ())
        scope = Scope(situation, self._reads)
        conditions = []
        for rule in self.rules:
            holds, error = rule.when.holds(scope)
            conditions.append(Condition(rule.name, holds, error))
            if holds:
                return self._act(rule, scope, tuple(conditions), now_s)
        return Choice(None, None, NO_RULE, tuple(conditions))

    def _act(self, rule: Rule, scope: Scope, conditions: tuple[Condition, ...], now_s: float) -> Choice:
        if rule.tool is None:
            return Choice(rule.name, None, None, conditions)
        try:
            do = Do(rule.tool, rule.arguments.fill(scope))
        except ArgumentError as error:
            return Choice(rule.name, None, f"argument {error}", conditions)
        window = self._windows.get(rule.name)
        if window and not window.take(now_s):
            return Choice(rule.name, None, LIMITED, conditions)
        return Choice(rule.name, do, None, conditions)

    def _expressions(self) -> list[Expression]:
        return [each for rule in self.rules for each in (rule.when, *rule.arguments.expressions())]
