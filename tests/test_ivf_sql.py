"""USING ivf in SQL: operator classes, odd rows, options and limits, errors, who may look into it, dump and restore."""

import numpy as np
import psycopg
import pytest
from test_ivf_recall import (
    ALL_PROBES,
    CHECK,
    OPERATORS,
    clustered,
    column,
    distances,
    find,
    kind_of,
    load,
    make,
    one,
    plan,
    stats,
    text,
    use_index,
)

# --- operator classes and values ---


@pytest.mark.parametrize("opclass", OPERATORS)
def test_ivf_orders_by_the_operator_of_its_class(db, opclass):
    kind, operator = kind_of(opclass), OPERATORS[opclass]
    db.execute(f"CREATE TABLE t (val {kind}(3))")
    db.execute("INSERT INTO t VALUES ('[0,0,0]'), ('[1,2,3]'), ('[1,1,1]'), (NULL)")
    db.execute(f"CREATE INDEX t_ivf ON t USING ivf (val {opclass})")
    db.execute("INSERT INTO t VALUES ('[1,2,4]')")
    use_index(db)
    query = f"SELECT val::text FROM t ORDER BY val {operator} '[3,3,3]'"
    assert "Index Scan using t_ivf" in plan(db, query)
    assert (
        column(db, query)
        == {
            "<->": ["[1,2,3]", "[1,2,4]", "[1,1,1]", "[0,0,0]"],
            "<#>": ["[1,2,4]", "[1,2,3]", "[1,1,1]", "[0,0,0]"],
            "<=>": ["[1,1,1]", "[1,2,3]", "[1,2,4]"],
        }[operator]
    )
    db.execute("TRUNCATE t")
    assert column(db, query) == []
    db.execute("INSERT INTO t VALUES ('[7,8,9]')")
    assert column(db, query) == ["[7,8,9]"]


def test_ivf_serves_only_the_operator_of_its_class(db):
    make(db, clustered(100), "vector_l2_ops")
    for operator in ("<=>", "<#>", "<+>"):
        assert "t_ivf" not in plan(db, f"SELECT id FROM t ORDER BY d {operator} %s::vector LIMIT 1", text(np.ones(32)))


def test_ivf_leaves_out_null_and_for_cosine_zero_vectors(db):
    db.execute("CREATE TABLE t (id int, d vector(3))")
    db.execute("CREATE INDEX t_cosine ON t USING ivf (d vector_cosine_ops)")
    db.execute("INSERT INTO t VALUES (1, NULL), (2, '[0,0,0]'), (3, '[1,0,0]')")
    use_index(db)
    ids = "SELECT id FROM t ORDER BY d <=> '[1,1,0]'"
    assert column(db, ids) == [3]
    db.execute("REINDEX INDEX t_cosine")
    assert column(db, ids) == [3]
    db.execute("UPDATE t SET d = '[0,1,0]' WHERE id < 3")
    assert sorted(column(db, ids)) == [1, 2, 3]
    db.execute("UPDATE t SET d = NULL WHERE id = 1; UPDATE t SET d = '[0,0,0]' WHERE id = 3")
    assert column(db, ids) == [2]
    assert db.execute(CHECK, ["t_cosine"]).fetchall() == []
    assert one(db, "SELECT count(*) FROM t") == 3, "other plans see all rows"
    db.execute("DROP INDEX t_cosine; CREATE INDEX t_l2 ON t USING ivf (d vector_l2_ops)")
    assert sorted(column(db, "SELECT id FROM t ORDER BY d <-> '[1,1,0]'")) == [2, 3], "zero is a place like any other"


@pytest.mark.parametrize("query", ["NULL::vector", "(SELECT NULL::vector)", "'[0,0,0]'"])
@pytest.mark.parametrize("opclass", ["vector_cosine_ops", "vector_ip_ops", "vector_l2_ops"])
def test_ivf_a_null_or_zero_query_gives_the_rows_in_any_order(db, opclass, query):
    db.execute("CREATE TABLE t (d vector(3)); INSERT INTO t VALUES ('[1,2,3]'), ('[1,1,1]'), ('[3,2,1]')")
    db.execute(f"CREATE INDEX t_ivf ON t USING ivf (d {opclass})")
    use_index(db)
    rows = column(db, f"SELECT d::text FROM t ORDER BY d {OPERATORS[opclass]} {query}")
    assert sorted(rows) == ["[1,1,1]", "[1,2,3]", "[3,2,1]"]
    assert len(column(db, f"SELECT d::text FROM t ORDER BY d {OPERATORS[opclass]} {query} LIMIT 2")) == 2


