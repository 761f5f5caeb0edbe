"""Building an ivf index, in every way in which PostgreSQL builds one, on every kind of table."""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
import threading

import numpy as np
import psycopg
import pytest
from conftest import LOCAL, Installation
from test_ivf_recall import (
    CHECK,
    clustered,
    column,
    distances,
    find,
    load,
    make,
    one,
    plan,
    statement,
    text,
    use_index,
)

# --- building ---


@pytest.mark.parametrize(
    "command",
    ["REINDEX INDEX t_ivf", "REINDEX INDEX CONCURRENTLY t_ivf", "REINDEX TABLE CONCURRENTLY t", "VACUUM FULL t"],
)
def test_ivf_rebuilt_holds_the_same_rows(db, command):
    vectors = clustered(1000)
    make(db, vectors)
    db.execute("DELETE FROM t WHERE id % 10 = 3")
    db.execute(command)
    assert sorted(find(db, vectors[0], None)) == [i for i in range(1000) if i % 10 != 3]
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


@pytest.mark.parametrize(
    "command",
    [
        "REINDEX INDEX t_ivf",
        "REINDEX INDEX CONCURRENTLY t_ivf",
        "VACUUM FULL t",
        "DROP INDEX t_ivf; CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops)",
        "DROP INDEX t_ivf; CREATE INDEX CONCURRENTLY t_ivf ON t USING ivf (d vector_cosine_ops)",
    ],
)
def test_ivf_built_from_temporary_files_whose_last_block_is_short(db, command):
    """Rows beyond maintenance_work_mem go through files that are read in blocks of many rows;
    hardly a file ends with one."""
    vectors = clustered(9001, 128)
    make(db, vectors)
    sizes = []
    db.add_notice_handler(
        lambda notice: sizes.extend(map(int, re.findall(r"^temporary file: .* size (\d+)$", notice.message_primary)))
    )
    db.execute("SET maintenance_work_mem = '1MB'; SET log_temp_files = 0; SET client_min_messages = log")
    for part in command.split(";"):
        db.execute(part)
    db.execute("RESET client_min_messages")
    # A row takes its list's number, its place in the table and a byte or so for each dimension.
    assert len(sizes) >= 2 and sum(sizes) > 9001 * 100, sizes
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    assert sorted(find(db, vectors[0], None)) == list(range(9001))


def test_ivf_beyond_maintenance_work_mem_is_restored_from_a_dump(server, new_db, connect, request):
    """What is built from temporary files in one database is built from them again by pg_restore."""
    source, target = new_db(), new_db(extension=False)
    db, vectors = connect(source), clustered(9001, 128)
    make(db, vectors)
    with connect("postgres") as admin:
        admin.execute(f"ALTER DATABASE {target} SET maintenance_work_mem = '1MB'")
        admin.execute(f"ALTER DATABASE {target} SET temp_file_limit = '1MB'")
    place = server.own(pathlib.Path(tempfile.mkdtemp(prefix="dump-", dir=LOCAL)))
    request.addfinalizer(lambda: shutil.rmtree(place, ignore_errors=True))
    file = place / "dump"
    server.run("pg_dump", "-Fc", "-d", source, "-h", server.socket, "-U", "postgres", "-f", file)
    restore = ("pg_restore", "-e", "-d", target, "-h", server.socket, "-U", "postgres")
    # The limit on temporary files shows that the build needs them.
    with pytest.raises(AssertionError, match="temp_file_limit"):
        server.run(*restore, file)
    with connect("postgres") as admin:
        admin.execute(f"ALTER DATABASE {target} RESET temp_file_limit")
    server.run(*restore, "--clean", "--if-exists", file)
    restored = connect(target)
    assert restored.execute(CHECK, ["t_ivf"]).fetchall() == []
    use_index(restored)
    assert sorted(find(restored, vectors[0], None)) == list(range(9001))


def test_ivf_create_index_concurrently(db):
    vectors = clustered(2000)
    db.execute("CREATE TABLE t (id int, d vector(32))")
    load(db, "t", vectors)
    db.execute("CREATE INDEX CONCURRENTLY t_ivf ON t USING ivf (d vector_cosine_ops)")
    use_index(db)
    assert one(db, "SELECT indisvalid FROM pg_index WHERE indexrelid = 't_ivf'::regclass")
    assert sorted(find(db, vectors[0], None)) == list(range(2000))
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


