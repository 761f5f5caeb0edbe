"""Strangers of one kind, inside PostgreSQL: of each kind 12 references, 12 pictures that are copies of nothing, and
edited copies of the references. Prints, for each kind, how many strangers the verdict `copy` falls on, and how many
copies it finds. `make eval-strangers`.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path

import psycopg
from psycopg import sql

sys.path.insert(0, str(Path(__file__).resolve().parent))
import strangers  # noqa: E402

DATABASE = "copymatch_strangers"
REFERENCES = STRANGERS = 12
MATCH = "SELECT m.reference, m.verdict, m.probability FROM copy_match(%s::bytea, 'kinds', k => 1, verify => %s) m"


def encoded(image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, kind, **options)
    return out.getvalue()


def best(connection: psycopg.Connection, picture: bytes, verify: str) -> tuple:
    """Reference, verdict, probability; of a picture that is refused for want of detail none."""
    try:
        return connection.execute(MATCH, (picture, verify)).fetchone()
    except psycopg.errors.DataException:
        return None, "different", 0.0


def load(connection: psycopg.Connection, kinds: list[str], seed: int, references: int):
    connection.execute(
        "CREATE EXTENSION copymatch; CREATE TABLE reference_image (name text PRIMARY KEY, image bytea NOT NULL)"
    )
    for kind in kinds:
        for number in range(references):
            picture = encoded(strangers.draw(kind, number, seed), "PNG")
            connection.execute("INSERT INTO reference_image VALUES (%s, %s)", (f"{kind} {number}", picture))
    connection.execute("SELECT copy_create_set('kinds', 'reference_image', key => 'name', image => 'image')")


def evaluate(
    connection: psycopg.Connection, kinds: list[str], seed: int, verify: str, references: int
) -> dict[str, dict]:
    figures = {}
    for kind in kinds:
        found = dict(strangers_at_copy=0, strangers_at_review=0, highest=0.0, copies={}, copies_kept={})
        for number in range(STRANGERS):
            picture = encoded(strangers.draw(kind, REFERENCES + number, seed), "PNG")
            _, verdict, probability = best(connection, picture, verify)
            found["strangers_at_copy"] += verdict == "copy"
            found["strangers_at_review"] += verdict == "review"
            found["highest"] = max(found["highest"], probability)
        for number in range(references):
            for edit, image in strangers.copies(strangers.draw(kind, number, seed), number + 100 * seed).items():
                picture = encoded(image, "JPEG", quality=40 + 5 * (number % 9))
                reference, verdict, _ = best(connection, picture, verify)
                kept = verdict == "copy" and reference == f"{kind} {number}"
                found["copies"][edit] = found["copies"].get(edit, 0) + 1
                found["copies_kept"][edit] = found["copies_kept"].get(edit, 0) + kept
        figures[kind] = found
    return figures


def table(figures: dict[str, dict], references: int) -> str:
    edits = list(next(iter(figures.values()))["copies"])
    heading = f"of {STRANGERS}, {references}"
    lines = [f"{heading:<26}{'at copy':>8}{'review':>8}{'highest':>9}" + "".join(f"{edit:>11}" for edit in edits)]
    for kind, found in figures.items():
        kept = "".join(f"{found['copies_kept'][edit]:>11}" for edit in edits)
        lines.append(
            f"{kind:<26}{found['strangers_at_copy']:>8}{found['strangers_at_review']:>8}{found['highest']:>9.4f}{kept}"
        )
    worst = max(figures, key=lambda kind: figures[kind]["strangers_at_copy"])
    least = min(figures, key=lambda kind: min(figures[kind]["copies_kept"].values()))
    lines.append(
        f"worst: {figures[worst]['strangers_at_copy']} strangers at copy "
        f"({worst}); {min(figures[least]['copies_kept'].values())} of {references} copies kept ({least})"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dsn",
        default=os.environ.get("COPYMATCH_DSN", ""),
        help="a server with the extension (default: $COPYMATCH_DSN)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--references",
        type=int,
        default=REFERENCES,
        help="of each kind, at most 12: with one of a kind nothing in the set tells what its strangers look like",
    )
    parser.add_argument("--verify", default="auto", choices=("auto", "all", "off"))
    parser.add_argument("--kind", action="append", help="this kind alone (may be repeated)")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--keep", action="store_true", help=f"leave the database {DATABASE} behind")
    a = parser.parse_args()
    kinds = a.kind or list(strangers.KINDS)
    name = sql.Identifier(DATABASE)
    with psycopg.connect(a.dsn, dbname="postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(name))
    with psycopg.connect(a.dsn, dbname=DATABASE, autocommit=True) as connection:
        load(connection, kinds, a.seed, a.references)
        figures = evaluate(connection, kinds, a.seed, a.verify, a.references)
    if not a.keep:
        with psycopg.connect(a.dsn, dbname="postgres", autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {}").format(name))
    print(table(figures, a.references))
    if a.json:
        a.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