def test_ivf_nothing_but_duplicates(db):
    db.execute("CREATE TABLE t AS SELECT i AS id, '[1,2,3]'::vector(3) AS d FROM generate_series(1, 10000) AS i")
    db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_l2_ops)")
    db.execute("INSERT INTO t SELECT i, '[1,2,3]' FROM generate_series(10001, 12000) AS i")
    db.execute("SET enable_seqscan = off")
    ids = "SELECT id FROM t ORDER BY d <-> '[1,2,4]'"
    assert len(set(column(db, ids + " LIMIT 100"))) == 100
    assert sorted(column(db, ids)) == list(range(1, 12001))
    db.execute("DELETE FROM t WHERE id % 3 > 0")
    db.execute("VACUUM t")
    assert sorted(column(db, ids)) == list(range(3, 12001, 3))
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


def test_ivf_many_duplicates_of_few_vectors(db):
    vectors = np.repeat(clustered(20, 8), 400, axis=0)
    make(db, vectors, lists=100)
    for number in (0, 7, 19):
        found = find(db, vectors[400 * number], 400)
        assert sorted(found) == list(range(400 * number, 400 * number + 400))


@pytest.mark.parametrize("lists", [None, 1, 1000])
@pytest.mark.parametrize("rows", [0, 1, 2, 5])
def test_ivf_on_hardly_any_rows(db, rows, lists):
    vectors = clustered(100, 4)
    make(db, vectors[:rows], lists=lists)
    assert sorted(find(db, vectors[0], None)) == list(range(rows))
    load(db, "t", vectors[rows:], first=rows)
    assert sorted(find(db, vectors[0], None)) == list(range(100)), "more came"
    assert find(db, vectors[42], 1) == [42]
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


@pytest.mark.parametrize(
    "kind, dimensions", [("vector", 1), ("vector", 3), ("vector", 2000), ("vector", 4000), ("halfvec", 4000)]
)
def test_ivf_takes_1_to_4000_dimensions(db, kind, dimensions):
    vectors = clustered(300, dimensions, seed=4)
    opclass = f"{kind}_l2_ops"
    make(db, vectors[:200], opclass)
    load(db, "t", vectors[200:], kind, first=200)
    use_index(db)
    for number in (0, 150, 250):
        exact = distances(vectors, vectors[number], opclass)
        assert exact[find(db, vectors[number], 1, opclass)[0]] <= exact.min() + 1e-6
    assert sorted(find(db, vectors[0], None, opclass)) == list(range(300))


def test_ivf_extreme_but_finite_values(db):
    vectors = clustered(200, 8)
    vectors[:50] *= 1e30
    vectors[50:100] *= 1e-30
    for opclass in ("vector_l2_ops", "vector_ip_ops", "vector_cosine_ops"):
        table = opclass.split("_")[1]
        make(db, vectors, opclass, table=table)
        for query in (vectors[0], vectors[60], vectors[150]):
            assert sorted(find(db, query, None, opclass, table)) == list(range(200))
        assert db.execute(CHECK, [f"{table}_ivf"]).fetchall() == []


# --- errors ---


def test_ivf_other_dimensions_are_refused(db, sqlstate):
    make(db, clustered(10, 3))
    with sqlstate("22000"):
        db.execute("INSERT INTO t VALUES (1, '[1,2]')")
    with sqlstate("22000") as error:
        db.execute("SELECT id FROM t ORDER BY d <=> '[1,2]' LIMIT 1")
    assert "2" in str(error.value) and "3" in str(error.value)
    # An index may be narrower than its column.
    db.execute("CREATE TABLE loose (d vector)")
    db.execute("CREATE INDEX ON loose USING ivf ((d::vector(3)) vector_l2_ops)")
    with sqlstate("22000"):
        db.execute("INSERT INTO loose VALUES ('[1,2]')")
    db.execute("INSERT INTO loose VALUES ('[1,2,3]')")


