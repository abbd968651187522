"""From a source's words in an agent's spec to the source."""

from edge_agent.plugins import load_plugin
from edge_agent.sources.base import Source, SourceContext
from edge_sync.release import SourceSpec

METHODS = ("start", "take", "done", "dropped", "exhausted", "close")


def make_source(spec: SourceSpec, context: SourceContext) -> Source:
    """The source that `spec` describes, its options checked; nothing is open yet.

    Raises `ConfigError`: the kind nearest to an unknown one, or the option and what would be right.
    """
    source: Source = load_plugin("edge_agent.sources", spec.kind, METHODS)(spec.options, context)
    return source
