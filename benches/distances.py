"""Distances per second of one query against many rows, all in one run on one core: the crate's kernels, the server's
functions, the same loops in C as the compiler vectorises them (in a library and as server functions), and numpy.

    make bench-distances [ARGS="--rows 2000 --dimensions 256"]

Every figure is the best of many short repetitions, because the machine may be busy with other things; the server's are
of `SELECT count(*) FROM t WHERE v <-> q < -1e30` less the same scan with `id < 0`, the table in memory.
"""

import argparse
import ctypes
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

# One thread for everybody; numpy reads this when it is imported.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np  # noqa: E402
import psycopg  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
# The optimisation flags of pgvector's Makefile, over PostgreSQL's own -O2.
PORTABLE = ["-O2", "-ftree-vectorize", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math"]
NATIVE = [*PORTABLE, "-march=native"]
REPETITIONS = 150


def best(work, repetitions: int = REPETITIONS) -> float:
    """Seconds of the fastest repetition."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def report(group: str, name: str, nanoseconds: float):
    print(f"{group:<8} {name:<52} {nanoseconds:9.1f} ns {1e3 / nanoseconds:9.2f} M/s", flush=True)


def crate(rows: int, dimensions: int, scan: str | None):
    """The kernels, from the crate's example `scan`."""
    command = [scan] if scan else ["cargo", "run", "-q", "--release", "-p", "vectors", "--example", "scan", "--"]
    output = subprocess.run(
        [*command, str(rows), str(dimensions)], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    for line in output.stdout.splitlines():
        kind, kernel, metric, nanoseconds = line.split()
        report("crate", f"{kind} {metric}, {kernel}", float(nanoseconds))


def compiled(folder: pathlib.Path, name: str, flags: list[str]) -> pathlib.Path | None:
    """benches/distances.c as a library, or None where there is no compiler."""
    if shutil.which("cc") is None:
        return None
    library = folder / name
    source = str(ROOT / "benches" / "distances.c")
    subprocess.run(["cc", "-shared", "-fPIC", *flags, "-o", str(library), source, "-lm"], check=True)
    library.chmod(0o755)
    return library


def c_loops(folder: pathlib.Path, matrix: np.ndarray, query: np.ndarray):
    for label, flags in [("-O2 and pgvector's flags", PORTABLE), ("the same and -march=native", NATIVE)]:
        library = compiled(folder, f"loops{len(flags)}.so", flags)
        if library is None:
            print("c        no compiler here")
            return
        loaded = ctypes.CDLL(str(library))
        pointer = ctypes.POINTER(ctypes.c_float)
        for metric in ["l2", "inner_product"]:
            scan = getattr(loaded, f"scan_{metric}")
            scan.restype = ctypes.c_double
            arguments = (*matrix.shape, matrix.ctypes.data_as(pointer), query.ctypes.data_as(pointer))
            report("c", f"{metric}, {label}", best(functools.partial(scan, *arguments)) * 1e9 / len(matrix))


def numpy_loops(matrix: np.ndarray, query: np.ndarray):
    def l2():
        difference = matrix - query
        return np.einsum("ij,ij->i", difference, difference)

    report("numpy", "l2, subtract and einsum", best(l2) * 1e9 / len(matrix))
    report("numpy", "inner_product, matrix @ query (BLAS)", best(lambda: matrix @ query) * 1e9 / len(matrix))


def server(folder: pathlib.Path, matrix: np.ndarray, query: np.ndarray):
    rows, dimensions = matrix.shape
    with psycopg.connect(os.environ["COPYMATCH_DSN"], autocommit=True) as db:
        db.execute("SET max_parallel_workers_per_gather = 0; SET jit = off; SET client_min_messages = warning")
        db.execute("CREATE EXTENSION IF NOT EXISTS copymatch CASCADE")
        db.execute("SET temp_buffers = '256MB'")
        for kind in ["vector", "halfvec"]:
            db.execute(f"CREATE TEMP TABLE {kind}s (id int, v {kind}({dimensions}))")
            db.execute(f"ALTER TABLE {kind}s ALTER v SET STORAGE PLAIN")
            with db.cursor().copy(f"COPY {kind}s FROM STDIN") as copy:
                for i, row in enumerate(matrix):
                    copy.write_row([i, "[" + ",".join(map(str, row.tolist())) + "]"])
            db.execute(f"VACUUM ANALYZE {kind}s")
        literal = "[" + ",".join(map(str, query.tolist())) + "]"
        functions = {
            "vector <->": f"v <-> '{literal}'",
            "vector <#>": f"v <#> '{literal}'",
            "vector <=>": f"v <=> '{literal}'",
            "vector <+>": f"v <+> '{literal}'",
            "halfvec <->": f"v <-> '{literal}'",
            "halfvec <=>": f"v <=> '{literal}'",
            "vector_dims, the cost of any call": "vector_dims(v)",
        }
        include = subprocess.run(
            [os.environ.get("PG_CONFIG", "/usr/lib/postgresql/15/bin/pg_config"), "--includedir-server"],
            check=False, stdout=subprocess.PIPE, text=True,
        ).stdout.strip()  # fmt: skip
        if include and (library := compiled(folder, "server.so", ["-DSERVER", f"-I{include}", *NATIVE])):
            for name in ["bench_l2_distance", "bench_negative_inner_product"]:
                db.execute(f"""CREATE FUNCTION pg_temp.{name}(vector, vector) RETURNS float8
                    AS '{library}', '{name}' LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE""")
            functions["l2 in C, -march=native"] = f"pg_temp.bench_l2_distance(v, '{literal}')"
            functions["negative inner product in C, -march=native"] = (
                f"pg_temp.bench_negative_inner_product(v, '{literal}')"
            )

        def scan(table: str, condition: str):
            return lambda: db.execute(f"SELECT count(*) FROM {table} WHERE {condition}", prepare=True).fetchone()

        table = {name: "halfvecs" if name.startswith("halfvec") else "vectors" for name in functions}
        empty = dict.fromkeys(["vectors", "halfvecs"], float("inf"))
        times = dict.fromkeys(functions, float("inf"))
        # Turn by turn, so that a disturbance hits all alike.
        for _ in range(3):
            for name, expression in functions.items():
                times[name] = min(times[name], best(scan(table[name], f"{expression} < -1e30"), 50))
            for name in empty:
                empty[name] = min(empty[name], best(scan(name, "id < 0"), 50))
        for name, seconds in times.items():
            report("server", name, (seconds - empty[table[name]]) * 1e9 / rows)
        for name, seconds in empty.items():
            report("server", f"the scan of {name} itself, per row (left out above)", seconds * 1e9 / rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--scan", help="the crate's example `scan`, where it is compiled already")
    options = parser.parse_args()
    random = np.random.default_rng(1)
    matrix = random.normal(size=(options.rows, options.dimensions)).astype(np.float32)
    query = random.normal(size=options.dimensions).astype(np.float32)
    # And one core, the same from start to end.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(
        f"{options.rows} rows of {options.dimensions} dimensions; nanoseconds and millions per second of one distance"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        crate(options.rows, options.dimensions, options.scan)
        c_loops(folder, matrix, query)
        numpy_loops(matrix, query)
        server(folder, matrix, query)


if __name__ == "__main__":
    main()
