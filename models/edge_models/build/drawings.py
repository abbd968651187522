"""Samples as a person sees them: series as lines, pictures as pictures, text as text, all of it inside the page."""

import base64
import html
import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from edge_models.npy import Array
from edge_models.tensors import ImageSpec

MAX_POINTS, MAX_LINES, DOTTED_POINTS = 480, 6, 32
"""Of a drawn series: points and channels; one of so few points shows each."""

MAX_PIXELS_WIDE, TINY = 360, 64
"""Of a picture in a page; one with less on both sides shows them."""

LEAST_SIDE = 16
"""Pixels from which a table of numbers is drawn as a picture."""


def text(value: str, most: int = 0) -> str:
    """`value` as HTML, without what can't be seen; cut to so many characters."""
    cut = value if not most or len(value) <= most else value[: most - 1].rstrip() + "…"
    return html.escape(
        "".join(c if c.isprintable() or c in "\n\t\N{NO-BREAK SPACE}" else "\N{REPLACEMENT CHARACTER}" for c in cut)
    )


def drawn(sample: Array, image: ImageSpec | None, alt: str) -> str:
    """One sample of an input, without the axis of samples, in the way that suits its shape; "" for a lone number.

    `image` says how pictures became this input; other inputs that look like one are drawn by their range.
    """
    if image is not None:
        return png(_pixels_of(sample, image), alt)
    if sample.size < 2 or sample.dtype == bool:
        return ""
    values = np.nan_to_num(sample.astype(np.float64), posinf=0, neginf=0)
    looks = values.reshape([side for side in values.shape if side > 1])
    if looks.ndim == 3 and 3 in (looks.shape[0], looks.shape[2]):
        looks = looks.transpose(1, 2, 0) if looks.shape[0] == 3 else looks
    elif looks.ndim > 2:
        looks = looks.reshape(-1)
    if looks.ndim >= 2 and min(looks.shape[:2]) >= LEAST_SIDE:
        low, high = looks.min(), looks.max()
        return png(np.asarray((looks - low) / ((high - low) or 1) * 255, dtype=np.uint8), alt)
    return series(looks.T if looks.ndim == 2 and looks.shape[0] < looks.shape[1] else looks.reshape(len(looks), -1))


def series(values: Array) -> str:
    """``(points,)`` or ``(points, channels)`` as lines over the width of the page's card."""
    lines = np.asarray(values, dtype=np.float64).reshape(len(values), -1)[:, :MAX_LINES]
    said = f"the input, {len(values)} values from {lines.min():.4g} to {lines.max():.4g}"
    lines = lines / (np.abs(lines).max() or 1)
    low, high = float(lines.min()), float(lines.max())
    width, height, edge = 320.0, 96.0, 5.0
    parts = []
    if low < 0 < high:
        zero = edge + (height - 2 * edge) * high / (high - low)
        parts.append(f'<line class="rule" x1="0" x2="{width:.0f}" y1="{zero:.1f}" y2="{zero:.1f}"/>')
    for number, line in enumerate(lines.T):
        at, kept = _thinned(line)
        xs = edge + (width - 2 * edge) * at / max(len(line) - 1, 1)
        ys = edge + (height - 2 * edge) * (high - kept) / ((high - low) or 1)
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        parts.append(f'<polyline class="line l{number}" points="{points}"/>')
        if len(line) <= DOTTED_POINTS:
            # A line of no length with a round cap stays round however the drawing is stretched.
            path = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(xs, ys, strict=True))
            parts.append(f'<path class="point l{number}" d="{path}"/>')
    return (
        f'<svg class="series" viewBox="0 0 {width:.0f} {height:.0f}" preserveAspectRatio="none" role="img" '
        f'aria-label="{said}">{"".join(parts)}</svg>'
    )


def png(pixels: NDArray[np.uint8], alt: str) -> str:
    """``(height, width)`` or ``(height, width, 3)`` as an image in the page, made small first."""
    small = _shrunk(pixels)
    style = 'class="tiny" ' if max(small.shape[:2]) < TINY else ""
    data = base64.b64encode(encode_png(small)).decode()
    return f'<img src="data:image/png;base64,{data}" {style}alt="{text(alt)}">'


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """``(height, width)`` or ``(height, width, 3)`` as a PNG file. Source: the PNG specification, 8 bits a channel."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    rows = np.ascontiguousarray(pixels).reshape(height, -1)
    body = np.zeros((height, rows.shape[1] + 1), dtype=np.uint8)  # each row begins with its filter: none
    body[:, 1:] = rows
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(body.tobytes(), 9)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def _shrunk(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    by = math.ceil(max(pixels.shape[:2]) / MAX_PIXELS_WIDE)
    if by == 1:
        return pixels
    height, width = (max(side // by, 1) for side in pixels.shape[:2])
    blocks = pixels[: height * by, : width * by].reshape(height, min(by, pixels.shape[0]), width, -1, *pixels.shape[2:])
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.uint8)


def _thinned(line: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where, and what: of many points the lowest and the highest of each stretch, so that no spike is lost."""
    if len(line) <= MAX_POINTS:
        return np.arange(len(line)), line
    kept = []
    for stretch in np.array_split(np.arange(len(line)), MAX_POINTS // 2):
        part = line[stretch]
        kept += sorted({int(stretch[part.argmin()]), int(stretch[part.argmax()])})
    at = np.array(kept)
    return at, line[at]


def _pixels_of(sample: Array, image: ImageSpec) -> NDArray[np.uint8]:
    """The picture that became this input, without the black that filled it up."""
    values = np.nan_to_num(sample.astype(np.float64) / image.scale)
    pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    pixels = pixels.transpose(1, 2, 0) if image.layout == "NCHW" else pixels
    if image.fit == "pad" and pixels.any():
        rows, columns = (np.flatnonzero(pixels.any(axis=axes)) for axes in ((1, 2), (0, 2)))
        pixels = pixels[: int(rows[-1]) + 1, : int(columns[-1]) + 1]
    return pixels[:, :, 0] if image.mode == "L" else pixels
