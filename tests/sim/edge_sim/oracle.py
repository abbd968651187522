"""The judge of a run: knows what agents wrote and what the hub's tables say, and nothing of how either came about.

It computes the chain, the holes and the losses by itself, from sync/SPEC.md.
"""

import hashlib
import json
import sqlite3
from dataclasses import dataclass, field

import msgspec

from edge_sim.fleet import Fleet
from edge_sim.ledger import Ledger, Written
from edge_sim.site import BUDGET_MB, SimSite
from edge_sim.update_oracle import bytes_sent, settled_wrongly

Stream = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and where."""

    promise: str
    site: str
    what: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.site}: {self.what}"


@dataclass(slots=True)
class Verdict:
    """What was found, and what was counted on the way."""

    violations: list[Violation] = field(default_factory=list)
    written: int = 0
    delivered: int = 0
    declared: int = 0
    """Inside gaps."""
    unknown: int = 0
    """Inside unknown tails that the hub names."""
    beyond: int = 0
    """Taken by a disk fault before any word of them left the site, or while only a lost backup knew: nobody can."""
    gaps: int = 0


@dataclass(slots=True)
class _Tables:
    rows: dict[Stream, list[tuple[object, ...]]] = field(default_factory=dict)
    gaps: dict[Stream, list[tuple[int, int, str, bytes]]] = field(default_factory=dict)
    ends: dict[Stream, tuple[int, bytes, int, int, bool]] = field(default_factory=dict)
    """high, hash, told, last, forked"""
    epochs: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    """held, final"""
    online: bool = False
    epoch: str | None = None


def judge(fleet: Fleet) -> Verdict:
    """Look at everything once the fleet is quiet."""
    verdict = Verdict()
    database = sqlite3.connect(fleet.hub.disk.path)
    try:
        for site, ledger in fleet.ledgers.items():
            tables = _read(database, site)
            say = _Say(verdict, site)
            _whole(tables, say)
            _accounted(fleet, ledger, tables, verdict, say)
            _reasons(fleet, ledger, tables, verdict, say)
            for (reason,) in database.execute("SELECT reason FROM quarantine WHERE site=?", (site,)):
                if not ledger.poisoned:
                    say("no needless loss", f"a message was put aside: {reason}")
            _incidents(database, ledger, say)
    finally:
        database.close()
    if fleet.lossless:
        verdict.violations += [Violation(promise, "hub", what) for promise, what in bytes_sent(fleet)]
    for problem in fleet.hub.monitors:
        verdict.violations.append(Violation("the hub itself", "hub", problem))
    for machine in fleet.machines:
        say = _Say(verdict, machine.site)
        if not machine.quiet:
            say("convergence", f"{machine.backlog()} records are still on their way long after the last fault")
        if machine.over_budget:
            say("budget", f"{machine.over_budget} bytes on disk, the budget is {BUDGET_MB} MiB")
        for problem in machine.monitors:
            say("session", problem)
        for promise, what in settled_wrongly(fleet, machine):
            say(promise, what)
        _facts(fleet, machine, say)
        row = _presence(fleet, machine.site)
        if row != (True, machine.process_epoch):
            say("presence", f"the hub believes {row}, the truth is {(True, machine.process_epoch)}")
    return verdict


@dataclass(frozen=True, slots=True)
class _Say:
    verdict: Verdict
    site: str

    def __call__(self, promise: str, what: str) -> None:
        self.verdict.violations.append(Violation(promise, self.site, what))


def _presence(fleet: Fleet, site: str) -> tuple[bool, str | None]:
    database = sqlite3.connect(fleet.hub.disk.path)
    try:
        online, epoch = database.execute("SELECT online, epoch FROM sites WHERE site=?", (site,)).fetchone()
        return bool(online), epoch
    finally:
        database.close()


def _read(database: sqlite3.Connection, site: str) -> _Tables:
    tables = _Tables()
    for epoch, lane, *row in database.execute(
        "SELECT epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash FROM records"
        " WHERE site=? ORDER BY epoch, lane, seq",
        (site,),
    ):
        tables.rows.setdefault((epoch, lane), []).append(tuple(row))
    for epoch, lane, first, last, reason, end in database.execute(
        "SELECT epoch, lane, first, last, reason, hash FROM gaps WHERE site=? ORDER BY epoch, lane, first", (site,)
    ):
        tables.gaps.setdefault((epoch, lane), []).append((first, last, reason, end))
    for epoch, lane, *end in database.execute(
        "SELECT epoch, lane, high, hash, told, last, forked FROM streams WHERE site=?", (site,)
    ):
        tables.ends[epoch, lane] = (end[0], end[1], end[2], end[3], bool(end[4]))
    for epoch, held, final in database.execute("SELECT epoch, held, final FROM epochs WHERE site=?", (site,)):
        tables.epochs[epoch] = (bool(held), bool(final))
    return tables


def _whole(tables: _Tables, say: _Say) -> None:
    """Promise: every number up to `high` is one record or in one gap, and the chain leads through all of them."""
    for stream in tables.rows.keys() | tables.gaps.keys() | tables.ends.keys():
        high, end_hash = tables.ends.get(stream, (0, b"", 0, 0, False))[:2]
        name = f"{stream[0]}:{stream[1]}"
        parts: list[tuple[int, int, bytes | None, tuple[object, ...] | None]] = [
            (int(str(row[0])), int(str(row[0])), None, row) for row in tables.rows.get(stream, [])
        ]
        parts += [(first, last, end, None) for first, last, _, end in tables.gaps.get(stream, [])]
        parts.sort(key=lambda part: part[:2])
        expected, at = 1, hashlib.sha256(f"edge/v1 {stream[0]} {stream[1]}".encode()).digest()
        for first, last, end, row in parts:
            if first != expected:
                say("exactly once", f"{name}: {expected} was expected, {first} to {last} is held")
                break
            if row is None:
                assert end is not None
                at = end
            else:
                at = hashlib.sha256(at + msgspec.msgpack.encode(row[:9])).digest()
                if at != row[9]:
                    say("chain", f"{name}:{first}: the row's hash is not that of its bytes and the row before")
                    break
            expected = last + 1
        else:
            if expected != high + 1:
                say("exactly once", f"{name}: says it is whole up to {high}, is so up to {expected - 1}")
            elif high and at != end_hash:
                say("chain", f"{name}: the chain does not end as the stream says")


def _accounted(fleet: Fleet, ledger: Ledger, tables: _Tables, verdict: Verdict, say: _Say) -> None:
    """Promise: what an agent was told is durable is at the hub as it was written, or counted there as lost."""
    bodies = {(*stream, int(str(row[0]))): (row[5], row[8]) for stream, rows in tables.rows.items() for row in rows}
    seen: dict[object, tuple[str, str, int]] = {}
    by_label = {entry.label: entry for entry in ledger.written.values()}
    for key, (label, body) in bodies.items():
        entry = by_label.get(str(label))
        if entry is None:
            continue  # one of the site's own
        if entry.body != body:
            say("as written", f"{':'.join(map(str, key))}: another body than {label} was written with")
        if label in seen:
            say("exactly once", f"{label} is held at {seen[label]} and at {key}")
        seen[label] = key
        if entry.state == "refused":
            say("exactly once", f"{label} was refused to its agent and is held all the same")
    for entry in ledger.durable():
        verdict.written += 1
        assert entry.key is not None
        if entry.key in bodies:
            verdict.delivered += 1
        elif any(first <= entry.key[2] <= last for first, last, *_ in tables.gaps.get(entry.key[:2], [])):
            verdict.declared += 1
        else:
            _missing(fleet, ledger, tables, entry, verdict, say)


def _missing(fleet: Fleet, ledger: Ledger, tables: _Tables, entry: Written, verdict: Verdict, say: _Say) -> None:
    """Neither a record nor in a gap: it must be in a tail that the hub names, or beyond anybody's knowing."""
    assert entry.key is not None
    epoch, lane, seq = entry.key
    high, _, told, last, _ = tables.ends.get((epoch, lane), (0, b"", 0, 0, False))
    held, final = tables.epochs.get(epoch, (False, True))
    named = max(high, last) < seq <= told
    open_ended = epoch in tables.epochs and not held and not final and seq > high
    if (named or open_ended) and ledger.faults and entry.gone_from_disk:
        verdict.unknown += 1
    elif entry.gone_from_disk and ledger.faults and seq > fleet.hub.witness.get((ledger.site, epoch, lane), 0):
        verdict.beyond += 1
    else:
        say(
            "no silent loss",
            f"{epoch}:{lane}:{seq} ({entry.label}) is nowhere: high {high}, told {told}, last {last}, "
            f"held {held}, gone from disk {entry.gone_from_disk}",
        )


