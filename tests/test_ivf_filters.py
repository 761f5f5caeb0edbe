"""Conditions on an ivf index's filter columns, USING ivf (descriptor, tenant, …): judged in the index, with the rows
that comparing all of them gives, through every change of the table."""

import re
import uuid

import numpy as np
import psycopg
import pytest
from test_ivf_recall import CHECK, clustered, column, load, one, plan, text

ROWS, DIMENSIONS = 4000, 32
#: The columns of public.t behind the vector: type, and the value of row n.
COLUMNS = {
    "tiny": ("int2", "n % 100 - 50"),
    "tenant": ("int4", "n % 40"),
    "big": ("int8", "n::bigint * 5000000000 - 3"),
    "flag": ("bool", "n % 3 = 0"),
    "day": ("date", "date '2024-01-01' + n % 700"),
    "made": ("timestamp", "timestamp '2024-01-01' + n * interval '3 hours'"),
    "seen": ("timestamptz", "timestamptz '2024-01-01 00:00+00' + n * interval '3 hours'"),
    "mark": ("uuid", "md5((n % 60)::text)::uuid"),
}
#: What each column is compared with; every operator of btree's operator class is tried with each.
VALUES = {
    "tiny": ["0::int2", "-50::int2", "7", "49::bigint", "40000", "-40000::bigint"],
    "tenant": ["7", "39::int2", "5000000000", "'-5000000000'::bigint"],
    "big": ["5000000000::bigint * 100 - 3", "-3", "7::int2", "9223372036854775807"],
    "flag": ["true", "false"],
    "day": ["date '2024-06-01'", "timestamp '2024-06-01'", "timestamp '2024-06-01 00:00:01'", "date 'infinity'",
            "timestamp '-infinity'"],
    "made": ["timestamp '2024-06-01 12:00'", "date '2024-06-01'", "timestamp 'infinity'", "date '5874897-12-31'"],
    "seen": ["timestamptz '2024-06-01 12:00+00'", "date '2024-06-01'", "timestamp '2024-06-01 12:00'",
             "timestamptz '-infinity'", "date '5874897-12-31'", "date 'infinity'"],
    "mark": ["md5('7')::uuid", "'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
             "'80000000-0000-0000-0000-000000000000'"],
}  # fmt: skip
OPERATORS = ("<", "<=", "=", ">=", ">")


@pytest.fixture(scope="module")
def vectors(server, _module_db) -> np.ndarray:
    """The vectors of public.t (id, d, the columns) and public.named (id, d, name); every thirteenth row has NULL in
    all columns."""
    made = clustered(ROWS, DIMENSIONS)
    with server.connect(_module_db) as db:
        create(db, made)
    return made


def create(db, vectors: np.ndarray) -> None:
    typed = ", ".join(f"{name} {kind}" for name, (kind, _) in COLUMNS.items())
    values = ", ".join(f"CASE WHEN n % 13 > 0 THEN {value} END" for _, value in COLUMNS.values())
    db.execute(f"CREATE TABLE raw (id int, d vector({DIMENSIONS}))")
    load(db, "raw", vectors)
    db.execute(f"CREATE TABLE t (id int, d vector({DIMENSIONS}), {typed}, name text)")
    db.execute(
        f"INSERT INTO t SELECT id, d, {values}, CASE WHEN n % 13 > 0 THEN 'name ' || n % 30 END "
        "FROM raw, LATERAL (SELECT id AS n) x"
    )
    db.execute("DROP TABLE raw")
    db.execute(f"CREATE INDEX t_ivf ON t USING ivf (d vector_l2_ops, {', '.join(COLUMNS)})")
    db.execute("CREATE TABLE named AS SELECT id, d, name FROM t")
    db.execute("CREATE INDEX named_ivf ON named USING ivf (d vector_l2_ops, name)")
    db.execute("VACUUM ANALYZE t, named")


def found(db, query: np.ndarray, where: str, table: str = "t", limit: str = "ALL") -> list[int]:
    """Ids in the order of the index, which must be used with the condition in it."""
    sql = f"SELECT id FROM {table} WHERE {where} ORDER BY d <-> '{text(query)}' LIMIT {limit}"
    shown = plan(db, sql)
    assert re.search(r"Index Scan using \w*_ivf", shown) and "Index Cond" in shown and "Filter" not in shown, shown
    return column(db, sql)


def truth(db, where: str, table: str = "t") -> set[int]:
    """Ids by reading every row."""
    db.execute("SET enable_indexscan = off; SET enable_seqscan = on")
    ids = set(column(db, f"SELECT id FROM {table} WHERE {where}"))
    db.execute("SET enable_indexscan = on; SET enable_seqscan = off")
    return ids


