"""From the names of tools to the tools."""

from collections.abc import Iterable

from edge_agent.plugins import load_plugin
from edge_agent.tools.base import Tool, ToolContext
from edge_models.errors import ConfigError
from edge_sync.rows import LANES

METHODS = ("run", "close")


def make_tools(names: Iterable[str], context: ToolContext) -> dict[str, Tool]:
    """The tools with these names, one instance each; nothing is open yet.

    Raises `ConfigError`: the name nearest to an unknown one, and all there are, or what a tool lacks.
    """
    return {name: _make(name, context) for name in dict.fromkeys(names)}


def _make(name: str, context: ToolContext) -> Tool:
    tool: Tool = load_plugin("edge_agent.tools", name, METHODS)(context)
    lane = getattr(tool, "lane", None)
    if lane not in LANES:
        raise ConfigError(f"tool {name!r}: lane is {lane!r}, wanted one of {', '.join(LANES)}: see docs/extend.md")
    if not isinstance(getattr(tool, "idempotent", None), bool):
        raise ConfigError(f"tool {name!r}: idempotent is to be True or False: see docs/extend.md")
    return tool
