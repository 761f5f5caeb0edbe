"""Searching with an ivf index: what comes, in which order, how often; filters, bounds, cursors, plans, MVCC."""

import numpy as np
import pytest
from test_ivf_recall import (
    CHECK,
    clustered,
    column,
    distances,
    find,
    load,
    make,
    near,
    one,
    plan,
    statement,
    stats,
    text,
    use_index,
)


@pytest.fixture(scope="module")
def corpus(server, _module_db) -> np.ndarray:
    """The vectors of public.corpus (id, d, tenth, hundredth), 10,000 rows, with an index; for tests that only read."""
    vectors = clustered(10_000)
    with server.connect(_module_db) as db:
        make(db, vectors, table="corpus")
        # Rewrites the table and its index.
        db.execute(
            """ALTER TABLE corpus ADD COLUMN tenth int GENERATED ALWAYS AS (id % 10) STORED,
                                  ADD COLUMN hundredth int GENERATED ALWAYS AS (id % 100) STORED"""
        )
        db.execute("VACUUM ANALYZE corpus")
    return vectors


# --- searching ---


@pytest.mark.parametrize("k", [0, 1, 10, 100, 3000, None])
def test_ivf_gives_as_many_rows_as_are_asked_for_each_once(db, corpus, k):
    use = "SET enable_seqscan = off; SET enable_sort = off"
    db.execute(use)
    assert "Index Scan using corpus_ivf" in plan(db, statement(k=k, table="corpus"), text(corpus[0]))
    for number in (1, 2):
        found = find(db, corpus[number], k, table="corpus")
        assert len(found) == len(set(found)) == (len(corpus) if k is None else k)


def test_ivf_rows_come_in_the_order_of_their_exact_distances(db, corpus):
    db.execute("SET enable_seqscan = off")
    for query in near(corpus, 30):
        for k in (10, 100):
            given = distances(corpus, query, "vector_cosine_ops")[find(db, query, k, table="corpus")]
            assert (np.diff(given) >= -1e-6).all()


def test_ivf_the_distance_in_the_result_is_the_exact_one(db, corpus):
    db.execute("SET enable_seqscan = off")
    query = near(corpus, 1)[0]
    rows = db.execute(
        "SELECT id, d <=> %s::vector FROM corpus ORDER BY 2 LIMIT 50", [text(query)]
    ).fetchall()  # fmt: skip
    exact = distances(corpus, query, "vector_cosine_ops")
    assert all(abs(exact[number] - distance) < 1e-6 for number, distance in rows)


def test_ivf_strict_order_is_kept_to_the_end(db, corpus):
    db.execute("SET enable_seqscan = off; SET enable_sort = off; SET copymatch.iterative_scan = strict_order")
    query = near(corpus, 1)[0]
    found = find(db, query, None, table="corpus")
    given = distances(corpus, query, "vector_cosine_ops")[found]
    assert (np.diff(given) >= -1e-6).all()
    # Rows that come to light too late for their place are left out; those of the first lists are all there.
    assert len(set(found)) == len(found) >= 100


def test_ivf_without_iteration_a_search_ends_with_the_lists_it_probes(db):
    vectors = clustered(4000)
    make(db, vectors, lists=40)
    db.execute("SET copymatch.iterative_scan = off; SET copymatch.probes = 2; SET enable_sort = off")
    few = find(db, vectors[0], None)
    assert 0 < len(few) < 4000 and len(set(few)) == len(few)
    db.execute("SET copymatch.iterative_scan = relaxed_order")
    assert sorted(find(db, vectors[0], None)) == list(range(4000))


def test_ivf_without_rerank_rows_come_by_their_codes_and_none_is_lost(db, corpus):
    db.execute("SET enable_seqscan = off; SET enable_sort = off; SET copymatch.rerank = off")
    query = near(corpus, 1)[0]
    assert sorted(find(db, query, None, table="corpus")) == list(range(len(corpus)))
    exact = distances(corpus, query, "vector_cosine_ops")
    worst = np.sort(exact)[9]
    assert (exact[find(db, query, 10, table="corpus")] <= worst + 1e-6).sum() >= 8


