"""A policy file, checked as a whole before any of it may run."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError

from edge_agent.policy.arguments import Arguments, compile_arguments
from edge_agent.policy.cases import ABSTAIN
from edge_agent.policy.cel import Expression, compile_condition
from edge_agent.policy.diagnosis import CompileError, nearest
from edge_agent.policy.document import MAX_BYTES, Document, DocumentError, Place, dotted
from edge_agent.policy.engine import Case, Policy, Rule
from edge_agent.policy.limit import Limit
from edge_agent.policy.schema import CasePart, GivenPart, PolicyPart, RulePart, explain
from edge_agent.policy.situation import Situation
from edge_agent.records import Prediction
from edge_models.digests import digest_of
from edge_models.errors import ConfigError

MAX_PROBLEM_CHARS = 400
"""The longest line about one problem."""


class PolicyError(ConfigError):
    """A policy file is wrong; `problems` has a line for each thing that is."""

    def __init__(self, problems: list[str]) -> None:
        problems = [_one_line(problem) for problem in problems]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = tuple(problems)


def load_policy(source: Path | bytes, name: str = "policy") -> Policy:
    """The policy in this file, or in these bytes, which errors then call `name`.

    Raises `PolicyError`, a `ConfigError`: ``press-guard.yaml:5: rule 'stop-the-line': when: column 1:
    undeclared reference to 'predicton.label' (did you mean 'prediction.label'?)``.
    """
    if isinstance(source, Path):
        source, name = _read(source), str(source)
    try:
        document = Document(source)
    except DocumentError as error:
        raise PolicyError([f"{name}:{error.line}: {error}" if error.line else f"{name}: {error}"]) from None
    try:
        part = PolicyPart.model_validate(document.value)
    except ValidationError as error:
        raise PolicyError([_at(name, document, *problem) for problem in explain(error)]) from None
    build = _Build(part)
    if build.problems:
        raise PolicyError([_at(name, document, *problem) for problem in build.problems])
    digest = digest_of(source)
    return Policy(part.policy, part.version, digest, part.abstain_below, build.rules, build.cases)


class _Build:
    """Compiles each part of a file that has the right keys, and collects what is wrong with it."""

    def __init__(self, part: PolicyPart) -> None:
        self.problems: list[tuple[Place, str]] = []
        self._names = [rule.name for rule in part.rules]
        self.rules = tuple(self._rule(index, rule) for index, rule in enumerate(part.rules))
        acting = {rule.name for rule in part.rules if rule.do}
        self.cases = tuple(self._case(index, case, acting) for index, case in enumerate(part.cases))
        titles = [case.name for case in part.cases]
        self._no_twins("rules", self._names)
        self._no_twins("cases", titles)

    def _rule(self, index: int, part: RulePart) -> Rule:
        place: Place = ("rules", index)
        if part.name == ABSTAIN:
            self.problems.append(((*place, "name"), f"no rule may be named '{ABSTAIN}'"))
        if part.limit and not part.do:
            self.problems.append(((*place, "limit"), "a rule that does nothing needs no limit"))
        limit = Limit(part.limit.times, part.limit.per_s) if part.limit else None
        tool = part.do.tool if part.do else None
        return Rule(part.name, self._condition(place, part.when), tool, self._arguments(place, part), limit)

    def _condition(self, place: Place, text: str) -> Expression:
        try:
            return compile_condition(text)
        except CompileError as error:
            self.problems.append(((*place, "when"), _located(error, text)))
            return compile_condition("false")  # never evaluated: a file with a problem makes no policy

    def _arguments(self, place: Place, part: RulePart) -> Arguments:
        raw = part.do.with_ if part.do else {}
        wrong: dict[Place, CompileError] = {}
        arguments = compile_arguments(raw, wrong)
        for at, error in wrong.items():
            self.problems.append(((*place, "do", "with", *at), _located(error, str(_follow(raw, at)))))
        return arguments

    def _case(self, index: int, part: CasePart, acting: set[str]) -> Case:
        place: Place = ("cases", index)
        if part.expect not in (ABSTAIN, *self._names):
            guess = nearest(part.expect, [ABSTAIN, *self._names])
            self.problems.append(((*place, "expect"), f"no rule is named '{part.expect}'{guess}"))
        elif part.expect_with is not None and part.expect not in acting:
            self.problems.append(((*place, "expect_with"), f"'{part.expect}' calls no tool"))
        return Case(part.name, _situation(part.given), part.expect, part.expect_with)

    def _no_twins(self, where: str, names: list[str]) -> None:
        for index, each in enumerate(names):
            if each in names[:index]:
                self.problems.append(((where, index, "name"), f"there is another '{each}'"))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError([f"{path}: {error.strerror}"]) from None


def _one_line(text: str) -> str:
    """`text` fit for a terminal: a file's own words may hold line breaks, escapes, or 60 KB."""
    line = "".join(character if character.isprintable() else "\ufffd" for character in " ".join(text.split()))
    return line if len(line) <= MAX_PROBLEM_CHARS else line[: MAX_PROBLEM_CHARS - 1] + "…"


def _at(name: str, document: Document, place: Place, message: str) -> str:
    """One line that names the file, the line, the rule or case, the key, and what is wrong."""
    return ": ".join((f"{name}:{document.line(place)}", *_where(document, place), message))


def _where(document: Document, place: Place) -> Iterator[str]:
    if len(place) >= 2 and place[0] in ("rules", "cases"):
        part = _follow(document.value, place[:2])
        named = part.get("name") if isinstance(part, dict) else None
        kind = str(place[0])[:-1]
        yield f"{kind} {named!r}" if isinstance(named, str) else f"{kind} {int(place[1]) + 1}"
        place = place[2:]
    if place:
        yield dotted(place)


def _located(error: CompileError, text: str) -> str:
    line = f"line {error.line}, " if "\n" in text.strip() else ""
    return f"{line}column {error.column}: {error}"


def _situation(given: GivenPart) -> Situation:
    prediction = given.prediction
    scores = {prediction.label: prediction.score} if prediction.scores is None else prediction.scores
    return Situation(
        observation=given.observation,
        prediction=Prediction(prediction.label, prediction.score, scores, prediction.values),
        facts=given.facts,
        site=given.site,
        recent=_counted(given.recent),
    )


def _counted(recent: Mapping[str, int]) -> Callable[[str, float], int]:
    return lambda label, _seconds: recent.get(label, recent.get("*", 0))


def _follow(value: object, place: Place) -> object:
    """What is at `place` in a document's value."""
    for step in place:
        value = value[step]  # type: ignore[index]
    return value
