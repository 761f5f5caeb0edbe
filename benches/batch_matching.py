#!/usr/bin/env python3
"""copy_match_table: 10,000 stored descriptors against a large set, in one statement.

References are seeded points on a 24-dimensional manifold in 256 dimensions, uploads half edited references and half new
points; no image is embedded. `make bench-batch_matching ARGS="--references 1000000 --uploads 10000"`"""

import argparse
import os
import time

import numpy as np
import psycopg

DATABASE = "copymatch_bench_batch"
DIMENSIONS, LATENT = 256, 24


def connect(database: str) -> psycopg.Connection:
    dsn = psycopg.conninfo.make_conninfo(os.environ["COPYMATCH_DSN"], dbname=database)
    return psycopg.connect(dsn, autocommit=True)


def copy_in(db: psycopg.Connection, table: str, chunks) -> None:
    with db.cursor().copy(f"COPY {table} (id, descriptor) FROM STDIN WITH (FORMAT binary)") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
        number = 0
        for chunk in chunks:
            rows = bytearray()
            for vector in chunk.astype(">f4"):
                rows += b"\0\2\0\0\0\4" + number.to_bytes(4, "big") + (4 + 4 * DIMENSIONS).to_bytes(4, "big")
                rows += DIMENSIONS.to_bytes(2, "big") + b"\0\0" + vector.tobytes()
                number += 1
            copy.write(bytes(rows))
        copy.write(b"\xff\xff")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--references", type=int, default=1_000_000)
    parser.add_argument("--uploads", type=int, default=10_000)
    arguments = parser.parse_args()
    rng = np.random.default_rng(7)
    first, second = rng.normal(size=(LATENT, 512)), rng.normal(size=(512, DIMENSIONS))

    def points(latent: np.ndarray) -> np.ndarray:
        found = np.maximum(latent @ first, 0) @ second
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype("f4")

    with connect("postgres") as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {DATABASE}")
    with connect(DATABASE) as db:
        db.execute("CREATE EXTENSION copymatch")
        db.execute("CREATE UNLOGGED TABLE refs (id int PRIMARY KEY, descriptor vector(256))")
        db.execute("ALTER TABLE refs ALTER descriptor SET STORAGE PLAIN")
        db.execute("CREATE UNLOGGED TABLE uploads (id int PRIMARY KEY, descriptor vector(256))")
        latents = []

        def references():
            for _ in range(0, arguments.references, 50_000):
                latent = rng.normal(size=(min(50_000, arguments.references), LATENT))
                latents.append(latent[:100])
                yield points(latent)

        copy_in(db, "refs", references())
        known = np.concatenate(latents)
        half = arguments.uploads // 2
        edited = known[rng.integers(0, len(known), half)] + rng.normal(0, 0.05, (half, LATENT))
        copy_in(db, "uploads", [points(edited), points(rng.normal(size=(arguments.uploads - half, LATENT)))])
        started = time.perf_counter()
        db.execute("SELECT copy_create_set('refs', 'refs', 'id', NULL)")
        db.execute("VACUUM ANALYZE refs")
        print(f"{arguments.references} references, index built in {time.perf_counter() - started:.0f} s")
        db.execute("SELECT count(*) FROM copy_match_table('uploads', 'id', 'descriptor', 'refs', 1) LIMIT 1")
        for k in (1, 10):
            statement = (
                "SELECT count(*), count(*) FILTER (WHERE verdict <> 'different') "
                "FROM copy_match_table('uploads', 'id', 'descriptor', 'refs', %s)"
            )
            started = time.perf_counter()
            rows, raised = db.execute(statement, [k]).fetchone()
            took = time.perf_counter() - started
            print(
                f"copy_match_table, k = {k}: {arguments.uploads} descriptors in {took:.1f} "
                f"s, {arguments.uploads / took:.0f}/s ({rows} rows, {raised} raised)"
            )
        bare = (
            "SELECT count(*) FROM uploads u CROSS JOIN LATERAL (SELECT id FROM refs r "
            "ORDER BY r.descriptor <=> u.descriptor LIMIT 10) n"
        )
        started = time.perf_counter()
        db.execute(bare)
        took = time.perf_counter() - started
        print(f"the bare nested loop in SQL, k = 10: {took:.1f} s, {arguments.uploads / took:.0f}/s")
        print("\n".join(row[0] for row in db.execute(f"EXPLAIN {bare}")))
    with connect("postgres") as admin:
        admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


if __name__ == "__main__":
    main()
