"""Edits that turn a picture into a copy: geometry, overlays, quality. PIL and numpy, a millisecond or two each.

Every edit is `f(image, rng, strength, other) -> image`, with strength in 0…1 and `other()` giving another picture.
`edited` draws one strong edit and one to three more, as social media and the Image Similarity Challenge do;
`edited_and_placed` also says where in the result the picture is.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter

from .fonts import random_font

Other = Callable[[], Image.Image]
# (left, top, right, bottom) in 0…1 of an image.
Box = tuple[float, float, float, float]
Edit = Callable[[Image.Image, random.Random, float, Other], Image.Image]

STRONG: dict[str, Edit] = {}
MILD: dict[str, Edit] = {}


def _register(table: dict[str, Edit]) -> Callable[[Edit], Edit]:
    def add(function: Edit) -> Edit:
        table[function.__name__.removesuffix("_")] = function
        return function

    return add


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _between(rng: random.Random, gentle: float, hard: float, strength: float) -> float:
    """Uniform between `gentle` and the point that `strength` of the way to `hard` reaches."""
    return rng.uniform(gentle, gentle + (hard - gentle) * strength)


# Where an edit leaves the picture: a (3, 3) homography from the unit square of the image before it to the unit square
# after it, in the result's `info` under this key. An edit that leaves every point in its place sets none.
_MOVED = "moved"


def _moved(image: Image.Image, homography: np.ndarray) -> Image.Image:
    image.info[_MOVED] = homography
    return image


def _into(x: float, y: float, w: float, h: float, size: tuple[int, int]) -> np.ndarray:
    """The homography of a picture that now fills the box from (x, y), w × h pixels, of an image of `size`."""
    return np.array([[w / size[0], 0, x / size[0]], [0, h / size[1], y / size[1]], [0, 0, 1.0]])


def _pixels(size: tuple[int, int]) -> np.ndarray:
    """From the unit square to pixels of an image of `size`."""
    return np.diag([size[0], size[1], 1.0])


def _cut(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    x0, y0, x1, y1 = box
    return _moved(image.crop(box), _into(-x0, -y0, image.width, image.height, (x1 - x0, y1 - y0)))


def random_crop(image: Image.Image, rng: random.Random, smallest: float) -> Image.Image:
    area, ratio = rng.uniform(smallest, 1.0), math.exp(rng.uniform(-0.4, 0.4))
    w = min(1.0, math.sqrt(area * ratio)) * image.width
    h = min(1.0, math.sqrt(area / ratio)) * image.height
    x, y = rng.uniform(0, image.width - w), rng.uniform(0, image.height - h)
    return _cut(image, (int(x), int(y), max(int(x) + 8, int(x + w)), max(int(y) + 8, int(y + h))))


@_register(STRONG)
def crop(image, rng, strength, other):
    return random_crop(image, rng, _between(rng, 0.8, 0.2, strength))


def _laid_on(
    top: Image.Image, base: Image.Image, rng: random.Random, share: float, opacity: float = 1.0, overhang: float = 0.0
) -> Image.Image:
    """`top` at `share` of the base's height, anywhere on it; up to `overhang` of its width and height lie beyond
    the edge. Moved is `top`."""
    scale = min(share * base.height / top.height, (1 + overhang) * base.width / top.width)
    w, h = max(8, round(top.width * scale)), max(8, round(top.height * scale))
    top = top.resize((w, h), Image.BILINEAR, reducing_gap=2.0)
    out_x, out_y = (int(overhang * rng.random() * side) for side in (w, h))
    x = rng.randint(min(-out_x, base.width - w), max(0, base.width - w + out_x))
    y = rng.randint(min(-out_y, base.height - h), max(0, base.height - h + out_y))
    base = base.copy()
    if opacity < 1:
        region = base.crop((x, y, x + w, y + h))
        top = Image.blend(region, top, opacity)
    base.paste(top, (x, y))
    return _moved(base, _into(x, y, w, h, base.size))


@_register(STRONG)
def paste(image, rng, strength, other):
    """The picture lies on a foreign one, part of it perhaps beyond the edge."""
    overhang = _between(rng, 0.0, 0.45, strength) if rng.random() < 0.5 else 0.0
    return _laid_on(image, other(), rng, _between(rng, 0.85, 0.35, strength), overhang=overhang)


@_register(STRONG)
def underlay(image, rng, strength, other):
    """A smaller foreign picture lies on the image."""
    return _moved(
        _laid_on(other(), image, rng, _between(rng, 0.2, 0.6, strength), rng.uniform(0.7, 1.0), overhang=0.2), np.eye(3)
    )


@_register(STRONG)
def collage(image, rng, strength, other):
    count = 2 if rng.random() < 0.75 else 4
    w, h = image.size
    tiles = [image] + [other().resize((w, h), Image.BILINEAR) for _ in range(count - 1)]
    rng.shuffle(tiles)
    columns = 2 if count == 4 or rng.random() < 0.5 else 1
    rows = count // columns
    out = Image.new("RGB", (w * columns, h * rows))
    place = np.eye(3)
    for i, tile in enumerate(tiles):
        at = w * (i % columns), h * (i // columns)
        out.paste(tile, at)
        if tile is image:
            place = _into(*at, w, h, out.size)
    return _moved(out, place)


@_register(STRONG)
def text(image, rng, strength, other):
    image = image.copy()
    layer = ImageDraw.Draw(image, "RGBA")
    for _ in range(rng.randint(1, 1 + round(3 * strength))):
        size = int(image.height * rng.uniform(0.06, 0.1 + 0.12 * strength))
        line = "".join(
            chr(rng.choice((rng.randint(33, 126), rng.randint(192, 591), rng.randint(913, 1103))))
            for _ in range(rng.randint(3, 14))
        )
        at = rng.uniform(-0.05, 0.6) * image.width, rng.uniform(0, 0.9) * image.height
        layer.text(at, line, font=random_font(rng, size), fill=(*_colour(rng), rng.randint(150, 255)))
    return image


def _star(cx: float, cy: float, r: float, points: int, turn: float) -> list[tuple[float, float]]:
    return [
        (
            cx + (r if i % 2 == 0 else r * 0.45) * math.cos(turn + i * math.pi / points),
            cy + (r if i % 2 == 0 else r * 0.45) * math.sin(turn + i * math.pi / points),
        )
        for i in range(2 * points)
    ]


def _stamp(draw: ImageDraw.ImageDraw, rng: random.Random, x: float, y: float, size: float, alpha: int) -> None:
    """An emoji-like sign: a face, a heart, a star or a glyph."""
    kind = rng.choice(("face", "face", "heart", "star", "glyph"))
    fill = (*_colour(rng), alpha) if rng.random() < 0.5 else (255, rng.randint(190, 225), rng.randint(20, 90), alpha)
    dark = (rng.randint(0, 90), rng.randint(0, 60), rng.randint(0, 60), alpha)
    cx, cy, r = x + size / 2, y + size / 2, size / 2
    if kind == "face":
        draw.ellipse((x, y, x + size, y + size), fill)
        for side in (-1, 1):
            e = r * rng.uniform(0.1, 0.25)
            draw.ellipse((cx + side * r * 0.4 - e, cy - r * 0.3 - e, cx + side * r * 0.4 + e, cy - r * 0.3 + e), dark)
        box = (cx - r * 0.55, cy - r * 0.3, cx + r * 0.55, cy + r * 0.65)
        if rng.random() < 0.5:
            draw.arc(box, 20, 160, dark, max(1, int(r * 0.15)))
        else:
            draw.chord(box, 0, 180, dark)
    elif kind == "heart":
        red = (rng.randint(180, 255), rng.randint(0, 80), rng.randint(0, 120), alpha)
        for side in (-1, 1):
            draw.ellipse((cx + side * r * 0.45 - r * 0.5, y, cx + side * r * 0.45 + r * 0.5, y + r), red)
        draw.polygon([(cx - r * 0.9, cy - r * 0.3), (cx + r * 0.9, cy - r * 0.3), (cx, cy + r)], red)
    elif kind == "star":
        draw.polygon(_star(cx, cy, r, rng.randint(4, 8), rng.uniform(0, math.pi)), fill)
    else:
        glyph = chr(rng.choice((rng.randint(0x2600, 0x26AF), rng.randint(0x2700, 0x27BF), rng.randint(0x25A0, 0x25FF))))
        draw.text((x, y), glyph, font=random_font(rng, int(size)), fill=fill)


@_register(STRONG)
def emoji(image, rng, strength, other):
    image = image.copy()
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(rng.randint(1, 1 + round(3 * strength))):
        size = _between(rng, 0.12, 0.42, strength) * image.height
        _stamp(
            draw,
            rng,
            rng.uniform(0, 0.8) * image.width,
            rng.uniform(0, 0.8) * image.height,
            size,
            rng.randint(170, 255),
        )
    return image


def _upright_inside(w: float, h: float, angle: float) -> tuple[float, float]:
    """Width and height of the largest upright rectangle inside a `w` × `h` one turned by `angle` radians."""
    s, c = abs(math.sin(angle)), abs(math.cos(angle))
    long, short = max(w, h), min(w, h)
    if short <= 2 * s * c * long or abs(s - c) < 1e-9:
        half = short / 2
        return (half / s, half / c) if w >= h else (half / c, half / s)
    d = c * c - s * s
    return (w * c - h * s) / d, (h * c - w * s) / d


# Turns are counter-clockwise; y grows downwards.
_TURNS = {
    Image.ROTATE_90: [[0, 1, 0], [-1, 0, 1], [0, 0, 1]],
    Image.ROTATE_180: [[-1, 0, 1], [0, -1, 1], [0, 0, 1]],
    Image.ROTATE_270: [[0, -1, 1], [1, 0, 0], [0, 0, 1]],
}


def _turned(before: tuple[int, int], after: tuple[int, int], degrees: float) -> np.ndarray:
    """The homography of a turn about the centre."""
    s, c = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    about = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1.0]])
    about[:2, 2] = np.array(after) / 2 - about[:2, :2] @ (np.array(before) / 2)
    return np.linalg.inv(_pixels(after)) @ about @ _pixels(before)


@_register(STRONG)
def rotate(image, rng, strength, other):
    if rng.random() < 0.4:
        turn = rng.choice((Image.ROTATE_90, Image.ROTATE_180, Image.ROTATE_270))
        return _moved(image.transpose(turn), np.array(_TURNS[turn], float))
    angle = rng.uniform(-1, 1) * (10 + 40 * strength)
    if rng.random() < 0.2:
        angle = rng.uniform(-180, 180)
    mode = rng.random()
    turned = image.rotate(
        angle, Image.BILINEAR, expand=mode < 0.4 or mode > 0.55, fillcolor=(0, 0, 0) if mode < 0.35 else _colour(rng)
    )
    place = _turned(image.size, turned.size, angle)
    if mode > 0.55:  # cut the corners away, as phones do
        w, h = _upright_inside(image.width, image.height, math.radians(angle))
        turned = _cut(
            turned,
            (
                int((turned.width - w) / 2),
                int((turned.height - h) / 2),
                int((turned.width + w) / 2),
                int((turned.height + h) / 2),
            ),
        )
        place = turned.info[_MOVED] @ place
    return _moved(turned, place)


@_register(STRONG)
def vflip(image, rng, strength, other):
    return _moved(image.transpose(Image.FLIP_TOP_BOTTOM), np.array([[1, 0, 0], [0, -1, 1], [0, 0, 1.0]]))


@_register(STRONG)
def hflip(image, rng, strength, other):
    return _moved(image.transpose(Image.FLIP_LEFT_RIGHT), np.array([[-1, 0, 1], [0, 1, 0], [0, 0, 1.0]]))


def _perspective_coefficients(source: list[tuple[float, float]], target: list[tuple[float, float]]) -> np.ndarray:
    rows = []
    for (x, y), (u, v) in zip(target, source):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    return np.linalg.solve(np.array(rows, float), np.array(source, float).reshape(8))


@_register(STRONG)
def perspective(image, rng, strength, other):
    w, h = image.size
    reach = _between(rng, 0.05, 0.3, strength)
    corners = [(0, 0), (w, 0), (w, h), (0, h)]
    moved = [(x + rng.uniform(-1, 1) * reach * w, y + rng.uniform(-1, 1) * reach * h) for x, y in corners]
    try:
        coefficients = _perspective_coefficients(corners, moved)
    except np.linalg.LinAlgError:
        return image
    fill = (0, 0, 0) if rng.random() < 0.6 else _colour(rng)
    # The coefficients lead from the result to the image.
    place = np.linalg.inv(np.append(coefficients, 1.0).reshape(3, 3) @ _pixels((w, h)))
    return _moved(
        image.transform((w, h), Image.PERSPECTIVE, tuple(coefficients), Image.BILINEAR, fillcolor=fill),
        place @ _pixels((w, h)),
    )


WORDS = (
    "when you see it wait for this no way best day ever follow me sale off true story repost LOL breaking good "
    "morning share original 2021 never again".split()
)


def _phrase(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(2, 6)))


@_register(STRONG)
def meme(image, rng, strength, other):
    """A caption band above (or below) the picture."""
    w, h = image.size
    band = max(10, int(h * _between(rng, 0.12, 0.4, strength)))
    light = rng.random() < 0.8
    out = Image.new("RGB", (w, h + band), (255, 255, 255) if light else _colour(rng))
    below = rng.random() < 0.2
    out.paste(image, (0, 0 if below else band))
    draw = ImageDraw.Draw(out)
    draw.text(
        (w * rng.uniform(0.02, 0.15), (h if below else 0) + band * 0.2),
        _phrase(rng),
        font=random_font(rng, int(band * rng.uniform(0.3, 0.6))),
        fill=(0, 0, 0) if light else (255, 255, 255),
    )
    return _moved(out, _into(0, 0 if below else band, w, h, out.size))


class _Page:
    """An application's page while it is drawn: its colours, its size, and small versions of two foreign
    pictures for round pictures."""

    def __init__(self, rng: random.Random, w: int, h: int, other: Other):
        light = rng.random() < 0.75
        grey = rng.randint(228, 255) if light else rng.randint(8, 40)
        self.paper = (grey,) * 3
        self.card = (255, 255, 255) if light else (min(255, grey + rng.randint(8, 30)),) * 3
        self.ink = (rng.randint(10, 70),) * 3 if light else (rng.randint(190, 240),) * 3
        self.faint = tuple(round(0.55 * p + 0.45 * i) for p, i in zip(self.card, self.ink))
        self.accent = _colour(rng)
        self.rng, self.other = rng, other
        self.image = Image.new("RGB", (w, h), self.paper)
        self.draw = ImageDraw.Draw(self.image)
        # Text size: what a line takes.
        self.line = max(4.0, h * rng.uniform(0.018, 0.045))
        self.faces = []
        for _ in range(2):
            face = other()
            side = min(face.size)
            self.faces.append(face.resize((48, 48), Image.BILINEAR, (0, 0, side, side), reducing_gap=2.0))

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: tuple, radius: float = 0.0) -> None:
        if x1 - x0 >= 2 and y1 - y0 >= 2:
            self.draw.rounded_rectangle(
                (x0, y0, x1, y1), min(radius, (x1 - x0) / 2 - 0.5, (y1 - y0) / 2 - 0.5), fill=fill
            )

    def face(self, x: float, y: float, d: float) -> None:
        """A round picture of `d` pixels, or a round sign."""
        d = max(4, round(d))
        if self.rng.random() < 0.7:
            face = self.rng.choice(self.faces).resize((d, d), Image.BILINEAR)
            mask = Image.new("L", (d, d))
            ImageDraw.Draw(mask).ellipse((0, 0, d - 1, d - 1), 255)
            self.image.paste(face, (round(x), round(y)), mask)
        else:
            self.draw.ellipse((x, y, x + d, y + d), fill=self.accent if self.rng.random() < 0.5 else self.faint)

    def text(self, x: float, y: float, room: float) -> None:
        size = max(4, int(self.line * self.rng.choice((0.6, 0.75, 0.75, 1.0))))
        self.draw.text(
            (x, y),
            _phrase(self.rng)[: max(1, int(2 * room / size))],
            font=random_font(self.rng, size),
            fill=self.rng.choice((self.ink, self.ink, self.faint)),
        )

    def rows(self, x0: float, y: float, x1: float, y1: float) -> None:
        """Rows of what a page has, from `y` down: text, entries with a sign, round pictures,
        bars, a foreign picture."""
        rng, line = self.rng, self.line
        while y < y1 - line and x1 - x0 > 3 * line:
            kind = rng.random()
            high = line
            if kind < 0.35:
                self.text(x0, y, x1 - x0)
            elif kind < 0.6:
                self.face(x0, y, 1.4 * line)
                self.text(x0 + 2 * line, y + 0.2 * line, x1 - x0 - 2 * line)
                high = 1.5 * line
            elif kind < 0.75:
                d, x = line * rng.uniform(1.2, 2.6), x0
                while x + d < x1 and y + d < y1:
                    self.face(x, y, d)
                    x += d * 1.25
                high = d
            elif kind < 0.9:
                self.box(
                    x0,
                    y + 0.2 * line,
                    x0 + rng.uniform(0.2, 1.0) * (x1 - x0),
                    y + 0.8 * line,
                    rng.choice((self.faint, self.card, self.paper, self.accent)),
                    line / 3,
                )
            else:
                aside = self.other()
                high = min(rng.uniform(3, 7) * line, y1 - y)
                wide = min(x1 - x0, high * rng.uniform(1.0, 1.8))
                if high > 6 and wide > 6:
                    self.image.paste(
                        aside.resize((round(wide), round(high)), Image.BILINEAR, reducing_gap=2.0),
                        (round(x0), round(y)),
                    )
            y += high + line * rng.uniform(0.3, 2.2)


@_register(STRONG)
def screenshot(image, rng, strength, other):
    """The picture fitted into the window of an application's page: cards, columns, text, round
    pictures, other pictures."""
    desktop = rng.random() < 0.5
    fw, fh = (
        (_MAX_SIDE, round(_MAX_SIDE / rng.uniform(1.2, 1.9)))
        if desktop
        else (round(_MAX_SIDE * rng.uniform(0.45, 0.7)), _MAX_SIDE)
    )
    # The window: at full strength down to a tenth of a desktop's page, a quarter of a phone's.
    share_w = _between(rng, 0.65, 0.32, strength) if desktop else rng.uniform(0.8, 1.0)
    share_h = _between(rng, 0.7, 0.34, strength) if desktop else _between(rng, 0.65, 0.3, strength)
    w, h = max(12, round(fw * share_w)), max(12, round(fh * share_h))
    page = _Page(rng, fw, fh, other)
    line = page.line
    x = rng.randint(0, fw - w) if desktop else (fw - w) // 2
    y = rng.randint(0, fh - h)
    page.box(0, 0, fw, 2 * line, page.card if rng.random() < 0.7 else page.accent)
    page.rows(line, 0.3 * line, fw * rng.uniform(0.3, 0.9), 2 * line)
    # The column of the window: its own card, and those above and below it.
    page.box(x - line, max(2.5 * line, y - 4 * line), x + w + line, y + h + 3 * line, page.card, line)
    page.rows(x, 2.5 * line, x + w, y - 0.3 * line)
    page.rows(x, y + h + 0.4 * line, x + w, fh)
    for x0, x1 in ((0.5 * line, x - 1.5 * line), (x + w + 1.5 * line, fw - 0.5 * line)):
        if x1 - x0 > 3 * line:
            top = rng.uniform(2.5, 5) * line
            page.box(
                x0,
                top,
                x1,
                top + rng.uniform(0.3, 1.0) * (fh - top),
                page.card if rng.random() < 0.7 else page.paper,
                line,
            )
            page.rows(x0 + 0.5 * line, top + 0.5 * line, x1 - 0.5 * line, fh)
    fit = min(w / image.width, h / image.height)
    small = image.resize(
        (max(8, round(image.width * fit)), max(8, round(image.height * fit))), Image.BILINEAR, reducing_gap=2.0
    )
    page.image.paste(rng.choice(((0, 0, 0), (0, 0, 0), page.card, page.paper)), (x, y, x + w, y + h))
    at = x + (w - small.width) // 2, y + (h - small.height) // 2
    page.image.paste(small, at)
    if rng.random() < 0.3:  # a bar along the bottom, in front of the page
        page.box(0, fh - 1.6 * line, fw, fh, page.card)
        page.rows(line, fh - 1.5 * line, fw, fh)
    return _moved(page.image, _into(*at, *small.size, page.image.size))


@_register(STRONG)
def stripes(image, rng, strength, other):
    w, h = image.size
    pitch = max(4.0, min(w, h) * rng.uniform(0.05, 0.4))
    turn = rng.uniform(0, math.pi)
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    mask = ((x * math.cos(turn) + y * math.sin(turn)) % pitch) < pitch * _between(rng, 0.15, 0.55, strength)
    a = Image.fromarray((mask * int(255 * rng.uniform(0.4, 0.9))).astype(np.uint8))
    return Image.composite(Image.new("RGB", (w, h), _colour(rng)), image, a)


@_register(STRONG)
def pixelize(image, rng, strength, other):
    ratio = _between(rng, 0.35, 0.08, strength)
    small = image.resize((max(4, int(image.width * ratio)), max(4, int(image.height * ratio))), Image.BOX)
    return small.resize(image.size, Image.NEAREST)


@_register(STRONG)
def shuffle(image, rng, strength, other):
    """A share of the pixels changes places at random."""
    a = np.array(image).reshape(-1, 3)
    g = np.random.default_rng(rng.getrandbits(63))
    moved = g.choice(len(a), int(len(a) * _between(rng, 0.03, 0.28, strength)), replace=False)
    a[moved] = a[g.permutation(moved)]
    return Image.fromarray(a.reshape(image.height, image.width, 3))


@_register(STRONG)
def pad(image, rng, strength, other):
    w, h = image.size
    dx, dy = int(w * _between(rng, 0.03, 0.45, strength)), int(h * _between(rng, 0.03, 0.45, strength))
    if rng.random() < 0.3:
        dx, dy = (dx, 0) if rng.random() < 0.5 else (0, dy)
    fill = rng.choice(((0, 0, 0), (255, 255, 255), _colour(rng), _colour(rng)))
    out = Image.new("RGB", (w + 2 * dx, h + 2 * dy), fill)
    out.paste(image, (dx, dy))
    return _moved(out, _into(dx, dy, w, h, out.size))


@_register(STRONG)
def blend(image, rng, strength, other):
    return Image.blend(image, other().resize(image.size, Image.BILINEAR), _between(rng, 0.15, 0.48, strength))


@_register(STRONG)
def erase(image, rng, strength, other):
    """Plain boxes hide parts of the picture."""
    image = image.copy()
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 3)):
        w, h = (_between(rng, 0.1, 0.5, strength) * side for side in image.size)
        x, y = rng.uniform(0, image.width - w), rng.uniform(0, image.height - h)
        draw.rectangle((x, y, x + w, y + h), fill=_colour(rng))
    return image


@_register(MILD)
def jitter(image, rng, strength, other):
    reach = 0.2 + 0.5 * strength
    for enhancer in rng.sample((ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), 3):
        low = 0.0 if enhancer is ImageEnhance.Color and strength > 0.5 else 1 - reach
        image = enhancer(image).enhance(rng.uniform(low, 1 + reach))
    return image


@_register(MILD)
def hue(image, rng, strength, other):
    h, s, v = image.convert("HSV").split()
    shift = int(rng.uniform(-1, 1) * (10 + 60 * strength)) % 256
    return Image.merge("HSV", (h.point(lambda p: (p + shift) % 256), s, v)).convert("RGB")


@_register(MILD)
def gray(image, rng, strength, other):
    return image.convert("L").convert("RGB")


@_register(MILD)
def blur(image, rng, strength, other):
    return image.filter(ImageFilter.GaussianBlur(_between(rng, 0.4, 2.2, strength) * min(image.size) / 184))


@_register(MILD)
def sharpen(image, rng, strength, other):
    return ImageEnhance.Sharpness(image).enhance(_between(rng, 1.5, 12, strength))


@_register(MILD)
def jpeg(image, rng, strength, other):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(_between(rng, 60, 7, strength)))
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


@_register(MILD)
def aspect(image, rng, strength, other):
    ratio = math.exp(rng.uniform(-0.75, 0.75) * (0.4 + 0.6 * strength))
    w, h = image.size
    return image.resize((max(16, int(w * math.sqrt(ratio))), max(16, int(h / math.sqrt(ratio)))), Image.BILINEAR)


@_register(MILD)
def opacity(image, rng, strength, other):
    """Fade towards one colour."""
    fill = rng.choice(((0, 0, 0), (255, 255, 255), _colour(rng)))
    return Image.blend(image, Image.new("RGB", image.size, fill), _between(rng, 0.1, 0.6, strength))


@_register(MILD)
def noise(image, rng, strength, other):
    a = np.asarray(image, np.float32)
    g = np.random.default_rng(rng.getrandbits(63))
    a = a + g.standard_normal(a.shape, np.float32) * (255 * math.sqrt(_between(rng, 0.002, 0.04, strength)))
    return Image.fromarray(a.clip(0, 255).astype(np.uint8))


_FILTERS = (
    ImageFilter.EDGE_ENHANCE_MORE,
    ImageFilter.CONTOUR,
    ImageFilter.SMOOTH_MORE,
    ImageFilter.UnsharpMask(),
    ImageFilter.EMBOSS,
)


@_register(MILD)
def filter_(image, rng, strength, other):
    kernel = rng.choice(_FILTERS[:4] if rng.random() < 0.9 else _FILTERS)
    return image.filter(kernel)


@_register(MILD)
def scale(image, rng, strength, other):
    ratio = _between(rng, 0.8, 0.25, strength)
    small = image.resize((max(16, int(image.width * ratio)), max(16, int(image.height * ratio))), Image.BILINEAR)
    return small if rng.random() < 0.5 else small.resize(image.size, Image.BILINEAR)


@_register(MILD)
def tones(image, rng, strength, other):
    """Gamma, posterisation, or (rarely) channel order and negative."""
    kind = rng.random()
    if kind < 0.5:
        gamma = math.exp(rng.uniform(-0.8, 0.8) * (0.3 + 0.7 * strength))
        return image.point([int(255 * (i / 255) ** gamma) for i in range(256)] * 3)
    if kind < 0.75:
        keep = 256 // rng.choice((4, 6, 8, 12))
        return image.point([min(255, (i // keep) * keep) for i in range(256)] * 3)
    if kind < 0.95 or strength < 0.5:
        return Image.merge("RGB", rng.sample(image.split(), 3))
    return ImageChops.invert(image)


ALL = {**STRONG, **MILD}
# How often each strong edit is drawn, 1 where none is named: what copies are hardest to find under is trained on most.
_SHARES = {
    "paste": 2.5,
    "collage": 1.8,
    "screenshot": 2.5,
    "crop": 1.6,
    "rotate": 1.8,
    "stripes": 1.2,
    "perspective": 1.2,
    "vflip": 0.8,
    "hflip": 0.8,
}
_STRONG_SHARES = [_SHARES.get(name, 1.0) for name in STRONG]
# Longest side kept between edits: collages of collages would only cost time.
_MAX_SIDE = 320


def plan(rng: random.Random, strength: float) -> list[str]:
    """One strong edit and one to three more; at low strength fewer of the further ones are strong."""
    names = rng.choices(list(STRONG), _STRONG_SHARES)
    for _ in range(rng.randint(1, 1 + round(2 * strength))):
        names.append(rng.choice(list(STRONG if rng.random() < 0.35 * strength else MILD)))
    return names


def edited(
    image: Image.Image, rng: random.Random, strength: float, other: Other, names: list[str] | None = None
) -> tuple[Image.Image, list[str]]:
    """Apply `names` (or a drawn plan) in order; an edit that leaves less than 24 pixels a side is passed over."""
    image, done, _ = edited_and_placed(image, rng, strength, other, names)
    return image, done


def edited_and_placed(
    image: Image.Image, rng: random.Random, strength: float, other: Other, names: list[str] | None = None
) -> tuple[Image.Image, list[str], np.ndarray]:
    """As `edited`, with the (3, 3) homography from the picture's unit square to the result's."""
    done, place = [], np.eye(3)
    for name in plan(rng, strength) if names is None else names:
        out = ALL[name](image, rng, strength, other)
        moved = out.info.pop(_MOVED, None)
        if min(out.size) < 24:
            continue
        if max(out.size) > _MAX_SIDE:
            out.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.BILINEAR, reducing_gap=2.0)
        image = out
        done.append(name)
        if moved is not None:
            place = moved @ place
    return image, done, place


WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
# So often an edited picture is drawn anew where next to nothing is seen of it.
_TRIES = 4


def edited_and_seen(image: Image.Image, rng: random.Random, strength: float, other: Other) -> tuple[Image.Image, Box]:
    """As `edited`, with the box of what is seen of the picture: chains that leave nothing of it are drawn anew."""
    for _ in range(_TRIES):
        result, _, place = edited_and_placed(image, rng, strength, other)
        box = visible_box(place)
        if box is not None:
            return result, box
    return image, WHOLE


def visible_box(place: np.ndarray, smallest: float = 0.1) -> Box | None:
    """The box of what is seen of a picture placed so; None where less than `smallest` of a side is left of it."""
    corners = place @ np.array([[0, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1.0]])
    if corners[2].min() <= 0:
        return None
    polygon = list((corners[:2] / corners[2]).T)
    for axis in (0, 1):
        for border, inwards in ((0.0, 1.0), (1.0, -1.0)):
            polygon = _clipped(polygon, axis, border, inwards)
    if not polygon:
        return None
    (left, top), (right, bottom) = np.min(polygon, 0), np.max(polygon, 0)
    return (
        (float(left), float(top), float(right), float(bottom)) if min(right - left, bottom - top) >= smallest else None
    )


def _clipped(polygon: list[np.ndarray], axis: int, border: float, inwards: float) -> list[np.ndarray]:
    """The part of a polygon on the inner side of an upright or level line (Sutherland and Hodgman, 1974)."""
    out = []
    for a, b in zip(polygon[-1:] + polygon[:-1], polygon):
        from_a, from_b = (a[axis] - border) * inwards, (b[axis] - border) * inwards
        if from_a * from_b < 0:
            out.append(a + (b - a) * (from_a / (from_a - from_b)))
        if from_b >= 0:
            out.append(b)
    return out


def weak(image: Image.Image, rng: random.Random) -> Image.Image:
    """What happens to a reference on its way into a database: slight crop, re-compression, slight colour change."""
    if rng.random() < 0.5:
        image = random_crop(image, rng, 0.85)
    if rng.random() < 0.3:
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.85, 1.15))
    if rng.random() < 0.3:
        image = jpeg(image, rng, 0.2, lambda: image)
    return image


def tint(image: Image.Image, rng: random.Random) -> Image.Image:
    """A grey picture in two random colours, dark and light, so that greyness does not become a cue."""
    dark, light = [rng.randint(0, 90) for _ in range(3)], [rng.randint(150, 255) for _ in range(3)]
    ramp = [int(d + (l - d) * i / 255) for d, l in zip(dark, light) for i in range(256)]
    return image.point(ramp)