def assert_same(db, query: np.ndarray, where: str, table: str = "t") -> int:
    given, expected = found(db, query, where, table), truth(db, where, table)
    assert len(given) == len(set(given)) and set(given) == expected, where
    return len(expected)


@pytest.mark.parametrize("name", COLUMNS)
def test_ivf_filter_columns_compare_as_btree_s_operators_do(db, vectors, name):
    db.execute("SET enable_seqscan = off; SET timezone = 'Asia/Kathmandu'")
    counts = []
    for operator in OPERATORS:
        for value in VALUES[name]:
            if name == "flag" and operator == "=":
                continue
            counts.append(assert_same(db, vectors[7], f"{name} {operator} {value}"))
    assert any(0 < count < ROWS * 0.9 for count in counts), counts
    for where in (f"{name} IS NULL", f"{name} IS NOT NULL"):
        assert 0 < assert_same(db, vectors[7], where) < ROWS


def test_ivf_filter_columns_of_booleans_take_the_bare_column(db, vectors):
    db.execute("SET enable_seqscan = off")
    for where in ("flag", "NOT flag", "flag = true", "flag = false", "flag IS TRUE", "flag IS FALSE"):
        assert 0 < assert_same(db, vectors[3], where) < ROWS, where
    sql = f"SELECT id FROM t WHERE flag IS NOT TRUE ORDER BY d <-> '{text(vectors[3])}'"
    assert set(column(db, sql)) == truth(db, "flag IS NOT TRUE"), "a condition that the index leaves to PostgreSQL"


def test_ivf_filter_columns_of_text_are_for_equality(db, vectors):
    db.execute("SET enable_seqscan = off")
    assert 0 < assert_same(db, vectors[3], "name = 'name 7'", "named") < ROWS
    assert assert_same(db, vectors[3], "name = 'no such name'", "named") == 0
    assert 0 < assert_same(db, vectors[3], "name = ANY ('{name 7,name 8,none,NULL}')", "named") < ROWS
    assert 0 < assert_same(db, vectors[3], "name IS NULL", "named") < ROWS
    shown = plan(db, f"SELECT id FROM named WHERE name > 'name 7' ORDER BY d <-> '{text(vectors[3])}' LIMIT 3")
    assert "Index Cond" not in shown


def test_ivf_filter_columns_take_arrays(db, vectors):
    db.execute("SET enable_seqscan = off")
    for where in (
        "tenant IN (1, 5, 39, 100)", "tenant = ANY ('{}')", "tenant = ANY (NULL::int[])", "big = ANY ('{7,NULL}')",
        "tenant = ANY (ARRAY(SELECT generate_series(0, 38, 2)))", "tenant < ANY ('{3,9,NULL}')",
        "tenant >= ANY ('{30,35}')", "mark = ANY (ARRAY[md5('1')::uuid, md5('2')::uuid])",
        "day = ANY ('{2024-03-03,2024-03-04,infinity}')", "tiny = ANY ('{1,2,3}'::bigint[])",
    ):  # fmt: skip
        assert_same(db, vectors[9], where)
    assert len(found(db, vectors[9], "tenant IN (1, 5)", limit="10")) == 10


def test_ivf_several_conditions_and_a_distance_bound_are_judged_together(db, vectors):
    db.execute("SET enable_seqscan = off")
    assert assert_same(db, vectors[3], "tenant BETWEEN 5 AND 9 AND flag AND big > 1000 AND mark IS NOT NULL") > 0
    assert assert_same(db, vectors[3], "tenant > 5 AND tenant < 3") == 0
    query = text(vectors[5])
    where = f"d <-> '{query}' < 3 AND tenant < 20"
    sql = f"SELECT id FROM t WHERE {where} ORDER BY d <-> '{query}'"
    shown = plan(db, sql)
    assert re.search(r"Index Cond: .*<~", shown) and re.search(r"Index Cond: .*tenant", shown), shown
    assert set(column(db, sql)) == truth(db, where)
    # Without an order, by the hook for bounds.
    near = f"d <-> '{query}' < 0.1 AND 20 > tenant AND tenant IN (5, 6) AND flag IS NOT NULL"
    shown = plan(db, f"SELECT id FROM t WHERE {near}")
    cond = re.search(r"Index Cond: (.*)", shown).group(1)
    assert all(part in cond for part in ("<~", "tenant < 20", "tenant = ANY", "flag IS NOT NULL")), shown


