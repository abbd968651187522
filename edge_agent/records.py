"""The typed records that flow through the loop: observation → prediction → decision → action."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Json = Any
"""A JSON value: None, bool, int, float, str, list or dict of these."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What an agent sees: one message, file or request, as a JSON object.

    `arrays` holds what is no JSON (pictures, binary tensors); it is inferred on, never journalled whole.
    """

    values: Mapping[str, Json]
    at_us: int
    source: str
    arrays: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Malformed:
    """Something a source received that is no observation: journalled as an event, the agent goes on."""

    reason: str
    at_us: int
    source: str
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one observation. `score` is in [0, 1]; `scores` holds it for every label."""

    label: str
    score: float
    scores: Mapping[str, float]
    values: Mapping[str, str] = field(default_factory=dict)
    """What was read, by field: of models that read."""


@dataclass(frozen=True, slots=True)
class Do:
    """A tool and what to call it with."""

    tool: str
    args: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Condition:
    """What one rule's condition came to. `error` is set when it was neither true nor false."""

    rule: str
    value: bool
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What a policy chose: a rule and what to do, or to abstain and why."""

    rule: str | None
    do: Do | None
    abstained: str | None
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a tool did. `status` is ``done``, ``failed``, ``refused``, ``expired`` or ``unknown``."""

    status: str
    detail: Mapping[str, Json] = field(default_factory=dict)
