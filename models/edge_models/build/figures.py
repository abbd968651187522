"""Figures of a report as SVG, out of plain numbers; colours are style classes of the page."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from edge_models.build.drawings import text

MOST_NAME = 20
"""Characters of a label in a figure; the whole of it is shown under the pointer."""

_GAP = "\N{NO-BREAK SPACE}"

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True, slots=True)
class Bubble:
    """One variant in the plane of time and quality."""

    name: str
    time_us: float
    quality: float
    size_bytes: int
    style: str
    """`base`, `kept`, `refused` or `plain`."""


@dataclass(frozen=True, slots=True)
class Change:
    """A measure of one label, one field or the whole, before and after."""

    name: str
    before: float | None
    after: float
    note: str = ""


def duration(time_us: float) -> str:
    """For a person; it never breaks over two lines."""
    for unit_us, unit in ((1e6, "s"), (1e3, "ms")):
        if time_us >= unit_us:
            return f"{_figures(time_us / unit_us)}{_GAP}{unit}"
    return f"{_figures(time_us)}{_GAP}µs"


def size(size_bytes: float) -> str:
    """For a person, as above."""
    for unit_bytes, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= unit_bytes:
            return f"{_figures(size_bytes / unit_bytes)}{_GAP}{unit}"
    return f"{size_bytes:.0f}{_GAP}bytes"


def signed(change: float, digits: int = 4) -> str:
    """With its sign, a real minus, and ±0 for what rounds to it."""
    shown = f"{abs(change):.{digits}f}"
    if float(shown) == 0:
        return "±0"
    return f"{'+' if change > 0 else '−'}{shown}"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between two, no more than so many steps."""
    power = float(10 ** math.floor(math.log10((high - low) / about)))
    step = next(power * k for k in (1, 2, 5, 10) if (high - low) / (power * k) <= about + 1e-9)
    return [round(n * step, 12) for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def plane(bubbles: Sequence[Bubble], quality: str, slowest_us: float | None, least: float | None) -> str:
    """Time across, quality up, size as area; where both gates hold is shaded.

    `slowest_us` and `least` are the limits that gates set, `quality` what the measure is called.
    """
    width, height, largest = 680.0, 392.0, 32.0
    left, top, right, bottom = 66.0, 30.0, width - 14, height - 48
    x_high, values = max(b.time_us for b in bubbles), [b.quality for b in bubbles]
    if slowest_us is not None and least is not None:  # limits far away are not worth the room
        slowest_us = min(slowest_us, 1.5 * x_high)
        least = max(least, min(values) - 2 * max(max(values) - min(values), 0.02))
        x_high, values = max(x_high, slowest_us), [*values, least]
    x_high *= 1.06
    spread = max(max(values) - min(values), 0.004)
    y_low, y_high = min(values) - spread * 0.25, max(values) + spread * 0.12

    def x(time_us: float) -> float:
        return left + (right - left - largest - 6) * time_us / x_high

    def y(value: float) -> float:
        return bottom - 12 - (bottom - top - largest - 24) * (value - y_low) / (y_high - y_low)

    parts: list[str] = []
    taken: list[Box] = []
    if slowest_us is not None and least is not None:
        parts.append(_rect("zone", (left, top, x(slowest_us), y(least)), 4))
        parts.append(_words("zone-name", left + 10, y(least) - 10, "within the gates"))
        taken.append((left, y(least) - 24, left + 116, y(least)))
    marks = [tick for tick in ticks(y_low, y_high) if tick <= 1 + 1e-9]
    for tick in marks:
        parts.append(_line("rule", left, y(tick), right, y(tick)))
        parts.append(_words("tick", left - 10, y(tick) + 4, f"{tick:.{_decimals(marks)}f}", "end"))
    parts += [_words("tick", x(t), bottom + 20, _short(t), "middle") for t in ticks(0, x_high)]
    parts.append(_line("axis", left, bottom, right, bottom))
    parts.append(_words("name", right, height - 8, "time of a sample →", "end"))
    parts.append(_words("name", left, 16, f"↑ {text(quality)}"))
    most = max(b.size_bytes for b in bubbles)
    circles = [(x(b.time_us), y(b.quality), max(5.0, largest * math.sqrt(b.size_bytes / most))) for b in bubbles]
    taken += [(cx - r, cy - r, cx + r, cy + r) for cx, cy, r in circles]
    for bubble, (cx, cy, r) in sorted(zip(bubbles, circles, strict=True), key=lambda pair: -pair[1][2]):
        said = f"{bubble.name}: {duration(bubble.time_us)}, {quality} {bubble.quality:.4f}, {size(bubble.size_bytes)}"
        parts.append(_circle(f"dot {bubble.style}", cx, cy, r, said))
    for bubble, circle in zip(bubbles, circles, strict=True):
        name, about = bubble.name[:MOST_NAME], size(bubble.size_bytes)
        wide = max(8.0 * len(name), 7.0 * len(about))
        at_x, at_y, anchor = _beside(circle, wide, taken, (left, top, width - 2, bottom))
        parts.append(_words(f"what {bubble.style}", at_x, at_y, text(name), anchor))
        parts.append(_words("tick", at_x, at_y + 15, about, anchor))
    return _svg(width, height, f"time against {quality} of each variant", parts, "figure plane")


def bar(share: float, style: str) -> str:
    """A bar as wide as its column at share 1."""
    return (
        '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f"{_rect('track', (0, 0, 100, 6))}{_rect(style, (0, 0, 100 * share, 6))}</svg>"
    )


def heat(table: Sequence[Sequence[int]], labels: Sequence[str], before: Sequence[Sequence[int]] | None) -> str:
    """A confusion matrix: rows are true, columns the answer; shades are shares of the row. `before` gives changes."""
    cell = 58 if len(labels) <= 8 else 42 if len(labels) <= 16 else 28
    longest = max(min(len(label), MOST_NAME) for label in labels)
    left, top = 16 + 7.4 * longest, 34 + 5.0 * longest
    width, height = left + cell * len(labels) + 5.0 * longest, top + cell * len(labels) + 6
    parts = [_words("name", left - 10, top - 8, "true ↓", "end"), _words("name", left, 14, "answered →")]
    for row, counts in enumerate(table):
        middle = cell * row + cell / 2
        parts.append(_words("tick", left - 10, top + middle + 4, _named(labels[row]), "end"))
        turned = f'transform="translate({left + middle - 4:.1f} {top - 8:.1f}) rotate(-38)"'
        parts.append(f'<text class="tick" {turned}>{_named(labels[row])}</text>')
        for column, number in enumerate(counts):
            change = 0 if before is None else number - before[row][column]
            said = f"{labels[row]}, answered {labels[column]}: {number} of {sum(counts)}"
            style, share = "right" if row == column else "wrong", number / max(sum(counts), 1)
            parts.append(_cell((left + cell * column, top + cell * row), cell, style, number, share, change, said))
    return _svg(width, height, "confusion matrix", parts)


def changes(groups: Mapping[str, Sequence[Change]]) -> str:
    """Before and after of each row as two dots on one line, worse in another colour than better, under their titles."""
    rows = [row for group in groups.values() for row in group]
    values = [value for row in rows for value in (row.before, row.after) if value is not None]
    low, high = max(0.0, min(*values, 0.92) - 0.02), max(1.0, *values)
    width, step, heading, top = 480.0, 29.0, 38.0, 14.0
    left, right = 24 + 7.2 * max(min(len(row.name), MOST_NAME) for row in rows), width - 126
    height = top + step * len(rows) + heading * len(groups) + 4

    def x(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    marks = ticks(low, high, 3)
    parts = [_words("tick", x(tick), 12, f"{tick:.{_decimals(marks)}f}", "middle") for tick in marks]
    y = top
    for title, group in groups.items():
        parts.append(_words("title", 0, y + heading - 12, text(title)))
        y += heading
        parts += [_line("rule", x(tick), y - 4, x(tick), y + step * len(group) - 4) for tick in marks]
        for row in group:
            parts += _change(row, x, y + step / 2 - 3, (left, right, width))
            y += step
    return _svg(width, height, "what changed", parts)


def _change(row: Change, x: Callable[[float], float], y: float, at: tuple[float, float, float]) -> list[str]:
    left, right, width = at
    change = 0.0 if row.before is None else row.after - row.before
    style = "better" if change > 5e-5 else "worse" if change < -5e-5 else "same"
    parts = [_words("tick strong", left - 16, y + 4, _named(row.name, row.note), "end")]
    if row.before is not None:
        parts.append(_line(f"span {style}", x(row.before), y, x(row.after), y))
        parts.append(_circle("was", x(row.before), y, 6, f"before: {row.before:.4f}"))
        parts.append(_words(f"tick {style}", width - 6, y + 4, signed(change, 3), "end"))
    parts.append(_circle(f"is {style}", x(row.after), y, 4, f"{row.name}: {row.after:.4f}"))
    parts.append(_words("tick strong", right + 64, y + 4, f"{row.after:.3f}", "end"))
    return parts


def _cell(at: tuple[float, float], side: float, style: str, number: int, share: float, change: int, said: str) -> str:
    """A number in its shade, with its change under it where there is room."""
    (left, top), opacity = at, 0.14 + 0.86 * share if number else 0.0
    shade = "high" if opacity >= 0.8 else "middle" if opacity >= 0.55 else "low"
    inside = (left + 1, top + 1, left + side - 1, top + side - 1)
    roomy = bool(change) and side > 40
    parts = [f"<title>{text(said)}</title>", _rect("cell", inside, 3)]
    if number:
        parts.append(_rect(style, inside, 3, f' fill-opacity="{opacity:.2f}"'))
    if number or change:
        parts.append(
            _words(f"count {shade}", left + side / 2, top + side / 2 + (-1 if roomy else 5), str(number), "middle")
        )
    if roomy:
        parts.append(_words(f"delta {shade}", left + side / 2, top + side / 2 + 14, signed(change, 0), "middle"))
    return f"<g>{''.join(parts)}</g>"


def _beside(circle: tuple[float, float, float], wide: float, taken: list[Box], inside: Box) -> tuple[float, float, str]:
    """Where two lines of text beside a circle lie free: x, baseline of the first, anchor. What they take is added."""
    cx, cy, r = circle
    gap = r + 8
    places = [(cx + gap, cy - 3, "start"), (cx - gap, cy - 3, "end")]
    places += [(cx, cy + gap + 10, "middle"), (cx, cy - gap - 16, "middle")]
    for down in (0.8 * gap + 8, -0.8 * gap - 12):
        places += [(cx + 0.8 * gap, cy + down, "start"), (cx - 0.8 * gap, cy + down, "end")]

    def box(place: tuple[float, float, str]) -> Box:
        x, y, anchor = place
        start = {"start": x, "end": x - wide, "middle": x - wide / 2}[anchor]
        return (start, y - 13, start + wide, y + 19)

    def cost(place: tuple[float, float, str]) -> float:
        a = box(place)
        over = sum(max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1])) for b in taken)
        return over + 100 * sum(
            max(0, out) for out in (inside[0] - a[0], inside[1] - a[1], a[2] - inside[2], a[3] - inside[3])
        )

    best = min(places, key=cost)
    taken.append(box(best))
    return best


