"""A policy file is checked as a whole; every error names the file, the line, the rule, the key and the column."""

import json
import os
import string
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_agent.policy import PolicyError, load_policy
from edge_models.digests import digest_of
from edge_models.errors import ConfigError


def test_the_example_loads(press_guard: Path) -> None:
    loaded = load_policy(press_guard)
    assert (loaded.name, loaded.version, loaded.abstain_below) == ("press-guard", 3, 0.6)
    assert [rule.name for rule in loaded.rules] == ["stop-the-line", "call-a-person", "all-well"]
    assert loaded.digest == digest_of(press_guard.read_bytes())
    assert load_policy(press_guard.read_bytes()).digest == loaded.digest


CASES = [
    (
        'prediction.label == "fault-c"',
        'predicton.label == "fault-c"',
        "f:9: rule 'stop-the-line': when: column 1: undeclared reference to 'predicton.label'"
        " (did you mean 'prediction.label'?)",
    ),
    (
        "facts.maintenance ==",
        "fact.maintenance ==",
        "f:20: rule 'call-a-person': when: line 3, column 34: undeclared reference to 'fact.maintenance'"
        " (did you mean 'facts.maintenance'?)",
    ),
    (
        "recent(prediction.label, 600)",
        "recnt(prediction.label, 600)",
        "f:20: rule 'call-a-person': when: line 2, column 34: undeclared reference to 'recnt' (did you mean 'recent'?)",
    ),
    (
        "score >= 0.8",
        "score >= 1",
        "f:9: rule 'stop-the-line': when: column 51: '>=' does not take (double, int)"
        " (write a double with its point: 1.0)",
    ),
    (
        "machine: =observation.machine, reason",
        "machine: =observatio.machine, reason",
        "f:15: rule 'stop-the-line': do.with.payload.machine: column 2:"
        " undeclared reference to 'observatio.machine' (did you mean 'observation.machine'?)",
    ),
    (
        'when: prediction.label == "normal"',
        "when: prediction.label",
        "f:31: rule 'all-well': when: column 1: a condition must be BOOL, this is STRING",
    ),
    (
        'when: prediction.label == "normal"',
        'when: prediction.label = "normal"',
        "f:31: rule 'all-well': when: column 18: syntax: token recognition error at: '= ' (compare with ==)",
    ),
    (
        'when: prediction.label == "normal"',
        "when: true",
        "f:31: rule 'all-well': when: should be a text (put it in quotes)",
    ),
    (
        "abstain_below: 0.6",
        "abstain_bellow: 0.6",
        "f:5: abstain_bellow: unknown key 'abstain_bellow' (did you mean 'abstain_below'?)",
    ),
    ("abstain_below: 0.6", "abstain_below: 6", "f:5: abstain_below: should be less than or equal to 1"),
    ("version: 3", 'version: "3"', "f:4: version: should be a valid integer"),
    ("version: 3", "version: true", "f:4: version: should be a valid integer"),
    ("version: 3\n", "", "f:3: key 'version' is missing"),
    (
        "limit: {times: 3, per_s: 60}",
        "limit: {time: 3, per_s: 60}",
        "f:16: rule 'stop-the-line': limit: key 'times' is missing",
    ),
    (
        "limit: {times: 3, per_s: 60}",
        "limit: 3",
        "f:16: rule 'stop-the-line': limit: should be a map with the keys times, per_s",
    ),
    ("tool: alert", "tool: Alert!", "f:25: rule 'call-a-person': do.tool: should be a tool's name"),
    ("name: all-well", "name: stop-the-line", "f:30: rule 'stop-the-line': name: there is another"),
    ("name: all-well", "name: abstain", "f:30: rule 'abstain': name: no rule may be named 'abstain'"),
    (
        "expect: all-well",
        "expect: all-wel",
        "f:72: case 'all is well': expect: no rule is named 'all-wel' (did you mean 'all-well'?)",
    ),
    (
        "expect: all-well",
        "expect: all-well\n    expect_with: {}",
        "f:73: case 'all is well': expect_with: 'all-well' calls no tool",
    ),
    (
        "name: all is well",
        "name: an unsure model decides nothing",
        "f:74: case 'an unsure model decides nothing': name: there is another",
    ),
    (
        "recent: {fault-a: 2}",
        "recent: {fault-a: -2}",
        "f:54: case 'the third weak sign in ten minutes calls a person too': given.recent.fault-a:"
        " should be greater than or equal to 0",
    ),
    ("policy: press-guard", "policy: press-guard\npolicy: twice", "f:4: key 'policy' is there twice"),
    ("  - name: all-well", "  - nme: all-well", "f:30: rule 3: key 'name' is missing"),
]


