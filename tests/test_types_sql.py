"""vector and halfvec among the rest of SQL: indexes, grouping, aggregates, casts, arrays, dump and restore, schemas."""

import numpy as np
import pytest

TYPES = {"vector": np.float32, "halfvec": np.float16}


@pytest.fixture(params=TYPES)
def kind(request) -> str:
    return request.param


def one(db, query: str, *parameters):
    return db.execute(query, parameters).fetchone()[0]


def text(values) -> str:
    return "[" + ",".join(repr(float(value)) for value in values) + "]"


def array(value: str, kind: str) -> np.ndarray:
    return np.array(value.strip("[]").split(","), dtype=TYPES[kind])


def plan(db, query: str) -> str:
    return "\n".join(line for (line,) in db.execute(f"EXPLAIN (COSTS OFF) {query}"))


def test_order_by_distinct_and_group_by(db, kind):
    db.execute(f"CREATE TABLE t (v {kind})")
    db.execute("INSERT INTO t VALUES ('[0,0]'), ('[1,2,3]'), ('[1,1]'), (NULL), ('[0,0]'), ('[-1]'), ('[-0,0]')")
    ordered = [v for (v,) in db.execute("SELECT v::text FROM t ORDER BY t.v").fetchall()]
    assert sorted(ordered[1:4]) == ["[-0,0]", "[0,0]", "[0,0]"]
    assert [ordered[0], *ordered[4:]] == ["[-1]", "[1,1]", "[1,2,3]", None]
    assert one(db, "SELECT count(DISTINCT v) FROM t") == 4
    assert [count for (count,) in db.execute("SELECT count(*) FROM t GROUP BY v ORDER BY v")] == [1, 3, 1, 1, 1]


def test_a_btree_index_finds_orders_and_rejects_duplicates(db, kind, sqlstate):
    db.execute(f"CREATE TABLE t (v {kind} UNIQUE)")
    db.execute("INSERT INTO t SELECT ARRAY[i % 10, i, -i]::real[] FROM generate_series(1, 500) AS i")
    db.execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
    query = "SELECT v::text FROM t WHERE v = '[3,123,-123]'"
    assert "Index" in plan(db, query)
    assert db.execute(query).fetchall() == [("[3,123,-123]",)]
    assert "Index" in plan(db, "SELECT v FROM t ORDER BY v")
    found = [tuple(array(v, kind)) for (v,) in db.execute("SELECT v::text FROM t ORDER BY t.v")]
    assert found == sorted(found) and len(found) == 500
    count = "SELECT count(*) FROM t WHERE v >= '[3]' AND v < '[5]'"
    assert "Index Cond" in plan(db, count)
    assert one(db, count) == 100
    with sqlstate("23505"):
        db.execute("INSERT INTO t VALUES ('[3,123,-123]')")


def test_merge_join_on_vectors(db, kind):
    db.execute(f"CREATE TABLE t AS SELECT ARRAY[i]::real[]::{kind} AS v FROM generate_series(1, 50) AS i")
    assert one(db, "SELECT count(*) FROM t AS a JOIN t AS b USING (v)") == 50


@pytest.mark.parametrize("rows, dimensions", [(1, 3), (2, 1), (1000, 7), (300, 300)])
def test_avg_and_sum_agree_with_numpy(db, kind, rows, dimensions):
    data = np.random.default_rng(5).normal(size=(rows, dimensions)).astype(TYPES[kind])
    db.execute(f"CREATE TABLE t (v {kind})")
    db.cursor().executemany("INSERT INTO t VALUES (%s)", [(text(row),) for row in data])
    db.execute("INSERT INTO t VALUES (NULL)")
    average = array(one(db, "SELECT avg(v)::text FROM t"), kind)
    # Summed in double precision and rounded once.
    assert (average == data.astype(np.float64).mean(axis=0).astype(TYPES[kind])).all()
    total = array(one(db, "SELECT sum(v)::text FROM t"), kind)
    expected = data[0]
    for row in data[1:]:
        expected = expected + row
    assert (total == expected).all()


