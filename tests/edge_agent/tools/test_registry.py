"""A third party's tool is refused when the site starts, not when it acts."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.tools.base import ToolContext
from edge_agent.tools.registry import make_tools
from edge_models.errors import ConfigError

CODE = """
class Robot:
    {body}
    def __init__(self, context): ...
    def run(self, args, call): ...
    def close(self): ...
"""


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("idempotent = True; lane = 'urgent'", "lane is 'urgent', wanted one of alarm, decision, telemetry"),
        ("idempotent = True", "lane is None, wanted one of"),
        ("lane = 'alarm'", "idempotent is to be True or False"),
        ("lane = 'alarm'; idempotent = 'no'", "idempotent is to be True or False"),
    ],
)
def test_a_tool_must_say_its_lane_and_whether_it_may_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_context: Callable[..., ToolContext], body: str, problem: str
) -> None:
    metadata = tmp_path / "robotpart-1.0.dist-info"
    metadata.mkdir()
    (tmp_path / "robotpart.py").write_text(CODE.format(body=body))
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: robotpart\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[edge_agent.tools]\nrobot = robotpart:Robot\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "robotpart", raising=False)
    with pytest.raises(ConfigError, match="tool 'robot': " + problem):
        make_tools(["alert", "robot"], make_context())
