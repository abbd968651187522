"""What a rule calls its tool with: JSON in which a text that begins with ``=`` is a CEL expression.

``==`` at the beginning stands for one literal ``=``: ``==x`` is the text ``=x``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edge_agent.policy.cel import EvaluationError, Expression, Scope, compile_value
from edge_agent.policy.diagnosis import CompileError
from edge_agent.policy.document import Place, dotted
from edge_agent.records import Json


class ArgumentError(Exception):
    """An expression in `with` had no value; the message names its place and says why."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """A rule's `with`, compiled."""

    template: Mapping[str, Json]
    """As written, but with an `Expression` for every text that is one."""

    def expressions(self) -> Iterator[Expression]:
        """Every expression in it."""
        return _expressions(self.template)

    def fill(self, scope: Scope) -> dict[str, Json]:
        """The arguments in this scope, nothing of them shared with another call. Raises `ArgumentError`."""
        return {key: _fill(value, scope, (key,)) for key, value in self.template.items()}


def compile_arguments(raw: Mapping[str, Json], problems: dict[Place, CompileError]) -> Arguments:
    """`raw` compiled; what does not compile is added to `problems` under its place."""
    return Arguments({key: _compile(value, (key,), problems) for key, value in raw.items()})


def _compile(value: Json, place: Place, problems: dict[Place, CompileError]) -> Json:
    if isinstance(value, dict):
        return {key: _compile(item, (*place, key), problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_compile(item, (*place, index), problems) for index, item in enumerate(value)]
    if not isinstance(value, str) or not value.startswith("="):
        return value
    if value.startswith("=="):
        return value[1:]
    try:
        return compile_value(value[1:])
    except CompileError as error:
        problems[place] = CompileError(str(error), error.line, error.column + (error.line == 1))
        return None


def _fill(value: Json, scope: Scope, place: Place) -> Json:
    if isinstance(value, Expression):
        try:
            return value.value(scope)
        except EvaluationError as error:
            raise ArgumentError(f"{dotted(place)}: {error}") from None
    if isinstance(value, dict):
        return {key: _fill(item, scope, (*place, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, scope, (*place, index)) for index, item in enumerate(value)]
    return value


def _expressions(value: Json) -> Iterator[Expression]:
    if isinstance(value, Expression):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _expressions(item)
    elif isinstance(value, list):
        for item in value:
            yield from _expressions(item)
