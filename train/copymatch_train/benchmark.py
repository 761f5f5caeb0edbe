"""A detection benchmark as it lies on disk: references.tar, queries.tar, truth.csv. numpy and
the standard library only.

Read by `evaluate` (ONNX Runtime with Pillow) and by scripts/evaluate.py (inside PostgreSQL), so that both see the same.
"""

from __future__ import annotations

import csv
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def read_tar(path: Path) -> tuple[list[str], list[bytes]]:
    """Names without their suffix, and the files' bytes, in the archive's order."""
    names, raws = [], []
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile():
                names.append(os.path.splitext(os.path.basename(member.name))[0])
                raws.append(tar.extractfile(member).read())
    return names, raws


@dataclass
class Benchmark:
    """`truth[i]` is the row of query i's reference, −1 where it is a copy of nothing; `edits[i]` is `name+name+…`."""

    reference_names: list[str]
    references: list[bytes]
    query_names: list[str]
    queries: list[bytes]
    truth: np.ndarray
    edits: list[str]

    @classmethod
    def read(cls, folder: Path) -> Benchmark:
        with open(folder / "truth.csv", newline="") as f:
            rows = {row["query"]: row for row in csv.DictReader(f)}
        reference_names, references = read_tar(folder / "references.tar")
        query_names, queries = read_tar(folder / "queries.tar")
        position = {n: i for i, n in enumerate(reference_names)}
        missing = [n for n in query_names if n not in rows]
        if missing:
            raise ValueError(f"{folder}/truth.csv has no row for {len(missing)} queries, first {missing[0]}")
        unknown = [
            rows[n]["reference"] for n in query_names if rows[n]["reference"] and rows[n]["reference"] not in position
        ]
        if unknown:
            raise ValueError(
                f"{folder}/truth.csv names {len(unknown)} references that references.tar lacks, first {unknown[0]}"
            )
        truth = np.array([position.get(rows[n]["reference"], -1) for n in query_names])
        return cls(reference_names, references, query_names, queries, truth, [rows[n]["edits"] for n in query_names])


def by_edit(truth: np.ndarray, edits: list[str], nearest: np.ndarray, accepted: np.ndarray) -> dict[str, dict]:
    """For every edit: queries with a copy that had it (alone or among others), found at rank 1, found
    above the P90 threshold."""
    table: dict[str, list[int]] = {}
    for t, e, n, ok in zip(truth, edits, nearest, accepted):
        if t >= 0:
            for name in dict.fromkeys(e.split("+")):
                row = table.setdefault(name, [0, 0, 0])
                row[0] += 1
                row[1] += n == t
                row[2] += n == t and bool(ok)
    return {
        k: dict(queries=v[0], recall_at_1=round(float(v[1] / v[0]), 3), recall_at_p90=round(float(v[2] / v[0]), 3))
        for k, v in sorted(table.items())
    }
