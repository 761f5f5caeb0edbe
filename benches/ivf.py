#!/usr/bin/env python3
"""The index in figures: build, recall against queries a second, Faiss beside it in the same run, inserts, drift,
vacuum, filters, cold cache, buffers. `make bench-ivf`, or with ARGS="--rows 20000 --parts build,sweep,faiss".

    --data DIR        x.npy, q.npy, gt.npy as ivf_data.py makes them; default: made below .local/bench
    --annbench FILE   makes the data by that program (annbench.py gen) instead
    --parts A,B       of: build, cancel, sweep, faiss, filters, buffers, cold, inserts, drift, grown, vacuum (default:
    all) --keep            leaves the cluster and its tables for the next run, which then loads nothing
                      and, without the part build, takes the index as it is

Runs in a cluster of its own below .local/bench, with enough shared buffers to hold everything. Prints Markdown and
writes the same figures as JSON.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import ivf_data
import ivf_faiss
import numpy as np
import psycopg

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCAL = ivf_data.LOCAL
sys.path.insert(0, str(ROOT / "tests"))

import conftest  # noqa: E402  the tests' throwaway cluster

MB = 1024 * 1024
TARGETS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
PROBES = (4, 8, 16, 32, 64, 128)
#: As annbench.py sweeps; the row "nothing set" goes without.
SWEEP = {"enable_seqscan": "off", "jit": "off"}
#: Numbers of rows times this, modulo 10,000, are values that follow no vector.
PRIME = 7919
#: Queries by which recall is judged; pgbench draws from all.
JUDGED = 1000


class Cluster(conftest.Cluster):
    """A cluster whose data outlive this process where they are wanted again."""

    def __init__(self, folder: pathlib.Path, settings: dict):
        installation = conftest.Installation()
        if not (folder / "data" / "PG_VERSION").exists():
            folder.mkdir(parents=True, exist_ok=True)
            super().__init__(installation, installation.own(folder), settings)
            return
        self.installation, self.folder = installation, folder
        self.data, self.log, self.environment = folder / "data", folder / "log", {}
        self.socket = installation.own(pathlib.Path(tempfile.mkdtemp(prefix="copymatch-bench-")))
        with (self.data / "postgresql.conf").open("a") as config:
            config.write(f"unix_socket_directories = '{self.socket}'\n")
        self.start()


class Bench:
    """One run: the cluster, the data, and the figures so far."""

    def __init__(self, options):
        self.options = options
        self.folder = data_folder(options)
        self.x = np.load(self.folder / "x.npy", mmap_mode="r")
        self.q = np.load(self.folder / "q.npy")
        self.truth = np.load(self.folder / "gt.npy")
        self.figures = {"machine": machine(), "rows": len(self.x), "dimensions": self.x.shape[1]}
        #: (recall@10, queries/s) of each setting, and the last build's time: what other parts need.
        self.sweep = []
        self.build_seconds = 10.0
        place = LOCAL / "bench" / f"cluster-{conftest.MAJOR}"
        if not options.keep:
            shutil.rmtree(place, ignore_errors=True)
        self.cluster = Cluster(place, {
            "shared_buffers": options.shared_buffers, "max_wal_size": "64GB", "checkpoint_timeout": "1h",
            "maintenance_work_mem": options.maintenance_work_mem, "autovacuum": "off", "max_connections": "50",
        })  # fmt: skip

    def connect(self, settings: dict | None = None) -> psycopg.Connection:
        return self.cluster.connect(options=as_options(settings or {}))

    def say(self, title: str, columns: list[str], rows: list[list]) -> None:
        """Prints a table and keeps it."""
        print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for row in rows:
            print(f"| {' | '.join(map(shown, row))} |", flush=True)
        self.figures[title] = [dict(zip(columns, row, strict=True)) for row in rows]

    def finish(self) -> None:
        """Writes the figures; stops the cluster, and removes it where it is not to be kept."""
        path = LOCAL / "bench" / time.strftime("ivf-%Y%m%d-%H%M%S.json")
        path.write_text(json.dumps(self.figures, indent=1, default=float))
        print(f"\nAll figures: {path}")
        if self.options.keep:
            self.cluster.stop()
            shutil.rmtree(self.cluster.socket, ignore_errors=True)
        else:
            self.cluster.remove()


def as_options(settings: dict) -> str:
    """Settings as libpq's options and PGOPTIONS take them."""
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


