#!/usr/bin/env python3
"""What the Faiss library does outside a database, on one thread: recall against queries a second.

    ivf_faiss.py DIR [--json FILE] [--seconds S] [--k 10] [--indexes NAME;NAME…]

DIR has the data as ivf_data.py makes it. Each setting is timed with one query a call, as a session of a database has
them, and with all queries in one call. Trained indexes are kept beside the data. faiss-cpu is installed on demand
into .local/bench-venv (requirements-bench.txt), or taken from the Python of $FAISS_PYTHON.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

HERE = pathlib.Path(__file__).resolve()
ROOT = HERE.parent.parent
LOCAL = pathlib.Path(os.environ.get("COPYMATCH_LOCAL") or ROOT / ".local").resolve()
PROBES = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
INDEXES = ("IVF1000,Flat", "IVF2000,RaBitQfs,Refine(SQ8)")
#: For RaBitQ: bits of the query's codes, and how many times k candidates the finer codes judge.
REFINED = [(bits, k_factor) for bits in (4, 8) for k_factor in (4, 10, 20, 40)]


def python_with_faiss() -> str:
    """The path of a Python that has faiss; makes one where there is none."""
    if os.environ.get("FAISS_PYTHON"):
        return os.environ["FAISS_PYTHON"]
    folder = LOCAL / "bench-venv"
    python = folder / "bin" / "python"
    if (
        subprocess.run([python, "-c", "import faiss"], stderr=subprocess.DEVNULL).returncode
        if python.exists()
        else True
    ):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
             "--only-binary", ":all:", "--requirement", ROOT / "requirements-bench.txt"], check=True,
        )  # fmt: skip
    return str(python)


def trained(name: str, folder: pathlib.Path, x: np.ndarray):
    """The index over the data, built on all cores or read from where it was kept; and the seconds that it took."""
    import faiss

    path = folder / f"faiss-{faiss.__version__}-{name.replace(',', '_')}.index"
    notes = path.with_suffix(".json")
    if notes.exists():
        return faiss.read_index(str(path)), json.loads(notes.read_text())["seconds"]
    index = faiss.index_factory(x.shape[1], name, faiss.METRIC_INNER_PRODUCT)
    started = time.perf_counter()
    index.train(x)
    index.add(x)
    seconds = time.perf_counter() - started
    faiss.write_index(index, str(path))
    notes.write_text(json.dumps({"seconds": seconds}))
    return index, seconds


def parameters(index, probes: int, bits: int, k_factor: int):
    """How Faiss is told where to look."""
    import faiss

    if not isinstance(index, faiss.IndexRefine):
        return faiss.IVFSearchParameters(nprobe=probes)
    inner = faiss.IVFRaBitQSearchParameters(nprobe=probes, qb=bits)
    return faiss.IndexRefineSearchParameters(k_factor=k_factor, base_index_params=inner)


def single(index, q, k: int, search, seconds: float) -> float:
    """Queries a second with one query a call."""
    number, started = 0, time.perf_counter()
    while True:
        for _ in range(20):
            at = number % len(q)
            index.search(q[at : at + 1], k, params=search)
            number += 1
        passed = time.perf_counter() - started
        if passed >= seconds:
            return number / passed


def measure(folder: pathlib.Path, names: list[str], k: int, seconds: float) -> list[dict]:
    """One row per index and setting."""
    import faiss

    x, q, truth = (np.load(folder / f"{part}.npy") for part in ("x", "q", "gt"))
    rows = []
    for name in names:
        faiss.omp_set_num_threads(os.cpu_count() or 1)
        index, built = trained(name, folder, x)
        faiss.omp_set_num_threads(1)
        lists = int(name.split(",")[0][3:])
        for bits, k_factor in REFINED if isinstance(index, faiss.IndexRefine) else [(0, 1)]:
            for probes in (probes for probes in PROBES if probes <= lists):
                search = parameters(index, probes, bits, k_factor)
                started = time.perf_counter()
                found = index.search(q, k, params=search)[1]
                batch = len(q) / (time.perf_counter() - started)
                recall = np.mean([len(set(a) & set(b)) for a, b in zip(found, truth[:, :k], strict=True)]) / k
                row = {
                    "index": name,
                    "probes": probes,
                    "bits": bits,
                    "k_factor": k_factor,
                    "k": k,
                    "recall": float(recall),
                }
                row |= {"single": single(index, q, k, search, seconds), "batch": batch, "build_seconds": built}
                rows.append(row)
                print(
                    f"{name} nprobe={probes} qb={bits} k_factor={k_factor}: "
                    f"recall@{k} {recall:.4f}, {row['single']:.0f}/s one a call, {batch:.0f}/s in one call",
                    flush=True,
                )
                if recall > 0.997:
                    break
    return rows


def main() -> None:
    if importlib.util.find_spec("faiss") is None:
        python = python_with_faiss()
        os.execv(python, [python, str(HERE), *sys.argv[1:]])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, nargs="?", default=LOCAL / "bench" / "ivf-1000000x256")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--indexes", default=";".join(INDEXES), help="factory strings, separated by semicolons")
    options = parser.parse_args()
    rows = measure(options.folder, options.indexes.split(";"), options.k, options.seconds)
    if options.json:
        options.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
