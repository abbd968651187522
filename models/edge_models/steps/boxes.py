"""Where the text is in a picture: rectangles around what a graph's probability map marks, in the order one reads them.

Source: differentiable binarisation (Liao and others, 2020): the map marks the core of each line of text, shrunk, and
the box is that core enlarged again. Connected areas come from runs of pixels, so a map costs what its text costs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

LONG = 2.0
"""A box this many times as long as high shows which way its text runs; a short one is turned as the long ones are."""

MIN_PIXELS = 8
"""Of an area: less is noise."""

MIN_SIDE = 3.0
"""Pixels of the map that the shorter side of an area must have."""


@dataclass(frozen=True, slots=True)
class BoxRules:
    """What of a map counts as text."""

    threshold: float = 0.3
    """A pixel at or above is marked."""
    box_threshold: float = 0.5
    """The least mean probability of an area's pixels."""
    enlarge: float = 1.6
    """How far the box goes beyond the area: so many times the area's size over its outline's length."""
    most: int = 64
    """Boxes: the largest areas are kept."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle turned by `angle` (radians, clockwise, within ±45°) about the origin: its sides in turned axes."""

    angle: float
    left: float
    top: float
    right: float
    bottom: float
    score: float
    """The mean probability of what it was made of."""

    @property
    def width(self) -> float:
        """Along the text."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Across the text."""
        return self.bottom - self.top

    @property
    def corners(self) -> Numbers:
        """``(4, 2)`` x and y: from the text's top left, clockwise."""
        turned = [(self.left, self.top), (self.right, self.top), (self.right, self.bottom), (self.left, self.bottom)]
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return np.array([(u * cos - v * sin, u * sin + v * cos) for u, v in turned])

    def enlarged(self, factor: float) -> "Box":
        """Every side moved outwards by the same distance."""
        by = self.width * self.height * factor / (2 * (self.width + self.height))
        return replace(self, left=self.left - by, top=self.top - by, right=self.right + by, bottom=self.bottom + by)


def find_boxes(probability: NDArray[np.float32], rules: BoxRules) -> list[Box]:
    """The boxes of a ``(H, W)`` map in its pixels, pixel (0, 0) from 0 to 1, in the order one reads them."""
    found = []
    for outline, score in _areas(probability, rules):
        box = smallest_box(outline, score)
        if min(box.width, box.height) >= MIN_SIDE:
            found.append((outline, box))
    tilt = _tilt([box for _, box in found])
    boxes = [box if box.width >= LONG * box.height else box_at(tilt, outline, box.score) for outline, box in found]
    return in_reading_order([box.enlarged(rules.enlarge) for box in boxes], tilt)


def smallest_box(points: Numbers, score: float = 1.0) -> Box:
    """The rectangle of least area around ``(points, 2)``: one of its sides lies on an edge of their convex hull."""
    hull = convex_hull(points)
    edges = np.roll(hull, -1, axis=0) - hull
    quarter = math.pi / 2
    # Four directions are one rectangle: take the one within ±45°, which is how labels hang.
    angles = (np.arctan2(edges[:, 1], edges[:, 0]) + quarter / 2) % quarter - quarter / 2
    along = np.outer(np.cos(angles), hull[:, 0]) + np.outer(np.sin(angles), hull[:, 1])
    across = np.outer(np.cos(angles), hull[:, 1]) - np.outer(np.sin(angles), hull[:, 0])
    sizes = np.ptp(along, axis=1) * np.ptp(across, axis=1)
    return box_at(float(angles[np.argmin(sizes)]), hull, score)


def box_at(angle: float, points: Numbers, score: float = 1.0) -> Box:
    """The rectangle around ``(points, 2)`` that is turned by `angle`."""
    cos, sin = math.cos(angle), math.sin(angle)
    along, across = points[:, 0] * cos + points[:, 1] * sin, points[:, 1] * cos - points[:, 0] * sin
    return Box(angle, float(along.min()), float(across.min()), float(along.max()), float(across.max()), score)


