#!/usr/bin/env python3
"""The embedding service beside the bare ONNX Runtime session and beside networks of the sessions' own, in one run:
images a second of one session and of eight, the first copy_match of a connection, memory, an interactive search beside
bulk work, uploads with a synchronous trigger. Makes a cluster of its own, with copymatch preloaded. Run by `make
bench-service`; ARGS=--short: a third of it; ARGS="--only first,many": these parts of throughput, processor, bulk,
first, many, beside and uploads."""

import contextlib
import io
import json
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time

import numpy as np
import psycopg
from PIL import Image

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from conftest import LOCAL, Cluster, Installation, own_memory  # noqa: E402

MODEL = ROOT / "models" / "default"
SHORT = "--short" in sys.argv
ONLY = sys.argv[sys.argv.index("--only") + 1].split(",") if "--only" in sys.argv else None
CORES = len(os.sched_getaffinity(0))


def photographs(count: int, size: tuple[int, int]) -> list[bytes]:
    """JPEGs (quality 90) of parts of real photographs, with grain, each another."""
    rng = np.random.default_rng(1)
    sources = [Image.open(path).convert("RGB") for path in sorted((LOCAL / "photographs").glob("*.jp*g"))]
    found = []
    for number in range(count):
        source = sources[number % len(sources)]
        width, height = source.size
        left, top = int(rng.integers(0, width // 4 + 1)), int(rng.integers(0, height // 4 + 1))
        part = source.crop((left, top, left + width * 3 // 4, top + height * 3 // 4)).resize(size, Image.BILINEAR)
        pixels = np.asarray(part) + rng.normal(0, 4, (size[1], size[0], 1))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def parallel(work, count: int) -> float:
    """Seconds until `work(number)` has ended in so many threads."""
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started


def quantiles(times: list[float]) -> tuple[float, float]:
    times = sorted(times)
    return times[len(times) // 2] * 1000, times[min(len(times) - 1, int(len(times) * 0.99))] * 1000


class Bare:
    """ONNX Runtime alone, from Python: a session of one thread for each core."""

    def __init__(self):
        import onnxruntime

        self.manifest = json.loads((MODEL / "manifest.json").read_text())
        side = max(self.manifest["input"]["sizes"])
        self.input = self.manifest["input"]["name"]
        self.tensors = np.random.default_rng(2).normal(0, 0.5, (16, 3, side, side)).astype("f4")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.sessions = [
            onnxruntime.InferenceSession(MODEL / "model.onnx", options, providers=providers) for _ in range(CORES)
        ]

    def rate(self, batch: int, threads: int, images: int) -> float:
        def work(number):
            for first in range(0, images // threads, batch):
                first %= len(self.tensors) - batch + 1
                self.sessions[number].run(None, {self.input: self.tensors[first : first + batch]})

        return images / parallel(work, threads)


def rate(cluster, sessions: int, rounds: int, statement: str, parameter, images: int, service: bool) -> float:
    """Images a second of so many sessions."""
    connections = [cluster.connect("bench") for _ in range(sessions)]
    for db in connections:
        db.execute(f"SET copymatch.service = {'on' if service else 'off'}")
        db.execute("SELECT copy_embed(image) FROM picture LIMIT 1")

    def work(number):
        for _ in range(rounds):
            connections[number].execute(statement, parameter)

    seconds = parallel(work, sessions)
    for db in connections:
        db.close()
    return sessions * rounds * images / seconds


def decoding(db) -> float:
    """Seconds that an image takes to be decoded and judged, in one session."""
    started = time.perf_counter()
    db.execute("SELECT count((copy_image_info(image)).detail) FROM picture")
    return (time.perf_counter() - started) / 32


def throughput(cluster, bare: Bare) -> None:
    images = 48 if SHORT else 96
    print("## Images a second")
    print(f"bare session, ready-made tensors, {CORES} threads, a session each:", end=" ")
    print(", ".join(f"batch {batch}: {bare.rate(batch, CORES, 2 * images):.1f}" for batch in (1, 8)))
    print(f"bare session, one thread: batch 1: {bare.rate(1, 1, images):.1f}, batch 8: {bare.rate(8, 1, images):.1f}")
    # So many images a statement that its first and its last, when nothing is beside them, count for little.
    batch = "SELECT cardinality(copy_embed_batch(array_agg(image))) FROM picture, generate_series(1, 3)"
    small = "SELECT cardinality(copy_embed_batch(array_agg(image))) FROM small, generate_series(1, 3)"
    print(
        "| sessions | service | own networks | bare in the same minute | service, small pictures "
        "|\n|---|---|---|---|---|"
    )
    for sessions in (1, 8):
        rounds = max(1, images * 2 // 96 // sessions)
        rows, whole, network = [], [], []
        with cluster.connect("bench") as db:
            decoding(db)
            for _ in range(3 if SHORT else 5):
                # Each measurement of the service lies between two of what it is compared with: the host gives more and
                # less of its cores from second to second.
                before = bare.rate(1, CORES, images), decoding(db)
                service = rate(cluster, sessions, rounds, batch, [], 96, True)
                between = bare.rate(1, CORES, images), decoding(db)
                little = rate(cluster, sessions, rounds, small, [], 96, True)
                after = bare.rate(1, CORES, images)
                own = rate(cluster, sessions, rounds, batch, [], 96, False)
                alone = 2 / (1 / before[0] + 1 / between[0])
                decode = (before[1] + between[1]) / 2
                by_themselves = CORES / (decode + CORES / alone)
                rows.append((service, own, alone, little, decode, by_themselves))
                whole.append(service / by_themselves)
                network.append(little * (1 / between[0] + 1 / after) / 2)
        service, own, alone, little, decode, by_themselves = (
            statistics.median(column) for column in zip(*rows, strict=True)
        )
        print(f"| {sessions} | {service:.1f} | {own:.1f} | {alone:.1f} | {little:.1f} |")
        print(
            f"  with {sessions}: decoding and judging detail {decode * 1000:.1f} ms; decode and network by themselves "
            f"would make {by_themselves:.1f} on {CORES} cores: service / that = {spread(whole)}; "
            f"small pictures / bare = {spread(network)}"
        )


def spread(ratios: list[float]) -> str:
    """Median of rounds, and the least and the most."""
    return f"{statistics.median(ratios):.2f} (median of {len(ratios)} rounds, {min(ratios):.2f} to {max(ratios):.2f})"


def on_cpu(pid: int) -> float:
    """Seconds that a process has run, in all its threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def processor_time(cluster) -> None:
    """What an image costs, whoever else uses the machine."""
    print("\n## Processor time of an image, 8 sessions, milliseconds")
    batch = "SELECT cardinality(copy_embed_batch(array_agg(image))) FROM picture"
    for service in (True, False):
        connections = [cluster.connect("bench") for _ in range(8)]
        for db in connections:
            db.execute(f"SET copymatch.service = {'on' if service else 'off'}")
            db.execute("SELECT copy_embed(image) FROM picture LIMIT 1")
        status = connections[0].execute("SELECT supervisor, process FROM copymatch.service").fetchone()
        pids = [db.info.backend_pid for db in connections] + list(status)
        before = [on_cpu(pid) for pid in pids]
        seconds = parallel(lambda number, them=connections: them[number].execute(batch), 8)
        spent = [(on_cpu(pid) - then) * 1000 / 256 for pid, then in zip(pids, before, strict=True)]
        print(
            f"{'service' if service else 'own networks'}: sessions {sum(spent[:8]):.1f}, supervisor {spent[8]:.2f}, "
            f"encoder {spent[9]:.1f}, "
            f"together {sum(spent):.1f}; {sum(spent) * 256 / 1000 / seconds:.2f} cores were to be had"
        )
        for db in connections:
            db.close()


def bulk(cluster) -> None:
    """What one session does to a table of 1 MP images: the networks' part through the service, or all by itself."""
    print("\n## One session over a table of 1 MP images: images a second, and a session's own networks beside")
    rows = 96 if SHORT else 192
    with cluster.connect("bench") as db:
        db.execute("SET client_min_messages = warning; CREATE TABLE filled (id bigserial PRIMARY KEY, image bytea)")
        db.execute("INSERT INTO filled (image) SELECT image FROM picture, generate_series(1, %s)", [rows // 32])
        for verify in (False, True):
            rates = []
            for service in (True, False):
                db.execute(f"SET copymatch.service = {'on' if service else 'off'}")
                db.execute(
                    "SELECT copy_create_set('filled', 'filled', key => 'id', image => 'image', embed => false, "
                    "verify => %s)",
                    [verify],
                )
                started = time.perf_counter()
                db.execute("CALL copy_fill_set('filled')")
                rates.append(rows / (time.perf_counter() - started))
                lacking = db.execute("SELECT count(*) FROM filled WHERE descriptor IS NULL").fetchone()[0]
                assert lacking == 0, f"{lacking} rows were left out"
                db.execute("SELECT copy_drop_set('filled', drop_descriptors => true)")
            print(
                f"copy_fill_set, verify => {str(verify).lower()}: {rates[0]:.1f}, {rates[1]:.1f}; "
                f"ratio {rates[0] / rates[1]:.2f}"
            )


def first_call(cluster, image: bytes) -> None:
    """Each connection's first copy_match above the median of its own next five. The service runs and its model is
    loaded, the relation's pages are cached; the two ways take turns, so that both meet the same host."""
    print("\n## First copy_match of a connection, and the memory of one")
    search = "SELECT * FROM copy_match(%s, 'licensed')"
    ways, left = {True: [], False: []}, {True: [], False: []}
    with cluster.connect("bench") as db:
        db.execute("VACUUM (ANALYZE) picture")
        for _ in range(3):
            db.execute(search, [image]).fetchall()
    for turn in range(24 if SHORT else 60):
        # A connection with a network of its own takes four times as long: fewer do.
        for service in (True, False) if turn % 4 == 0 else (True,):
            with cluster.connect("bench") as db:
                db.execute(f"SET copymatch.service = {'on' if service else 'off'}")
                before = own_memory(db.info.backend_pid)
                times = []
                for _ in range(6):
                    started = time.perf_counter()
                    db.execute(search, [image]).fetchall()
                    times.append((time.perf_counter() - started) * 1000)
                at_once = own_memory(db.info.backend_pid)
                if turn % 12 == 0:
                    # What pictures took is given back once a second at most, at the end of a transaction.
                    time.sleep(1.1)
                    db.execute("SELECT 1")
                    left[service].append(own_memory(db.info.backend_pid))
                ways[service].append((times[0], statistics.median(times[1:]), before, at_once))
    for service, found in ways.items():
        first, warm, before, at_once = (statistics.median(column) for column in zip(*found, strict=True))
        later = statistics.median(left[service])
        above = sorted(one[0] - one[1] for one in found)
        quartiles = above[len(above) // 4], above[3 * len(above) // 4]
        with cluster.connect("bench") as db:
            idle = own_memory(db.info.backend_pid)
            db.execute(f"SET copymatch.service = {'on' if service else 'off'}")
            db.execute("SELECT copy_embed(%s)", [image])
            embedded = own_memory(db.info.backend_pid) - idle
        print(
            f"{'service' if service else 'own network'}, {len(found)} connections: first {first:.1f} ms, "
            f"warm {warm:.1f}; first above warm {statistics.median(above):.1f} ms "
            f"(quartiles {quartiles[0]:.1f} and {quartiles[1]:.1f}); "
            f"private memory {before:.1f} MiB before, {at_once:.1f} after six copy_match, {later:.1f} a second and a "
            f"statement later; {embedded:+.1f} by one copy_embed alone"
        )


def many(cluster, image: bytes) -> None:
    count = 60 if SHORT else 200
    print(f"\n## {count} connections that embed once each")
    for service in (True, False):
        connections = [cluster.connect("bench") for _ in range(count)]
        for db in connections:
            db.execute(f"SET copymatch.service = {'on' if service else 'off'}")
        idle = sum(own_memory(db.info.backend_pid) for db in connections)
        seconds = parallel(
            lambda number, them=connections: them[number].execute("SELECT copy_embed(%s)", [image]), count
        )
        busy = sum(own_memory(db.info.backend_pid) for db in connections)
        print(
            f"{'service' if service else 'own networks'}: {seconds:.2f} s, private memory {idle:.0f} → {busy:.0f} MiB"
        )
        for db in connections:
            db.close()


def beside_bulk(cluster, image: bytes) -> None:
    print("\n## An interactive copy_match beside a bulk re-embedding")
    count = 100 if SHORT else 300

    def search(db) -> list[float]:
        times = []
        for _ in range(count):
            started = time.perf_counter()
            db.execute("SELECT * FROM copy_match(%s, 'licensed')", [image]).fetchall()
            times.append(time.perf_counter() - started)
        return times

    manifest = json.loads((MODEL / "manifest.json").read_text()) | {"name": "other", "parity": []}
    for service in (True, False):
        with cluster.connect("bench") as db, cluster.connect("bench") as bulk:
            for each in (db, bulk):
                each.execute(f"SET copymatch.service = {'on' if service else 'off'}; SET client_min_messages = warning")
            search(db)
            alone = quantiles(search(db))
            names = [name for (name,) in db.execute("SELECT name FROM copymatch.model WHERE name = 'other'")]
            if not names:
                parts = [(MODEL / name).read_bytes() for name in ("model.onnx", "background.bin")]
                db.execute(
                    "SELECT copy_add_model('other', %s, %s, %s, %s)",
                    [parts[0], json.dumps(manifest), parts[1], (MODEL / "calibration.json").read_text()],
                )

            # Where the one was cancelled, the other goes on; there is enough for both.
            def work(bulk=bulk):
                with contextlib.suppress(psycopg.errors.QueryCanceled):
                    bulk.execute("CALL copy_reembed('many', model => 'other', build_index => false)")

            thread = threading.Thread(target=work)
            thread.start()
            time.sleep(1)
            beside = quantiles(search(db))
            assert thread.is_alive(), "the bulk work ended too early"
            bulk.cancel()
            thread.join()
        print(
            f"{'service' if service else 'own networks'}: alone p50 {alone[0]:.1f} ms, p99 {alone[1]:.1f}; beside "
            f"p50 {beside[0]:.1f}, "
            f"p99 {beside[1]:.1f}; p99 ratio {beside[1] / alone[1]:.2f}"
        )


def beside_bulk_if_it_runs(cluster, image: bytes) -> None:
    try:
        beside_bulk(cluster, image)
    except psycopg.Error as error:
        print(f"not measured: {error}")


def uploads(cluster, images: list[bytes]) -> None:
    total = 320 if SHORT else 1000
    print(f"\n## INSERT with a synchronous flagging trigger, {total} uploads from 8 sessions")
    for service in (True, False):
        connections = [cluster.connect("bench") for _ in range(8)]
        for db in connections:
            db.execute(f"SET copymatch.service = {'on' if service else 'off'}")
            db.execute("INSERT INTO upload (image) VALUES (%s)", [images[0]])

        def work(number, connections=connections):
            for turn in range(total // 8):
                connections[number].execute("INSERT INTO upload (image) VALUES (%s)", [images[(turn + number) % 32]])

        seconds = parallel(work, 8)
        print(f"{'service' if service else 'own networks'}: {total / seconds:.1f} uploads a second")
        for db in connections:
            db.close()


def main() -> None:
    print(f"{CORES} cores, load {os.getloadavg()[0]:.1f} when it began")
    images = photographs(32, (1156, 867))
    small = photographs(32, (256, 256))
    installation = Installation()
    folder = installation.own(pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=LOCAL)))
    settings = {"shared_preload_libraries": "copymatch", "max_connections": "250", "shared_buffers": "256MB"}
    cluster = Cluster(installation, folder, settings | {"copymatch.service_slots": "64"})
    try:
        with cluster.connect() as admin:
            admin.execute("CREATE DATABASE bench")
        with cluster.connect("bench") as db:
            db.execute("CREATE EXTENSION copymatch")
            for name, pictures in (("picture", images), ("small", small)):
                db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, image bytea)")
                with db.cursor() as cursor:
                    cursor.executemany(f"INSERT INTO {name} VALUES (%s, %s)", list(enumerate(pictures)))
            db.execute("SELECT copy_create_set('licensed', 'picture', key => 'id', image => 'image')")
            db.execute("CREATE TABLE many (id bigserial PRIMARY KEY, image bytea)")
            db.execute("INSERT INTO many (image) SELECT image FROM small, generate_series(1, 100)")
            db.execute("SELECT copy_create_set('many', 'many', key => 'id', image => 'image', embed => false)")
            db.execute("CREATE TABLE upload (id bigserial PRIMARY KEY, image bytea)")
            db.execute(
                "CREATE TRIGGER f AFTER INSERT ON upload FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
                "'licensed')"
            )
        parts = {
            "throughput": lambda: throughput(cluster, Bare()),
            "processor": lambda: processor_time(cluster),
            "bulk": lambda: bulk(cluster),
            "first": lambda: first_call(cluster, images[0]),
            "many": lambda: many(cluster, images[0]),
            "beside": lambda: beside_bulk_if_it_runs(cluster, images[0]),
            "uploads": lambda: uploads(cluster, images),
        }
        for name in ONLY or parts:
            parts[name]()
        with cluster.connect("bench") as db:
            cursor = db.execute("SELECT * FROM copymatch.service_stats")
            print("\n" + ", ".join(f"{c.name} {v}" for c, v in zip(cursor.description, cursor.fetchone(), strict=True)))
        print(f"load {os.getloadavg()[0]:.1f} when it ended")
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
