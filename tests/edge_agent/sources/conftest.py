"""What sources stand on in these tests."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from edge_agent.config import load_site
from edge_agent.sources.base import SourceContext


@pytest.fixture
def make_context(tmp_path: Path) -> Callable[..., SourceContext]:
    """A context of site plant-01; keyword arguments are endpoints: ``machines={"url": …}``."""

    def make(agent: str = "press", **endpoints: dict[str, str]) -> SourceContext:
        file = tmp_path / "site.yaml"
        file.write_text(yaml.safe_dump({"site": "plant-01", "endpoints": endpoints}))
        return SourceContext(
            site="plant-01",
            agent=agent,
            base=tmp_path,
            data=tmp_path / "data" / agent,
            endpoint=load_site(file).endpoint,
            now_us=lambda: time.time_ns() // 1000,
        )

    return make


@pytest.fixture
def context(make_context: Callable[..., SourceContext]) -> SourceContext:
    """A context without endpoints."""
    return make_context()
