#!/usr/bin/env python3
"""What each statement does in a backend that is short of memory: a table by statement and headroom.

Every cell is a fresh session whose address space may grow by so many MB (prlimit --as, which is what `ulimit -v` and
systemd's LimitAS= set) while another session has a transaction open:

    done    the statement succeeded
    error   ERROR 53200 (or 53000: no thread); the session goes on with a small picture once the limit is lifted
    stuck   ERROR 53200, but the session does not embed any more although the limit is lifted
    other   ERROR with another SQLSTATE, which is shown
    ended   FATAL: this session ended, the other went on
    CRASH   all sessions lost their transactions
    HANGS   nothing after 60 s, neither by cancel nor by terminate

Run as root or as the server's user: make bench-headroom ARGS="--headroom 0 8 40 --only embed"
"""

import argparse
import io
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psycopg

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests"))
import pictures  # noqa: E402

DSN = os.environ["COPYMATCH_DSN"]
DATABASE = "headroom"
HEADROOM = (0, 2, 8, 16, 24, 32, 40, 64, 100, 200)
MEGABYTE = 1 << 20
OUT_OF_MEMORY = ("53200", "53000")


def connect(**options) -> psycopg.Connection:
    """A session, tried for half a minute: the server may be recovering from the cell before."""
    for attempt in range(60):
        try:
            return psycopg.connect(DSN, dbname=DATABASE, autocommit=True, **options)
        except psycopg.OperationalError:
            if attempt == 59:
                raise
            time.sleep(0.5)