def _named(name: str, note: str = "") -> str:
    """A label as the inside of a text: cut, with the whole under the pointer."""
    return f"{text(name, MOST_NAME)}<title>{text(f'{name}, {note}' if note else name)}</title>"


def _words(style: str, x: float, y: float, inside: str, anchor: str = "start") -> str:
    at = f'x="{x:.1f}" y="{y:.1f}"' + ("" if anchor == "start" else f' text-anchor="{anchor}"')
    return f'<text class="{style}" {at}>{inside}</text>'


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _rect(style: str, box: Box, round_px: float = 0, more: str = "") -> str:
    left, top, right, bottom = box
    rounded = f' rx="{round_px:.0f}"' if round_px else ""
    at = f'x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0):.1f}" height="{max(bottom - top, 0):.1f}"'
    return f'<rect class="{style}" {at}{rounded}{more}/>'


def _circle(style: str, cx: float, cy: float, r: float, said: str) -> str:
    return f'<circle class="{style}" cx="{cx:.1f}" cy="{cy:.1f}" r="{r:.1f}"><title>{text(said)}</title></circle>'


def _svg(width: float, height: float, label: str, parts: Sequence[str], style: str = "figure") -> str:
    """Never larger than it was drawn, so that its words are as large as the page's."""
    drawn = f'viewBox="0 0 {width:.0f} {height:.0f}" style="width:{width:.0f}px" role="img" aria-label="{text(label)}"'
    return f'<svg class="{style}" {drawn}>{"".join(parts)}</svg>'


def _short(time_us: float) -> str:
    """A round time."""
    unit_us, unit = next(((u, n) for u, n in ((1e6, "s"), (1e3, "ms")) if time_us >= u), (1, "µs"))
    return f"{time_us / unit_us:g} {unit}" if time_us else "0"


def _figures(value: float) -> str:
    """Three of them."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def _decimals(values: Sequence[float]) -> int:
    """How many decimals tell these apart."""
    gap = min((high - low for low, high in pairwise(values)), default=0.1)
    return max(1, min(6, math.ceil(-math.log10(gap) - 1e-9)))
