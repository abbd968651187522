"""Rendered photographs of shelf labels: what a reading model is tuned and measured on where no real ones may ship.

A label is drawn flat, in one of four layouts, and then photographed: hung on a shelf, seen at an angle, lit unevenly,
a little out of focus, with the noise of a cheap sensor. The same seed and number give the same picture.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from edge_models.build.recipe import wheel_file

PHOTO = (960, 720)
"""Width and height of a photograph."""

FLAT = (900, 560)
"""Width and height of a label, drawn flat."""

T = TypeVar("T")
Colour = tuple[int, int, int]
Chance = np.random.Generator
Photo = NDArray[np.uint8]
"""``(720, 960, 3)`` RGB."""

FACES = (
    ("font_roboto", "files/Roboto-Medium.ttf", "files/Roboto-Bold.ttf"),
    ("font_source_sans_pro", "files/SourceSansPro-Regular.ttf", "files/SourceSansPro-Bold.ttf"),
    ("font_source_serif_pro", "files/SourceSerifPro-Regular.ttf", "files/SourceSerifPro-Bold.ttf"),
)
"""Package, regular and bold; beside Pillow's own face, which is always there."""

_KINDS = (
    "Oat Drink", "Rye Bread", "Orange Juice", "Greek Yoghurt", "Basmati Rice", "Tomato Soup", "Olive Oil",
    "Corn Flakes", "Peanut Butter", "Ground Coffee", "Green Tea", "Dark Chocolate", "Potato Chips", "Apple Cider",
    "Chicken Breast", "Smoked Salmon", "Cheddar Cheese", "Salted Butter", "Wheat Flour", "Maple Syrup",
    "Dish Soap", "Hand Cream", "Paper Towels", "Shampoo", "Cat Food", "Light Bulb", "Batteries AA", "Screwdriver Set",
    "Garden Hose", "Wall Paint",
)  # fmt: skip
_MAKES = (
    "Alder", "Brightwell", "Casa Verde", "Dunmore", "Evergreen", "Fjord", "Golden Mill", "Hilltop", "Ironwood",
    "Juniper", "Kestrel", "Lakeside", "Meadow", "Northwind", "Old Harbour", "Pinecrest", "Quayside", "Riverbend",
    "Sunfield", "Thornbury",
)  # fmt: skip
_SORTS = ("", "", "", "Classic", "Family Pack", "Extra Fine", "Unsalted", "Fresh", "No. 1", "Zero", "Bio", "XXL")
_SIZES = (
    ("250 g", 4.0, "kg"),
    ("400 g", 2.5, "kg"),
    ("500 g", 2.0, "kg"),
    ("750 ml", 4 / 3, "l"),
    ("330 ml", 3.03, "l"),
)


@dataclass(frozen=True, slots=True)
class Label:
    """What a label says."""

    name: str
    cents: int
    gtin: str
    """13 digits, or 12."""
    article: str
    """The shop's own number, or nothing."""
    size: tuple[str, float, str]
    """As printed, how many of it are a unit, and the unit."""

    @property
    def truth(self) -> dict[str, str]:
        """What a reader should find."""
        price = f"{self.cents // 100}.{self.cents % 100:02d}"
        return {"name": self.name, "price": price, "sku": self.article or self.gtin}


def photograph(seed: int, number: int, *, second_half: bool) -> tuple[Photo, dict[str, str]]:
    """One picture of a label and what is true of it. The two halves have no maker of products in common."""
    chance = np.random.default_rng([seed, number])
    layout = LAYOUTS[number % len(LAYOUTS)]
    label = _label(chance, _MAKES[1::2] if second_half else _MAKES[::2], american=layout is _dollar)
    if layout in (_grocery, _dollar):
        label = Label(label.name, label.cents, label.gtin, "", label.size)
    flat = Image.new("RGB", FLAT, "white")
    layout(_Pen(ImageDraw.Draw(flat), int(chance.integers(len(FACES) + 1))), label, chance)
    return _developed(_hung(flat, chance), chance), label.truth


