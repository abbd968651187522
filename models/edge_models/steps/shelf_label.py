"""Step `shelf-label` 1: what the lines on a shelf label say: the product's name, its price, its number.

The rules are those of printed shelf labels: the price is the largest amount that is not a price a unit, an article
number is called one or is a GTIN whose check digit holds, and the name is the largest of the rest. What is not sure is
not said: a number whose check digit fails and digits in which the cents can't be told are left out.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import atan2, cos, hypot, sin

from edge_models.contract import Step
from edge_models.errors import RejectedError
from edge_models.steps import Interpret, Line, Reading

FIELDS = ("name", "price", "sku")
"""What is read. `price`: digits, a point, two digits. `sku`: digits. A field that was not found is empty."""

READ, PARTIAL, UNREADABLE = "read", "partial", "unreadable"
"""All three fields, and sure of them; some; none."""

SAME_SIZE = 0.7
"""A line of the name is at least this high, measured by the name's highest."""

SHORT, SAME_SIZE_SHORT = 2, 0.55
"""The same for lines of so few characters: a box is enlarged by its area over its outline, so theirs come out lower."""

# Digits are 0 to 9 here: Unicode knows hundreds more.
_SIGNS = r"[€$£]|EUR|USD|GBP|CHF|Fr\.?"
_PRICE = re.compile(r"(?<![\d.,])(\d{1,3}(?:[.,' ]\d{3})+|\d{1,5}) ?[.,] ?(\d{2})(?! ?[.,]? ?\d)", re.ASCII)
_ROUND = re.compile(rf"(?:(?:{_SIGNS}) ?(\d{{1,2}})|(\d{{1,2}}) ?(?:{_SIGNS}))(?:[.,] ?-+)?", re.ASCII)
_WHOLE_PART = re.compile(rf"(?:{_SIGNS})? ?(\d{{1,4}})(?: ?([.,]) ?(\d?))?", re.ASCII)
_CENTS = re.compile(rf"[.,]? ?(\d{{2}}) ?(?:{_SIGNS})?", re.ASCII)
_PART_OF_A_PRICE = re.compile(rf"(?:{_SIGNS})[ \d.,-]*|[ \d.,-]*(?:{_SIGNS})", re.ASCII)
_NO = re.compile(r"\b(N[or]\.)(?=\d)", re.ASCII)
_A_UNIT = re.compile(
    r"[/=]|\b(?:per|pro|je|unit)\b|\b1 ?(?:kg|l|m|st|pc|ea)\b|\b\d+ ?(?:g|ml) ?[€$£\d]", re.IGNORECASE | re.ASCII
)
_A_SIZE = re.compile(
    r"(?:\d+ ?x ?)?\d+(?:[.,]\d+)? ?(?:g|kg|mg|ml|cl|l|oz|lb|fl oz|m|cm|mm|pcs?|st|w)\.?", re.IGNORECASE | re.ASCII
)
_NUMBERED = re.compile(
    r"\b(?:SKU|PLU|ITEM|ART(?:ICLE|IKEL)?)(?:[ .:#-]*N[RO])?[ .:#-]*(\d[\d -]{0,17}\d)(?!\d)", re.IGNORECASE | re.ASCII
)
_DIGITS = re.compile(r"(?<![\d.,])\d(?: ?\d){7,13}(?![.,]?\d)", re.ASCII)
_GTIN_DIGITS = (8, 12, 13, 14)
_ALIKE = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-", "、": ",", "。": "."})


@dataclass(frozen=True, slots=True)
class _Seen:
    """A line, made simple."""

    text: str
    score: float
    left: float
    right: float
    top: float
    bottom: float
    height: float


@dataclass(frozen=True, slots=True)
class _Found:
    value: str
    lines: tuple[_Seen, ...]


def prepare(step: Step, files: Mapping[str, bytes]) -> Interpret:  # noqa: ARG001 - every step's `prepare` is alike
    """Parameter `sure`: the least score, 0 to 1, of a reading that is called read. Raises `RejectedError`."""
    sure = step.params.get("sure", 0.8)
    if isinstance(sure, bool) or not isinstance(sure, (int, float)) or not 0 <= sure <= 1:
        raise RejectedError(f"step {step.name!r}: 'sure' must be a number 0 to 1")
    return lambda lines: interpret(lines, sure)


def interpret(lines: Sequence[Line], sure: float) -> Reading:
    """What the lines of one label, in the order one reads them, say."""
    tilt = _tilt(lines) if lines else 0.0
    left = [seen for seen in (_seen(line, tilt) for line in lines) if seen.text]
    found: dict[str, _Found] = {}
    for name, find in (("sku", _find_sku), ("price", _find_price), ("name", _find_name)):
        came = find(left)
        if came is not None:
            found[name] = came
            left = [seen for seen in left if seen not in came.lines]
    score = min((seen.score for each in found.values() for seen in each.lines), default=0.0)
    label = UNREADABLE if not found else READ if len(found) == len(FIELDS) and score >= sure else PARTIAL
    return Reading(label, score, {name: found[name].value if name in found else "" for name in FIELDS})