def shown(value) -> str:
    """A cell of a table."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def machine() -> str:
    """The processor, its cores, and how busy they are as the run begins."""
    names = re.findall(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{len(names)} × {names[0] if names else os.uname().machine}, load {os.getloadavg()[0]:.1f}"


def data_folder(options) -> pathlib.Path:
    """The folder with the data, made where it is missing."""
    folder = options.data or ivf_data.folder_for(options.rows, options.dimensions)
    if options.annbench and not (folder / "gt.npy").exists():
        size = [str(options.rows), str(options.dimensions), str(options.queries)]
        subprocess.run([ivf_faiss.python_with_faiss(), options.annbench, "gen", folder, *size], check=True)
    return ivf_data.prepare(folder, options.rows, options.dimensions, options.queries)


def lsn(db) -> int:
    """WAL bytes written since the cluster was made."""
    return int(db.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()[0])


def timed(db, sql: str) -> dict:
    """Runs it; seconds, and WAL bytes of the whole cluster meanwhile."""
    wal, started = lsn(db), time.perf_counter()
    db.execute(sql)
    return {"seconds": time.perf_counter() - started, "wal": lsn(db) - wal}


# --- tables and queries ---


def make_table(db, name: str, column: str, bench: Bench, vectors: np.ndarray, more: str = "") -> None:
    """A table (id, column) of vectors that are never moved out of line."""
    kind = bench.options.type
    db.execute(f"DROP TABLE IF EXISTS {name}")
    db.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, {column} {kind}({vectors.shape[1]}){more})")
    db.execute(f"ALTER TABLE {name} ALTER {column} SET STORAGE plain")
    ivf_data.copy(db, f"{name} (id, {column})", vectors, kind=kind)
    db.execute(f"VACUUM ANALYZE {name}")


def load(bench: Bench) -> None:
    """References and queries as tables, unless an earlier run left them."""
    mark = f"{bench.folder}: {len(bench.x)} {bench.options.type}"
    with bench.connect() as db:
        db.execute("CREATE EXTENSION IF NOT EXISTS copymatch")
        if db.execute("SELECT obj_description(to_regclass('annb_refs'), 'pg_class')").fetchone()[0] == mark:
            return
        parts = f", part int GENERATED ALWAYS AS (id::bigint * {PRIME} % 10000) STORED"
        make_table(db, "annb_q", "q", bench, bench.q)
        make_table(db, "annb_refs", "d", bench, bench.x, parts)
        db.execute(f"COMMENT ON TABLE annb_refs IS '{mark}'")


def create_index(bench: Bench, table: str, name: str) -> str:
    """The command that makes the index with its default settings."""
    return f"CREATE INDEX {name} ON {table} USING ivf (d {bench.options.type}_cosine_ops)"


def nearest(k: int, table: str = "annb_refs", where: str = "", query: str = "%s", queries: str = "annb_q") -> str:
    """The query of annbench.py."""
    return f"SELECT id FROM {table} {where} ORDER BY d <=> (SELECT q FROM {queries} WHERE id = {query}) LIMIT {k}"


def recall(db, sql: str, truth: np.ndarray, k: int, judged: int = JUDGED) -> float:
    """The part of the k true neighbours that the query gives, over queries spread evenly."""
    numbers = range(0, len(truth), max(1, len(truth) // judged))
    found = 0
    for number in numbers:
        rows = db.execute(sql, [number], prepare=True).fetchall()
        found += len({row[0] for row in rows} & set(truth[number, :k].tolist()))
    return found / (len(numbers) * k)


def pgbench(bench: Bench, sql: str, settings: dict, clients: int, variables: str = "", seconds: float = 0) -> float:
    """Transactions a second of the statement, prepared."""
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder) / "query.sql"
        script.write_text(f"{variables}\n{sql};\n")
        result = subprocess.run(
            [bench.cluster.installation.bin / "pgbench", "-n", "-M", "prepared", "-f", script, "-c", str(clients),
             "-j", "1", "-T", str(max(1, round(seconds or bench.options.seconds))), bench.cluster.dsn()],
            env=os.environ | {"PGOPTIONS": as_options(settings)}, capture_output=True, text=True,
        )  # fmt: skip
    rate = re.search(r"^tps = ([\d.]+)", result.stdout, re.MULTILINE)
    if result.returncode != 0 or not rate:
        raise RuntimeError(f"pgbench: {result.stderr[-500:]}")
    return float(rate.group(1))


def queries_a_second(bench: Bench, sql: str, settings: dict, clients: int) -> float:
    """With queries drawn at random; `sql` has :i where the query's number goes."""
    return pgbench(bench, sql, settings, clients, f"\\set i random(0, {len(bench.q) - 1})")


