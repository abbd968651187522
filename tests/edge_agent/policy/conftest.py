"""What the policy tests share: a situation to change at will, and the documented example."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edge_agent.policy import Situation
from edge_agent.records import Json, Prediction


@pytest.fixture
def situation() -> Callable[..., Situation]:
    """Makes a situation: a sure fault-c, and nothing else known, but for what is given."""

    def make(
        label: str = "fault-c",
        score: float = 0.93,
        *,
        observation: Mapping[str, Json] | None = None,
        facts: Mapping[str, Json] | None = None,
        site: Mapping[str, str] | None = None,
        recent: Callable[[str, float], int] | None = None,
    ) -> Situation:
        return Situation(
            observation=observation or {},
            prediction=Prediction(label, score, {label: score}),
            facts=facts or {},
            site=site or {},
            recent=recent or (lambda _label, _seconds: 0),
        )

    return make


@pytest.fixture(scope="session")
def press_guard() -> Path:
    """The documented example."""
    return Path(__file__).parents[3] / "examples" / "policies" / "press-guard.yaml"
