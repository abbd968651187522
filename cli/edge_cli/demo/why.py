"""One decision of the demo, explained from sensor value to action, as `edge-agent memory explain` does it."""

from edge_agent.memory.explain import explain
from edge_agent.memory.schema import reading
from edge_cli.demo.cast import CUT
from edge_cli.demo.story import Story
from edge_cli.memory import explanation_tree
from edge_cli.output import talk


def show_why(story: Story) -> None:
    """Print the explanation of a decision that the site made while it was cut off."""
    chosen = story.decision_to_explain()
    if chosen is None:
        talk.print("no decision acted")
        return
    with reading(story.memory_of(CUT)) as connection:
        found = explain(connection, chosen)
    talk.print(f"\none decision of {CUT}, made without a link, from sensor value to action:")
    talk.print(explanation_tree(found, chosen))
    talk.print()
