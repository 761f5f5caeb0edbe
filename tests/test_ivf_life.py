"""The life of an ivf index: vacuum and reuse of space, true counts, many sessions at once, damaged pages."""

import contextlib
import os
import pathlib
import random
import re
import struct
import threading
import time

import numpy as np
import psycopg
import pytest
from conftest import MAJOR
from test_ivf_recall import ALL_PROBES, CHECK, clustered, column, find, load, make, near, one, recall, text, use_index

PAGE = 8192
#: The last 16 bytes of a page: magic u16, version u8, kind u8, list u32, generation u32, next u32.
TRAILER = PAGE - 16
#: `make bench-ivf_sessions` sets more of each.
SECONDS, WRITERS, READERS, DAMAGED = (
    int(os.environ.get(f"COPYMATCH_SESSIONS_{name}", default))
    for name, default in {"SECONDS": 12, "WRITERS": 4, "READERS": 2, "DAMAGES": 40}.items()
)
KINDS = {1: "meta", 2: "branch", 3: "directory", 4: "scan", 5: "refine", 6: "free"}


def size(db, index: str = "t_ivf") -> int:
    return one(db, "SELECT pg_relation_size(%s::regclass)", index)


def reltuples(db, relation: str) -> float:
    return one(db, "SELECT reltuples FROM pg_class WHERE oid = %s::regclass", relation)


def contents(db, index: str = "t_ivf") -> str:
    """A digest of the index's file."""
    db.execute("CHECKPOINT")
    return one(db, "SELECT md5(pg_read_binary_file(pg_relation_filepath(%s::regclass)))", index)


# --- vacuum ---


def test_ivf_vacuum_reuses_the_space_of_deleted_rows(db):
    vectors = clustered(8000)
    make(db, vectors)
    db.execute("ALTER TABLE t SET (autovacuum_enabled = off)")
    sizes = []
    for turn in range(5):
        db.execute("DELETE FROM t WHERE mod(id, 2) = %s", [turn % 2])
        db.execute("VACUUM t")
        gone = np.arange(turn % 2, len(vectors), 2)
        load(db, "t", clustered(len(gone) + turn, seed=1)[turn:], ids=gone)
        sizes.append(size(db))
        assert one(db, "SELECT count(*) FROM t") == len(vectors)
    assert max(sizes[1:]) <= 1.1 * sizes[0], sizes
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


def test_ivf_vacuum_of_an_emptied_table_leaves_room_for_as_many_rows(db):
    vectors = clustered(6000)
    make(db, vectors)
    use_index(db)
    before = size(db)
    for _ in range(3):
        db.execute("DELETE FROM t")
        db.execute("VACUUM t")
        assert find(db, vectors[0], None) == []
        assert reltuples(db, "t_ivf") == 0
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
        load(db, "t", vectors)
        assert sorted(find(db, vectors[0], None)) == list(range(6000))
    assert size(db) <= 1.2 * before


def test_ivf_counts_are_true(db):
    vectors = clustered(3000)
    db.execute("CREATE TABLE t (id int, d vector(32)) WITH (autovacuum_enabled = off)")
    load(db, "t", vectors)
    db.execute("INSERT INTO t SELECT -i, NULL FROM generate_series(1, 500) AS i")
    db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops)")
    if int(MAJOR) < 18:  # which leaves the statistics of a table alone whose autovacuum is off
        assert reltuples(db, "t") == 3500, "CREATE INDEX counts the table's rows"
    assert reltuples(db, "t_ivf") in (3000, 3500), "those indexed, or all"
    db.execute("CREATE INDEX t_part ON t USING ivf (d vector_cosine_ops) WHERE id >= 2000")
    assert reltuples(db, "t_part") == 1000
    db.execute("DELETE FROM t WHERE id >= 0 AND id % 3 = 0")
    db.execute("VACUUM t")
    assert reltuples(db, "t_ivf") == 2000
    assert reltuples(db, "t_part") == len([i for i in range(2000, 3000) if i % 3])
    load(db, "t", vectors[:100], first=9000)
    db.execute("VACUUM t")
    assert reltuples(db, "t_ivf") == 2100, "nothing was dead, and yet it counts"


