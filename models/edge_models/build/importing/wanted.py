"""What a person asks of an import, and how the command line writes it."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_models.contract import TASKS, Contract
from edge_models.errors import ConfigError
from edge_models.tensors import IDENTIFIER, MAX_AXIS, TensorSpec

MAX_LISTED = 20
"""Labels that a lineage's command repeats; more are in the contract anyway."""

MIN_OPSET = 13
"""The first whose Softmax and per-channel quantization are today's. Source: ONNX's operator changelog."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of an import."""

    name: str
    version: str
    task: str | None = None
    """None: what the model shows itself to be."""
    labels: tuple[str, ...] = ()
    opset: int = 17
    """Of graphs that are exported here; an ONNX file keeps its own."""
    trust_pickle: bool = False
    dims: Mapping[str, int | str] = field(default_factory=dict)
    """``INPUT.AXIS`` → its size, or the name of an axis that stays open."""
    inputs: tuple[TensorSpec, ...] = ()
    """What a file without shapes takes."""
    outputs: tuple[str, ...] = ()
    """Those to keep; none: all."""
    threshold: float | None = None
    """From which probability of the second of two labels on that is the answer; None: from 0.5 on."""
    tokenizer: Path | None = None
    """The ``tokenizer.json`` of a model of texts that comes without one."""

    def check(self) -> None:
        """Raise `ConfigError` for what can be known to be wrong before anything is read."""
        any_tensor = (TensorSpec("any", ("batch",), "float32"),)
        try:
            Contract(self.name, self.version, "tensors", any_tensor, any_tensor)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if self.task == "reading":
            raise ConfigError(
                "a model that reads is made by a recipe, which says what its texts mean: see `model build`"
            )
        if self.task not in (None, *TASKS):
            raise ConfigError(f"task {self.task!r} is not one of classification, embedding, tensors")
        if len(set(self.labels)) != len(self.labels) or not all(0 < len(label) <= 200 for label in self.labels):
            raise ConfigError("labels: each has 1 to 200 characters and is there once")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ConfigError(f"--threshold {self.threshold:g}: wanted a probability between 0 and 1")
        if self.threshold is not None and self.task not in (None, "classification"):
            raise ConfigError(f"--threshold is for a classification of two labels, not for {self.task}")
        if self.opset < MIN_OPSET:
            raise ConfigError(f"opset {self.opset}: wanted {MIN_OPSET} or more")

    def command(self, source: str) -> str:
        """The command line that asks for this."""
        words = ["edge-agent", "model", "import", source, "--out", self.name, "--name", self.name]
        words += ["--version", self.version]
        words += ["--task", self.task] if self.task else []
        words += ["--labels", ",".join(self.labels)] if 0 < len(self.labels) <= MAX_LISTED else []
        words += ["--opset", str(self.opset)] if self.opset != 17 else []
        words += ["--trust-pickle"] if self.trust_pickle else []
        for key, size in sorted(self.dims.items()):
            words += ["--dim", f"{key}={size}"]
        for spec in self.inputs:
            words += ["--input", f"{spec.name}:{spec.dtype}:{','.join(map(str, spec.shape))}"]
        for name in self.outputs:
            words += ["--output", name]
        words += ["--threshold", f"{self.threshold:g}"] if self.threshold is not None else []
        words += ["--tokenizer", self.tokenizer.name] if self.tokenizer is not None else []
        return shlex.join(words)


def parse_dims(options: Sequence[str]) -> dict[str, int | str]:
    """``INPUT.AXIS=NAME|SIZE`` each. Raises `ConfigError`."""
    dims: dict[str, int | str] = {}
    for option in options:
        key, _, value = option.partition("=")
        if not re.fullmatch(r".+\.\d+", key) or not (_is_size(value) or IDENTIFIER.fullmatch(value)):
            raise ConfigError(f"--dim {option}: wanted INPUT.AXIS=NAME or INPUT.AXIS=SIZE, as in tokens.1=128")
        dims[key] = int(value) if _is_size(value) else value
    return dims


def parse_inputs(options: Sequence[str]) -> tuple[TensorSpec, ...]:
    """``NAME:DTYPE:AXIS,AXIS…`` each, in the order that the model takes them. Raises `ConfigError`."""
    specs = []
    for option in options:
        name, _, rest = option.partition(":")
        dtype, _, axes = rest.partition(":")
        try:
            shape = tuple(int(axis) if axis.isdecimal() else axis for axis in axes.split(",") if axis)
            specs.append(TensorSpec(name, shape, dtype.lower()))
        except ValueError as error:
            example = "image:float32:batch,3,224,224"
            raise ConfigError(f"--input {option}: {error}: wanted NAME:DTYPE:AXES, as in {example}") from None
    return tuple(specs)


def _is_size(value: str) -> bool:
    return value.isdecimal() and 0 < int(value) <= MAX_AXIS
