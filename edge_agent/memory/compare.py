"""What the site holds against what its hub holds: where they differ, and in what."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.memory.outbox import StreamState, hash_at, streams
from edge_agent.memory.restored import ends
from edge_agent.memory.schema import snapshot
from edge_sync.rows import record_id
from edge_sync.uplink import Stream
from edge_sync.walk import Finding, Findings

_COLUMNS = ("at", "kind", "agent", "subject", "label", "score", "ref", "body")

_TRIES = 8
"""Numbers tried where one is in a gap, before the place is told less exactly."""

AskHub = Callable[[str], Mapping[str, Any] | None]
"""The record of this id as the hub has it, with its `hash` in hex; None where it has none."""


@dataclass(frozen=True, slots=True)
class HubStream:
    """A stream as the hub holds it: all up to `high`, where the chain's hash is `hash`."""

    stream: Stream
    high: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Comparison:
    """`compared` streams were looked at in one place both hold; of the others that place is not here any more."""

    compared: int
    findings: tuple[Finding, ...]


def compare(
    connection: sqlite3.Connection, before: Sequence[StreamState], hub: Iterable[HubStream], ask: AskHub
) -> Comparison:
    """Compare every stream that both hold. `before`: the site's streams as they were before the hub was asked.

    A journal that goes on, and drops what the hub has, is no difference.
    """
    found, compared = Findings(), 0
    theirs = {each.stream: each for each in hub}
    for state in before:
        held = theirs.get(state.stream)
        if state.acked > (held.high if held is not None else 0):
            _hub_lost(found, state, held)
    restored = ends(connection)
    for state in streams(connection):
        held = theirs.get(state.stream)
        if held is None or not held.high:
            continue
        if held.high > state.last == restored.get(state.stream):  # what was written after the backup: it is told
            held = _earlier(held, state.last, ask)
            if held is None:
                continue
        if held.high > state.last:
            what = f"the hub holds rows up to {held.high}, here they end at {state.last}"
            found.add(state.epoch, state.lane, state.last + 1, what)
            compared += 1
            continue
        ours = hash_at(connection, state.stream, held.high)
        compared += ours is not None
        if ours is not None and ours != held.hash:
            _tell(found, connection, held, ask)
    return Comparison(compared, found.all())


def _earlier(held: HubStream, seq: int, ask: AskHub) -> HubStream | None:
    """The hub's stream as it was at `seq`; None where that is not known there any more."""
    record = ask(record_id(*held.stream, seq))
    return None if record is None else HubStream(held.stream, seq, bytes.fromhex(record["hash"]))


def _hub_lost(found: Findings, state: StreamState, held: HubStream | None) -> None:
    high = held.high if held is not None else 0
    what = f"the hub acknowledged rows up to {state.acked} and holds them up to {high}"
    found.add(state.epoch, state.lane, high + 1, what)


def _tell(found: Findings, connection: sqlite3.Connection, held: HubStream, ask: AskHub) -> None:
    """Find the first row that differs: in a chain, all after it do too."""
    same, differs = 0, held.high
    while (probe := _probe(connection, held.stream, same, differs, ask)) is not None:
        seq, equal = probe
        same, differs = (seq, differs) if equal else (same, seq)
    if differs - same > 1:
        what = f"one of the rows {same + 1} to {differs} is another one at the hub"
    else:
        fields = _fields(connection, held.stream, differs, ask)
        what = f"the row is another one at the hub: {', '.join(fields) or 'hash'}"
    found.add(*held.stream, differs, what)


def _probe(
    connection: sqlite3.Connection, stream: Stream, same: int, differs: int, ask: AskHub
) -> tuple[int, bool] | None:
    """A number between the two that both hold, near their middle, and whether the chain is the same there."""
    middle = (same + differs) // 2
    for seq in range(max(middle, same + 1), min(differs, middle + _TRIES)):
        ours = hash_at(connection, stream, seq)
        theirs = ask(record_id(*stream, seq)) if ours is not None else None
        if ours is not None and theirs is not None:
            return seq, ours.hex() == theirs["hash"]
    return None


def _fields(connection: sqlite3.Connection, stream: Stream, seq: int, ask: AskHub) -> list[str]:
    """What of a row differs."""
    with snapshot(connection):
        ours = connection.execute(
            "SELECT at, kind, agent, subject, label, score, ref, body FROM journal WHERE epoch=? AND lane=? AND seq=?",
            (*stream, seq),
        ).fetchone()
    theirs = ask(record_id(*stream, seq))
    if ours is None or theirs is None:
        return ["held by one, in a gap of the other"]
    return [name for name, value in zip(_COLUMNS, ours, strict=True) if theirs.get(name) != value]
