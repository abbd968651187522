"""The rules by which this hub lets records go, set by its operator."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete, select

from edge_hub.database.schema import keep
from edge_hub.database.store import Store, UnknownError
from edge_hub.records import audit
from edge_sync.keep import Keep, KeepRule


class KeepRules:
    """Sets, lists and takes away rules; each change is in the audit."""

    def __init__(self, store: Store, now_us: Callable[[], int]) -> None:
        self._store, self._now_us = store, now_us

    def all(self) -> list[dict[str, Any]]:
        """The rules there are."""
        with self._store.reading() as db:
            return [asdict(rule) for rule in _rules(db)]

    def set(self, rule: KeepRule, who: str) -> None:
        """Keep these records so long from now on; takes the place of a rule for the same kind and agent."""
        with self._store.writing() as db:
            db.execute(delete(keep).where(keep.c.kind == rule.kind, keep.c.agent == rule.agent))
            db.execute(keep.insert().values(**asdict(rule)))
            audit.note(db, self._now_us(), who, "keep rule set", asdict(rule))

    def remove(self, kind: str, agent: str, who: str) -> None:
        """Keep these records for ever. Raises `UnknownError` where there is no such rule."""
        with self._store.writing() as db:
            gone = db.execute(delete(keep).where(keep.c.kind == kind, keep.c.agent == agent)).rowcount
            if not gone:
                raise UnknownError(f"there is no rule for kind {kind[:40]!r} and agent {agent[:100]!r}")
            audit.note(db, self._now_us(), who, "keep rule removed", {"kind": kind, "agent": agent})


def read_keep(db: Connection) -> Keep:
    """The rules, ready to ask."""
    return Keep(_rules(db))


def _rules(db: Connection) -> list[KeepRule]:
    return [KeepRule(row.kind, row.agent, row.days) for row in db.execute(select(keep).order_by(*keep.primary_key))]
