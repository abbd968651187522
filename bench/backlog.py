"""How long a restart takes to its first durable decision with 1,000,000 records that no hub has, against none.

Run it: `.venv/bin/python -m bench.backlog`. The site is `edge-agent run` with the trace model and a hub that does not
answer, as after weeks without a link. Both sites start in turns: after a clean stop, and after a `kill -9`.
"""

import signal
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import yaml

from bench.fleet import operator, wait_until
from bench.report import Line, show
from bench.site_process import BUNDLE, POLICY, running
from edge_agent.memory.draft import Draft
from edge_agent.memory.journal import Journal
from edge_sync.signing import make_key

ROWS = 1_000_000
BUDGET_MB = 2048
STARTS = 9
UNIT = 1_000
"""Observations, each with what follows from it, in one transaction while the backlog is made."""

OBSERVATION = '{"x": [%d, 37.25, 79.0, 0.0, 26.5, 8.75, 0.5, 88.0, 30.0], "_topic": "plant/line/1/press/4"}'
BODY = '{"of": "%s"}' % ("0123456789abcdef" * 40)


def make_site(folder: Path) -> Path:
    """A site file with one agent that sees one observation, and a hub that is not there."""
    folder.mkdir(parents=True)
    (folder / "policy.yaml").write_text(POLICY)
    played = {"kind": "replay", "file": str(BUNDLE), "limit": 1}
    agent = {"name": "watch", "bundle": str(BUNDLE), "policy": "policy.yaml", "source": played, "grants": ["alert"]}
    online, director = (make_key(folder / f"{role}.key") for role in ("online", "director"))
    operator(folder / "trust", online, director)
    site = {
        "site": folder.name,
        "hub": {"broker": "mqtt://127.0.0.1:1", "root": "trust/metadata/1.root.json"},
        "api": {"port": 0},
        "disk": {"journal_mb": BUDGET_MB},
        "grants": ["alert"],
        "agents": [agent],
    }
    file = folder / "site.yaml"
    file.write_text(yaml.safe_dump(site))
    return file


def fill(path: Path, rows: int) -> None:
    """So many records in an earlier epoch, as the agent `watch` writes them."""
    with closing(Journal(path, BUDGET_MB, lambda: time.time_ns() // 1000)) as journal:
        for number in range(0, rows // 3, UNIT):
            drafts: list[Draft] = []
            for at in range(number, number + UNIT):
                now_us = time.time_ns() // 1000
                seen = Draft("telemetry", "observation", "watch", now_us, OBSERVATION % at, subject="press-4")
                said = Draft("telemetry", "prediction", "watch", now_us, BODY[:300], label="ok", score=0.9, ref=seen)
                drafts += (seen, said, Draft("decision", "decision", "watch", now_us, BODY, label="act", ref=said))
            journal.write(drafts)


def newest_id(memory: Path) -> int:
    """The newest record's row id."""
    with closing(sqlite3.connect(f"file:{memory}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT coalesce(max(id), 0) FROM journal").fetchone()[0])


def decided(memory: Path, after: int) -> bool:
    """Whether a decision is durable behind that row; asks nothing that takes longer in a large file."""
    with closing(sqlite3.connect(f"file:{memory}?mode=ro", uri=True)) as db:
        query = "SELECT EXISTS (SELECT 1 FROM journal WHERE id>? AND kind='decision')"
        return bool(db.execute(query, (after,)).fetchone()[0])


def start_s(file: Path, log: Path, kill: bool) -> float:
    """From exec to the first durable decision; then the process is told to stop, or killed."""
    memory = file.parent / "data" / "memory.db"
    before = newest_id(memory)
    began = time.perf_counter()
    with running(["-m", "edge_cli.main", "run", str(file)], log) as child:
        wait_until(lambda: decided(memory, before), "the first decision", look_s=0.002)
        took = time.perf_counter() - began
        if kill:
            child.send_signal(signal.SIGKILL)
            child.wait()
    return took


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "children.log"
        files = {rows: make_site(Path(name) / f"plant-{rows}") for rows in (0, ROWS)}
        for rows, file in files.items():
            fill(file.parent / "data" / "memory.db", rows)
        size_mb = (files[ROWS].parent / "data" / "memory.db").stat().st_size / 1e6
        lines = []
        for kill, what in ((False, "after a clean stop"), (True, "after kill -9")):
            took: dict[int, list[float]] = {rows: [] for rows in files}
            for _ in range(STARTS):
                for rows, file in files.items():
                    took[rows].append(start_s(file, log, kill))
            empty, full = (median(took[rows][1:]) for rows in files)  # the first start of all fills the caches
            spread = f"{min(took[ROWS][1:]):.2f}–{max(took[ROWS][1:]):.2f}"
            figures = (f"{empty:.2f}", f"{full:.2f}", spread)
            lines.append(Line(f"exec to the first decision, s: {what}", figures, f"{full / empty:.2f}", "≤ 1.2"))
    title = f"a start with {ROWS:,} records waiting ({size_mb:.0f} MB); ratio to: the same with none"
    show(title, ("none", "backlog", "its spread"), lines)


if __name__ == "__main__":
    main()
