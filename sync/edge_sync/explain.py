"""Why something was done: from one record back to what it follows from, and on to what followed from it. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

MAX_CAUSES = 100
MAX_EFFECTS = 100
"""A chain has some ten records; a hub must not walk for ever where a site says that each follows from the other."""


class Linked(Protocol):
    """A record of a journal: its public id, and the id of the record it follows from."""

    @property
    def id(self) -> str: ...
    @property
    def ref(self) -> str | None: ...


R = TypeVar("R", bound=Linked)


@dataclass(frozen=True, slots=True)
class Explanation(Generic[R]):
    """The chain, oldest first, and ids it names that are not held here."""

    chain: tuple[R, ...]
    missing: tuple[str, ...]


def explain(start: R, record: Callable[[str], R | None], following: Callable[[R], Iterable[R]]) -> Explanation[R]:
    """The chain around `start`: observation, prediction, decision, what a person said to it, action.

    `record` looks one up by its id, `following` those that name one as what they follow from, oldest first.
    """
    seen = {start.id}
    causes: list[R] = []
    missing: list[str] = []
    ref = start.ref
    while ref is not None and ref not in seen and len(causes) < MAX_CAUSES:
        cause = record(ref)
        if cause is None:
            missing.append(ref)
            break
        causes.append(cause)
        seen.add(ref)
        ref = cause.ref
    effects: list[R] = []
    frontier = [start]
    while frontier and len(effects) < MAX_EFFECTS:
        found = []
        for each in (effect for cause in frontier for effect in following(cause)):
            if each.id not in seen:
                seen.add(each.id)
                found.append(each)
        effects += found
        frontier = found
    return Explanation((*reversed(causes), start, *effects[:MAX_EFFECTS]), tuple(missing))
