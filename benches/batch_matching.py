#!/usr/bin/env python3
"""Many stored descriptors against a large set: copy_match_table, the same rows one by one, and the bare nested loop.

In one run, by turns, over the data of ivf_data.py (1,000,000 x 256, 10,000 queries, half of them edited copies), on a
throwaway cluster: queries a second, recall against an exhaustive search, and whether both ways find the same.
`make bench-batch_matching ARGS="--references 1000000 --queries 10000 --rounds 3"`"""

import argparse
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

import ivf_data
import numpy as np
import psycopg

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import conftest  # noqa: E402  the tests' throwaway cluster

#: Queries by which recall is judged: evenly spread over copies and strangers.
JUDGED = 1000

TABLE = "copy_match_table('uploads', 'id', 'descriptor', 'refs', {k})"
ONE_BY_ONE = (
    "(SELECT u.id::text AS upload, m.* FROM uploads u "
    "CROSS JOIN LATERAL copy_match_descriptor(u.descriptor, 'refs', {k}) m)"
)
BARE = (
    "(SELECT u.id::text AS upload, n.id::text AS reference FROM uploads u CROSS JOIN LATERAL "
    "(SELECT r.id FROM refs r ORDER BY r.descriptor <=> u.descriptor LIMIT {k}) n)"
)
WAYS = {"copy_match_table": TABLE, "copy_match_descriptor, one by one": ONE_BY_ONE, "bare nested loop": BARE}


def data(options) -> tuple[np.ndarray, np.ndarray]:
    """References and queries, kept for the next run."""
    folder = options.data or ivf_data.LOCAL / "bench" / f"batch-{options.references}x{options.dimensions}"
    if not (folder / "q.npy").exists() or len(np.load(folder / "q.npy", mmap_mode="r")) != options.queries:
        folder.mkdir(parents=True, exist_ok=True)
        x, q = ivf_data.Descriptors(options.dimensions).references_and_queries(options.references, options.queries)
        np.save(folder / "x.npy", x)
        np.save(folder / "q.npy", q)
    return np.load(folder / "x.npy", mmap_mode="r"), np.load(folder / "q.npy")


def found(db: psycopg.Connection, way: str, k: int) -> dict[int, set[int]]:
    """The references of each query."""
    references: dict[int, set[int]] = {}
    with db.cursor().copy(f"COPY (SELECT upload, reference FROM {way.format(k=k)} w) TO STDOUT") as rows:
        rows.set_types(["text", "text"])
        for upload, reference in rows.rows():
            references.setdefault(int(upload), set()).add(int(reference))
    return references


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shared-buffers", default="4GB")
    parser.add_argument("--maintenance-work-mem", default="64MB")
    parser.add_argument("--data", type=pathlib.Path, help="where x.npy and q.npy are or will be")
    parser.add_argument("--ways", default="", help="only those whose name contains this")
    options = parser.parse_args()
    x, q = data(options)
    judged = np.linspace(0, len(q) - 1, min(JUDGED, len(q))).astype(int)
    truth = ivf_data.nearest(x, q[judged], 10)
    installation = conftest.Installation()
    folder = installation.own(pathlib.Path(tempfile.mkdtemp(prefix="copymatch-bench-")))
    cluster = conftest.Cluster(
        installation,
        folder,
        {"shared_buffers": options.shared_buffers, "max_wal_size": "64GB", "checkpoint_timeout": "1h",
         "maintenance_work_mem": options.maintenance_work_mem, "autovacuum": "off"},
    )  # fmt: skip
    try:
        with cluster.connect() as db:
            db.execute("CREATE EXTENSION copymatch")
            db.execute(f"CREATE UNLOGGED TABLE refs (id int PRIMARY KEY, descriptor vector({options.dimensions}))")
            db.execute("ALTER TABLE refs ALTER descriptor SET STORAGE PLAIN")
            db.execute("CREATE UNLOGGED TABLE uploads (id int PRIMARY KEY, descriptor vector)")
            ivf_data.copy(db, "refs", x)
            ivf_data.copy(db, "uploads", q)
            started = time.perf_counter()
            db.execute("SELECT copy_create_set('refs', 'refs', 'id', NULL)")
            db.execute("VACUUM ANALYZE refs, uploads")
            print(f"{len(x)} x {options.dimensions}, index built in {time.perf_counter() - started:.0f} s; "
                  f"{len(q)} queries, {options.rounds} rounds by turns", flush=True)  # fmt: skip
            measure(db, options, q, judged, truth)
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


def measure(db: psycopg.Connection, options, q: np.ndarray, judged: np.ndarray, truth: np.ndarray) -> None:
    """One table for each k."""
    ways = {name: way for name, way in WAYS.items() if options.ways in name}
    for k in (1, 10):
        answers = {name: found(db, way, k) for name, way in ways.items()}
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                db.execute(f"SELECT count(*) FROM {way.format(k=k)} w").fetchone()
                times[name].append(time.perf_counter() - started)
        print(f"\n| k = {k} | seconds, median | queries/s | recall@{k} | other answers |\n|---|---|---|---|---|")
        first = answers[next(iter(ways))]
        for name, took in times.items():
            recall = np.mean(
                [len(answers[name][at] & set(row[:k].tolist())) / k for at, row in zip(judged, truth, strict=True)]
            )
            others = sum(first[at] != answers[name][at] for at in range(len(q)))
            seconds = statistics.median(took)
            print(f"| {name} | {seconds:.2f} | {len(q) / seconds:.0f} | {recall:.4f} | {others} |", flush=True)


if __name__ == "__main__":
    main()