def test_ivf_the_nearest_that_pass_come_in_their_order_with_a_limit(db, vectors):
    db.execute("SET enable_seqscan = off; SET copymatch.target_recall = 0.99")
    hits = asked = 0
    for number in range(0, ROWS, 211):
        query = vectors[number] + 0.05
        ids = found(db, query, "tenant = 7", limit="10")
        rows = sorted(truth(db, "tenant = 7"), key=lambda row: np.linalg.norm(vectors[row] - query))[:10]
        distances = [np.linalg.norm(vectors[row] - query) for row in ids]
        assert len(ids) == 10 and distances == sorted(distances)
        hits, asked = hits + len(set(ids) & set(rows)), asked + 10
    assert hits >= 0.97 * asked


def test_ivf_filters_by_parameters_of_prepared_statements_and_of_joins(db, vectors):
    db.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
    db.execute("PREPARE p (int, timestamptz, vector, boolean) AS SELECT id FROM t "
               "WHERE tenant = $1 AND seen > $2 AND flag = $4 ORDER BY d <-> $3")  # fmt: skip
    for tenant in ("7", "8", "NULL"):
        call = f"EXECUTE p ({tenant}, '2024-05-05 00:00+00', '{text(vectors[1])}', true)"
        assert "Index Cond: ((tenant = $1) AND (flag = $4) AND (seen > $2))" in plan(db, call)
        assert set(column(db, call)) == truth(db, f"tenant = {tenant} AND seen > '2024-05-05 00:00+00' AND flag")
    db.execute("RESET plan_cache_mode; CREATE TEMPORARY TABLE wanted AS SELECT generate_series(3, 6) AS tenant")
    sql = f"""SELECT w.tenant, x.id FROM wanted AS w, LATERAL (
        SELECT id FROM t WHERE t.tenant = w.tenant ORDER BY d <-> '{text(vectors[2])}' LIMIT 5) x"""
    assert "Index Cond: (tenant = w.tenant)" in plan(db, sql)
    rows = db.execute(sql).fetchall()
    assert len(rows) == 20 and all(row[1] % 40 == row[0] for row in rows)


def test_ivf_filter_columns_follow_updates_deletes_and_vacuum(fresh_db):
    db, made = fresh_db, clustered(ROWS, DIMENSIONS)
    create(db, made)
    db.execute("SET enable_seqscan = off")
    db.execute("DELETE FROM t WHERE id % 11 = 0")
    with db.transaction():
        db.execute("UPDATE t SET tenant = 1000 + tenant WHERE id % 5 = 0 AND tenant IS NOT NULL")
        db.execute("UPDATE t SET tenant = NULL, day = day + 1 WHERE id % 5 = 1 AND tenant IS NOT NULL")
        # An index entry for each version: an update of a filter column is not heap-only.
        assert one(db, "SELECT pg_stat_get_xact_tuples_updated('t'::regclass)") > 1000
        assert one(db, "SELECT pg_stat_get_xact_tuples_hot_updated('t'::regclass)") == 0
    for where in ("tenant >= 1000", "tenant < 1000", "tenant IS NULL", "day > '2024-07-01'"):
        assert assert_same(db, made[1], where) > 0
    db.execute("DELETE FROM t WHERE id % 7 = 0")
    db.execute("VACUUM t")
    assert assert_same(db, made[1], "tenant >= 1000") > 0
    more = clustered(ROWS, DIMENSIONS, seed=3)
    load(db, "t", more, first=ROWS)
    db.execute(f"UPDATE t SET tenant = id % 40, flag = true WHERE id >= {ROWS}")
    db.execute("VACUUM t")
    for where in ("tenant = 7", "flag", "NOT flag", "mark IS NULL AND tenant < 3"):
        assert assert_same(db, made[1], where) > 0
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    for command in ("REINDEX INDEX CONCURRENTLY t_ivf", "REINDEX INDEX t_ivf", "VACUUM FULL t", "TRUNCATE t"):
        db.execute(command)
        expected = assert_same(db, made[1], "tenant = 7 AND flag")
        assert (expected > 0) == (command != "TRUNCATE t")
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    # From empty, by splits.
    load(db, "t", made)
    db.execute("UPDATE t SET tenant = id % 40")
    assert assert_same(db, made[1], "tenant = 7") == 100


