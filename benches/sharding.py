#!/usr/bin/env python3
"""A set over two foreign partitions by hash against the same rows in one local table: searches a second and what they
cost in processor time, with one client and with eight, what part of the ten nearest both find, and the bytes that cross
to the shards and back; by connections of the session's own and by way of postgres_fdw. The three take turns, so that
other work on the machine hits them alike. Where the shards' recall is not the local table's, their target is set so
that it is, and that is what takes turns. All run on one machine: this shows what asking shards costs, not what more
machines give.

    make bench-sharding ARGS="--rows 20000"       databases of the private server
    make bench-sharding ARGS="--large"            2,000,000 rows, three clusters of their own (8 GB)
    make bench-sharding ARGS="--large --rows 400000"
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time

import ivf_data
import numpy as np
import psycopg
from beside import descriptors

sys.path.insert(0, str(ivf_data.ROOT / "tests"))
import conftest

DATABASES = ("copymatch_shard_1", "copymatch_shard_2", "copymatch_shards")
SEARCH = "SELECT reference FROM copy_match_descriptor(%s::vector, %s, 10) ORDER BY rank"
SEED = 11
#: The default of copymatch.target_recall.
TARGET = 0.98
#: Recalls so near to each other are equal.
EQUAL = 0.002
#: What is compared: a name, the set, the setting copymatch.shard_connections.
SIDES = (("local", "whole", "on"), ("shards", "refs", "on"), ("by postgres_fdw", "refs", "off"))


def text(vector: np.ndarray) -> str:
    return "[" + ",".join(f"{x:.6f}" for x in vector) + "]"


def data(rows: int, count: int, large: bool) -> tuple[np.ndarray, np.ndarray]:
    """References and queries."""
    if large:
        # As networks make them; half of the queries are edited copies.
        return ivf_data.Descriptors(256).references_and_queries(rows, count)
    found = descriptors(rows, 256)
    rng = np.random.default_rng(SEED)
    noisy = found[rng.integers(0, rows, count)] + rng.normal(scale=0.03, size=(count, 256)).astype(np.float32)
    return found, noisy / np.linalg.norm(noisy, axis=1, keepdims=True)


def prepare(dsns: list[str], rows: np.ndarray) -> psycopg.Connection:
    """`dsns`: of the servers of both shards and the coordinator."""
    for dsn, name in zip(reversed(dsns), reversed(DATABASES), strict=True):
        with psycopg.connect(dsn, dbname="postgres", autocommit=True) as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            admin.execute(f"CREATE DATABASE {name}")
    table = "(id int, descriptor vector(256))"
    memory = "SET maintenance_work_mem = '1GB'"
    coordinator = psycopg.connect(dsns[2], dbname=DATABASES[2], autocommit=True)
    coordinator.execute("CREATE EXTENSION copymatch; CREATE EXTENSION postgres_fdw")
    coordinator.execute(f"CREATE TABLE refs {table} PARTITION BY HASH (id); CREATE TABLE whole {table}")
    ivf_data.copy(coordinator, "whole (id, descriptor)", rows, 1)
    together = ", parallel_commit 'true'" if coordinator.info.server_version >= 150000 else ""
    of_first = "SELECT satisfies_hash_partition('refs'::regclass, 2, 0, i) FROM generate_series(1, %s) i"
    first = np.array([row[0] for row in coordinator.execute(of_first, [len(rows)]).fetchall()])
    for number, part in enumerate((first, ~first), 1):
        with psycopg.connect(dsns[number - 1], dbname=DATABASES[number - 1], autocommit=True) as shard:
            shard.execute(f"CREATE EXTENSION copymatch; CREATE TABLE refs {table}; {memory}")
            ivf_data.copy(shard, "refs (id, descriptor)", rows[part], ids=np.flatnonzero(part) + 1)
            shard.execute("CREATE INDEX ON refs USING ivf (descriptor vector_cosine_ops)")
            shard.execute("VACUUM ANALYZE refs")
            host, port, user = shard.info.host, shard.info.port, shard.info.user
        coordinator.execute(
            f"CREATE SERVER s{number} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{host}', port '{port}',"
            f" dbname '{DATABASES[number - 1]}', extensions 'copymatch', async_capable 'true'{together});"
            f"CREATE USER MAPPING FOR CURRENT_USER SERVER s{number} OPTIONS (user '{user}');"
            f"CREATE FOREIGN TABLE refs{number} PARTITION OF refs FOR VALUES WITH (MODULUS 2, REMAINDER {number - 1})"
            f" SERVER s{number} OPTIONS (table_name 'refs')"
        )
    coordinator.execute(memory)
    coordinator.execute("CREATE INDEX ON whole USING ivf (descriptor vector_cosine_ops)")
    coordinator.execute("VACUUM ANALYZE whole")
    for name in ("refs", "whole"):
        coordinator.execute(f"SELECT copy_create_set('{name}', '{name}', 'id', NULL, 'descriptor')")
    return coordinator


def processor(dsns: list[str]) -> float:
    """Seconds of processor time that the sessions of the benchmark's databases have had."""
    spent = 0.0
    for dsn in set(dsns):
        with psycopg.connect(dsn, dbname="postgres", autocommit=True) as db:
            sessions = "SELECT pid FROM pg_stat_activity WHERE datname = ANY (%s)"
            for (pid,) in db.execute(sessions, [list(DATABASES)]).fetchall():
                with contextlib.suppress(FileNotFoundError):
                    spent += int(pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return spent


def searches(
    dsns: list[str], side: tuple, recall: float, queries: list[str], clients: int, seconds: float
) -> tuple[float, list[float], float]:
    """Searches a second over all clients, what each took, and the servers' processor time for one. `recall`: the
    target."""
    _, name, own = side
    times: list[list[float]] = [[] for _ in range(clients)]
    begin, end, leave = (threading.Barrier(clients + 1) for _ in range(3))

    def client(number: int) -> None:
        with psycopg.connect(dsns[2], dbname=DATABASES[2], autocommit=True) as db:
            db.execute(f"SET copymatch.shard_connections = {own}; SET copymatch.target_recall = {recall}")
            for query in queries[:20]:
                db.execute(SEARCH, [query, name])
            begin.wait()
            begin.wait()
            until = time.perf_counter() + seconds
            at = number
            while (began := time.perf_counter()) < until:
                db.execute(SEARCH, [queries[at % len(queries)], name]).fetchall()
                times[number].append(time.perf_counter() - began)
                at += 1
            end.wait()
            leave.wait()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    begin.wait()
    spent = -processor(dsns)
    begin.wait()
    end.wait()
    spent += processor(dsns)
    leave.wait()
    for thread in threads:
        thread.join()
    every = [one for own in times for one in own]
    return len(every) / seconds, every, spent / len(every)


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
    """Bytes that a search sends to both shards, and gets from them, by way of sockets that count."""
    servers = dict(
        db.execute(
            "SELECT v.srvname, o.option_value FROM pg_foreign_server v, pg_options_to_table(v.srvoptions) o "
            "WHERE o.option_name = 'host'"
        ).fetchall()
    )
    counted = [0, 0]
    with contextlib.ExitStack() as stack:
        for server, host in servers.items():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="copymatch-relay-"))
            pathlib.Path(folder).chmod(0o755)
            name = f".s.PGSQL.{db.info.port}"
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(f"{folder}/{name}")
            pathlib.Path(folder, name).chmod(0o777)
            listener.listen()
            threading.Thread(target=relay, args=(listener, f"{host}/{name}", counted), daemon=True).start()
            db.execute(f"ALTER SERVER {server} OPTIONS (SET host '{folder}')")
        db.execute(SEARCH, [queries[0], "refs"])
        before = list(counted)
        for query in queries:
            db.execute(SEARCH, [query, "refs"])
        sent, got = ((now - then) / len(queries) for now, then in zip(counted, before, strict=True))
        for server, host in servers.items():
            db.execute(f"ALTER SERVER {server} OPTIONS (SET host '{host}')")
        db.execute("SELECT postgres_fdw_disconnect_all()")
    return sent, got


