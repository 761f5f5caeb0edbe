"""A detection benchmark as it lies on disk: references.tar, queries.tar, truth.csv. numpy and the standard library only.

Read by `evaluate` (ONNX Runtime with Pillow) and by `extension` (inside PostgreSQL), so that both score the same way.
"""

from __future__ import annotations

import csv
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .scores import micro_average_precision, recall_at_precision


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
        unknown = [rows[n]["reference"] for n in query_names if rows[n]["reference"] and rows[n]["reference"] not in position]
        if unknown:
            raise ValueError(f"{folder}/truth.csv names {len(unknown)} references that references.tar lacks, first {unknown[0]}")
        truth = np.array([position.get(rows[n]["reference"], -1) for n in query_names])
        return cls(reference_names, references, query_names, queries, truth, [rows[n]["edits"] for n in query_names])


def by_edit(truth: np.ndarray, edits: list[str], nearest: np.ndarray, accepted: np.ndarray) -> dict[str, dict]:
    """For every edit: queries with a copy that had it (alone or among others), found at rank 1, found above the P90 threshold."""
    table: dict[str, list[int]] = {}
    for t, e, n, ok in zip(truth, edits, nearest, accepted):
        if t >= 0:
            for name in dict.fromkeys(e.split("+")):
                row = table.setdefault(name, [0, 0, 0])
                row[0] += 1
                row[1] += n == t
                row[2] += n == t and bool(ok)
    return {k: dict(queries=v[0], recall_at_1=round(float(v[1] / v[0]), 3), recall_at_p90=round(float(v[2] / v[0]), 3)) for k, v in sorted(table.items())}


def figures_of_answers(benchmark: Benchmark, rows: list[tuple]) -> dict:
    """The figures of `scores.summary`, by kind of edit and by verdict, from the answers of copy_match.

    A row is (query's row, reference's row, similarity, score, verdict); the rows of a query stand together, best first. A query without rows found nothing.
    """
    truth = benchmark.truth
    query = np.array([r[0] for r in rows])
    reference = np.array([r[1] for r in rows])
    similarity, score = (np.array([r[column] for r in rows], np.float64) for column in (2, 3))
    correct = reference == truth[query]
    positives = int((truth >= 0).sum())
    first = np.unique(query, return_index=True)[1]
    recall_at_1 = float((correct[first]).sum() / positives)
    out = dict(
        micro_ap=micro_average_precision(similarity, correct, positives),
        recall_at_p90=recall_at_precision(similarity, correct, positives)[0],
        recall_at_1=recall_at_1,
        stretched_micro_ap=micro_average_precision(score, correct, positives),
        stretched_recall_at_p90=recall_at_precision(score, correct, positives)[0],
    )
    out = {k: round(v, 4) for k, v in out.items()}
    _, threshold = recall_at_precision(score[first], correct[first], positives)
    # Queries without an answer keep −2: found nothing.
    nearest, accepted = np.full(len(truth), -2), np.zeros(len(truth), bool)
    nearest[query[first]] = reference[first]
    if threshold is not None:
        accepted[query[first]] = score[first] >= threshold
    out["by_edit"] = by_edit(truth, benchmark.edits, nearest, accepted)
    verdict = np.full(len(truth), "none", object)
    verdict[query[first]] = [rows[i][4] for i in first]
    out["verdicts"] = {
        name: dict(
            true=int(((verdict == name) & (nearest == truth)).sum()),
            false=int(((verdict == name) & (nearest != truth)).sum()),
            on_unrelated=int(((verdict == name) & (truth < 0)).sum()),
        )
        for name in ("copy", "review")
    }
    return out
