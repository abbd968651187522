"""How many days records are kept, by kind and agent: the same rule at a site and at the hub."""

from collections.abc import Iterable
from dataclasses import dataclass

from edge_models.errors import RejectedError
from edge_sync.rows import KINDS

ALL = "*"
"""Stands for every kind or agent."""

MAX_DAYS = 36_500
DAY_US = 86_400 * 1_000_000

CATCH_UP = 24
"""How much faster than time itself records go at the most: a clock that is years ahead takes a day's records an hour,
and whoever sees to it finds the others."""


@dataclass(frozen=True, slots=True)
class KeepRule:
    """Records of this kind and agent are kept so many days. Raises `RejectedError` for what can't be meant."""

    kind: str
    agent: str
    days: int

    def __post_init__(self) -> None:
        if self.kind not in (ALL, *KINDS):
            raise RejectedError(f"kind {self.kind[:40]!r}: there are {', '.join(KINDS)}, and {ALL} for all")
        if not 1 <= self.days <= MAX_DAYS:
            raise RejectedError(f"days {self.days}: wanted 1 to {MAX_DAYS}")
        if not 1 <= len(self.agent) <= 100:
            raise RejectedError(f"agent: wanted a name of at most 100 characters, or {ALL} for all")


class Keep:
    """All rules; what none of them matches is kept."""

    def __init__(self, rules: Iterable[KeepRule]) -> None:
        self._days = {(rule.kind, rule.agent): rule.days for rule in rules}
        self.least_us = min(self._days.values(), default=0) * DAY_US
        """No record goes before it is so old; 0 where there is no rule."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Keep) and self._days == other._days

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return bool(self._days)

    def age_us(self, kind: str, agent: str) -> int | None:
        """The age at which a record goes; None: it is kept.

        The rule for both its kind and agent counts before the one for its kind, and that before the one for its agent.
        """
        for key in ((kind, agent), (kind, ALL), (ALL, agent), (ALL, ALL)):
            if (days := self._days.get(key)) is not None:
                return days * DAY_US
        return None
