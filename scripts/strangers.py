"""Pictures of one kind: of each kind any number, drawn from a seed, no two the same; and edited copies of them.

Receipts of one shop, chats in one app, charts of one program look alike to a network, and are copies of
nothing. Photographs come from scripts/photographs.sh. Two frames of a burst are two pictures here: whoever
wants them found registers both.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

ROOT = Path(__file__).resolve().parent.parent
FONTS = Path("/usr/share/fonts/truetype/dejavu")
WORDS = (
    "amber basin cedar delta ember fjord grove haven inlet jolly kettle lemon maple noble ocean pearl quartz ridge "
    "stone tulip umber "
    "velvet willow xenon yonder zephyr anchor bridge candle dragon engine forest garden hammer island jacket kitten "
    "ladder magnet "
    "needle orange parcel quiver rocket saddle ticket uncle violin walnut yellow zipper"
).split()
COLOURS = ["#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c"]


def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    for name in ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf", "DejaVuSansMono.ttf"):
        if (FONTS / name).exists():
            return ImageFont.truetype(str(FONTS / name), size)
    return ImageFont.load_default(size)


def words(r: random.Random, count: int) -> str:
    return " ".join(r.choice(WORDS) for _ in range(count))


def photograph(name: str) -> Image.Image:
    return Image.open(ROOT / ".local" / "photographs" / name).convert("RGB")


def sheet(width: int, height: int, colour="white"):
    image = Image.new("RGB", (width, height), colour)
    return image, ImageDraw.Draw(image)


def receipts(r):
    image, d = sheet(460, 860, "#fbfaf5")
    d.text((120, 24), "CORNER MARKET", font=font(24, True), fill="#222")
    d.text(
        (130, 60),
        f"No {r.randint(1000, 99999)}  {r.randint(1, 28)}.{r.randint(1, 12)}.20{r.randint(10, 29)}",
        font=font(14),
        fill="#333",
    )
    for n in range(r.randint(16, 22)):
        y = 100 + 30 * n
        d.text((24, y), words(r, 2), font=font(17), fill="#333")
        d.text((372, y), f"{r.uniform(0.5, 99):.2f}", font=font(17), fill="#333")
    d.text((24, 800), f"TOTAL {r.uniform(20, 900):.2f}", font=font(26, True), fill="#111")
    return image


def chats(r):
    image, d = sheet(520, 940, "#e8ded4")
    d.rectangle((0, 0, 520, 74), fill="#0b5e55")
    d.text((86, 24), r.choice(WORDS).title(), font=font(22), fill="white")
    y = 92
    while y < 860:
        width, lines, mine = r.randint(150, 400), r.randint(1, 3), r.random() < 0.5
        x, height = (504 - width if mine else 16), 22 + 24 * lines
        d.rounded_rectangle((x, y, x + width, y + height), 10, fill="#d9f7c5" if mine else "white")
        for line in range(lines):
            d.text((x + 12, y + 8 + 24 * line), words(r, 6)[: width // 10], font=font(17), fill="black")
        y += height + 12
    return image


def axes(width=760, height=480):
    image, d = sheet(width, height)
    d.line((56, 24, 56, height - 50, width - 24, height - 50), fill="black", width=2)
    for n in range(6):
        y = height - 50 - n * (height - 90) // 5
        d.line((56, y, width - 24, y), fill="#e3e3e3")
        d.text((14, y - 8), str(20 * n), font=font(13), fill="#444")
    return image, d


def bars(r):
    image, d = axes()
    for n in range(12):
        top = r.randint(30, 420)
        d.rectangle((76 + 55 * n, top, 112 + 55 * n, 430), fill=COLOURS[0])
        d.text((78 + 55 * n, 438), r.choice(WORDS)[:4], font=font(13), fill="#444")
    return image


def lines(r):
    image, d = axes()
    for colour in COLOURS[:3]:
        y, points = r.uniform(100, 380), []
        for n in range(40):
            y = min(425, max(30, y + r.gauss(0, 26)))
            points.append((62 + 17 * n, y))
        d.line(points, fill=colour, width=3)
    return image


def pies(r):
    image, d = sheet(600, 460)
    angle, shares = r.uniform(0, 360), [r.uniform(0.2, 1) for _ in range(r.randint(4, 7))]
    for n, share in enumerate(shares):
        sweep = 360 * share / sum(shares)
        d.pieslice((40, 50, 400, 410), angle, angle + sweep, fill=COLOURS[n], outline="white", width=3)
        angle += sweep
        d.rectangle((430, 70 + 36 * n, 450, 90 + 36 * n), fill=COLOURS[n])
        d.text((460, 70 + 36 * n), f"{r.choice(WORDS)} {100 * share / sum(shares):.0f} %", font=font(15), fill="#222")
    return image


def forms(r):
    image, d = sheet(620, 860)
    d.text((40, 30), "APPLICATION FORM 7-B", font=font(26, True), fill="black")
    for n, label in enumerate("Name Street Town Country Telephone Employer Position Salary Remarks Reference".split()):
        y = 96 + 70 * n
        d.text((40, y), label, font=font(15), fill="#555")
        d.rectangle((40, y + 22, 580, y + 54), outline="#777", width=2)
        d.text((50, y + 27), words(r, r.randint(1, 4)), font=font(19), fill="#1a2d7c")
    for n in range(8):
        d.rectangle((40 + 68 * n, 806, 58 + 68 * n, 824), outline="black", width=2)
        if r.random() < 0.5:
            d.line((42 + 68 * n, 808, 56 + 68 * n, 822), fill="#1a2d7c", width=3)
    return image


def pages(r):
    image, d = sheet(620, 860, "#fdfdfb")
    d.text((60, 50), words(r, 3).title(), font=font(24, True), fill="#111")
    for n in range(32):
        d.text((60, 100 + 22 * n), words(r, 12)[:62], font=font(14), fill="#222")
    return image


def spreadsheets(r):
    image, d = sheet(800, 520)
    for n in range(24):
        d.rectangle((0, 22 * n, 800, 22 * n + 22), fill="#f3f3f3" if n == 0 else "white", outline="#d0d0d0")
    for column in range(8):
        d.line((100 * column, 0, 100 * column, 520), fill="#d0d0d0")
        d.text((100 * column + 44, 3), "ABCDEFGH"[column], font=font(13), fill="#555")
        for row in range(1, 23):
            value = r.choice(WORDS) if column < 2 else f"{r.uniform(-999, 9999):.1f}"
            d.text((100 * column + 6, 22 * row + 3), value, font=font(13), fill="#111")
    return image


def maps(r):
    image, d = sheet(640, 520, "#f2efe6")
    for _ in range(5):
        x, y, size = r.uniform(0, 640), r.uniform(0, 520), r.uniform(50, 130)
        blob = [
            (x + size * r.uniform(0.6, 1.2) * math.cos(t), y + size * r.uniform(0.6, 1.2) * math.sin(t))
            for t in np.arange(0, 6.3, 0.5)
        ]
        d.polygon(blob, fill=r.choice(["#cfe5b9", "#b7d8ee", "#e8e0cd"]))
    for _ in range(16):
        x, y, angle = r.uniform(0, 640), r.uniform(0, 520), r.uniform(0, 6.3)
        path = [(x, y)]
        for _ in range(14):
            angle += r.gauss(0, 0.35)
            x, y = x + 46 * math.cos(angle), y + 46 * math.sin(angle)
            path.append((x, y))
        wide = r.random() < 0.3
        d.line(path, fill="#c9c2ad", width=11 if wide else 6)
        d.line(path, fill="#fbd36b" if wide else "white", width=8 if wide else 4)
    for _ in range(12):
        d.text((r.uniform(0, 560), r.uniform(0, 500)), r.choice(WORDS).title(), font=font(13), fill="#555")
    return image


def qr(r):
    side, cell = 33, 14
    grid = np.array([[r.random() < 0.5 for _ in range(side)] for _ in range(side)])
    for top, left in ((0, 0), (0, side - 7), (side - 7, 0)):
        grid[max(0, top - 1) : top + 8, max(0, left - 1) : left + 8] = False
        grid[top : top + 7, left : left + 7] = True
        grid[top + 1 : top + 6, left + 1 : left + 6] = False
        grid[top + 2 : top + 5, left + 2 : left + 5] = True
    inner = Image.fromarray(np.where(grid, 0, 255).astype("uint8")).resize((side * cell, side * cell), Image.NEAREST)
    image, _ = sheet(side * cell + 80, side * cell + 80)
    image.paste(inner.convert("RGB"), (40, 40))
    return image


def barcodes(r):
    image, d = sheet(560, 320)
    x = 40
    while x < 510:
        width = r.choice([2, 4, 6, 8])
        d.rectangle((x, 40, x + width - 1, 240), fill="black")
        x += width + r.choice([2, 4, 6, 8])
    d.text((120, 256), " ".join(str(r.randint(0, 9)) for _ in range(13)), font=font(24), fill="black")
    return image


def screens(r):
    image, d = sheet(480, 900, "#f5f5f8")
    d.rectangle((0, 0, 480, 90), fill="#3f51b5")
    d.text((24, 40), "Settings", font=font(26, True), fill="white")
    for n in range(9):
        y = 110 + 84 * n
        d.rounded_rectangle((16, y, 464, y + 72), 12, fill="white")
        d.ellipse((30, y + 14, 74, y + 58), fill=r.choice(COLOURS))
        d.text((92, y + 14), words(r, 2).title(), font=font(18, True), fill="#222")
        d.text((92, y + 42), words(r, 4)[:34], font=font(13), fill="#777")
        on = r.random() < 0.5
        d.rounded_rectangle((400, y + 24, 448, y + 48), 12, fill="#4caf50" if on else "#bbb")
        d.ellipse((426 if on else 402, y + 26, 446 if on else 422, y + 46), fill="white")
    return image


def memes(r):
    image = photograph("chelsea.png").resize((600, 400))
    d = ImageDraw.Draw(image)
    for y in (16, 330):
        d.text(
            (300, y),
            words(r, 3).upper(),
            font=font(34, True),
            fill="white",
            anchor="ma",
            stroke_width=3,
            stroke_fill="black",
        )
    return image


def drawings(r):
    image, d = sheet(560, 560)
    for _ in range(14):
        x, y, size = r.uniform(60, 500), r.uniform(60, 500), r.uniform(30, 120)
        kind = r.randrange(4)
        if kind == 0:
            d.ellipse((x - size, y - size * r.uniform(0.4, 1), x + size, y + size * 0.7), outline="black", width=3)
        elif kind == 1:
            d.polygon(
                [(x + size * r.uniform(-1, 1), y + size * r.uniform(-1, 1)) for _ in range(r.randint(3, 6))],
                outline="black",
                width=3,
            )
        elif kind == 2:
            d.arc((x - size, y - size, x + size, y + size), r.uniform(0, 360), r.uniform(0, 360), fill="black", width=3)
        else:
            path = [(x + 14 * n, y + size * 0.4 * math.sin(n * r.uniform(0.4, 0.9))) for n in range(12)]
            d.line(path, fill="black", width=3)
    return image


def products(r):
    image, d = sheet(560, 560)
    x, width, height = 280, r.randint(90, 150), r.randint(250, 380)
    d.ellipse((x - width, 480, x + width, 520), fill="#ececec")
    body = r.choice(COLOURS)
    d.rounded_rectangle((x - width, 500 - height, x + width, 500), r.randint(8, 50), fill=body)
    d.rectangle((x - width // 3, 460 - height, x + width // 3, 505 - height), fill=r.choice(COLOURS))
    top = 500 - height * r.uniform(0.5, 0.7)
    d.rectangle((x - width, top, x + width, top + height * 0.3), fill="#fafafa")
    d.text((x, top + 12), r.choice(WORDS).upper(), font=font(26, True), fill="#222", anchor="ma")
    d.text((x, top + 52), words(r, 2), font=font(16), fill="#444", anchor="ma")
    return image.filter(ImageFilter.GaussianBlur(0.6))


def fractal(r, side: int, falloff: float) -> np.ndarray:
    rng = np.random.default_rng(r.getrandbits(32))
    spectrum = np.fft.fft2(rng.normal(size=(side, side)))
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    f[0, 0] = 1
    field = np.real(np.fft.ifft2(spectrum / f**falloff))
    return (field - field.mean()) / field.std()


def skies(r):
    cloud = 1 / (1 + np.exp(-1.6 * fractal(r, 480, 1.7)))
    height = np.linspace(0, 1, 480)[:, None, None]
    blue = np.array([70, 120, 200]) + height * np.array([90, 70, 40])
    return Image.fromarray((blue * (1 - cloud[..., None]) + 245 * cloud[..., None]).clip(0, 255).astype("uint8"))


def textures(name):
    """Twenty-five places of a photograph that have nothing in common."""

    def kind(r):
        image = photograph(name)
        side = min(image.size) // 5
        place = random.Random(f"places {r.seed_of_kind}").sample(range(25), 25)[r.place]
        x, y = place % 5 * side, place // 5 * side
        return image.crop((x, y, x + side, y + side)).resize((400, 400), Image.LANCZOS).rotate(90 * r.randrange(4))

    return kind


def grass(r):
    """Drawn: the photographs of grass that packages ship are made of pieces that come again."""
    image, d = sheet(400, 400, "#2f5a22")
    for _ in range(2600):
        x, y, angle, length = r.uniform(-20, 420), r.uniform(0, 440), r.gauss(-1.57, 0.45), r.uniform(18, 60)
        green = r.randint(70, 190)
        colour = (int(green * r.uniform(0.3, 0.8)), green, int(green * r.uniform(0.15, 0.5)))
        d.line((x, y, x + length * math.cos(angle), y + length * math.sin(angle)), fill=colour, width=r.randint(1, 4))
    return image


def rooms(r):
    image, d = sheet(640, 440, "#e9e2d4")
    w, h = r.randint(180, 260), r.randint(130, 170)
    x0, y0, x1, y1 = 320 - w, 220 - h, 320 + w, 220 + h * 0.7
    for x, y, u, v in ((0, 0, x0, y0), (640, 0, x1, y0), (0, 440, x0, y1), (640, 440, x1, y1)):
        d.line((x, y, u, v), fill="#8d8576", width=3)
    d.rectangle((x0, y0, x1, y1), outline="#8d8576", fill=r.choice(["#efe9dd", "#dfe7ea", "#efe0d8"]), width=3)
    d.polygon([(0, 440), (x0, y1), (x1, y1), (640, 440)], fill="#b08d61", outline="#8d8576")
    for _ in range(r.randint(2, 4)):
        x, y, size = r.uniform(x0 + 10, x1 - 80), r.uniform(y0 + 10, y0 + 70), r.randint(30, 80)
        d.rectangle((x, y, x + size * 1.3, y + size), fill=r.choice(COLOURS), outline="#444", width=3)
    for _ in range(r.randint(2, 4)):
        x, width, height = r.uniform(40, 480), r.randint(70, 160), r.randint(50, 130)
        d.rounded_rectangle((x, 390 - height, x + width, 390), 10, fill=r.choice(COLOURS), outline="#333", width=2)
    return image


PHOTOGRAPHS = (
    "astronaut.png",
    "china.jpg",
    "coffee.png",
    "flower.jpg",
    "rocket.jpg",
    "Wall.jpg",
    "cityCC0.png",
    "chelsea.png",
)


def halves(r):
    """The upper thirds of photographs are references, the lower ones strangers."""
    half, number = divmod(r.place, 12)
    image = photograph(PHOTOGRAPHS[(number // 3 + 4 * r.seed_of_kind) % len(PHOTOGRAPHS)])
    w, h = image.width // 3, image.height // 2
    x, y = number % 3 * w, half * h
    return image.crop((x, y, x + w, y + h)).resize((480, 480 * h // w), Image.LANCZOS)


KINDS = {
    "receipts": receipts, "chats": chats, "bar charts": bars, "line charts": lines, "pie charts": pies, "forms": forms,
    "text pages": pages, "spreadsheets": spreadsheets, "maps": maps, "QR codes": qr, "bar codes": barcodes,
    "app screens": screens,
    "memes of one template": memes, "line drawings": drawings, "products on white": products, "skies": skies,
    "grass": grass, "brick": textures("brick.png"), "rooms": rooms, "parts of one photograph": halves,
}  # fmt: skip


class Draw(random.Random):
    """Chance for one picture, and which one of its kind it is: 0 to 11 are references, 12 to 23 strangers."""

    def __init__(self, kind: str, place: int, seed: int):
        super().__init__(f"{kind} {place} {seed}")
        self.place, self.seed_of_kind = place, seed


def draw(kind: str, place: int, seed: int = 0) -> Image.Image:
    return KINDS[kind](Draw(kind, place, seed))


def copies(image: Image.Image, seed: int) -> dict[str, Image.Image]:
    """Edits that leave most of a picture."""
    r = random.Random(f"copy {seed}")
    w, h = image.size
    cut = [r.uniform(0.0, 0.15) for _ in range(4)]
    banner = image.copy()
    ImageDraw.Draw(banner).rectangle((0, h * 0.42, w, h * 0.52), fill=r.choice(COLOURS))
    ImageDraw.Draw(banner).text(
        (w // 2, int(h * 0.43)), words(r, 2).upper(), font=font(max(12, h // 16), True), fill="white", anchor="ma"
    )
    page = Image.new("RGB", (int(w * 1.5), int(h * 1.4)), r.choice(["#ddd", "#2b2b2b", "#eef"]))
    page.paste(image, (int(w * r.uniform(0.05, 0.45)), int(h * r.uniform(0.05, 0.35))))
    return {
        "half size": image.resize((w // 2, h // 2), Image.LANCZOS),
        "crop": image.crop((int(w * cut[0]), int(h * cut[1]), int(w * (1 - cut[2])), int(h * (1 - cut[3])))),
        "page": page.resize((page.width * 2 // 3, page.height * 2 // 3), Image.LANCZOS),
        "banner": banner,
    }
