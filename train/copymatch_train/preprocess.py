"""Picture → network input, exactly as the extension does it: square antialiased resize, then (v/255 − mean)/std."""

from __future__ import annotations

import numpy as np
from PIL import Image

FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}


def to_input(image: Image.Image, side: int, resize: str, mean: list[float], std: list[float]) -> np.ndarray:
    """(3, side, side) float32. The aspect ratio is not kept."""
    if image.size != (side, side):
        image = image.resize((side, side), FILTERS[resize])
    array = np.asarray(image, np.float32).transpose(2, 0, 1) / 255.0
    return (array - np.array(mean, np.float32)[:, None, None]) / np.array(std, np.float32)[:, None, None]


def waves_v1() -> Image.Image:
    """The parity pattern of the manifest: 320×240, needs no picture file."""
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    channels = [(x * (c + 2) + y * (4 - c) + ((x * y) >> 6)) % 512 for c in range(3)]
    v = np.stack(channels, -1)
    return Image.fromarray(np.where(v < 256, v, 511 - v).astype(np.uint8))
