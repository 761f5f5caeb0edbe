#!/usr/bin/env python3
"""What flagging costs: INSERT of uploads with each form of the trigger against none, the queue's throughput, the delay
from commit to finding. On a throwaway cluster with fsync, alternating. Run by `make bench-flagging`; `ARGS="--crash
20"` kills a server in the middle of the queue as often (tests/test_queue.py)."""

import argparse
import io
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import psycopg
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from conftest import LOCAL, Cluster, Installation  # noqa: E402

TRIGGERS = {
    "none": None,
    "mode=async": "CREATE TRIGGER f AFTER INSERT ON uploads "
    "FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', 'licensed', "
    "'mode=async')",
    "per statement": "CREATE TRIGGER f AFTER INSERT ON uploads REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT "
    "EXECUTE FUNCTION enqueue_all()",
    "mode=sync": "CREATE TRIGGER f AFTER INSERT ON uploads "
    "FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', 'licensed')",
    "BEFORE, on_copy=reject": "CREATE TRIGGER f BEFORE INSERT ON uploads "
    "FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', 'empty', "
    "'on_copy=reject')",
}
# What a statement-level trigger in plpgsql would do, for comparison.
ENQUEUE_ALL = """CREATE FUNCTION enqueue_all() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO copymatch.queue (relation, key, reference_set, arguments)
        SELECT TG_RELID, ARRAY[id::text], 'licensed', '{image,id,licensed,mode=async}' FROM new_rows
        WHERE image IS NOT NULL;
    RETURN NULL;
END $$"""


