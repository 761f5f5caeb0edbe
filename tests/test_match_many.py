"""copy_match_table: many rows at a time find what each finds alone, and read the index's lists once for many."""

import re
import threading

import numpy as np
import psycopg
import pytest

UPLOADS = 150
ROWS = 4000
WHAT = "reference, rank, similarity, background, score, probability, verdict, explanation"


def text(vector: np.ndarray) -> str:
    return "[" + ",".join(f"{x:.6g}" for x in vector) + "]"


def vectors(seed: int, count: int, near: np.ndarray | None = None) -> np.ndarray:
    """Unit vectors in clusters, or those that lie near to given ones."""
    rng = np.random.default_rng(seed)
    if near is None:
        centres = np.random.default_rng(1).normal(size=(60, 256))
        found = centres[rng.integers(0, 60, count)] + 0.6 * rng.normal(size=(count, 256))
    else:
        found = near[rng.integers(0, len(near), count)] + 0.02 * rng.normal(size=(count, 256))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def copy_in(db, table: str, rows) -> None:
    with db.cursor().copy(f"COPY {table} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


@pytest.fixture
def many(db):
    """4,000 references in the set `many`, 150 uploads, half of which are near to references."""
    references = vectors(2, ROWS)
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, kind int, descriptor vector(256))")
    db.execute("CREATE TABLE uploads (id int PRIMARY KEY, descriptor vector)")
    copy_in(db, "refs (id, kind, descriptor)", ((at, at % 10, text(row)) for at, row in enumerate(references)))
    uploads = np.concatenate([vectors(3, UPLOADS // 2, references), vectors(4, UPLOADS // 2)])
    copy_in(db, "uploads", ((at, text(row)) for at, row in enumerate(uploads)))
    db.execute("SELECT copy_create_set('many', 'refs', 'id', NULL); ANALYZE refs")
    db.execute("SET enable_seqscan = off")
    yield db
    db.execute("RESET ROLE; DELETE FROM copymatch.reference_group; DELETE FROM copymatch.reference_set")


def together(db, k, searched="many") -> list:
    sql = f"SELECT upload, {WHAT} FROM copy_match_table('uploads', 'id', 'descriptor', %s, %s) ORDER BY 1, rank"
    return db.execute(sql, [searched, k]).fetchall()


def one_by_one(db, k, searched="many") -> list:
    sql = f"SELECT u.id::text, {WHAT.replace('reference,', 'm.reference,', 1)} FROM uploads u CROSS JOIN LATERAL " \
          "copy_match_descriptor(u.descriptor, %s, %s) m ORDER BY 1, rank"  # fmt: skip
    return db.execute(sql, [searched, k]).fetchall()


def buffers(db, sql: str) -> int:
    plan = "\n".join(row[0] for row in db.execute(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) {sql}"))
    return sum(int(n) for n in re.findall(r"Buffers: shared hit=(\d+)", plan)[:1])


@pytest.mark.parametrize("k", [1, 10, 40])
def test_many_rows_find_what_each_finds_alone(many, k):
    found = together(many, k)
    assert len(found) == UPLOADS * k
    assert found == one_by_one(many, k)


def test_lists_are_read_once_for_many_rows(many):
    many.execute("SELECT count(*) FROM copy_match_table('uploads', 'id', 'descriptor', 'many', 10)")
    shared = buffers(many, "SELECT count(*) FROM copy_match_table('uploads', 'id', 'descriptor', 'many', 10)")
    alone = buffers(
        many, "SELECT count(*) FROM uploads u CROSS JOIN LATERAL copy_match_descriptor(u.descriptor, 'many', 10)"
    )
    assert 0 < 2 * shared < alone


def test_little_memory_changes_no_answer(many):
    wanted = one_by_one(many, 10)
    for memory in ["1MB", "2MB"]:
        many.execute(f"SET maintenance_work_mem = '{memory}'")
        assert together(many, 10) == wanted


def test_rows_that_are_not_there_or_not_meant_are_not_found(many):
    many.execute("DELETE FROM refs WHERE id % 3 = 0")
    many.execute("UPDATE refs SET descriptor = (SELECT descriptor FROM refs WHERE id = 1) WHERE id % 7 = 0")
    many.execute("UPDATE uploads SET descriptor = NULL WHERE id = 5")
    assert together(many, 10) == one_by_one(many, 10)
    many.execute("SELECT copy_alter_set('many', filter => 'kind < 4')")
    filtered = together(many, 10)
    assert filtered == one_by_one(many, 10)
    assert len(filtered) == 10 * (UPLOADS - 1) and all(int(row[1]) % 10 < 4 and int(row[1]) % 3 for row in filtered)
    gone = filtered[0][1]
    many.execute("SELECT copy_disable_reference('many', %s)", [gone])
    without = together(many, 10)
    assert without == one_by_one(many, 10) and gone not in {row[1] for row in without}
    many.execute("TRUNCATE refs")
    assert together(many, 10) == []


def test_partitions_and_views_give_what_each_row_finds_alone(many):
    many.execute("CREATE TABLE parted (id int, kind int, descriptor vector(256), PRIMARY KEY (id, kind)) "
                 "PARTITION BY RANGE (kind)")  # fmt: skip
    many.execute("CREATE TABLE low PARTITION OF parted FOR VALUES FROM (0) TO (5)")
    many.execute("CREATE TABLE high PARTITION OF parted FOR VALUES FROM (5) TO (10)")
    many.execute("INSERT INTO parted SELECT * FROM refs")
    many.execute("SELECT copy_create_set('parted', 'parted', 'id, kind', NULL); ANALYZE parted")
    assert together(many, 10, "parted") == one_by_one(many, 10, "parted")
    many.execute("CREATE VIEW seen AS SELECT * FROM refs")
    many.execute("SELECT copy_create_set('seen', 'seen', 'id', NULL)")
    assert together(many, 10, "seen") == one_by_one(many, 10, "seen")


def test_rights_and_policies_hold(many, sqlstate):
    schema = many.execute("SELECT current_schema()").fetchone()[0]
    many.execute("DROP ROLE IF EXISTS many_reader; CREATE ROLE many_reader")
    try:
        many.execute(f"GRANT USAGE ON SCHEMA {schema} TO many_reader; GRANT SELECT ON uploads TO many_reader")
        many.execute("SET ROLE many_reader")
        with sqlstate("42501"):
            together(many, 3)
        many.execute("RESET ROLE; GRANT SELECT (id, descriptor) ON refs TO many_reader")
        many.execute("SET ROLE many_reader")
        assert len(together(many, 3)) == 3 * UPLOADS
        many.execute("RESET ROLE; ALTER TABLE refs ENABLE ROW LEVEL SECURITY")
        many.execute("CREATE POLICY part ON refs TO many_reader USING (id % 20 = 1)")
        many.execute("SET ROLE many_reader")
        seen = together(many, 3)
        assert seen == one_by_one(many, 3)
        assert len(seen) == 3 * UPLOADS and all(int(row[1]) % 20 == 1 for row in seen)
    finally:
        many.execute("RESET ROLE; DROP OWNED BY many_reader; DROP ROLE many_reader")


def test_a_wrong_descriptor_among_many_gives_the_error_that_it_gives_alone(many):
    def refused(vector: str) -> list[psycopg.errors.Diagnostic]:
        many.execute("UPDATE uploads SET descriptor = %s WHERE id = 77", [vector])
        told = []
        for ask in (together, one_by_one):
            with pytest.raises(psycopg.Error) as error:
                ask(many, 3)
            told.append((error.value.sqlstate, error.value.diag.message_primary, error.value.diag.context))
        return told

    for vector in ["[1,2,3]", text(np.zeros(256))]:
        table, alone = refused(vector)
        assert table == alone


def test_a_search_of_many_can_be_cancelled_and_the_session_goes_on(many, sqlstate):
    many.execute("CREATE VIEW endless AS SELECT u.id, u.descriptor FROM uploads u, generate_series(1, 100000) n")
    many.execute("SET statement_timeout = '400ms'")
    with sqlstate("57014"):
        many.execute("SELECT count(*) FROM copy_match_table('endless', 'id', 'descriptor', 'many', 10)")
    many.execute("RESET statement_timeout")
    assert together(many, 1) == one_by_one(many, 1)


def test_what_others_write_meanwhile_is_not_seen_and_nothing_is_lost(many, connect):
    schema = many.execute("SELECT current_schema()").fetchone()[0]
    kept = {str(at) for at in range(ROWS) if at % 4}
    many.execute("CREATE TABLE own AS SELECT id, descriptor FROM refs WHERE id % 4 <> 0 LIMIT 200")
    stop, failed = threading.Event(), []

    def write() -> None:
        try:
            with connect(many.info.dbname) as db:
                db.execute(f"SET search_path = {schema}, public")
                last = ROWS
                while not stop.is_set():
                    db.execute("DELETE FROM refs WHERE id %% 4 = 0 AND id < %s", [last])
                    db.execute("INSERT INTO refs SELECT %s + 4 * n, 0, r.descriptor FROM generate_series(0, 400) n "
                               "JOIN refs r ON r.id = 1 + 4 * n", [last])  # fmt: skip
                    last += 4 * 401
                    db.execute("VACUUM refs")
        except Exception as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(6):
            with many.transaction():
                many.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                sql = "SELECT upload, reference, rank FROM copy_match_table('own', 'id', 'descriptor', 'many', 4) " \
                      "ORDER BY 1, 3"  # fmt: skip
                found = many.execute(sql).fetchall()
                there = {str(row[0]) for row in many.execute("SELECT id FROM refs")}
            assert {reference for _, reference, _ in found} <= there
            # Every upload is a reference that stays: it finds itself, or one of the same descriptor.
            firsts = {upload: {r for u, r, _ in found if u == upload} for upload, _, _ in found}
            assert len(firsts) == 200 and all(upload in of or len(of - kept) > 0 for upload, of in firsts.items())
            assert sum(upload in of for upload, of in firsts.items()) >= 195
    finally:
        stop.set()
        writer.join()
    assert failed == []
