#!/usr/bin/env python3
"""What scripts/gpu-check.sh measures: the service on CUDA beside the bare session, parity with the
CPU, a kill under load."""

import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import psycopg

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benches")]
from conftest import LOCAL, Cluster, Installation  # noqa: E402

from service import photographs  # noqa: E402

MODEL = ROOT / "models" / "default"
BATCHES = (1, 8, 32, 64, 128)


def bare(batch: int, images: int) -> float:
    """Images a second of ONNX Runtime alone on CUDA, with the library that the server has
    (crates/encoder/examples/bare.rs)."""
    library = LOCAL / "onnxruntime-gpu" / "libonnxruntime.so"
    said = subprocess.run(
        ["cargo", "run", "--quiet", "--release", "--package", "encoder", "--example", "bare", "--",
         MODEL, library, "cuda", str(images), str(batch)],
        check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    ).stdout  # fmt: skip
    return float(said.split()[1])


def served(cluster, sessions: int, images: int) -> float:
    """Images a second through the service, from so many sessions."""
    connections = [cluster.connect("check") for _ in range(sessions)]
    statement = "SELECT cardinality(copy_embed_batch(array_agg(image))) FROM picture"
    for db in connections:
        db.execute(statement)
    rounds = max(1, images // (64 * sessions))
    threads = [
        threading.Thread(target=lambda db=db: [db.execute(statement) for _ in range(rounds)]) for db in connections
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = sessions * rounds * 64 / (time.perf_counter() - started)
    for db in connections:
        db.close()
    return rate


def main() -> None:
    images = int(sys.argv[1])
    installation = Installation()
    folder = installation.own(pathlib.Path(tempfile.mkdtemp(prefix="gpu-", dir=LOCAL)))
    settings = {
        "shared_preload_libraries": "copymatch",
        "copymatch.execution_provider": "cuda",
        "copymatch.service_batch": "128",
        "copymatch.service_slots": "512",
        "max_connections": "100",
    }
    cluster = Cluster(installation, folder, settings)
    try:
        with cluster.connect() as admin:
            admin.execute("CREATE DATABASE check")
        with cluster.connect("check") as db:
            db.execute("CREATE EXTENSION copymatch; CREATE TABLE picture (id int PRIMARY KEY, image bytea)")
            pictures = photographs(64, (256, 256))
            with db.cursor() as cursor:
                cursor.executemany("INSERT INTO picture VALUES (%s, %s)", list(enumerate(pictures)))
            started = time.perf_counter()
            first = db.execute("SELECT provider, fallback_reason, runtime_version FROM copy_runtime()").fetchone()
            print(
                f"provider {first[0]} ({first[1]}), ONNX Runtime {first[2]}; ready "
                f"after {time.perf_counter() - started:.1f} s"
            )
            descriptors = [
                np.array(json.loads(text))
                for (text,) in db.execute("SELECT copy_embed(image)::text FROM picture ORDER BY id")
            ]
            db.execute("SET copymatch.service = off; SET copymatch.execution_provider = cpu")
            on_cpu = [
                np.array(json.loads(text))
                for (text,) in db.execute("SELECT copy_embed(image)::text FROM picture ORDER BY id")
            ]
        worst = max(float(np.abs(a - b).max()) for a, b in zip(descriptors, on_cpu, strict=True))
        print(f"largest difference of a component from the CPU's, 64 pictures: {worst:.6f}\n")
        print("| batch | bare session, images/s | sessions | service, images/s | mean batch |\n|---|---|---|---|---|")
        for batch, sessions in zip(BATCHES, (1, 2, 4, 8, 16), strict=True):
            alone = bare(batch, images // 4)
            with cluster.connect("check") as db:
                counted = "SELECT images, batches FROM copymatch.service_stats"
                before = db.execute(counted).fetchone()
                rate = served(cluster, sessions, images // 4)
                after = db.execute(counted).fetchone()
            mean = (after[0] - before[0]) / max(1, after[1] - before[1])
            print(f"| {batch} | {alone:.0f} | {sessions} | {rate:.0f} | {mean:.1f} |", flush=True)
        print()
        errors, back = [], []
        stop = threading.Event()

        def work():
            with cluster.connect("check") as db:
                while not stop.is_set():
                    try:
                        db.execute("SELECT count(copy_embed(image)) FROM picture")
                    except psycopg.Error as error:
                        errors.append(str(error).splitlines()[0])

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        with cluster.connect("check") as db:
            status = "SELECT state, process FROM copymatch.service"
            for _ in range(3):
                time.sleep(3)
                victim = db.execute(status).fetchone()[1]
                os.kill(victim, signal.SIGKILL)
                started = time.perf_counter()
                while True:
                    state, process = db.execute(status).fetchone()
                    if state == "running" and process not in (None, victim):
                        break
                    time.sleep(0.01)
                back.append(time.perf_counter() - started)
        stop.set()
        for thread in threads:
            thread.join()
        restarted = "terminating any other active server processes" in cluster.log.read_text()
        print(
            f"killed 3 times under load: back after {statistics.median(back):.2f} s, {len(errors)} "
            f"errors {errors[:2]}, "
              f"server restarted its processes: {restarted}")  # fmt: skip
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