def assert_index_is_used(db, sql: str) -> None:
    """A sweep of a sequential scan would look fine."""
    plan = "\n".join(row[0] for row in db.execute("EXPLAIN " + sql.replace("%s", "1")))
    if not re.search(r"Index Scan using \w*ivf", plan):
        raise RuntimeError(f"not by the index:\n{plan}")


class Memory(threading.Thread):
    """The most private memory that the server's processes had at once, in MB, above what they had at the start."""

    def __init__(self, postmaster: int):
        super().__init__(daemon=True)
        self.postmaster, self.over = postmaster, threading.Event()
        self.before = self.now()
        self.most = self.before

    def now(self) -> float:
        total = 0
        children = pathlib.Path(f"/proc/{self.postmaster}/task/{self.postmaster}/children").read_text().split()
        for child in children:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found = re.search(r"^RssAnon:\s+(\d+)", pathlib.Path(f"/proc/{child}/status").read_text(), re.MULTILINE)
                total += int(found.group(1)) / 1024 if found else 0
        return total

    def run(self) -> None:
        while not self.over.wait(0.02):
            self.most = max(self.most, self.now())

    def stop(self) -> float:
        self.over.set()
        self.join()
        return self.most - self.before


class Latencies(threading.Thread):
    """One session that searches without pause, and how long each search took (milliseconds)."""

    def __init__(self, bench: Bench, table: str):
        super().__init__(daemon=True)
        self.bench, self.table, self.over, self.taken = bench, table, threading.Event(), []

    def run(self) -> None:
        rng = np.random.default_rng(1)
        with self.bench.connect(SWEEP) as db:
            while not self.over.is_set():
                number = int(rng.integers(len(self.bench.q)))
                started = time.perf_counter()
                db.execute(nearest(10, self.table), [number], prepare=True).fetchall()
                self.taken.append((time.perf_counter() - started) * 1000)

    def stop(self) -> list[float]:
        self.over.set()
        self.join()
        return self.taken


# --- the parts ---


def build(bench: Bench) -> None:
    """Build with default settings."""
    with bench.connect() as db:
        db.execute("DROP INDEX IF EXISTS annb_ivf")
        db.execute("CHECKPOINT")
        db.execute("SELECT count(*) FROM annb_refs")
        memory = Memory(bench.cluster.pid)
        memory.start()
        took = timed(db, create_index(bench, "annb_refs", "annb_ivf"))
        peak = memory.stop()
        size = db.execute("SELECT pg_relation_size('annb_ivf')").fetchone()[0]
        table = db.execute("SELECT pg_relation_size('annb_refs')").fetchone()[0]
        bench.say(
            f"Build, nothing set but maintenance_work_mem = {bench.options.maintenance_work_mem}",
            ["seconds", "private memory at most, MB", "WAL, MB", "index, MB", "bytes a row", "table, MB"],
            [[took["seconds"], peak, took["wal"] / MB, size / MB, size / len(bench.x), table / MB]],
        )
        bench.build_seconds = took["seconds"]
        cursor = db.execute("SELECT * FROM copy_index_stats('annb_ivf'::regclass)")
        names = [column.name for column in cursor.description]
        bench.figures["statistics"] = [dict(zip(names, map(str, row), strict=True)) for row in cursor]


