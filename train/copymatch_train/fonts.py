"""Fonts for text edits: those that matplotlib ships, so that no font has to be downloaded."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from PIL import ImageFont


@lru_cache(maxsize=1)
def _paths() -> tuple[str, ...]:
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    # The other faces there hold mathematical symbols only, or lack letters.
    return tuple(sorted(str(p) for p in folder.glob("DejaVu*.ttf") if "Display" not in p.name))


@lru_cache(maxsize=256)
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def random_font(rng, size: int) -> ImageFont.FreeTypeFont:
    """`size` in pixels, rounded to an even number so that the cache serves many calls."""
    size = max(6, size - size % 2)
    return _font(rng.choice(_paths()), size)