@pytest.mark.parametrize(("old", "new", "problem"), CASES)
def test_what_is_wrong_is_said(old: str, new: str, problem: str, press_guard: Path) -> None:
    text = press_guard.read_text()
    assert old in text
    with pytest.raises(PolicyError) as caught:
        load_policy(text.replace(old, new, 1).encode(), "f")
    assert any(found.startswith(problem) for found in caught.value.problems), caught.value.problems
    assert all("\n" not in found for found in caught.value.problems)


def test_all_problems_are_listed_and_the_first_is_the_message() -> None:
    data = b'policy: p\nversion: 1\nrules:\n  - {name: a, when: "nope"}\n  - {name: b, when: "1"}\n'
    with pytest.raises(PolicyError) as caught:
        load_policy(data, "f")
    assert [each.split(": column")[0] for each in caught.value.problems] == [
        "f:4: rule 'a': when",
        "f:5: rule 'b': when",
    ]
    assert str(caught.value) == caught.value.problems[0] + " (and 1 more)"


def test_a_limit_needs_something_to_limit() -> None:
    data = b'policy: p\nversion: 1\nrules: [{name: a, when: "true", limit: {times: 1, per_s: 1}}]'
    with pytest.raises(PolicyError, match="a rule that does nothing needs no limit"):
        load_policy(data)


def test_no_more_than_64_rules() -> None:
    def with_rules(count: int) -> bytes:
        rules = "".join(f'  - {{name: r{n}, when: "true"}}\n' for n in range(count))
        return f"policy: p\nversion: 1\nrules:\n{rules}".encode()

    assert len(load_policy(with_rules(64)).rules) == 64
    with pytest.raises(PolicyError, match="at most 64 items"):
        load_policy(with_rules(65))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"absent\.yaml: No such file"):
        load_policy(tmp_path / "absent.yaml")
    with pytest.raises(PolicyError, match="Is a directory"):
        load_policy(tmp_path)


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.touch()
    os.truncate(large, 8 * 1024**3)
    with pytest.raises(PolicyError, match="larger than 64 KiB"):
        load_policy(large)


def test_a_policy_error_is_a_config_error() -> None:
    assert issubclass(PolicyError, ConfigError)


def problems_of(data: bytes) -> tuple[str, ...]:
    try:
        load_policy(data, "f")
    except PolicyError as error:
        return error.problems
    return ()


def loads_or_is_refused(data: bytes) -> None:
    """Only a `PolicyError` may leave `load_policy`; each problem of it is one line that begins with the name."""
    for problem in problems_of(data):
        assert problem.startswith("f:")
        assert problem.isprintable()
        assert len(problem) <= 400


@given(st.binary(max_size=400))
@settings(deadline=None)
@example(b"\xff\xfe")
@example(b'"\\UFFFFFFFF"')
@example(b"[" * 5000)
def test_fuzz_bytes(data: bytes) -> None:
    loads_or_is_refused(data)


KEYS = ["policy", "version", "abstain_below", "rules", "cases", "name", "when", "do", "tool", "with", "limit"]
KEYS += ["times", "per_s", "given", "expect", "expect_with", "prediction", "label", "score", "recent"]
SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(SHAPES)
@settings(deadline=None)
@example({"policy\n\x1b[31m": 1, "x" * 50_000: 2})
def test_fuzz_shapes(value: object) -> None:
    loads_or_is_refused(yaml.safe_dump(value, allow_unicode=True).encode())


WORDS = ["prediction.label", "prediction.score", "observation", ".x", "[0]", "==", "&&", "||", "!", "(", ")"]
WORDS += ["1", "1.0", '"a"', "recent(", ",", ".exists(x, ", ".map(x, ", "? ", ": ", "in", "[", "]", "{", "}"]
EXPRESSION = (
    st.text(st.sampled_from([*string.printable, "é", "🏭", "\0"]), max_size=40)
    | st.text(max_size=40)
    | st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
)


@given(EXPRESSION, EXPRESSION)
@settings(max_examples=300, deadline=None)
@example("true", "=" + "!" * 990)
def test_fuzz_expressions(when: str, argument: str) -> None:
    rule = {"name": "a", "when": when, "do": {"tool": "t", "with": {"x": "=" + argument}}}
    loads_or_is_refused(json.dumps({"policy": "p", "version": 1, "rules": [rule]}).encode())


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_fuzz_a_damaged_policy(data: st.DataObject) -> None:
    good = (Path(__file__).parents[3] / "examples" / "policies" / "press-guard.yaml").read_bytes()
    start = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(start, min(len(good), start + 40)))
    loads_or_is_refused(good[:start] + data.draw(st.binary(max_size=10)) + good[end:])
