"""What skl2onnx converts only with a little help: its trees by histogram have attributes of NumPy's types.

Source: skl2onnx 1.20 with onnx 1.23, whose protobuf takes Python's own integers only.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from skl2onnx.common._registration import get_converter
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

Converter = Callable[[Any, Any, Any], None]


def mended() -> dict[type, Converter]:
    """By model, what to convert it with in place of skl2onnx's own converter."""
    return dict.fromkeys((HistGradientBoostingClassifier, HistGradientBoostingRegressor), _plainly)


def _plainly(scope: Any, operator: Any, container: Any) -> None:
    get_converter(operator.type)(scope, operator, _Plain(container))


class _Plain:
    """A container that is given plain numbers; all else is the container's."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *words: Any, **attributes: Any) -> Any:
        """Add a node, its attributes in Python's own types."""
        return self._container.add_node(*words, **{name: _plain(value) for name, value in attributes.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.bool_ | bool | np.integer):
        return int(value)
    return value
