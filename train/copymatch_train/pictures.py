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

from .config import Data

FORMAT = 1


class Pictures:
    """A decoded picture store, or several after each other. `self[i]` is an (H, W, 3) uint8 array; `names`, `sources`
    say where it came from."""

    def __init__(self, folder: str | Path, *more: str | Path):
        self._open(Path(folder))
        self.stores: list[Pictures] = [self]
        self.starts = np.array([0])
        if more:
            self._join([Pictures(f) for f in (folder, *more)])

    @property
    def own(self) -> int:
        """Pictures of the first store; those of the stores beside it follow."""
        return len(self) if len(self.stores) == 1 else int(self.starts[1])

    @classmethod
    def of(cls, data: Data) -> Pictures:
        """The stores of a configuration: its own, then those beside it."""
        return cls(data.store, *data.beside)

    def _join(self, stores: list[Pictures]) -> None:
        """Positions in the first store stay what they were."""
        self.stores = stores
        self.starts = np.cumsum([0, *(len(s) for s in stores[:-1])])
        self.names = [n for s in stores for n in s.names]
        self.sources = [n for s in stores for n in s.sources]
        self.grey = np.concatenate([s.grey for s in stores])
        if len(set(self.names)) < len(self.names):
            raise ValueError("two picture stores hold pictures of the same name; the held-out split goes by names")

    def _open(self, folder: Path) -> None:
        try:
            index = json.loads((folder / "index.json").read_text())
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{folder} holds no picture store; build it with `python -m copymatch_train.pictures`"
            ) from None
        if index["format"] != FORMAT:
            raise ValueError(
                f"{folder}: picture store format {index['format']}, this program reads {FORMAT}; rebuild it"
            )
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
        at = int(np.searchsorted(self.starts, i, side="right")) - 1
        store, i = self.stores[at], i - int(self.starts[at])
        o, h, w = int(store.offsets[i]), int(store.heights[i]), int(store.widths[i])
        return store.pixels[o : o + h * w * 3].reshape(h, w, 3)

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(np.ascontiguousarray(self[i]))

    def held_out(self, fraction: float) -> np.ndarray:
        """Boolean mask of the validation pictures: fixed by the picture's name, so it never moves between runs."""
        limit = int(fraction * 2**32)
        return np.array([int.from_bytes(hashlib.sha256(n.encode()).digest()[:4], "big") < limit for n in self.names])

    def drawing_weights(self, indices: np.ndarray, cap: int, beside_share: float = 0.0) -> np.ndarray:
        """Probability of drawing each of `indices`: a source counts for at most `cap` pictures. The stores beside the
        first have `beside_share` of it all, where it is above 0.

        Large narrow sources (pets, clothing) would otherwise fill most batches; below the cap drawing is uniform.
        """
        sources = np.array(self.sources)[indices]
        names, inverse, counts = np.unique(sources, return_inverse=True, return_counts=True)
        weight = np.minimum(counts, cap)[inverse] / counts[inverse]
        beside = np.asarray(indices) >= self.own
        if beside_share and beside.any() and not beside.all():
            weight[beside] *= beside_share / weight[beside].sum()
            weight[~beside] *= (1 - beside_share) / weight[~beside].sum()
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


class Writer:
    """Writes a picture store: `with Writer(folder) as writer: writer.add(name, source, pixels)`. It
    appears whole, or not at all."""

    def __init__(self, out: Path):
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.offset = out, 0
        self.names: list[str] = []
        self.sources: list[str] = []
        self.grey: list[bool] = []
        self.skipped: list[str] = []
        self.table: list[tuple[int, int, int]] = []

    def __enter__(self) -> Writer:
        self.pixels = open(self.out / "pixels.u8.partial", "wb")
        return self

    def add(self, name: str, source: str, array: np.ndarray) -> None:
        self.pixels.write(array.tobytes())
        self.names.append(name)
        self.sources.append(source)
        self.grey.append(is_grey(array))
        self.table.append((self.offset, array.shape[0], array.shape[1]))
        self.offset += array.size

    def __exit__(self, kind, *_) -> None:
        self.pixels.close()
        if kind is not None:
            return
        if not self.names:
            raise ValueError(f"{self.out}: no readable picture; {len(self.skipped)} skipped, first: {self.skipped[:1]}")
        np.save(self.out / "table.npy", np.array(self.table, np.int64))
        os.replace(self.out / "pixels.u8.partial", self.out / "pixels.u8")
        index = dict(format=FORMAT, names=self.names, sources=self.sources, grey=self.grey, skipped=self.skipped)
        (self.out / "index.json").write_text(json.dumps(index))
        for line in self.skipped:
            print("skipped", line, file=sys.stderr)
        print(
            f"{len(self.names)} pictures, {self.offset / 1e9:.2f} GB, {sum(self.grey)} grey, {len(self.skipped)} "
            f"skipped → {self.out}"
        )


def build(shards: Path, out: Path, max_pixels: int = 16_000_000, limit: int | None = None) -> Pictures:
    """Decode every picture of every shard. A corrupt shard or picture is skipped, counted and named."""
    with open(shards / "train.csv", newline="") as f:
        source = {row["name"]: row["repository"] for row in csv.DictReader(f)}
    tars = sorted(shards.glob("*.tar"))
    if not tars:
        raise FileNotFoundError(f"{shards}: no *.tar shard")
    with Writer(out) as writer, tqdm(total=limit or len(source), unit="img", desc="decode") as bar:
        for path in tars:
            try:
                with tarfile.open(path) as tar:
                    for member in tar:
                        if limit is not None and len(writer.names) >= limit:
                            break
                        if not member.isfile():
                            continue
                        name = os.path.basename(member.name)
                        try:
                            array = decode(tar.extractfile(member).read(), max_pixels)
                        except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
                            writer.skipped.append(f"{path.name}/{member.name}: {error}")
                            continue
                        writer.add(name, source.get(name, "unknown"), array)
                        bar.update()
            except (tarfile.TarError, OSError) as error:
                writer.skipped.append(f"{path.name}: {error}")
        if not writer.names:
            raise ValueError(
                f"{shards}: no readable picture; {len(writer.skipped)} skipped, first: {writer.skipped[:1]}"
            )
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
