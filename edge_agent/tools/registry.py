"""From the names of tools to the tools."""

from collections.abc import Iterable

from edge_agent.plugins import load_plugin
from edge_agent.tools.base import Tool, ToolContext

METHODS = ("run", "close")


def make_tools(names: Iterable[str], context: ToolContext) -> dict[str, Tool]:
    """The tools with these names, one instance each; nothing is open yet.

    Raises `ConfigError`: the name nearest to an unknown one, and all there are.
    """
    return {name: load_plugin("edge_agent.tools", name, METHODS)(context) for name in dict.fromkeys(names)}
