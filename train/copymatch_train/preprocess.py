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


# A long side is at most this many times the short one (crates/encoder/src/manifest.rs).
MAX_ASPECT = 4


def prepared(image: Image.Image, side: int, manifest_input: dict) -> np.ndarray:
    """What a manifest says of the input, of one image: (3, H, W) or (H, W, 3), floats or bytes, a square or
    the short side at `side`."""
    size = (side, side)
    if manifest_input.get("fit", "square") == "short":
        short = min(image.size)
        size = tuple(min((v * side + short // 2) // short, MAX_ASPECT * side) for v in image.size)
    image = image.convert("RGB")
    if image.size != size:
        image = image.resize(size, FILTERS[manifest_input["resize"]])
    array = np.asarray(image)
    if manifest_input.get("type", "float32") == "float32":
        mean, std = (np.array(manifest_input[name], np.float32) for name in ("mean", "std"))
        array = (array.astype(np.float32) / 255.0 - mean) / std
    if manifest_input["colour"] == "BGR":
        array = array[..., ::-1]
    return np.ascontiguousarray(array if manifest_input["layout"] == "NHWC" else array.transpose(2, 0, 1))


def waves_v1() -> Image.Image:
    """The parity pattern of the manifest: 320×240, needs no picture file."""
    x, y = np.meshgrid(np.arange(320), np.arange(240))
    channels = [(x * (c + 2) + y * (4 - c) + ((x * y) >> 6)) % 512 for c in range(3)]
    v = np.stack(channels, -1)
    return Image.fromarray(np.where(v < 256, v, 511 - v).astype(np.uint8))