def test_ivf_ties_all_come(db):
    vectors = np.eye(16, dtype=np.float32)[np.arange(320) % 16]
    make(db, vectors)
    found = find(db, vectors[3], 20)
    assert sorted(found) == list(range(3, 320, 16))


def test_ivf_offset_skips_what_limit_would_have_given(db, corpus):
    db.execute("SET enable_seqscan = off")
    query = near(corpus, 1)[0]
    first = find(db, query, 30, table="corpus")
    second = column(db, statement(k=10, table="corpus") + " OFFSET 20", text(query))
    assert second == first[20:]


@pytest.mark.parametrize("column_name, part", [("tenth", 10), ("hundredth", 100)])
def test_ivf_a_filtered_query_returns_its_limit(db, corpus, column_name, part):
    db.execute("SET enable_seqscan = off; SET enable_sort = off")
    where = f"WHERE {column_name} = 3"
    assert "Index Scan using corpus_ivf" in plan(db, statement(table="corpus", where=where), text(corpus[0]))
    for query in near(corpus, 30):
        found = column(db, statement(table="corpus", where=where), text(query))
        assert len(set(found)) == 10 and all(number % part == 3 for number in found)


@pytest.mark.parametrize(
    "column_name, part",
    [
        ("tenth", 10),
        ("hundredth", 100),
    ],
)
def test_ivf_a_filtered_query_finds_90_percent(db, corpus, column_name, part):
    db.execute("SET enable_seqscan = off; SET enable_sort = off")
    members, hits = np.arange(3, len(corpus), part), 0
    for query in near(corpus, 30):
        found = column(db, statement(table="corpus", where=f"WHERE {column_name} = 3"), text(query))
        exact = distances(corpus, query, "vector_cosine_ops")
        hits += (exact[found] <= np.sort(exact[members])[9] + 1e-6).sum()
    assert hits / 300 >= 0.9


def test_ivf_a_filter_that_nothing_passes_ends(db, corpus):
    db.execute("SET enable_seqscan = off; SET enable_sort = off")
    assert column(db, statement(table="corpus", where="WHERE tenth = 11"), text(corpus[0])) == []


def test_ivf_a_filter_that_one_row_passes_finds_it(db, corpus):
    db.execute("SET enable_seqscan = off; SET enable_sort = off")
    for number in (0, 4242, 9999):
        sql = statement(table="corpus", where=f"WHERE id = {number}")
        assert "Index Scan using corpus_ivf" in plan(db, sql, text(corpus[7]))
        assert column(db, sql, text(corpus[7])) == [number]


def test_ivf_row_level_security_holds_and_fills_the_limit(db):
    vectors = clustered(2000)
    make(db, vectors)
    schema = one(db, "SELECT current_schema()")
    db.execute(f"CREATE ROLE ivf_tenant; GRANT USAGE ON SCHEMA {schema} TO ivf_tenant; GRANT SELECT ON t TO ivf_tenant")
    try:
        db.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON t USING (id % 20 = 5)")
        db.execute("SET ROLE ivf_tenant; SET enable_sort = off")
        for query in near(vectors, 10):
            for where in ("", f"WHERE d <=> '{text(query)}' < 1.9"):
                sql = statement(where=where)
                assert "Index Scan using t_ivf" in plan(db, sql, text(query))
                found = column(db, sql, text(query))
                assert all(number % 20 == 5 for number in found)
                assert len(set(found)) == 10
    finally:
        db.execute("RESET ROLE; DROP OWNED BY ivf_tenant CASCADE; DROP ROLE ivf_tenant")


def test_ivf_locked_rows_are_skipped_and_changed_ones_are_looked_at_again(db, connect):
    vectors = clustered(500)
    make(db, vectors)
    other = connect(db.info.dbname)
    other.execute(f"SET search_path = {one(db, 'SELECT current_schema()')}, public; SET enable_seqscan = off")
    take = "SELECT id FROM t ORDER BY d <=> %s::vector LIMIT 1 FOR UPDATE SKIP LOCKED"
    with db.transaction(), other.transaction():
        assert column(db, take, text(vectors[3])) == [3]
        second = column(other, take, text(vectors[3]))
        assert second == [int(np.argsort(distances(vectors, vectors[3], "vector_cosine_ops"))[1])]


