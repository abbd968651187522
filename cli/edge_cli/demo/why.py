"""One decision of the demo, explained from sensor value to action, as `edge-agent memory explain` does it."""

from rich.console import Group, RenderableType
from rich.text import Text

from edge_agent.memory.explain import explain
from edge_agent.memory.schema import reading
from edge_cli.demo.cast import CUT
from edge_cli.demo.story import Story
from edge_cli.explained import explanation_tree


def why(story: Story) -> RenderableType:
    """The explanation of a decision that the site made while it was cut off."""
    chosen = story.decision_to_explain()
    if chosen is None:
        return Text("no decision acted")
    with reading(story.memory_of(CUT)) as connection:
        found = explain(connection, chosen)
    title = Text(f"\none decision of {CUT}, made without a link, from sensor value to action:")
    return Group(title, explanation_tree(found, chosen), Text())
