"""CEL behind one interface: compile a text once, evaluate it in a scope, never take an error for true.

The library is cel-expr-python 0.1 (the C++ CEL). What was learned of it, and is held by tests here:

- A run-time error comes back as a value of type ERROR whose value is a text, which Python takes for true.
- Reading a null out of it (`value()`, `plain_value()`) takes a reference to None that nobody gave. After
  some thousands the interpreter aborts with "deallocating None". So a null's value is never read.
- Exceeding 10,000 iterations is no ERROR value but a RuntimeError.
- A compiled expression may be evaluated by several threads at once, each with its own activation.
"""

import functools
import math
import re
from typing import Any

from cel_expr_python import cel

from edge_agent.policy.diagnosis import CompileError, compile_error, runtime_error
from edge_agent.policy.fact_keys import fact_keys
from edge_agent.policy.readable import readable
from edge_agent.policy.situation import Situation
from edge_agent.records import Json

MAX_EXPRESSION_CHARS = 1_000
"""The longest expression."""

_T = cel.Type
_BOOL, _ERROR = _T.BOOL, _T.ERROR
_NOT_JSON = ("BYTES", "TIMESTAMP", "DURATION", "TYPE")
_QUOTED = r"""r?(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
_MATCHES = re.compile(rf"\.matches\(\s*({_QUOTED})\s*\)")
_ROOT = re.compile(r"\b(observation|facts|site|recent)\b")


class EvaluationError(Exception):
    """An expression had no value this time; the message says why, in one short line."""


class Scope:
    """The variables of one situation, bound for any number of expressions."""

    __slots__ = ("activation", "left_out")

    def __init__(self, situation: Situation, reads: frozenset[str]) -> None:
        """Bind what `reads` names; what no expression reads is not converted."""
        prediction = situation.prediction
        self.left_out: dict[str, str] = {}
        data: dict[str, Any] = {
            "prediction.label": prediction.label,
            "prediction.score": prediction.score,
            "prediction.scores": dict(prediction.scores),
            "prediction.values": dict(prediction.values),
        }
        for name in ("observation", "facts", "site"):
            if name in reads:
                data[name], left_out = readable(getattr(situation, name))
                self.left_out |= left_out
        functions = _recent(situation) if "recent" in reads else None
        self.activation = _environment().Activation(data, functions=functions)


class Expression:
    """A compiled CEL expression. It has no state: any number of threads may evaluate it."""

    __slots__ = ("_compiled", "facts_read", "reads", "text")

    def __init__(self, text: str, compiled: Any) -> None:
        self.text = text
        self.reads = frozenset(_ROOT.findall(text))
        """Which of observation, facts, site and recent its text names: at least all that it reads."""
        self.facts_read = fact_keys(text)
        """The facts it can read; None where its text does not show it."""
        self._compiled = compiled

    def holds(self, scope: Scope) -> tuple[bool, str | None]:
        """Whether it is true, and the error when it is neither true nor false."""
        try:
            value = self._evaluate(scope)
            if value.type() == _BOOL:
                return value.value() is True, None
            _raise_error(value, scope)
        except EvaluationError as error:
            return False, str(error)
        return False, f"a condition must be BOOL, this is {value.type().name()}"

    def value(self, scope: Scope) -> Json:
        """What it comes to. Raises `EvaluationError` where it has no value, or one that is no JSON."""
        value = self._evaluate(scope)
        _raise_error(value, scope)
        return _json(value)

    def _evaluate(self, scope: Scope) -> Any:
        try:
            return self._compiled.eval(scope.activation)
        except Exception as error:  # noqa: BLE001 - whatever the library raises, the rule must not act
            raise EvaluationError(runtime_error(str(error), scope.left_out)) from None


def compile_condition(text: str) -> Expression:
    """An expression that is BOOL. Raises `CompileError`."""
    compiled = _compile(text)
    found = compiled.return_type()
    if found != _BOOL:
        hint = " (compare it: … == true)" if found == _T.DYN else ""
        raise CompileError(f"a condition must be BOOL, this is {found.name()}{hint}")
    return Expression(text, compiled)


def compile_value(text: str) -> Expression:
    """An expression whose value can be JSON. Raises `CompileError`."""
    compiled = _compile(text)
    found = compiled.return_type().name()
    if found.startswith(_NOT_JSON):
        hint = " (make it a text: string(…))" if found in ("TIMESTAMP", "DURATION") else ""
        raise CompileError(f"a value must be JSON, this is {found}{hint}")
    return Expression(text, compiled)


def _compile(text: str) -> Any:
    if len(text) > MAX_EXPRESSION_CHARS:
        raise CompileError(f"longer than {MAX_EXPRESSION_CHARS:,} characters")
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise CompileError("a NUL or half a surrogate pair is no CEL")
    try:
        compiled = _environment().compile(text)
        # The library plans an expression at its first evaluation: better now than in the first decision,
        # and before any second thread can reach it.
        compiled.eval(data={})
    except RuntimeError as error:
        raise compile_error(str(error), text) from None
    for pattern in _MATCHES.finditer(text):
        tried = _environment().compile(f'"".matches({pattern[1]})').eval(data={})
        if tried.type() == _ERROR:
            before = text[: pattern.start(1)]
            line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
            raise CompileError(runtime_error(tried.value(), {}), line, column)
    return compiled


@functools.cache
def _environment() -> Any:
    """The variables and functions of every policy, with their types: DYN only where a sensor decides."""
    recent = [
        cel.Overload("recent_int", _T.INT, [_T.STRING, _T.INT]),
        cel.Overload("recent_double", _T.INT, [_T.STRING, _T.DOUBLE]),
    ]
    return cel.NewEnv(
        variables={
            "prediction.label": _T.STRING,
            "prediction.score": _T.DOUBLE,
            "prediction.scores": _T.Map(_T.STRING, _T.DOUBLE),
            "prediction.values": _T.Map(_T.STRING, _T.STRING),
            "observation": _T.Map(_T.STRING, _T.DYN),
            "facts": _T.Map(_T.STRING, _T.DYN),
            "site": _T.Map(_T.STRING, _T.STRING),
        },
        # As an extension, not as a plain function: only so may each situation bring its own `recent`.
        extensions=[cel.CelExtension("edge_agent", [cel.FunctionDecl("recent", recent)])],
    )


def _recent(situation: Situation) -> list[Any]:
    def recent(label: str, seconds: float) -> int:
        return situation.recent(label, float(seconds))

    return [cel.Function("recent", [_T.STRING, kind], False, recent, _T.INT) for kind in (_T.INT, _T.DOUBLE)]


def _raise_error(value: Any, scope: Scope) -> None:
    if value.type() == _ERROR:
        raise EvaluationError(runtime_error(value.value(), scope.left_out))


def _json(value: Any) -> Json:
    """The library's value as JSON, without ever asking it for the value of a null."""
    kind = value.type()
    if kind == _T.NULL:
        return None
    name = kind.name().upper()
    plain = value.value()
    if name.startswith("LIST"):
        return [_json(item) for item in plain]
    if name.startswith("MAP"):
        if not all(isinstance(key, str) for key in plain):
            raise EvaluationError("a map whose keys are not texts is no JSON")
        return {key: _json(item) for key, item in plain.items()}
    if name == "DOUBLE" and not math.isfinite(plain):
        raise EvaluationError(f"{plain} is no JSON")
    if name not in ("BOOL", "INT", "UINT", "DOUBLE", "STRING"):
        raise EvaluationError(f"{name} is no JSON")
    return plain
