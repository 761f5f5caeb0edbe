#!/usr/bin/env python3
"""Descriptor-like vectors with exact neighbours, for the benchmarks of the index.

    ivf_data.py [DIR] [--rows N] [--dimensions D] [--queries Q]

Writes x.npy (references), q.npy (queries) and gt.npy (for each query the 100 nearest references, nearest first) into
DIR; does nothing where they are already. Half of the queries are edited copies of references, half are strangers.

The vectors are what a network makes of pictures: points of a 48-dimensional manifold of uneven clusters, through one
random ReLU layer, with noise, centred, of norm 1.
"""

import argparse
import os
import pathlib
import struct

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCAL = pathlib.Path(os.environ.get("COPYMATCH_LOCAL") or ROOT / ".local").resolve()
LATENT, HIDDEN, CLUSTERS, NEIGHBOURS = 48, 512, 4000, 100
CHUNK = 50_000


class Descriptors:
    """A source of vectors. The same `seed` is the same network; another `clusters` seed is
    another world of pictures."""

    def __init__(self, dimensions: int, seed: int = 7, clusters: int = 7):
        network = np.random.default_rng(seed)
        self.first = network.standard_normal((LATENT, HIDDEN)).astype(np.float32) / np.sqrt(LATENT)
        self.second = network.standard_normal((HIDDEN, dimensions)).astype(np.float32) / np.sqrt(HIDDEN)
        self.rng = np.random.default_rng([seed, clusters])
        self.centres = self.rng.standard_normal((CLUSTERS, LATENT)).astype(np.float32)
        weights = self.rng.pareto(1.2, CLUSTERS) + 0.05
        self.weights = weights / weights.sum()
        self.mean = self.raw(self.points(CHUNK)).mean(axis=0)

    def points(self, count: int) -> np.ndarray:
        """Places on the manifold."""
        centres = self.centres[self.rng.choice(CLUSTERS, count, p=self.weights)]
        return centres + 0.7 * self.rng.standard_normal((count, LATENT)).astype(np.float32)

    def moved(self, points: np.ndarray) -> np.ndarray:
        """The places of edited copies."""
        return points + 0.35 * self.rng.standard_normal(points.shape).astype(np.float32)

    def raw(self, points: np.ndarray) -> np.ndarray:
        return np.maximum(points @ self.first, 0) @ self.second

    def vectors(self, points: np.ndarray) -> np.ndarray:
        """The descriptors of places, single precision, norm 1."""
        x = self.raw(points)
        x += 0.15 * x.std() * self.rng.standard_normal(x.shape).astype(np.float32)
        x -= self.mean
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    def references_and_queries(self, rows: int, queries: int) -> tuple[np.ndarray, np.ndarray]:
        """References; queries, the first half of which are edited copies of references."""
        copies = self.rng.choice(rows, queries // 2, replace=False)
        x, originals = None, np.empty((len(copies), LATENT), np.float32)
        for start in range(0, rows, CHUNK):
            points = self.points(min(CHUNK, rows - start))
            here = (copies >= start) & (copies < start + len(points))
            originals[here] = points[copies[here] - start]
            chunk = self.vectors(points)
            x = np.empty((rows, chunk.shape[1]), np.float32) if x is None else x
            x[start : start + len(chunk)] = chunk
        strangers = self.points(queries - len(copies))
        return x, self.vectors(np.concatenate([self.moved(originals), strangers]))


def nearest(x: np.ndarray, q: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Row numbers of the k rows of x with the greatest inner products with each query, greatest first."""
    k = min(k, len(x))
    numbers = np.empty((len(q), 0), np.int64)
    products = np.empty((len(q), 0), np.float32)
    for start in range(0, len(x), CHUNK):
        new = q @ x[start : start + CHUNK].T
        products = np.concatenate([products, new], axis=1)
        numbers = np.concatenate([numbers, np.broadcast_to(np.arange(start, start + new.shape[1]), new.shape)], axis=1)
        best = np.argpartition(-products, min(k, products.shape[1]) - 1, axis=1)[:, :k]
        products, numbers = np.take_along_axis(products, best, 1), np.take_along_axis(numbers, best, 1)
    order = np.argsort(-products, axis=1, kind="stable")
    return np.take_along_axis(numbers, order, 1)


def prepare(folder: pathlib.Path, rows: int, dimensions: int, queries: int) -> pathlib.Path:
    """Makes the data set in the folder, where it is not there yet."""
    if not (folder / "gt.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        x, q = Descriptors(dimensions).references_and_queries(rows, queries)
        np.save(folder / "x.npy", x)
        np.save(folder / "q.npy", q)
        np.save(folder / "gt.npy", nearest(x, q))
    return folder


def copy(
    db, table: str, vectors: np.ndarray, first: int = 0, kind: str = "vector", ids: np.ndarray | None = None
) -> None:
    """COPYs vectors as rows (int4, vector or halfvec) into `table`, which may name columns; ids count from `first`,
    where they are not given."""
    ids = np.arange(first, first + len(vectors)) if ids is None else ids
    dimensions = vectors.shape[1]
    element = np.dtype(">f2" if kind == "halfvec" else ">f4")
    row = np.dtype(
        [("fields", ">i2"), ("id_bytes", ">i4"), ("id", ">i4"), ("bytes", ">i4"), ("dimensions", ">i2"),
         ("unused", ">i2"), ("elements", element, (dimensions,))],
    )  # fmt: skip
    with db.cursor().copy(f"COPY {table} FROM STDIN WITH (FORMAT BINARY)") as stream:
        stream.write(b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0))
        for start in range(0, len(vectors), 5000):
            part = vectors[start : start + 5000]
            rows = np.zeros(len(part), row)
            rows["fields"], rows["id_bytes"], rows["id"] = 2, 4, ids[start : start + len(part)]
            rows["bytes"], rows["dimensions"], rows["elements"] = 4 + element.itemsize * dimensions, dimensions, part
            stream.write(rows.tobytes())
        stream.write(b"\xff\xff")


def folder_for(rows: int, dimensions: int) -> pathlib.Path:
    """Where a generated set is kept."""
    return LOCAL / "bench" / f"ivf-{rows}x{dimensions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path, help="default: below .local/bench")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--queries", type=int, default=4000)
    options = parser.parse_args()
    folder = options.folder or folder_for(options.rows, options.dimensions)
    print(prepare(folder, options.rows, options.dimensions, options.queries))


if __name__ == "__main__":
    main()
