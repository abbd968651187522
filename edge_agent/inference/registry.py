"""The models a site has active, by name, and their replacement while requests run."""

import time
from collections.abc import Mapping
from types import MappingProxyType, TracebackType

from edge_agent.inference.model import Model
from edge_agent.inference.stats import ModelStats, Stats


class Models:
    """Name → active model.

    Reading takes no lock: a reader gets a reference, and finishes on that model whatever happens meanwhile.
    A `Model` is loaded and warm by the time it exists, so a swap costs the requests nothing.
    """

    def __init__(self) -> None:
        self._active: Mapping[str, Model] = MappingProxyType({})
        self._stats = Stats()

    def get(self, name: str) -> Model | None:
        """The active model of this name, or None."""
        return self._active.get(name)

    def names(self) -> list[str]:
        """The active models' names, sorted."""
        return sorted(self._active)

    def swap(self, models: Mapping[str, Model]) -> None:
        """Make these the whole active set, at one instant; an old model goes when its last request ends."""
        # A copy nobody can change: assigning it is the one step that readers see.
        self._active = MappingProxyType(dict(models))

    def measured(self, name: str) -> "Measured":
        """A context that counts what runs inside it as one request to the model of this name."""
        return Measured(self._stats, name)

    def stats(self) -> dict[str, ModelStats]:
        """The numbers by name, of models swapped out too: counters only grow."""
        return self._stats.snapshot()


class Measured:
    """Times one request; an exception that leaves the block counts as a failure and goes on."""

    __slots__ = ("_name", "_start", "_stats")

    def __init__(self, stats: Stats, name: str) -> None:
        self._stats = stats
        self._name = name
        self._start = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stats.add(self._name, time.perf_counter() - self._start, failed=kind is not None)