def test_aggregates_of_nothing_are_null(db, kind):
    db.execute(f"CREATE TABLE t (v {kind})")
    assert db.execute("SELECT avg(v), sum(v) FROM t").fetchone() == (None, None)
    db.execute("INSERT INTO t VALUES (NULL)")
    assert db.execute("SELECT avg(v), sum(v) FROM t").fetchone() == (None, None)


def test_aggregates_run_in_parallel_with_the_same_result(db, kind):
    db.execute(f"CREATE TABLE t (v {kind})")
    db.execute("ALTER TABLE t SET (parallel_workers = 2)")
    db.execute("INSERT INTO t SELECT ARRAY[i % 4, 1, -(i % 8)]::real[] FROM generate_series(1, 400) AS i")
    db.execute("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0")
    query = "SELECT avg(v)::text, sum(v)::text FROM t"
    assert "Gather" in plan(db, query) and "Partial Aggregate" in plan(db, query)
    parallel = db.execute(query).fetchone()
    assert parallel == ("[1.5,1,-3.5]", "[600,400,-1400]")
    db.execute("SET max_parallel_workers_per_gather = 0")
    assert db.execute(query).fetchone() == parallel
    db.execute("RESET max_parallel_workers_per_gather")
    # Workers that see no row contribute an empty state.
    assert one(db, "SELECT avg(v)::text FROM t WHERE v = '[1,1,-1]'") == "[1,1,-1]"


def test_avg_over_a_window_and_by_group_keeps_the_states_apart(db, kind):
    db.execute(f"CREATE TABLE t AS SELECT i, ARRAY[i]::real[]::{kind} AS v FROM generate_series(1, 5) AS i")
    running = db.execute("SELECT (avg(v) OVER (ORDER BY i))::text, (sum(v) OVER (ORDER BY i))::text FROM t").fetchall()
    assert running == [("[1]", "[1]"), ("[1.5]", "[3]"), ("[2]", "[6]"), ("[2.5]", "[10]"), ("[3]", "[15]")]
    grouped = db.execute("SELECT avg(v)::text FROM t GROUP BY i % 2 ORDER BY i % 2").fetchall()
    assert grouped == [("[3]",), ("[3]",)]
    moving = "SELECT (avg(v) OVER (ORDER BY i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW))::text FROM t"
    assert db.execute(moving).fetchall() == [("[1]",), ("[1.5]",), ("[2.5]",), ("[3.5]",), ("[4.5]",)]


def test_aggregates_over_different_lengths_and_out_of_range_are_errors(db, kind, sqlstate):
    largest = {"vector": "3e38", "halfvec": "65504"}[kind]
    with sqlstate("22000") as error:
        one(db, f"SELECT avg(v) FROM (VALUES ('[1,2]'::{kind}), ('[1]')) AS t (v)")
    assert error.value.diag.message_primary == "expected 2 dimensions, not 1"
    with sqlstate("22000") as error:
        one(db, f"SELECT sum(v) FROM (VALUES ('[1,2]'::{kind}), ('[1]')) AS t (v)")
    assert error.value.diag.message_primary == f"different {kind} dimensions 2 and 1"
    with sqlstate("22003"):
        one(db, f"SELECT sum(v) FROM (VALUES ('[{largest}]'::{kind}), ('[{largest}]')) AS t (v)")
    values = f"(VALUES ('[{largest}]'::{kind}), ('[{largest}]'))"
    assert one(db, f"SELECT avg(v) = '[{largest}]' FROM {values} AS t (v)"), "the sum is kept in double precision"


