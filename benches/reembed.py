#!/usr/bin/env python3
"""Images a second of CALL copy_reembed, against copy_embed over the same images in the same run; the time
that a switch holds writers.

`make bench-reembed ARGS="--rows 2000"`"""

import argparse
import json
import os
import pathlib
import sys
import time

import psycopg

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from pictures import jpeg, scene  # noqa: E402

DATABASE = "copymatch_bench_reembed"
MODEL = ROOT / "models" / "default"


def connect(database: str) -> psycopg.Connection:
    dsn = psycopg.conninfo.make_conninfo(os.environ["COPYMATCH_DSN"], dbname=database)
    return psycopg.connect(dsn, autocommit=True)


def seconds(db: psycopg.Connection, *statement) -> float:
    started = time.perf_counter()
    db.execute(*statement)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--wide", type=int, default=100_000, help="rows of the table whose switch is timed")
    arguments = parser.parse_args()
    with connect("postgres") as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {DATABASE}")
    with connect(DATABASE) as db:
        db.execute("CREATE EXTENSION copymatch")
        manifest = json.loads((MODEL / "manifest.json").read_text()) | {"name": "second"}
        parts = [(MODEL / name).read_bytes() for name in ("model.onnx", "background.bin")]
        calibration = (MODEL / "calibration.json").read_text()
        db.execute(
            "SELECT copy_add_model('second', %s, %s, %s, %s)", [parts[0], json.dumps(manifest), parts[1], calibration]
        )
        db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
        pictures = [jpeg(scene(seed, 640, 480)) for seed in range(20)]
        for number in range(arguments.rows):
            db.execute("INSERT INTO refs SELECT %s, %s || int4send(%s)", [number, pictures[number % 20], number])
        db.execute("SELECT copy_create_set('refs', 'refs', 'id', 'image')")
        db.execute("SELECT copy_embed(image, 'second') FROM refs LIMIT 1")
        bare = []
        whole = []
        for _ in range(3):
            bare.append(arguments.rows / seconds(db, "SELECT count(copy_embed(image, 'second')) FROM refs"))
            whole.append(arguments.rows / seconds(db, "CALL copy_reembed('refs', 'second')"))
            db.execute("SELECT copy_revert_reembed('refs')")
        print(
            f"{arguments.rows} images of 640 x 480: copy_embed {max(bare):.1f}/s, "
            f"copy_reembed {max(whole):.1f}/s, {max(whole) / max(bare):.2f} of it"
        )

        # The switch looks for rows without the new descriptor while writers wait: a scan of the table.
        db.execute("CREATE TABLE wide (id int PRIMARY KEY, image bytea, descriptor vector(256))")
        db.execute("ALTER TABLE wide ALTER descriptor SET STORAGE PLAIN")
        db.execute("SELECT copy_create_set('wide', 'wide', 'id', 'image', embed => false)")
        db.execute("DROP INDEX wide_descriptor_idx")
        db.execute("SELECT copymatch.begin_reembed('wide', 'second', NULL)")
        db.execute("ALTER TABLE wide DISABLE TRIGGER USER")
        db.execute(
            "INSERT INTO wide SELECT n, '\\x00', d, d FROM generate_series(1, %s) n, (SELECT descriptor AS d "
            "FROM refs LIMIT 1) r",
            [arguments.wide],
        )
        db.execute("ALTER TABLE wide ENABLE TRIGGER USER")
        db.execute("VACUUM wide")
        db.execute("CALL copy_reembed('wide')")
        held = []
        for _ in range(5):
            db.execute("SELECT copy_revert_reembed('wide')")
            held.append(seconds(db, "SELECT copymatch.switch_reembed('wide')"))
        print(
            f"switch of {arguments.wide} rows with two descriptors: {min(held) * 1000:.0f} to {max(held) * 1000:.0f} ms"
        )
    with connect("postgres") as admin:
        admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


if __name__ == "__main__":
    main()
