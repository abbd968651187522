"""A policy's own cases."""

from pathlib import Path

import pytest

from edge_agent.policy import load_policy, run_cases
from edge_agent.policy.cases import same
from edge_agent.records import Json

POLICY = """
policy: p
version: 1
rules:
  - name: a
    when: recent(prediction.label, 60) >= 2
    do: {tool: alert, with: {n: '=recent("other", 60)', score: '=prediction.scores[prediction.label]'}}
    limit: {times: 1, per_s: 60}
cases:
"""


def one(case: str) -> tuple[bool, str, str | None]:
    result = run_cases(load_policy(f"{POLICY}  - {{name: c, {case}}}".encode()))[0]
    return result.passed, result.got, result.choice.abstained


PREDICTION = "prediction: {label: x, score: 0.5}"


def test_the_examples_cases_pass(press_guard: Path) -> None:
    results = run_cases(load_policy(press_guard))
    assert len(results) == 7
    assert all(result.passed for result in results)


def test_a_case_passes_or_fails() -> None:
    assert one(f"given: {{{PREDICTION}}}, expect: abstain") == (True, "abstain", "no rule")
    assert one(f"given: {{{PREDICTION}}}, expect: a") == (False, "abstain", "no rule")
    assert one(f"given: {{{PREDICTION}, recent: 2}}, expect: a") == (True, "a", None)
    assert one(f"given: {{{PREDICTION}, recent: 2}}, expect: abstain") == (False, "a", None)


def test_recent_is_a_number_or_by_label() -> None:
    given = f"given: {{{PREDICTION}, recent: {{x: 2, '*': 5}}}}"
    assert one(f"{given}, expect: a, expect_with: {{n: 5, score: 0.5}}")[0]
    assert one(f"given: {{{PREDICTION}, recent: {{x: 2}}}}, expect: a, expect_with: {{n: 0, score: 0.5}}")[0]


def test_arguments_are_compared() -> None:
    assert not one(f"given: {{{PREDICTION}, recent: 2}}, expect: a, expect_with: {{n: 2}}")[0]
    assert one(f"given: {{{PREDICTION}, recent: 2}}, expect: a, expect_with: {{n: 2.0, score: 0.5}}")[0]


def test_no_case_uses_up_the_limit_of_another() -> None:
    case = f"  - {{name: NAME, given: {{{PREDICTION}, recent: 2}}, expect: a}}\n"
    loaded = load_policy((POLICY + case.replace("NAME", "c1") + case.replace("NAME", "c2")).encode())
    assert [result.got for result in run_cases(loaded) + run_cases(loaded)] == ["a"] * 4


def test_a_policy_may_have_no_cases() -> None:
    assert run_cases(load_policy(POLICY.replace("cases:", "").encode())) == []


@pytest.mark.parametrize(
    ("expected", "got", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (True, True, True),
        ([1, {"a": [2]}], [1.0, {"a": [2]}], True),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": True}, {"a": 1}, False),
        ({}, None, False),
        (None, None, True),
        ("1", 1, False),
    ],
)
def test_same(expected: Json, got: Json, equal: bool) -> None:
    assert same(expected, got) is equal