def test_ivf_searches_are_counted(db):
    vectors = clustered(500)
    make(db, vectors)
    with db.transaction():
        for query in vectors[:3]:
            find(db, query, 5)
        assert one(db, "SELECT pg_stat_get_xact_numscans('t_ivf'::regclass)") == 3


@pytest.mark.parametrize(
    "operator, opclass, within",
    [("<=>", "vector_cosine_ops", 0.1), ("<->", "vector_l2_ops", 0.5), ("<#>", "vector_ip_ops", -0.9)],
)
def test_ivf_a_bound_on_the_distance_gives_the_rows_within_it(db, operator, opclass, within):
    vectors = clustered(3000)
    make(db, vectors, opclass)
    total = missed = 0
    for query in near(vectors, 40):
        for limit in ("", "LIMIT 5"):
            sql = f"SELECT id FROM t WHERE d {operator} %s::vector < {within} ORDER BY d {operator} %s::vector {limit}"
            assert "Index Scan using t_ivf" in plan(db, sql, text(query), text(query))
            found = column(db, sql, text(query), text(query))
            exact = distances(vectors, query, opclass)
            expected = np.flatnonzero(exact < within)
            assert len(set(found)) == len(found)
            assert (exact[found] < within + 1e-6).all() and (np.diff(exact[found]) >= -1e-6).all()
            total += min(len(expected), 5 if limit else len(expected))
            missed += min(len(expected), 5 if limit else len(expected)) - len(found)
    assert total > 100 and missed <= 0.02 * total


def test_ivf_a_bound_without_a_limit_is_planned_with_the_index(db):
    """PostgreSQL takes a comparison for a third of the rows; within a distance lie few."""
    vectors = np.random.default_rng(5).standard_normal((20_000, 128)).astype(np.float32)
    db.execute("CREATE TABLE many (id int, d vector(128))")
    load(db, "many", vectors)
    db.execute("CREATE INDEX many_ivf ON many USING ivf (d vector_cosine_ops); ANALYZE many")
    query = text(vectors[7])
    for bound in ("< 0.3", "<= 0.1"):
        sql = f"SELECT id FROM many WHERE d <=> %s::vector {bound} ORDER BY d <=> %s::vector"
        assert "Index Scan using many_ivf" in plan(db, sql, query, query)
        assert column(db, sql, query, query) == [7]
    # Without a bound all rows are wanted: the table is read and sorted.
    assert "Seq Scan" in plan(db, "SELECT id FROM many ORDER BY d <=> %s::vector", query)


def test_ivf_a_bound_that_nothing_reaches_gives_nothing(db, corpus):
    db.execute("SET enable_seqscan = off; SET enable_sort = off")
    for bound in ("0", "-1", "'-inf'", "'nan'"):
        sql = f"SELECT id FROM corpus WHERE d <=> %s::vector < {bound} ORDER BY d <=> %s::vector LIMIT 10"
        found = column(db, sql, text(-corpus[0]), text(-corpus[0]))
        # Nothing is less than these but, for PostgreSQL, everything is less than NaN.
        assert len(found) == (10 if "nan" in bound else 0)


def test_ivf_lateral_rescans_give_what_single_queries_give(db, corpus):
    db.execute("SET enable_seqscan = off")
    queries = near(corpus, 20)
    db.execute("CREATE TABLE q (id int, d vector(32))")
    load(db, "q", queries)
    sql = "SELECT q.id, n.id FROM q, LATERAL (SELECT id FROM corpus ORDER BY d <=> q.d LIMIT 5) AS n"
    assert "Index Scan using corpus_ivf" in plan(db, sql)
    rows = db.execute(sql).fetchall()
    for number, query in enumerate(queries):
        assert [found for asked, found in rows if asked == number] == find(db, query, 5, table="corpus")


def test_ivf_a_query_vector_of_a_subquery_or_a_function_is_taken(db, corpus):
    db.execute("SET enable_seqscan = off")
    expected = find(db, corpus[77], 5, table="corpus")
    for query in ("(SELECT d FROM corpus WHERE id = 77)", "l2_normalize((SELECT d FROM corpus WHERE id = 77))"):
        sql = f"SELECT id FROM corpus ORDER BY d <=> {query} LIMIT 5"
        assert "Index Scan using corpus_ivf" in plan(db, sql)
        assert column(db, sql) == expected


