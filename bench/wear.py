"""What a decision makes the disk write: bytes for each, in variants of page size, checkpoints and group commit.

Run it: `.venv/bin/python -m bench.wear`. Baseline: one row with the same bodies, inserted and committed (SQLite's own
settings, WAL, synchronous=FULL). Bytes are those that the kernel counts for this process (`/proc/self/io`), checkpoints
included; on a tmpfs it counts none.
"""

import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bench.report import Line, show
from edge_agent.memory import budget
from edge_agent.memory.draft import Draft, Intent
from edge_agent.memory.journal import Journal
from edge_agent.memory.wear import process_written_bytes

DECISIONS = 4_000
WARM = 400
BUDGET_MB = 64

SHUTTLE, TRACE = 130, 2_000
"""Bytes of an observation: 9 numbers, and a window of 275."""
PREDICTION, DECISION, ACTION = "p" * 300, "d" * 800, '{"status": "done"}'


@dataclass(frozen=True, slots=True)
class Variant:
    """Settings of a new file; those of the kit where nothing else is said."""

    what: str
    page_bytes: int = budget.PAGE_BYTES
    checkpoint_bytes: int = 8 * 1024 * 1024
    """Of WAL, until it is folded into the file."""
    shrinks: bool = True
    zeros: bool = False
    """Whether freed pages are overwritten, as some builds of SQLite do by themselves."""
    batch: int = 1
    """Decisions in one transaction, as when so many wait in the source."""
    observation: int = SHUTTLE


VARIANTS = (
    Variant("the kit, 9 numbers"),
    Variant("pages of 512 bytes", page_bytes=512),
    Variant("pages of 2,048 bytes", page_bytes=2048),
    Variant("pages of 4,096 bytes", page_bytes=4096),
    Variant("pages of 8,192 bytes", page_bytes=8192),
    Variant("checkpoint after 1 MiB of WAL", checkpoint_bytes=1024 * 1024),
    Variant("checkpoint after 4 MiB of WAL", checkpoint_bytes=4 * 1024 * 1024),
    Variant("a file that can't shrink", shrinks=False),
    Variant("freed pages overwritten", zeros=True),
    Variant("4 decisions a commit", batch=4),
    Variant("32 decisions a commit", batch=32),
    Variant("the kit, 275 numbers", observation=TRACE),
    Variant("275 numbers, pages of 4,096 bytes", page_bytes=4096, observation=TRACE),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one decision."""

    written_bytes: float
    seconds: float


def bodies(size: int) -> int:
    """Bytes of the four bodies of one decision."""
    return size + len(PREDICTION) + len(DECISION) + len(ACTION)


def bare(folder: Path, size: int) -> Cost:
    """The baseline: a row, a commit."""
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body TEXT)")
        body = "x" * bodies(size)

        def insert(_: int) -> None:
            db.execute("BEGIN")
            db.execute("INSERT INTO rows (body) VALUES (?)", (body,))
            db.execute("COMMIT")

        return _measure(insert, 1, lambda: db.execute("PRAGMA wal_checkpoint(TRUNCATE)"))


def kit(folder: Path, variant: Variant) -> Cost:
    """The journal, with what a step of the loop writes; an act's result joins the next transaction."""
    path = folder / "memory.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(f"PRAGMA page_size={variant.page_bytes}")
        db.execute(f"PRAGMA auto_vacuum={'INCREMENTAL' if variant.shrinks else 'NONE'}")
        db.execute("CREATE TABLE made (here)")
    with closing(Journal(path, BUDGET_MB, lambda: 1, flushes=False)) as journal:
        db = journal._connection
        db.execute(f"PRAGMA wal_autocheckpoint={variant.checkpoint_bytes // variant.page_bytes}")
        db.execute(f"PRAGMA journal_size_limit={variant.checkpoint_bytes}")
        db.execute(f"PRAGMA secure_delete={'ON' if variant.zeros else 'FAST'}")
        observation = "o" * variant.observation

        def step(number: int) -> None:
            drafts: list[Draft] = []
            for _ in range(variant.batch):
                seen = Draft("telemetry", "observation", "watch", number, observation, subject="press-4")
                said = Draft("telemetry", "prediction", "watch", number, PREDICTION, label="ok", score=0.9, ref=seen)
                intent = Intent("alert", '{"message": "worn"}', number)
                drafts += (seen, said)
                drafts.append(Draft("decision", "decision", "watch", number, DECISION, ref=said, intent=intent))
            journal.write(drafts)
            journal.later(
                [
                    Draft("decision", "action", "watch", number, ACTION, ref=decision, settles=True)
                    for decision in drafts[2::3]
                ]
            )

        return _measure(step, variant.batch, lambda: db.execute("PRAGMA wal_checkpoint(TRUNCATE)"))


def _measure(step: Callable[[int], None], batch: int, fold: Callable[[], object]) -> Cost:
    for number in range(WARM // batch):
        step(number)
    fold()
    written, began = _written(), time.perf_counter()
    for number in range(DECISIONS // batch):
        step(number)
    seconds = time.perf_counter() - began
    fold()
    return Cost((_written() - written) / DECISIONS, seconds / DECISIONS)


def _written() -> int:
    written = process_written_bytes()
    if written is None:
        raise SystemExit("this kernel does not say what a process writes (/proc/self/io)")
    return written


def main() -> None:
    """Print the table."""
    lines: list[Line] = []
    bases: dict[int, Cost] = {}
    for size in (SHUTTLE, TRACE):
        with tempfile.TemporaryDirectory() as name:
            bases[size] = base = bare(Path(name), size)
        lines.append(Line(f"bare: one row of {bodies(size):,} bytes", _figures(base)))
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as name:
            cost = kit(Path(name), variant)
        ratio = cost.written_bytes / bases[variant.observation].written_bytes
        lines.append(Line(variant.what, _figures(cost), f"{ratio:.2f}"))
    show("bytes written for a decision; ratio to: one bare row of the same bodies", ("bytes", "µs"), lines)


def _figures(cost: Cost) -> tuple[str, ...]:
    return (f"{cost.written_bytes:,.0f}", f"{cost.seconds * 1e6:,.0f}")


if __name__ == "__main__":
    main()