def cancel(bench: Bench) -> None:
    """From statement_timeout to its error, in several phases of a build."""
    rows = []
    with bench.connect() as db:
        for part in (0.02, 0.1, 0.25, 0.4, 0.6, 0.8, 0.95):
            timeout = max(1, int(1000 * part * bench.build_seconds))
            db.execute(f"SET statement_timeout = {timeout}")
            started = time.perf_counter()
            try:
                db.execute(create_index(bench, "annb_refs", "cancelled_ivf"))
                late = "finished before"
            except psycopg.errors.QueryCanceled:
                late = (time.perf_counter() - started) * 1000 - timeout
            db.execute("SET statement_timeout = 0")
            db.execute("DROP INDEX IF EXISTS cancelled_ivf")
            rows.append([timeout, late])
    bench.say("Cancelling a build", ["statement_timeout, ms", "error after it, ms"], rows)


def sweep_point(bench: Bench, label: str, settings: dict) -> list:
    """Recall and queries a second under some settings."""
    row = [label]
    with bench.connect(settings) as db:
        for k in (10, 100):
            assert_index_is_used(db, nearest(k))
            row.append(recall(db, nearest(k), bench.truth, k))
    for k in (10, 100):
        row += [queries_a_second(bench, nearest(k, query=":i"), settings, clients) for clients in (1, 2)]
    return row


def sweep(bench: Bench) -> None:
    """Recall against queries a second, with nothing set, by target and by probes."""
    # Index and table into the buffers, the processor to its speed.
    queries_a_second(bench, nearest(10, query=":i"), SWEEP, 2)
    points = [("nothing set", {})]
    points += [(f"target_recall {v}", SWEEP | {"copymatch.target_recall": v}) for v in TARGETS]
    points += [(f"probes {v}", SWEEP | {"copymatch.probes": v}) for v in PROBES]
    rows = [sweep_point(bench, label, settings) for label, settings in points]
    columns = [
        "settings",
        "recall@10",
        "recall@100",
        "queries/s @10, 1 client",
        "2 clients",
        "queries/s @100, 1 client",
        "@100, 2 clients",
    ]
    bench.say("Recall against queries a second, warm", columns, rows)
    bench.sweep = [(row[1], row[3]) for row in rows[1:]]


def at_recall(points: list[tuple[float, float]], wanted: float) -> float:
    """Queries a second at a recall, between measured points in proportion (of the logarithm); NaN outside them."""
    # Only points that no other beats in both.
    points = sorted(points)
    best = [p for p in points if not any(o[0] >= p[0] and o[1] > p[1] for o in points)]
    for low, high in zip(best, best[1:], strict=False):
        if low[0] <= wanted <= high[0]:
            share = (wanted - low[0]) / (high[0] - low[0]) if high[0] > low[0] else 0
            return float(np.exp(np.log(low[1]) + share * (np.log(high[1]) - np.log(low[1]))))
    # All points are better than wanted: the fastest of them is what one would take.
    return best[0][1] if best and best[0][0] > wanted else float("nan")


