"""Whether the journal is what was written: every row's hash, every stream without a hole."""

import sqlite3
from dataclasses import dataclass

from edge_agent.memory.outbox import streams
from edge_agent.memory.schema import snapshot
from edge_sync.rows import Row, chain, chain_start, row_bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, and exactly where."""

    epoch: str
    lane: str
    seq: int
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked and what was found. `evicted` counts rows inside declared gaps."""

    streams: int
    rows: int
    evicted: int
    findings: tuple[Finding, ...]


def verify(connection: sqlite3.Connection) -> Report:
    """Check the file's integrity, then every stream's chain, row by row."""
    findings: list[Finding] = []
    rows = evicted = 0
    for (problem,) in connection.execute("PRAGMA quick_check"):
        if problem != "ok":
            findings.append(Finding("", "", 0, f"SQLite: {problem}"))
    with snapshot(connection):  # a running site goes on writing
        found = streams(connection)
        for state in found:
            checked, gone = _verify_stream(connection, state.epoch, state.lane, state.last, findings)
            rows, evicted = rows + checked, evicted + gone
    return Report(len(found), rows, evicted, tuple(findings))


def _verify_stream(
    connection: sqlite3.Connection, epoch: str, lane: str, last: int, findings: list[Finding]
) -> tuple[int, int]:
    """Rows checked and rows in declared gaps."""
    skips = {
        first: (end, bytes(end_hash))
        for first, end, end_hash in connection.execute(
            "SELECT first, last, hash FROM gaps WHERE epoch=:e AND lane=:l"
            " UNION ALL SELECT 1, trimmed, trimmed_hash FROM cursors WHERE epoch=:e AND lane=:l AND trimmed>0"
            " ORDER BY 1, 2",  # of two that begin together, the longer comes last and stays
            {"e": epoch, "l": lane},
        )
    }
    expected, at_hash, rows, evicted = 1, chain_start(epoch, lane), 0, 0

    def skip() -> None:
        nonlocal expected, at_hash, evicted
        while expected in skips:
            end, end_hash = skips[expected]
            evicted += end - expected + 1
            expected, at_hash = end + 1, end_hash

    for *fields, row_hash in connection.execute(
        "SELECT seq, at, kind, agent, subject, label, score, ref, body, hash FROM journal"
        " WHERE epoch=? AND lane=? ORDER BY seq",
        (epoch, lane),
    ):
        row = Row(*fields)
        skip()
        if row.seq != expected:
            findings.append(
                Finding(epoch, lane, expected, f"rows {expected} to {row.seq - 1} are missing, no gap says so")
            )
        elif chain(at_hash, row_bytes(row)) != row_hash:
            findings.append(Finding(epoch, lane, row.seq, "the row is not what was written, or follows another"))
        expected, at_hash, rows = row.seq + 1, bytes(row_hash), rows + 1
    skip()
    if expected <= last:
        findings.append(Finding(epoch, lane, expected, f"rows {expected} to {last} are missing, no gap says so"))
    return rows, evicted
