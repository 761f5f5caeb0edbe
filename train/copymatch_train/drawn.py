"""Drawn pictures without end: documents, receipts, chats, charts, forms, maps, codes, screens, memes. A
function of (seed, kind, number).

What people copy is not only photographs, and pictures of one kind look alike: pages of text, receipts of one shop,
screens of one application. `drawn` gives many *different* pictures of a kind; `RUN` of them in a row have one style
(layout, colours, type size), as receipts of one shop have. Each is a picture of its own: as hard negatives in a batch
they teach what tells them apart. Kinds in `KEPT` are drawn for validation alone; no training sees them.

    python -m copymatch_train.drawn train/runs/drawn --each 600                  # a picture store; its sources are
    `drawn/KIND` python -m copymatch_train.drawn train/runs/drawn-kept --each 200 --kept
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .fonts import random_font
from .pictures import Writer

Draw = Callable[[random.Random, random.Random], Image.Image]
KINDS: dict[str, Draw] = {}
KEPT: dict[str, Draw] = {}
# So many pictures in a row share a style.
RUN = 6
# Drawn at this many pixels on the short side and made half as large, so that small type is as smooth as
# in a photograph or a scan.
_SHORT = 400

_LATIN = "abcdefghijklmnoprstuvwyz"
_SCRIPTS = (_LATIN, _LATIN, _LATIN, _LATIN, "αβγδεζηθικλμνξοπρστυφχψω", "абвгдежзиклмнопрстуфхцчшыьэюя")
_VOWELS = set("aeiouyαεηιουωаеиоуыэюя")


def _kind(table: dict[str, Draw]) -> Callable[[Draw], Draw]:
    def add(function: Draw) -> Draw:
        table[function.__name__.removesuffix("_")] = function
        return function

    return add


def drawn(kind: str, number: int, seed: int = 1) -> Image.Image:
    """Picture `number` of a kind. Its style depends on number // RUN, its content on the number."""
    style = random.Random(f"style/{seed}/{kind}/{number // RUN}")
    content = random.Random(f"content/{seed}/{kind}/{number}")
    image = (KINDS | KEPT)[kind](style, content)
    if style.random() < 0.3:
        image = _scanned(image, style, content)
    return image.resize((image.width // 2, image.height // 2), Image.LANCZOS)


def _colour(rng: random.Random, low: int = 0, high: int = 255) -> tuple[int, int, int]:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _scanned(image: Image.Image, style: random.Random, content: random.Random) -> Image.Image:
    """As off a scanner or a phone: a little turned, unevenly lit, noisy."""
    paper = tuple(style.randint(190, 250) for _ in range(3))
    image = image.rotate(content.uniform(-2.5, 2.5), Image.BILINEAR, fillcolor=paper)
    w, h = image.size
    light = (
        np.linspace(content.uniform(0.75, 1.0), 1.0, w)[None, :, None]
        * np.linspace(1.0, content.uniform(0.75, 1.0), h)[:, None, None]
    )
    noise = np.random.default_rng(content.getrandbits(63)).normal(0, style.uniform(2, 9), (h, w, 1)).astype(np.float32)
    return Image.fromarray(
        (np.asarray(image, np.float32) * light.astype(np.float32) + noise).clip(0, 255).astype(np.uint8)
    )


class _Words:
    """Words of a made-up language in one script, and the numbers that go with them."""

    def __init__(self, style: random.Random, rng: random.Random):
        letters = style.choice(_SCRIPTS)
        self.vowels = [c for c in letters if c in _VOWELS]
        self.others = [c for c in letters if c not in _VOWELS]
        self.rng = rng

    def word(self) -> str:
        rng = self.rng
        syllables = (
            rng.choice(self.others) * (rng.random() < 0.9)
            + rng.choice(self.vowels)
            + rng.choice(self.others) * (rng.random() < 0.3)
        )
        for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
            syllables += rng.choice(self.others) + rng.choice(self.vowels)
        return syllables

    def words(self, count: int) -> str:
        return " ".join(self.word() for _ in range(count))

    def title(self, count: int) -> str:
        return " ".join(self.word().capitalize() for _ in range(count))

    def price(self) -> str:
        whole = self.rng.choice((self.rng.randint(0, 9), self.rng.randint(0, 99), self.rng.randint(0, 999)))
        return f"{whole}.{self.rng.randint(0, 99):02d}"

    def digits(self, count: int) -> str:
        return "".join(self.rng.choice("0123456789") for _ in range(count))

    def date(self) -> str:
        return f"{self.rng.randint(1, 28):02d}.{self.rng.randint(1, 12):02d}.{self.rng.randint(1990, 2030)}"


class _Sheet:
    """An image while it is drawn on; type sizes in its pixels."""

    def __init__(self, width: float, height: float, paper: tuple[int, int, int], face: int):
        self.image = Image.new("RGB", (round(width), round(height)), paper)
        self.draw = ImageDraw.Draw(self.image)
        self.face = face

    def text(self, x: float, y: float, text: str, size: float, fill=(0, 0, 0), right: bool = False) -> float:
        """Write; returns where it ends. One face a sheet."""
        font = random_font(random.Random(self.face), max(6, round(size)))
        length = self.draw.textlength(text, font=font)
        self.draw.text((x - length if right else x, y), text, font=font, fill=fill)
        return x if right else x + length

    def paragraph(
        self, words: _Words, x0: float, y: float, x1: float, y1: float, size: float, fill=(0, 0, 0), share: float = 1.0
    ) -> float:
        """Lines of words from `y` down to `y1`, the last one ragged; returns the next line's y. `share` of
        the lines are written."""
        step = size * 1.35
        letters = max(4, int((x1 - x0) / (size * 0.6)))
        while y + step < y1 and words.rng.random() < share:
            line = words.word()
            while len(line) < letters:
                line += " " + words.word()
            self.text(x0, y, line[:letters], size, fill)
            y += step
        if y + step < y1:
            self.text(x0, y, words.words(3)[: letters // 2], size, fill)
            y += step
        return y


def _ink(style: random.Random, light: bool) -> tuple[int, int, int]:
    grey = style.randint(0, 70) if light else style.randint(190, 250)
    return grey, grey, min(255, grey + style.choice((0, 0, 30)))


def _page(style: random.Random, ratio: tuple[float, float]) -> tuple[_Sheet, tuple[int, int, int]]:
    """An upright page and its ink."""
    light = style.random() < 0.85
    paper = _colour(style, 225, 255) if light else _colour(style, 5, 50)
    return _Sheet(_SHORT, _SHORT * style.uniform(*ratio), paper, style.getrandbits(20)), _ink(style, light)


def _scene(rng: random.Random, w: int, h: int) -> Image.Image:
    """What stands for a photograph: a sky, hills, round and edged things, at random."""
    image = Image.new("RGB", (w, h))
    draw = ImageDraw.Draw(image)
    top, bottom = _colour(rng), _colour(rng)
    for y in range(h):
        draw.line((0, y, w, y), fill=tuple(round(a + (b - a) * y / h) for a, b in zip(top, bottom)))
    for _ in range(rng.randint(1, 3)):
        base, reach, waves = rng.uniform(0.4, 0.9) * h, rng.uniform(0.05, 0.25) * h, rng.uniform(1, 5)
        turn = rng.uniform(0, 6)
        line = [(x, base + reach * math.sin(turn + waves * x / w * 6.3)) for x in range(0, w + 8, 8)]
        draw.polygon([*line, (w, h), (0, h)], fill=_colour(rng))
    for _ in range(rng.randint(2, 9)):
        x, y, r = rng.uniform(0, w), rng.uniform(0, h), rng.uniform(0.04, 0.25) * h
        if rng.random() < 0.5:
            draw.ellipse((x - r, y - r * rng.uniform(0.5, 1.2), x + r, y + r), fill=_colour(rng))
        else:
            draw.polygon(
                [
                    (x + r * math.cos(a), y + r * math.sin(a))
                    for a in sorted(rng.uniform(0, 6.3) for _ in range(rng.randint(3, 7)))
                ],
                fill=_colour(rng),
            )
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3.0)))


@_kind(KINDS)
def document(style: random.Random, rng: random.Random) -> Image.Image:
    sheet, ink = _page(style, (1.2, 1.5))
    words = _Words(style, rng)
    w, h = sheet.image.size
    margin, size = style.uniform(0.06, 0.14) * w, style.uniform(9, 17)
    columns = style.choice((1, 1, 2))
    y = margin
    if style.random() < 0.7:
        sheet.text(margin, y, words.title(rng.randint(2, 4)), size * style.uniform(1.5, 2.2), ink)
        y += size * 3.2
    wide = (w - 2 * margin - (columns - 1) * size) / columns
    figures = style.random() < 0.4
    for column in range(columns):
        x, at = margin + column * (wide + size), y
        while at < h - margin - 2 * size:
            kind = rng.random()
            if kind < 0.15:
                sheet.text(x, at, words.title(rng.randint(1, 3)), size * 1.25, ink)
                at += size * 2
            elif figures and kind < 0.25 and at < h - margin - 8 * size:
                high = rng.uniform(5, 9) * size
                sheet.image.paste(_scene(rng, round(wide), round(high)), (round(x), round(at)))
                at += high + size
            elif kind < 0.35:
                for _ in range(rng.randint(2, 5)):
                    sheet.draw.ellipse((x, at + size * 0.4, x + size * 0.4, at + size * 0.8), fill=ink)
                    sheet.text(
                        x + size, at, words.words(rng.randint(2, 5))[: max(4, int(wide / size / 0.65))], size, ink
                    )
                    at += size * 1.4
                    if at > h - margin - 2 * size:
                        break
            else:
                at = sheet.paragraph(words, x, at, x + wide, h - margin, size, ink, share=0.85) + size * rng.uniform(
                    0.3, 1.2
                )
    return sheet.image


@_kind(KINDS)
def receipt(style: random.Random, rng: random.Random) -> Image.Image:
    names = _Words(style, style)
    words = _Words(style, rng)
    items = rng.randint(4, 14)
    size = style.uniform(15, 22)
    paper = _colour(style, 228, 255)
    ink = (style.randint(0, 90),) * 3
    sheet = _Sheet(_SHORT, (items + style.randint(9, 14)) * size * 1.4, paper, style.getrandbits(20))
    w = sheet.image.width
    y = size
    shop, street = names.title(2), f"{names.title(1)} {names.digits(2)}"
    for line, factor in ((shop, 1.6), (street, 1.0), (names.digits(9), 1.0)):
        length = sheet.draw.textlength(line, font=random_font(random.Random(sheet.face), round(size * factor)))
        sheet.text((w - length) / 2, y, line, size * factor, ink)
        y += size * factor * 1.4
    sheet.text(size, y, f"{words.date()} {rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}", size, ink)
    sheet.text(w - size, y, f"#{words.digits(5)}", size, ink, right=True)
    y += size * 1.6
    rule = style.choice(("-", "=", "*", "."))
    for _ in range(items):
        sheet.text(size, y, f"{rng.choice(('', '', '2x ', '3x '))}{words.words(rng.randint(1, 3))[:16]}", size, ink)
        sheet.text(w - size, y, words.price(), size, ink, right=True)
        y += size * 1.4
    sheet.text(size, y, rule * int(w / size), size, ink)
    y += size * 1.4
    for label, factor in (("TOTAL", 1.4), (names.word().upper(), 1.0)):
        sheet.text(size, y, label, size * factor, ink)
        sheet.text(w - size, y, words.price(), size * factor, ink, right=True)
        y += size * factor * 1.4
    if style.random() < 0.5:
        _bars(sheet.draw, rng, size * 2, y + size * 0.3, w - 4 * size, size * 2.2, ink)
    return sheet.image


def _bars(draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, w: float, h: float, ink) -> None:
    """A bar code."""
    end, unit = x + w, w / rng.randint(60, 110)
    while x < end:
        wide = unit * rng.randint(1, 4)
        draw.rectangle((x, y, max(x, min(end, x + wide) - 1), y + h), fill=ink)
        x += wide + unit * rng.randint(1, 4)


def _matrix(draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, side: float, ink, paper) -> None:
    """A matrix code: modules at random and three finder squares."""
    n = rng.choice((21, 25, 29, 33))
    unit = side / n
    for row in range(n):
        bits = rng.getrandbits(n)
        for column in range(n):
            if bits >> column & 1:
                draw.rectangle(
                    (x + column * unit, y + row * unit, x + (column + 1) * unit - 0.5, y + (row + 1) * unit - 0.5),
                    fill=ink,
                )
    for cx, cy in ((0, 0), (n - 7, 0), (0, n - 7)):
        for inset, fill in ((-1, paper), (0, ink), (1, paper), (2, ink)):
            box = (
                x + (cx + inset) * unit,
                y + (cy + inset) * unit,
                x + (cx + 7 - inset) * unit - 0.5,
                y + (cy + 7 - inset) * unit - 0.5,
            )
            draw.rectangle(tuple(min(max(v, low), low + side) for v, low in zip(box, (x, y, x, y))), fill=fill)


@_kind(KINDS)
def chat(style: random.Random, rng: random.Random) -> Image.Image:
    light = style.random() < 0.7
    sheet = _Sheet(
        _SHORT,
        _SHORT * style.uniform(1.4, 2.0),
        _colour(style, 215, 250) if light else _colour(style, 10, 45),
        style.getrandbits(20),
    )
    words = _Words(style, rng)
    w, h = sheet.image.size
    size, round_ = style.uniform(13, 19), style.uniform(4, 18)
    theirs, mine = (
        ((255, 255, 255) if light else _colour(style, 50, 90)),
        _colour(style, 150, 240) if light else _colour(style, 30, 140),
    )
    ink, bar = _ink(style, light), _colour(style, 30, 230)
    sheet.draw.rectangle((0, 0, w, 3 * size), fill=bar)
    sheet.draw.ellipse((size, 0.5 * size, 3 * size, 2.5 * size), fill=_colour(rng))
    sheet.text(4 * size, 0.8 * size, words.title(2), size * 1.2, (255, 255, 255) if sum(bar) < 420 else (20, 20, 20))
    y = 3.6 * size
    while y < h - 4 * size:
        own = rng.random() < 0.5
        if rng.random() < 0.08:
            wide, high = rng.uniform(0.4, 0.7) * w, rng.uniform(5, 9) * size
            x = w - wide - size if own else size
            sheet.image.paste(_scene(rng, round(wide), round(high)), (round(x), round(y)))
            y += high + size * 0.6
            continue
        lines = [
            words.words(rng.randint(1, 5))[: int(0.62 * w / size / 0.6)]
            for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4)))
        ]
        font = random_font(random.Random(sheet.face), round(size))
        wide = max(sheet.draw.textlength(line, font=font) for line in lines) + 1.4 * size
        high = len(lines) * size * 1.35 + 0.9 * size
        x = w - wide - size if own else size
        sheet.draw.rounded_rectangle((x, y, x + wide, y + high), round_, fill=mine if own else theirs)
        for i, line in enumerate(lines):
            sheet.text(x + 0.7 * size, y + 0.35 * size + i * size * 1.35, line, size, ink)
        y += high + size * rng.choice((0.3, 0.3, 0.9))
    sheet.draw.rounded_rectangle((size, h - 2.6 * size, w - size, h - 0.6 * size), round_, fill=theirs)
    return sheet.image


