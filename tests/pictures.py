"""Pictures that the tests make: seeded, so that a failure repeats, and with enough structure to be matched."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def scene(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """A picture of its own for every seed: smooth ground, boxes and discs, a little texture."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(0, 255, (4, 5, 3)).astype("uint8")
    pixels = np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC)).astype(float)
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(14):
        colour = rng.uniform(0, 255, 3)
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        rx, ry = rng.uniform(0.04, 0.25) * width, rng.uniform(0.04, 0.25) * height
        inside = (
            (abs(x - cx) < rx) & (abs(y - cy) < ry)
            if rng.random() < 0.5
            else ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
        )
        pixels[inside] = colour
    pixels += rng.normal(0, 4, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype("uint8"))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    """The picture as a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def png(image: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def blank(colour: tuple[int, int, int] = (200, 200, 200)) -> bytes:
    """A picture in which there is nothing to match."""
    return png(Image.new("RGB", (300, 200), colour))


def png_bomb(side: int = 30_000) -> bytes:
    """A few dozen bytes that claim to be a picture of side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
