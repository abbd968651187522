"""Named steps before and after a graph, for what a graph can't hold: one implementation, at the workshop and at a site.

models/FORMAT.md lists them. A step's version changes whenever its answers may: a kit knows the versions it knows, and
refuses a bundle that names another, since a model that is asked in another way than it was measured is another model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from edge_models.contract import Contract, Step
from edge_models.errors import RejectedError
from edge_models.npy import Array

Tensors = Mapping[str, Array]
"""Input or output name → array, axis 0 the batch."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text in a picture."""

    text: str
    score: float
    """The mean probability of its characters, 0 to 1."""
    box: tuple[tuple[float, float], ...]
    """Four corners ``(x, y)`` in pixels of the input picture, from the text's top left, clockwise."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of one sample."""

    label: str
    """One of the contract's."""
    score: float
    """How sure, 0 to 1: the least of what it rests on."""
    values: Mapping[str, str]


Before = Callable[[str], dict[str, Array]]
"""A text → the graph's inputs, a batch of 1. Raises `RejectedError` for a text that it can't take."""

Read = Callable[[Tensors, Tensors], list[list[Line]]]
"""The graph's inputs and outputs → each sample's lines."""

Interpret = Callable[[Sequence[Line]], Reading]
"""The lines of a sample → what they say."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A contract's steps, ready to be used from any thread."""

    before: Before | None = None
    read: Read | None = None
    interpret: Interpret | None = None

    def readings(self, inputs: Tensors, outputs: Tensors) -> list[Reading]:
        """What a `reading` model says of each sample."""
        if self.read is None or self.interpret is None:
            raise RuntimeError("this contract reads nothing")
        return [self.interpret(lines) for lines in self.read(inputs, outputs)]


_KNOWN: Mapping[tuple[str, int], tuple[str, str]] = {
    ("tokenize", 1): ("before", "edge_models.steps.tokenize"),
    ("read-text", 1): ("read", "edge_models.steps.read_text"),
    ("shelf-label", 1): ("interpret", "edge_models.steps.shelf_label"),
}
"""Name and version → what it is to the graph, and the module whose ``prepare(step, files)`` makes it."""


def prepare(contract: Contract, files: Mapping[str, bytes]) -> Steps:
    """The steps of this contract, with the bundle's files.

    Raises `RejectedError` for a step that this kit does not know, that does not fit the task, or whose files are
    missing or wrong; `ConfigError` where it needs an extra that is not installed.
    """
    made: dict[str, Any] = {}
    for step in contract.steps:
        kind, module = _look_up(step)
        if kind in made:
            raise RejectedError(f"step {step.name!r}: there is another before it that does the same")
        made[kind] = import_module(module).prepare(step, files)
    if contract.task == "reading" and not {"read", "interpret"} <= made.keys():
        raise RejectedError("a model for reading needs a step that reads and one that says what it means")
    if contract.task != "reading" and {"read", "interpret"} & made.keys():
        raise RejectedError(f"a model for {contract.task} has steps that read")
    return Steps(**made)


def step_file(step: Step, key: str, files: Mapping[str, bytes]) -> bytes:
    """The bundle's file that a step's parameter names. Raises `RejectedError`."""
    name = step.params.get(key)
    if not isinstance(name, str) or name not in files:
        raise RejectedError(f"step {step.name!r}: {key!r} names no file of the bundle")
    return files[name]


def _look_up(step: Step) -> tuple[str, str]:
    found = _KNOWN.get((step.name, step.version))
    if found is None:
        known = ", ".join(f"{name} {version}" for name, version in sorted(_KNOWN))
        raise RejectedError(f"step {step.name} {step.version} is not one this kit knows ({known}): use a newer kit")
    return found
