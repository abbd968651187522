"""A line of text cut out of a picture: turned upright, brought to a height, with a margin to a width of few kinds."""

import math

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""``(height, width, 3)`` RGB."""

GREY = 128
"""Of a margin: it becomes next to 0 where the graph takes values around 0."""

FINEST = 4
"""A line is sampled up to so many times finer than it becomes, and averaged: enough for lines four times as high."""


def crop(picture: Picture, corners: NDArray[np.float64], height: int, max_width: int) -> Picture:
    """What lies in a rectangle, ``(height, width, 3)``, as wide as its shape says, 1 to `max_width`.

    `corners` are ``(4, 2)`` x and y in pixels (the first pixel from 0 to 1), from the text's top left, clockwise.
    Beyond the picture its border goes on.
    """
    start, along, across = corners[0], corners[1] - corners[0], corners[3] - corners[0]
    long, high = math.hypot(*along), max(math.hypot(*across), 1.0)
    width = min(max(math.ceil(height * long / high), 1), max_width)
    finer = min(max(round(high / height), 1), FINEST)
    u = (np.arange(width * finer) + 0.5) / (width * finer)
    v = (np.arange(height * finer)[:, np.newaxis] + 0.5) / (height * finer)
    # A pixel's value stands in its middle.
    fine = bilinear(
        picture, start[0] + u * along[0] + v * across[0] - 0.5, start[1] + u * along[1] + v * across[1] - 0.5
    )
    averaged = fine.reshape(height, finer, width, finer, 3).mean(axis=(1, 3))
    return np.asarray(averaged + 0.5, dtype=np.uint8)


def bilinear(picture: Picture, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    """The picture's values between pixels; (0, 0) is the middle of the first. Beyond the picture its border goes on."""
    x = x.clip(0, picture.shape[1] - 1)
    y = y.clip(0, picture.shape[0] - 1)
    left, top = x.astype(np.intp), y.astype(np.intp)
    right, bottom = np.minimum(left + 1, picture.shape[1] - 1), np.minimum(top + 1, picture.shape[0] - 1)
    dx = (x - left).astype(np.float32)[..., np.newaxis]
    dy = (y - top).astype(np.float32)[..., np.newaxis]
    above = picture[top, left] * (1 - dx) + picture[top, right] * dx
    below = picture[bottom, left] * (1 - dx) + picture[bottom, right] * dx
    return np.asarray(above * (1 - dy) + below * dy, dtype=np.float32)


def with_margin(line: Picture, least: int, multiple: int) -> Picture:
    """The line with grey to its right, to a width of `least` or the next `multiple`.

    A runtime keeps memory for each shape it has seen: few widths, little memory.
    """
    height, width = line.shape[:2]
    wide = max(least, math.ceil(width / multiple) * multiple)
    margin = np.full((height, wide - width, 3), GREY, dtype=np.uint8)
    return np.concatenate([line, margin], axis=1)
