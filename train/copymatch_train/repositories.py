"""Pictures of public repositories → a picture store, by a list that says which and what for. No network: git
directories that lie here.

`configs/tables/sources.yaml` names repositories, a pattern of paths, what is on the pictures, the licence as far as it
is known, and whether they are for training or kept for validation (a source is for one of the two, never both).
Pictures are made as small as those of the shards, copies of each other by bytes or by thumbnail are taken once, and of
a source at most `most` are taken, evenly over the list of its paths.

    python -m copymatch_train.repositories train/configs/tables/sources.yaml /work/.mirror train/runs/beside --use
    training python -m copymatch_train.repositories train/configs/tables/sources.yaml /work/.mirror
    train/runs/foreign --use validation
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from .pictures import Writer

USES = ("training", "validation")


@dataclass
class Source:
    repository: str
    paths: str
    shows: str
    licence: str
    use: str
    most: int = 5000
    smallest: int = 5000

    def __post_init__(self) -> None:
        if self.use not in USES:
            raise ValueError(f"{self.repository}: use is {self.use!r}, not one of {USES}")


def read(path: Path) -> list[Source]:
    sources = [Source(**row) for row in yaml.safe_load(path.read_text())]
    names = [s.repository for s in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: a repository is named twice; it is for training or for validation")
    return sources


def git_directory(mirror: Path, repository: str) -> Path:
    return mirror / repository.replace("/", "+") / "repo"


def listed(folder: Path, source: Source) -> list[tuple[str, str]]:
    """(blob, path) of the newest commit's files that match, larger than `smallest` bytes, in
    the order of their paths."""
    out = subprocess.run(
        ["git", "-C", folder, "ls-tree", "-r", "-l", "-z", "HEAD"], check=True, capture_output=True
    ).stdout.decode("utf-8", "replace")
    found, wanted = {}, re.compile(source.paths, re.IGNORECASE)
    for line in out.split("\0"):
        if "\t" in line:
            head, path = line.split("\t", 1)
            _, kind, blob, size = head.split()
            # A blob that the directory lacks has no number for its size.
            if kind == "blob" and size.isdigit() and int(size) >= source.smallest and wanted.search(path):
                found.setdefault(blob, path)
    return sorted(found.items(), key=lambda item: item[1])


def blobs(folder: Path, names: list[str]):
    """The blobs' bytes in order; None for one that the directory lacks."""
    git = subprocess.Popen(["git", "-C", folder, "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        for name in names:
            git.stdin.write(name.encode() + b"\n")
            git.stdin.flush()
            head = git.stdout.readline().split()
            if len(head) < 3:
                yield None
                continue
            raw = git.stdout.read(int(head[2]))
            git.stdout.read(1)
            yield raw
    finally:
        git.stdin.close()
        git.stdout.close()
        git.wait()


def small(raw: bytes, short: int, longest: float = 1.6, max_pixels: int = 60_000_000) -> np.ndarray:
    """Decoded, on white where it is transparent, `short` pixels on the short side; cut to `longest` times
    that, as the shards are."""
    image = Image.open(io.BytesIO(raw))
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width}×{image.height} pixels")
    image.draft("RGB", (2 * short, 2 * short))
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    image = image.convert("RGB")
    if min(image.size) < 0.7 * short:
        raise ValueError(f"{image.width}×{image.height} pixels are too few")
    w, h = image.size
    reach = longest * min(w, h)
    if w > reach:
        image = image.crop((int((w - reach) / 2), 0, int((w + reach) / 2), h))
    elif h > reach:
        image = image.crop((0, 0, w, int(reach)))
    scale = short / min(image.size)
    return np.asarray(
        image.resize(
            (max(short, round(image.width * scale)), max(short, round(image.height * scale))),
            Image.LANCZOS,
            reducing_gap=3.0,
        )
    )


def thumbnail(array: np.ndarray) -> bytes:
    """Equal for copies of one picture at other sizes and qualities, as far as 64 coarse tones tell."""
    grey = np.asarray(Image.fromarray(array).convert("L").resize((8, 8), Image.BOX), np.int16)
    return (grey // 24).astype(np.uint8).tobytes()


def collect(sources: list[Source], mirror: Path, out: Path, short: int) -> None:
    with Writer(out) as writer:
        for source in sources:
            folder = git_directory(mirror, source.repository)
            if not folder.exists():
                writer.skipped.append(f"{source.repository}: not in {mirror}")
                continue
            rows = listed(folder, source)
            if len(rows) > source.most:
                rows = [rows[i] for i in np.linspace(0, len(rows) - 1, source.most).astype(int)]
            seen: set[bytes] = set()
            for (_, path), raw in zip(
                rows, tqdm(blobs(folder, [b for b, _ in rows]), total=len(rows), unit="img", desc=source.repository)
            ):
                if raw is None:
                    continue
                try:
                    array = small(raw, short)
                except (
                    UnidentifiedImageError,
                    OSError,
                    ValueError,
                    SyntaxError,
                    Image.DecompressionBombError,
                ) as error:
                    writer.skipped.append(f"{source.repository}/{path}: {error}")
                    continue
                key = thumbnail(array)
                if key not in seen and array.std() > 8:
                    seen.add(key)
                    writer.add(f"{source.repository}/{path}", source.repository, array)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Pictures of repositories that lie here as git directories → a picture store."
    )
    parser.add_argument("list", type=Path)
    parser.add_argument("mirror", type=Path, help="folder with OWNER+NAME/repo, git directories")
    parser.add_argument("out", type=Path)
    parser.add_argument("--use", choices=USES, required=True)
    parser.add_argument("--short", type=int, default=184, help="pixels on the short side")
    a = parser.parse_args()
    collect([s for s in read(a.list) if s.use == a.use], a.mirror, a.out, a.short)


if __name__ == "__main__":
    main()
