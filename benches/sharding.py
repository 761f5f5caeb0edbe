#!/usr/bin/env python3
"""A set over two foreign partitions against the same rows in one local table: searches a second, with one client and with eight,
what part of the ten nearest both find, and the bytes that cross to the shards and back. All databases are one server's, so that this
shows what asking shards costs, not what more machines give.

    make bench-sharding ARGS="--rows 20000"
"""

import argparse
import contextlib
import os
import pathlib
import socket
import statistics
import tempfile
import threading
import time

import numpy as np
import psycopg
from beside import descriptors

DATABASES = ("copymatch_shard_1", "copymatch_shard_2", "copymatch_shards")
SEARCH = "SELECT reference FROM copy_match_descriptor(%s::vector, %s, 10) ORDER BY rank"
SEED = 11


def text(vector: np.ndarray) -> str:
    return "[" + ",".join(f"{x:.6f}" for x in vector) + "]"


def load(db: psycopg.Connection, table: str, rows: np.ndarray, first: int, shard: int) -> None:
    with db.cursor().copy(f"COPY {table} (id, shard, descriptor) FROM STDIN") as copy:
        for number, row in enumerate(rows, first):
            copy.write_row((number, shard, text(row)))


def prepare(dsn: str, rows: np.ndarray) -> psycopg.Connection:
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as admin:
        for name in reversed(DATABASES):
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            admin.execute(f"CREATE DATABASE {name}")
    table = "(id int, shard int, descriptor vector(256))"
    half = len(rows) // 2
    coordinator = psycopg.connect(dsn, dbname=DATABASES[2], autocommit=True)
    coordinator.execute("CREATE EXTENSION copymatch; CREATE EXTENSION postgres_fdw")
    coordinator.execute(f"CREATE TABLE refs {table} PARTITION BY LIST (shard); CREATE TABLE whole {table}")
    for number, part in enumerate((rows[:half], rows[half:]), 1):
        with psycopg.connect(dsn, dbname=DATABASES[number - 1], autocommit=True) as shard:
            shard.execute(f"CREATE EXTENSION copymatch; CREATE TABLE refs {table}; SET maintenance_work_mem = '1GB'")
            load(shard, "refs", part, 1 + (number - 1) * half, number)
            shard.execute("CREATE INDEX ON refs USING ivf (descriptor vector_cosine_ops); ANALYZE refs")
        load(coordinator, "whole", part, 1 + (number - 1) * half, number)
        info = coordinator.info
        together = ", parallel_commit 'true'" if info.server_version >= 150000 else ""
        coordinator.execute(
            f"CREATE SERVER s{number} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{info.host}', port '{info.port}',"
            f" dbname '{DATABASES[number - 1]}', extensions 'copymatch', async_capable 'true'{together});"
            f"CREATE USER MAPPING FOR CURRENT_USER SERVER s{number} OPTIONS (user '{info.user}');"
            f"CREATE FOREIGN TABLE refs{number} PARTITION OF refs FOR VALUES IN ({number}) SERVER s{number}"
            " OPTIONS (table_name 'refs')"
        )
    coordinator.execute("SET maintenance_work_mem = '1GB'")
    coordinator.execute("CREATE INDEX ON whole USING ivf (descriptor vector_cosine_ops); ANALYZE whole")
    for name in ("refs", "whole"):
        coordinator.execute(f"SELECT copy_create_set('{name}', '{name}', 'id', NULL, 'descriptor')")
    return coordinator


def searches(dsn: str, name: str, queries: list[str], clients: int, seconds: float) -> tuple[float, list[float]]:
    """Searches a second over all clients, and what each took."""
    times: list[list[float]] = [[] for _ in range(clients)]
    begin = threading.Barrier(clients)

    def client(number: int) -> None:
        with psycopg.connect(dsn, dbname=DATABASES[2], autocommit=True) as db:
            for query in queries[:5]:
                db.execute(SEARCH, [query, name])
            begin.wait()
            until = time.perf_counter() + seconds
            at = number
            while (began := time.perf_counter()) < until:
                db.execute(SEARCH, [queries[at % len(queries)], name]).fetchall()
                times[number].append(time.perf_counter() - began)
                at += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    every = [one for own in times for one in own]
    return len(every) / seconds, every


def forward(source: socket.socket, target: socket.socket, counted: list[int], way: int) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            counted[way] += len(data)
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def relay(listener: socket.socket, path: str, counted: list[int]) -> None:
    """Takes connections for the server at `path` and counts the bytes to it and from it."""
    with contextlib.suppress(OSError):
        while True:
            near, _ = listener.accept()
            far = socket.socket(socket.AF_UNIX)
            far.connect(path)
            for way, ends in enumerate(((near, far), (far, near))):
                threading.Thread(target=forward, args=(*ends, counted, way), daemon=True).start()


def bytes_a_search(db: psycopg.Connection, queries: list[str]) -> tuple[float, float]:
    """Bytes that a search sends to both shards, and gets from them, by way of a socket that counts."""
    host, name = db.info.host, f".s.PGSQL.{db.info.port}"
    with tempfile.TemporaryDirectory(prefix="copymatch-relay-") as folder:
        pathlib.Path(folder).chmod(0o755)
        counted = [0, 0]
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{folder}/{name}")
        pathlib.Path(folder, name).chmod(0o777)
        listener.listen()
        threading.Thread(target=relay, args=(listener, f"{host}/{name}", counted), daemon=True).start()
        for number in (1, 2):
            db.execute(f"ALTER SERVER s{number} OPTIONS (SET host '{folder}')")
        db.execute(SEARCH, [queries[0], "refs"])
        before = list(counted)
        for query in queries:
            db.execute(SEARCH, [query, "refs"])
        sent, got = ((now - then) / len(queries) for now, then in zip(counted, before, strict=True))
        for number in (1, 2):
            db.execute(f"ALTER SERVER s{number} OPTIONS (SET host '{host}')")
        db.execute("SELECT postgres_fdw_disconnect_all()")
        listener.close()
    return sent, got


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    dsn = os.environ["COPYMATCH_DSN"]
    rows = descriptors(options.rows, 256)
    rng = np.random.default_rng(SEED)
    chosen = rng.integers(0, len(rows), 200)
    noisy = rows[chosen] + rng.normal(scale=0.03, size=(200, 256)).astype(np.float32)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    queries = [text(vector) for vector in noisy]
    db = prepare(dsn, rows)
    nearest = np.argsort(-(noisy @ rows.T), axis=1)[:, :10] + 1
    for name in ("whole", "refs"):
        found = [[int(row[0]) for row in db.execute(SEARCH, [query, name]).fetchall()] for query in queries]
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, nearest.tolist(), strict=True)])
        print(f"{name}: recall@10 {recall:.3f}")
    sent, got = bytes_a_search(db, queries)
    print(f"a search sends the shards {sent:.0f} bytes and gets {got:.0f}")
    print("| clients | local: a second, p50, p99 in ms | two shards | ratio |\n|---|---|---|---|")
    for clients in (1, 8):
        told, rates = {}, {"whole": [], "refs": []}
        for _ in range(options.rounds):
            for name in rates:
                rate, took = searches(dsn, name, queries, clients, options.seconds)
                rates[name].append(rate)
                cuts = statistics.quantiles(took, n=100)
                told[name] = f"{cuts[49] * 1e3:.2f}, {cuts[98] * 1e3:.2f}"
        local, sharded = (statistics.median(rates[name]) for name in ("whole", "refs"))
        print(f"| {clients} | {local:.0f}, {told['whole']} | {sharded:.0f}, {told['refs']} | {sharded / local:.2f} |")
    db.close()
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as admin:
        for name in reversed(DATABASES):
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


if __name__ == "__main__":
    main()