def test_ivf_filter_columns_of_partitions_unlogged_and_partial_indexes_and_expressions(fresh_db):
    db, made = fresh_db, clustered(2000, DIMENSIONS)
    db.execute(f"CREATE TABLE t (id int, d vector({DIMENSIONS}), tenant int, name text) PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE t_a PARTITION OF t FOR VALUES FROM (0) TO (1000)")
    db.execute("CREATE UNLOGGED TABLE t_b PARTITION OF t FOR VALUES FROM (1000) TO (2000)")
    load(db, "t", made)
    db.execute("UPDATE t SET tenant = id % 20, name = 'N' || id % 30")
    db.execute("CREATE INDEX ON t USING ivf (d vector_l2_ops, tenant, (lower(name)))")
    db.execute("VACUUM ANALYZE t")
    db.execute("SET enable_seqscan = off")
    query = text(made[3])
    sql = f"SELECT id FROM t WHERE tenant = 3 AND lower(name) = 'n3' ORDER BY d <-> '{query}' LIMIT 200"
    shown = plan(db, sql)
    assert shown.count("Index Cond: ((tenant = 3) AND (lower(name) = 'n3'::text))") == 2, shown
    assert set(column(db, sql)) == {n for n in range(2000) if n % 20 == 3 and n % 30 == 3}
    db.execute("CREATE INDEX part_ivf ON t_a USING ivf (((d::vector(32))) vector_l2_ops, tenant) WHERE id < 500")
    sql = f"SELECT id FROM t_a WHERE tenant = 3 AND id < 500 ORDER BY d::vector(32) <-> '{query}'"
    assert "Index Scan using part_ivf" in plan(db, sql)
    assert set(column(db, sql)) == {n for n in range(500) if n % 20 == 3}


def test_ivf_filter_columns_compare_text_by_their_collation(fresh_db):
    db, made = fresh_db, clustered(600, DIMENSIONS)
    try:
        db.execute("CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except psycopg.errors.FeatureNotSupported:
        pytest.skip("this PostgreSQL is built without ICU")
    db.execute(f"CREATE TABLE t (id int, d vector({DIMENSIONS}), name text COLLATE caseless, code varchar(20))")
    load(db, "t", made)
    db.execute("UPDATE t SET name = CASE id % 3 WHEN 0 THEN 'Some' WHEN 1 THEN 'sOME' ELSE 'other' END, code = id % 9")
    db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_l2_ops, name, code)")
    db.execute("ANALYZE t; SET enable_seqscan = off")
    assert assert_same(db, made[0], "name = 'SOME'") == 400
    assert assert_same(db, made[0], "name = 'SOME' AND code = '4'") == 67
    other = f"SELECT id FROM t WHERE name = 'SOME' COLLATE \"C\" ORDER BY d <-> '{text(made[0])}'"
    assert "Index Cond" not in plan(db, other) and column(db, other) == []


def test_ivf_planner_chooses_btree_for_few_rows_and_filter_columns_for_more(fresh_db):
    db, made = fresh_db, clustered(30_000, DIMENSIONS)
    db.execute(f"CREATE TABLE t (id int, d vector({DIMENSIONS}), part int)")
    load(db, "t", made)
    db.execute("UPDATE t SET part = id::bigint * 7919 % 10000")
    db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_l2_ops, part); CREATE INDEX t_part ON t (part)")
    db.execute("CREATE INDEX t_plain_ivf ON t USING ivf (d vector_l2_ops)")
    db.execute("VACUUM FULL ANALYZE t")

    def chosen(where: str) -> str:
        shown = plan(db, f"SELECT id FROM t {where} ORDER BY d <-> '{text(made[1])}' LIMIT 10")
        return re.search(r"(?:Index Scan on|using) (\w+)", shown).group(1)

    assert [chosen(f"WHERE part < {most}") for most in (5000, 1000, 100)] == ["t_ivf"] * 3
    assert chosen("WHERE part < 2") == "t_part" and chosen("WHERE part = 77") == "t_part"
    assert chosen("") == "t_plain_ivf"
    db.execute("DROP INDEX t_part")
    assert chosen("WHERE part < 2") == "t_ivf"


def test_ivf_indexes_without_filter_columns_keep_their_format_and_those_with_them_have_the_next(db, vectors):
    version = "SELECT format_version FROM copy_index_stats(%s::regclass)"
    assert one(db, version, "t_ivf") == 2
    db.execute("CREATE INDEX plain_ivf ON t USING ivf (d vector_l2_ops)")
    assert one(db, version, "plain_ivf") == 1
    sql = f"SELECT id FROM t WHERE tenant = 7 ORDER BY d <-> '{text(vectors[0])}' LIMIT 10"
    db.execute("SET enable_seqscan = off; DROP INDEX t_ivf")
    shown = plan(db, sql)
    assert "plain_ivf" in shown and "Filter: (tenant = 7)" in shown
    assert len(column(db, sql)) == 10


