"""The times that `quantize` measured, kept in the working directory: `evaluate` need not measure them again where the
graphs, the samples and the machine are the same.

Quality is measured anew each time: `quantize` looks at a part of the samples, as it sets some apart, and keeps no
answers.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import onnxruntime as ort

from edge_models.build.samples import Samples
from edge_models.build.speed import Speed, cpu_model
from edge_models.build.workdir import Workdir
from edge_models.digests import digest_of
from edge_models.durable import replace
from edge_models.errors import ConfigError
from edge_models.session import THREADS

FILE = "times.json"


def keep_times(work: Workdir, graphs: Mapping[str, bytes], samples: Samples, times: Mapping[str, Speed]) -> None:
    """Keep what the graphs, by name, took in one run on samples of these. Raises `ConfigError`."""
    told = _circumstances(graphs, samples) | {"times": {name: asdict(speed) for name, speed in times.items()}}
    try:
        replace(work.path / FILE, json.dumps(told, indent=1).encode() + b"\n")
    except OSError as error:
        raise ConfigError(f"{work.path / FILE}: {error.strerror}") from None


def kept_times(work: Workdir, graphs: Mapping[str, bytes], samples: Samples) -> dict[str, Speed] | None:
    """What was kept of just these graphs, these samples and this machine; None where anything is another."""
    try:
        told = json.loads((work.path / FILE).read_bytes())
        if not _circumstances(graphs, samples).items() <= told.items():
            return None
        return {name: Speed(**told["times"][name]) for name in graphs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none were kept, or somebody edited them
        return None


def _circumstances(graphs: Mapping[str, bytes], samples: Samples) -> dict[str, Any]:
    return {
        "graphs": {name: digest_of(graph) for name, graph in graphs.items()},
        "samples": samples.digest,
        "cpu": cpu_model(),
        "onnxruntime": ort.__version__,
        "threads": THREADS,
    }
