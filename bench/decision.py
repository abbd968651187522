"""What a decision costs up to the COMMIT that its act waits for: `Loop.step` against inference and one bare commit.

Run it: `.venv/bin/python -m bench.decision`. The baseline runs the same session on a ready tensor and commits one row
of 800 bytes (SQLite, WAL, synchronous=FULL), and does nothing else. Both take turns, so that both meet the same disk.
"""

import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median

import numpy as np

from bench.agent import Agent, now_us
from bench.report import Line, show
from edge_agent.inference.session import open_session
from edge_agent.memory.journal import Journal
from edge_models.bundle import read_bundle
from edge_models.shipped import shipped_path

TRACE, SHUTTLE = ("trace", "2"), ("shuttle", "2")
"""A window of 275 numbers an observation, and 9 numbers."""

ROUNDS = 9
"""Turns of each; the ratio is the median of the rounds' own ratios."""

SECONDS = 0.7
"""For each turn."""

WARM_STEPS = 100
JOURNAL_MB = 512
AGENTS = 4
ROW = "x" * 800
"""About the size of a decision's body."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn took for each decision, in seconds: the median, and the mean with its checkpoints."""

    median_s: float
    mean_s: float


Rounds = list[tuple[Turn, Turn]]
"""Of the baseline and of the kit."""


class Baseline:
    """The same inference and one bare commit."""

    def __init__(self, folder: Path, bundle_name: tuple[str, str], batch: int) -> None:
        bundle = read_bundle(shipped_path(*bundle_name))
        self._session = open_session(bundle.graph)
        self._batch = batch
        ((name, golden),) = bundle.golden.inputs.items()
        self._feeds = [{name: np.resize(golden[i:], (batch, golden.shape[1]))} for i in range(20)]
        self._outputs = [bundle.contract.scores]
        self._lock = threading.Lock()
        self._n = 0
        self._db = sqlite3.connect(folder / "bare.db", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS decisions (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")

    def step(self) -> int:
        """Infer a batch, then commit one row for each of it, together."""
        self._n += 1
        self._session.run(self._outputs, self._feeds[self._n % len(self._feeds)])
        with self._lock:
            if self._batch == 1:
                self._db.execute("INSERT INTO decisions (body) VALUES (?)", (ROW,))
            else:
                self._db.execute("BEGIN")
                self._db.executemany("INSERT INTO decisions (body) VALUES (?)", [(ROW,)] * self._batch)
                self._db.execute("COMMIT")
        return self._batch

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def until_commit(agent: Agent) -> Callable[[], float]:
    """A step of the agent that returns the seconds until its first act began, which is right after the COMMIT."""

    def step() -> float:
        agent.note.called_s.clear()
        start = time.perf_counter()
        agent.step()
        return agent.note.called_s[0] - start

    return step


def whole(work: Callable[[], object]) -> Callable[[], float]:
    """`work`, returning the seconds it took."""

    def step() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return step


def take_turn(step: Callable[[], float], batch: int, every_s: float) -> Turn:
    """Step for `SECONDS`, every `every_s`."""
    due = time.perf_counter()
    end = due + SECONDS
    took = []
    while due < end:
        took.append(step() / batch)
        due = max(due + every_s, time.perf_counter())
        if every_s:
            time.sleep(max(0.0, due - time.perf_counter()))
    return Turn(median(took), fmean(took))


def together(steps: list[Callable[[], object]]) -> Turn:
    """All of these at once, each on a thread of its own; wall seconds for each step of any of them."""
    counts = [0] * len(steps)
    end = time.perf_counter() + SECONDS

    def run(index: int) -> None:
        while time.perf_counter() < end:
            steps[index]()
            counts[index] += 1

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(steps))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    each_s = (time.perf_counter() - start) / sum(counts)
    return Turn(each_s, each_s)


def line(what: str, rounds: Rounds, target: str) -> Line:
    """What the rounds, each baseline and kit, come to."""
    bare, kit = median(b.median_s for b, _ in rounds), median(k.median_s for _, k in rounds)
    ratio = median(k.median_s / b.median_s for b, k in rounds)
    in_all = median(k.mean_s / b.mean_s for b, k in rounds)
    figures = (f"{bare * 1e6:.0f}", f"{kit * 1e6:.0f}", f"{1 / kit:.0f}", f"{in_all:.2f}")
    return Line(what, figures, f"{ratio:.2f}", target)


def alone(folder: Path, bundle: tuple[str, str] = TRACE, batch: int = 1, every_s: float = 0.0) -> Rounds:
    """One agent, deciding on `batch` observations every `every_s` seconds; 0: as fast as it can."""
    with (
        closing(Journal(folder / "memory.db", JOURNAL_MB, now_us)) as journal,
        closing(Baseline(folder, bundle, batch)) as bare,
    ):
        agent = Agent(journal, bundle, batch)
        for _ in range(WARM_STEPS):
            agent.step()
            bare.step()
        bare_step, kit_step = whole(bare.step), until_commit(agent)
        return [(take_turn(bare_step, batch, every_s), take_turn(kit_step, batch, every_s)) for _ in range(ROUNDS)]


def at_once(folder: Path) -> Rounds:
    """`AGENTS` agents with one journal, against as many threads with one bare connection."""
    with (
        closing(Journal(folder / "memory.db", JOURNAL_MB, now_us)) as journal,
        closing(Baseline(folder, TRACE, 1)) as bare,
    ):
        agents = [Agent(journal, TRACE, 1) for _ in range(AGENTS)]
        bare_steps: list[Callable[[], object]] = [bare.step] * AGENTS
        kit_steps: list[Callable[[], object]] = [agent.step for agent in agents]
        for agent in agents:
            agent.step()
        return [(together(bare_steps), together(kit_steps)) for _ in range(ROUNDS)]


def main() -> None:
    """Print the table."""
    lines = []
    cases: tuple[tuple[str, str, Callable[[Path], Rounds]], ...] = (
        ("trace, one at a time", "≤ 1.3", alone),
        ("trace, one every 10 ms", "", partial(alone, every_s=0.01)),
        ("trace, micro-batch of 32", "", partial(alone, batch=32)),
        (f"trace, {AGENTS} agents at once", "", at_once),
        ("shuttle, one at a time", "≤ 1.3", partial(alone, bundle=SHUTTLE)),
        ("shuttle, micro-batch of 32", "", partial(alone, bundle=SHUTTLE, batch=32)),
    )
    for what, target, measure in cases:
        with tempfile.TemporaryDirectory() as folder:
            lines.append(line(what, measure(Path(folder)), target))
    show(
        "a decision with an act, to its COMMIT; ratio to: the same inference + one bare commit",
        ("baseline µs", "kit µs", "decisions/s", "ratio of means"),
        lines,
    )


if __name__ == "__main__":
    main()
