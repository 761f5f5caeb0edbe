"""WHERE d <=> q < t and joins by it on an ivf index: when it is planned, what it finds, how many rows are expected."""

import numpy as np
import pytest
from test_ivf_recall import column, distances, load, plan, text

ROWS, COPIES, DIMENSIONS = 20_000, 1000, 64
#: Copies lie within it, strangers do not.
NEAR = 0.1


@pytest.fixture(scope="module")
def references(server, _module_db) -> np.ndarray:
    """The vectors of public.refs (id, d), indexed: strangers, and behind them copies of the first ones, moved a little.
    public.uploads (id, d) are other copies of the first 300."""
    rng = np.random.default_rng(12)
    vectors = rng.standard_normal((ROWS, DIMENSIONS)).astype(np.float32)
    copies = vectors[:COPIES] + 0.2 * rng.standard_normal((COPIES, DIMENSIONS)).astype(np.float32)
    uploads = vectors[:300] + 0.2 * rng.standard_normal((300, DIMENSIONS)).astype(np.float32)
    everything = np.concatenate([vectors, copies])
    with server.connect(_module_db) as db:
        for table, rows in (("refs", everything), ("uploads", uploads)):
            db.execute(f"CREATE TABLE {table} (id int, d vector({DIMENSIONS}))")
            load(db, table, rows)
        db.execute("CREATE INDEX refs_ivf ON refs USING ivf (d vector_cosine_ops)")
        db.execute("VACUUM ANALYZE refs, uploads")
    return everything


def expected_rows(db, sql: str, *parameters) -> float:
    """How many rows the planner thinks that the query gives."""
    return db.execute(f"EXPLAIN (FORMAT JSON) {sql}", parameters or None).fetchone()[0][0]["Plan"]["Plan Rows"]


def within(limit: float | str, operator: str = "<") -> str:
    return f"SELECT id FROM refs WHERE d <=> %s::vector {operator} {limit}"


def test_ivf_rows_within_a_distance_are_found_by_the_index_without_an_order(db, references):
    missed = found = 0
    for number in range(0, 2 * COPIES, 40):
        query = text(references[number])
        for sql in (within(NEAR), within(NEAR, "<="), f"SELECT id FROM refs WHERE {NEAR} > %s::vector <=> d"):
            assert "Index Scan using refs_ivf" in plan(db, sql, query)
            given = column(db, sql, query)
            truth = np.flatnonzero(distances(references, references[number], "vector_cosine_ops") < NEAR)
            assert len(set(given)) == len(given) and set(given) <= set(truth.tolist())
            found, missed = found + len(given), missed + len(truth) - len(given)
    assert found > 200 and missed <= 0.02 * found


def test_ivf_a_bound_that_most_rows_satisfy_reads_the_table(db, references):
    for limit in ("0.9", "1.2", "'nan'"):
        assert "Seq Scan" in plan(db, within(limit), text(references[5]))
    assert len(column(db, within("'nan'"), text(references[5]))) == len(references)


@pytest.mark.parametrize("limit", [0.02, 0.1, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.4])
def test_ivf_as_many_rows_are_expected_as_lie_within_a_distance(db, references, limit):
    queries = references[:200:5]
    truth = np.mean([(distances(references, query, "vector_cosine_ops") < limit).sum() for query in queries])
    thought = expected_rows(db, within(limit), text(queries[0]))
    assert max(1, truth) / 4 <= thought <= 4 * max(1, truth), (thought, truth)


def test_ivf_a_join_by_a_distance_scans_the_index_for_each_row(db, references):
    sql = f"SELECT u.id, r.id FROM uploads AS u JOIN refs AS r ON u.d <=> r.d < {NEAR}"
    shown = plan(db, sql)
    assert "Nested Loop" in shown and "Index Scan using refs_ivf" in shown
    uploads = [np.fromstring(d[1:-1], sep=",") for d in column(db, "SELECT d::text FROM uploads ORDER BY id")]
    truth = {
        (number, int(row))
        for number, upload in enumerate(uploads)
        for row in np.flatnonzero(distances(references, upload, "vector_cosine_ops") < NEAR)
    }
    for kind in ("JOIN", "LEFT JOIN"):
        pairs = set(db.execute(sql.replace("JOIN", kind)).fetchall())
        assert {pair for pair in pairs if pair[1] is not None} <= truth
        assert len(truth) > 500 and len(truth & pairs) >= 0.98 * len(truth)
    # Every upload has copies, one reference in twenty has; a third of all pairs would be two million.
    assert len(truth) / 20 <= expected_rows(db, sql) <= 4 * len(truth)
    outer = (
        f"SELECT u.id FROM uploads AS u WHERE EXISTS (SELECT FROM refs AS r WHERE r.d <=> u.d < {NEAR} AND r.id > 5)"
    )
    assert "Index Scan using refs_ivf" in plan(db, outer)
    assert sorted(column(db, outer)) == list(range(300))