def test_ivf_a_column_without_dimensions_is_refused(db, sqlstate):
    db.execute("CREATE TABLE t (d vector)")
    with sqlstate("22023") as error:
        db.execute("CREATE INDEX ON t USING ivf (d vector_l2_ops)")
    assert "dimensions" in str(error.value)


def test_ivf_more_than_4000_dimensions_are_refused(db, sqlstate):
    db.execute("CREATE TABLE t (d vector(4001), h halfvec(4001))")
    for one_column in ("d vector_l2_ops", "h halfvec_cosine_ops"):
        with sqlstate("54000") as error:
            db.execute(f"CREATE INDEX ON t USING ivf ({one_column})")
        assert "4000" in str(error.value).replace(",", "")


def test_ivf_options_out_of_range_are_refused(db, sqlstate):
    db.execute("CREATE TABLE t (d vector(3))")
    for options in ("lists = -1", "lists = 100000000", "lists = many", "lsits = 10"):
        with sqlstate("22023"):
            db.execute(f"CREATE INDEX ON t USING ivf (d vector_l2_ops) WITH ({options})")
    db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_l2_ops) WITH (lists = 0)")
    with sqlstate("22023"):
        db.execute("ALTER INDEX t_ivf SET (lists = -5)")
    db.execute("ALTER INDEX t_ivf SET (lists = 7); REINDEX INDEX t_ivf")
    assert "lists='7'" in one(db, "SELECT pg_get_indexdef('t_ivf'::regclass)")


def test_ivf_settings_out_of_range_are_refused(db, sqlstate):
    db.execute("LOAD 'copymatch'")
    for setting in (
        "target_recall = 1.5",
        "target_recall = -0.1",
        "probes = -1",
        "iterative_scan = on",
        "rerank = perhaps",
        "build_threads = -1",
        "build_threads = 1000000",
    ):
        with sqlstate("22023"):
            db.execute(f"SET copymatch.{setting}")


def test_ivf_defaults_are_what_the_manual_says(db):
    db.execute("LOAD 'copymatch'")
    for name, value in {
        "target_recall": "0.98",
        "probes": "0",
        "iterative_scan": "relaxed_order",
        "rerank": "on",
    }.items():
        assert one(db, f"SHOW copymatch.{name}") == value


def test_ivf_cannot_be_unique_ordered_covering_or_over_two_vectors(db, sqlstate):
    db.execute("CREATE TABLE t (id int, d vector(3), e vector(3))")
    for index in (
        "UNIQUE INDEX ON t USING ivf (d vector_l2_ops)",
        "INDEX ON t USING ivf (d vector_l2_ops, e vector_l2_ops)",
        "INDEX ON t USING ivf (d vector_l2_ops DESC)",
        "INDEX ON t USING ivf (d vector_l2_ops) INCLUDE (id)",
        "INDEX ON t USING ivf (id)",
    ):
        with sqlstate("0A000"):
            db.execute(f"CREATE {index}")


def test_ivf_little_memory_is_enough_or_is_refused_by_name(db, sqlstate):
    vectors = clustered(12_000, 64)
    db.execute("CREATE TABLE t (id int, d vector(64))")
    load(db, "t", vectors)
    db.execute("SET maintenance_work_mem = '1MB'; SET enable_seqscan = off")
    try:
        with db.transaction():
            db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops)")
    except psycopg.Error as error:
        assert error.sqlstate == "54000" and "maintenance_work_mem" in str(error) + str(error.diag.message_hint)
        return
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    db.execute(f"SET copymatch.probes = {ALL_PROBES}")
    assert [find(db, vector, 1)[0] for vector in vectors[:50]] == list(range(50))


def test_ivf_list_of_equal_rows_longer_than_the_memory_of_the_build(db):
    """A placeholder picture, thousands of times: one list of 8 MB, built within 1 MB."""
    others = clustered(2000, 256)
    db.execute("CREATE TABLE t (id int, d vector(256))")
    load(db, "t", others)
    db.execute(f"INSERT INTO t SELECT 2000 + n, '{text(others[7])}' FROM generate_series(0, 29999) n")
    db.execute("SET maintenance_work_mem = '1MB'; SET enable_seqscan = off")
    db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops) WITH (lists = 4)")
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    assert one(db, "SELECT longest_list FROM copy_index_stats('t_ivf')") >= 30_000
    found = find(db, others[7], 30_500)
    assert set(range(2000, 32_000)) | {7} == set(found[:30_001]) and len(found) == 30_500
    db.execute(f"SET copymatch.probes = {ALL_PROBES}")
    assert [find(db, vector, 1)[0] for vector in others[:7]] == list(range(7))
    # It is longer than any split would leave it, and stays a list of the index that takes rows and gives them up.
    db.execute("DELETE FROM t WHERE id % 2 = 0 AND id >= 2000")
    db.execute("VACUUM t")
    db.execute(f"INSERT INTO t SELECT 40000 + n, '{text(others[7])}' FROM generate_series(0, 999) n")
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    assert len(find(db, others[7], None)) == 18_000


