"""The one interface to CEL: an error is never true, a null never ends the process, a loop always ends."""

import sys
import threading
from collections.abc import Callable

import pytest

from edge_agent.policy import Situation
from edge_agent.policy.cel import (
    MAX_EXPRESSION_CHARS,
    EvaluationError,
    Scope,
    compile_condition,
    compile_value,
)
from edge_agent.policy.diagnosis import CompileError
from edge_agent.records import Json

MakeSituation = Callable[..., Situation]
ALL = frozenset({"observation", "facts", "site", "recent"})


@pytest.mark.parametrize(
    "text",
    [
        "observation.absent == 1",
        "1 / 0 == 0",
        'int(prediction.label) > 0 || prediction.label == ""',
        'timestamp("yesterday") < timestamp(0)',
        "9223372036854775807 + 1 > 0",
    ],
)
def test_an_error_is_false_and_recorded(text: str, situation: MakeSituation) -> None:
    value, error = compile_condition(text).holds(Scope(situation(), ALL))
    assert value is False
    assert error


def test_a_condition_is_true_or_false(situation: MakeSituation) -> None:
    scope = Scope(situation(score=0.7), ALL)
    assert compile_condition("prediction.score > 0.5").holds(scope) == (True, None)
    assert compile_condition("prediction.score > 0.8").holds(scope) == (False, None)


@pytest.mark.parametrize(
    "text", ["prediction.label", "1", "observation.flag", "null", "[true]", "has(prediction.label)"]
)
def test_a_condition_that_is_not_bool_is_refused(text: str) -> None:
    with pytest.raises(CompileError, match="a condition must be BOOL"):
        compile_condition(text)


@pytest.mark.parametrize("text", ["observation.n", "observation.l", "observation", "[null]", "null"])
def test_nulls_do_not_wear_out_none(text: str, situation: MakeSituation) -> None:
    expression = compile_value(text)
    given = situation(observation={"n": None, "l": [None, 1], "m": {"k": None}})
    expected: Json = expression.value(Scope(given, ALL))
    before = sys.getrefcount(None)
    for _ in range(2_000):
        assert expression.value(Scope(given, ALL)) == expected
    assert sys.getrefcount(None) > before - 500


def test_a_null_in_a_condition_does_not_wear_out_none(situation: MakeSituation) -> None:
    condition = compile_condition("observation.n == null && observation.l.exists(x, x == null)")
    given = situation(observation={"n": None, "l": [1, None]})
    before = sys.getrefcount(None)
    for _ in range(2_000):
        assert condition.holds(Scope(given, ALL)) == (True, None)
    assert sys.getrefcount(None) > before - 500


def test_iterations_are_bounded(situation: MakeSituation) -> None:
    given = situation(observation={"l": [1] * 500})
    nested = compile_condition("observation.l.all(a, observation.l.all(b, a == b))")
    assert nested.holds(Scope(given, ALL)) == (False, "more than 10,000 iterations")


def test_an_expression_is_bounded() -> None:
    fits = "true" + " " * (MAX_EXPRESSION_CHARS - 4)
    compile_condition(fits)
    with pytest.raises(CompileError, match="longer than 1,000 characters"):
        compile_condition(fits + " ")
    with pytest.raises(CompileError, match="nested too deeply"):
        compile_condition("(" * 40 + "true" + ")" * 40)


@pytest.mark.parametrize("text", ["true\0", '"\ud800" == ""'])
def test_what_is_no_text_is_refused(text: str) -> None:
    with pytest.raises(CompileError, match="no CEL"):
        compile_condition(text)


def test_a_wrong_regular_expression_is_refused_where_it_stands() -> None:
    with pytest.raises(CompileError, match="missing ]") as caught:
        compile_condition('true &&\n  prediction.label.matches("[")')
    assert (caught.value.line, caught.value.column) == (2, 28)


def test_recent_is_asked_in_the_situation(situation: MakeSituation) -> None:
    asked: list[tuple[str, float]] = []

    def recent(label: str, seconds: float) -> int:
        asked.append((label, seconds))
        return 2

    scope = Scope(situation(recent=recent), ALL)
    assert compile_value("recent(prediction.label, 60) + recent('x', 0.5)").value(scope) == 4
    assert asked == [("fault-c", 60.0), ("x", 0.5)]
    assert all(type(seconds) is float for _, seconds in asked)


def test_what_recent_raises_is_the_error(situation: MakeSituation) -> None:
    def recent(_label: str, _seconds: float) -> int:
        raise OSError("the journal is closed")

    value, error = compile_condition('recent("x", 1) < 9').holds(Scope(situation(recent=recent), ALL))
    assert value is False
    assert error == "the journal is closed"


def test_values_are_json(situation: MakeSituation) -> None:
    given: Json = {"a": [1, 2.5, "x", None, True], "m": {"k": {"deep": []}}}
    value = compile_value("observation").value(Scope(situation(observation=given), ALL))
    assert value == given
    assert [type(item) for item in value["a"]] == [int, float, str, type(None), bool]


@pytest.mark.parametrize("text", ["1.0 / 0.0", "{1: 2}", "dyn(b'a')", "[timestamp(0)]", "dyn(int)"])
def test_a_value_that_is_no_json_is_an_error(text: str, situation: MakeSituation) -> None:
    with pytest.raises(EvaluationError, match="no JSON"):
        compile_value(text).value(Scope(situation(), ALL))


def test_what_a_policy_may_not_read_is_absent_and_the_error_says_why(situation: MakeSituation) -> None:
    scope = Scope(situation(observation={"machine": "press-4", "wave": [0.0] * 4096}), ALL)
    assert compile_condition('observation.machine == "press-4"').holds(scope) == (True, None)
    error = compile_condition("observation.wave[0] > 1.0").holds(scope)[1]
    assert error == 'no key "wave" (left out: more than 512 items)'


def test_an_error_is_short(situation: MakeSituation) -> None:
    given = situation(site={"id": 5 * ["x" * 900]})
    error = compile_condition('site.id == "a"').holds(Scope(given, ALL))[1]
    assert error is not None
    assert len(error) <= 200


def test_threads_may_share_an_expression(situation: MakeSituation) -> None:
    condition = compile_condition("prediction.score > 0.5 && observation.l.exists(x, x == 3) && recent('a', 1) == 7")
    wrong: list[tuple[int, int]] = []

    def work(number: int) -> None:
        for turn in range(500):
            given = situation(
                score=(turn % 2) * 0.9,
                observation={"l": [1, 2, 3] if number % 2 else [1]},
                recent=lambda _label, _seconds: 7,
            )
            expected = bool(turn % 2 and number % 2)
            if condition.holds(Scope(given, ALL)) != (expected, None):
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong
