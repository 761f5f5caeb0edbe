"""Scores a model on a detection benchmark inside PostgreSQL, through the extension's own
decoding, search and stretching.

The folder holds references.tar, queries.tar and truth.csv (query,reference,edits). Everything is
computed by copy_evaluate and its aggregates; this program loads, asks, prints, and draws the
precision-recall curve. `make eval` runs it.
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
from psycopg.types.json import Json

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "train"))
from copymatch_train.benchmark import Benchmark  # noqa: E402

DATABASE = "copymatch_evaluation"
# More than this between two ways of computing the same is an error, not rounding.
TOLERANCE = 0.005
COMPARED = ("micro_ap", "recall_at_p90", "recall_at_1", "stretched_micro_ap", "stretched_recall_at_p90")
CURVE_POINTS = 500

SCHEMA = """
CREATE EXTENSION copymatch;
CREATE TABLE reference_image (name text PRIMARY KEY, image bytea NOT NULL);
CREATE TABLE query_image (name text PRIMARY KEY, image bytea NOT NULL, reference text, edit text, descriptor vector);
-- Without the image of what could not be embedded: it counts as not found, and is not tried again.
CREATE VIEW benchmark AS SELECT descriptor, CASE WHEN descriptor IS NOT NULL THEN image END AS image, reference, edit
FROM query_image;
"""
#: The same search by other means than the set's index: all references compared, and the index's codes without a look at
#: the descriptors.
MEANS = {
    "exact search": "SET enable_indexscan = off",
    "index, codes alone": "SET enable_seqscan = off; SET enable_sort = off; SET copymatch.rerank = off",
}
CURVES = """
CREATE TEMPORARY TABLE answer AS SELECT * FROM copy_evaluate_matches('benchmark', 'benchmark', verify => 'off');
CREATE TEMPORARY TABLE verified_answer AS SELECT * FROM copy_evaluate_matches('benchmark', 'benchmark',
verify => 'auto');
"""
CURVE = """
SELECT p.recall, p.precision FROM unnest((
    SELECT copy_precision_recall({score}, is_copy, (SELECT count(reference) FROM query_image)) FROM {answers})) p
"""
THRESHOLD = """
SELECT copy_threshold_at_precision({score}, is_copy, (SELECT count(reference) FROM query_image), 0.9) FROM {answers}
"""


def fresh_database(dsn: str) -> str:
    name = sql.Identifier(DATABASE)
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(name))
    return psycopg.conninfo.make_conninfo(dsn, dbname=DATABASE)


def the_model(connection: psycopg.Connection, folder: Path | None) -> str:
    """Name of the model of this folder: the built-in one where it has the same weights, background and calibration."""
    if folder is None:
        return connection.execute("SELECT name FROM copymatch.models WHERE is_default").fetchone()[0]
    weights = (folder / "model.onnx").read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    background = (folder / "background.bin").read_bytes()
    calibration = json.loads((folder / "calibration.json").read_text())
    calibration.pop("evidence", None)
    digest = hashlib.sha256(weights)
    found = connection.execute(
        "SELECT m.name FROM copymatch.model m JOIN copymatch.calibration c ON c.model = m.name "
        "AND c.background_sha256 = m.background_sha256"
        " WHERE m.built_in AND c.built_in AND m.sha256 = %s AND m.background_sha256 = %s AND c.intercept = %s "
        "AND c.clamp_low = %s",
        (digest.digest(), hashlib.sha256(background).digest(), calibration["intercept"], calibration["clamp"][0]),
    ).fetchone()
    if found:
        return found[0]
    name = f"{manifest['name']}-{digest.hexdigest()[:8]}"
    connection.execute(
        "SELECT copy_add_model(%s, %s, %s, %s, %s)",
        (name, weights, Json(manifest | {"name": name}), background, Json(calibration)),
    )
    return name


def load(connection: psycopg.Connection, benchmark: Benchmark):
    with connection.cursor() as cursor:
        with cursor.copy("COPY reference_image FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["text", "bytea"])
            for row in zip(benchmark.reference_names, benchmark.references, strict=True):
                copy.write_row(row)
        with cursor.copy("COPY query_image (name, image, reference, edit) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["text", "bytea", "text", "text"])
            for name, image, truth, edits in zip(
                benchmark.query_names, benchmark.queries, benchmark.truth, benchmark.edits, strict=True
            ):
                copy.write_row((name, image, benchmark.reference_names[truth] if truth >= 0 else None, edits.strip()))


def evaluate(connection: psycopg.Connection, benchmark: Benchmark, folder: Path | None, sizes: list[int]) -> dict:
    """Model, figures by kind of edit ('' for all), thresholds and curves."""
    connection.add_notice_handler(lambda d: print(f"{d.severity.lower()}: {d.message_primary}", file=sys.stderr))
    connection.execute(SCHEMA)
    model = the_model(connection, folder)
    load(connection, benchmark)
    print(
        f"embedding {len(benchmark.references)} references and {len(benchmark.queries)} queries with {model}",
        file=sys.stderr,
    )
    connection.execute(
        "SELECT copy_create_set('benchmark', 'reference_image', 'name', 'image', model => %s, on_bad_image => 'skip')",
        (model,),
    )
    connection.execute(
        "UPDATE query_image SET descriptor = copymatch.embed_query(image, %s, name, (SELECT count(*) "
        "FROM query_image))",
        (model,),
    )
    refused = connection.execute(
        "SELECT (SELECT count(*) FROM reference_image WHERE descriptor IS NULL), (SELECT count(*) FROM query_image "
        "WHERE descriptor IS NULL)"
    ).fetchone()
    rows, columns = both_stages(connection, "off")
    verified, _ = both_stages(connection, "auto")
    by_other_means = other_means(connection, columns)
    connection.execute(CURVES)
    curves, thresholds = {}, {}
    for name, score, answers in (
        ("plain", "similarity", "answer"),
        ("stretched", "score", "answer"),
        ("verified", "score", "verified_answer"),
    ):
        curves[name] = connection.execute(CURVE.format(score=score, answers=answers)).fetchall()
        thresholds[name] = connection.execute(THRESHOLD.format(score=score, answers=answers)).fetchone()[0]
    return {
        "model": model,
        "references": len(benchmark.references),
        "queries": len(benchmark.queries),
        "refused": {"references": refused[0], "queries": refused[1]},
        **rows.pop("", {}),
        "thresholds_at_p90": thresholds,
        "verified": {**verified.pop("", {}), "by_edit": verified},
        "by_edit": rows,
        "by_other_means": by_other_means,
        "short_lists": short_lists(connection, sizes) if sizes else [],
        "sketch_bytes": connection.execute(
            "SELECT avg(octet_length(descriptor_sketch))::int FROM reference_image"
        ).fetchone()[0],
        "curves": curves,
    }


def both_stages(connection: psycopg.Connection, verify: str) -> tuple[dict, list[str]]:
    """The figures by kind of edit with the second stage (`auto`) or without it (`off`), and their names."""
    cursor = connection.execute("SELECT * FROM copy_evaluate('benchmark', 'benchmark', verify => %s)", (verify,))
    columns = [column.name for column in cursor.description]
    return {row[0] or "": dict(zip(columns[1:], row[1:], strict=True)) for row in cursor.fetchall()}, columns


def short_lists(connection: psycopg.Connection, sizes: list[int]) -> list[tuple]:
    """For each number of references that a query is compared with: recall@1, micro-AP, recall@P90, right and
    wrong at copy, and milliseconds of processor time a query; 0: descriptors alone. Where the server is not on
    this machine, no time."""
    (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
    clock = Path(f"/proc/{pid}/stat")

    def spent() -> float:
        try:
            fields = clock.read_text().rsplit(")", 1)[1].split()
        except OSError:
            return float("nan")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    rows = []
    for size in [0, *sizes]:
        connection.execute("SELECT set_config('copymatch.verify_nearest', %s, false)", (str(max(size, 1)),))
        before = spent()
        found, _ = both_stages(connection, "auto" if size else "off")
        every = found[""]
        rows.append(
            (
                size,
                *(every[name] for name in ("recall_at_1", "stretched_micro_ap", "stretched_recall_at_p90")),
                every["true_copy"],
                every["false_copy"],
                1e3 * (spent() - before) / every["query_count"],
            )
        )
    connection.execute("RESET copymatch.verify_nearest")
    return rows


def other_means(connection: psycopg.Connection, columns: list[str]) -> dict:
    """The figures for all queries under each of `MEANS`."""
    found = {}
    for name, settings in MEANS.items():
        with connection.transaction(force_rollback=True):
            connection.execute(settings)
            row = connection.execute(
                "SELECT * FROM copy_evaluate('benchmark', 'benchmark', verify => 'off') LIMIT 1"
            ).fetchone()
            found[name] = dict(zip(columns[1:], row[1:], strict=True))
    return found


def picture(curves: dict[str, list[tuple[float, float]]], figures: dict) -> str:
    """The precision-recall curves as SVG, readable in light and dark."""
    left, top, side = 64, 48, 400
    place = lambda recall, precision: f"{left + recall * side:.1f},{top + (1 - precision) * side:.1f}"  # noqa: E731
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + side + 32} {top + side + 64}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="{left}" y="26" font-size="16">Precision and recall, {figures["copy_count"]} copies '
        f"among {figures['query_count']} queries, {figures['references']} references</text>",
    ]
    for tick in range(0, 11, 2):
        x, y = left + tick / 10 * side, top + (1 - tick / 10) * side
        parts += [
            f'<path d="M{left},{y}H{left + side}M{x},{top}V{top + side}" stroke="#ddd"/>',
            f'<text x="{x}" y="{top + side + 20}" text-anchor="middle">{tick / 10:.1f}</text>',
            f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{tick / 10:.1f}</text>',
        ]
    y = top + 0.1 * side
    parts += [
        f'<path d="M{left},{y}H{left + side}" stroke="#888" stroke-dasharray="4 4"/>',
        f'<text x="{left + side / 2}" y="{top + side + 44}" text-anchor="middle">recall</text>',
        f'<text x="18" y="{top + side / 2}" text-anchor="middle" transform="rotate(-90 '
        f'18 {top + side / 2})">precision</text>',
    ]
    for number, (name, colour) in enumerate((("plain", "#c2541b"), ("stretched", "#1b62c2"), ("verified", "#2a7d3f"))):
        points = curves[name]
        every = max(1, len(points) // CURVE_POINTS)
        shown = [p for at, p in enumerate(points) if at % every == 0 or at + 1 == len(points)]
        line = " ".join(place(recall, precision) for recall, precision in shown)
        prefix = "" if name == "plain" else "stretched_"
        of = figures["verified"] if name == "verified" else figures
        ap, recall = of[f"{prefix}micro_ap"], of[f"{prefix}recall_at_p90"]
        row = top + side - 70 + 22 * number
        parts += [
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>',
            f'<path d="M{left + 12},{row - 4}h24" stroke="{colour}" stroke-width="3"/>',
            f'<text x="{left + 44}" y="{row}">{name}: micro-AP {ap:.3f}, recall {recall:.3f} at precision 0.9</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def table(figures: dict) -> str:
    lines = [
        f"{'':<20}{'queries':>8}{'copies':>8}{'recall@1':>10}{'micro-AP':>10}{'stretched':>10}{'R@P90':>8}"
        f"{'stretched':>10}"
    ]
    for name, row in [("all", figures), *figures["by_other_means"].items(), *sorted(figures["by_edit"].items())]:
        lines.append(
            f"{name:<20}{row['query_count']:>8}{row['copy_count']:>8}{shown(row['recall_at_1']):>10}"
            f"{shown(row['micro_ap']):>10}{shown(row['stretched_micro_ap']):>10}{shown(row['recall_at_p90']):>8}"
            f"{shown(row['stretched_recall_at_p90']):>10}"
        )
    verdicts = (
        "best match of a query{}: verdict copy, {true_copy} right and {false_copy} wrong; review, {true_review} right "
        "and {false_review} wrong"
    )
    lines += ["", verdicts.format(" by descriptor", **figures), ""]
    second = figures["verified"]
    lines.append(f"{'verified':<20}{'queries':>8}{'copies':>8}{'recall@1':>10}{'micro-AP':>10}{'R@P90':>8}")
    for name, row in [("all", second), *sorted(second["by_edit"].items())]:
        lines.append(
            f"{name:<20}{row['query_count']:>8}{row['copy_count']:>8}{shown(row['recall_at_1']):>10}"
            f"{shown(row['stretched_micro_ap']):>10}{shown(row['stretched_recall_at_p90']):>8}"
        )
    lines += ["", verdicts.format(", verified", **second), f"a sketch has {figures['sketch_bytes']} bytes in the mean"]
    if figures["short_lists"]:
        lines += [
            "",
            f"{'compared':<10}{'recall@1':>10}{'micro-AP':>10}{'R@P90':>8}{'copy: right':>13}{'wrong':>7}"
            f"{'ms a query':>12}",
        ]
        lines += [
            f"{size:<10}{recall:>10.4f}{ap:>10.4f}{at_p90:>8.4f}{right:>13}{wrong:>7}{milliseconds:>12.1f}"
            for size, recall, ap, at_p90, right, wrong, milliseconds in figures["short_lists"]
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("--model", type=Path, help="folder of a model (default: the server's default model)")
    parser.add_argument(
        "--dsn",
        default=os.environ.get("COPYMATCH_DSN", ""),
        help="a server with the extension (default: $COPYMATCH_DSN)",
    )
    parser.add_argument("--picture", type=Path, help="write the precision-recall curve there, as SVG")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument(
        "--against", type=Path, help=f"figures by other means, as JSON: more than {TOLERANCE} apart is an error"
    )
    parser.add_argument(
        "--nearest",
        type=int,
        nargs="*",
        default=[],
        help="also: what comparing with so many of the nearest references gives and costs (descriptors are there "
        "already)",
    )
    parser.add_argument("--keep", action="store_true", help=f"leave the database {DATABASE} behind")
    a = parser.parse_args()
    try:
        benchmark = Benchmark.read(a.benchmark)
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"error: {a.benchmark} is no benchmark: {error}") from None
    try:
        with psycopg.connect(fresh_database(a.dsn), autocommit=True) as connection:
            figures = evaluate(connection, benchmark, a.model, a.nearest)
        if not a.keep:
            with psycopg.connect(a.dsn, dbname="postgres", autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(DATABASE)))
    except psycopg.Error as error:
        raise SystemExit(f"error: {error.sqlstate}: {error}") from None
    curves = figures.pop("curves")
    print(table(figures))
    if a.picture:
        a.picture.parent.mkdir(parents=True, exist_ok=True)
        a.picture.write_text(picture(curves, figures))
        print(f"precision-recall curve: {a.picture}")
    if a.against:
        theirs = json.loads(a.against.read_text())
        figures["difference"] = {name: round(abs(figures[name] - theirs[name]), 4) for name in COMPARED}
        print(f"difference to {a.against.name}: {figures['difference']}")
    if a.json:
        a.json.write_text(json.dumps(figures, indent=1) + "\n")
    if a.against and not max(figures["difference"].values()) <= TOLERANCE:
        raise SystemExit(f"error: the two ways differ by more than {TOLERANCE}: {figures['difference']}")


if __name__ == "__main__":
    main()
