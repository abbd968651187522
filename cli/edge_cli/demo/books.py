"""Balancing the books: every record a site wrote against every record the hub holds of it, row by row."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_SITE = "SELECT epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash FROM journal"
_HUB = "SELECT epoch, lane, seq, at, kind, agent, subject, label, score, ref, body, hash FROM records WHERE site=?"

Row = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """One site's books. `lost`: at the site, not at the hub. `duplicated`: at the hub more often than at the site."""

    observations: int
    decisions: int
    actions: int
    decisions_while_cut: int
    records_at_site: int
    records_at_hub: int
    lost: int
    duplicated: int
    chain_breaks: int

    @property
    def even(self) -> bool:
        """Whether the two books are the same."""
        return not (self.lost or self.duplicated or self.chain_breaks) and self.records_at_site == self.records_at_hub


def balance(memory: Path, hub: Path, site: str, cut: tuple[int, int] | None) -> Balance:
    """Compare a site's memory with the hub's database; `cut` is when the link was down, UTC microseconds."""
    from edge_agent.memory.verify import verify  # noqa: PLC0415 - not needed to show --help

    with closing(sqlite3.connect(f"{memory.resolve().as_uri()}?mode=ro", uri=True)) as here:
        ours: list[Row] = here.execute(_SITE).fetchall()
        findings = verify(here).findings
    with closing(sqlite3.connect(f"{hub.resolve().as_uri()}?mode=ro", uri=True)) as there:
        theirs: list[Row] = there.execute(_HUB, (site,)).fetchall()
    kinds = [row[4] for row in ours]
    start, end = cut or (0, 0)
    return Balance(
        observations=kinds.count("observation"),
        decisions=kinds.count("decision"),
        actions=kinds.count("action"),
        decisions_while_cut=sum(row[4] == "decision" and start <= int(str(row[3])) < end for row in ours),
        records_at_site=len(ours),
        records_at_hub=len(theirs),
        lost=len(set(ours) - set(theirs)),
        duplicated=len(theirs) - len(set(theirs) & set(ours)),
        chain_breaks=len(findings),
    )


def pick_decision(memory: Path, cut: tuple[int, int] | None) -> str | None:
    """A decision worth explaining: one that acted, made while the link was down where there is one."""
    start, end = cut or (0, 0)
    with closing(sqlite3.connect(f"{memory.resolve().as_uri()}?mode=ro", uri=True)) as here:
        row = here.execute(
            "SELECT d.epoch || ':' || d.lane || ':' || d.seq FROM journal d"
            " WHERE d.kind='decision' AND d.body LIKE '%\"do\":%'"
            " ORDER BY (d.at BETWEEN ? AND ?) DESC, d.id LIMIT 1",
            (start, end),
        ).fetchone()
    return None if row is None else str(row[0])