def test_ivf_self_join_and_union_run_several_scans_at_once(db, corpus):
    db.execute("SET enable_seqscan = off")
    a, b = corpus[5], corpus[6]
    part = "(SELECT id FROM corpus ORDER BY d <=> %s::vector LIMIT 5)"
    both = column(db, f"{part} UNION ALL {part}", text(a), text(b))
    assert both == find(db, a, 5, table="corpus") + find(db, b, 5, table="corpus")


def test_ivf_cursors_go_forward_and_refuse_to_go_backward(db, corpus, sqlstate):
    db.execute("SET enable_seqscan = off; SET enable_sort = off")
    query = text(near(corpus, 1)[0])
    expected = column(db, statement(k=60, table="corpus"), query)

    def declare(before: str, behind: str = "", limit: str = "ALL"):
        db.execute(
            f"DECLARE c {before} CURSOR {behind} FOR SELECT id FROM corpus ORDER BY d <=> '{query}' LIMIT {limit}"
        )

    for options in ("", "NO SCROLL"):
        with db.transaction():
            declare(options)
            found = []
            for step in (1, 9, 20, 30):
                found += column(db, f"FETCH {step} FROM c")
            assert found == expected
            with sqlstate("55000"), db.transaction():
                db.execute("FETCH BACKWARD 5 FROM c")
    with db.transaction():
        declare("SCROLL")
        assert column(db, "FETCH 20 FROM c") == expected[:20]
        assert column(db, "FETCH BACKWARD 5 FROM c") == expected[18:13:-1]
        assert column(db, "FETCH ABSOLUTE 1 FROM c") == expected[:1]
        db.execute("MOVE 30 IN c")
        assert column(db, "FETCH 5 FROM c") == expected[31:36]
    with db.transaction():
        declare("", "WITH HOLD", limit="60")
    assert column(db, "FETCH ALL FROM c") == expected
    db.execute("CLOSE c")


def test_ivf_prepared_statements_keep_their_plan_and_take_each_query(db, corpus):
    db.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
    db.execute("PREPARE nearest(vector, int) AS SELECT id FROM corpus ORDER BY d <=> $1 LIMIT $2")
    assert "Index Scan using corpus_ivf" in plan(db, f"EXECUTE nearest('{text(corpus[0])}', 3)")
    for query in near(corpus, 8):
        assert column(db, f"EXECUTE nearest('{text(query)}', 3)") == find(db, query, 3, table="corpus")
    # A change of settings holds from the next execution on.
    db.execute("SET copymatch.iterative_scan = off; SET copymatch.probes = 1")
    few = len(column(db, f"EXECUTE nearest('{text(corpus[0])}', 10000)"))
    assert few < len(corpus)


def test_ivf_functions_in_plpgsql_search_with_it(db, corpus):
    db.execute("SET enable_seqscan = off")
    db.execute(
        """CREATE FUNCTION nearest(q vector) RETURNS int LANGUAGE plpgsql STABLE AS $$
           DECLARE r int; BEGIN FOR r IN SELECT id FROM public.corpus
           ORDER BY d <=> q LOOP RETURN r; END LOOP; END $$"""
    )
    assert column(db, "SELECT nearest(d) FROM corpus WHERE id < 8 ORDER BY id") == list(range(8))


def test_ivf_searches_in_a_parallel_plan_give_the_same(db, corpus):
    db.execute("SET enable_seqscan = off")
    query = near(corpus, 1)[0]
    expected = find(db, query, 20, table="corpus")
    setting = "debug_parallel_query" if db.info.server_version >= 160000 else "force_parallel_mode"
    db.execute(f"SET {setting} = on")
    assert "Gather" in plan(db, statement(k=20, table="corpus"), text(query)), "the plan is parallel-safe"
    assert find(db, query, 20, table="corpus") == expected


def test_ivf_a_search_can_be_cancelled(db, sqlstate):
    make(db, clustered(20_000))
    db.execute("SET statement_timeout = '300ms'; SET enable_sort = off")
    endless = "SELECT count(*) FROM t AS a, LATERAL (SELECT id FROM t AS b ORDER BY b.d <=> a.d) AS n"
    with sqlstate("57014"):
        db.execute(endless)
    db.execute("SET statement_timeout = 0")
    assert len(find(db, clustered(1)[0], 5)) == 5