def test_ivf_columns_that_are_no_filters_are_refused(db, sqlstate):
    db.execute("CREATE TABLE other (d vector(3), e vector(3), n numeric, i int)")
    with sqlstate("0A000") as refused:
        db.execute("CREATE INDEX ON other USING ivf (i, d vector_l2_ops)")
    assert refused.value.diag.message_primary == "the first column of an ivf index must be a vector"
    with sqlstate("0A000") as refused:
        db.execute("CREATE INDEX ON other USING ivf (d vector_l2_ops, e vector_l2_ops)")
    assert refused.value.diag.message_primary == "an ivf index has one vector, its first column"
    with sqlstate("42704"):
        db.execute("CREATE INDEX ON other USING ivf (d vector_l2_ops, n)")
    with sqlstate("54000"):
        db.execute(f"CREATE INDEX ON other USING ivf (d vector_l2_ops{', i' * 9})")
    db.execute(f"CREATE INDEX ON other USING ivf (d vector_l2_ops{', i' * 8})")


def test_ivf_filter_columns_are_dumped_and_restored(server, new_db, connect):
    source, target = new_db(), new_db(extension=False)
    db, made = connect(source), clustered(ROWS, DIMENSIONS)
    create(db, made)
    server.run(
        "/bin/bash", "-c",
        f"set -o pipefail; {server.bin}/pg_dump -d '{server.dsn(source)}' | {server.bin}/psql -qX -v ON_ERROR_STOP=1 "
        f"-d '{server.dsn(target)}'",
    )  # fmt: skip
    restored = connect(target)
    definition = "SELECT pg_get_indexdef('t_ivf'::regclass)"
    assert one(restored, definition) == one(db, definition)
    restored.execute("SET enable_seqscan = off; ANALYZE t")
    assert assert_same(restored, made[1], "tenant = 7 AND flag AND big > 10") > 0


def test_ivf_replica_and_crash_give_the_filter_columns_as_they_were(fresh_cluster):
    primary = fresh_cluster(wal_consistency_checking="all", max_wal_size="1GB", autovacuum="off")
    made = clustered(ROWS, DIMENSIONS)
    conditions = ("tenant = 7", "flag AND day > '2024-06-01'", "mark IS NULL", "big < 0")
    with primary.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        replica = primary.replica(hot_standby_feedback="on", fsync="off")
        create(db, made)
        for phase in (
            "SELECT 'built'",
            "UPDATE t SET tenant = 7 WHERE id % 9 = 0",
            "DELETE FROM t WHERE id % 4 = 0",
            "VACUUM t",
            f"INSERT INTO t SELECT id + {ROWS}, d, tiny, 7 FROM t",
            "VACUUM t",
            "REINDEX INDEX CONCURRENTLY t_ivf",
        ):
            db.execute(phase)
            primary.wait_for_replica(replica)
            with replica.connect(options="-c enable_seqscan=off") as standby:
                for where in conditions:
                    assert_same(standby, made[5], where)
                assert standby.execute(CHECK, ["t_ivf"]).fetchall() == [], phase
    primary.stop("immediate")
    primary.start()
    with primary.connect(options="-c enable_seqscan=off") as db:
        for where in conditions:
            assert_same(db, made[5], where)
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


def test_ivf_check_finds_filter_columns_that_are_not_the_row_s(fresh_cluster):
    cluster = fresh_cluster(autovacuum="off")
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        create(db, clustered(ROWS, DIMENSIONS))
        path = cluster.data / one(db, "SELECT pg_relation_filepath('t_ivf')")
        key = uuid.UUID(one(db, "SELECT mark::text FROM t WHERE mark IS NOT NULL LIMIT 1")).int ^ (1 << 127)
    cluster.stop()
    pages = bytearray(path.read_bytes())
    at = pages.find(key.to_bytes(16, "little"))
    assert at > 0
    pages[at + 3] ^= 0x40
    path.write_bytes(pages)
    cluster.installation.run("pg_checksums", "--disable", "-D", cluster.data)
    cluster.start()
    with cluster.connect() as db:
        problems = db.execute(CHECK, ["t_ivf"]).fetchall()
        assert len(problems) == 1 and "filter columns" in problems[0][1], problems
        db.execute("SET enable_seqscan = off")
        marked = f"mark = '{uuid.UUID(int=key ^ (1 << 127))}'"
        # One row is missed, none is wrong.
        assert set(found(db, clustered(1, DIMENSIONS)[0], marked)) < truth(db, marked)