def test_aggregate_functions_called_alone_leave_their_argument_and_check_it(db, kind, sqlstate):
    assert one(db, f"SELECT {kind}_accum('{{0}}', '[1,2]')::text") == "{1,1,2}"
    assert one(db, f"SELECT {kind}_accum('{{1,1,2}}', '[3,4]')::text") == "{2,4,6}"
    assert one(db, f"SELECT {kind}_combine('{{0}}', '{{2,3}}')::text") == "{2,3}"
    assert one(db, f"SELECT {kind}_combine('{{2,3}}', '{{0}}')::text") == "{2,3}"
    assert one(db, f"SELECT {kind}_combine('{{2,3}}', '{{1,5}}')::text") == "{3,8}"
    assert one(db, f"SELECT {kind}_avg('{{2,4,6}}')::text") == "[2,3]"
    assert one(db, f"SELECT {kind}_avg('{{0}}') IS NULL")
    db.execute("CREATE TABLE state AS SELECT '{1,1,2}'::float8[] AS s")
    one(db, f"SELECT {kind}_accum(s, '[3,4]') FROM state")
    assert one(db, "SELECT s::text FROM state") == "{1,1,2}"
    for call in ["accum('{}', '[1]')", "avg('{}')", "combine('{}', '{1,2}')", "combine('{1,2}', '{}')"]:
        with sqlstate("22023") as error:
            one(db, f"SELECT {kind}_{call}")
        assert "expected state array" in error.value.diag.message_primary
    for call in ["accum('{{1},{2}}', '[1]')", "avg('{{1},{2}}')"]:
        with sqlstate("22000"):
            one(db, f"SELECT {kind}_{call}")
    with sqlstate("22004"):
        one(db, f"SELECT {kind}_avg('{{1,NULL}}')")
    with sqlstate("22003"):
        one(db, f"SELECT {kind}_combine('{{1,1.7e308}}', '{{1,1.7e308}}')")
    with sqlstate("22000"):
        one(db, f"SELECT {kind}_combine('{{1,2}}', '{{1,2,3}}')")
    with sqlstate("22000"):
        one(db, f"SELECT {kind}_avg('{{1}}')")
    with sqlstate("22023"):
        one(db, f"SELECT {kind}_avg(array_fill(1::float8, ARRAY[16002]))")


ARRAYS = ["integer[]", "real[]", "double precision[]", "numeric[]"]


@pytest.mark.parametrize("source", ARRAYS)
def test_arrays_become_vectors(db, kind, source):
    assert one(db, f"SELECT '{{1,-2,3}}'::{source}::{kind}::text") == "[1,-2,3]"
    assert one(db, f"SELECT array_to_{kind}('{{1,-2,3}}'::{source}, 3, true)::text") == "[1,-2,3]"
    db.execute(f"CREATE TABLE t (v {kind}(3))")
    db.execute(f"INSERT INTO t VALUES ('{{1,2,3}}'::{source})")  # an assignment cast
    assert one(db, "SELECT v::text FROM t") == "[1,2,3]"
    # Lower bounds do not matter, neither does a bitmap of NULLs that marks none.
    assert one(db, f"SELECT '[5:7]={{1,2,3}}'::{source}::{kind}::text") == "[1,2,3]"
    assert one(db, f"SELECT array_remove('{{1,NULL,2}}'::{source}, NULL)::{kind}::text") == "[1,2]"
    assert one(db, f"SELECT ('{{NULL,1,2}}'::{source})[2:3]::{kind}::text") == "[1,2]"


@pytest.mark.parametrize("source", ARRAYS)
def test_arrays_that_are_no_vector_are_refused_by_cause(db, kind, sqlstate, source):
    for value, state, expected in [
        ("{}", "22000", f"{kind} must have at least 1 dimension"),
        ("{{1},{2}}", "22000", "array must be 1-D"),
        ("{1,NULL}", "22004", "array must not contain nulls"),
        ("{" + "1," * 16000 + "1}", "54000", f"{kind} cannot have more than 16000 dimensions"),
    ]:
        with sqlstate(state) as error:
            one(db, f"SELECT %s::{source}::{kind}", value)
        assert error.value.diag.message_primary == expected
    if source != "integer[]":
        with sqlstate("22000") as error:
            one(db, f"SELECT '{{NaN}}'::{source}::{kind}")
        assert error.value.diag.message_primary == f"NaN not allowed in {kind}"
    if source in ("real[]", "double precision[]"):
        with sqlstate("22000") as error:
            one(db, f"SELECT '{{-Infinity}}'::{source}::{kind}")
        assert error.value.diag.message_primary == f"infinite value not allowed in {kind}"
    if source in ("double precision[]", "numeric[]"):
        with sqlstate("22003"):
            one(db, f"SELECT '{{1e39}}'::{source}::{kind}")
    if kind == "halfvec":
        with sqlstate("22003") as error:
            one(db, f"SELECT '{{65520}}'::{source}::{kind}")
        assert error.value.diag.message_primary == '"65520" is out of range for type halfvec'


