"""The keys of a policy file, and what to say of those that are wrong."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from edge_agent.policy.diagnosis import nearest
from edge_agent.policy.document import Place

MAX_RULES = 64
"""Most rules in a policy: with 1,000 characters each, what one decision may cost is bounded."""

MAX_CASES = 256
"""Most cases in a policy."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
Tool = Annotated[str, Field(pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", max_length=63)]
Title = Annotated[str, Field(min_length=1, max_length=200)]
Probability = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DoPart(_Part):
    """The tool that a rule calls."""

    tool: Tool
    with_: dict[str, Any] = Field(default={}, alias="with")


class LimitPart(_Part):
    """How often a rule may act."""

    times: Annotated[int, Field(ge=1, le=1_000)]
    per_s: Annotated[float, Field(gt=0, le=86_400)]


class RulePart(_Part):
    """One rule."""

    name: Name
    when: str
    do: DoPart | None = None
    limit: LimitPart | None = None


class PredictionPart(_Part):
    """The prediction of a case; `scores` is its one label's unless given."""

    label: str
    score: Probability
    scores: dict[str, float] | None = None
    values: dict[str, str] = {}


def _for_all(recent: Any) -> Any:
    return {"*": recent} if type(recent) is int else recent


class GivenPart(_Part):
    """The situation of a case; what is not given is empty."""

    prediction: PredictionPart
    observation: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    site: dict[str, str] = {}
    recent: Annotated[dict[str, Count], BeforeValidator(_for_all)] = {}
    """What `recent` answers, by label; ``*`` is every other label. A number alone is for all labels."""


class CasePart(_Part):
    """One case."""

    name: Title
    given: GivenPart
    expect: str
    expect_with: dict[str, Any] | None = None


class PolicyPart(_Part):
    """A policy file."""

    policy: Name
    version: Annotated[int, Field(ge=1, lt=2**31)]
    abstain_below: Probability = 0.0
    rules: Annotated[list[RulePart], Field(min_length=1, max_length=MAX_RULES)]
    cases: Annotated[list[CasePart], Field(max_length=MAX_CASES)] = []


_PARTS: dict[tuple[str, ...], type[_Part]] = {
    (): PolicyPart,
    ("rules",): RulePart,
    ("rules", "do"): DoPart,
    ("rules", "limit"): LimitPart,
    ("cases",): CasePart,
    ("cases", "given"): GivenPart,
    ("cases", "given", "prediction"): PredictionPart,
}
"""Which part stands where, list positions left out."""


_PATTERNS = {
    "name": "lower-case letters, digits, '.' and '-' are allowed, 63 at most",
    "tool": "should be a tool's name, like mqtt.publish",
}


def explain(error: ValidationError) -> Iterator[tuple[Place, str]]:
    """Each thing that is wrong with a file: where, and one line for the person who wrote it."""
    for problem in error.errors(include_url=False, include_context=False):
        place, kind = problem["loc"], problem["type"]
        if kind == "extra_forbidden":
            yield place, f"unknown key '{place[-1]}'{nearest(str(place[-1]), _keys(place[:-1]))}"
        elif kind == "missing":
            yield place[:-1], f"key '{place[-1]}' is missing"
        elif kind == "string_pattern_mismatch":
            yield place, _PATTERNS.get(str(place[-1]), _PATTERNS["name"])
        elif kind == "model_type":
            yield place, f"should be a map with the keys {', '.join(_keys(place))}"
        elif kind == "string_type":
            yield place, "should be a text" + (" (put it in quotes)" if problem["input"] is not None else "")
        else:
            yield place, problem["msg"].replace("Input should", "should").replace("dictionary", "map")


def _keys(place: Place) -> list[str]:
    """The keys that are known at `place`."""
    part = _PARTS.get(tuple(step for step in place if isinstance(step, str)))
    fields = part.model_fields.items() if part else ()
    return [field.alias or name for name, field in fields]