def convex_hull(points: Numbers) -> Numbers:
    """The hull's corners in order, none of them on a line between two others. Source: Andrew's monotone chain."""
    ordered = [(float(x), float(y)) for x, y in np.unique(points, axis=0)]
    if len(ordered) < 3:
        return np.array(ordered)
    halves = [_half(ordered), _half(ordered[::-1])]
    return np.array(halves[0][:-1] + halves[1][:-1])


def in_reading_order(boxes: Sequence[Box], tilt: float) -> list[Box]:
    """From top to bottom, and in a row from left to right; a row runs along `tilt`."""
    cos, sin = math.cos(tilt), math.sin(tilt)
    placed = []
    for box in boxes:
        x, y = box.corners.mean(axis=0)
        placed.append((y * cos - x * sin, x * cos + y * sin, box))
    placed.sort(key=lambda place: place[:2])
    rows: list[list[tuple[float, float, Box]]] = []
    for place in placed:
        if rows and place[0] - rows[-1][0][0] < min(place[2].height, rows[-1][0][2].height) / 2:
            rows[-1].append(place)
        else:
            rows.append([place])
    return [box for row in rows for _, _, box in sorted(row, key=lambda place: place[1])]


def _half(ordered: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    kept: list[tuple[float, float]] = []
    for x, y in ordered:
        while len(kept) > 1:
            (ax, ay), (bx, by) = kept[-2:]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                break
            kept.pop()
        kept.append((x, y))
    return kept


def _tilt(boxes: Sequence[Box]) -> float:
    """How the long boxes are turned: their median, each counting as much as it is long; 0 where there are none."""
    long = sorted((box.angle, box.width) for box in boxes if box.width >= LONG * box.height)
    if not long:
        return 0.0
    until = np.cumsum([width for _, width in long])
    return long[int(np.searchsorted(until, until[-1] / 2))][0]


def _areas(probability: NDArray[np.float32], rules: BoxRules) -> list[tuple[Numbers, float]]:
    """The outline's points and the mean probability of each connected area, the largest first."""
    marked = probability >= rules.threshold
    rows, starts, ends = runs(marked)
    if not len(rows):
        return []
    names, area = np.unique(connected(rows, starts, ends, marked.shape[1]), return_inverse=True)
    sizes = np.bincount(area, weights=ends - starts)
    # What is not marked may be NaN, and must not reach the sums.
    until = np.concatenate([[0.0], np.cumsum(np.where(marked, probability, 0).clip(0, 1).ravel(), dtype=np.float64)])
    offsets = rows * marked.shape[1]
    scores = np.bincount(area, weights=until[offsets + ends] - until[offsets + starts]) / sizes
    members = np.split(np.argsort(area, kind="stable"), np.cumsum(np.bincount(area, minlength=len(names)))[:-1])
    found = []
    for index in np.argsort(-sizes, kind="stable")[: rules.most]:
        if sizes[index] >= MIN_PIXELS and scores[index] >= rules.box_threshold:
            run = members[index]
            ys, xs = np.tile(rows[run], 2), np.concatenate([starts[run], ends[run]])
            outline = np.stack([np.tile(xs, 2), np.concatenate([ys, ys + 1])], axis=1).astype(np.float64)
            found.append((outline, float(scores[index])))
    return found


def runs(marked: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row, start and end (exclusive) of each stretch of marked pixels, in the order of reading."""
    edges = np.diff(np.pad(marked, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    return rows, starts, np.nonzero(edges == -1)[1]


def connected(
    rows: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], width: int
) -> NDArray[np.int64]:
    """For each run, the first run of its area; areas touch also at corners. Union-find, all pairs of runs at once."""
    row = width + 2
    first = np.searchsorted(rows * row + ends, (rows - 1) * row + starts, side="left")
    last = np.searchsorted(rows * row + starts, (rows - 1) * row + ends, side="right")
    counts = np.maximum(last - first, 0)
    lower = np.repeat(np.arange(len(rows)), counts)
    upper = np.arange(len(lower)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    root = np.arange(len(rows))
    while True:
        one, other = root[upper], root[lower]
        if np.array_equal(one, other):
            return root
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(root[root], root):
            root = root[root]