def faiss(bench: Bench) -> None:
    """Faiss on one thread over the same data, and how much faster or slower we are at equal recall."""
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "faiss.json"
        subprocess.run(
            [ivf_faiss.python_with_faiss(), ivf_faiss.HERE, bench.folder, "--json", output, "--seconds",
             str(bench.options.seconds / 3)],
            check=True,
        )  # fmt: skip
        rows = json.loads(output.read_text())
    bench.figures["faiss"] = rows
    table = []
    for name in dict.fromkeys(row["index"] for row in rows):
        own = [row for row in rows if row["index"] == name]
        for wanted in (0.90, 0.95, 0.99):
            theirs = {way: at_recall([(row["recall"], row[way]) for row in own], wanted) for way in ("single", "batch")}
            ours = at_recall(bench.sweep, wanted)
            table.append(
                [name, wanted, theirs["single"], theirs["batch"], ours, ours / theirs["single"], ours / theirs["batch"]]
            )
    bench.say(
        "Faiss on one thread in the same run, recall@10",
        ["Faiss index", "at recall", "Faiss, one query a call", "Faiss, all in one call", "ours, 1 client",
         "ratio to one a call", "ratio to all in one"],
        table,
    )  # fmt: skip


#: Of 10,000 values of the column `part`, how many pass, and what that is of the rows.
PASSING = ((1000, "10 %"), (100, "1 %"), (10, "0.1 %"), (1, "0.01 %"))
#: The ways to the nearest of the rows that pass: the index that each is by.
WAYS = {"filtered afterwards": "annb_ivf", "filter column": "annb_filter_ivf", "btree, then sorted": "annb_part"}


def only(db, names: list[str]) -> None:
    """Lets the planner see these indexes of WAYS and no other of them."""
    db.execute(
        "UPDATE pg_index SET indisvalid = indexrelid = ANY (%s::text[]::regclass[]) "
        "WHERE indexrelid = ANY (%s::text[]::regclass[])",
        [names, list(WAYS.values())],
    )


def filters(bench: Bench) -> None:
    """Filters that 10 % to 0.01 % of the rows pass: by each way, and by the one that the planner chooses."""
    rows = []
    with bench.connect() as db:
        db.execute("CREATE EXTENSION IF NOT EXISTS pg_prewarm")
        db.execute("DROP INDEX IF EXISTS annb_filter_ivf, annb_part")
        columns = f"d {bench.options.type}_cosine_ops, part"
        took = timed(db, f"CREATE INDEX annb_filter_ivf ON annb_refs USING ivf ({columns})")
        db.execute("CREATE INDEX annb_part ON annb_refs (part)")
        db.execute("SELECT pg_prewarm(indexrelid) FROM pg_index WHERE indrelid = 'annb_refs'::regclass")
        db.execute("SELECT pg_prewarm('annb_refs')")
        sizes = [db.execute("SELECT pg_relation_size(%s)", [name]).fetchone()[0] / MB for name in WAYS.values()]
    titles = ["seconds", *(f"{way}, MB" for way in WAYS)]
    bench.say("The index with a filter column (int4)", titles, [[took["seconds"], *sizes]])
    part = np.arange(len(bench.x)) * PRIME % 10_000
    for most, share in PASSING:
        where = f"WHERE part < {most}"
        members = np.flatnonzero(part < most)
        truth = members[ivf_data.nearest(bench.x[members], bench.q, min(10, len(members)))]
        measured = {}
        for way, indexes in {**{way: [name] for way, name in WAYS.items()}, "chosen": list(WAYS.values())}.items():
            settings = {"jit": "off"} if way == "chosen" or indexes == ["annb_part"] else SWEEP
            with bench.connect(settings) as db:
                only(db, indexes)
                sql = nearest(10, where=where)
                explained = "\n".join(row[0] for row in db.execute("EXPLAIN " + sql.replace("%s", "1")))
                used = re.search(r"(?:Bitmap Index Scan on|Index Scan using) (annb_(?!q)\w+)", explained)
                started = time.perf_counter()
                db.execute(nearest(10, where=where), [0], prepare=True)
                # What takes seconds a query is judged by a few.
                judged = int(np.clip(20 / (time.perf_counter() - started), 3, 200))
                found = recall(db, nearest(10, where=where), truth, truth.shape[1], judged)
            rate = queries_a_second(bench, nearest(10, where=where, query=":i"), settings, 1)
            measured[way] = (rate, found, used.group(1) if used else "none")
        best = max(rate for way, (rate, _, _) in measured.items() if way != "chosen")
        for way, (rate, found, used) in measured.items():
            before = measured["filtered afterwards"][0]
            rows.append([share, way, used, found, rate, rate / before, rate / best])
    with bench.connect() as db:
        only(db, list(WAYS.values()))
        db.execute("DROP INDEX annb_filter_ivf, annb_part")
    bench.say(
        "Filtered, default settings, LIMIT 10, 1 client",
        ["rows that pass", "way", "index used", "recall@10", "queries/s", "of filtered afterwards", "of the best way"],
        rows,
    )


