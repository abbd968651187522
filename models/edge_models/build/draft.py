"""What a recipe or an import hands on: a float model, what is known of it, and samples to measure it on."""

from collections.abc import Mapping
from dataclasses import dataclass

from edge_models.build.samples import Samples
from edge_models.build.workdir import FLOAT, Sheet

PRECISIONS: Mapping[str, str] = {"none": FLOAT, "static": "int8", "dynamic": "int8", "int4": "int4"}
"""Scheme → what a card and a table call its result."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A model on its way to a bundle."""

    sheet: Sheet
    graph: bytes
    """ONNX, float, with everything inside that the contract promises."""
    files: Mapping[str, bytes]
    calibration: Samples | None
    """What sets the ranges of static quantization; never measured on."""
    held_out: Samples | None
    """What it is measured on; no choice is made by it but the gates'."""
    scheme: str = "none"
    """How it is quantized."""
    golden_samples: int = 20
