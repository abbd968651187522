"""ONNX Runtime, set up for a small shared machine: one way to make a session, for sites, steps and the workshop."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

# Before anything imports onnxruntime: its telemetry is on by default.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

THREADS = 1
"""Of a session. Source: notes on inference; a second thread made a busy node three to four times slower."""

CONFIG: Mapping[str, str] = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}
"""What every session is told."""

_LOG_NOTHING = 4
"""Fatal only: what goes wrong comes as an exception, and is said once, by whoever handles it."""


def session_options(config: Mapping[str, str] | None = None) -> Any:
    """An `onnxruntime.SessionOptions`; `config` is told beside `CONFIG`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.inter_op_num_threads = THREADS
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    for key, value in {**CONFIG, **(config or {})}.items():
        options.add_session_config_entry(key, value)
    options.log_severity_level = _LOG_NOTHING
    return options


def make_session(graph: bytes | str, options: Any = None, providers: Sequence[str] = ("CPUExecutionProvider",)) -> Any:
    """An `onnxruntime.InferenceSession` of ONNX bytes, or of a file. Raises whatever ONNX Runtime does.

    `providers`: of execution, by ONNX Runtime's names. One whose libraries are missing here may be left out in silence.
    """
    # Without the fallback, which says on stdout that something failed, and tries again otherwise than it was told.
    session = ort.InferenceSession(graph, options or session_options(), providers=list(providers), enable_fallback=0)
    # It keeps the graph's bytes for the day its providers are changed, which nobody does here: as much memory again.
    session._model_bytes = None
    return session


def one_line(error: Exception) -> str:
    """What ONNX Runtime said, without its prefix and line breaks."""
    text = " ".join(str(error).split())
    return text.removeprefix("[ONNXRuntimeError] : ")
