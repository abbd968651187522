"""How long one sample takes on one thread, and how much memory: of several graphs in turns, so that what else the
machine does falls on all of them alike.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_models.build.run import open_session
from edge_models.build.workdir import FLOAT
from edge_models.contract import Contract
from edge_models.errors import RejectedError
from edge_models.feeding import fed
from edge_models.npy import Array
from edge_models.steps import prepare

MOST_ROUNDS, LEAST_ROUNDS, MOST_RUNS = 60, 7, 100
"""Rounds in turn of so many runs each."""

TURN_S, BUDGET_S = 0.004, 12.0
"""How long a turn is to be, and about how long all rounds together may take: slow graphs run once a turn."""

CHILD_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Speed:
    """The time of one run: one sample, one thread, with the steps after the graph where the model reads."""

    p50_us: float
    p99_us: float
    ratio: float
    """Its time as a share of the float graph's in the same rounds (their median): below 1 it is faster."""


def speeds(
    contract: Contract,
    graphs: Mapping[str, bytes],
    files: Mapping[str, bytes],
    sample: Mapping[str, Array],
    base: str = FLOAT,
) -> dict[str, Speed]:
    """Each graph's speed by its name. `sample` is what one run is fed: as `one_run` takes it from samples.

    Ratios are to the graph named `base`, or to the first where there is none of that name. Raises `RejectedError`
    where a graph can't be loaded or run.
    """
    runs = {name: _runner(contract, graph, files, sample) for name, graph in graphs.items()}
    once = {name: _warm(name, run) for name, run in runs.items()}
    counts = {name: max(1, min(MOST_RUNS, round(TURN_S / seconds))) for name, seconds in once.items()}
    a_round = sum(once[name] * counts[name] for name in runs)
    rounds = max(LEAST_ROUNDS, min(MOST_ROUNDS, int(BUDGET_S / a_round)))
    times: dict[str, list[list[float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append([_timed(run) for _ in range(counts[name])])
    # The middle of a turn, as its mean would be that of what else the machine did in it.
    middles = {name: [statistics.median(turn) for turn in turns] for name, turns in times.items()}
    against = middles[base if base in middles else next(iter(middles))]
    return {
        name: Speed(
            p50_us=float(np.percentile(np.concatenate(turns), 50)) * 1e6,
            p99_us=float(np.percentile(np.concatenate(turns), 99)) * 1e6,
            ratio=statistics.median(mine / its for mine, its in zip(middles[name], against, strict=True)),
        )
        for name, turns in times.items()
    }


def one_run(contract: Contract, inputs: Mapping[str, Array], row: int = 0) -> dict[str, Array]:
    """One of the samples as a run is fed it: a batch of 1, or without that axis where the model takes none.

    Of texts, which are padded to go together, the one of middling length, without the padding.
    """
    if (mask := inputs.get("attention_mask")) is not None and contract.batched:
        lengths = np.asarray(mask).sum(axis=1)
        row = int(np.argsort(lengths, kind="stable")[len(lengths) // 2])
        return {name: np.ascontiguousarray(array[row : row + 1, : int(lengths[row])]) for name, array in inputs.items()}
    return fed(inputs, contract.batched, row)


def peak_rss_mb(graph: bytes, sample: Mapping[str, Array]) -> float:
    """The most memory, in 10^6 bytes, that a Python process has which does no more than run this graph on this sample.

    Python, NumPy and ONNX Runtime are in it, what steps open is not. `sample` as `speeds` takes it. Raises
    `RejectedError` where the graph can't be loaded or run.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "graph.onnx").write_bytes(graph)
        for index, (name, array) in enumerate(sample.items()):
            np.save(Path(folder) / f"{index}.npy", array, allow_pickle=False)
            (Path(folder) / f"{index}.name").write_text(name, encoding="utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", _CHILD, folder],
                env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
                capture_output=True,
                text=True,
                timeout=CHILD_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RejectedError(f"the graph takes longer than {CHILD_TIMEOUT_S:.0f} s to run") from None
    if done.returncode != 0:
        raise RejectedError(f"the graph cannot be run: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    return float(done.stdout) / 1e6


def cpu_model() -> str:
    """The machine's CPU in its maker's words."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


# VmHWM is the process's own; `getrusage` would count what the parent had when it forked.
_CHILD = """
import pathlib, resource, sys
import numpy, onnxruntime
folder = pathlib.Path(sys.argv[1])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.log_severity_level = 3
session = onnxruntime.InferenceSession(str(folder / "graph.onnx"), options, providers=["CPUExecutionProvider"])
feed = {path.read_text("utf-8"): numpy.load(path.with_suffix(".npy")) for path in folder.glob("*.name")}
for _ in range(3):
    session.run(None, feed)
try:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
except OSError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def _runner(
    contract: Contract, graph: bytes, files: Mapping[str, bytes], sample: Mapping[str, Array]
) -> Callable[[], object]:
    """What a site does with one sample, once its inputs are there."""
    session, steps = open_session(graph), prepare(contract, files)
    names, feed = [spec.name for spec in contract.outputs], dict(sample)
    if contract.task != "reading":
        return lambda: session.run(names, feed)
    return lambda: steps.readings(feed, dict(zip(names, session.run(names, feed), strict=True)))


def _warm(name: str, run: Callable[[], object]) -> float:
    """Seconds of the quicker of a graph's first runs."""
    try:
        return min(_timed(run) for _ in range(3))
    except RejectedError:
        raise
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no class of their own
        raise RejectedError(f"{name}: the graph cannot run on the sample: {' '.join(str(error).split())}") from None


def _timed(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
