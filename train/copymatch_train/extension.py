"""Score a model on a detection benchmark inside PostgreSQL: the extension decodes, resizes, embeds, searches and stretches.

Needs psycopg and numpy, not PyTorch: `make eval-model` runs it in the tests' environment, against the private server.
With `--against` (what `evaluate --out` wrote) it fails when a figure differs by more than 0.005.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

import psycopg
from psycopg import sql

from .benchmark import Benchmark, figures_of_answers

DATABASE = "copymatch_evaluation"
TOLERANCE = 0.005
COMPARED = ("micro_ap", "recall_at_p90", "recall_at_1", "stretched_micro_ap", "stretched_recall_at_p90")
# References in the answer to one query, as in `scores.summary`.
K = 10
# Rows a statement: progress shows, and no statement holds all pictures.
BATCH = 100

SCHEMA = """
CREATE EXTENSION copymatch;
CREATE TABLE reference_image (number integer PRIMARY KEY, image bytea NOT NULL);
CREATE TABLE query_image (number integer PRIMARY KEY, image bytea NOT NULL, descriptor vector);
"""
ANSWERS = """
SELECT q.number, m.reference::integer, m.similarity, m.score, m.verdict
FROM query_image q CROSS JOIN LATERAL copy_match_descriptor(q.descriptor, 'benchmark', k => %s, model => %s) m
WHERE q.descriptor IS NOT NULL AND q.number >= %s AND q.number < %s ORDER BY q.number, m.rank
"""


def fresh_database(dsn: str) -> str:
    name = sql.Identifier(DATABASE)
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(name))
    return psycopg.conninfo.make_conninfo(dsn, dbname=DATABASE)


def the_model(connection: psycopg.Connection, folder: Path) -> str:
    """Name of the model that has this folder's weights: the built-in one, or else one added to the catalogue for this run."""
    weights = (folder / "model.onnx").read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    background = (folder / "background.bin").read_bytes()
    calibration = json.loads((folder / "calibration.json").read_text())
    calibration.pop("evidence", None)
    digest = hashlib.sha256(weights)
    found = connection.execute(
        "SELECT m.name FROM copymatch.model m JOIN copymatch.calibration c ON c.model = m.name AND c.background_sha256 = m.background_sha256"
        " WHERE m.built_in AND c.built_in AND m.sha256 = %s AND m.background_sha256 = %s AND c.intercept = %s AND c.clamp_low = %s",
        (digest.digest(), hashlib.sha256(background).digest(), calibration["intercept"], calibration["clamp"][0]),
    ).fetchone()
    if found:
        return found[0]
    name = f"{manifest['name']}-{digest.hexdigest()[:8]}"
    connection.execute(
        "SELECT copy_add_model(%s, %s, %s, %s, %s)",
        (name, weights, json.dumps(manifest | {"name": name}), background, json.dumps(calibration)),
    )
    return name


def progress(what: str, done: int, total: int) -> None:
    end = "\n" if done >= total else "\r"
    if sys.stderr.isatty() or end == "\n":
        print(f"{what}: {done} of {total}", end=end, file=sys.stderr, flush=True)


def embed(connection: psycopg.Connection, model: str, first: int, last: int) -> list[str]:
    """Descriptors of the queries `first` … `last` − 1; why pictures were refused, if any were."""
    statement = "UPDATE query_image SET descriptor = copy_embed(image, %s) WHERE number >= %s AND number < %s"
    try:
        connection.execute(statement, (model, first, last))
    except psycopg.DataError as error:
        if last - first == 1:
            return [f"query {first}: {error.diag.message_primary}"]
        middle = (first + last) // 2
        return embed(connection, model, first, middle) + embed(connection, model, middle, last)
    return []


def answers(connection: psycopg.Connection, benchmark: Benchmark, folder: Path) -> tuple[str, list[tuple], list[str]]:
    """(model, rows of ANSWERS for all queries, refused pictures). A refused query has no row: it counts as not found."""
    connection.execute(SCHEMA)
    model = the_model(connection, folder)
    with connection.cursor() as cursor:
        for table, raws in (("reference_image", benchmark.references), ("query_image", benchmark.queries)):
            statement = sql.SQL("INSERT INTO {} (number, image) VALUES (%s, %s)").format(sql.Identifier(table))
            cursor.executemany(statement, list(enumerate(raws)))
    made = connection.execute(
        "SELECT copy_create_set('benchmark', 'reference_image', 'number', 'image', model => %s, on_bad_image => 'skip')", (model,)
    ).fetchone()[0]
    progress("references", made, len(benchmark.references))
    refused = [f"{len(benchmark.references) - made} references"] if made < len(benchmark.references) else []
    rows = []
    for first in range(0, len(benchmark.queries), BATCH):
        last = min(first + BATCH, len(benchmark.queries))
        refused += embed(connection, model, first, last)
        rows += connection.execute(ANSWERS, (K, model, first, last)).fetchall()
        progress("queries", last, len(benchmark.queries))
    return model, rows, refused


def differences(mine: dict, theirs: dict) -> dict[str, float]:
    return {name: round(abs(mine[name] - theirs[name]), 4) for name in COMPARED}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("--dsn", default=os.environ.get("COPYMATCH_DSN", ""), help="a server with the extension (default: $COPYMATCH_DSN)")
    parser.add_argument("--against", type=Path, help="figures that `evaluate --out` wrote: more than 0.005 apart is an error")
    parser.add_argument("--keep", action="store_true", help=f"leave the database {DATABASE} behind")
    a = parser.parse_args()
    benchmark = Benchmark.read(a.benchmark)
    try:
        with psycopg.connect(fresh_database(a.dsn), autocommit=True) as connection:
            model, rows, refused = answers(connection, benchmark, a.model)
        if not a.keep:
            with psycopg.connect(a.dsn, dbname="postgres", autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(DATABASE)))
    except psycopg.Error as error:
        raise SystemExit(f"error: {error.sqlstate}: {error}") from None
    out = dict(model=model, references=len(benchmark.references), queries=len(benchmark.queries), refused=refused, **figures_of_answers(benchmark, rows))
    if a.against:
        theirs = json.loads(a.against.read_text())
        out["difference"] = differences(out, theirs)
    print(json.dumps(out, indent=1))
    if a.against and not max(out["difference"].values()) <= TOLERANCE:
        raise SystemExit(f"error: the extension and ONNX Runtime with Pillow differ by more than {TOLERANCE}: {out['difference']}")


if __name__ == "__main__":
    main()
