"""Score a model folder on a detection benchmark: references.tar, queries.tar, truth.csv.

Runs model.onnx under ONNX Runtime with Pillow's decoding and the manifest's resize: what the extension does, without
it. Development figures only; never tune on them.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .background import describe_all, unpack
from .benchmark import Benchmark, by_edit
from .export import session
from .preprocess import prepared
from .scores import background_similarity, recall_at_precision, stretched, summary


def opened(raw: bytes) -> Image.Image:
    """Decoded and oriented. Never at reduced scale: the resize filter shall see every pixel."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(raw))).convert("RGB")


def evaluate(model: Path, benchmark: Path, sizes: list[int] | None, threads: int, save: Path | None = None) -> dict:
    manifest = json.loads((model / "manifest.json").read_text())
    how = manifest | {"input": manifest["input"] | ({"sizes": sizes} if sizes else {})}
    run = session((model / "model.onnx").read_bytes(), threads)
    b = Benchmark.read(benchmark)
    r = describe_all(run, (opened(raw) for raw in b.references), how, label="references", total=len(b.references))
    q = describe_all(run, (opened(raw) for raw in b.queries), how, label="queries", total=len(b.queries))
    if save:
        np.savez(save, references=r, queries=q, reference_names=b.reference_names, query_names=b.query_names)
    truth = b.truth
    # The folder's background fits the manifest's own sizes; another choice of sizes gets figures without stretching.
    background = (
        unpack((model / "background.bin").read_bytes()) if not sizes or sizes == manifest["input"]["sizes"] else None
    )
    # The clamp on the background is part of the extension's score; without a calibration there is none.
    c = json.loads((model / "calibration.json").read_text()) if (model / "calibration.json").exists() else None
    clamp = c["clamp"] if c else None
    figures = {k: round(v, 4) for k, v in summary(q, r, truth, background, clamp=clamp).items()}
    out = dict(
        model=manifest["name"],
        version=manifest["version"],
        sizes=how["input"]["sizes"],
        references=len(r),
        queries=len(q),
        **figures,
    )
    if background is not None:
        similarity = q @ r.T
        nearest, top = similarity.argmax(1), similarity.max(1)
        m = background_similarity(q, background)
        s = stretched(top, m, clamp=clamp)
        _, threshold = recall_at_precision(s, nearest == truth, int((truth >= 0).sum()))
        accepted = s >= threshold if threshold is not None else np.zeros(len(s), bool)
        out["by_edit"] = by_edit(truth, b.edits, nearest, accepted)
        half = [d.astype(np.float16).astype(np.float32) for d in (q, r)]
        out["halfvec"] = {k: round(v, 4) for k, v in summary(*half, truth, background, clamp=clamp).items()}
        out["unclamped"] = {
            k: round(v, 4) for k, v in summary(q, r, truth, background).items() if k.startswith("stretched")
        }
        if c:
            p = 1 / (1 + np.exp(-(c["intercept"] + c["similarity_weight"] * top + c["background_weight"] * m)))
            verdicts = {}
            for name, low, high in (
                ("copy", c["copy_probability"], 2.0),
                ("review", c["review_probability"], c["copy_probability"]),
            ):
                inside = (p >= low) & (p < high)
                verdicts[name] = dict(
                    true=int((inside & (nearest == truth)).sum()),
                    false=int((inside & (nearest != truth)).sum()),
                    on_unrelated=int((inside & (truth < 0)).sum()),
                )
            out["verdicts"] = verdicts
    return out


def milliseconds(model: Path, threads: int = 1, seconds: float = 5.0) -> dict:
    """Median milliseconds an image at the manifest's sizes, one image a call, network only; also in processor time."""
    manifest = json.loads((model / "manifest.json").read_text())
    run = session((model / "model.onnx").read_bytes(), threads)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8))
    out = {}
    for side in manifest["input"]["sizes"]:
        x = prepared(picture, side, manifest["input"])[None]
        wall, spent, end = [], [], time.time() + seconds
        while time.time() < end:
            a, b = time.perf_counter(), time.process_time()
            run.run([manifest["output"]["name"]], {manifest["input"]["name"]: x})
            wall.append((time.perf_counter() - a) * 1e3)
            spent.append((time.process_time() - b) * 1e3)
        out[str(side)] = dict(
            wall=round(float(np.median(wall)), 2),
            processor=round(float(np.median(spent)), 2),
            best=round(min(wall), 2),
            runs=len(wall),
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", help="other sizes than the manifest's (several are averaged)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--speed", action="store_true", help="also time the network")
    parser.add_argument("--save", type=Path, help="descriptors as .npz")
    parser.add_argument("--out", type=Path, help="write the figures there too, for scripts/evaluate.py --against")
    a = parser.parse_args()
    out = evaluate(a.model, a.benchmark, a.sizes, a.threads, a.save)
    if a.speed:
        out["milliseconds"] = milliseconds(a.model, a.threads)
    print(json.dumps(out, indent=1))
    if a.out:
        a.out.write_text(json.dumps(out, indent=1) + "\n")


if __name__ == "__main__":
    main()