def _axes(
    sheet: _Sheet, words: _Words, style: random.Random, box: tuple[float, float, float, float], ink, size: float
) -> None:
    x0, y0, x1, y1 = box
    if style.random() < 0.6:
        for k in range(1, 6):
            y = y1 - k * (y1 - y0) / 5
            sheet.draw.line((x0, y, x1, y), fill=tuple((v + 128 * 2) // 3 for v in ink))
    top = words.rng.choice((1, 5, 10, 25, 100, 500, 1000))
    for k in range(6):
        sheet.text(x0 - 4, y1 - k * (y1 - y0) / 5 - size / 2, f"{top * k / 5:g}", size * 0.9, ink, right=True)
    sheet.draw.line((x0, y0, x0, y1, x1, y1), fill=ink, width=2)


@_kind(KINDS)
def chart(style: random.Random, rng: random.Random) -> Image.Image:
    light = style.random() < 0.85
    sheet = _Sheet(
        _SHORT * style.uniform(1.0, 1.5),
        _SHORT,
        _colour(style, 235, 255) if light else _colour(style, 15, 50),
        style.getrandbits(20),
    )
    words, ink = _Words(style, rng), _ink(style, light)
    w, h = sheet.image.size
    size = style.uniform(11, 16)
    palette = [_colour(style) for _ in range(6)]
    box = (4.2 * size, 3 * size, w - 1.5 * size, h - 3.2 * size)
    x0, y0, x1, y1 = box
    sheet.text(x0, 0.8 * size, words.title(rng.randint(2, 4)), size * 1.3, ink)
    form = style.choice(("bars", "bars", "lines", "lines", "points", "areas", "pie", "heat"))
    series = style.randint(1, 3)
    if form == "pie":
        shares, turn = [rng.uniform(0.3, 3) for _ in range(rng.randint(3, 6))], rng.uniform(0, 360)
        r = (y1 - y0) / 2
        circle = (x0, y0, x0 + 2 * r, y0 + 2 * r)
        for i, share in enumerate(shares):
            angle = 360 * share / sum(shares)
            sheet.draw.pieslice(circle, turn, turn + angle, fill=palette[i % 6])
            turn += angle
            y = y0 + i * size * 1.8
            sheet.draw.rectangle((x0 + 2 * r + size, y, x0 + 2 * r + 2 * size, y + size), fill=palette[i % 6])
            sheet.text(x0 + 2 * r + 2.5 * size, y, words.word(), size, ink)
        if style.random() < 0.5:
            hole = r * 0.5
            sheet.draw.ellipse(
                (x0 + r - hole, y0 + r - hole, x0 + r + hole, y0 + r + hole), fill=sheet.image.getpixel((0, 0))
            )
        return sheet.image
    if form == "heat":
        columns, rows = rng.randint(4, 12), rng.randint(4, 10)
        a, b = palette[:2]
        for i in range(columns):
            for j in range(rows):
                t = rng.random()
                cell = (
                    x0 + i * (x1 - x0) / columns,
                    y0 + j * (y1 - y0) / rows,
                    x0 + (i + 1) * (x1 - x0) / columns - 1,
                    y0 + (j + 1) * (y1 - y0) / rows - 1,
                )
                sheet.draw.rectangle(cell, fill=tuple(round(p + (q - p) * t) for p, q in zip(a, b)))
        return sheet.image
    _axes(sheet, words, style, box, ink, size)
    n = rng.randint(4, 9) if form == "bars" else rng.randint(8, 30)
    for s in range(series):
        level, values = rng.uniform(0.2, 0.8), []
        for _ in range(n):
            level = min(0.98, max(0.03, level + rng.gauss(0, 0.18)))
            values.append(level if form != "bars" else rng.uniform(0.05, 0.97))
        at = [(x0 + (i + 0.5) * (x1 - x0) / n, y1 - v * (y1 - y0)) for i, v in enumerate(values)]
        if form == "bars":
            wide = (x1 - x0) / n * 0.75 / series
            for x, y in at:
                left = x - wide * series / 2 + s * wide
                sheet.draw.rectangle((left, y, left + wide - 1, y1 - 1), fill=palette[s])
        elif form == "lines":
            sheet.draw.line(at, fill=palette[s], width=style.randint(2, 4), joint="curve")
        elif form == "areas":
            sheet.draw.polygon([(at[0][0], y1), *at, (at[-1][0], y1)], fill=palette[s])
        else:
            for x, y in at:
                r = style.uniform(3, 6)
                x += rng.gauss(0, 8)
                sheet.draw.ellipse((x - r, y - r, x + r, y + r), fill=palette[s])
    for i in range(min(n, 5)):
        sheet.text(x0 + i * (x1 - x0) / min(n, 5) + 4, y1 + 5, words.word()[:7], size * 0.9, ink)
    return sheet.image


@_kind(KINDS)
def form(style: random.Random, rng: random.Random) -> Image.Image:
    """A printed form with its labels, filled in; the labels are the style's, the entries the picture's."""
    sheet, ink = _page(style, (1.1, 1.45))
    labels, words = _Words(style, style), _Words(style, rng)
    w, h = sheet.image.size
    size, margin = style.uniform(11, 15), style.uniform(12, 35)
    pen = style.choice(((20, 40, 130), (30, 30, 30), ink))
    sheet.text(margin, margin, labels.title(3), size * 1.6, ink)
    y = margin + 3 * size
    grid = style.random() < 0.35
    while y < h - 3 * size:
        cells = style.choice((1, 1, 2, 2, 3))
        wide = (w - 2 * margin) / cells
        high = size * style.choice((2.6, 2.6, 4.5))
        for c in range(cells):
            x = margin + c * wide
            if grid:
                sheet.draw.rectangle((x, y, x + wide, y + high), outline=ink)
            else:
                sheet.draw.line((x, y + high - 3, x + wide - size, y + high - 3), fill=ink)
            sheet.text(x + 3, y + 2, labels.word(), size * 0.75, ink)
            entry = rng.random()
            if entry < 0.55:
                sheet.text(
                    x + 5,
                    y + size * 1.0,
                    words.title(rng.randint(1, 3))[: max(3, int(wide / size / 0.75))],
                    size * 1.15,
                    pen,
                )
            elif entry < 0.75:
                sheet.text(
                    x + 5,
                    y + size * 1.0,
                    rng.choice((words.date(), words.digits(rng.randint(3, 10)))),
                    size * 1.15,
                    pen,
                )
            elif entry < 0.9:
                for k in range(3):
                    square = (x + 5 + k * 2.2 * size, y + size * 1.1, x + 5 + (k * 2.2 + 1) * size, y + size * 2.1)
                    sheet.draw.rectangle(square, outline=ink)
                    if rng.random() < 0.4:
                        sheet.draw.line(square, fill=pen, width=2)
        y += high
    return sheet.image


@_kind(KINDS)
def map_(style: random.Random, rng: random.Random) -> Image.Image:
    land, water, park, road, main = (
        _colour(style, 190, 250),
        _colour(style, 90, 220),
        _colour(style, 150, 225),
        (255, 255, 255),
        _colour(style, 120, 255),
    )
    w, h = round(_SHORT * style.uniform(1.0, 1.5)), _SHORT
    sheet = _Sheet(w, h, land, style.getrandbits(20))
    words, ink = _Words(style, rng), _ink(style, True)
    for fill, count in ((park, rng.randint(1, 4)), (water, rng.randint(0, 2))):
        for _ in range(count):
            x, y, r = rng.uniform(0, w), rng.uniform(0, h), rng.uniform(30, 110)
            sheet.draw.polygon(
                [
                    (
                        x + r * rng.uniform(0.5, 1.2) * math.cos(k * 0.7),
                        y + r * rng.uniform(0.5, 1.2) * math.sin(k * 0.7),
                    )
                    for k in range(9)
                ],
                fill=fill,
            )

    def way(wide: float, fill) -> None:
        x, y, turn = rng.uniform(0, w), rng.choice((-10.0, h + 10.0)), 0.0
        turn = math.pi / 2 if y < 0 else -math.pi / 2
        if rng.random() < 0.5:
            x, y, turn = -10.0, rng.uniform(0, h), 0.0
        points = [(x, y)]
        for _ in range(60):
            turn += rng.gauss(0, 0.12)
            x, y = x + 14 * math.cos(turn), y + 14 * math.sin(turn)
            points.append((x, y))
        sheet.draw.line(points, fill=tuple(max(0, v - 60) for v in fill), width=round(wide + 3), joint="curve")
        sheet.draw.line(points, fill=fill, width=round(wide), joint="curve")

    if rng.random() < 0.5:
        way(rng.uniform(14, 40), water)
    turn, step = style.choice((0.0, style.uniform(0, 1.5))), style.uniform(24, 60)
    for k in range(-20, 40):
        if rng.random() < 0.75:
            for a in (turn, turn + math.pi / 2):
                off, reach = k * step + rng.gauss(0, step / 6), w + h
                cx, cy = w / 2 - math.sin(a) * (off - 10 * step), h / 2 + math.cos(a) * (off - 10 * step)
                start, end = rng.uniform(-0.7, 0.2) * reach, rng.uniform(0.0, 0.7) * reach
                ends = (
                    cx + math.cos(a) * start,
                    cy + math.sin(a) * start,
                    cx + math.cos(a) * end,
                    cy + math.sin(a) * end,
                )
                sheet.draw.line(ends, fill=road, width=style.randint(3, 6))
    for _ in range(rng.randint(1, 3)):
        way(style.uniform(6, 12), main)
    for _ in range(rng.randint(5, 14)):
        sheet.text(
            rng.uniform(0, 0.8) * w,
            rng.uniform(0, 0.95) * h,
            words.title(rng.randint(1, 2)),
            style.uniform(10, 14),
            ink,
        )
    for _ in range(rng.randint(0, 4)):
        x, y = rng.uniform(0, w), rng.uniform(0, h)
        sheet.draw.ellipse((x - 9, y - 22, x + 9, y - 4), fill=_colour(rng, 0, 200))
        sheet.draw.polygon([(x - 7, y - 10), (x + 7, y - 10), (x, y)], fill=_colour(rng, 0, 200))
    return sheet.image


@_kind(KINDS)
def code(style: random.Random, rng: random.Random) -> Image.Image:
    """Matrix and bar codes, alone or on a label."""
    paper, ink = _colour(style, 225, 255), (style.randint(0, 60),) * 3
    words, names = _Words(style, rng), _Words(style, style)
    if style.random() < 0.5:
        sheet = _Sheet(_SHORT, _SHORT * style.choice((1.0, 1.15)), paper, style.getrandbits(20))
        margin = style.uniform(0.05, 0.2) * _SHORT
        _matrix(sheet.draw, rng, margin, margin, _SHORT - 2 * margin, ink, paper)
        if sheet.image.height > _SHORT:
            sheet.text(margin, _SHORT - margin * 0.7, names.title(2), 22, ink)
        return sheet.image
    sheet = _Sheet(_SHORT * style.uniform(1.1, 1.6), _SHORT, paper, style.getrandbits(20))
    w, h = sheet.image.size
    y = 20.0
    for _ in range(style.randint(2, 4)):
        sheet.text(20, y, f"{names.word().upper()}: {words.title(2)}", 20, ink)
        y += 30
    _bars(sheet.draw, rng, 20, y, w * 0.55, h - y - 60, ink)
    sheet.text(20, h - 50, words.digits(12), 24, ink)
    _matrix(sheet.draw, rng, w * 0.63, y, min(w * 0.33, h - y - 30), ink, paper)
    return sheet.image


@_kind(KINDS)
def listing(style: random.Random, rng: random.Random) -> Image.Image:
    """Source text in an editor or a terminal."""
    light = style.random() < 0.35
    sheet = _Sheet(
        _SHORT * style.uniform(1.0, 1.6),
        _SHORT,
        _colour(style, 240, 255) if light else _colour(style, 10, 50),
        style.getrandbits(20),
    )
    words = _Words(random.Random(0), rng)
    w, h = sheet.image.size
    size = style.uniform(11, 17)
    inks = [_colour(style, 0, 130) if light else _colour(style, 130, 255) for _ in range(5)]
    gutter = style.random() < 0.6
    y, indent, line = size * 0.6, 0, rng.randint(1, 400)
    if style.random() < 0.5:
        sheet.draw.rectangle((0, 0, w, size * 1.8), fill=_colour(style, 60, 200))
        for k, fill in enumerate(((255, 95, 86), (255, 189, 46), (39, 201, 63))):
            sheet.draw.ellipse((10 + k * 20, size * 0.5, 20 + k * 20, size * 0.5 + 10), fill=fill)
        y = size * 2.3
    while y < h - size:
        x = 8 + (3 * size if gutter else 0) + indent * 2 * size
        if gutter:
            sheet.text(2.4 * size, y, str(line), size * 0.9, inks[4], right=True)
        if rng.random() < 0.88:
            for _ in range(rng.randint(1, 6)):
                part = rng.choice(
                    (
                        words.word(),
                        f"{words.word()}(",
                        f"{words.word()} =",
                        words.digits(2),
                        f'"{words.word()}"',
                        "{",
                        "})",
                        "->",
                        f"{words.word()}.{words.word()}",
                    )
                )
                x = sheet.text(x, y, part, size, rng.choice(inks)) + size * 0.5
        indent = max(0, min(5, indent + rng.choice((-1, 0, 0, 0, 1))))
        y, line = y + size * 1.4, line + 1
    return sheet.image


@_kind(KINDS)
def screen(style: random.Random, rng: random.Random) -> Image.Image:
    """An application's screen: the furniture is the style's, what it shows the picture's."""
    light, phone = style.random() < 0.7, style.random() < 0.5
    paper = _colour(style, 225, 252) if light else _colour(style, 12, 45)
    w, h = (_SHORT, _SHORT * style.uniform(1.6, 2.1)) if phone else (_SHORT * style.uniform(1.3, 1.7), _SHORT)
    sheet = _Sheet(w, h, paper, style.getrandbits(20))
    w, h = sheet.image.size
    names, words, ink, accent = _Words(style, style), _Words(style, rng), _ink(style, light), _colour(style)
    card = tuple(min(255, v + 22) for v in paper)
    size = style.uniform(11, 16)
    faint = tuple((a + b) // 2 for a, b in zip(ink, paper))
    sheet.draw.rectangle((0, 0, w, 3 * size), fill=accent if style.random() < 0.6 else card)
    sheet.text(size, 0.8 * size, names.title(2), size * 1.3, (255, 255, 255) if sum(accent) < 420 else (15, 15, 15))
    left = 0.0
    if not phone and style.random() < 0.7:
        left = style.uniform(0.18, 0.28) * w
        sheet.draw.rectangle((0, 3 * size, left, h), fill=card)
        for k in range(style.randint(4, 9)):
            y = (4 + 2.2 * k) * size
            sheet.draw.rounded_rectangle((size, y, 2 * size, y + size), 3, fill=faint)
            sheet.text(2.6 * size, y, names.word()[:8], size, ink)
    x0, x1, y = left + size, w - size, 4 * size
    body = style.choice(("rows", "rows", "tiles", "cards", "table"))
    columns = style.randint(2, 4)
    while y < h - (4 if phone else 2) * size:
        if body == "rows":
            sheet.draw.ellipse((x0, y, x0 + 2.2 * size, y + 2.2 * size), fill=_colour(rng))
            sheet.text(x0 + 3 * size, y, words.title(rng.randint(1, 3)), size, ink)
            sheet.text(x0 + 3 * size, y + 1.3 * size, words.words(rng.randint(2, 4)), size * 0.8, faint)
            sheet.text(x1, y, rng.choice((words.date(), words.price(), "")), size * 0.8, faint, right=True)
            y += 3.2 * size
        elif body == "tiles":
            wide = (x1 - x0) / columns
            for c in range(columns):
                x = x0 + c * wide
                sheet.image.paste(_scene(rng, round(wide - 8), round(wide * 0.7)), (round(x), round(y)))
                sheet.text(x, y + wide * 0.72, words.title(1), size * 0.9, ink)
            y += wide * 0.7 + 2.4 * size
        elif body == "cards":
            high = rng.uniform(4, 9) * size
            sheet.draw.rounded_rectangle((x0, y, x1, y + high), style.uniform(0, 12), fill=card)
            sheet.text(x0 + size, y + 0.5 * size, words.title(rng.randint(2, 4)), size * 1.1, ink)
            sheet.paragraph(words, x0 + size, y + 2.1 * size, x1 - size, y + high - size, size * 0.85, faint)
            y += high + size * 0.8
        else:
            for c in range(columns + 1):
                sheet.text(
                    x0 + c * (x1 - x0) / (columns + 1),
                    y,
                    rng.choice((words.word(), words.price(), words.digits(4)))[:9],
                    size * 0.9,
                    ink,
                )
            sheet.draw.line((x0, y + 1.5 * size, x1, y + 1.5 * size), fill=faint)
            y += 1.9 * size
    if phone:
        sheet.draw.rectangle((0, h - 3 * size, w, h), fill=card)
        for k in range(4):
            x = (k + 0.5) * w / 4
            sheet.draw.rounded_rectangle(
                (x - size * 0.7, h - 2.4 * size, x + size * 0.7, h - size), 4, fill=accent if k == 0 else faint
            )
    return sheet.image


@_kind(KINDS)
def meme(style: random.Random, rng: random.Random) -> Image.Image:
    """One arrangement of captions and pictures; other pictures and captions each time."""
    words = _Words(style, rng)
    panels = style.choice((1, 1, 2, 4))
    w = round(_SHORT * style.uniform(1.0, 1.3))
    band = round(style.uniform(0.1, 0.25) * _SHORT)
    above, outline = style.random() < 0.5, style.random() < 0.6
    sheet = _Sheet(w, _SHORT + (band if above else 0), (255, 255, 255), style.getrandbits(20))
    top = band if above else 0
    columns = 1 if panels < 4 else 2
    rows = panels // columns
    for k in range(panels):
        x, y = k % columns * w // columns, top + k // columns * _SHORT // rows
        sheet.image.paste(_scene(rng, w // columns, _SHORT // rows), (x, y))
        if panels > 1:
            sheet.draw.rectangle((x, y, x + w // columns, y + _SHORT // rows), outline=(0, 0, 0), width=3)
    size = band * 0.45
    if above:
        sheet.text(size * 0.5, band * 0.2, words.words(rng.randint(3, 6)), size * 0.9)
    font = random_font(random.Random(sheet.face), round(size))
    for y in (top + 8, sheet.image.height - size * 1.5):
        line = words.words(rng.randint(2, 4)).upper()[: int(w / size / 0.75)]
        x = (w - sheet.draw.textlength(line, font=font)) / 2
        edge = 2 if outline else 0
        sheet.draw.text((x, y), line, font=font, fill=(255, 255, 255), stroke_width=edge, stroke_fill=(0, 0, 0))
    return sheet.image


@_kind(KEPT)
def invoice(style: random.Random, rng: random.Random) -> Image.Image:
    sheet, ink = _page(style, (1.3, 1.45))
    names, words = _Words(style, style), _Words(style, rng)
    w, h = sheet.image.size
    size, accent = style.uniform(10, 13), _colour(style, 0, 200)
    sheet.draw.rectangle((0, 0, w, style.uniform(0.5, 4) * size), fill=accent)
    sheet.draw.ellipse((size * 2, size * 5, size * 5, size * 8), fill=accent)
    sheet.text(size * 6, size * 5.5, names.title(2), size * 1.6, ink)
    for k in range(4):
        sheet.text(size * 2, size * (10 + 1.4 * k), words.title(2), size, ink)
        sheet.text(
            w - size * 2,
            size * (10 + 1.4 * k),
            f"{names.word()} {rng.choice((words.date(), words.digits(6)))}",
            size,
            ink,
            right=True,
        )
    y = size * 18
    sheet.draw.rectangle((size * 2, y - 0.4 * size, w - size * 2, y + 1.4 * size), fill=accent)
    for _ in range(rng.randint(3, 12)):
        y += size * 1.9
        sheet.text(size * 2, y, words.words(rng.randint(1, 3))[:22], size, ink)
        sheet.text(w * 0.62, y, str(rng.randint(1, 40)), size, ink)
        sheet.text(w - size * 2, y, words.price(), size, ink, right=True)
        sheet.draw.line((size * 2, y + 1.5 * size, w - size * 2, y + 1.5 * size), fill=(190, 190, 190))
    sheet.text(w - size * 2, y + 2.6 * size, words.price(), size * 1.6, accent, right=True)
    return sheet.image


@_kind(KEPT)
def timetable(style: random.Random, rng: random.Random) -> Image.Image:
    light = style.random() < 0.6
    sheet = _Sheet(
        _SHORT * style.uniform(1.1, 1.5),
        _SHORT,
        _colour(style, 230, 255) if light else _colour(style, 0, 45),
        style.getrandbits(20),
    )
    names, words, ink = _Words(style, style), _Words(style, rng), _ink(style, light)
    w, h = sheet.image.size
    size, columns = style.uniform(12, 17), style.randint(3, 6)
    accent = _colour(style, 60, 220)
    sheet.draw.rectangle((0, 0, w, 2.6 * size), fill=accent)
    sheet.text(size, 0.6 * size, names.title(2), size * 1.3, (255, 255, 255) if sum(accent) < 420 else (10, 10, 10))
    y, row = 3.2 * size, 0
    while y < h - 1.5 * size:
        if row % 2 and style.random() < 0.9:
            sheet.draw.rectangle(
                (0, y - 0.25 * size, w, y + 1.4 * size),
                fill=tuple(max(0, v - 14) if light else v + 14 for v in sheet.image.getpixel((1, h - 1))),
            )
        sheet.text(size, y, words.title(rng.randint(1, 2))[:14], size, ink)
        for c in range(columns):
            at = w * 0.4 + c * w * 0.58 / columns
            sheet.text(
                at,
                y,
                f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}" if rng.random() < 0.85 else "–",
                size * 0.9,
                accent if rng.random() < 0.1 else ink,
            )
        y, row = y + 1.7 * size, row + 1
    return sheet.image


@_kind(KEPT)
def card(style: random.Random, rng: random.Random) -> Image.Image:
    """A ticket, a membership or a business card."""
    light = style.random() < 0.6
    paper = _colour(style, 200, 255) if light else _colour(style, 10, 110)
    sheet = _Sheet(_SHORT * style.uniform(1.5, 1.9), _SHORT, paper, style.getrandbits(20))
    names, words, ink = _Words(style, style), _Words(style, rng), _ink(style, light)
    w, h = sheet.image.size
    accent = _colour(style)
    sheet.draw.rectangle((0, 0, style.uniform(0.05, 0.3) * w, h), fill=accent)
    x = 0.34 * w
    sheet.text(x, 0.1 * h, names.title(2), 34, accent)
    sheet.text(x, 0.3 * h, words.title(2), 44, ink)
    for k in range(style.randint(2, 4)):
        sheet.text(
            x,
            h * (0.5 + 0.1 * k),
            f"{names.word()} {rng.choice((words.date(), words.digits(7), words.word()))}",
            24,
            ink,
        )
    if style.random() < 0.5:
        sheet.image.paste(_scene(rng, round(0.2 * w), round(0.4 * h)), (round(0.04 * w), round(0.1 * h)))
    else:
        _matrix(sheet.draw, rng, 0.76 * w, 0.55 * h, 0.35 * h, ink, paper)
    return sheet.image


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a picture store.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--each", type=int, default=600, help="pictures of every kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kept", action="store_true", help="the kinds that are kept for validation")
    a = parser.parse_args()
    with Writer(a.out) as writer:
        for kind in KEPT if a.kept else KINDS:
            for number in range(a.each):
                writer.add(
                    f"drawn-{kind}-{a.seed}-{number:06d}", f"drawn/{kind}", np.asarray(drawn(kind, number, a.seed))
                )


if __name__ == "__main__":
    main()
