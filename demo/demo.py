#!/usr/bin/env python3
"""copymatch's demo: stores photographs in PostgreSQL, edits them, and asks copy_match where the edited ones come from.

Run by `make demo`. It makes the database `copymatch_demo` anew on each run, prints a table, and writes a page with
every query beside its match. With --check it fails unless at least 36 of the 40 edited copies are found at rank 1 and
nothing wrong is called a copy.
"""

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import page
import plan
import psycopg
from psycopg import sql
from psycopg.rows import namedtuple_row
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
LOCAL = Path(os.environ.get("COPYMATCH_LOCAL") or ROOT / ".local")
DATABASE = "copymatch_demo"
NEEDED = 36

SCHEMA = """
CREATE EXTENSION copymatch;
CREATE TABLE reference_images (id bigserial PRIMARY KEY, title text, image bytea NOT NULL);
CREATE TABLE uploads
    (id bigserial PRIMARY KEY, made_from text, edit text, strength real, seed bigint, image bytea NOT NULL);
"""


@dataclass(frozen=True)
class Outcome:
    """What copy_match said about one query. `match` is its row, None when the picture was refused for `refusal`."""

    number: int
    query: plan.Query
    image: bytes
    match: object | None
    title: str
    refusal: str
    milliseconds: float

    @property
    def is_right(self) -> bool:
        """The nearest reference is the photograph that this query was made from."""
        return self.query.stored and self.match is not None and self.title == self.query.photograph

    @property
    def is_false_alarm(self) -> bool:
        """Called a copy of something that it is not a copy of."""
        return self.match is not None and self.match.verdict == "copy" and not self.is_right


def main() -> int:
    arguments = parse_arguments()
    names = plan.photographs()
    folder = LOCAL / "photographs"
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        return complain(f"{len(missing)} photographs are missing in {folder} ({missing[0]}, …).", "Run: make demo")
    pictures = {name: (folder / name).read_bytes() for name in names}

    try:
        dsn = make_database(arguments.dsn)
        with psycopg.connect(dsn, autocommit=True, row_factory=namedtuple_row) as connection:
            bar = Progress(len(plan.ORIGINALS) + len(plan.BYSTANDERS) + 2 * len(plan.queries()))
            store_references(connection, pictures, bar)
            make_uploads(connection, pictures, bar)
            outcomes = ask(connection, bar)
            runtime = describe_runtime(connection)
            bar.close()
    except psycopg.OperationalError as error:
        return complain(f"No server at {arguments.dsn!r}: {error}", "Run: make demo")
    except psycopg.Error as error:
        return complain(f"{error.sqlstate}: {error}", "The database copymatch_demo is left as it was then.")

    print_table(outcomes, names)
    summary = summarise(outcomes)
    print(f"\n{summary.line}")
    page_path = LOCAL / "demo.html"
    page_path.write_text(page.render(outcomes, names, pictures, summary, runtime), encoding="utf-8")
    print(f"Every query beside its match: {page_path}")
    print_next_steps()
    if arguments.check and not summary.is_good:
        return complain(
            f"At least {NEEDED} of {summary.copies} must be found, without false alarm; {summary.line.lower()}", ""
        )
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Edit photographs and find their originals with copy_match.")
    parser.add_argument(
        "--dsn",
        default=os.environ.get("COPYMATCH_DSN", ""),
        help="libpq connection string of a server with copymatch installed, as a role that may create databases "
        "(default: $COPYMATCH_DSN)",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"exit with 1 unless at least {NEEDED} edited copies are found and nothing wrong is called a copy",
    )
    return parser.parse_args()


def complain(what: str, hint: str) -> int:
    print(f"demo: {what.strip()}\n{hint}".rstrip(), file=sys.stderr)
    return 1


def make_database(dsn: str) -> str:
    """Makes the demo's database anew and returns its connection string."""
    name = sql.Identifier(DATABASE)
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(name))
    return psycopg.conninfo.make_conninfo(dsn, dbname=DATABASE)


class Progress:
    """A bar on a terminal; elsewhere one line per stage."""

    def __init__(self, total: int):
        self.on_terminal = sys.stderr.isatty()
        self.bar = tqdm(total=total, disable=not self.on_terminal, bar_format="{desc:<28} {bar} {n}/{total} {elapsed}")

    def stage(self, what: str) -> None:
        self.bar.set_description_str(what)
        if not self.on_terminal:
            print(what, flush=True)

    def step(self) -> None:
        self.bar.update()

    def close(self) -> None:
        self.bar.leave = False
        self.bar.close()


def store_references(connection: psycopg.Connection, pictures: dict[str, bytes], bar: Progress) -> None:
    stored = plan.ORIGINALS + plan.BYSTANDERS
    bar.stage(f"storing {len(stored)} references")
    connection.execute(SCHEMA)
    connection.execute("SELECT copy_create_set('licensed', 'reference_images', key => 'id', image => 'image')")
    for name in stored:
        # The set's trigger embeds the picture as it is stored.
        connection.execute("INSERT INTO reference_images (title, image) VALUES (%s, %s)", (name, pictures[name]))
        bar.step()


