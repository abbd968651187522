"""What is known at this site until changed: read from memory at every decision, written through the journal."""

import json
import threading
from collections.abc import Callable, Mapping

from edge_agent.memory.draft import Draft, Fact, to_body
from edge_agent.memory.journal import Journal
from edge_agent.memory.schema import reading
from edge_agent.records import Json
from edge_agent.tools.base import Call, SetFact

MAX_FACT_BYTES = 16 * 1024
"""Of one fact's value as JSON: every decision's record holds the facts it saw."""


class Facts:
    """The site's facts. Safe to call from any thread."""

    def __init__(self, journal: Journal, now_us: Callable[[], int]) -> None:
        """Load what the file holds."""
        self._journal, self._now_us = journal, now_us
        self._lock = threading.Lock()
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

    def view(self) -> Mapping[str, Json]:
        """Every fact that has not expired. The mapping is never changed: a new one replaces it."""
        now_us = self._now_us()
        if now_us >= self._view_until_us:
            self._refresh(now_us)
        return self._view

    def set(self, fact: SetFact, call: Call) -> None:
        """Journal the fact and set it in the same transaction; durable on return."""
        value = json.dumps(fact.value, separators=(",", ":"))
        if len(value) > MAX_FACT_BYTES:
            raise ValueError(f"fact {fact.key!r}: {len(value)} bytes, the most is {MAX_FACT_BYTES}")
        body: dict[str, Json] = {"key": fact.key, "value": fact.value}
        if fact.expires_at_us is not None:
            body["expires_at"] = fact.expires_at_us
        draft = Draft(
            "decision",
            "fact",
            call.agent,
            self._now_us(),
            to_body(body),
            subject=call.subject,
            label=fact.key,
            ref=call.decision,
            fact=Fact(fact.key, value, fact.expires_at_us),
        )
        self._journal.write([draft])
        with self._lock:
            self._known = {**self._known, fact.key: (fact.value, fact.expires_at_us)}
            self._view_until_us = 0

    def _refresh(self, now_us: int) -> None:
        with self._lock:
            live = {k: (v, e) for k, (v, e) in self._known.items() if e is None or e > now_us}
            self._view = {key: value for key, (value, _) in live.items()}
            self._view_until_us = min((e for _, e in live.values() if e is not None), default=2**63)
