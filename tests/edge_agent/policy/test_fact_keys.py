"""Which facts a policy reads: never fewer than it does."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.policy import Situation, load_policy
from edge_agent.policy.cel import Scope, compile_condition
from edge_agent.policy.fact_keys import fact_keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("prediction.score > 0.5", set()),
        ('facts.mode == "auto"', {"mode"}),
        ('facts["press-7.state"].worn == true', {"press-7.state"}),
        ("has(facts.mode) && facts . limit > 3", {"mode", "limit"}),
        ("'mode' in facts && !(\"limit\" in facts)", {"mode", "limit"}),
        ('facts.mode.startsWith("facts.other")', {"mode"}),
        ('prediction.label == "facts"', set()),
        ('[1, 2].exists(x, x == facts.limit) ? facts.a == 1 : "b" in facts', {"limit", "a", "b"}),
        ('observation.kind in facts["kinds"] || "x" in facts.list', {"kinds", "list"}),
    ],
)
def test_known_forms_are_told_exactly(text: str, keys: set[str]) -> None:
    compile_condition(text)
    assert fact_keys(text) == frozenset(keys)


@pytest.mark.parametrize(
    "text",
    [
        "facts[prediction.label] == 1",
        "size(facts) > 3",
        'facts.exists(k, k.startsWith("stop"))',
        "prediction.label in facts",
        '("a" + "b") in facts',
        '"a" + "b" in facts',
        'facts["a" + "b"] == 1',
        'facts["a\\x62"] == 1',
        'facts["""a"b"""] == 1',
        "facts.`a-b` == 1",
        ".facts.a == 1",
        "facts // all of them\n.a == 1",
        "[1].exists(facts, facts > 0)",
        "facts == {}",
    ],
)
def test_what_can_not_be_told_is_any(text: str) -> None:
    compile_condition(text)
    assert fact_keys(text) is None


_KEYS = st.sampled_from(["a", "b", "ab", "in", "facts"])
_QUOTED = st.builds(lambda key, quote: f"{quote}{key}{quote}", _KEYS, st.sampled_from("\"'"))
_ATOM = st.one_of(
    st.builds("facts.{} == 1".format, st.sampled_from(["a", "b", "ab", "facts"])),
    st.builds("has(facts.{})".format, st.sampled_from(["a", "b"])),
    st.builds("facts[{}] == 1".format, _QUOTED),
    st.builds("{} in facts".format, _QUOTED),
    st.builds("{} + {} in facts".format, _QUOTED, _QUOTED),
    st.builds("facts[{} + {}] == 1".format, _QUOTED, _QUOTED),
    st.builds("{} == {}".format, _QUOTED, _QUOTED),
)
_TEXTS = st.recursive(
    _ATOM,
    lambda inner: st.one_of(
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("{} || {}".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("(({}) ? {} : {})".format, inner, inner, inner),
    ),
    max_leaves=5,
)


@given(_TEXTS, st.dictionaries(_KEYS, st.integers(0, 2)))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_condition_is_the_same_with_the_facts_it_is_said_to_read(
    situation: Callable[..., Situation], text: str, facts: dict[str, Any]
) -> None:
    expression = compile_condition(text)
    keys = facts.keys() if expression.facts_read is None else expression.facts_read
    read = {key: value for key, value in facts.items() if key in keys}
    both = [expression.holds(Scope(situation(facts=given), expression.reads)) for given in (facts, read)]
    assert both[0] == both[1]


def test_a_policy_reads_what_its_conditions_and_arguments_do() -> None:
    rule = "{{name: r{n}, when: 'facts.{key} == 1', do: {{tool: alert, with: {{message: '={message}'}}}}}}"
    exact = [rule.format(n=1, key="mode", message="facts.name"), rule.format(n=2, key="limit", message="facts.name")]
    policy = load_policy(f"policy: p\nversion: 1\nrules: [{', '.join(exact)}]\n".encode())
    assert policy.facts_read == policy.fresh().facts_read == frozenset({"mode", "limit", "name"})
    computed = [*exact, rule.format(n=3, key="mode", message="facts[prediction.label]")]
    assert load_policy(f"policy: p\nversion: 1\nrules: [{', '.join(computed)}]\n".encode()).facts_read is None