def test_array_elements_are_rounded_once_to_the_nearest(db):
    random = np.random.default_rng(9)
    values = random.normal(size=1000) * 10.0 ** random.integers(-30, 30, 1000)
    found = array(one(db, "SELECT %s::float8[]::vector::text", values.tolist()), "vector")
    assert (found == values.astype(np.float32)).all()
    small = random.normal(size=1000) * 10.0 ** random.integers(-6, 4, 1000)
    found = array(one(db, "SELECT %s::float8[]::halfvec::text", small.tolist()), "halfvec")
    assert (found == small.astype(np.float32).astype(np.float16)).all()


def test_vectors_become_real_arrays(db, kind):
    assert one(db, f"SELECT '[1,-2.5,3]'::{kind}::real[]") == [1, -2.5, 3]
    assert one(db, f"SELECT {kind}_to_float4('[1,2]', -1, true)") == [1, 2]
    assert one(db, f"SELECT array_dims('[4,5,6]'::{kind}::real[])") == "[1:3]"
    assert one(db, f"SELECT ('[4,5,6]'::{kind}::real[] || 7::real)") == [4, 5, 6, 7]


def test_only_vector_becomes_an_array_or_a_halfvec_by_itself(db, sqlstate):
    kinds = {
        (source, target): context
        for source, target, context in db.execute(
            "SELECT castsource::regtype::text, casttarget::regtype::text, castcontext::text FROM pg_cast"
            " WHERE castsource::regtype::text IN ('vector', 'halfvec') "
            "OR casttarget::regtype::text IN ('vector', 'halfvec')"
        )
    }
    expected = {(source, target): "a" for source in ARRAYS for target in TYPES}
    expected |= {
        ("vector", "vector"): "i",
        ("halfvec", "halfvec"): "i",
        ("vector", "real[]"): "i",
        ("halfvec", "real[]"): "a",
    }
    expected |= {("vector", "halfvec"): "i", ("halfvec", "vector"): "a"}
    assert kinds == expected
    with sqlstate("42883"):
        one(db, "SELECT '[1]'::vector <-> ARRAY[1]::real[]")


def test_vector_and_halfvec_become_each_other(db, sqlstate):
    assert one(db, "SELECT '[0.1,65504,1e-8]'::vector::halfvec::text") == "[0.099975586,65504,0]"
    assert one(db, "SELECT '[0.1,65504]'::halfvec::vector::text") == "[0.099975586,65504]"
    with sqlstate("22003") as error:
        one(db, "SELECT '[1,65520]'::vector::halfvec")
    assert error.value.diag.message_primary == '"65520" is out of range for type halfvec'
    for cast in ["'[1,2]'::vector::halfvec(3)", "'[1,2]'::halfvec::vector(3)"]:
        with sqlstate("22000") as error:
            one(db, f"SELECT {cast}")
        assert error.value.diag.message_primary == "expected 3 dimensions, not 2"
    db.execute("CREATE TABLE t (h halfvec(2), v vector(2))")
    db.execute("INSERT INTO t SELECT '[1,2]'::vector, '[3,4]'::halfvec")
    assert db.execute("SELECT h::text, v::text FROM t").fetchone() == ("[1,2]", "[3,4]")
    assert one(db, "SELECT h <-> v FROM t") == pytest.approx(8**0.5)


