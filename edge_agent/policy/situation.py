"""All that a policy may look at when it decides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge_agent.records import Json, Prediction


@dataclass(frozen=True, slots=True)
class Situation:
    """What an agent knows at the moment of one decision."""

    observation: Mapping[str, Json]
    prediction: Prediction
    facts: Mapping[str, Json]
    site: Mapping[str, str]
    """The site's labels, and its `id`."""
    recent: Callable[[str, float], int]
    """How many of this agent's decisions had that prediction label in the last so many seconds.

    Called only when a rule asks, and in the thread that decides. What it raises is recorded as the error
    of the condition that asked.
    """
