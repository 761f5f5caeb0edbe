"""Background descriptors for score normalisation: int8 rows of training pictures, never of a reference or a query.

File (little-endian): b"CMBG", u16 version 1, u16 dtype 2, u32 rows, u32 dimensions, rows × f32 scale, rows × dimensions
i8. A row is scale · int8; scale = max|d| / 127, so the rounding error is at most scale / 2 per dimension.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import config as configuration
from .export import describe, session
from .fill_negatives import drawn, negative_pictures
from .pictures import Pictures

MAGIC, VERSION, INT8 = b"CMBG", 1, 2


def pack(descriptors: np.ndarray) -> bytes:
    scale = np.maximum(np.abs(descriptors).max(1) / 127.0, np.finfo(np.float32).tiny).astype("<f4")
    rows = np.rint(descriptors / scale[:, None]).clip(-127, 127).astype(np.int8)
    header = MAGIC + struct.pack("<HHII", VERSION, INT8, *descriptors.shape)
    return header + scale.tobytes() + rows.tobytes()


def unpack(raw: bytes) -> np.ndarray:
    """(rows, dimensions) float32; the inverse of `pack` up to the rounding."""
    version, dtype, rows, dimensions = struct.unpack_from("<HHII", raw, 4)
    if raw[:4] != MAGIC or version != VERSION or dtype != INT8:
        raise ValueError(f"not an int8 background file: magic {raw[:4]!r}, version {version}, dtype {dtype}")
    if len(raw) != 16 + rows * (4 + dimensions):
        raise ValueError(f"{len(raw)} bytes for {rows}×{dimensions}, {16 + rows * (4 + dimensions)} wanted")
    scale = np.frombuffer(raw, "<f4", rows, 16)
    values = np.frombuffer(raw, np.int8, rows * dimensions, 16 + 4 * rows).reshape(rows, dimensions)
    return values.astype(np.float32) * scale[:, None]


def describe_all(
    run, images, manifest: dict, batch: int = 16, label: str = "embed", total: int | None = None
) -> np.ndarray:
    """Descriptors of an iterable of PIL images, in order."""
    rows, pending = [], []
    with tqdm(total=total, unit="img", desc=label) as bar:
        for image in images:
            pending.append(image)
            if len(pending) == batch:
                rows.append(describe(run, pending, manifest))
                bar.update(len(pending))
                pending = []
        if pending:
            rows.append(describe(run, pending, manifest))
            bar.update(len(pending))
    return np.concatenate(rows).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Background descriptors of training pictures, for descriptor stretching."
    )
    parser.add_argument("config", type=Path)
    parser.add_argument(
        "model", type=Path, help="folder with model.onnx and manifest.json; background.bin goes beside them"
    )
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument(
        "--beside", type=int, default=0, help="so many of the rows are pictures of data.beside's stores"
    )
    a = parser.parse_args()
    config = configuration.load(a.config)
    manifest = json.loads((a.model / "manifest.json").read_text())
    pictures = Pictures.of(config.data)
    # A negative has itself subtracted from itself: its descriptor is not like others'.
    taken = negative_pictures(pictures, config) if config.network.negatives else None
    try:
        chosen = drawn(pictures, config, a.rows - a.beside, config.run.seed, without=taken, beside=False)
        if a.beside:
            chosen = np.append(chosen, drawn(pictures, config, a.beside, config.run.seed, without=taken, beside=True))
    except ValueError as error:
        raise SystemExit(f"--rows {a.rows}: {error}") from None
    run = session((a.model / "model.onnx").read_bytes(), config.run.threads)
    descriptors = describe_all(
        run, (pictures.image(int(i)) for i in chosen), manifest, label="background", total=a.rows
    )
    raw = pack(descriptors)
    (a.model / "background.bin").write_bytes(raw)
    error = 1 - (unpack(raw) * descriptors).sum(1).min()
    print(json.dumps(dict(rows=a.rows, bytes=len(raw), worst_cosine_loss=float(error))))


if __name__ == "__main__":
    main()
