"""A Hugging Face model's picture input: its size from the folder, its normalisation as the beginning of the graph."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from edge_models.build.importing.graphs import identifier, names_in, rename
from edge_models.tensors import ImageSpec

PIXELS = "pixel_values"

_BILINEAR = 2
"""Pillow's number of the filter that the kit resizes with."""


def picture_input(model: Any, folder: Path, config: Mapping[str, Any]) -> ImageSpec | None:
    """Give ``pixel_values`` the size that the folder says and put the processor's normalisation into the graph.

    The spec of the pictures it then takes; None where the processor does to pictures what the kit does not (crops, or
    another filter): such a model takes tensors, prepared as it was trained.
    """
    values = [value for value in model.graph.input if value.name == PIXELS]
    dims = list(values[0].type.tensor_type.shape.dim) if values else []
    if len(dims) != 4:
        return None
    said = _processor(folder)
    height, width = _size(said.get("size")) or _size(config.get("image_size")) or (None, None)
    for dim, size in zip(dims[1:], (config.get("num_channels", 3), height, width), strict=True):
        if isinstance(size, int) and size > 0:
            dim.dim_value = size
    crops = said.get("do_center_crop") or said.get("do_pad") or not said.get("do_resize")
    if crops or said.get("resample", _BILINEAR) != _BILINEAR or dims[1].dim_value != 3 or not height or not width:
        return None
    if said.get("do_normalize"):
        _normalize(model, values[0], said.get("image_mean"), said.get("image_std"))
    scale = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    return ImageSpec(width, height, "RGB", scale, "NCHW")


def _normalize(model: Any, value: Any, mean: Any, deviation: Any) -> None:
    """``(x - mean) / deviation``, a number each channel, before all else."""
    taken = names_in(model)
    names = [identifier(f"{PIXELS}_{part}", taken) for part in ("normal", "centred", "mean", "deviation")]
    rename(model, {PIXELS: names[0]})
    value.name = PIXELS
    for name, numbers in ((names[2], mean or [0.5] * 3), (names[3], deviation or [0.5] * 3)):
        array = np.array(numbers, dtype=np.float32).reshape(1, -1, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.node.insert(0, helper.make_node("Sub", [PIXELS, names[2]], [names[1]]))
    model.graph.node.insert(1, helper.make_node("Div", [names[1], names[3]], [names[0]]))


def _processor(folder: Path) -> dict[str, Any]:
    try:
        value = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _size(value: Any) -> tuple[int, int] | None:
    """Height and width."""
    if isinstance(value, dict):
        value = [value.get("height"), value.get("width")]
    sides = value if isinstance(value, list) else [value, value]
    return (sides[0], sides[1]) if len(sides) == 2 and all(isinstance(side, int) for side in sides) else None
