"""A tool's arguments: literal JSON with expressions in it."""

from collections.abc import Callable

import pytest

from edge_agent.policy import Situation
from edge_agent.policy.arguments import ArgumentError, Arguments, compile_arguments
from edge_agent.policy.cel import Scope
from edge_agent.policy.diagnosis import CompileError
from edge_agent.policy.document import Place
from edge_agent.records import Json

MakeSituation = Callable[..., Situation]


def compiled(raw: dict[str, Json]) -> Arguments:
    problems: dict[Place, CompileError] = {}
    arguments = compile_arguments(raw, problems)
    assert not problems
    return arguments


def test_expressions_and_literals_at_any_depth(situation: MakeSituation) -> None:
    arguments = compiled(
        {
            "topic": "line/stop",
            "payload": {"reason": "=prediction.label", "list": [1, "=1 + 1", {"deep": "=[prediction.score]"}]},
            "none": None,
        }
    )
    assert arguments.fill(Scope(situation(), frozenset())) == {
        "topic": "line/stop",
        "payload": {"reason": "fault-c", "list": [1, 2, {"deep": [0.93]}]},
        "none": None,
    }


@pytest.mark.parametrize(("written", "meant"), [("==", "="), ("==x", "=x"), ("===x", "==x"), ("x=y", "x=y")])
def test_a_literal_equals_sign_is_written_twice(written: str, meant: str, situation: MakeSituation) -> None:
    assert compiled({"a": written}).fill(Scope(situation(), frozenset())) == {"a": meant}


def test_an_error_names_its_place(situation: MakeSituation) -> None:
    arguments = compiled({"payload": {"list": [1, "=observation.absent"]}})
    with pytest.raises(ArgumentError, match=r'^payload\.list\[1\]: no key "absent"$'):
        arguments.fill(Scope(situation(), frozenset({"observation"})))


def test_every_problem_is_found_at_its_place_and_column() -> None:
    problems: dict[Place, CompileError] = {}
    compile_arguments({"a": "=nope", "b": {"c": ["=true && nope2", "=timestamp(0)"]}}, problems)
    assert {place: (str(error), error.column) for place, error in problems.items()} == {
        ("a",): ("undeclared reference to 'nope'", 2),
        ("b", "c", 0): ("undeclared reference to 'nope2'", 10),
        ("b", "c", 1): ("a value must be JSON, this is TIMESTAMP (make it a text: string(…))", 2),
    }


def test_two_calls_share_nothing(situation: MakeSituation) -> None:
    arguments, scope = compiled({"payload": {"list": [1]}}), Scope(situation(), frozenset())
    first = arguments.fill(scope)
    first["payload"]["list"].append(2)
    assert arguments.fill(scope) == {"payload": {"list": [1]}}


def test_expressions_are_listed() -> None:
    arguments = compiled({"a": "=1", "b": {"c": ["=2", "x"]}, "d": "==3"})
    assert [each.text for each in arguments.expressions()] == ["1", "2"]
