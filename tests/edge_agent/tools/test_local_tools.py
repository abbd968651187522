"""The tools that need no machine: alert and fact.set, and who may use which tool."""

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.tools.alert import Alert
from edge_agent.tools.base import Call, SetFact, ToolContext
from edge_agent.tools.fact_set import FactSet
from edge_agent.tools.grants import allowed
from edge_models.errors import RejectedError

MakeContext = Callable[..., ToolContext]
MakeCall = Callable[..., Call]


def test_an_alert_is_recorded_and_logged(
    make_context: MakeContext, make_call: MakeCall, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        result = Alert(make_context()).run({"message": "Bearing 7 is hot", "severity": "critical"}, make_call("d1"))
    assert result == {"message": "Bearing 7 is hot", "severity": "critical"}
    (record,) = caplog.records
    assert (record.levelname, record.message) == ("CRITICAL", "alert")
    assert (vars(record)["text"], vars(record)["decision"]) == ("Bearing 7 is hot", "d1")


def test_an_alert_is_a_warning_unless_it_says_more(make_context: MakeContext, make_call: MakeCall) -> None:
    assert Alert(make_context()).run({"message": "x"}, make_call()) == {"message": "x", "severity": "warning"}


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ({}, "alert: key 'message' is missing"),
        ({"message": 7}, "alert: message: Input should be a valid string (came 7)"),
        ({"message": ""}, "alert: message: String should have at least 1 character"),
        ({"message": "x" * 501}, "alert: message: String should have at most 500 characters"),
        ({"message": "x", "severity": "bad"}, "alert: severity: Input should be 'info', 'warning' or 'critical'"),
        ({"mesage": "x"}, "alert: unknown key 'mesage' (did you mean 'message'?)"),
    ],
)
def test_wrong_arguments_of_alert_are_named(
    make_context: MakeContext, make_call: MakeCall, args: dict[str, Any], problem: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        Alert(make_context()).run(args, make_call())
    assert problem in str(caught.value)


def test_a_fact_is_set_with_its_expiry(
    make_context: MakeContext, make_call: MakeCall, facts: list[tuple[SetFact, Call]]
) -> None:
    call, before = make_call(), time.time_ns() // 1000
    result = FactSet(make_context()).run({"key": "press-7.state", "value": {"worn": True}, "expires_s": 60}, call)
    ((fact, by),) = facts
    assert (fact.key, fact.value, by) == ("press-7.state", {"worn": True}, call)
    assert fact.expires_at_us is not None
    assert 60_000_000 <= fact.expires_at_us - before < 80_000_000
    assert result == {"key": fact.key, "value": fact.value, "expires_at_us": fact.expires_at_us}


def test_a_fact_without_expiry_stays(
    make_context: MakeContext, make_call: MakeCall, facts: list[tuple[SetFact, Call]]
) -> None:
    FactSet(make_context()).run({"key": "mode", "value": None}, make_call())
    assert facts[0][0] == SetFact("mode", None)


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        ({"key": "a"}, "fact.set: key 'value' is missing"),
        ({"key": "a b", "value": 1}, "fact.set: key: String should match pattern"),
        ({"key": "a", "value": 1, "expires_s": -1}, "fact.set: expires_s: Input should be greater than 0"),
        ({"key": "a", "value": "x" * 20_000}, "fact.set: value: 20002 bytes as JSON, the most is 16384"),
        ({"key": "a", "value": float("nan")}, "fact.set: value: no JSON"),
        ({"key": "a", "value": object()}, "fact.set: value: no JSON"),
    ],
)
def test_wrong_arguments_of_fact_set_are_named_and_nothing_is_set(
    make_context: MakeContext,
    make_call: MakeCall,
    facts: list[tuple[SetFact, Call]],
    args: dict[str, Any],
    problem: str,
) -> None:
    with pytest.raises(RejectedError) as caught:
        FactSet(make_context()).run(args, make_call())
    assert problem in str(caught.value)
    assert facts == []


names = st.sampled_from(["alert", "fact.set", "mqtt.publish", "mqtt.*", "*", "", "Alert"])


@given(names, st.frozensets(names), st.frozensets(names))
def test_a_tool_is_allowed_exactly_where_both_name_it(
    tool: str, release: frozenset[str], ceiling: frozenset[str]
) -> None:
    assert (allowed(tool, release, ceiling) is None) == (tool in release and tool in ceiling)


def test_a_refusal_says_whose_it_is() -> None:
    assert allowed("alert", [], ["alert"]) == "the release does not grant 'alert' to this agent"
    assert allowed("alert", ["alert"], []) == "the site file does not grant 'alert' to any agent here"