def picture(seed: int) -> bytes:
    """A JPEG of 60 to 100 kB with a photograph's entropy; every seed another part of one of the photographs."""
    rng = np.random.default_rng(seed)
    sources = sorted((LOCAL / "photographs").glob("*.jp*g")) or sorted((LOCAL / "photographs").glob("*.png"))
    image = Image.open(sources[seed % len(sources)]).convert("RGB")
    width, height = image.size
    x, y = int(rng.integers(0, width // 3)), int(rng.integers(0, height // 3))
    image = image.crop((x, y, x + width // 2, y + height // 2)).resize((640, 480), Image.LANCZOS)
    grain = rng.normal(0, 4, (480, 640, 1))
    buffer = io.BytesIO()
    Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype("uint8")).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def prepare(db: psycopg.Connection, references: int, stock: list[bytes]) -> None:
    db.execute("CREATE EXTENSION copymatch")
    db.execute("CREATE TABLE refs (id serial PRIMARY KEY, image bytea)")
    for seed in range(references):
        db.execute("INSERT INTO refs (image) VALUES (%s)", [picture(100_000 + seed)])
    db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    # For the trigger that refuses: the pictures here are parts of the same few photographs.
    db.execute("CREATE TABLE none (id int, image bytea); SELECT copy_create_set('empty', 'none', 'id', 'image')")
    db.execute(
        "CREATE TABLE uploads (id bigserial PRIMARY KEY, user_id int, created timestamptz DEFAULT now(), image bytea)"
    )
    db.execute("CREATE TABLE stock (n int PRIMARY KEY, image bytea)")
    for number, image in enumerate(stock):
        db.execute("INSERT INTO stock VALUES (%s, %s)", [number, image])
    db.execute(ENQUEUE_ALL)
    db.execute("CHECKPOINT")


def insert(db: psycopg.Connection, form: str, stock: list[bytes], rows: int) -> float:
    images = [(stock[n % len(stock)],) for n in range(rows)]
    start = time.perf_counter()
    if form == "one statement":
        db.execute("INSERT INTO uploads (user_id, image) SELECT n, image FROM stock WHERE n < %s", [rows])
    elif form == "one transaction":
        with db.transaction(), db.cursor(binary=True) as cursor:
            for (image,) in images:
                cursor.execute("INSERT INTO uploads (user_id, image) VALUES (1, %s)", [image], prepare=True)
    else:
        with db.cursor(binary=True) as cursor:
            for (image,) in images:
                cursor.execute("INSERT INTO uploads (user_id, image) VALUES (1, %s)", [image], prepare=True)
    return time.perf_counter() - start


def overhead(db: psycopg.Connection, stock: list[bytes], rounds: int) -> None:
    print(
        f"INSERT of {len(stock)} uploads, mean {statistics.mean(map(len, stock)) / 1000:.0f} kB; "
        f"median of {rounds}, alternating; seconds, and to none"
    )
    print("| rows come as | " + " | ".join(TRIGGERS) + " |\n|---|" + "---|" * len(TRIGGERS))
    for form in ("one statement", "one transaction", "a commit each"):
        times: dict[str, list[float]] = {name: [] for name in TRIGGERS}
        for turn in range(rounds):
            for name, trigger in TRIGGERS.items():
                heavy = "async" not in name and name not in ("none", "per statement")
                if heavy and turn > 0:
                    continue  # an embedding each: once is enough
                db.execute("TRUNCATE uploads, copymatch.queue, copymatch.finding")
                db.execute("DROP TRIGGER IF EXISTS f ON uploads")
                if trigger:
                    db.execute(trigger)
                db.execute("CHECKPOINT")
                rows = 200 if heavy else len(stock)
                times[name].append(insert(db, form, stock, rows) * len(stock) / rows)
        base = statistics.median(times["none"])
        cells = [f"{statistics.median(t):.2f} ({statistics.median(t) / base:.2f}×)" for t in times.values()]
        print(f"| {form} | " + " | ".join(cells) + " |", flush=True)
    db.execute("TRUNCATE uploads, copymatch.queue, copymatch.finding; DROP TRIGGER IF EXISTS f ON uploads")


def throughput(db: psycopg.Connection, stock: list[bytes]) -> None:
    db.execute(TRIGGERS["mode=async"])
    uploads = min(300, len(stock))
    db.execute("CALL copy_process_queue()")
    db.execute("SELECT copy_embed(image) FROM stock LIMIT 1")  # the model is loaded
    for batch in (1, 8, 32, 128):
        db.execute("TRUNCATE uploads, copymatch.queue, copymatch.finding")
        insert(db, "one statement", stock, uploads)
        start = time.perf_counter()
        db.execute("CALL copy_process_queue(%s)", [batch])
        seconds = time.perf_counter() - start
        found = db.execute("SELECT count(*) FROM copymatch.finding").fetchone()[0]
        print(
            f"queue, one session, batches of {batch}: {uploads / seconds:.0f} uploads/s ({found} findings)", flush=True
        )
    start = time.perf_counter()
    db.execute("SELECT copy_embed_batch(array_agg(image)) FROM stock WHERE n < %s", [uploads])
    print(
        f"copy_embed_batch alone, the same images: {uploads / (time.perf_counter() - start):.0f} images/s", flush=True
    )
    db.execute("DROP TRIGGER f ON uploads")


def delay(db: psycopg.Connection, what: str, seconds: float, rate: float) -> None:
    """Uploads that are copies of references, at a steady rate; from the commit to when a poll every
    10 ms sees the finding."""
    images = [row[0] for row in db.execute("SELECT image FROM refs")]
    db.execute("TRUNCATE uploads, copymatch.queue, copymatch.finding")
    db.execute(TRIGGERS["mode=async"])
    committed, seen = {}, {}
    start = time.perf_counter()
    rng = np.random.default_rng(3)
    while (now := time.perf_counter()) - start < seconds + 5:
        if now - start < seconds and len(committed) < (now - start) * rate:
            key = db.execute(
                "INSERT INTO uploads (image) VALUES (%s) RETURNING id", [images[int(rng.integers(len(images)))]]
            ).fetchone()[0]
            committed[str(key)] = time.perf_counter()
        for (upload,) in db.execute(
            "SELECT DISTINCT upload FROM copymatch.finding WHERE NOT upload = ANY (%s)", [list(seen)]
        ):
            seen[upload] = time.perf_counter()
        if now - start >= seconds and len(seen) == len(committed):
            break
        time.sleep(0.01)
    delays = sorted((seen[key] - committed[key]) * 1000 for key in committed if key in seen)
    print(
        f"commit to finding, {what}, {rate:g} uploads/s: p50 {delays[len(delays) // 2]:.0f} ms, "
        f"p99 {delays[int(len(delays) * 0.99)]:.0f} ms"
        f" ({len(delays)} of {len(committed)})",
        flush=True,
    )
    db.execute("DROP TRIGGER f ON uploads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip-inserts", action="store_true", help="the queue alone")
    parser.add_argument("--crash", type=int, help="kill a server so many times instead")
    arguments = parser.parse_args()
    if arguments.crash:
        tests = [sys.executable, "-m", "pytest", "tests/test_queue.py", "-q", "-k", "killed", "--durations=0"]
        sys.exit(subprocess.call(tests, cwd=ROOT, env=os.environ | {"COPYMATCH_CRASH_ROUNDS": str(arguments.crash)}))
    installation = Installation()
    folder = installation.own(pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=LOCAL)))
    cluster = Cluster(
        installation, folder,
        {"shared_preload_libraries": "copymatch", "copymatch.queue_databases": "worked", "shared_buffers": "256MB",
         "max_wal_size": "4GB"},
    )  # fmt: skip
    try:
        stock = [picture(seed) for seed in range(arguments.rows)]
        with cluster.connect() as db:
            db.execute("CREATE DATABASE worked")
            prepare(db, 100, stock)
            if not arguments.skip_inserts:
                overhead(db, stock, arguments.rounds)
            throughput(db, stock)
        with cluster.connect("worked") as db:
            prepare(db, 100, [])
            time.sleep(6)  # the worker found no database at the start and tries again every 5 s
            for rate in (5, 20):
                delay(db, "one preloaded worker", 15, rate)
        with cluster.connect() as db:
            db.execute("SELECT copy_start_worker()")
            delay(db, "one worker by copy_start_worker(), woken as well", 15, 5)
    finally:
        cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