def test_ivf_a_join_of_a_table_with_itself_finds_its_copies(db, references):
    sql = f"SELECT a.id, b.id FROM refs AS a JOIN refs AS b ON a.d <=> b.d < {NEAR} AND a.id < b.id WHERE a.id < 500"
    assert "Index Scan using refs_ivf" in plan(db, sql)
    pairs = db.execute(sql).fetchall()
    assert len(set(pairs)) == len(pairs) and sum(b == a + ROWS for a, b in pairs) >= 0.98 * 500


def test_ivf_a_prepared_bound_takes_each_value(db, references):
    db.execute("SET plan_cache_mode = force_generic_plan")
    db.execute("PREPARE near(vector, float8) AS SELECT id FROM refs WHERE d <=> $1 < $2")
    query = text(references[7])
    assert "Index Scan using refs_ivf" in plan(db, f"EXECUTE near('{query}', 0.1)")
    assert sorted(column(db, f"EXECUTE near('{query}', 0.1)")) == [7, ROWS + 7]
    assert column(db, f"EXECUTE near('{query}', NULL)") == column(db, f"EXECUTE near('{query}', -1)") == []


def test_ivf_what_a_statement_changes_is_found_by_comparing_all_rows(db, references):
    query = text(references[9])
    for sql in (
        f"DELETE FROM refs WHERE d <=> %s::vector < {NEAR}",
        f"UPDATE refs SET id = id WHERE d <=> %s::vector < {NEAR}",
    ):
        assert "refs_ivf" not in plan(db, sql, query)
    db.execute("CREATE TABLE kept (id int)")
    insert = f"INSERT INTO kept SELECT id FROM refs WHERE d <=> %s::vector < {NEAR}"
    assert "Index Scan using refs_ivf" in plan(db, insert, query)
    db.execute("SET copymatch.bound_scans = off")
    assert "refs_ivf" not in plan(db, within(NEAR), query) + plan(db, insert, query)


def test_ivf_bounds_go_with_other_conditions_orders_and_limits(db, references):
    query = text(references[11])
    for tail in ("AND id % 2 = 1", "AND id > 5 ORDER BY id", "ORDER BY id LIMIT 1", "AND d <=> %s::vector < 0.5"):
        sql = f"{within(NEAR)} {tail}"
        parameters = [query] * sql.count("%s")
        assert "Index Scan using refs_ivf" in plan(db, sql.replace(" % ", " %% "), *parameters)
        assert 11 in column(db, sql.replace(" % ", " %% "), *parameters)
    counted = f"SELECT count(*), min(id) FROM refs WHERE d <=> %s::vector < {NEAR}"
    assert db.execute(counted, [query]).fetchone() == (2, 11)


def test_ivf_each_partition_takes_its_own_index(db, references):
    db.execute(f"CREATE TABLE parts (id int, d vector({DIMENSIONS})) PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM (0) TO (10000)")
    db.execute("CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM (10000) TO (100000)")
    db.execute("INSERT INTO parts SELECT * FROM public.refs")
    db.execute("CREATE INDEX parts_ivf ON parts USING ivf (d vector_cosine_ops); ANALYZE parts")
    sql = f"SELECT id FROM parts WHERE d <=> %s::vector < {NEAR}"
    assert plan(db, sql, text(references[3])).count("Index Scan") == 2
    assert sorted(column(db, sql, text(references[3]))) == [3, ROWS + 3]
    join = f"SELECT u.id, r.id FROM public.uploads AS u JOIN parts AS r ON u.d <=> r.d < {NEAR} WHERE u.id < 50"
    assert plan(db, join).count("Index Scan") == 2
    assert len(db.execute(join).fetchall()) >= 98


def test_ivf_a_policy_of_the_table_is_judged_before_a_bound(db, references, server):
    db.execute(
        """CREATE TABLE hidden AS SELECT * FROM public.refs; CREATE INDEX ON hidden USING ivf (d vector_cosine_ops);
           ANALYZE hidden; ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
           CREATE POLICY own ON hidden USING (id % 2 = 0); DROP ROLE IF EXISTS test_bound;
           CREATE ROLE test_bound; GRANT SELECT ON hidden TO test_bound"""
    )
    schema = db.execute("SELECT current_schema()").fetchone()[0]
    db.execute(f"GRANT USAGE ON SCHEMA {schema} TO test_bound")
    try:
        db.execute("SET ROLE test_bound")
        sql = f"SELECT id FROM hidden WHERE d <=> %s::vector < {NEAR}"
        assert column(db, sql, text(references[3])) == []
        assert sorted(column(db, sql, text(references[4]))) == [4, ROWS + 4]
    finally:
        db.execute("RESET ROLE; DROP OWNED BY test_bound; DROP ROLE test_bound")