def test_arrays_of_vectors_hold_them(db, kind):
    db.execute(f"CREATE TABLE t (v {kind}(2)[])")
    db.execute(f"INSERT INTO t VALUES (ARRAY['[1,2]', NULL, '[3,4]']::{kind}[])")
    assert db.execute("SELECT v[1]::text, v[2], v[3]::text, array_length(v, 1) FROM t").fetchone() == (
        "[1,2]",
        None,
        "[3,4]",
        3,
    )
    assert one(db, "SELECT avg(e)::text FROM t, unnest(v) AS e") == "[2,3]"
    assert one(db, f"SELECT '[3,4]'::{kind} = ANY (v) FROM t")


def test_nearest_neighbours_by_sequential_scan(db, kind):
    data = np.random.default_rng(1).normal(size=(200, 16)).astype(TYPES[kind])
    db.execute(f"CREATE TABLE t (id int, v {kind}(16))")
    db.cursor().executemany("INSERT INTO t VALUES (%s, %s)", [(i, text(row)) for i, row in enumerate(data)])
    distances = np.linalg.norm(data.astype(np.float64) - data[7].astype(np.float64), axis=1)
    found = [i for (i,) in db.execute(f"SELECT id FROM t ORDER BY v <-> %s::{kind} LIMIT 10", [text(data[7])])]
    assert found == np.argsort(distances)[:10].tolist()


def test_dump_and_restore_keeps_every_value(server, new_db, connect, tmp_path, kind):
    name, copy = new_db(), new_db(extension=False)
    db = connect(name)
    db.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {kind}(4), w {kind}, a {kind}[])")
    db.execute("INSERT INTO t VALUES (1, '[1,2,3.25,-0]', '[1e-7]', '{\"[1]\",\"[2,3]\"}'), (2, NULL, NULL, NULL)")
    db.execute(f"CREATE INDEX ON t (v); CREATE VIEW close AS SELECT id, v <-> '[1,2,3,4]'::{kind} AS d FROM t")
    dump = server.run("pg_dump", "-h", server.socket, "-U", "postgres", name).stdout
    path = tmp_path / "dump.sql"
    path.write_text(dump)
    restored = server.run("psql", "-h", server.socket, "-U", "postgres", "-d", copy, "-v", "ON_ERROR_STOP=1", "-q",
                          "-f", "-", stdin=path.open())  # fmt: skip
    assert "ERROR" not in restored.stdout
    other = connect(copy)
    rows = "SELECT id, v::text, w::text, a::text FROM t ORDER BY id"
    assert other.execute(rows).fetchall() == db.execute(rows).fetchall()
    assert (
        other.execute("SELECT * FROM close ORDER BY id").fetchall()
        == db.execute("SELECT * FROM close ORDER BY id").fetchall()
    )
    with pytest.raises(other.DataError):
        other.execute("INSERT INTO t VALUES (3, '[1]')")


def test_the_types_work_in_a_schema_outside_the_search_path(new_db, connect):
    db = connect(new_db(extension=False))
    db.execute("CREATE SCHEMA elsewhere; CREATE EXTENSION copymatch SCHEMA elsewhere CASCADE")
    assert one(db, "SELECT elsewhere.l2_distance('[1,2]'::elsewhere.vector, '[4,6]')") == 5
    assert one(db, "SELECT '[1,2]'::elsewhere.vector OPERATOR(elsewhere.<->) '[4,6]'") == 5
    db.execute(
        "CREATE TABLE t (v elsewhere.halfvec(2)); CREATE INDEX ON t (v); INSERT INTO t VALUES ('[1,2]'), ('[3,4]')"
    )
    assert one(db, "SELECT elsewhere.avg(v)::text FROM t") == "[2,3]"
    assert one(db, "SELECT v::text FROM t ORDER BY t.v DESC LIMIT 1") == "[3,4]"
