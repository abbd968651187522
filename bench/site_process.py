"""What a site process needs: memory, the time to its first durable decision, and processor time with nothing to do.

Run it: `.venv/bin/python -m bench.site_process`. The site is `edge-agent run` with the trace model, its hub and broker
real processes. Baseline: a bare Python process that imports NumPy and ONNX Runtime, opens the same session, and runs
it once. This script imports neither, since pages of a library that two processes share count half in each one's PSS;
other processes of this environment that run meanwhile make PSS look better too, which is why RSS stands beside it.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from bench.fleet import Fleet, wait_until
from bench.report import Line, show
from edge_models.shipped import shipped_path

STARTS = 5
SETTLE_S = 10.0
IDLE_S = 20.0
BUNDLE = shipped_path("trace", "2")

BARE = """
import sys, time, pathlib
import numpy, onnxruntime
from edge_models.bundle import read_bundle
bundle = read_bundle(pathlib.Path(sys.argv[1]))
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(bundle.graph, options, providers=["CPUExecutionProvider"])
session.run(None, {name: array[:1] for name, array in bundle.golden.inputs.items()})
print("ready", flush=True)
time.sleep(3600)
"""

POLICY = """
policy: bench
version: 1
rules:
  - {name: act, when: prediction.score >= 0.0, do: {tool: alert, with: {message: =prediction.label}}}
"""


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process, in MB (10⁶ bytes). `pss`: pages shared with other processes count in part."""

    pss: float
    rss: float


def memory(pid: int) -> Memory:
    """What the kernel says of it now."""
    fields = {
        key: float(value.split()[0]) * 1024 / 1e6
        for key, _, value in (
            line.partition(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        )
        if value.endswith("kB")
    }
    return Memory(fields["Pss"], fields["Rss"])


def cpu_s(pid: int) -> float:
    """Processor seconds of all its threads so far, to the nanosecond; a thread that ends takes its own away."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child, ended with the context."""
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    with log.open("ab") as said:
        child = subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, stderr=said, env=environment)
    try:
        yield child
    finally:
        child.terminate()
        child.communicate(timeout=20)


def write_site(fleet: Fleet, folder: Path, source: dict[str, Any]) -> Path:
    """A site file with one agent, of a site that the hub knows."""
    known = fleet.register(folder.name, folder)
    (folder / "policy.yaml").write_text(POLICY)
    agent = {"name": "watch", "bundle": str(BUNDLE), "policy": "policy.yaml", "source": source, "grants": ["alert"]}
    site = known | {"api": {"port": 0}, "grants": ["alert"], "agents": [agent]}
    file = folder / "site.yaml"
    file.write_text(yaml.safe_dump(site))
    return file


def bare_start_s(log: Path) -> float:
    """From exec to the baseline's first inference."""
    start = time.perf_counter()
    with running(["-c", BARE, str(BUNDLE)], log) as child:
        _read_line(child)
        return time.perf_counter() - start


def site_start_s(file: Path, log: Path) -> float:
    """From exec to the process's first decision that is durable, as another process sees it in the journal."""
    journal = file.parent / "data" / "memory.db"
    before = decisions(journal)
    start = time.perf_counter()
    with running(["-m", "edge_cli.main", "run", str(file)], log):
        wait_until(lambda: decisions(journal) > before, "the first decision", look_s=0.002)
        return time.perf_counter() - start


def decisions(journal: Path) -> int:
    """Durable decisions."""
    if not journal.exists():
        return 0
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM journal WHERE kind='decision'").fetchone()[0])
        except sqlite3.OperationalError:  # it is being made
            return 0


def rest(pid: int, idle_s: float = IDLE_S) -> tuple[Memory, float]:
    """Its memory after `SETTLE_S`, then the share of a core it takes over `idle_s`."""
    time.sleep(SETTLE_S)
    held = memory(pid)
    before, start = cpu_s(pid), time.perf_counter()
    time.sleep(idle_s)
    return held, (cpu_s(pid) - before) / (time.perf_counter() - start)


def _read_line(child: subprocess.Popen[bytes]) -> None:
    if child.stdout is None or not child.stdout.readline():
        raise SystemExit("the baseline did not start")


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as name, Fleet(Path(name)) as fleet:
        folder, log = Path(name), Path(name) / "children.log"
        played = {"kind": "replay", "file": str(BUNDLE), "limit": 1}
        bare_s, first_s, again_s = [], [], []
        for number in range(STARTS):
            file = write_site(fleet, folder / f"plant-{number}", played)
            bare_s.append(bare_start_s(log))
            first_s.append(site_start_s(file, log))
            again_s.append(site_start_s(file, log))
        with running(["-c", BARE, str(BUNDLE)], log) as child:
            _read_line(child)
            bare, _ = rest(child.pid, idle_s=0.1)
        file = write_site(fleet, folder / "plant-idle", {"kind": "mqtt", "endpoint": "machines", "topic": "sensors/#"})
        with running(["-m", "edge_cli.main", "run", str(file)], log) as child:
            held, busy = rest(child.pid)
            fleet.require_online(file.parent.name)
    lines = [
        _line("PSS, MB", bare.pss, held.pss, "≤ 90"),
        _line("RSS, MB (PSS where nothing is shared)", bare.rss, held.rss, "≤ 90"),
        _line("exec to the first decision, s: new site", median(bare_s), median(first_s), "≤ 1.2"),
        _line("exec to the first decision, s: known site", median(bare_s), median(again_s), "≤ 1.2"),
        Line("idle, % of a core, link up", ("", f"{busy:.2%}"), "", "≤ 1 %"),
    ]
    title = "a site process; ratio to: a process that imports numpy and onnxruntime and runs the same session once"
    show(title, ("baseline", "site"), lines)


def _line(what: str, base: float, kit: float, target: str = "") -> Line:
    return Line(what, (f"{base:.2f}", f"{kit:.2f}"), f"{kit / base:.2f}", target)


if __name__ == "__main__":
    main()