def test_ivf_everything_has_a_description(db):
    undescribed = """
        SELECT 'access method ' || amname FROM pg_am WHERE amname = 'ivf' AND obj_description(oid, 'pg_am') IS NULL
        UNION ALL SELECT 'operator class ' || opcname FROM pg_opclass JOIN pg_am ON pg_am.oid = opcmethod
            WHERE amname = 'ivf' AND obj_description(pg_opclass.oid, 'pg_opclass') IS NULL
        UNION ALL SELECT 'function ' || p.oid::regprocedure::text FROM pg_depend AS d
            JOIN pg_proc AS p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
            WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'copymatch')
              AND obj_description(p.oid, 'pg_proc') IS NULL
        UNION ALL SELECT 'setting ' || name FROM pg_settings WHERE name LIKE 'copymatch.%'
            AND (coalesce(short_desc, '') = '' OR coalesce(extra_desc, '') = '')"""
    db.execute("LOAD 'copymatch'")
    assert column(db, undescribed) == []
    classes = "SELECT opcname::text FROM pg_opclass JOIN pg_am ON pg_am.oid = opcmethod WHERE amname = 'ivf'"
    assert set(column(db, classes)) >= set(OPERATORS)
    settings = set(column(db, "SELECT name FROM pg_settings WHERE name LIKE 'copymatch.%'"))
    assert settings >= {
        f"copymatch.{name}" for name in ("target_recall", "probes", "iterative_scan", "rerank", "build_threads")
    }


def test_ivf_operator_classes_pass_the_validator(db):
    classes = column(
        db, "SELECT pg_opclass.oid FROM pg_opclass JOIN pg_am ON pg_am.oid = opcmethod WHERE amname = 'ivf'"
    )
    assert all(one(db, "SELECT amvalidate(%s)", oid) for oid in classes)
    properties = {"asc": False, "orderable": False, "returnable": False, "search_array": True}
    make(db, clustered(10))
    for name, expected in properties.items():
        assert one(db, "SELECT pg_index_column_has_property('t_ivf'::regclass, 1, %s)", name) is expected, name
    for name, expected in {
        "index_scan": True,
        "bitmap_scan": False,
        "backward_scan": False,
        "clusterable": False,
    }.items():
        assert one(db, "SELECT pg_index_has_property('t_ivf'::regclass, %s)", name) is expected, name


# --- looking into it ---


def test_ivf_check_and_statistics_are_for_ivf_indexes_only(db, sqlstate):
    db.execute("CREATE TABLE t (id int PRIMARY KEY, d vector(3)); CREATE VIEW v AS SELECT 1")
    for function in ("copy_index_check('{}'::regclass, false)", "copy_index_stats('{}'::regclass)"):
        for relation in ("t", "t_pkey", "v"):
            with sqlstate("42809"):
                db.execute(f"SELECT * FROM {function.format(relation)}")
        with sqlstate("42P01"):
            db.execute(f"SELECT * FROM {function.format('no_such_index')}")


