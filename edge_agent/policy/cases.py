"""The cases that live in a policy's file: what its author expects of it."""

from dataclasses import dataclass

from edge_agent.policy.engine import Case, Policy
from edge_agent.records import Choice, Json

ABSTAIN = "abstain"
"""What a case expects, or gets, where the policy abstains; no rule may have this name."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case and what came of it."""

    case: Case
    choice: Choice
    passed: bool

    @property
    def got(self) -> str:
        """The name of the rule that decided, or ``abstain``."""
        return ABSTAIN if self.choice.abstained is not None else str(self.choice.rule)


def run_cases(policy: Policy) -> list[CaseResult]:
    """Every case of the policy, each with none of the limits used."""
    return [_run(policy.fresh(), case) for case in policy.cases]


def _run(policy: Policy, case: Case) -> CaseResult:
    choice = policy.decide(case.situation, now_s=0.0)
    args = choice.do.args if choice.do else None
    result = CaseResult(case, choice, passed=case.expect_with is None or same(case.expect_with, args))
    return result if result.got == case.expect else CaseResult(case, choice, passed=False)


def same(expected: Json, got: Json) -> bool:
    """Whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(expected, dict) and isinstance(got, dict):
        return expected.keys() == got.keys() and all(same(expected[key], got[key]) for key in expected)
    if isinstance(expected, list) and isinstance(got, list):
        return len(expected) == len(got) and all(map(same, expected, got))
    return isinstance(expected, bool) == isinstance(got, bool) and bool(expected == got)
