"""How long a graph takes on this machine, at one thread and one sample, and its share of what float takes.

A measurement is never the same twice, and a card is part of a digest: so the same graphs are measured once on a
machine, and remembered, in the bundles that ship and in a cache.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort

from edge_models.build.speed import cpu_model, speeds
from edge_models.contract import Contract
from edge_models.digests import digest_of
from edge_models.npy import Array
from edge_models.shipped import shipped_bundles


def latency(
    contract: Contract, graphs: Mapping[str, bytes], files: Mapping[str, bytes], sample: Mapping[str, Array]
) -> dict[str, Any]:
    """The card's part on latency: µs of a run of each graph (the first is float), the last's share of float's, and
    where it was measured. `sample` is one."""
    key = {f"{name}_graph": digest_of(graph) for name, graph in graphs.items()} | {
        "cpu": cpu_model(),
        "onnxruntime": ort.__version__,
        "threads": 1,
        "batch": 1,
    }
    cache = _cache_folder() / f"{digest_of(json.dumps(key).encode()).removeprefix('sha256:')[:32]}.json"
    found = _shipped(key) or _cached(cache, key)
    if found is not None:
        return found
    measured = speeds(contract, graphs, files, sample)
    times: dict[str, Any] = {f"{name}_us": round(speed.p50_us, 1) for name, speed in measured.items()}
    if len(graphs) > 1:
        times["ratio"] = round(measured[list(graphs)[-1]].ratio, 2)
    return _remembered(cache, key | times)


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
