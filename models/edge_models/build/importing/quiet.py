"""Exporters talk of much that concerns nobody here; what matters they raise."""

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

_LOGGERS = ("onnxscript", "optimum", "torch", "torch.onnx", "transformers")


@contextmanager
def quietly() -> Iterator[None]:
    """No warnings, no logs below errors, nothing on stdout, which is for data, in this block.

    Enter it after the exporter was imported: at that moment it sets its own log level.
    """
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings(), tempfile.TemporaryFile("w") as nowhere, redirect_stdout(nowhere):
        warnings.simplefilter("ignore")
        for name in before:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
