#!/usr/bin/env python3
"""What deciding costs: copy_explain, copy_calibrate from edits and from labels, the metrics as aggregates. Run by `make
bench-decision`; ARGS="explain", "calibrate" or "aggregates" for one of them."""

import itertools
import os
import pathlib
import statistics
import sys
import time

import psycopg

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCAL = pathlib.Path(os.environ.get("COPYMATCH_LOCAL") or ROOT / ".local")
DATABASE = "copymatch_bench_decision"
sys.path.insert(0, str(ROOT / "tests"))
from pictures import jpeg, scene  # noqa: E402

# The same scene from two places, and the same board in grey and in colour: these do agree.
TWINS = {("chessboard_GRAY.png", "chessboard_RGB.png"), ("motorcycle_left.png", "motorcycle_right.png")}


def timed(connection, statement, parameters=()):
    """(seconds, rows) of one statement."""
    start = time.perf_counter()
    rows = connection.execute(statement, parameters).fetchall()
    return time.perf_counter() - start, rows


def explain(connection):
    folder = LOCAL / "photographs"
    photographs = {path.name: path.read_bytes() for path in sorted(folder.glob("*.*")) if path.name != ".stamp"}
    seconds, agreeing = [], []
    for (one, first), (other, second) in itertools.combinations(photographs.items(), 2):
        spent, rows = timed(connection, "SELECT agrees FROM copy_explain_matches(%s, %s)", (first, second))
        seconds.append(spent)
        if rows[0][0] and (one, other) not in TWINS:
            agreeing.append((one, other))
    print(
        f"copy_explain_matches, {len(seconds)} pairs of different photographs: "
        f"median {statistics.median(seconds) * 1e3:.0f} ms, most {max(seconds) * 1e3:.0f} ms; {len(agreeing)} said to "
        f"agree {agreeing}"
    )
    seconds = [
        timed(connection, "SELECT length(copy_explain(copy_edit(%s, 'jpeg', 0.3::real, 1), %s))", (data, data))[0]
        for data in photographs.values()
    ]
    print(
        f"copy_edit and copy_explain with PNG, {len(seconds)} photographs: "
        f"median {statistics.median(seconds) * 1e3:.0f} ms, most {max(seconds) * 1e3:.0f} ms"
    )
    (edits,) = timed(connection, "SELECT array_agg(edit ORDER BY edit) FROM copy_edits()")[1][0]
    chosen = list(photographs.values())[::3]
    for edit in edits:
        found = [
            sum(
                timed(
                    connection,
                    "SELECT agrees FROM copy_explain_matches(copy_edit(%s, %s, %s::real, 3), %s)",
                    (data, edit, strength, data),
                )[1][0][0]
                for data in chosen
            )
            for strength in (0.3, 0.7)
        ]
        print(f"  {edit:<14} agrees with its original at strength 0.3: {found[0]} of {len(chosen)}; 0.7: {found[1]}")


def calibrate(connection):
    connection.execute("CREATE TABLE original (id int PRIMARY KEY, image bytea)")
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO original VALUES (%s, %s)", [(n, jpeg(scene(n, 640, 480))) for n in range(500)])
    connection.execute("SELECT copy_create_set('originals', 'original', 'id', 'image')")
    spent, rows = timed(
        connection,
        "SELECT copy_probability, review_probability, evidence->'recall_at_1', evidence#>'{threshold_half,copy,held}' "
        "FROM copy_calibrate('originals', source => 'edits')",
    )
    print(f"copy_calibrate, 500 references of 640 × 480, 1000 edited copies, 1000 unrelated: {spent:.1f} s {rows[0]}")
    connection.execute(
        """CREATE TABLE label AS SELECT s AS similarity, 0.3::float8 AS background,
           random() < 1 / (1 + exp(6 - 12 * s)) AS is_copy
           FROM (SELECT random() AS s FROM generate_series(1, 100000)) x"""
    )
    spent, _ = timed(connection, "SELECT id FROM copy_calibrate('originals', 'label')")
    print(f"copy_calibrate, 100,000 labels: {spent:.2f} s")


def aggregates(connection):
    connection.execute(
        "CREATE TABLE prediction AS SELECT random() AS score, random() < 0.1 AS is_copy "
        "FROM generate_series(1, 5000000); ANALYZE prediction"
    )
    for workers in (0, 2):
        connection.execute(f"SET max_parallel_workers_per_gather = {workers}")
        spent, _ = timed(connection, "SELECT copy_micro_ap(score, is_copy, 600000) FROM prediction")
        plain, _ = timed(connection, "SELECT avg(score) FROM prediction WHERE is_copy IS NOT NULL")
        print(
            f"copy_micro_ap over 5,000,000 predictions, {workers} workers: {spent:.2f} s (avg of the same "
            f"column: {plain:.2f} s)"
        )


def main():
    dsn = os.environ["COPYMATCH_DSN"]
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {DATABASE}")
    try:
        with psycopg.connect(dsn, dbname=DATABASE, autocommit=True) as connection:
            connection.execute("CREATE EXTENSION copymatch")
            for part in sys.argv[1:] or ["explain", "calibrate", "aggregates"]:
                {"explain": explain, "calibrate": calibrate, "aggregates": aggregates}[part](connection)
    finally:
        with psycopg.connect(dsn, dbname="postgres", autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")


if __name__ == "__main__":
    main()
