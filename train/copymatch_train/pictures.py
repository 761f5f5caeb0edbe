"""Pictures: tar shards of WebP/JPEG/PNG decoded once into one memory-mapped file, with splits and balanced drawing.

A shard folder holds `*.tar` and `train.csv` (columns name, width, height, repository, path). Decoding happens once
(`build`); afterwards a picture is a view into `pixels.u8`, so several processes share it through the page cache.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

FORMAT = 1


class Pictures:
    """A decoded picture store. `self[i]` is an (H, W, 3) uint8 array; `names`, `sources` say where it came from."""

    def __init__(self, folder: str | Path):
        folder = Path(folder)
        try:
            index = json.loads((folder / "index.json").read_text())
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder} holds no picture store; build it with `python -m copymatch_train.pictures`") from None
        if index["format"] != FORMAT:
            raise ValueError(f"{folder}: picture store format {index['format']}, this program reads {FORMAT}; rebuild it")
        table = np.load(folder / "table.npy")
        self.offsets, self.heights, self.widths = table[:, 0], table[:, 1], table[:, 2]
        self.names: list[str] = index["names"]
        self.sources: list[str] = index["sources"]
        self.grey = np.array(index["grey"], bool)
        self.skipped: list[str] = index["skipped"]
        self.pixels = np.memmap(folder / "pixels.u8", np.uint8, "r")

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> np.ndarray:
        o, h, w = int(self.offsets[i]), int(self.heights[i]), int(self.widths[i])
        return self.pixels[o : o + h * w * 3].reshape(h, w, 3)

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self[i]))

    def held_out(self, fraction: float) -> np.ndarray:
        """Boolean mask of the validation pictures: fixed by the picture's name, so it never moves between runs."""
        limit = int(fraction * 2**32)
        return np.array([int.from_bytes(hashlib.sha256(n.encode()).digest()[:4], "big") < limit for n in self.names])

    def drawing_weights(self, indices: np.ndarray, cap: int) -> np.ndarray:
        """Probability of drawing each of `indices`: a source counts for at most `cap` pictures.

        Large narrow sources (pets, clothing) would otherwise fill most batches; below the cap drawing is uniform.
        """
        sources = np.array(self.sources)[indices]
        names, inverse, counts = np.unique(sources, return_inverse=True, return_counts=True)
        weight = np.minimum(counts, cap)[inverse] / counts[inverse]
        return weight / weight.sum()


def is_grey(pixels: np.ndarray) -> bool:
    """True when the three channels agree to within compression noise."""
    p = pixels.astype(np.int16)
    return float(np.abs(p[..., 0] - p[..., 1]).mean() + np.abs(p[..., 1] - p[..., 2]).mean()) < 2.0


def decode(raw: bytes, max_pixels: int) -> np.ndarray:
    """Decode one picture to (H, W, 3) uint8, refusing one that claims more than `max_pixels` before decoding it."""
    image = Image.open(io.BytesIO(raw))
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width}×{image.height} pixels, limit {max_pixels}")
    return np.asarray(image.convert("RGB"))


def build(shards: Path, out: Path, max_pixels: int = 16_000_000, limit: int | None = None) -> Pictures:
    """Decode every picture of every shard. A corrupt shard or picture is skipped, counted and named."""
    with open(shards / "train.csv", newline="") as f:
        source = {row["name"]: row["repository"] for row in csv.DictReader(f)}
    tars = sorted(shards.glob("*.tar"))
    if not tars:
        raise FileNotFoundError(f"{shards}: no *.tar shard")
    out.mkdir(parents=True, exist_ok=True)
    names, sources, grey, table, skipped, offset = [], [], [], [], [], 0
    with open(out / "pixels.u8.partial", "wb") as pixels, tqdm(total=limit or len(source), unit="img", desc="decode") as bar:
        for path in tars:
            try:
                with tarfile.open(path) as tar:
                    for member in tar:
                        if limit is not None and len(names) >= limit:
                            break
                        if not member.isfile():
                            continue
                        name = os.path.basename(member.name)
                        try:
                            array = decode(tar.extractfile(member).read(), max_pixels)
                        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
                            skipped.append(f"{path.name}/{member.name}: {error}")
                            continue
                        pixels.write(array.tobytes())
                        names.append(name)
                        sources.append(source.get(name, "unknown"))
                        grey.append(is_grey(array))
                        table.append((offset, array.shape[0], array.shape[1]))
                        offset += array.size
                        bar.update()
            except (tarfile.TarError, OSError) as error:
                skipped.append(f"{path.name}: {error}")
    if not names:
        raise ValueError(f"{shards}: no readable picture; {len(skipped)} skipped, first: {skipped[:1]}")
    np.save(out / "table.npy", np.array(table, np.int64))
    os.replace(out / "pixels.u8.partial", out / "pixels.u8")
    index = dict(format=FORMAT, names=names, sources=sources, grey=grey, skipped=skipped)
    (out / "index.json").write_text(json.dumps(index))
    for line in skipped:
        print("skipped", line, file=sys.stderr)
    print(f"{len(names)} pictures, {offset / 1e9:.2f} GB, {sum(grey)} grey, {len(skipped)} skipped → {out}")
    return Pictures(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode tar shards into a memory-mapped picture store.")
    parser.add_argument("shards", type=Path, help="folder with *.tar and train.csv")
    parser.add_argument("out", type=Path)
    parser.add_argument("--limit", type=int, help="stop after this many pictures (smoke runs)")
    a = parser.parse_args()
    build(a.shards, a.out, limit=a.limit)


if __name__ == "__main__":
    main()