def test_ivf_rows_written_while_the_index_is_built_concurrently_are_in_it(db, connect):
    vectors = clustered(6000)
    db.execute("CREATE TABLE t (id int, d vector(32))")
    load(db, "t", vectors[:4000])
    schema, name = one(db, "SELECT current_schema()"), db.info.dbname
    done = threading.Event()

    def write():
        with contextlib.closing(connect(name)) as session:
            for number in range(4000, 6000):
                session.execute(f"INSERT INTO {schema}.t VALUES (%s, %s)", [number, text(vectors[number])])
                session.execute(f"UPDATE {schema}.t SET d = %s WHERE id = %s", [text(vectors[number]), number - 3999])
                session.execute(f"DELETE FROM {schema}.t WHERE id = %s", [number - 2000])
                if done.is_set():
                    return

    writer = threading.Thread(target=write)
    writer.start()
    db.execute("CREATE INDEX CONCURRENTLY t_ivf ON t USING ivf (d vector_cosine_ops)")
    db.execute("REINDEX INDEX CONCURRENTLY t_ivf")
    done.set()
    writer.join()
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    expected = sorted(column(db, "SELECT id FROM t"))
    use_index(db)
    assert sorted(find(db, vectors[0], None)) == expected


def test_ivf_rows_updated_in_place_before_the_build_are_found_once(db):
    """Heap-only updates: the index must point at the root of each chain."""
    vectors = clustered(1000)
    db.execute("CREATE TABLE t (id int, d vector(32), note int) WITH (fillfactor = 50)")
    load(db, "t", vectors)
    db.execute("UPDATE t SET note = 1; UPDATE t SET note = 2")
    db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops)")
    use_index(db)
    assert sorted(find(db, vectors[0], None)) == list(range(1000))
    db.execute("UPDATE t SET note = 3")
    assert db.execute("SELECT id, note FROM t ORDER BY d <=> %s::vector LIMIT 1", [text(vectors[5])]).fetchone() == (
        5,
        3,
    )
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


def orphans(db) -> int:
    """Bytes in files of this database that no relation owns."""
    return one(
        db,
        """SELECT coalesce(sum((pg_stat_file('base/' || oid || '/' || name, true)).size), 0)::int8
           FROM pg_database, pg_ls_dir('base/' || oid) AS name
           WHERE datname = current_database() AND name ~ '^[0-9]+'
             AND NOT EXISTS (SELECT FROM pg_class WHERE pg_relation_filenode(pg_class.oid)::text = substring(name
             FROM '^[0-9]+'))""",
    )


def test_ivf_build_is_cancelled_at_any_time_and_leaves_nothing_behind(fresh_db):
    vectors = clustered(30_000, 64)
    fresh_db.execute("CREATE TABLE t (id int, d vector(64))")
    load(fresh_db, "t", vectors)
    before, cancelled = orphans(fresh_db), 0
    for milliseconds in (20, 50, 100, 200, 350, 500, 700, 1000, 1400):
        fresh_db.execute(f"SET statement_timeout = {milliseconds}")
        try:
            fresh_db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops)")
        except psycopg.Error as error:
            assert error.sqlstate == "57014", error
            cancelled += 1
        fresh_db.execute("SET statement_timeout = 0")
        if one(fresh_db, "SELECT to_regclass('t_ivf')") is not None:
            break
    assert cancelled >= 2
    fresh_db.execute("DROP INDEX IF EXISTS t_ivf; CHECKPOINT")
    assert orphans(fresh_db) == before
    temporary = "SELECT count(*) FROM pg_ls_tmpdir() WHERE name LIKE %s"
    assert one(fresh_db, temporary, f"pgsql_tmp{fresh_db.info.backend_pid}%") == 0
    assert one(fresh_db, "SELECT count(*) FROM t") == 30_000


def test_ivf_progress_of_a_build_is_visible(db, connect):
    db.execute("CREATE TABLE t (id int, d vector(64))")
    load(db, "t", clustered(30_000, 64))
    seen, done = set(), threading.Event()
    pid, name = db.info.backend_pid, db.info.dbname

    def watch():
        with contextlib.closing(connect(name)) as session:
            while not done.is_set():
                seen.update(session.execute(
                    "SELECT phase, tuples_total > 0, tuples_done > 0 "
                    "FROM pg_stat_progress_create_index WHERE pid = %s", [pid]
                ).fetchall())  # fmt: skip

    watcher = threading.Thread(target=watch)
    watcher.start()
    db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops)")
    done.set()
    watcher.join()
    phases = {phase for phase, _, _ in seen}
    assert len([phase for phase in phases if phase.startswith("building index: ")]) >= 2, phases
    assert any(total and some for _, total, some in seen), "how many of how many rows"
    assert one(db, "SELECT count(*) FROM pg_stat_progress_create_index WHERE pid = %s", pid) == 0


# --- kinds of tables ---


def test_ivf_temporary_tables(db):
    vectors = clustered(500)
    db.execute("CREATE TEMP TABLE temporary (id int, d vector(32)) ON COMMIT DELETE ROWS")
    db.execute("CREATE INDEX temporary_ivf ON temporary USING ivf (d vector_cosine_ops)")
    use_index(db)
    for _ in range(2):
        with db.transaction():
            load(db, "temporary", vectors)
            assert sorted(find(db, vectors[0], None, table="temporary")) == list(range(500))
        assert find(db, vectors[0], None, table="temporary") == []