def recall_of(db: psycopg.Connection, name: str, queries: list[str], nearest: np.ndarray, target: float) -> float:
    """What part of the ten nearest searches of a set find, with a target."""
    db.execute(f"SET copymatch.target_recall = {target}")
    found = [[int(row[0]) for row in db.execute(SEARCH, [query, name]).fetchall()] for query in queries]
    db.execute("RESET copymatch.target_recall")
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, nearest.tolist(), strict=True)]))


def equal_target(db: psycopg.Connection, queries: list[str], nearest: np.ndarray, local: float) -> float:
    """The shards' target with which they find what the local table finds with the default one."""
    low, high, target = 0.9, 0.999, TARGET
    for _ in range(8):
        found = recall_of(db, "refs", queries, nearest, target)
        print(f"refs: target {target:.4f}: recall@10 {found:.4f}", flush=True)
        if abs(found - local) <= EQUAL:
            break
        low, high = (low, target) if found > local else (target, high)
        target = (low + high) / 2
    return target


def measure(
    dsns: list[str], db: psycopg.Connection, rows: np.ndarray, noisy: np.ndarray, options: argparse.Namespace
) -> None:
    queries = [text(vector) for vector in noisy]
    nearest = ivf_data.nearest(rows, noisy, 10) + 1
    local = recall_of(db, "whole", queries, nearest, TARGET)
    print(f"whole: target {TARGET}: recall@10 {local:.4f}", flush=True)
    target = equal_target(db, queries, nearest, local)
    for own in ("on", "off"):
        db.execute(f"SET copymatch.shard_connections = {own}")
        sent, got = bytes_a_search(db, queries[:200])
        print(f"shard_connections {own}: a search sends the shards {sent:.0f} bytes and gets {got:.0f}", flush=True)
    db.execute("RESET copymatch.shard_connections")
    print(
        "| clients | " + " | ".join(f"{side[0]}: a second; p50, p99, processor in ms" for side in SIDES),
        end=" | ratios of the rates | of processor time | load |\n",
    )
    print("|---" * (len(SIDES) + 4) + "|", flush=True)
    for clients in (1, 8):
        rates, took, spent = ({side: [] for side in SIDES} for _ in range(3))
        for turn in range(options.rounds):
            for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                wanted = TARGET if side[1] == "whole" else target
                rate, times, processor_time = searches(dsns, side, wanted, queries, clients, options.seconds)
                rates[side].append(rate)
                took[side] += times
                spent[side].append(processor_time)
        told = []
        for side in SIDES:
            cuts = statistics.quantiles(took[side], n=100)
            own = statistics.median(spent[side])
            told.append(
                f"{statistics.median(rates[side]):.0f}; {cuts[49] * 1e3:.2f}, {cuts[98] * 1e3:.2f}, {own * 1e3:.2f}"
            )

        def ratios(of: dict, own_over_local: bool) -> str:
            local, *others = (of[side] for side in SIDES)
            pairs = [
                [b / a if own_over_local else a / b for a, b in zip(local, other, strict=True)] for other in others
            ]
            return ", ".join(f"{statistics.median(pair):.2f}" for pair in pairs)

        load = f"{os.getloadavg()[0]:.1f}"
        print(
            f"| {clients} | " + " | ".join([*told, ratios(rates, True), ratios(spent, False), load]) + " |", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows, queries = data(options.rows or (2_000_000 if options.large else 40_000), 400, options.large)
    if not options.large:
        dsn = os.environ["COPYMATCH_DSN"]
        db = prepare([dsn] * 3, rows)
        measure([dsn] * 3, db, rows, queries, options)
        db.close()
        with psycopg.connect(dsn, dbname="postgres", autocommit=True) as admin:
            for name in reversed(DATABASES):
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        return
    installation, clusters = conftest.Installation(), []
    folder = ivf_data.LOCAL / "bench" / "sharding"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        for name in DATABASES:
            own = folder / name
            own.mkdir(parents=True)
            # Neither side lacks memory; what is loaded is not to last.
            settings = {
                "shared_buffers": "3GB",
                "max_wal_size": "256MB",
                "fsync": "off",
                "wal_level": "minimal",
                "max_wal_senders": "0",
            }
            clusters.append(conftest.Cluster(installation, installation.own(own), settings))
        dsns = [cluster.dsn() for cluster in clusters]
        began = time.monotonic()
        db = prepare(dsns, rows)
        print(f"loaded in {time.monotonic() - began:.0f} s", flush=True)
        measure(dsns, db, rows, queries, options)
        db.close()
    finally:
        for cluster in clusters:
            cluster.remove()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