def _incidents(database: sqlite3.Connection, ledger: Ledger, say: _Say) -> None:
    """Promise: an alarm at the hub has a cause."""
    cause = {
        "two_processes": "twin" in ledger.faults,
        "journal_went_back": bool(ledger.faults),
        "checkpoint": bool(ledger.faults),
    }
    for what, detail in database.execute("SELECT what, detail FROM incidents WHERE site=?", (ledger.site,)):
        if not cause.get(what, False):
            say("no false alarm", f"{what}: {detail}")


def _facts(fleet: Fleet, machine: SimSite, say: _Say) -> None:
    """Promise: every site knows what the fleet was told last; the hub knows what a site's agents set last."""
    database = sqlite3.connect(fleet.hub.disk.path)
    try:
        wanted = {
            key: json.loads(value)
            for key, value in database.execute("SELECT key, value FROM fleet_facts WHERE value IS NOT NULL")
        }
        known = {
            key: json.loads(value)
            for key, value in database.execute("SELECT key, value FROM facts WHERE site=?", (machine.site,))
        }
    finally:
        database.close()
    if machine.fleet_facts() != wanted:
        say("facts", f"the fleet was told {wanted}, here is {machine.fleet_facts()}")
    ledger = machine.ledger
    for key, value in machine.own_facts().items():
        if value not in ledger.facts_tried.get(key, ()) and "flipped bit" not in ledger.faults:
            say("facts", f"{key} is {value}, which no agent set")
    if ledger.faults or fleet.hub.restored or ledger.pressed:
        return  # what was set last may be what a disk lost, or evicted
    if known != machine.own_facts():
        say("facts", f"the site knows {machine.own_facts()}, the hub {known}")
    for key, value in ledger.facts.items():
        if machine.own_facts().get(key) != value and len(ledger.facts_tried[key]) == 1:
            say("facts", f"{key} was set to {value}, and is {machine.own_facts().get(key)}")


def _reasons(fleet: Fleet, ledger: Ledger, tables: _Tables, verdict: Verdict, say: _Say) -> None:
    """Promise: nothing is declared lost that need not be."""
    for stream, gaps in tables.gaps.items():
        for first, last, reason, _ in gaps:
            verdict.gaps += 1
            name = f"{stream[0]}:{stream[1]}:{first}-{last}"
            if reason.startswith("evicted"):
                legal = ledger.pressed
            elif reason.startswith("dropped after"):
                legal = fleet.hub.restored > 0
            else:
                legal = reason.startswith("damaged") and "flipped bit" in ledger.faults
            if not legal:
                say("no needless loss", f"{name}: declared as {reason!r}, and nothing gave cause for it")
    for stream, (high, _, told, last, forked) in tables.ends.items():
        if forked:
            say("no needless loss", f"{stream[0]}:{stream[1]}: forked, though every process draws an epoch of its own")
        if told > max(high, last) and not ledger.faults:
            say("no needless loss", f"{stream[0]}:{stream[1]}: an unknown tail up to {told}, and no disk was lost")