def test_ivf_check_and_statistics_are_for_the_table_s_owner_and_monitors(db, sqlstate):
    schema = one(db, "SELECT current_schema()")
    make(db, clustered(50))
    db.execute(f"CREATE ROLE ivf_stranger; GRANT USAGE ON SCHEMA {schema} TO ivf_stranger")
    try:
        for call in ("copy_index_check('t_ivf'::regclass, true)", "copy_index_stats('t_ivf'::regclass)"):
            db.execute("SET ROLE ivf_stranger")
            with sqlstate("42501"):
                db.execute(f"SELECT * FROM {call}")
            db.execute("RESET ROLE")
        for allowed in ("GRANT pg_stat_scan_tables TO ivf_stranger", "ALTER TABLE t OWNER TO ivf_stranger"):
            db.execute(f"{allowed}; SET ROLE ivf_stranger")
            assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
            assert one(db, "SELECT rows FROM copy_index_stats('t_ivf'::regclass)") == 50
            db.execute("RESET ROLE; REVOKE pg_stat_scan_tables FROM ivf_stranger")
        db.execute("SET ROLE ivf_stranger")
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    finally:
        db.execute("RESET ROLE; DROP OWNED BY ivf_stranger CASCADE; DROP ROLE ivf_stranger")


def test_ivf_statistics_tell_what_the_index_is_made_of(db):
    vectors = clustered(5000)
    make(db, vectors, lists=25)
    built = stats(db)
    assert (built["rows"], built["lists"], built["dimensions"]) == (5000, 25, 32)
    assert built["bytes"] == one(db, "SELECT pg_relation_size('t_ivf')") == 8192 * built["pages"]
    assert built["mean_list"] == 200 and built["longest_list"] >= 200 and built["imbalance"] >= 1
    assert 1 <= built["probes"] <= 25
    probes, found = zip(*((point["probes"], point["recall"]) for point in built["curve"]), strict=True)
    assert list(probes) == sorted(set(probes)) and list(found) == sorted(found) and 0.98 <= found[-1] <= 1
    db.execute("SET copymatch.probes = 7")
    assert stats(db)["probes"] == 7
    db.execute(f"SET copymatch.probes = {ALL_PROBES}")
    assert stats(db)["probes"] == 25
    db.execute("DELETE FROM t WHERE id < 2000")
    db.execute("VACUUM t")
    assert stats(db)["rows"] == 3000
    assert stats(db)["free_slots"] > built["free_slots"] or stats(db)["pages"] < built["pages"]


def test_ivf_lists_are_chosen_by_the_number_of_rows_and_grow_with_it(db):
    vectors = clustered(20_000)
    make(db, vectors)
    chosen = stats(db)["lists"]
    assert 20 <= chosen <= 1000
    make(db, vectors[:0], table="filled")
    load(db, "filled", vectors)
    db.execute("VACUUM filled")
    grown = stats(db, "filled_ivf")
    assert chosen / 5 <= grown["lists"] <= 5 * chosen
    assert grown["longest_list"] <= 20_000 / 4, "no list was left to take everything"


# --- dump and restore ---


def test_ivf_dump_and_restore_keep_the_definition(server, new_db, connect):
    source, target = new_db(), new_db(extension=False)
    db, vectors = connect(source), clustered(400)
    make(db, vectors, lists=7)
    db.execute("CREATE INDEX t_half ON t USING ivf ((d::halfvec(32)) halfvec_ip_ops) WHERE id > 5")
    server.run(
        "/bin/bash",
        "-c",
        f"set -o pipefail; {server.bin}/pg_dump -d '{server.dsn(source)}' | {server.bin}/psql -qX -v ON_ERROR_STOP=1 "
        f"-d '{server.dsn(target)}'",
    )
    restored = connect(target)
    definitions = "SELECT pg_get_indexdef(i::regclass) FROM unnest('{t_ivf,t_half}'::text[]) AS i"
    assert restored.execute(definitions).fetchall() == db.execute(definitions).fetchall()
    use_index(restored)
    assert sorted(find(restored, vectors[0], None)) == list(range(400))
    restored.execute("DROP EXTENSION copymatch CASCADE")
    assert (
        one(
            restored,
            "SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE relname LIKE 't\\_%'",
        )
        == 0
    )


def test_ivf_errors_carry_no_backtrace_even_where_the_server_would_make_them(fresh_cluster, monkeypatch):
    monkeypatch.setenv("RUST_BACKTRACE", "1")
    with fresh_cluster(fsync="off").connect() as db:
        db.execute("CREATE EXTENSION copymatch; CREATE TABLE t (d vector(3))")
        with pytest.raises(psycopg.errors.InvalidParameterValue) as error:
            db.execute("CREATE INDEX ON t USING ivf (d vector_l2_ops) WITH (lists = -1)")
        assert error.value.diag.message_detail == 'Valid values are between "0" and "1000000".'