def make_uploads(connection: psycopg.Connection, pictures: dict[str, bytes], bar: Progress) -> None:
    bar.stage("editing photographs")
    for query in plan.queries():
        row = (query.photograph, query.edit, query.strength, query.seed, pictures[query.photograph])
        connection.execute(
            "INSERT INTO uploads (made_from, edit, strength, seed, image)"
            " SELECT made_from, edit, strength, seed,"
            "        CASE WHEN edit IS NULL THEN image ELSE copy_edit(image, edit, strength, seed) END"
            " FROM (VALUES (%s, %s::text, %s::real, %s::bigint, %b::bytea))"
            "      AS original (made_from, edit, strength, seed, image)",
            row,
        )
        bar.step()


def ask(connection: psycopg.Connection, bar: Progress) -> list[Outcome]:
    """Asks copy_match about every upload, as an application would: bytes in, rows out."""
    bar.stage("asking copy_match")
    titles = {str(row.id): row.title for row in connection.execute("SELECT id, title FROM reference_images")}
    uploads = connection.execute("SELECT id, image FROM uploads ORDER BY id").fetchall()
    outcomes = []
    for query, upload in zip(plan.queries(), uploads, strict=True):
        match, refusal = None, ""
        started = time.perf_counter()
        try:
            match = connection.execute("SELECT * FROM copy_match(%b, k => 1)", (upload.image,)).fetchone()
        except psycopg.errors.DataException as error:
            refusal = error.diag.message_primary or "refused"
        elapsed = 1000 * (time.perf_counter() - started)
        title = titles[match.reference] if match else ""
        outcomes.append(Outcome(upload.id, query, upload.image, match, title, refusal, elapsed))
        bar.step()
    return outcomes


def describe_runtime(connection: psycopg.Connection) -> str:
    row = connection.execute(
        "SELECT version() AS server, extversion FROM pg_extension WHERE extname = 'copymatch'"
    ).fetchone()
    return f"copymatch {row.extversion} in {' '.join(row.server.split()[:2])}"


def print_table(outcomes: list[Outcome], names: dict[str, plan.Photograph]) -> None:
    colourful = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    colours = {"copy": "32", "review": "33", "different": "2"} if colourful else {}

    def paint(text: str, colour: str | None) -> str:
        return f"\033[{colour}m{text}\033[0m" if colour and text else text

    alarm = "31" if colourful else None
    header = f"{'':>3}  {'query':<18} {'edit':<19} {'found reference':<18} {'score':>7} {'probability':>11}  verdict"
    print(f"\n{header}\n{'─' * len(header)}")
    for outcome in outcomes:
        query = outcome.query
        if outcome.number == len(outcomes) - len(plan.STRANGERS) + 1:
            print(f"\n     {len(plan.STRANGERS)} pictures that are copies of nothing")
        start = f"{outcome.number:>3}  {names[query.photograph].title:<18} {query.label:<19}"
        if outcome.match is None:
            print(f"{start} {outcome.refusal or 'nothing found'}")
            continue
        match = outcome.match
        wrong = outcome.is_false_alarm or (query.stored and not outcome.is_right)
        found = f"{names[outcome.title].title:<18}"
        verdict = paint(match.verdict, alarm if outcome.is_false_alarm else colours.get(match.verdict))
        remark = "  ← false alarm" if outcome.is_false_alarm else "  ← not its original" if wrong else ""
        numbers = f"{match.score:>7.3f} {match.probability:>11.3f}"
        print(f"{start} {paint(found, alarm if wrong else None)} {numbers}  {verdict}{paint(remark, alarm)}")


@dataclass(frozen=True)
class Summary:
    """The demo's result in numbers."""

    copies: int
    found: int
    called_copy: int
    called_review: int
    strangers: int
    false_alarms: int
    refused: int
    median_milliseconds: float

    @property
    def is_good(self) -> bool:
        return self.found >= NEEDED and self.false_alarms == 0

    @property
    def line(self) -> str:
        return (
            f"Found {self.found} of {self.copies} edited copies at rank 1"
            f" ({self.called_copy} with verdict copy, {self.called_review} review), missed {self.copies - self.found},"
            f" false alarms {self.false_alarms}; copy_match took {self.median_milliseconds:.0f} ms in the median."
        )


def summarise(outcomes: list[Outcome]) -> Summary:
    copies = [outcome for outcome in outcomes if outcome.query.stored]
    right = [outcome for outcome in copies if outcome.is_right]
    times = sorted(outcome.milliseconds for outcome in outcomes)
    return Summary(
        copies=len(copies),
        found=len(right),
        called_copy=sum(outcome.match.verdict == "copy" for outcome in right),
        called_review=sum(outcome.match.verdict == "review" for outcome in right),
        strangers=len(outcomes) - len(copies),
        false_alarms=sum(outcome.is_false_alarm for outcome in outcomes),
        refused=sum(outcome.match is None for outcome in outcomes),
        median_milliseconds=times[len(times) // 2],
    )


def print_next_steps() -> None:
    print(
        f"""
Try next:
  scripts/cluster.sh psql -d {DATABASE} \\
      -c "SELECT u.id, u.edit, m.* FROM uploads u, copy_match(u.image, k => 2) m LIMIT 8"
  scripts/cluster.sh psql -d {DATABASE} -c "SELECT edit, description FROM copy_edits()"
  make psql        # then, with a picture of your own that the server may read:
                   # SELECT * FROM copy_image_info(pg_read_binary_file('/path/to/picture.jpg'));"""
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
