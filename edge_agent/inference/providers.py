"""What models run on: ONNX Runtime's execution providers, chosen by what a site file says and what is installed."""

from collections.abc import Sequence

import onnxruntime as ort

from edge_models.errors import ConfigError

Providers = tuple[str, ...]
"""ONNX Runtime's names, the preferred one first: each node of a graph runs on the first that knows it."""

CPU = "CPUExecutionProvider"
ONLY_CPU: Providers = (CPU,)

_SUFFIX = "ExecutionProvider"


def choose(wanted: Sequence[str], there: Sequence[str] | None = None) -> Providers:
    """What a site file's `inference.providers` stand for: ``cuda`` for ``CUDAExecutionProvider``, in any case.

    `there`: what is to be had, None: what the installed onnxruntime was built with. Whether this machine has what it
    takes, a session shows. Raises `ConfigError` for one that is not there: which are.
    """
    known = {_short(name): name for name in (ort.get_available_providers() if there is None else there)}
    for name in wanted:
        if _short(name) not in known:
            raise ConfigError(
                f"inference.providers: the onnxruntime that is installed here has no {name!r}, "
                f"it has {', '.join(sorted(known))}"
            )
    return tuple(dict.fromkeys(known[_short(name)] for name in wanted))


def _short(name: str) -> str:
    return name.removesuffix(_SUFFIX).lower()