def buffers(bench: Bench) -> None:
    """Pages that a query touches, and the server's own time for it."""
    rows = []
    with bench.connect(SWEEP) as db:
        for k in (1, 10, 100):
            pages, planning, execution = [], [], []
            for number in range(0, len(bench.q), max(1, len(bench.q) // 100)):
                explained = db.execute(
                    "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + nearest(k).replace("%s", str(number))
                ).fetchone()[0][0]
                plan = explained["Plan"]
                pages.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
                planning.append(explained["Planning Time"])
                execution.append(explained["Execution Time"])
            rows.append(
                [k, float(np.mean(pages)), int(max(pages)), float(np.median(planning)), float(np.median(execution))]
            )
    bench.say(
        "Buffers a query, default settings",
        ["LIMIT", "pages, mean", "most", "planning, ms", "execution under EXPLAIN, ms"],
        rows,
    )


def forget_files(folder: pathlib.Path) -> None:
    """Asks the kernel to drop the files from its cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cold(bench: Bench) -> None:
    """Right after a start with nothing in any cache."""
    bench.cluster.stop()
    forget_files(bench.cluster.data / "base")
    bench.cluster.start()
    taken = []
    with bench.connect(SWEEP) as db:
        # What the session itself needs first: catalogues, the library, the query's table.
        db.execute("LOAD 'copymatch'; SELECT sum(id) FROM annb_q")
        for number in range(min(1000, len(bench.q))):
            started = time.perf_counter()
            db.execute(nearest(10), [number], prepare=True).fetchall()
            taken.append((time.perf_counter() - started) * 1000)
    parts = [("1", taken[:1]), ("2 to 100", taken[1:100]), ("101 to 1,000", taken[100:])]
    rows = [[name, float(np.mean(part)), float(np.max(part))] for name, part in parts if part]
    bench.say("Cold cache, default settings, LIMIT 10", ["query", "ms, mean", "ms, worst"], rows)


def inserts(bench: Bench) -> None:
    """Rows a second by single inserts into a full table, and the WAL that each takes."""
    rows = []
    with bench.connect() as db:
        fresh_rows(db, bench)
        for indexed in (False, True):
            db.execute("DROP TABLE IF EXISTS annb_live")
            db.execute(f"CREATE TABLE annb_live (id int, d {bench.options.type}({bench.x.shape[1]}))")
            db.execute(
                "ALTER TABLE annb_live ALTER d SET STORAGE plain; INSERT INTO annb_live SELECT id, d FROM annb_refs"
            )
            if indexed:
                db.execute(create_index(bench, "annb_live", "live_ivf"))
            db.execute("CHECKPOINT")
            for clients, commit in ((1, "off"), (8, "off"), (1, "on"), (8, "on")):
                before, wal = db.execute("SELECT count(*) FROM annb_live").fetchone()[0], lsn(db)
                statement = "INSERT INTO annb_live SELECT nextval('annb_number'), d FROM annb_new WHERE id = :i"
                count = db.execute("SELECT count(*) FROM annb_new").fetchone()[0]
                rate = pgbench(
                    bench, statement, {"synchronous_commit": commit}, clients, f"\\set i random(0, {count - 1})"
                )
                added = db.execute("SELECT count(*) FROM annb_live").fetchone()[0] - before
                rows.append(
                    [
                        "with the index" if indexed else "table alone",
                        clients,
                        commit,
                        rate,
                        (lsn(db) - wal) / max(1, added),
                    ]
                )
    bench.say(
        "Inserts, one row a transaction", ["into", "clients", "synchronous_commit", "rows/s", "WAL bytes a row"], rows
    )


def fresh_rows(db, bench: Bench) -> np.ndarray:
    """The table annb_new: vectors of the same network, from another world of pictures, as many
    as a tenth of the data."""
    count = max(1000, len(bench.x) // 10)
    other = ivf_data.Descriptors(bench.x.shape[1], clusters=99)
    vectors = np.concatenate(
        [other.vectors(other.points(min(ivf_data.CHUNK, count - at))) for at in range(0, count, ivf_data.CHUNK)]
    )
    make_table(db, "annb_new", "d", bench, vectors)
    db.execute("DROP SEQUENCE IF EXISTS annb_number; CREATE SEQUENCE annb_number START 100000000")
    return vectors


def drift(bench: Bench) -> None:
    """Half of the rows indexed, then as many inserted from another world; queries from both."""
    half = len(bench.x) // 2
    other = ivf_data.Descriptors(bench.x.shape[1], clusters=99)
    new, new_queries = other.references_and_queries(half, min(1000, len(bench.q)))
    old = np.asarray(bench.x[:half])
    everything, queries = np.concatenate([old, new]), np.concatenate([bench.q[: len(new_queries)], new_queries])
    truth, sides = (
        ivf_data.nearest(everything, queries, 10),
        {"old": slice(0, len(new_queries)), "new": slice(len(new_queries), None)},
    )
    rows = []

    def judge(moment: str, seconds: float) -> None:
        with bench.connect(SWEEP) as session:
            sql = nearest(10, "annb_live", queries="annb_drift_q")
            found = {}
            for side, part in sides.items():
                numbers = range(len(queries))[part]
                hits = [
                    len({r[0] for r in session.execute(sql, [n], prepare=True)} & set(truth[n].tolist()))
                    for n in numbers
                ]
                found[side] = float(np.mean(hits)) / 10
            draw = f"\\set i random(0, {len(queries) - 1})"
            rate = pgbench(bench, nearest(10, "annb_live", queries="annb_drift_q", query=":i"), SWEEP, 1, draw)
        rows.append([moment, seconds, found["old"], found["new"], rate])

    with bench.connect() as db:
        make_table(db, "annb_drift_q", "q", bench, queries)
        make_table(db, "annb_live", "d", bench, old)
        db.execute(create_index(bench, "annb_live", "live_ivf"))
        started, wal = time.perf_counter(), lsn(db)
        ivf_data.copy(db, "annb_live (id, d)", new, first=half, kind=bench.options.type)
        seconds = time.perf_counter() - started
        bench.figures["drift copy"] = {"rows/s": half / seconds, "WAL bytes a row": (lsn(db) - wal) / half}
        judge("doubled by COPY", seconds)
        judge("VACUUM", timed(db, "VACUUM ANALYZE annb_live")["seconds"])
        judge("REINDEX", timed(db, "REINDEX INDEX live_ivf")["seconds"])
    copied = bench.figures["drift copy"]
    bench.say(
        f"Doubled by rows of another distribution ({copied['rows/s']:,.0f} rows/s, {copied['WAL bytes a row']:,.0f} "
        "WAL bytes a row), default settings",
        ["after", "seconds", "recall@10, old", "recall@10, new", "queries/s, 1 client"],
        rows,
    )


def grown(bench: Bench) -> None:
    """An index made on the empty table that all rows are then copied into, beside one that is built over them."""
    rows = []
    with bench.connect() as db:
        make_table(db, "annb_live", "d", bench, np.asarray(bench.x[:0]))
        db.execute(create_index(bench, "annb_live", "live_ivf"))

        def judge(moment: str, seconds: float) -> None:
            shape = db.execute("SELECT lists, branches, bytes FROM copy_index_stats('live_ivf')").fetchone()
            with bench.connect(SWEEP) as session:
                found = recall(session, nearest(10, "annb_live"), bench.truth, 10)
            rate = queries_a_second(bench, nearest(10, "annb_live", query=":i"), SWEEP, 1)
            rows.append([moment, seconds, *shape[:2], shape[2] / len(bench.x), found, rate])

        started = time.perf_counter()
        ivf_data.copy(db, "annb_live (id, d)", np.asarray(bench.x), kind=bench.options.type)
        judge("COPY into the empty table", time.perf_counter() - started)
        judge("VACUUM", timed(db, "VACUUM ANALYZE annb_live")["seconds"])
        judge("REINDEX", timed(db, "REINDEX INDEX live_ivf")["seconds"])
    bench.say(
        "Grown from empty, default settings",
        ["after", "seconds", "lists", "branches", "bytes a row", "recall@10", "queries/s, 1 client"],
        rows,
    )


def vacuum(bench: Bench) -> None:
    """VACUUM and ANALYZE after 10 % deletes, and the searches of another session meanwhile."""
    rows = []
    with bench.connect() as db:
        make_table(db, "annb_live", "d", bench, np.asarray(bench.x))
        db.execute(create_index(bench, "annb_live", "live_ivf"))
        for what, sql in (
            ("nothing", "SELECT pg_sleep(5)"),
            ("ANALYZE", "ANALYZE annb_live"),
            ("VACUUM", "VACUUM annb_live"),
            ("second VACUUM", "VACUUM annb_live"),
        ):
            if what == "ANALYZE":
                db.execute("DELETE FROM annb_live WHERE id % 10 = 7")
            size = db.execute("SELECT pg_relation_size('live_ivf')").fetchone()[0]
            searcher = Latencies(bench, "annb_live")
            searcher.start()
            took = timed(db, sql)
            taken = searcher.stop()
            after = db.execute("SELECT pg_relation_size('live_ivf')").fetchone()[0]
            rows.append(
                [
                    what,
                    took["seconds"],
                    took["wal"] / MB,
                    (after - size) / MB,
                    len(taken),
                    *(float(np.percentile(taken or [np.nan], p)) for p in (50, 99, 100)),
                ]
            )
    bench.say(
        "Vacuum after 10 % deletes, and searches meanwhile (one session, LIMIT 10)",
        ["running", "seconds", "WAL, MB", "index grew by, MB", "searches", "p50, ms", "p99, ms", "worst, ms"],
        rows,
    )


PARTS = {f.__name__: f for f in (build, cancel, sweep, faiss, filters, buffers, cold, inserts, drift, grown, vacuum)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--queries", type=int, default=4000)
    parser.add_argument("--type", choices=["vector", "halfvec"], default="vector")
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--annbench", type=pathlib.Path)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seconds", type=float, default=6, help="of each timing by pgbench")
    parser.add_argument("--shared-buffers", default="4GB")
    parser.add_argument("--maintenance-work-mem", default="64MB", help="PostgreSQL's default unless given")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


def main() -> None:
    bench = Bench(arguments())
    chosen = bench.options.parts.split(",")
    print(f"{bench.figures['machine']}; {len(bench.x):,} × {bench.x.shape[1]}, {bench.options.type}")
    try:
        load(bench)
        with bench.connect() as db:
            if "build" not in chosen and db.execute("SELECT to_regclass('annb_ivf')").fetchone()[0] is None:
                db.execute(create_index(bench, "annb_refs", "annb_ivf"))
        for name, part in PARTS.items():
            if name in chosen:
                part(bench)
    finally:
        bench.finish()


if __name__ == "__main__":
    main()
