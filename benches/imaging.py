"""Decoding and resizing JPEGs: the imaging crate beside Pillow (libjpeg-turbo), with and without its draft mode, over
the same files in the same run, one thread each. Criterion's finer figures: `make bench-decode`.

    make bench-imaging
"""

import io
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
SIZES = {"0.1 MP": (366, 274), "1 MP": (1155, 866), "12 MP": (4000, 3000)}


def scene(width: int, height: int) -> Image.Image:
    """Noise with the 1/f spectrum of photographs, a few flat objects, a little sensor noise."""
    rng = np.random.default_rng(1)
    pixels = np.full((height, width, 3), 128.0)
    cells, amplitude = 2, 60.0
    while cells < max(width, height) / 2 and amplitude > 2:
        grid = rng.uniform(-0.5, 0.5, (3, cells * height // max(width, height) + 2, cells + 2)) * amplitude
        for channel in range(3):
            layer = Image.fromarray(grid[channel].astype("float32")).resize((width, height), Image.Resampling.BILINEAR)
            pixels[..., channel] += np.asarray(layer)
        cells, amplitude = cells * 2, amplitude * 0.7
    for _ in range(12):
        x, y = rng.integers(width), rng.integers(height)
        w, h = int(width * rng.uniform(0.05, 0.2)), int(height * rng.uniform(0.05, 0.2))
        box = pixels[y : y + h, x : x + w]
        box[:] = box * 0.3 + rng.uniform(10, 170, 3)
    pixels += rng.uniform(-3, 3, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype("uint8"))


def median(work) -> float:
    """Milliseconds; at least 5 runs and half a second."""
    work()
    start, times = time.perf_counter(), []
    while len(times) < 5 or time.perf_counter() - start < 0.5:
        begin = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)


def pillow(data: bytes) -> list[float]:
    def decode(min_side=None) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        if min_side:
            image.draft("RGB", (min_side, min_side))
        image.load()
        return image

    def small(image: Image.Image) -> Image.Image:
        return image.resize((224, 224), Image.Resampling.BILINEAR)

    return [
        median(decode),
        median(lambda: decode(288)),
        median(lambda: decode(224)),
        median(lambda: small(decode())),
        median(lambda: small(decode(224))),
    ]


def main() -> None:
    command = ["cargo", "build", "--quiet", "--release", "--package", "imaging", "--example", "decode_times"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    print("| JPEG | by | decode | decode for 288 | decode for 224 | decode, resize to 224 | same, reduced |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, size in SIZES.items():
            for kind, options in {"baseline": {}, "progressive": {"progressive": True}}.items():
                buffer = io.BytesIO()
                scene(*size).save(buffer, "JPEG", quality=90, **options)
                path = pathlib.Path(folder) / "scene.jpg"
                path.write_bytes(buffer.getvalue())
                times = [str(target / "release" / "examples" / "decode_times"), str(path)]
                output = subprocess.run(times, capture_output=True, text=True, check=True).stdout
                ours = [float(value) for value in output.split()]
                for who, row in (("imaging", ours), ("Pillow", pillow(buffer.getvalue()))):
                    cells = " | ".join(f"{value:.1f} ms" for value in row)
                    print(f"| {name} {kind}, {len(buffer.getvalue()) // 1024} KiB | {who} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