def test_ivf_probes_follow_target_recall(db):
    # Directions without any structure: near rows lie in many lists.
    make(db, np.random.default_rng(3).standard_normal((6000, 48)).astype(np.float32))
    probes = []
    for target in (0.5, 0.9, 0.98, 1):
        db.execute(f"SET copymatch.target_recall = {target}")
        probes.append(stats(db, "t_ivf")["probes"])
    assert probes == sorted(probes) and probes[0] < probes[-1]


def test_ivf_two_distances_are_sorted_by_both(db, corpus):
    db.execute("SET enable_seqscan = off")
    a, b = text(corpus[1]), text(corpus[2])
    sql = "SELECT id FROM corpus ORDER BY d <=> %s::vector, d <=> %s::vector LIMIT 3"
    assert column(db, sql, a, b)[0] == 1
    sql = "SELECT id FROM corpus ORDER BY (d <=> %s::vector) + (d <=> %s::vector) LIMIT 2"
    assert "corpus_ivf" not in plan(db, sql, a, b)
    sums = distances(corpus, corpus[1], "vector_cosine_ops") + distances(corpus, corpus[2], "vector_cosine_ops")
    assert set(column(db, sql, a, b)) == set(np.argsort(sums)[:2].tolist())


def test_ivf_another_order_first_is_kept(db, corpus):
    db.execute("SET enable_seqscan = off")
    query = text(corpus[7])
    sql = "SELECT id FROM corpus ORDER BY tenth, d <=> %s::vector LIMIT 1"
    exact = distances(corpus, corpus[7], "vector_cosine_ops")
    assert column(db, sql, query) == [10 * int(exact[::10].argmin())]
    descending = "SELECT id FROM corpus ORDER BY d <=> %s::vector DESC LIMIT 1"
    assert "corpus_ivf" not in plan(db, descending, query)
    assert column(db, descending, query) == [int(exact.argmax())]
    then = "SELECT id FROM corpus ORDER BY d <=> %s::vector, id LIMIT 5"
    assert column(db, then, query)[0] == 7


def test_ivf_the_internal_operator_alone_is_no_reason_to_use_the_index(db, corpus):
    db.execute("SET enable_seqscan = off")
    assert one(db, "SELECT count(*) FROM corpus WHERE d <~ 0.5") == len(corpus)


# --- plans ---


def test_ivf_is_chosen_by_itself_on_a_large_table(db, corpus):
    for k in (1, 10, 100):
        assert "Index Scan using corpus_ivf" in plan(db, statement(k=k, table="corpus"), text(corpus[0]))


def test_ivf_is_not_chosen_on_a_tiny_table(db):
    make(db, clustered(20))
    db.execute("RESET enable_seqscan")
    assert "Seq Scan" in plan(db, statement(), text(np.ones(32)))


def test_ivf_is_not_chosen_without_an_order_or_a_bound_by_its_distance(db, corpus):
    db.execute("SET enable_seqscan = off")
    for sql in (
        "SELECT count(*) FROM corpus",
        "SELECT id FROM corpus WHERE d <=> '[1]' > 1",
        "SELECT id FROM corpus WHERE d <-> '[1]' < 1",
        "SELECT id FROM corpus ORDER BY id",
    ):
        assert "corpus_ivf" not in plan(db, sql)


def test_ivf_gives_way_to_a_btree_under_a_selective_filter(db):
    vectors = clustered(10_000)
    make(db, vectors)
    db.execute("RESET enable_seqscan; ALTER TABLE t ADD COLUMN owner int; UPDATE t SET owner = id / 5")
    db.execute("CREATE INDEX t_owner ON t (owner)")
    db.execute("VACUUM ANALYZE t")
    selective = plan(db, statement(where="WHERE owner = 77"), text(vectors[0]))
    assert "t_owner" in selective and "t_ivf" not in selective
    db.execute("UPDATE t SET owner = id % 2")
    db.execute("VACUUM ANALYZE t")
    assert "Index Scan using t_ivf" in plan(db, statement(where="WHERE owner = 1"), text(vectors[0]))


