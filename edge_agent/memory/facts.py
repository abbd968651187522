"""What is known at this site until changed: read from memory at every decision, written through the journal.

A fact is the site's own, set by its agents, or the fleet's, set at the hub for all. Where both have the same key, the
site's own counts while it has not expired: who stands beside the machine knows it better.
"""

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
from edge_sync.documents import FleetFact, FleetFacts
from edge_sync.facts import Changed, FactLog, Passed

MAX_FACT_BYTES = 16 * 1024
"""Of one fact's value as JSON: a decision's record holds the facts that its policy reads."""

MAX_FACTS = 500
"""Facts of the site's own that have not expired. A policy that asks by computed keys is given them and the fleet's, and
a map of more than `edge_agent.policy.readable.MAX_ITEMS` is left out whole."""

MAX_KEY_CHARS = 200

_LOG_KEY = ""
"""No fact is called so: the fleet's row of this key holds the version up to which its facts are here."""


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
                    "SELECT key, value, expires_at FROM facts WHERE scope='site'"
                )
            }
            self._fleet = _read_log(connection)
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

    @property
    def fleet_version(self) -> int:
        """Up to where the fleet's facts are known here, durably."""
        return self._fleet.version

    def take(self, document: FleetFacts) -> Changed | Passed:
        """What the hub says of the fleet's facts, verified; durable on return. Raises `JournalUnavailableError`."""
        with self._lock:
            outcome = self._fleet.weigh(document)
            if isinstance(outcome, Changed):
                self._journal.write((), also=lambda db: _write_log(db, outcome))
                self._fleet.apply(outcome)
                self._view_until_us = 0
        return outcome

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
            known = {fact.key: (fact.value, fact.expires_at) for fact in self._fleet.facts.values()}
            live = _live(known, now_us) | _live(self._known, now_us)
            self._view = {key: value for key, (value, _) in live.items()}
            self._view_until_us = min((e for _, e in live.values() if e is not None), default=2**63)


def _live(known: Mapping[str, tuple[Json, int | None]], now_us: int) -> dict[str, tuple[Json, int | None]]:
    return {key: (value, expires) for key, (value, expires) in known.items() if expires is None or expires > now_us}


def _read_log(connection: sqlite3.Connection) -> FactLog:
    log = FactLog()
    for key, value, version, expires in connection.execute(
        "SELECT key, value, version, expires_at FROM facts WHERE scope='fleet'"
    ):
        if key == _LOG_KEY:
            log.version = version
        else:
            log.facts[key] = FleetFact(key=key, value=json.loads(value), version=version, expires_at=expires)
    return log


def _write_log(connection: sqlite3.Connection, changed: Changed) -> None:
    connection.executemany("DELETE FROM facts WHERE scope='fleet' AND key=?", [(key,) for key in changed.gone])
    rows = [(f.key, json.dumps(f.value, separators=(",", ":")), f.version, f.expires_at) for f in changed.facts]
    connection.executemany(
        "INSERT OR REPLACE INTO facts (scope, key, value, version, origin, expires_at)"
        " VALUES ('fleet', ?, ?, ?, 'hub', ?)",
        [*rows, (_LOG_KEY, "null", changed.version, None)],
    )


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