def test_ivf_unlogged_tables_are_empty_and_usable_after_a_crash(fresh_cluster):
    vectors = clustered(1000)
    cluster = fresh_cluster(fsync="off")
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch; CREATE UNLOGGED TABLE t (id int, d vector(32))")
        load(db, "t", vectors)
        db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops); CHECKPOINT")
        use_index(db)
        assert sorted(find(db, vectors[0], None)) == list(range(1000))
    cluster.restart()
    with cluster.connect() as db:
        use_index(db)
        assert sorted(find(db, vectors[0], None)) == list(range(1000)), "a clean shutdown keeps the rows"
    cluster.kill()
    cluster.start()
    with cluster.connect() as db:
        use_index(db)
        assert find(db, vectors[0], None) == []
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
        load(db, "t", vectors)
        assert sorted(find(db, vectors[0], None)) == list(range(1000))
        db.execute("ALTER TABLE t SET LOGGED")
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    cluster.kill()
    cluster.start()
    with cluster.connect() as db:
        use_index(db)
        assert sorted(find(db, vectors[0], None)) == list(range(1000)), "logged now"


def test_ivf_partitioned_tables_merge_their_partitions(db):
    vectors = clustered(1500)
    db.execute("CREATE TABLE t (id int, d vector(32)) PARTITION BY RANGE (id)")
    for part in range(3):
        db.execute(f"CREATE TABLE t{part} PARTITION OF t FOR VALUES FROM ({500 * part}) TO ({500 * part + 500})")
    load(db, "t", vectors[:1000])
    db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops)")
    load(db, "t", vectors[1000:], first=1000)
    use_index(db)
    shown = plan(db, statement(), text(vectors[0]))
    assert "Merge Append" in shown and shown.count("Index Scan") == 3
    for number in (3, 700, 1200):
        found = find(db, vectors[number], 20)
        exact = np.sort(distances(vectors, vectors[number], "vector_cosine_ops"))[:20]
        given = distances(vectors, vectors[number], "vector_cosine_ops")[found]
        assert found[0] == number and (given <= exact[-1] + 1e-6).mean() >= 0.95
    db.execute("ALTER TABLE t DETACH PARTITION t1")
    assert all(not 500 <= number < 1000 for number in find(db, vectors[700], None))


def test_ivf_another_tablespace(db):
    installation = Installation()
    folder = installation.own(pathlib.Path(tempfile.mkdtemp(prefix="tablespace-", dir=LOCAL)))
    space = f"test_ivf_{os.getpid()}"
    try:
        db.execute(f"CREATE TABLESPACE {space} LOCATION '{folder}'")
        try:
            vectors = clustered(500)
            db.execute("CREATE TABLE t (id int, d vector(32))")
            load(db, "t", vectors)
            db.execute(f"CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops) TABLESPACE {space}")
            use_index(db)
            assert "pg_tblspc" in one(db, "SELECT pg_relation_filepath('t_ivf')")
            assert sorted(find(db, vectors[0], None)) == list(range(500))
            db.execute("ALTER INDEX t_ivf SET TABLESPACE pg_default")
            assert sorted(find(db, vectors[0], None)) == list(range(500))
            db.execute(f"REINDEX (TABLESPACE {space}) INDEX CONCURRENTLY t_ivf")
            assert sorted(find(db, vectors[0], None)) == list(range(500))
        finally:
            db.execute("DROP TABLE IF EXISTS t")
            db.execute(f"DROP TABLESPACE {space}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_ivf_partial_and_expression_indexes(db):
    vectors = clustered(1000)
    make(db, vectors)
    db.execute("DROP INDEX t_ivf; CREATE INDEX part ON t USING ivf (d vector_cosine_ops) WHERE id % 2 = 0")
    db.execute("CREATE INDEX half ON t USING ivf ((d::halfvec(32)) halfvec_l2_ops)")
    db.execute("CREATE INDEX head ON t USING ivf ((subvector(d, 1, 8)::vector(8)) vector_l2_ops); ANALYZE t")
    load(db, "t", vectors, first=1000)
    use_index(db)
    for index, query, expected in [
        ("part", "SELECT id FROM t WHERE id %% 2 = 0 ORDER BY d <=> %s::vector", list(range(0, 2000, 2))),
        ("half", "SELECT id FROM t ORDER BY d::halfvec(32) <-> %s::vector::halfvec(32)", list(range(2000))),
        ("head",
            "SELECT id FROM t ORDER BY subvector(d, 1, 8)::vector(8) <-> subvector(%s::vector, 1, "
            "8)::vector(8)", list(range(2000))),
    ]:  # fmt: skip
        assert f"Index Scan using {index}" in plan(db, query, text(vectors[8]))
        found = column(db, query, text(vectors[8]))
        assert sorted(found) == expected
        assert set(found[:2]) == {8, 1008}
        assert db.execute(CHECK, [index]).fetchall() == []
