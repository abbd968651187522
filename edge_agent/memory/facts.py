"""What is known at this site until changed: read from memory at every decision, written through the journal."""

import json
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence

from edge_agent.memory.draft import Draft, Fact, to_body
from edge_agent.memory.journal import Journal
from edge_agent.memory.schema import reading
from edge_agent.records import Json
from edge_agent.tools.base import Call, SetFact
from edge_models.errors import RejectedError

MAX_FACT_BYTES = 16 * 1024
"""Of one fact's value as JSON: a decision's record holds the facts that its policy reads."""

MAX_FACTS = 500
"""Facts that have not expired. A policy that asks by computed keys is given all of them, and a map of more than
`edge_agent.policy.readable.MAX_ITEMS` is left out whole."""

MAX_KEY_CHARS = 200


class Facts:
    """The site's facts. Safe to call from any thread."""

    def __init__(self, journal: Journal, now_us: Callable[[], int]) -> None:
        """Load what the file holds, and delete what has expired."""
        self._journal, self._now_us = journal, now_us
        self._lock = threading.Lock()
        """Held while a fact is written too: the cache changes in the order of the commits."""
        with reading(journal.path) as connection:
            self._known: dict[str, tuple[Json, int | None]] = {
                key: (json.loads(value), expires)
                for key, value, expires in connection.execute(
                    "SELECT key, value, expires_at FROM facts ORDER BY scope='site'"
                )
            }
        self._view: dict[str, Json] = {}
        self._view_until_us = 0
        """Until when `_view` holds: the first expiry of what is in it."""
        expired = self._expired(now_us())
        if expired:
            journal.later(also=lambda db: _delete(db, expired))

    def view(self) -> Mapping[str, Json]:
        """Every fact that has not expired. The mapping is never changed: a new one replaces it."""
        now_us = self._now_us()
        if now_us >= self._view_until_us:
            self._refresh(now_us)
        return self._view

    def set(self, fact: SetFact, call: Call) -> None:
        """Journal the fact and set it in the same transaction; durable on return. Raises `RejectedError`."""
        value = _checked(fact)
        body: dict[str, Json] = {"key": fact.key, "value": fact.value}
        if fact.expires_at_us is not None:
            body["expires_at"] = fact.expires_at_us
        now_us = self._now_us()
        draft = Draft(
            "decision",
            "fact",
            call.agent,
            now_us,
            to_body(body),
            subject=call.subject,
            label=fact.key,
            ref=call.decision,
            fact=Fact(fact.key, value, fact.expires_at_us),
        )
        with self._lock:
            gone = [key for key in self._expired(now_us) if key != fact.key]
            known = {key: held for key, held in self._known.items() if key not in gone}
            if fact.key not in known and len(known) >= MAX_FACTS:
                raise RejectedError(
                    f"fact {fact.key!r}: this site knows {MAX_FACTS} facts already, and more it may not: "
                    "use fewer keys, or let facts expire"
                )
            self._journal.write([draft], also=lambda db: _delete(db, gone))
            known[fact.key] = (fact.value, fact.expires_at_us)
            self._known, self._view_until_us = known, 0

    def _expired(self, now_us: int) -> list[str]:
        return [key for key, (_, expires) in self._known.items() if expires is not None and expires <= now_us]

    def _refresh(self, now_us: int) -> None:
        with self._lock:
            live = {k: (v, e) for k, (v, e) in self._known.items() if e is None or e > now_us}
            self._view = {key: value for key, (value, _) in live.items()}
            self._view_until_us = min((e for _, e in live.values() if e is not None), default=2**63)


def _checked(fact: SetFact) -> str:
    """The fact's value as JSON. Raises `RejectedError`."""
    if len(fact.key) > MAX_KEY_CHARS:
        raise RejectedError(
            f"fact {fact.key[:40]!r}…: a key of {len(fact.key)} characters, the most is {MAX_KEY_CHARS}"
        )
    value = json.dumps(fact.value, separators=(",", ":"))
    if len(value) > MAX_FACT_BYTES:
        raise RejectedError(f"fact {fact.key!r}: {len(value)} bytes, the most is {MAX_FACT_BYTES}")
    return value


def _delete(connection: sqlite3.Connection, keys: Sequence[str]) -> None:
    connection.executemany("DELETE FROM facts WHERE scope='site' AND key=?", [(key,) for key in keys])
