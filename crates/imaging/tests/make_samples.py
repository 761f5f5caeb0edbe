"""Writes tests/pictures/samples.rs: small files in the codings for which no Rust encoder is at hand, made by Pillow
from a pattern of our own (`pattern` here and in tests/pictures/mod.rs).

    python crates/imaging/tests/make_samples.py
"""

import io
import pathlib

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 40


def pattern(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Smooth waves of three colours with a bright box: JPEG and lossy WebP keep it within a few grey levels."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [128 + 90 * np.sin((x * (c + 1) + y * (3 - c)) / 13.0) for c in range(3)]
    pixels = np.stack(channels, axis=-1)
    pixels[height // 4 : height // 2, width // 4 : width // 2] = (230, 210, 40)
    return pixels.round().clip(0, 255).astype("uint8")


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def samples() -> dict[str, bytes]:
    rgb = Image.fromarray(pattern())
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, WIDTH).astype("uint8"), (HEIGHT, 1))))
    other = Image.fromarray(255 - pattern())
    return {
        "JPEG_PROGRESSIVE": encoded(rgb, "JPEG", quality=85, progressive=True),
        "JPEG_420": encoded(rgb, "JPEG", quality=85, subsampling=2),
        "JPEG_422": encoded(rgb, "JPEG", quality=85, subsampling=1),
        "JPEG_RESTARTS": encoded(rgb, "JPEG", quality=85, subsampling=2, restart_marker_blocks=2),
        "JPEG_GREY": encoded(rgb.convert("L"), "JPEG", quality=85),
        "JPEG_CMYK": encoded(rgb.convert("CMYK"), "JPEG", quality=92),
        "WEBP_LOSSY": encoded(rgb, "WEBP", quality=85),
        "WEBP_LOSSY_ALPHA": encoded(alpha, "WEBP", quality=85),
        "WEBP_ANIMATED": encoded(rgb, "WEBP", save_all=True, append_images=[other, rgb], duration=100, quality=85),
    }


def main() -> None:
    lines = [
        "//! Made by tests/make_samples.py: files of the codings for which no Rust encoder is at hand.",
        "",
    ]
    for name, data in samples().items():
        lines.append(f"pub const {name}: &[u8] = &[")
        for start in range(0, len(data), 20):
            lines.append("    " + " ".join(f"{byte}," for byte in data[start : start + 20]))
        lines.append("];")
    pathlib.Path(__file__).parent.joinpath("pictures/samples.rs").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
