#!/usr/bin/env python3
"""Attacks the extension with what nobody sends in earnest, for a bounded time: attack.py
[--seconds N] [--seed N] [PART…].

Parts: calls (every function with random, NULL and hostile arguments), copy (COPY BINARY with hostile headers),
pictures (bombs and mutated pictures), index (damaged index files), models (mutated ONNX). Each has its share of the
time. Wrong is what ends a session or the server, an internal error (SQLSTATE XX000) and a call that its time limit
does not end; each is printed with the statement, and the seed repeats it. Needs COPYMATCH_DSN, the connection string
of a superuser of a private server, whose data folder this process may write (part index). The last line is `N calls,
M wrong`; exit status 1 where one is.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import pathlib
import random
import struct
import sys
import time

import psycopg
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from pictures import blank, jpeg, png, png_bomb, scene  # noqa: E402

PAGE = 8192
LIMIT = "5s"
#: PostgreSQL's own internal errors, which its functions give for such arguments too.
OWN = ("cache lookup failed", "could not open relation with OID", "invalid memory alloc request size")
#: They run for ever, or end others: whoever may call them is trusted with that.
LEFT_OUT = {"copy_start_worker", "copy_stop_worker", "copy_process_queue"}

HOSTILE = {
    "text": ["", "x", "' OR 1=1 --", '"', "é" * 70, "x" * 100_000, "refs", "copymatch-small-7", "\\", "%s%n", "\u202e",
             "a" * 63, "pg_class"],
    "name": ["", "x", "refs", "image", 'a"b', "é" * 31],
    "cstring": ["", "[1,2,3]", "[", "[1e39]", "{}", "[" + "1," * 20000 + "1]"],
    "int4": [0, 1, -1, 2, 10, 2**31 - 1, -(2**31), 10000, 16000, 16001],
    "int8": [0, 1, -1, 2, 2**63 - 1, -(2**63), 2**40],
    "int2": [0, 1, -1, 32767, -32768],
    "float8": ["0", "1", "-1", "NaN", "Infinity", "-Infinity", "1e308", "5e-324", "0.5"],
    "float4": ["0", "1", "NaN", "Infinity", "1e38"],
    "bool": [True, False],
    "bytea": [b"", b"\0", b"x" * 10, b"\xff" * 5000],
    "oid": [0, 1, 1259, 2**32 - 1, 16384],
    "regclass": ["0", "pg_class", "refs", "refs_ivf", "4294967295", "copymatch.finding", "pg_toast.pg_toast_1255"],
    "jsonb": ["null", "{}", "[]", "1e400", '"\\u0000x"'[:1] + "x" + '"', "[" * 900 + "]" * 900, '{"clamp":[1e400,0]}',
              '{"evidence":' + "[" * 200 + "]" * 200 + "}", "-0.0"],
    "timestamptz": ["-infinity", "infinity", "now", "4714-11-24 BC", "294276-12-31"],
    "interval": ["0", "-1 day", "178000000 years", "1 s"],
    "vector": ["[1]", "[0]", "[" + "1," * 255 + "1]", "[" + "0," * 255 + "0]", "[3.4e38]", "[" + "1," * 15999 + "1]"],
    "halfvec": ["[1]", "[0]", "[65504]", "[" + "1," * 15999 + "1]"],
    "bit": ["", "1", "0" * 64, "10" * 8000],
    "tid": ["(0,0)", "(0,1)", "(4294967295,65535)"],
    "date": ["-infinity", "2020-01-01"],
    "numeric": ["NaN", "1e400", "-1", "0"],
}  # fmt: skip

FUNCTIONS = """
    SELECT p.oid::regprocedure::text, p.prokind, p.proname, n.nspname,
           ARRAY(SELECT t.typname::text FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY u(t, place) JOIN pg_type t
           ON t.oid = u.t ORDER BY u.place),
           ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY u(t, place)
           ORDER BY u.place)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
         JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'copymatch'
    WHERE p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype) ORDER BY 1
