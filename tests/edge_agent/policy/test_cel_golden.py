"""What CEL means here, as this version of the library says it: an upgrade that changes a meaning is noticed.

Each case is an expression and what it comes to in one situation: JSON, ``error:`` at run time, or
``refused:`` when it is compiled. Where the library departs from CEL's specification, a comment says so.
"""

import json

import pytest

from edge_agent.policy import Situation
from edge_agent.policy.cel import EvaluationError, Scope, compile_value
from edge_agent.policy.diagnosis import CompileError
from edge_agent.records import Prediction

SITUATION = Situation(
    observation={
        "machine": "press-4",
        "temp": 81.5,
        "count": 3,
        "flag": True,
        "nothing": None,
        "readings": [1, 2, 3.5],
        "mixed": [1, "a", None],
        "axis": {"x": 0.25, "y": -1},
        "word": "straße 🏭",
        "big": 2**53,
        "with space": 1,
    },
    prediction=Prediction("fault-c", 0.93, {"fault-c": 0.93, "normal": 0.07}),
    facts={"shift": "night"},
    site={"id": "plant-01"},
    recent=lambda label, seconds: 4 if label == "fault-c" and seconds >= 60 else 0,
)

GOLDEN = [
    # types and equality
    ('prediction.label == "fault-c"', "true"),
    ("prediction.label == 1", "refused: '==' does not take (string, int)"),
    ("prediction.score >= 0.8", "true"),
    ("prediction.score >= 1", "refused: '>=' does not take"),
    ("1 == 1.0", "refused: '==' does not take"),
    ("dyn(1) == 1.0", "true"),
    ("observation.count == 3.0", "true"),
    ("observation.count < 3.5", "true"),
    ("observation.temp > 81", "true"),
    ("observation.machine == 4", "false"),
    ("observation.machine > 4", "error: no such operation: _>_(string, int64)"),
    ("observation.flag", "true"),
    ("observation.flag == true", "true"),
    ("observation.flag == 1", "false"),
    ("type(observation.count) == int", "true"),
    ("type(observation.temp) == double", "true"),
    ("1u == 1", "refused: '==' does not take (uint, int)"),
    ("2u + 1u", "3"),
    ("true", "true"),
    ('"true" == "true"', "true"),
    # missing keys and null
    ("observation.absent == 1", 'error: no key "absent"'),
    ("observation.absent == null", 'error: no key "absent"'),
    ("has(observation.absent)", "false"),
    ("has(observation.nothing)", "true"),
    ('"absent" in observation', "false"),
    ("has(observation.axis.z)", "false"),
    ("has(observation.absent.z)", 'error: no key "absent"'),
    ("observation.nothing == null", "true"),
    ("observation.nothing == 1", "false"),
    ("observation.nothing > 1", "error: no such operation: _>_(null_type, int64)"),
    ("observation.nothing", "null"),
    ("null == null", "true"),
    ('facts.shift == "night"', "true"),
    ('facts.absent == "night"', 'error: no key "absent"'),
    ('site.id == "plant-01"', "true"),
    ('site.zone == "a"', 'error: no key "zone"'),
    ("site.id == 1", "refused: '==' does not take (string, int)"),
    ('observation["with space"] == 1', "true"),
    ('prediction.scores["normal"] < 0.1', "true"),
    ("prediction.scores.absent < 0.1", 'error: no key "absent"'),
    # A dotted variable is one name, so `has` of it is the value itself: a condition made of it is refused.
    ("has(prediction.label)", '"fault-c"'),
    ("observation.absent == 1 || true", "true"),
    ("true || observation.absent == 1", "true"),
    ("observation.absent == 1 && false", "false"),
    ("observation.absent == 1 || false", 'error: no key "absent"'),
    ("!(observation.absent == 1)", 'error: no key "absent"'),
    ("observation.absent == 1 ? true : false", 'error: no key "absent"'),
    ("false ? observation.absent == 1 : true", "true"),
    # numbers
    ("observation.count + 1", "4"),
    ("observation.count + 1.0", "error: no such operation: _+_(int64, double)"),
    ("observation.temp + 1.0", "82.5"),
    ("double(observation.count) + 1.0", "4.0"),
    ("1 + 1.0", "refused: '+' does not take"),
    ("7 / 2", "3"),
    ("-7 / 2", "-3"),
    ("-7 % 3", "-1"),
    ("7.0 / 2.0", "3.5"),
    ("1 / 0", "error: divide by zero"),
    ("1 % 0", "error: modulus by zero"),
    ("1.0 / 0.0 > 0.0", "true"),
    ("1.0 / 0.0", "error: inf is no JSON"),
    ("0.0 / 0.0 == 0.0 / 0.0", "false"),
    ("9223372036854775807 + 1", "error: integer overflow"),
    ("-9223372036854775808 - 1", "error: integer overflow"),
    ("9223372036854775808", "refused: invalid int literal"),
    ("int(9223372036854775807.0)", "error: double out of int64 range"),
    ("int(3.9)", "3"),
    ("int(-3.9)", "-3"),
    ('int("12")', "12"),
    ('int("12a")', "error: cannot convert string to int"),
    ('double("1e3")', "1000.0"),
    ("string(0.1)", '"0.1"'),
    ("string(1.0)", '"1"'),
    ("observation.big + 1 == 9007199254740993", "true"),
    # CEL's specification compares on one number line, where these two differ.
    ("dyn(9007199254740993) == 9007199254740992.0", "true"),
    ("5u - 6u", "error: unsigned integer overflow"),
    ("0.1 + 0.2 == 0.3", "false"),
    # texts
    ('size("straße 🏭")', "8"),
    ("size(observation.word)", "8"),
    ('observation.word.contains("🏭")', "true"),
    ('observation.word.startsWith("stra")', "true"),
    ('observation.word.endsWith("🏭")', "true"),
    ('"é" == "e\\u0301"', "false"),
    ('"a" < "b"', "true"),
    ('"Z" < "a"', "true"),
    ('"a" + "b"', '"ab"'),
    ('"a" + 1', "refused: '+' does not take (string, int)"),
    ('"abc".matches("b")', "true"),
    ('"abc".matches("^b$")', "false"),
    ('observation.word.matches("^\\\\w+ß")', "true"),
    ('observation.word.matches("\\\\p{L}+ ")', "true"),
    ('"a1".matches("(?=a)")', "refused: invalid regular expression: invalid perl operator: (?="),
    ('"A".lowerAscii()', "refused: undeclared reference to 'lowerAscii'"),
    ('r"\\d"', '"\\\\d"'),
    ('"""a"""', '"a"'),
    ("string(observation.count)", '"3"'),
    ("string(true)", '"true"'),
    ("string(null)", "error: no such operation: string(null_type)"),
    ("observation.machine[0]", "error: Invalid container type: 'string'"),
    ('b"abc" == b"abc"', "true"),
    # lists, maps and macros
    ("observation.readings[0]", "1"),
    ("observation.readings[3]", "error: Index error: index=3 size=3"),
    ("observation.readings[-1]", "error: Index error: index=-1 size=3"),
    ("size(observation.readings)", "3"),
    ("2 in observation.readings", "true"),
    ("2.0 in observation.readings", "true"),
    ("observation.readings.exists(r, r > 3.0)", "true"),
    ("observation.readings.all(r, r > 0)", "true"),
    ("observation.readings.exists_one(r, r > 3)", "true"),
    ("observation.readings.filter(r, r > 1)", "[2, 3.5]"),
    ("observation.readings.map(r, r * 2)", "error: no such operation: _*_(double, int64)"),
    ("observation.mixed.exists(m, m > 1)", "error: no such operation: _>_(string, int64)"),
    ('observation.mixed.exists(m, m == "a")', "true"),
    ("observation.mixed.all(m, m == 1)", "false"),
    ("observation.axis.all(k, observation.axis[k] < 1)", "true"),
    ("[].all(x, x)", "true"),
    ("[].exists(x, x)", "false"),
    ("[1, 2] == [1.0, 2.0]", "refused: '==' does not take (list(int), list(double))"),
    ("[1, 2] + [3]", "[1, 2, 3]"),
    ('{"a": 1}.a', "1"),
    ('{"a": 1, "a": 2}', "refused: duplicate key in map"),
    ("{1: 2}", "error: a map whose keys are not texts is no JSON"),
    ('[[1, null], {"k": [true]}]', '[[1, null], {"k": [true]}]'),
    ("prediction.scores.exists(l, l != prediction.label && prediction.scores[l] > 0.05)", "true"),
    ('prediction.label in ["fault-b", "fault-c"]', "true"),
    ("observation.readings", "[1, 2, 3.5]"),
    # recent
    ('recent("fault-c", 60)', "4"),
    ('recent("fault-c", 59.5)', "0"),
    ("recent(prediction.label, 600) >= 3", "true"),
    ('recent("absent", 60)', "0"),
    ('recent("fault-c")', "refused: undeclared reference to 'recent' with these arguments"),
    ('recent("fault-c", "60")', "refused: 'recent' does not take (string, string)"),
    # time, and what is no JSON
    ('timestamp("2026-01-01T00:00:00Z") < timestamp("2026-01-02T00:00:00Z")', "true"),
    ('duration("90s") > duration("1m")', "true"),
    ('timestamp("2026-01-01T00:00:00Z")', "refused: a value must be JSON, this is TIMESTAMP"),
    ('duration("1m")', "refused: a value must be JSON, this is DURATION"),
    ('string(duration("1m"))', '"60s"'),
    ('timestamp("yesterday") == timestamp(0)', "error: String to Timestamp conversion failed"),
    ("type(1)", "refused: a value must be JSON, this is TYPE<INT>"),
    ('b"abc"', "refused: a value must be JSON, this is BYTES"),
    # refused
    ("", "refused: syntax: it ends too early"),
    ('predicton.label == "x"', "refused: undeclared reference to 'predicton.label' (did you mean 'prediction.label'?)"),
    ("prediction", "refused: undeclared reference to 'prediction' (prediction has label, score, scores and values)"),
    ("true &&", "refused: syntax: it ends too early"),
    ('prediction.label = "x"', "refused: syntax: token recognition error at: '= ' (compare with ==)"),
    ('"abc".matches("[")', "refused: invalid regular expression: missing ]: ["),
    ("unknown(1)", "refused: undeclared reference to 'unknown'"),
    ("[1, 2", "refused: syntax: it ends too early"),
    ('"a', "refused: syntax: token recognition error at: '\"a'"),
    ("a.b.c", "refused: undeclared reference to 'a.b.c'"),
    ("observation.x ==", "refused: syntax: it ends too early"),
]


@pytest.mark.parametrize(("expression", "outcome"), GOLDEN)
def test_golden(expression: str, outcome: str) -> None:
    assert _outcome(expression).startswith(outcome)


def _outcome(text: str) -> str:
    try:
        expression = compile_value(text)
        return json.dumps(expression.value(Scope(SITUATION, expression.reads)), ensure_ascii=False)
    except CompileError as error:
        return f"refused: {error}"
    except EvaluationError as error:
        return f"error: {error}"
