"""What tools stand on in these tests."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from edge_agent.config import load_site
from edge_agent.tools.base import Call, SetFact, ToolContext


def now_us() -> int:
    return time.time_ns() // 1000


@pytest.fixture
def facts() -> list[tuple[SetFact, Call]]:
    """What tools set."""
    return []


@pytest.fixture
def make_context(tmp_path: Path, facts: list[tuple[SetFact, Call]]) -> Callable[..., ToolContext]:
    """A context of site plant-01; keyword arguments are endpoints."""

    def make(**endpoints: dict[str, str]) -> ToolContext:
        file = tmp_path / "site.yaml"
        file.write_text(yaml.safe_dump({"site": "plant-01", "endpoints": endpoints}))
        return ToolContext(
            site="plant-01",
            endpoint=load_site(file).endpoint,
            set_fact=lambda fact, call: facts.append((fact, call)),
            now_us=now_us,
        )

    return make


@pytest.fixture
def make_call() -> Callable[..., Call]:
    """A call for a decision, due in `within_s`."""

    def make(decision: str = "00112233445566ff:decision:7", within_s: float = 20.0) -> Call:
        return Call(decision, "press", "press-7", now_us() + round(within_s * 1e6))

    return make