def test_ivf_analyze_alone_leaves_the_index_as_it_is(db):
    vectors = clustered(4000)
    make(db, vectors)
    db.execute("ALTER TABLE t SET (autovacuum_enabled = off)")
    db.execute("DELETE FROM t WHERE id % 2 = 0")
    load(db, "t", vectors, first=4000)
    before = contents(db)
    db.execute("ANALYZE t")
    assert contents(db) == before
    db.execute("VACUUM t")
    assert contents(db) != before


def test_ivf_searching_leaves_the_index_as_it_is(db):
    vectors = clustered(2000)
    make(db, vectors)
    db.execute("DELETE FROM t WHERE id % 2 = 0")
    before = contents(db)
    assert sorted(find(db, vectors[0], None)) == list(range(1, 2000, 2))
    db.execute("SELECT * FROM copy_index_check('t_ivf'::regclass, true)")
    assert contents(db) == before


def test_ivf_vacuum_without_index_cleanup_loses_nothing(db):
    vectors = clustered(1000)
    make(db, vectors)
    use_index(db)
    db.execute("DELETE FROM t WHERE id < 500")
    db.execute("VACUUM (INDEX_CLEANUP off) t")
    load(db, "t", vectors[:500], first=5000)
    expected = [*range(500, 1000), *range(5000, 5500)]
    assert sorted(find(db, vectors[0], None)) == expected
    db.execute("VACUUM (INDEX_CLEANUP on) t")
    assert sorted(find(db, vectors[0], None)) == expected
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


def test_ivf_vacuum_waits_for_no_open_search_and_takes_no_row_from_it(db, connect):
    vectors = clustered(5000)
    make(db, vectors)
    schema = one(db, "SELECT current_schema()")
    reader = connect(db.info.dbname)
    reader.execute(f"SET search_path = {schema}, public; SET enable_seqscan = off; SET enable_sort = off")
    with reader.transaction():
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute(f"DECLARE c CURSOR FOR SELECT id FROM t ORDER BY d <=> '{text(vectors[0])}'")
        found = column(reader, "FETCH 10 FROM c")
        db.execute("SET statement_timeout = '60s'")
        # Dead, but the cursor's snapshot still sees them; then other rows, that it must not see.
        db.execute("DELETE FROM t WHERE id % 2 = 0")
        load(db, "t", vectors, first=10_000)
        db.execute("VACUUM t")
        found += column(reader, "FETCH ALL FROM c")
    assert sorted(found) == list(range(5000))
    db.execute("VACUUM t")
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


def test_ivf_lists_that_vacuum_moves_under_an_open_search_lose_and_double_no_row(db, connect):
    vectors = clustered(4000)
    make(db, vectors)
    schema = one(db, "SELECT current_schema()")
    reader = connect(db.info.dbname)
    reader.execute(f"SET search_path = {schema}, public; SET enable_seqscan = off; SET enable_sort = off")
    for turn in range(3):
        load(db, "t", clustered(3000, seed=60 + turn), first=10_000 * (turn + 1))
        db.execute("DELETE FROM t WHERE mod(id, 5) = %s", [turn])
        with reader.transaction():
            reader.execute(f"DECLARE c CURSOR FOR SELECT id FROM t ORDER BY d <=> '{text(vectors[turn])}'")
            found = column(reader, "FETCH 100 FROM c")
            expected = column(db, "SELECT id FROM t")
            # Vacuum takes away what was dead before the search began, and splits what now becomes large.
            load(db, "t", clustered(3000, seed=60 + turn), first=500_000 + 10_000 * turn)
            db.execute("VACUUM t")
            found += column(reader, "FETCH ALL FROM c")
        assert sorted(found) == sorted(expected)
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


# --- many sessions ---