def _label(chance: Chance, makes: tuple[str, ...], *, american: bool) -> Label:
    words = (_one(chance, makes), _one(chance, _KINDS), _one(chance, _SORTS))
    # Most things cost little; one in eight goes into the thousands.
    cents = int(chance.integers(29, 3000)) if chance.random() < 0.875 else int(chance.integers(10_000, 250_000))
    digits = "".join(str(digit) for digit in chance.integers(0, 10, 11 if american else 12))
    article = "".join(str(digit) for digit in (chance.integers(1, 10), *chance.integers(0, 10, 6)))
    return Label(
        " ".join(word for word in words if word), cents, digits + _check_digit(digits), article, _one(chance, _SIZES)
    )


def _check_digit(digits: str) -> str:
    weighed = sum(int(digit) * (1 if place % 2 else 3) for place, digit in enumerate(reversed(digits)))
    return str(-weighed % 10)


class _Pen:
    """Writes on a flat label in one face."""

    def __init__(self, draw: ImageDraw.ImageDraw, face: int) -> None:
        self.draw, self.face = draw, face
        # Pillow's own face has no sign for it.
        self.euro = "EUR" if face == len(FACES) else "€"

    def font(self, size: int, *, bold: bool) -> ImageFont.FreeTypeFont:
        """A font of this size."""
        return _font(self.face, size, bold)

    def write(
        self, x: float, y: float, text: str, size: int, fill: Colour, *, bold: bool = False, anchor: str = "la"
    ) -> float:
        """Text at a point; returns where it ends, in x."""
        font = self.font(size, bold=bold)
        self.draw.text((x, y), text, fill=fill, font=font, anchor=anchor)
        return x + font.getlength(text)

    def write_name(self, x: float, y: float, name: str, size: int, fill: Colour, width: float) -> float:
        """The name in bold, in one line or two that are not wider; returns where the next line would be, in y."""
        while True:
            font, words = self.font(size, bold=True), name.split()
            first = len(words)
            while first > 1 and font.getlength(" ".join(words[:first])) > width:
                first -= 1
            lines = [" ".join(words[:first]), " ".join(words[first:])]
            if max(font.getlength(line) for line in lines) <= width:
                break
            size -= 4
        for line in filter(None, lines):
            self.write(x, y, line, size, fill, bold=True)
            y += size * 1.15
        return y

    def write_bars(self, x: int, y: int, digits: str, height: int, fill: Colour) -> None:
        """What looks like a bar code, with its digits below."""
        at = x
        for digit in digits:
            value = int(digit)
            for bar, gap in ((1 + value % 3, 2 + value % 2), (1 + value // 4, 1 + value // 3)):
                self.draw.rectangle((at, y, at + 2 * bar - 1, y + height), fill=fill)
                at += 2 * (bar + gap)
        self.write(x, y + height + 6, digits, 36, fill)


def _grocery(pen: _Pen, label: Label, chance: Chance) -> None:
    """White; the price at the bottom right, its currency behind; a price a unit; a bar code."""
    ink = _dark(chance)
    below = pen.write_name(40, 30, label.name, 74, ink, 820)
    pen.write(40, below + 8, label.size[0], 36, ink)
    price, size = f"{_european(label.cents)} {pen.euro}", int(chance.integers(110, 140))
    while pen.font(size, bold=True).getlength(price) > 540:
        size -= 4
    pen.write(860, 520, price, size, ink, bold=True, anchor="rs")
    pen.write(860, 370, _a_unit(label, f"1 {{unit}} = {{price}} {pen.euro}", _european), 32, ink, anchor="rs")
    pen.write_bars(40, 400, label.gtin, 90, ink)


def _offer(pen: _Pen, label: Label, chance: Chance) -> None:
    """Coloured; a large price in the middle, its cents small and raised; the shop's number."""
    pen.draw.rectangle((0, 0, *FLAT), fill=_one(chance, ((255, 221, 40), (255, 236, 140), (255, 190, 90))))
    pen.draw.rectangle((0, 0, FLAT[0], 14), fill=(200, 20, 30))
    ink, red = _dark(chance), (190, 15, 30)
    pen.write_name(40, 40, label.name, 72, ink, 820)
    size = int(chance.integers(190, 230))
    whole = f"{label.cents // 100}{_one(chance, (',', '.'))}"
    x = 450 - pen.font(size, bold=True).getlength(whole) * 0.7
    x = pen.write(x, 445, whole, size, red, bold=True, anchor="ls")
    pen.write(x + 6, 445 - size * 0.72, f"{label.cents % 100:02d}", size // 2, red, bold=True, anchor="la")
    pen.write(40, 525, f"SKU {label.article}", 36, ink, anchor="ls")
    pen.write(860, 525, label.size[0], 36, ink, anchor="rs")


def _dollar(pen: _Pen, label: Label, chance: Chance) -> None:
    """White with a coloured edge; the price at the left, its currency in front; a price a unit; a bar code."""
    pen.draw.rectangle((0, 0, 24, FLAT[1]), fill=_one(chance, ((20, 90, 160), (20, 120, 60), (220, 90, 20))))
    ink = _dark(chance)
    below = pen.write_name(60, 28, label.name, 70, ink, 800)
    pen.write(60, below + 6, label.size[0], 36, ink)
    pen.write(60, 395, f"${label.cents / 100:,.2f}", int(chance.integers(120, 150)), ink, bold=True, anchor="ls")
    pen.write(
        860, 520, _a_unit(label, "${price} per {unit}", lambda cents: f"{cents / 100:,.2f}"), 34, ink, anchor="rs"
    )
    pen.write_bars(60, 420, label.gtin, 76, ink)


def _electronic(pen: _Pen, label: Label, chance: Chance) -> None:
    """A label of electronic paper: grey, the name light on a dark band, the price in red or black, two numbers."""
    pen.draw.rectangle((0, 0, *FLAT), fill=(222, 224, 220))
    pen.draw.rectangle((0, 0, FLAT[0], 205), fill=(25, 25, 28))
    pen.write_name(40, 22, label.name, 72, (235, 236, 232), 820)
    ink = _one(chance, ((185, 20, 30), (20, 20, 24)))
    mark, price = _one(chance, (("CHF", f"{label.cents / 100:.2f}"), (pen.euro, _european(label.cents))))
    size = int(chance.integers(130, 160))
    x = pen.write(60, 400, mark, size // 2, ink, bold=True, anchor="ls")
    pen.write(x + 24, 400, price, size, ink, bold=True, anchor="ls")
    pen.write(40, 520, f"Art. {label.article}", 38, (20, 20, 24), anchor="ls")
    pen.write(860, 520, label.gtin, 38, (20, 20, 24), anchor="rs")
    pen.write(860, 218, label.size[0], 38, (20, 20, 24), anchor="ra")


LAYOUTS: tuple[Callable[[_Pen, Label, Chance], None], ...] = (_grocery, _offer, _dollar, _electronic)
"""In turns."""


def _european(cents: int) -> str:
    return f"{cents // 100:,}".replace(",", ".") + f",{cents % 100:02d}"


def _a_unit(label: Label, form: str, money: Callable[[int], str]) -> str:
    return form.format(unit=label.size[2], price=money(round(label.cents * label.size[1])))


def _dark(chance: Chance) -> Colour:
    level = int(chance.integers(0, 60))
    return (level, level, level + int(chance.integers(0, 30)))


def _one(chance: Chance, choices: tuple[T, ...]) -> T:
    return choices[int(chance.integers(len(choices)))]


@cache
def _font(face: int, size: int, bold: bool) -> ImageFont.FreeTypeFont:
    if face == len(FACES):
        font = ImageFont.load_default(size)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise RuntimeError("Pillow was built without FreeType")
        return font
    package, regular, heavy = FACES[face]
    # The basic engine is in every Pillow: another would set letters at other places.
    return ImageFont.truetype(
        wheel_file(package, heavy if bold else regular), size, layout_engine=ImageFont.Layout.BASIC
    )


def _hung(flat: Image.Image, chance: Chance) -> Image.Image:
    """The label on a shelf's rail, seen from wherever the camera is."""
    width, height = PHOTO
    shelf = _shelf(chance)
    wide = chance.uniform(0.64, 0.86) * width
    high = wide * FLAT[1] / FLAT[0]
    angle = math.radians(chance.uniform(-8, 8))
    middle = np.array([width / 2, height / 2]) + chance.uniform(-0.05, 0.05, 2) * PHOTO
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (wide / 2, high / 2)
    turned = square @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    corners = middle + turned + chance.uniform(-0.018, 0.018, (4, 2)) * wide
    shadow = Image.new("L", PHOTO)
    ImageDraw.Draw(shadow).polygon([(x + 5, y + 8) for x, y in corners], fill=120)
    shelf.paste((10, 10, 12), mask=shadow.filter(ImageFilter.GaussianBlur(6)))
    seen = flat.convert("RGBA").transform(
        PHOTO, Image.Transform.PERSPECTIVE, _seen_from(corners), Image.Resampling.BICUBIC, fillcolor=(0, 0, 0, 0)
    )
    shelf.paste(seen, mask=seen.getchannel("A"))
    return shelf


def _seen_from(corners: NDArray[np.float64]) -> list[float]:
    """Pillow's eight numbers that take points of the photograph to points of the flat label."""
    width, height = FLAT
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, ((0, 0), (width, 0), (width, height), (0, height)), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(number) for number in np.linalg.solve(np.array(rows), np.array(values))]


def _shelf(chance: Chance) -> Image.Image:
    """Goods above, a rail, the dark below."""
    width, height = PHOTO
    shelf = Image.new("RGB", PHOTO, (40, 38, 36))
    draw = ImageDraw.Draw(shelf)
    x = -int(chance.integers(0, 80))
    while x < width:
        wide = int(chance.integers(90, 220))
        colour = tuple(int(part) for part in chance.integers(40, 230, 3))
        draw.rectangle((x, int(chance.integers(0, 40)), x + wide - 8, height // 2), fill=colour)
        draw.rectangle((x + 10, 60, x + wide - 18, 90), fill=tuple(part * 2 // 3 for part in colour))
        x += wide
    grey = int(chance.integers(120, 200))
    draw.rectangle((0, height // 4, width, height * 7 // 8), fill=(grey, grey, grey + 5))
    for y in (height // 4, height * 7 // 8):
        draw.line((0, y, width, y), fill=(grey + 40, grey + 40, grey + 40), width=5)
    return shelf


def _developed(scene: Image.Image, chance: Chance) -> Photo:
    """As a cheap camera takes it: out of focus, unevenly lit, noisy."""
    blurred = scene.filter(ImageFilter.GaussianBlur(chance.uniform(0.0, 1.4)))
    light = chance.uniform(0.6, 1.1)
    slope = chance.uniform(-0.25, 0.25, 2)
    across, down = np.linspace(-0.5, 0.5, PHOTO[0]), np.linspace(-0.5, 0.5, PHOTO[1])
    lit = np.asarray(blurred) * (light * (1 + slope[0] * across + slope[1] * down[:, np.newaxis]))[..., np.newaxis]
    noisy = lit + chance.uniform(2, 12) * chance.standard_normal(lit.shape, dtype=np.float32)
    return np.asarray(noisy.clip(0, 255), dtype=np.uint8)
