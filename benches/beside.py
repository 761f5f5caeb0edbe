#!/usr/bin/env python3
"""What two versions of copymatch take for the same work, side by side in one run: this checkout's
server and another one's.

    make bench-beside ARGS="--other 'host=/path/to/other/.local/run user=postgres'"

In each server a throwaway database with the same rows; the two take turns, and the one that begins changes from round
to round. Printed for each kind of work: the processor time of the session that does it (the kernel's count in
nanoseconds, which other work on the machine moves little; networks run on one thread), the median over the rounds of
the time here divided by the time there, and the quartiles of that ratio."""

import argparse
import io
import os
import pathlib
import statistics

import numpy as np
import psycopg
from PIL import Image, ImageFilter

DATABASE = "copymatch_beside"
SEED = 5


def descriptors(count: int, dimensions: int) -> np.ndarray:
    """Unit vectors in loose clusters, as descriptors lie."""
    rng = np.random.default_rng(SEED)
    centres = rng.normal(size=(count // 50 + 1, dimensions))
    found = centres[rng.integers(0, len(centres), count)] + rng.normal(scale=0.8, size=(count, dimensions))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def picture(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((640, 480), Image.BICUBIC).filter(ImageFilter.GaussianBlur(1)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def prepare(dsn: str, rows: np.ndarray) -> psycopg.Connection:
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as db:
        db.execute(f"DROP DATABASE IF EXISTS {DATABASE}")
        db.execute(f"CREATE DATABASE {DATABASE}")
    db = psycopg.connect(dsn, dbname=DATABASE, autocommit=True)
    db.execute("CREATE EXTENSION copymatch")
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    with db.cursor().copy("COPY refs (id, descriptor) FROM STDIN") as copy:
        for number, row in enumerate(rows, 1):
            copy.write_row((number, "[" + ",".join(f"{x:.6f}" for x in row) + "]"))
    db.execute("SET maintenance_work_mem = '512MB'")
    db.execute("CREATE INDEX ON refs USING ivf (descriptor vector_cosine_ops)")
    db.execute("CREATE TABLE pictures (id serial, image bytea)")
    for seed in range(16):
        db.execute("INSERT INTO pictures (image) VALUES (%s)", [picture(seed)])
    for name, options in [("plain", None), ("sync", "'k=1'"), ("async", "'k=1', 'mode=async'")]:
        db.execute(f"CREATE TABLE uploads_{name} (id serial PRIMARY KEY, image bytea)")
        if options:
            db.execute(
                f"CREATE TRIGGER f AFTER INSERT ON uploads_{name} FOR EACH ROW"
                f" EXECUTE FUNCTION copy_flag('image', 'id', 'licensed', {options})"
            )
    db.execute("VACUUM ANALYZE")
    db.execute("SELECT * FROM copy_match((SELECT image FROM pictures WHERE id = 1))")  # loads the network
    return db


def processor_seconds(db: psycopg.Connection) -> float:
    """What the session's process has run for: its first thread and all others."""
    tasks = pathlib.Path(f"/proc/{db.info.backend_pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def works(queries: list[str]) -> dict:
    """Each kind of work, as a function of a connection."""

    def each(statement):
        def work(db):
            for query in queries:
                db.execute(statement, [query]).fetchall()

        return work

    def inserts(table):
        return lambda db: db.execute(f"INSERT INTO uploads_{table} (image) SELECT image FROM pictures")

    return {
        "bare index query, LIMIT 10": each("SELECT id FROM refs ORDER BY descriptor <=> %s::vector LIMIT 10"),
        "copy_match_descriptor": each("SELECT * FROM copy_match_descriptor(%s::vector, 'licensed')"),
        "copy_match": lambda db: db.execute("SELECT m.* FROM pictures p, copy_match(p.image, 'licensed') m").fetchall(),
        "copy_match_table": lambda db: db.execute(
            "SELECT * FROM copy_match_table('pictures', 'id', 'image', 'licensed')"
        ).fetchall(),
        "INSERT, no trigger": inserts("plain"),
        "INSERT, copy_flag": inserts("sync"),
        "INSERT, copy_flag, mode=async": inserts("async"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", required=True, help="connection string of the other server, a superuser's")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    rows = descriptors(options.rows, options.dimensions)
    rng = np.random.default_rng(SEED + 1)
    queries = [
        "[" + ",".join(f"{x:.6f}" for x in rows[at] + rng.normal(scale=0.03, size=options.dimensions)) + "]"
        for at in rng.integers(0, len(rows), 200)
    ]
    here, there = prepare(os.environ["COPYMATCH_DSN"], rows), prepare(options.other, rows)
    versions = [
        db.execute("SELECT extversion FROM pg_extension WHERE extname = 'copymatch'").fetchone()[0]
        for db in (here, there)
    ]
    print(
        f"{options.rows} x {options.dimensions}, {options.rounds} rounds; here {versions[0]}, there {versions[1]}\n"
        f"{'work':32} {'here, ms':>10} {'there, ms':>10} {'ratio':>7}  quartiles"
    )
    for name, work in works(queries).items():
        times: dict = {here: [], there: []}
        for number in range(options.rounds + 2):
            for db in (here, there) if number % 2 else (there, here):
                began = processor_seconds(db)
                work(db)
                times[db].append(processor_seconds(db) - began)
        a, b = times[here][2:], times[there][2:]  # the first two rounds fill caches
        ratios = [x / y for x, y in zip(a, b, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name:32} {statistics.median(a) * 1e3:10.2f} {statistics.median(b) * 1e3:10.2f} {middle:7.3f}"
            f"  {low:.3f} to {high:.3f}",
            flush=True,
        )
    for db, dsn in ((here, os.environ["COPYMATCH_DSN"]), (there, options.other)):
        db.close()
        with psycopg.connect(dsn, dbname="postgres", autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {DATABASE}")


if __name__ == "__main__":
    main()