def test_ivf_the_cheaper_of_two_indexes_is_chosen(db):
    vectors = clustered(4000)
    make(db, vectors)
    db.execute("CREATE INDEX t_part ON t USING ivf (d vector_cosine_ops) WHERE id < 100")
    shown = plan(db, statement(where="WHERE id < 100"), text(vectors[0]))
    assert "t_part" in shown


# --- MVCC ---


def test_ivf_changes_are_seen_as_transactions_see_them(db, connect):
    vectors = clustered(1000)
    make(db, vectors)
    use_index(db)
    new = -vectors[5]
    schema = one(db, "SELECT current_schema()")
    other = connect(db.info.dbname)
    other.execute(f"SET search_path = {schema}, public")
    use_index(other)
    with db.transaction(force_rollback=True):
        db.execute("INSERT INTO t VALUES (5000, %s)", [text(new)])
        assert find(db, new, 1) == [5000], "its own insert"
        assert find(other, new, 1) != [5000], "not committed"
        db.execute("UPDATE t SET id = 5001 WHERE id = 5000")
        assert find(db, new, 1) == [5001]
        db.execute("DELETE FROM t WHERE id = 7")
        assert 7 not in find(db, vectors[7], None)
        assert find(other, vectors[7], 1) == [7]
    assert find(db, new, 1) != [5000] and find(db, vectors[7], 1) == [7], "rolled back"
    with other.transaction():
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert find(other, new, 1) != [5000]
        db.execute("INSERT INTO t VALUES (5000, %s)", [text(new)])
        db.execute("DELETE FROM t WHERE id = 8")
        assert find(other, new, 1) != [5000] and find(other, vectors[8], 1) == [8], "the old snapshot"
    assert find(other, new, 1) == [5000] and 8 not in find(other, vectors[8], None)
    db.execute("VACUUM t")
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


def test_ivf_an_updated_vector_is_found_at_its_new_place_only(db):
    vectors = clustered(1000)
    make(db, vectors)
    use_index(db)
    db.execute("UPDATE t SET d = %s WHERE id = 3", [text(-vectors[3])])
    assert find(db, -vectors[3], 1) == [3]
    found = find(db, vectors[3], None)
    assert sorted(found) == list(range(1000)) and found[-1] == 3


def test_ivf_savepoints(db):
    vectors = clustered(300)
    make(db, vectors)
    use_index(db)
    with db.transaction():
        db.execute("INSERT INTO t VALUES (1000, %s)", [text(-vectors[0])])
        with db.transaction(force_rollback=True):
            db.execute("INSERT INTO t VALUES (1001, %s)", [text(-vectors[0])])
            assert set(find(db, -vectors[0], 2)) == {1000, 1001}
        assert find(db, -vectors[0], 2)[0] == 1000 and 1001 not in find(db, -vectors[0], None)
    assert find(db, -vectors[0], 1) == [1000]


def test_ivf_updates_of_other_columns_stay_heap_only(db):
    vectors = clustered(300)
    db.execute("CREATE TABLE t (id int, d vector(32), note int) WITH (fillfactor = 50)")
    load(db, "t", vectors)
    db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops)")
    use_index(db)
    with db.transaction():
        db.execute("UPDATE t SET note = id")
        assert one(db, "SELECT pg_stat_get_xact_tuples_hot_updated('t'::regclass)") == 300
    rows = db.execute("SELECT id, note FROM t ORDER BY d <=> %s::vector", [text(vectors[4])]).fetchall()
    assert rows[0] == (4, 4) and sorted(rows) == [(number, number) for number in range(300)]


def test_ivf_a_table_made_filled_and_indexed_in_one_transaction(db):
    vectors = clustered(500)
    with db.transaction():
        make(db, vectors)
        assert sorted(find(db, vectors[0], None)) == list(range(500))
        load(db, "t", vectors, first=500)
        assert set(find(db, vectors[9], 2)) == {9, 509}
        db.execute("TRUNCATE t")
        load(db, "t", vectors)
        assert sorted(find(db, vectors[0], None)) == list(range(500))
    assert sorted(find(db, vectors[0], None)) == list(range(500))
    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
