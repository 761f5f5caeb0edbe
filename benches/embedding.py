#!/usr/bin/env python3
"""What embedding costs: cold start, milliseconds by picture size split into phases, images a second against the bare
ONNX Runtime session on the same batch in the same run, memory per backend. Run by `make bench-embedding`."""

import csv
import io
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import psycopg
from PIL import Image

# The library's own telemetry; the extension switches it off for itself.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCAL = pathlib.Path(os.environ.get("COPYMATCH_LOCAL") or ROOT / ".local")
MODEL = ROOT / "models" / "default"
DATABASE = "copymatch_bench"
SIZES = {"0.1 MP": (366, 274), "1 MP": (1156, 867), "12 MP": (4000, 3000)}


def connect(dsn: str, database: str = DATABASE) -> psycopg.Connection:
    return psycopg.connect(psycopg.conninfo.make_conninfo(dsn, dbname=database), autocommit=True)


def photograph(size: tuple[int, int]) -> bytes:
    """A JPEG (quality 90) of a real photograph, enlarged, with sensor-like grain so that its
    entropy is a photograph's."""
    source = sorted((LOCAL / "photographs").glob("china.jpg")) or sorted((LOCAL / "photographs").glob("*.jp*g"))
    image = Image.open(source[0]).convert("RGB").resize(size, Image.LANCZOS)
    grain = np.random.default_rng(1).normal(0, 5, (size[1], size[0], 1))
    image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype("uint8"))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def memory(pid: int) -> dict[str, float]:
    """MiB of a process: resident, and its own (not shared with other backends)."""
    rows = dict(
        (line.split(":")[0], int(line.split()[1]) / 1024)
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    return {"resident": rows["Rss"], "own": rows["Private_Clean"] + rows["Private_Dirty"]}


def on_cpu(pid: int) -> float:
    """Milliseconds that a process has run, waiting left out: what the work costs, also on a busy machine."""
    return int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e6


def milliseconds(connection: psycopg.Connection, image: bytes) -> float:
    """Server-side time of one copy_embed, without the transfer of the picture."""
    return connection.execute(
        """WITH start AS MATERIALIZED (SELECT clock_timestamp() AS t, %s::bytea AS image),
                work AS MATERIALIZED (SELECT t, copy_embed(image) FROM start)
           SELECT extract(epoch FROM clock_timestamp() - t) * 1000 FROM work""",
        [image],
    ).fetchone()[0]


def main() -> None:
    dsn = os.environ["COPYMATCH_DSN"]
    with connect(dsn, "postgres") as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {DATABASE}")
    with connect(dsn) as db:
        db.execute("CREATE EXTENSION copymatch")
    small = photograph(SIZES["0.1 MP"])

    print("## Cold start: first copy_embed of a new connection (0.1 MP)")
    cold, cpu, warm, before, after = [], [], [], [], []
    for _ in range(10):
        with connect(dsn) as db:
            db.execute("SELECT 1")
            before.append(memory(db.info.backend_pid))
            ran = on_cpu(db.info.backend_pid)
            cold.append(float(milliseconds(db, small)))
            cpu.append(on_cpu(db.info.backend_pid) - ran)
            warm.append(statistics.median(float(milliseconds(db, small)) for _ in range(5)))
            after.append(memory(db.info.backend_pid))
    print(
        f"first {statistics.median(cold):.0f} ms (worst of 10: {max(cold):.0f}), of it on the "
        f"CPU {statistics.median(cpu):.0f} ms; "
        f"then {statistics.median(warm):.1f} ms"
    )
    for kind in ("resident", "own"):
        first, last = (statistics.median(x[kind] for x in rows) for rows in (before, after))
        print(f"memory per backend, {kind}: {first:.1f} MiB before, {last:.1f} MiB after")

    print("\n## Milliseconds per image (median; one thread)")
    with tempfile.TemporaryDirectory() as folder, connect(dsn) as db:
        names = {}
        for name, size in SIZES.items():
            path = pathlib.Path(folder) / f"{size[0]}x{size[1]}.jpg"
            path.write_bytes(photograph(size))
            names[path.name] = (name, path)
        milliseconds(db, small)
        phases = subprocess.run(
            ["cargo", "run", "--quiet", "--release", "--package", "encoder", "--example", "phases", "--", MODEL,
             LOCAL / "onnxruntime" / "libonnxruntime.so", *(path for _, path in names.values())],
            check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        ).stdout  # fmt: skip
        print("| JPEG | in SQL, all | decode | decode in full | resize | network |\n|---|---|---|---|---|---|")
        for row in csv.DictReader(io.StringIO(phases)):
            name, path = names[row["file"]]
            image = path.read_bytes()
            total = statistics.median(float(milliseconds(db, image)) for _ in range(9))
            network = float(row["embed_decoded_ms"]) - float(row["resize_ms"])
            print(
                f"| {name}, {len(image) / 1e6:.2f} MB | {total:.1f} | {float(row['decode_reduced_ms']):.1f} "
                f"| {float(row['decode_full_ms']):.1f} "
                f"| {float(row['resize_ms']):.2f} | {network:.1f} |"
            )

    print("\n## Images a second, 64 pictures of 0.1 MP, one thread, same run")
    import onnxruntime

    manifest = json.loads((MODEL / "manifest.json").read_text())
    side = max(manifest["input"]["sizes"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODEL / "model.onnx", options, providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(2).normal(0, 1, (8, 3, side, side)).astype("f4")
    with connect(dsn) as db:
        images = [small] * 64
        db.execute("SELECT copy_embed_batch(%s)", [images[:8]])
        rounds = []
        for _ in range(3):
            started = time.perf_counter()
            db.execute("SELECT copy_embed_batch(%s)", [images])
            in_sql = 64 / (time.perf_counter() - started)
            started = time.perf_counter()
            for _ in range(8):
                session.run(None, {manifest["input"]["name"]: batch})
            rounds.append((in_sql, 64 / (time.perf_counter() - started)))
    in_sql, bare = (statistics.median(x) for x in zip(*rounds, strict=True))
    print(
        f"in SQL, decoding included: {in_sql:.1f}; bare session, ready-made tensors: {bare:.1f}; "
        f"ratio {in_sql / bare:.2f}"
    )

    print("\n## From statement_timeout (300 ms) to its error, milliseconds, worst of 5")
    picture = Image.open(io.BytesIO(photograph(SIZES["12 MP"])))
    slow = {"batch of 400 JPEGs of 0.1 MP": [small] * 400}
    for kind, options in {
        "JPEG": {"progressive": True, "quality": 92},
        "PNG": {"compress_level": 1},
        "WebP": {"quality": 90, "method": 0},
    }.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        slow[f"batch of 20 of 12 MP, {kind}{' progressive' if kind == 'JPEG' else ''}"] = [buffer.getvalue()] * 20
    with connect(dsn) as db:
        db.execute("SELECT copy_embed(%s)", [small])
        db.execute("CREATE TABLE slow (name text, images bytea[])")
        for name, images in slow.items():
            db.execute("INSERT INTO slow VALUES (%s, %s)", [name, images])
        db.execute("SET statement_timeout = 300")
        for name in slow:
            late = []
            for _ in range(5):
                started = time.perf_counter()
                try:
                    db.execute("SELECT copy_embed_batch(images) FROM slow WHERE name = %s", [name])
                except psycopg.errors.QueryCanceled:
                    late.append((time.perf_counter() - started) * 1000 - 300)
            print(f"{name}: {max(late):.0f}" if late else f"{name}: done before the timeout")
    with connect(dsn, "postgres") as admin:
        admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


if __name__ == "__main__":
    main()