"""


class Attack:
    def __init__(self, dsn: str, seed: int):
        self.dsn = dsn
        self.random = random.Random(seed)
        self.calls = 0
        self.wrong: list[str] = []
        self.database = f"copymatch_attack_{os.getpid()}"
        self.pictures = [jpeg(scene(1)), png(scene(2)), jpeg(scene(3), 40), *self.others(scene(4, 120, 90))]
        self.hostile_pictures = [
            png_bomb(),
            blank(),
            b"\xff\xd8\xff",
            b"GIF89a\xff\xff\xff\xff",
            b"BM" + b"\xff" * 60,
            b"RIFF\xff\xff\xff\xffWEBPVP8X" + b"\xff" * 30,
        ]

    @staticmethod
    def others(image: Image.Image) -> list[bytes]:
        files = []
        for kind in ("GIF", "WEBP", "TIFF", "BMP", "PPM"):
            buffer = io.BytesIO()
            with contextlib.suppress(Exception):
                image.save(buffer, kind)
                files.append(buffer.getvalue())
        return files

    def connect(self, database: str | None = None, **options) -> psycopg.Connection:
        parts = psycopg.conninfo.conninfo_to_dict(self.dsn) | {"dbname": database or self.database}
        end = time.monotonic() + 60
        while True:
            try:
                db = psycopg.connect(
                    psycopg.conninfo.make_conninfo(**parts), autocommit=True, prepare_threshold=None, **options
                )
                db.execute(
                    f"SET statement_timeout = '{LIMIT}'; SET client_min_messages = error; SET lock_timeout = '2s'"
                )
                return db
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def attempt(
        self, db: psycopg.Connection, sql: str, parameters=None, shown: str | None = None
    ) -> psycopg.Connection:
        """Runs a statement; whatever PostgreSQL answers is right but for an internal error, the end of the
        session, or none at all."""
        self.calls += 1
        began = time.monotonic()
        try:
            db.execute(sql, parameters)
        except psycopg.Error as error:
            told = f"{shown or sql} {str(parameters)[:300] if parameters else ''}"
            if db.broken or db.closed:
                self.wrong.append(
                    f"the session ended ({str(error).splitlines()[0] if str(error) else type(error).__name__}) "
                    f"in: {told}"
                )
                return self.connect(db.info.dbname if False else self.at)
            if error.sqlstate == "XX000" and not any(own in str(error) for own in OWN):
                self.wrong.append(f"XX000 {str(error).splitlines()[0]} in: {told}")
        if time.monotonic() - began > 30:
            self.wrong.append(f"{time.monotonic() - began:.0f} s for: {shown or sql}")
        return db

    # Parts. Each ends when its time does.

    def set_up(self) -> None:
        with self.connect("postgres") as db:
            db.execute("SET statement_timeout = 0")
            db.execute(f"CREATE DATABASE {self.database}")
        self.at = self.database
        with self.connect() as db:
            db.execute(
                "SET statement_timeout = 0; CREATE EXTENSION copymatch; "
                "CREATE TABLE refs (id int PRIMARY KEY, image bytea)"
            )
            db.execute("SELECT copy_create_set('refs', 'refs', 'id', 'image')")
            for number in range(6):
                db.execute("INSERT INTO refs (id, image) VALUES (%s, %s)", [number, jpeg(scene(number))])
            db.execute("CREATE TABLE uploads (id int PRIMARY KEY, image bytea)")
            db.execute(
                "CREATE TRIGGER flag AFTER INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
                "'refs')"
            )
            db.execute("INSERT INTO uploads VALUES (1, %s)", [jpeg(scene(1), 60)])
            db.execute("CREATE TABLE vectors (id int, v vector(3), h halfvec(3), free vector)")

    def tear_down(self) -> None:
        with self.connect("postgres") as db:
            db.execute("SET statement_timeout = 0")
            for (name,) in db.execute(
                "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [self.database]
            ).fetchall():
                db.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def argument(self, kind: str):
        draw = self.random.random()
        if kind.startswith("_"):
            if draw < 0.15:
                return None
            return [self.argument(kind[1:]) for _ in range(self.random.choice([0, 1, 1, 2, 3, 50]))]
        if draw < 0.12 or kind not in HOSTILE:
            return None
        if kind == "bytea" and draw < 0.6:
            return (
                self.mutated(self.random.choice(self.pictures))
                if draw < 0.45
                else self.random.choice(self.hostile_pictures)
            )
        return self.random.choice(HOSTILE[kind])

    def part_calls(self, end: float) -> None:
        db = self.connect()
        functions = db.execute(FUNCTIONS).fetchall()
        while True:
            self.random.shuffle(functions)
            for shown, kind, name, schema, types, full in functions:
                if time.monotonic() > end:
                    db.close()
                    return
                if name in LEFT_OUT:
                    continue
                arguments = [self.argument(one) for one in types]
                places = ", ".join("NULL" if one == "internal" else f"%s::{full[at]}" for at, one in enumerate(types))
                given = [value for value, one in zip(arguments, types, strict=True) if one != "internal"]
                call = f'"{schema}"."{name}"({places})'
                # What a call changes is taken back, so that the next one meets the same database.
                statement = (
                    f"CALL {call}" if kind == "p" else f"SELECT * FROM {call}" if kind == "f" else f"SELECT {call}"
                )
                if kind == "p":
                    db = self.attempt(db, statement, given, shown)
                    continue
                db.execute("BEGIN")
                db = self.attempt(db, statement, given, shown)
                with contextlib.suppress(psycopg.Error):
                    db.execute("ROLLBACK")

    def part_copy(self, end: float) -> None:
        db = self.connect()
        header = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
        while time.monotonic() < end:
            count = self.random.choice([0, 1, 3, -1, 16000, 16001, 32767, -32768])
            body = struct.pack(">hh", count, self.random.choice([0, 0, 1, -1])) + self.random.randbytes(
                self.random.choice([0, 1, 4, 6, 12, 4 * 3, 64_000])
            )
            length = self.random.choice([len(body), len(body), len(body), 0, 2, -2, 2**31 - 1])
            column = self.random.choice(["v", "h", "free"])
            data = header + struct.pack(">h", 1) + struct.pack(">i", length) + body + struct.pack(">h", -1)
            self.calls += 1
            try:
                with db.cursor() as cursor, cursor.copy(f"COPY vectors ({column}) FROM STDIN BINARY") as copy:
                    copy.write(data)
                db.execute("SELECT count(*), min(free), max(v), avg(h) FROM vectors; TRUNCATE vectors")
            except psycopg.Error as error:
                if db.broken or db.closed:
                    self.wrong.append(f"the session ended in COPY BINARY of {column} with {data[19:60].hex()}…")
                    db = self.connect()
                elif error.sqlstate == "XX000":
                    self.wrong.append(f"XX000 {error} in COPY BINARY of {column} with {data[19:60].hex()}…")
        db.close()

    def mutated(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.random.choice([1, 1, 2, 8, 64])):
            at = self.random.randrange(min(len(changed), self.random.choice([32, 256, len(changed)])) or 1)
            match self.random.randrange(4):
                case 0:
                    changed[at] = self.random.randrange(256)
                case 1:
                    changed[at : at + 4] = self.random.choice(
                        [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x01"]
                    )
                case 2:
                    del changed[at:]
                case 3:
                    changed[at:at] = changed[at : at + self.random.randrange(64)]
            if not changed:
                break
        return bytes(changed)

    def part_pictures(self, end: float) -> None:
        db = self.connect()
        uses = (
            "SELECT copy_image_info(%s)",
            "SELECT copy_embed(%s)",
            "SELECT copy_explain_matches(%s, (SELECT image FROM refs LIMIT 1))",
            "SELECT copy_explain((SELECT image FROM refs LIMIT 1), %s)",
            "SELECT copy_thumbnail(%s, 64)",
            "SELECT copy_edit(%s, 'crop')",
            "SELECT * FROM copy_match(%s, views => 'all')",
            "INSERT INTO uploads VALUES (-1, %s)",
        )
        while time.monotonic() < end:
            picture = (
                self.random.choice(self.hostile_pictures)
                if self.random.random() < 0.1
                else self.mutated(self.random.choice(self.pictures))
            )
            use = self.random.choice(uses)
            db.execute("BEGIN")
            db = self.attempt(db, use, [picture], f"{use} of {hashlib.sha256(picture).hexdigest()}")
            with contextlib.suppress(psycopg.Error):
                db.execute("ROLLBACK")
        db.close()

    def part_index(self, end: float) -> None:
        template, victim = f"{self.database}_whole", f"{self.database}_damaged"
        with self.connect("postgres") as admin:
            admin.execute("SET statement_timeout = 0")
            admin.execute(f"CREATE DATABASE {template}")
        with self.connect(template) as db:
            db.execute(
                "SET statement_timeout = 0; CREATE EXTENSION copymatch; CREATE TABLE points (id serial, d vector(16))"
            )
            db.execute(
                "INSERT INTO points (d) SELECT array_agg(random() - 0.5)::real[]::vector "
                "FROM generate_series(1, 16 * 1500) g GROUP BY g % 1500"
            )
            db.execute("CREATE INDEX points_ivf ON points USING ivf (d vector_cosine_ops); CHECKPOINT")
            path, folder = db.execute(
                "SELECT pg_relation_filepath('points_ivf'), current_setting('data_directory')"
            ).fetchone()
        relfile = path.rsplit("/", 1)[1]
        while time.monotonic() < end:
            with self.connect("postgres") as admin:
                admin.execute("SET statement_timeout = 0")
                admin.execute(f"DROP DATABASE IF EXISTS {victim} WITH (FORCE)")
                copied = " STRATEGY file_copy" if admin.info.server_version >= 150000 else ""
                admin.execute(f"CREATE DATABASE {victim} TEMPLATE {template}{copied}")
                (oid,) = admin.execute("SELECT oid FROM pg_database WHERE datname = %s", [victim]).fetchone()
            file = pathlib.Path(folder) / "base" / str(oid) / relfile
            data = bytearray(file.read_bytes())
            for _ in range(self.random.choice([1, 2, 10])):
                at = (
                    self.random.randrange(len(data))
                    if self.random.random() < 0.5
                    else self.random.randrange(len(data) // PAGE) * PAGE + self.random.randrange(24, 200)
                )
                data[at : at + 4] = self.random.choice([self.random.randbytes(4), b"\xff" * 4, b"\0" * 4])
            with file.open("r+b") as target:
                target.write(data)
            self.at = victim
            db = self.connect(victim)
            db.execute("SET ignore_checksum_failure = on; SET enable_seqscan = off; SET enable_sort = off")
            for use in (
                "SELECT * FROM copy_index_check('points_ivf', true)",
                "SELECT * FROM copy_index_stats('points_ivf')",
                "SELECT id FROM points ORDER BY d <=> (SELECT d FROM points WHERE id = 7) LIMIT 20",
                "SELECT count(*) FROM (SELECT id FROM points ORDER BY d <=> (SELECT d FROM points WHERE id = 9)) x",
                "INSERT INTO points (d) SELECT d FROM points LIMIT 200",
                "DELETE FROM points WHERE id % 3 = 0",
                "VACUUM points",
                "REINDEX INDEX points_ivf",
            ):
                db = self.attempt(db, use, None, f"{use} of a damaged index")
            db.close()
            self.at = self.database

    def part_models(self, end: float) -> None:
        folder = ROOT / "models" / "default"
        weights, background = ((folder / name).read_bytes() for name in ("model.onnx", "background.bin"))
        manifest, calibration = (
            json.loads((folder / name).read_text()) for name in ("manifest.json", "calibration.json")
        )
        db = self.connect()
        hash_field = next((field for field in manifest if "sha256" in field), None)
        while time.monotonic() < end:
            changed = {"name": "hostile"}
            network = self.random.choice([weights[:2000], b"", b"\x08\x08", weights])
            if network:
                network = self.mutated(network)
            if hash_field:
                changed[hash_field] = hashlib.sha256(network).hexdigest()
            stated = json.dumps(manifest | changed)
            if self.random.random() < 0.2:
                stated = json.dumps(
                    manifest
                    | changed
                    | {self.random.choice(list(manifest)): self.random.choice([None, -1, 1e308, "x", [], {}])}
                )
            call = "SELECT copy_add_model('hostile', %s, %s::jsonb, %s, %s::jsonb)"
            given = [
                network,
                stated,
                self.mutated(background[:5000]) if self.random.random() < 0.5 else background,
                json.dumps(calibration),
            ]
            db.execute("BEGIN; SET LOCAL statement_timeout = '60s'")
            db = self.attempt(db, call, given, "copy_add_model of a mutated network")
            with contextlib.suppress(psycopg.Error):
                db.execute("ROLLBACK")
        db.close()


PARTS = ("calls", "copy", "pictures", "index", "models")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="how long, all parts together (300)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="which parts; all where none is named")
    options = parser.parse_args()
    attack = Attack(os.environ["COPYMATCH_DSN"], options.seed)
    parts = options.parts or PARTS
    attack.set_up()
    try:
        for part in parts:
            before = attack.calls
            getattr(attack, f"part_{part}")(time.monotonic() + options.seconds / len(parts))
            print(f"{part}: {attack.calls - before} calls", flush=True)
    finally:
        attack.tear_down()
    for one in attack.wrong[:50]:
        print(f"wrong: {one}")
    print(f"{attack.calls} calls, {len(attack.wrong)} wrong")
    sys.exit(bool(attack.wrong))


if __name__ == "__main__":
    main()
