"""How much faster int8 is than float on this machine, at one thread and one sample.

A measurement is never the same twice, and a card is part of a digest: so one pair of graphs is measured once on a
machine, and remembered, in the bundles that ship and in a cache.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from edge_models.build.evaluate import open_session
from edge_models.digests import digest_of
from edge_models.npy import Array
from edge_models.shipped import shipped_bundles

ROUNDS, RUNS = 40, 50
"""Rounds in turn of so many runs each: what else the machine does falls on both alike."""


def latency(float_graph: bytes, int8_graph: bytes, sample: Mapping[str, Array]) -> dict[str, Any]:
    """The card's part on latency: µs of a run of each graph, their ratio, and where it was measured."""
    key = {
        "float_graph": digest_of(float_graph),
        "int8_graph": digest_of(int8_graph),
        "cpu": cpu_model(),
        "onnxruntime": ort.__version__,
        "threads": 1,
        "batch": 1,
    }
    cache = _cache_folder() / f"{digest_of(json.dumps(key).encode()).removeprefix('sha256:')[:32]}.json"
    return _shipped(key) or _cached(cache, key) or _remembered(cache, key | _measure(float_graph, int8_graph, sample))


def cpu_model() -> str:
    """The machine's CPU in its maker's words."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _measure(float_graph: bytes, int8_graph: bytes, sample: Mapping[str, Array]) -> dict[str, float]:
    feed = dict(sample)
    sessions = [open_session(graph) for graph in (float_graph, int8_graph)]
    times: tuple[list[float], list[float]] = ([], [])
    for warming in (True, *(False,) * ROUNDS):
        for session, seen in zip(sessions, times, strict=True):
            started = time.perf_counter()
            for _ in range(RUNS):
                session.run(None, feed)
            if not warming:
                seen.append((time.perf_counter() - started) / RUNS * 1e6)
    ratio = statistics.median(int8 / float_ for float_, int8 in zip(*times, strict=True))
    return {
        "float_us": round(statistics.median(times[0]), 1),
        "int8_us": round(statistics.median(times[1]), 1),
        "ratio": round(ratio, 2),
    }


def _shipped(key: Mapping[str, Any]) -> dict[str, Any] | None:
    cards = (bundle.card.get("latency", {}) for bundle in shipped_bundles())
    return next((dict(seen) for seen in cards if key.items() <= seen.items()), None)


def _cached(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        seen = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return dict(seen) if isinstance(seen, dict) and key.items() <= seen.items() else None


def _remembered(path: Path, seen: dict[str, Any]) -> dict[str, Any]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(seen, indent=1), encoding="utf-8")
    except OSError:
        pass  # no cache to write to: the next build measures again
    return seen


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "edge-agent-kit" / "latency"
