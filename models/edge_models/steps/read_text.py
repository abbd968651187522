"""Step `read-text` 1: the lines of text in pictures, from the map that a detection graph gave and a graph that reads.

The bundle's graph marks where text is; the graph that reads is a file of the bundle, and takes lines cut out of the
picture: ``(batch, height, width, 3) uint8`` → ``(batch, steps, 1 + alphabet) float32`` probabilities.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_models.contract import Step
from edge_models.errors import RejectedError
from edge_models.npy import Array
from edge_models.steps import Line, Read, Tensors, step_file
from edge_models.steps.boxes import Box, BoxRules, find_boxes
from edge_models.steps.crops import crop, with_margin
from edge_models.steps.ctc import greedy, read_alphabet

MAX_BOXES = 256
"""The most that a bundle may ask for in one picture: each costs a run of the graph that reads."""

_LIMITS: Mapping[str, tuple[float, float, float]] = {
    "threshold": (0.3, 0.01, 1.0),
    "box_threshold": (0.5, 0.0, 1.0),
    "enlarge": (1.6, 0.0, 4.0),
    "boxes": (64, 1, MAX_BOXES),
    "height": (48, 8, 128),
    "min_width": (32, 1, 4096),
    "max_width": (1024, 8, 4096),
    "multiple": (32, 1, 256),
    "min_score": (0.5, 0.0, 1.0),
}
"""Parameter → its usual value, its least and its most."""

_WHOLE = ("boxes", "height", "min_width", "max_width", "multiple")


def prepare(step: Step, files: Mapping[str, bytes]) -> Read:
    """Opens the graph that reads. Raises `RejectedError` for parameters or files that are wrong.

    Parameters: `recognise` and `alphabet` name files of the bundle; `threshold`, `box_threshold`, `enlarge` and
    `boxes` say what is a box; lines are cut to `height`, at most `max_width`, and get a margin to a `multiple` of
    pixels, at least `min_width`; those whose characters' mean probability is below `min_score` are dropped.
    """
    params = {key: _number(step, key) for key in _LIMITS}
    alphabet = read_alphabet(step_file(step, "alphabet", files))
    session = _open(step_file(step, "recognise", files), int(params["height"]), len(alphabet))
    return _Reader(session, alphabet, params).read


@dataclass(frozen=True, slots=True)
class _Reader:
    session: Any
    alphabet: tuple[str, ...]
    params: Mapping[str, float]

    def read(self, inputs: Tensors, outputs: Tensors) -> list[list[Line]]:
        """Of the first input, ``(batch, height, width, 3) uint8``, by the first output, ``(batch, 1, H, W)``."""
        pictures, maps = next(iter(inputs.values())), next(iter(outputs.values()))
        _check(pictures, maps)
        return [self._lines(picture, each[0]) for picture, each in zip(pictures, maps, strict=True)]

    def _lines(self, picture: NDArray[np.uint8], probability: NDArray[np.float32]) -> list[Line]:
        params = self.params
        rules = BoxRules(params["threshold"], params["box_threshold"], params["enlarge"], self._whole("boxes"))
        scale = np.array([picture.shape[1] / probability.shape[1], picture.shape[0] / probability.shape[0]])
        lines = []
        for box in find_boxes(probability, rules):
            line = self._line(picture, box, scale)
            if line.text.strip() and line.score >= params["min_score"]:
                lines.append(line)
        return lines

    def _line(self, picture: NDArray[np.uint8], box: Box, scale: NDArray[np.float64]) -> Line:
        corners = box.corners * scale
        cut = crop(picture, corners, self._whole("height"), self._whole("max_width"))
        cut = with_margin(cut, self._whole("min_width"), self._whole("multiple"))
        try:
            [came] = self.session.run(None, {self.session.get_inputs()[0].name: cut[np.newaxis]})
        except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no class of their own
            raise RejectedError(f"the graph that reads cannot run: {' '.join(str(error).split())}") from None
        if came.ndim != 3 or came.shape[0] != 1 or came.shape[2] != 1 + len(self.alphabet):
            raise RejectedError(f"the graph that reads gave {came.shape}, not (1, steps, {1 + len(self.alphabet)})")
        text, score = greedy(came[0], self.alphabet)
        return Line(text, score, tuple((float(x), float(y)) for x, y in corners))

    def _whole(self, key: str) -> int:
        return int(self.params[key])


def _check(pictures: Array, maps: Array) -> None:
    if pictures.ndim != 4 or pictures.shape[3] != 3 or pictures.dtype != np.uint8:
        raise RejectedError(
            f"read-text: the pictures are {pictures.shape} {pictures.dtype}, not (batch, H, W, 3) uint8"
        )
    if maps.ndim != 4 or maps.shape[:2] != (len(pictures), 1) or maps.dtype != np.float32 or 0 in maps.shape:
        raise RejectedError(f"read-text: the map is {maps.shape} {maps.dtype}, not (batch, 1, H, W) float32")


def _number(step: Step, key: str) -> float:
    usual, least, most = _LIMITS[key]
    value = step.params.get(key, usual)
    whole = key in _WHOLE
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not least <= value <= most:
        raise RejectedError(
            f"step {step.name!r}: {key!r} must be a {'whole ' if whole else ''}number {least} to {most}"
        )
    return value


def _open(graph: bytes, height: int, characters: int) -> Any:
    """A session of the graph that reads, on one thread, when it takes and gives what this step needs."""
    from edge_models.session import make_session  # noqa: PLC0415 - the list of steps must load where no model runs

    try:
        session = make_session(graph)
    except Exception as error:  # noqa: BLE001 - as above
        raise RejectedError(f"the graph that reads cannot be loaded: {' '.join(str(error).split())}") from None
    takes, gives = session.get_inputs(), session.get_outputs()
    if len(takes) != 1 or takes[0].type != "tensor(uint8)" or not _fits(takes[0].shape, (None, height, None, 3)):
        raise RejectedError(f"the graph that reads must take one tensor (batch, {height}, width, 3) uint8")
    if len(gives) != 1 or gives[0].type != "tensor(float)" or not _fits(gives[0].shape, (None, None, 1 + characters)):
        raise RejectedError(f"the graph that reads must give one tensor (batch, steps, {1 + characters}) float32")
    return session


def _fits(shape: list[Any], wanted: tuple[int | None, ...]) -> bool:
    """Axes that the graph leaves open fit."""
    return len(shape) == len(wanted) and all(
        want is None or not isinstance(axis, int) or axis == want for axis, want in zip(shape, wanted, strict=True)
    )
