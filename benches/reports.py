#!/usr/bin/env python3
"""Reports over many findings: makes them (`--findings 10000000`; a million without), times every report, prints plans
with `--plans`. Run by `make bench-reports ARGS="--findings 10000000 --plans"`."""

import argparse
import os
import statistics
import time

import psycopg

DATABASE = "copymatch_bench_reports"
QUERIES = {
    "report_daily, all": "SELECT * FROM copymatch.report_daily",
    "report_daily, last 30 days by day": "SELECT day, sum(findings) FROM copymatch.report_daily "
    "WHERE day > current_date - 30 "
    "GROUP BY 1 ORDER BY 1",
    "report_precision": "SELECT * FROM copymatch.report_precision",
    "report_references, top 20": "SELECT * FROM copymatch.report_references ORDER BY findings DESC LIMIT 20",
    "report_uploaders, top 20": "SELECT * FROM copymatch.report_uploaders ORDER BY findings DESC LIMIT 20",
    "report_reviewers": "SELECT * FROM copymatch.report_reviewers ORDER BY day",
    "report_open": "SELECT * FROM copymatch.report_open",
    "report_queue": "SELECT * FROM copymatch.report_queue",
    "report_models": "SELECT * FROM copymatch.report_models",
    "oldest 100 open findings": "SELECT * FROM copymatch.finding WHERE state = 'open' ORDER BY found, id LIMIT 100",
    "findings of one reference": "SELECT * FROM copymatch.finding WHERE reference_set = 'licensed' "
    "AND reference = '4711' "
    "ORDER BY id DESC "
    "LIMIT 100",
    "dashboard()": "SELECT length(copymatch.dashboard())",
    "the daily counts without the pre-aggregate": "SELECT found::date, reference_set, verdict, state, count(*) "
    "FROM copymatch.finding "
    "GROUP BY 1, 2, 3, 4",
}


def fill(db: psycopg.Connection, findings: int) -> None:
    db.execute("CREATE EXTENSION copymatch; CREATE TABLE uploads (id bigint, image bytea)")
    start = time.perf_counter()
    part = 1_000_000
    for first in range(0, findings, part):
        # A year of uploads, five sets, 200,000 references of which few are found often, 50,000 uploaders.
        db.execute(
            """INSERT INTO copymatch.finding (found, reference_set, relation, upload, reference, similarity, background,
                                              score, probability,
                                              verdict, model, calibration, uploader, state, decided, decided_by)
               SELECT f, (ARRAY['licensed', 'banned', 'published', 'press', 'archive'])[1 + n % 5], 'uploads'::regclass,
               n::text,
                      (200000 * power(random(), 3))::int::text, 0.8, 0.3, -0.4, 0.9, CASE WHEN n % 3 = 0 THEN 'review'
                      ELSE 'copy' END,
                      'copymatch-small', 0, 'user' || (50000 * power(random(), 2))::int, s.state,
                      CASE WHEN s.state <> 'open' THEN f + interval '1 day' END, CASE WHEN s.state <> 'open'
                      THEN 'reviewer' || n % 12 END
               FROM (SELECT n, now() - interval '1 year' + n * (interval '1 year' / %(all)s) AS f,
                            CASE WHEN n < %(all)s * 0.97 THEN n * 7919 %% 3 ELSE 2 END AS kind
                            FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) g,
                    LATERAL (SELECT CASE kind WHEN 0 THEN 'confirmed' WHEN 1 THEN 'dismissed' ELSE CASE WHEN n %% 10 = 0
                    THEN 'open' ELSE 'confirmed' END END AS state) s""".replace(" % ", " %% "),
            {"all": findings, "first": first + 1, "last": min(first + part, findings)},
        )
        db.execute("SELECT copymatch.fold_counts()")
        print(f"{min(first + part, findings):,} findings, {time.perf_counter() - start:.0f} s", flush=True)
    db.execute(
        """INSERT INTO copymatch.finding_history (finding, changed, changed_by, from_state, to_state)
           SELECT id, decided, decided_by, 'open', state FROM copymatch.finding WHERE state <> 'open'"""
    )
    db.execute("VACUUM (ANALYZE) copymatch.finding")
    db.execute("VACUUM (ANALYZE) copymatch.finding_history")
    db.execute("VACUUM (ANALYZE) copymatch.finding_count")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--findings", type=int, default=1_000_000)
    parser.add_argument("--plans", action="store_true")
    parser.add_argument("--keep", action="store_true", help="leave the database, and use it where it is there")
    arguments = parser.parse_args()
    dsn = os.environ["COPYMATCH_DSN"]
    with psycopg.connect(psycopg.conninfo.make_conninfo(dsn, dbname="postgres"), autocommit=True) as admin:
        there = admin.execute("SELECT count(*) FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()[0]
        if there and not arguments.keep:
            admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")
        if not there or not arguments.keep:
            admin.execute(f"CREATE DATABASE {DATABASE}")
        with psycopg.connect(psycopg.conninfo.make_conninfo(dsn, dbname=DATABASE), autocommit=True) as db:
            if not there or not arguments.keep:
                fill(db, arguments.findings)
            sizes = db.execute(
                "SELECT pg_size_pretty(pg_table_size('copymatch.finding')), "
                "pg_size_pretty(pg_indexes_size('copymatch.finding')),"
                " pg_size_pretty(pg_total_relation_size('copymatch.finding_count')), (SELECT count(*) "
                "FROM copymatch.finding_count)"
            ).fetchone()
            print("findings {}, their indexes {}; counts {} in {:,} rows".format(*sizes))
            print("| query | rows | ms, median of 3 |\n|---|---|---|")
            for name, query in QUERIES.items():
                times = []
                for _ in range(3):
                    start = time.perf_counter()
                    rows = len(db.execute(query).fetchall())
                    times.append((time.perf_counter() - start) * 1000)
                print(f"| {name} | {rows} | {statistics.median(times):.1f} |", flush=True)
            if arguments.plans:
                for name, query in QUERIES.items():
                    print(f"\n-- {name}\n-- {query}")
                    for (line,) in db.execute(f"EXPLAIN (ANALYZE, COSTS OFF, SUMMARY OFF, BUFFERS) {query}"):
                        print(line)
        if not arguments.keep:
            admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


if __name__ == "__main__":
    main()