def run_together(*works) -> None:
    """Runs each in its own thread; raises the first error that one of them had."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_ivf_index_that_grows_from_empty_divides_its_branches_under_open_searches(db):
    """As many lists as a built index has, and in two levels as there; a cursor opened before keeps its rows."""
    vectors = clustered(250_000, 16, seed=5)
    db.execute("CREATE TABLE t (id int, d vector(16)); CREATE INDEX t_ivf ON t USING ivf (d vector_l2_ops)")
    db.execute("SET enable_seqscan = off; SET copymatch.rerank = off")
    load(db, "t", vectors[:20_000])
    assert one(db, "SELECT branches FROM copy_index_stats('t_ivf')") == 1
    db.execute("BEGIN")
    db.execute(f"DECLARE c CURSOR FOR SELECT id FROM t ORDER BY d <-> '{text(vectors[3])}'")
    found = [row[0] for row in db.execute("FETCH 500 FROM c")]
    load(db, "t", vectors[20_000:], first=20_000)
    branches, lists = db.execute("SELECT branches, lists FROM copy_index_stats('t_ivf')").fetchone()
    assert branches >= 3 and lists > 256
    found += [row[0] for row in db.execute("FETCH ALL FROM c")]
    assert sorted(found) == list(range(20_000))
    db.execute("COMMIT")
    db.execute("VACUUM t")
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    db.execute("RESET copymatch.rerank")
    truth = [np.argsort(((vectors - query) ** 2).sum(1))[:10] for query in vectors[::5000]]
    found = [find(db, query, 10, "vector_l2_ops") for query in vectors[::5000]]
    hits = sum(len(set(rows) & set(nearest.tolist())) for rows, nearest in zip(found, truth, strict=True))
    assert hits >= 0.95 * 10 * len(truth)


@pytest.mark.timeout(180 + 2 * SECONDS)
def test_ivf_inserts_searches_and_vacuum_at_the_same_time(db, server):
    permanent = clustered(2000)
    make(db, permanent)
    schema, name = one(db, "SELECT current_schema()"), db.info.dbname
    until = time.monotonic() + SECONDS

    @contextlib.contextmanager
    def session():
        with server.connect(name) as connection:
            # Every list: whether a row is there at all, not whether the default settings find it.
            connection.execute(f"SET search_path = {schema}, public; SET enable_sort = off")
            use_index(connection)
            yield connection

    def insert(worker: int):
        rng = random.Random(worker)
        vectors, number = clustered(20_000, seed=100 + worker), 0
        with session() as connection:
            while time.monotonic() < until:
                first = 1_000_000 * (worker + 1) + number
                at, count = number % (len(vectors) - 50), rng.choice([1, 1, 1, 50])
                load(connection, "t", vectors[at : at + count], first=first)
                if rng.random() < 0.3:
                    connection.execute("DELETE FROM t WHERE id = %s", [first])
                elif rng.random() < 0.3:
                    connection.execute("UPDATE t SET d = d - d - d WHERE id = %s", [first])
                number += count

    def search(worker: int):
        rng = random.Random(worker)
        with session() as connection:
            while time.monotonic() < until:
                number = rng.randrange(len(permanent))
                found = find(connection, permanent[number], 10)
                assert len(set(found)) == 10
                assert found[0] == number, "a row that nobody touches is found at any time"
                if rng.random() < 0.05:
                    everything = find(connection, permanent[number], None)
                    assert len(set(everything)) == len(everything), "no row twice"
                    assert set(range(len(permanent))) <= set(everything), "no row lost"

    def vacuum():
        with session() as connection:
            while time.monotonic() < until:
                connection.execute("VACUUM t")

    run_together(
        *(lambda n=n: insert(n) for n in range(WRITERS)), *(lambda n=n: search(n) for n in range(READERS)), vacuum
    )
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    db.execute("SET enable_sort = off")
    everything = find(db, permanent[0], None)
    assert sorted(everything) == sorted(column(db, "SELECT id FROM t"))
    assert present_recall(db) >= 0.95
    db.execute("VACUUM t")
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    assert sorted(find(db, permanent[0], None)) == sorted(everything)


def present_recall(db) -> float:
    """The recall over the rows that there are now."""
    rows = db.execute("SELECT id, d::float4[] FROM t ORDER BY id").fetchall()
    vectors = np.array([d for _, d in rows], np.float32)
    return recall(db, vectors, near(vectors, 30), ids=[number for number, _ in rows])


def test_ivf_sessions_inserting_into_an_empty_index_lose_no_row(db, server):
    make(db, clustered(0))
    schema, name = one(db, "SELECT current_schema()"), db.info.dbname
    vectors = clustered(4000)

    def insert(first: int):
        with server.connect(name) as connection:
            connection.execute(f"SET search_path = {schema}, public")
            for at in range(first, first + 1000, 20):
                load(connection, "t", vectors[at : at + 20], first=at)

    run_together(*(lambda n=n: insert(1000 * n) for n in range(4)))
    assert sorted(find(db, vectors[0], None)) == list(range(4000))
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


# --- damaged pages ---


def pages(path: pathlib.Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


def blocks_of(path: pathlib.Path) -> dict[str, list[int]]:
    """Which blocks are of which kind."""
    found = {}
    for block, page in enumerate(pages(path)):
        found.setdefault(KINDS.get(page[TRAILER + 3], "none"), []).append(block)
    return found


def put(page: bytearray, at: int, format: str, *values) -> None:
    struct.pack_into("<" + format, page, at, *values)


def flip_bits(page, block, others, rng):
    for _ in range(rng.choice([1, 4, 16])):
        page[rng.randrange(24, TRAILER)] ^= 1 << rng.randrange(8)


def flip_early_bits(page, block, others, rng):
    """Where the fixed parts are."""
    for _ in range(4):
        page[rng.randrange(24, 128)] ^= 1 << rng.randrange(8)


def noise(page, block, others, rng):
    page[24:TRAILER] = rng.randbytes(TRAILER - 24)


def all_ones(page, block, others, rng):
    page[24:TRAILER] = b"\xff" * (TRAILER - 24)


def zeros(page, block, others, rng):
    page[:] = bytes(PAGE)


def empty(page, block, others, rng):
    page[24:TRAILER] = bytes(TRAILER - 24)


def next_is_itself(page, block, others, rng):
    put(page, TRAILER + 12, "I", block)


def next_is_another(page, block, others, rng):
    put(page, TRAILER + 12, "I", rng.choice([0, rng.randrange(len(others)), len(others), 2**31, 2**32 - 2]))


def other_list(page, block, others, rng):
    put(page, TRAILER + 4, "I", rng.choice([0, 1, 2, 3, 2**32 - 1]))


def other_generation(page, block, others, rng):
    put(page, TRAILER + 8, "I", rng.choice([0, 1, 2, 2**32 - 1]))


def other_kind(page, block, others, rng):
    page[TRAILER + 3] = rng.choice([kind for kind in (0, 1, 2, 3, 4, 5, 6, 7, 255) if kind != page[TRAILER + 3]])


def other_magic(page, block, others, rng):
    put(page, TRAILER, "H", rng.randrange(65536))


def another_page(page, block, others, rng):
    page[:] = others[rng.randrange(len(others))]


def pointers(page, block, others, rng):
    for _ in range(12):
        put(page, rng.randrange(24, TRAILER, 4), "I", rng.choice([0, block, rng.randrange(len(others)), 2**32 - 1]))


def words(page, block, others, rng):
    for _ in range(12):
        put(page, rng.randrange(24, TRAILER, 2), "H", rng.choice([0, 1, 0x7F80, 0x7FC0, 0xFFFF, rng.randrange(65536)]))


def nothing_used(page, block, others, rng):
    put(page, 12, "H", 24)


def all_used(page, block, others, rng):
    put(page, 12, "H", TRAILER)


DAMAGES = [
    flip_bits, flip_early_bits, noise, all_ones, zeros, empty, next_is_itself, next_is_another, other_list,
    other_generation, other_kind, other_magic, another_page, pointers, words, nothing_used, all_used,
]  # fmt: skip


def damage(path: pathlib.Path, block: int, how, rng: random.Random) -> None:
    """Damages one block of the file, in place."""
    others = pages(path)
    page = bytearray(others[block])
    how(page, block, others, rng)
    with path.open("r+b") as file:
        file.seek(block * PAGE)
        file.write(page)


def use(cluster, table: str, query: str) -> list[str]:
    """Does everything with a damaged index. What went wrong in a way that it must not; [] when all is well.

    Allowed are answers, PostgreSQL's own error about a damaged page, and XX002 that names a block, or the row
    that an entry leads to and that the table cannot have.
    """
    settings = "-c enable_seqscan=off -c enable_sort=off -c statement_timeout=20s"
    nearest = f"SELECT id FROM {table} ORDER BY d <=> '{query}'"
    wrong = []
    connection = cluster.connect(options=settings)
    for sql in [
        f"SELECT * FROM copy_index_check('{table}_ivf'::regclass, true)",
        f"SELECT * FROM copy_index_stats('{table}_ivf'::regclass)",
        nearest + " LIMIT 10",
        nearest,
        f"INSERT INTO {table} SELECT id + 5000, d FROM {table} WHERE id < 40",
        f"DELETE FROM {table} WHERE id % 2 = 0",
        f"VACUUM {table}",
        f"INSERT INTO {table} SELECT id + 9000, d - d - d FROM {table} WHERE id < 400",
        nearest + " LIMIT 10",
        nearest,
        f"VACUUM {table}",
        f"SELECT * FROM copy_index_check('{table}_ivf'::regclass, false)",
    ]:
        try:
            connection.execute(sql)
        except psycopg.Error as error:
            named = error.sqlstate == "XX002" and re.search(r"block \d+|an entry names row \(\d+,\d+\)", str(error))
            if connection.broken:
                wrong.append(f"the server crashed in: {sql.replace(query, '…')}")
                wait_until_up(cluster)
                connection = cluster.connect(options=settings)
            elif not named and error.sqlstate != "XX001":
                wrong.append(f"{error.sqlstate} {error} in: {sql.replace(query, '…')}")
    connection.close()
    return wrong


def wait_until_up(cluster) -> None:
    """Returns when the server takes connections again after a crash of a backend."""
    deadline = time.monotonic() + 60
    while True:
        try:
            cluster.connect().close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "the server did not come back"
            time.sleep(0.1)


def without_checksums(cluster) -> None:
    """PostgreSQL then believes what it reads."""
    cluster.installation.run("pg_checksums", "--disable", "--no-sync", "-D", cluster.data)


@pytest.mark.timeout(60 + 5 * DAMAGED)
def test_ivf_damaged_pages_give_errors_or_answers_never_crashes_or_endless_loops(fresh_cluster):
    rng = random.Random(11)
    kinds = ["meta", "branch", "directory", "scan", "refine"]
    every = [(kind, how) for kind in kinds for how in DAMAGES]
    rng.shuffle(every)
    cases = [every[number % len(every)] for number in range(DAMAGED)]
    vectors = clustered(800, 16)
    cluster = fresh_cluster(fsync="off", autovacuum="off", shared_buffers="64MB")
    tables, paths = [], {}
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch; CREATE TABLE base (id int, d vector(16))")
        load(db, "base", vectors)
        for number in range(len(cases)):
            table = f"t{number}"
            db.execute(f"CREATE TABLE {table} AS TABLE base")
            db.execute(f"CREATE INDEX {table}_ivf ON {table} USING ivf (d vector_cosine_ops) WITH (lists = 12)")
            if number % 2:
                # Shrunk and grown: tombstones, lists of several pages.
                db.execute(f"DELETE FROM {table} WHERE id % 5 > 0")
                db.execute(f"INSERT INTO {table} SELECT id + 2000, d FROM base WHERE id < 400")
                db.execute(f"VACUUM {table}")
            tables.append(table)
            paths[table] = cluster.data / one(db, "SELECT pg_relation_filepath(%s::regclass)", f"{table}_ivf")
    cluster.stop()
    without_checksums(cluster)
    done = {}
    for table, (kind, how) in zip(tables, cases, strict=True):
        blocks = blocks_of(paths[table]).get(kind)
        if blocks:
            block = rng.choice(blocks)
            damage(paths[table], block, how, rng)
            done[table] = f"{how.__name__} in {kind} block {block}"
    cluster.start()
    reached = {case.split()[2] for case in done.values()}
    assert reached >= {"meta", "directory", "scan", "refine"}
    failures = [
        f"{case}: {problem}" for table, case in done.items() for problem in use(cluster, table, text(vectors[3]))
    ]
    assert failures == []
    with cluster.connect() as db:
        for table in done:
            db.execute(f"REINDEX INDEX {table}_ivf")
            assert db.execute(CHECK, [f"{table}_ivf"]).fetchall() == [], "REINDEX heals"


def test_ivf_missing_pages_give_errors(fresh_cluster):
    vectors = clustered(1500, 16)
    cluster = fresh_cluster(fsync="off", autovacuum="off")
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        names = [f"t{number}" for number in range(4)]
        for name in names:
            make(db, vectors, table=name)
        paths = {
            name: cluster.data / one(db, "SELECT pg_relation_filepath(%s::regclass)", f"{name}_ivf") for name in names
        }
    cluster.stop()
    for name, keep in zip(names, (0, 1, 2, 3), strict=True):
        with paths[name].open("r+b") as file:
            file.truncate(len(pages(paths[name])) // 2 * PAGE if keep == 3 else keep * PAGE)
    cluster.start()
    failures = [problem for name in names for problem in use(cluster, name, text(vectors[3]))]
    assert failures == []


def test_ivf_another_format_version_is_an_error_that_says_reindex(fresh_cluster):
    vectors = clustered(500, 16)
    cluster = fresh_cluster(fsync="off", autovacuum="off")
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        make(db, vectors)
        path = cluster.data / one(db, "SELECT pg_relation_filepath('t_ivf')")
    cluster.stop()
    without_checksums(cluster)
    damage(path, 0, lambda page, *_: put(page, TRAILER + 2, "B", 99), random.Random(1))
    cluster.start()
    with cluster.connect() as db:
        db.execute("SET enable_seqscan = off")
        for sql in (
            f"SELECT id FROM t ORDER BY d <=> '{text(vectors[0])}' LIMIT 1",
            "INSERT INTO t SELECT 1000, d FROM t LIMIT 1",
            "SELECT * FROM copy_index_stats('t_ivf'::regclass)",
        ):
            with pytest.raises(psycopg.Error) as error:
                db.execute(sql)
            assert "version 99" in str(error.value)
            assert "REINDEX" in (error.value.diag.message_hint or "")
            assert error.value.sqlstate in ("XX002", "0A000")
        problems = db.execute(CHECK, ["t_ivf"]).fetchall()
        assert any("version 99" in problem for _, problem in problems)
        db.execute("REINDEX INDEX t_ivf")
        assert sorted(find(db, vectors[0], None)) == list(range(500))
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


def test_ivf_check_finds_lost_and_doubled_and_foreign_rows(fresh_cluster):
    """Row pointers are six bytes: offset u16, block u32. One is overwritten by another; one is
    of a row that never was."""
    vectors = clustered(500, 16)
    cluster = fresh_cluster(fsync="off", autovacuum="off")
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        for table in ("doubled", "foreign_row", "sound"):
            make(db, vectors, table=table)
        paths = {
            table: cluster.data / one(db, "SELECT pg_relation_filepath(%s::regclass)", f"{table}_ivf")
            for table in ("doubled", "foreign_row")
        }
        places = [
            struct.pack("<HI", int(offset), int(block))
            for block, offset in (c.strip("()").split(",") for c in column(db, "SELECT ctid::text FROM doubled"))
        ]
    cluster.stop()
    without_checksums(cluster)
    for table, path in paths.items():
        data = path.read_bytes()
        scanned = b"".join(data[block * PAGE : (block + 1) * PAGE] for block in blocks_of(path)["scan"])
        # A row whose six bytes occur nowhere else by chance.
        first = next(place for place in places[300:] if scanned.count(place) == 1 and data.count(place) == 1)
        start = data.index(first)
        with path.open("r+b") as file:
            file.seek(start)
            file.write(places[3] if table == "doubled" else struct.pack("<HI", 1, 5000))
    cluster.start()
    with cluster.connect() as db:
        assert db.execute(CHECK, ["sound_ivf"]).fetchall() == []
        for table in paths:
            assert len(db.execute(CHECK, [f"{table}_ivf"]).fetchall()) >= 1, table
            assert db.execute(
                f"SELECT id FROM {table} ORDER BY d <=> %s::vector LIMIT 20", [text(vectors[9])]
            ).fetchone() == (9,)


def test_ivf_check_finds_rows_that_the_index_lacks(fresh_cluster):
    """The index's file is put back to an older state, as a bad backup would."""
    vectors = clustered(1000, 16)
    cluster = fresh_cluster(fsync="off", autovacuum="off")
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        make(db, vectors[:900])
        path = cluster.data / one(db, "SELECT pg_relation_filepath('t_ivf')")
    cluster.stop()
    old = path.read_bytes()
    cluster.start()
    with cluster.connect() as db:
        load(db, "t", vectors[900:], first=900)
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    cluster.stop()
    path.write_bytes(old)
    cluster.start()
    with cluster.connect() as db:
        assert len(db.execute(CHECK, ["t_ivf"]).fetchall()) >= 1
        db.execute(f"SET enable_seqscan = off; SET copymatch.probes = {ALL_PROBES}")
        assert sorted(find(db, vectors[0], None)) == list(range(900))
        db.execute("REINDEX INDEX t_ivf")
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
