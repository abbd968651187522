"""The records of one transaction: numbered, chained by hash, and put into the tables that change with them."""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edge_agent.memory.draft import Draft
from edge_sync.rows import MAX_BODY_BYTES, Epoch, Lane, Row, chain, record_id, row_bytes

_INSERT = (
    "INSERT INTO journal (epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)

Entry = tuple[object, ...]
"""A row of `journal` as it is inserted."""


@dataclass(slots=True)
class Tail:
    """The end of a lane: the last number, and the chain's hash there."""

    seq: int
    hash: bytes


def entry(epoch: str, lane: str, row: Row, row_hash: bytes) -> Entry:
    """The row of `journal` for a record and the chain's hash at it."""
    return (epoch, lane, row.seq, row.at, row.kind, row.agent, row.subject, row.label, row.score, row.ref, row.body,
            row_hash)  # fmt: skip


def insert(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    """Put these into the journal, in the caller's transaction."""
    connection.executemany(_INSERT, entries)


class Entries:
    """One transaction being built on the tails of an epoch: nothing in it counts until COMMIT."""

    def __init__(self, connection: sqlite3.Connection, epoch: Epoch, tails: Mapping[Lane, Tail]) -> None:
        self._connection, self._epoch = connection, epoch
        self.tails = {lane: Tail(tail.seq, tail.hash) for lane, tail in tails.items()}
        """Where the lanes end once it is committed."""
        self.ids: list[tuple[Draft, str]] = []
        """The drafts, and the ids that they will have."""
        self._pending: dict[int, str] = {}
        self._rows: list[Entry] = []

    def add(self, draft: Draft) -> None:
        """Number it and chain it. Raises `ValueError` where no record can be made of it."""
        ref = draft.ref
        if isinstance(ref, Draft):
            ref = self._pending.get(id(ref)) or ref.id
            if ref is None:
                raise ValueError("a draft follows from one that was never written")
        if len(draft.body) > MAX_BODY_BYTES:
            raise ValueError(f"a body of {len(draft.body)} characters: make it with to_body")
        tail = self.tails[draft.lane]
        tail.seq += 1
        row = Row(
            tail.seq,
            draft.at_us,
            draft.kind,
            draft.agent,
            draft.subject,
            draft.label,
            _score(draft.score),
            ref,
            draft.body,
        )
        tail.hash = chain(tail.hash, row_bytes(row))
        public_id = self._pending[id(draft)] = record_id(self._epoch, draft.lane, tail.seq)
        self.ids.append((draft, public_id))
        self._rows.append(entry(self._epoch, draft.lane, row, tail.hash))
        if draft.intent is not None or draft.settles or draft.fact is not None:
            self._put_aside(draft, public_id, ref)

    def put(self) -> None:
        """Insert what was added."""
        insert(self._connection, self._rows)

    def _put_aside(self, draft: Draft, public_id: str, ref: str | None) -> None:
        """The small tables that must change in the transaction of their record."""
        if draft.intent is not None:
            self._connection.execute(
                "INSERT INTO intents (decision, at, agent, subject, tool, args, valid_until)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (public_id, draft.at_us, draft.agent, draft.subject, draft.intent.tool, draft.intent.args,
                 draft.intent.valid_until_us),
            )  # fmt: skip
        if draft.settles:
            self._connection.execute("DELETE FROM intents WHERE decision=?", (ref,))
        if draft.fact is not None:
            self._connection.execute(
                "INSERT INTO facts (scope, key, value, version, origin, expires_at) VALUES ('site', ?, ?, 1, ?, ?)"
                " ON CONFLICT (scope, key) DO UPDATE SET value=excluded.value, version=version+1,"
                " origin=excluded.origin, expires_at=excluded.expires_at",
                (draft.fact.key, draft.fact.value, public_id, draft.fact.expires_at_us),
            )


def _score(score: float | None) -> float | None:
    """As the file gives it back: it knows neither an integer, nor minus zero, nor NaN in this column."""
    if score is None:
        return None
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"a score of {score}: one is in [0, 1]")
    return float(score) + 0.0