def plain(text: str) -> str:
    """Text as this step compares it: one form of each character, quote and dash, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).translate(_ALIKE).split())


def check_digit_holds(digits: str) -> bool:
    """Whether these digits are a GTIN. Source: GS1 General Specifications, check digit calculations."""
    weighed = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return len(digits) in _GTIN_DIGITS and weighed % 10 == 0


def _find_sku(lines: Sequence[_Seen]) -> _Found | None:
    """A number that is called one goes before a GTIN: it is the shop's own."""
    for seen in lines:
        numbered = _NUMBERED.search(seen.text)
        if numbered:
            return _Found(_only_digits(numbered[1]), (seen,))
    for seen in lines:
        for match in _DIGITS.finditer(seen.text):
            digits = _only_digits(match[0])
            if check_digit_holds(digits):
                return _Found(digits, (seen,))
    return None


def _find_price(lines: Sequence[_Seen]) -> _Found | None:
    """The highest of the amounts that are for the whole thing."""
    amounts = [*_amounts(lines), *_raised(lines)]
    return max(amounts, key=lambda amount: amount.lines[0].height, default=None)


def _amounts(lines: Sequence[_Seen]) -> Iterable[_Found]:
    for seen in lines:
        if _A_UNIT.search(seen.text):
            continue
        match = _PRICE.search(seen.text)
        if match:
            yield _Found(f"{int(_only_digits(match[1]))}.{match[2]}", (seen,))
            continue
        # Of three digits or more without a point, nobody can tell whether the last two are cents.
        whole = _ROUND.fullmatch(seen.text)
        if whole:
            yield _Found(f"{int(whole[1] or whole[2])}.00", (seen,))


def _raised(lines: Sequence[_Seen]) -> Iterable[_Found]:
    """Cents in smaller digits, to the right of the whole part and as high up."""
    for large in lines:
        whole = _WHOLE_PART.fullmatch(large.text)
        if not whole:
            continue
        # The box of large digits may reach over what follows them: only a point shows where they end.
        overlap = 0.6 * large.height if whole[2] else 0
        for small in lines:
            cents = _CENTS.fullmatch(small.text)
            near = -overlap <= small.left - large.right <= 0.6 * large.height
            smaller = 0.25 * large.height <= small.height <= 0.85 * large.height
            as_high = large.top - 0.3 * large.height <= small.top <= large.bottom
            if cents and near and smaller and as_high and whole[3] in (None, "", cents[1][0]):
                yield _Found(f"{int(whole[1])}.{cents[1]}", (large, small))


def _find_name(lines: Sequence[_Seen]) -> _Found | None:
    """The highest line of words, and the block of lines about as high that it stands in."""
    words = [seen for seen in lines if _is_words(seen.text)]
    if not words:
        return None
    highest = max(words, key=lambda seen: seen.height)
    left = [seen for seen in lines if _is_as_high(seen, highest.height) and _is_of_a_name(seen.text)]
    block = [highest]
    for seen in block:
        # The block grows while it is walked.
        block += [other for other in left if other not in block and _is_near(seen, other)]
    chosen = tuple(seen for seen in lines if seen in block)
    # Recognition tends to lose the space there.
    text = _NO.sub(r"\1 ", " ".join(seen.text for seen in chosen))
    return _Found(text.strip(" ,:;|-_'\""), chosen)


def _is_as_high(seen: _Seen, height: float) -> bool:
    least = SAME_SIZE_SHORT if len(seen.text) <= SHORT else SAME_SIZE
    return least * height <= seen.height <= height / SAME_SIZE


def _is_words(text: str) -> bool:
    letters = sum(character.isalpha() for character in text)
    return letters >= 2 and 2 * letters >= len(text.replace(" ", "")) and _is_of_a_name(text)


def _is_of_a_name(text: str) -> bool:
    return any(map(str.isalnum, text)) and not any(
        (_A_UNIT.search(text), _PART_OF_A_PRICE.fullmatch(text), _A_SIZE.fullmatch(text))
    )


def _is_near(one: _Seen, other: _Seen) -> bool:
    """Not further apart than a line is high."""
    across = max(one.top, other.top) - min(one.bottom, other.bottom)
    along = max(one.left, other.left) - min(one.right, other.right)
    return max(across, along) < min(one.height, other.height)


def _only_digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _seen(line: Line, tilt: float) -> _Seen:
    """Its place in axes that are turned by `tilt`, so that what stands side by side does so in them too."""
    turned = [(x * cos(tilt) + y * sin(tilt), y * cos(tilt) - x * sin(tilt)) for x, y in line.box]
    xs, ys = [x for x, _ in turned], [y for _, y in turned]
    (ax, ay), _, _, (dx, dy) = line.box
    return _Seen(plain(line.text), line.score, min(xs), max(xs), min(ys), max(ys), hypot(dx - ax, dy - ay))


def _tilt(lines: Sequence[Line]) -> float:
    """How the longest line is turned, in radians."""
    _, x, y = max(
        (hypot(bx - ax, by - ay), bx - ax, by - ay) for (ax, ay), (bx, by) in (line.box[:2] for line in lines)
    )
    return atan2(y, x)