def encoded(image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def statements() -> dict[str, tuple[str, tuple, bool]]:
    """Name: statement, its arguments, whether the session has embedded before."""
    small = pictures.jpeg(pictures.scene(1))
    large = pictures.scene(2, 4000, 3000)
    jpeg, png = encoded(large, "JPEG", quality=85), encoded(large, "PNG", compress_level=1)
    webp, tiff = encoded(large, "WEBP", quality=60, method=0), encoded(large, "TIFF", compression="tiff_lzw")
    gif = encoded(large.resize((3000, 2000)).quantize(64), "GIF")
    embed = "SELECT vector_norm(copy_embed(%s::bytea))"
    return {
        "first copy_embed of a session": (embed, (small,), False),
        "copy_embed, JPEG 12 MP": (embed, (jpeg,), True),
        "copy_embed, PNG 12 MP": (embed, (png,), True),
        "copy_embed, WebP 12 MP": (embed, (webp,), True),
        "copy_embed, TIFF 12 MP": (embed, (tiff,), True),
        "copy_embed, GIF 6 MP": (embed, (gif,), True),
        "copy_embed_batch of 40": ("SELECT cardinality(copy_embed_batch(array_agg(image))) FROM photo", (), True),
        "copy_edit rotate, JPEG 12 MP": ("SELECT length(copy_edit(%s::bytea, 'rotate'))", (jpeg,), True),
        "copy_edit blur, JPEG 12 MP": ("SELECT length(copy_edit(%s::bytea, 'blur'))", (jpeg,), True),
        "copy_explain_matches, JPEG 12 MP": ("SELECT copy_explain_matches(%s::bytea, %s::bytea)", (jpeg, jpeg), True),
        "copy_match": ("SELECT count(*) FROM copy_match(%s::bytea, 'photos', k => 5)", (small,), True),
        "INSERT into a flagged table": ("INSERT INTO upload (image) VALUES (%s)", (small,), True),
        "index scan of all lists": (
            "SET copymatch.probes = 200; SET enable_seqscan = off; "
            "SELECT max(id) FROM (SELECT id FROM item ORDER BY d <-> "
            "(SELECT d FROM item WHERE id = 7) LIMIT 5000) s",
            None,
            False,
        ),
        "INSERT of 5,000 rows into an index": (
            "INSERT INTO item (d) SELECT d FROM item WHERE id <= 5000",
            (),
            False,
        ),
        "CREATE INDEX": ("CREATE INDEX ON plain USING ivf (d vector_l2_ops)", (), False),
        "VACUUM of an index": ("VACUUM (INDEX_CLEANUP on) item", (), False),
        "copy_micro_ap of 1,000,000": (
            "SELECT copy_micro_ap(random(), random() < 0.1, 200000) FROM generate_series(1, 1000000)",
            (),
            False,
        ),
        "text to vector, 16,000 dimensions": (
            "SELECT sum(vector_norm(('[1' || repeat(',2.5', 15999) || ']')::vector)) FROM generate_series(1, 50)",
            (),
            False,
        ),
    }


def prepare() -> None:
    with psycopg.connect(DSN, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {DATABASE}")
    with connect() as c:
        c.execute("CREATE EXTENSION copymatch")
        c.execute("CREATE TABLE other (n int)")
        c.execute("CREATE TABLE photo (id int PRIMARY KEY, image bytea)")
        for n in range(40):
            c.execute("INSERT INTO photo VALUES (%s, %s)", (n, pictures.jpeg(pictures.scene(n))))
        c.execute("SELECT copy_create_set('photos', 'photo', key => 'id', image => 'image')")
        c.execute("CREATE TABLE upload (id bigserial PRIMARY KEY, image bytea)")
        c.execute(
            "CREATE TRIGGER flag AFTER INSERT ON upload FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
            "'photos')"
        )
        rng = np.random.default_rng(3)
        for table, dimensions, rows in (("item", 96, 40_000), ("plain", 96, 60_000)):
            c.execute(f"CREATE TABLE {table} (id serial, d vector({dimensions}))")
            with c.cursor().copy(f"COPY {table} (d) FROM STDIN") as copy:
                for row in rng.normal(size=(rows, dimensions)).astype("float32"):
                    copy.write_row(("[" + ",".join(f"{x:.4f}" for x in row) + "]",))
        c.execute("CREATE INDEX ON item USING ivf (d vector_l2_ops)")
        c.execute("VACUUM ANALYZE")


def limit(pid: int, address_space: int) -> None:
    """Sets the soft limit of a backend's address space, as its own user where this is root."""
    owner = os.stat(f"/proc/{pid}")
    user = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    value = "unlimited" if address_space == resource.RLIM_INFINITY else address_space
    subprocess.run(["prlimit", "--pid", str(pid), f"--as={value}:"], check=True, **user)


def size(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def settled() -> None:
    """Waits for the end of the recovery that the cell before may have led to."""
    for _ in range(60):
        try:
            with connect() as c:
                c.execute("SELECT pg_sleep(0.2)")
            return
        except psycopg.Error:
            time.sleep(0.5)


def cell(sql: str, arguments, warm: bool, megabytes: int) -> str:
    settled()
    other, session = connect(), connect()
    small = pictures.jpeg(pictures.scene(5))
    other.execute("BEGIN")
    other.execute("INSERT INTO other VALUES (1)")
    session.execute("SET copymatch.threads = 2; SET jit = off; SELECT '[1]'::vector")
    if warm:
        session.execute("SELECT copy_embed(%s::bytea)", (small,))
        session.execute("SELECT count(*) FROM copy_match(%s::bytea, 'photos', k => 1)", (small,))
    pid = session.info.backend_pid
    answer = []

    def run() -> None:
        try:
            session.execute(sql, arguments)
            answer.append("done")
        except psycopg.Error as error:
            answer.append(error.sqlstate or "lost")
            message = str(error).splitlines()[0] if str(error) else ""
            if error.sqlstate and error.sqlstate not in OUT_OF_MEMORY:
                print(f"    {megabytes} MB: {error.sqlstate} {message[:160]}", file=sys.stderr)

    limit(pid, size(pid) + megabytes * MEGABYTE)
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    if thread.is_alive():
        for word in ("cancel", "terminate"):
            connect().execute(f"SELECT pg_{word}_backend({pid})")
            thread.join(10)
            if not thread.is_alive():
                return f"ended by {word}"
        os.kill(pid, signal.SIGKILL)
        thread.join(10)
        return "HANGS"
    try:
        other.execute("COMMIT")
    except psycopg.Error:
        time.sleep(2)
        return "CRASH"
    if answer[0] == "lost" or session.broken:
        return "ended"
    limit(pid, resource.RLIM_INFINITY)
    try:
        session.execute("SELECT copy_embed(%s::bytea)", (small,))
    except psycopg.Error as error:
        print(f"    {megabytes} MB, then: {error.sqlstate} {str(error).splitlines()[0][:160]}", file=sys.stderr)
        return "stuck"
    finally:
        session.close()
        other.close()
    return "done" if answer[0] == "done" else "error" if answer[0] in OUT_OF_MEMORY else answer[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--headroom", type=int, nargs="+", default=HEADROOM, metavar="MB")
    parser.add_argument("--only", help="statements whose name contains this")
    arguments = parser.parse_args()
    prepare()
    print("| statement | " + " | ".join(f"{mb}" for mb in arguments.headroom) + " |")
    print("|---|" + "---|" * len(arguments.headroom), flush=True)
    for name, (sql, values, warm) in statements().items():
        if arguments.only and arguments.only not in name:
            continue
        cells = [cell(sql, values, warm, mb) for mb in arguments.headroom]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
