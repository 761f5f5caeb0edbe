"""What takes minutes: it commits as it goes, says how far it is, refuses before it works where it cannot, and holds
no lock while it embeds."""

import threading
import time

import psycopg
import pytest
from pictures import blank, jpeg, scene
from test_reembed import SECOND, add_second_model

#: Pictures that take long enough to embed for another session to come in between.
LARGE = (1600, 1200)


def references(db, count: int, size=(160, 120), **options) -> None:
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    for number in range(count):
        db.execute("INSERT INTO refs VALUES (%s, %s || int4send(%s))", [number, jpeg(scene(number % 7, *size)), number])
    given = "".join(f", {name} => {value}" for name, value in options.items())
    db.execute(f"SELECT copy_create_set('refs', 'refs', 'id', 'image'{given})")


def in_background(dsn: str, statement: str):
    """Runs a statement in a session of its own; gives the thread and a list that gets its error, if it has one."""
    errors: list[Exception] = []

    def run():
        try:
            with psycopg.connect(dsn, autocommit=True) as db:
                db.execute(statement)
        except psycopg.Error as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def test_fill_commits_by_time_and_is_seen(fresh_db, server):
    """Images that lie beside the table (TOAST) are many to a page: pages alone would be one batch."""
    references(fresh_db, 0, embed="false")
    picture = jpeg(scene(1, 2400, 1800))
    fresh_db.execute("ALTER TABLE refs DISABLE TRIGGER USER")
    fresh_db.execute("INSERT INTO refs SELECT n, %s || int4send(n) FROM generate_series(1, 300) n", [picture])
    fresh_db.execute("ALTER TABLE refs ENABLE TRIGGER USER")
    thread, _ = in_background(server.dsn(fresh_db.info.dbname), "CALL copy_fill_set('refs')")
    deadline = time.monotonic() + 60
    seen = None
    while seen is None and time.monotonic() < deadline:
        seen = fresh_db.execute(
            "SELECT job, reference_set, state, total, done, percent, per_second > 0, remaining, pid "
            "FROM copymatch.progress WHERE done > 0"
        ).fetchone()
        time.sleep(0.05)
    committed = fresh_db.execute("SELECT count(descriptor) FROM refs").fetchone()[0]
    assert seen[:4] == ("filling", "refs", "filling", 300) and seen[6] and seen[8] is not None, seen
    assert 0 < committed < 300
    fresh_db.execute("SELECT pg_terminate_backend(%s)", [seen[8]])
    thread.join()
    kept = fresh_db.execute("SELECT count(descriptor) FROM refs").fetchone()[0]
    assert kept >= committed
    assert fresh_db.execute("SELECT done > 0, pid FROM copymatch.progress").fetchone() == (True, None)
    fresh_db.execute("DELETE FROM refs WHERE descriptor IS NULL AND id > %s", [kept + 10])
    fresh_db.execute("CALL copy_fill_set('refs')")
    assert fresh_db.execute("SELECT count(*) - count(descriptor) FROM refs").fetchone()[0] == 0
    assert fresh_db.execute("SELECT count(*) FROM copymatch.progress").fetchone()[0] == 0


def test_image_that_is_changed_while_its_batch_is_embedded_keeps_its_own_descriptor(fresh_db, server, connect):
    """A batch is read first and written when all of it is embedded: what others wrote between is theirs."""
    references(fresh_db, 6, embed="false")
    other = connect(fresh_db.info.dbname)
    other.execute("BEGIN")
    other.execute("UPDATE refs SET image = %s WHERE id = 2", [jpeg(scene(11, 160, 120))])
    other.execute("DELETE FROM refs WHERE id = 4")
    thread, errors = in_background(server.dsn(fresh_db.info.dbname), "CALL copy_fill_set('refs')")
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 60
    while fresh_db.execute(waits).fetchone()[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    other.execute("COMMIT")
    thread.join()
    assert not errors, errors
    own = "SELECT id, 1 - (descriptor <=> copy_embed(image)) FROM refs ORDER BY id"
    found = fresh_db.execute(own).fetchall()
    assert [row[0] for row in found] == [0, 1, 2, 3, 5]
    assert all(similarity > 0.999 for _, similarity in found), found


def test_a_fill_that_fails_leaves_nobody_at_work(fresh_db):
    references(fresh_db, 3, embed="false")
    fresh_db.execute(
        "DO $$ BEGIN CALL copy_fill_set('refs'); EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%', SQLERRM; END $$"
    )
    held = "SELECT count(*) FROM pg_locks WHERE relation = 'copymatch.filling'::regclass"
    assert fresh_db.execute(held).fetchone()[0] == 0


def test_re_embedding_commits_by_time_however_large_its_batch_is(fresh_db, server):
    add_second_model(fresh_db)
    references(fresh_db, 0)
    picture = jpeg(scene(1, 2400, 1800))
    fresh_db.execute("ALTER TABLE refs DISABLE TRIGGER USER")
    fresh_db.execute("INSERT INTO refs SELECT n, %s || int4send(n) FROM generate_series(1, 80) n", [picture])
    fresh_db.execute("ALTER TABLE refs ENABLE TRIGGER USER")
    call = f"CALL copy_reembed('refs', '{SECOND}', batch => 100000)"
    thread, _ = in_background(server.dsn(fresh_db.info.dbname), call)
    deadline = time.monotonic() + 60
    seen = None
    while seen is None and time.monotonic() < deadline:
        seen = fresh_db.execute("SELECT done, total, pid FROM copymatch.progress WHERE done > 0").fetchone()
        time.sleep(0.05)
    committed = fresh_db.execute("SELECT count(descriptor_second_model) FROM refs").fetchone()[0]
    assert 0 < committed < 80 and seen[1] == 80 and seen[2] is not None, (committed, seen)
    fresh_db.execute("SELECT pg_terminate_backend(%s)", [seen[2]])
    thread.join()
    kept = fresh_db.execute("SELECT count(descriptor_second_model) FROM refs").fetchone()[0]
    assert committed <= kept < 80
    fresh_db.execute("DELETE FROM refs WHERE descriptor_second_model IS NULL AND id > %s", [kept + 3])
    fresh_db.execute(call)
    assert fresh_db.execute("SELECT count(*) - count(descriptor_second_model) FROM refs").fetchone()[0] == 0


def test_fill_says_at_its_end_what_was_done_and_what_is_missing(fresh_db):
    references(fresh_db, 5, embed="false")
    fresh_db.execute("ALTER TABLE refs DISABLE TRIGGER USER")
    fresh_db.execute("UPDATE refs SET image = %s WHERE id = 3", [blank()])
    fresh_db.execute("ALTER TABLE refs ENABLE TRIGGER USER")
    told = []
    fresh_db.add_notice_handler(
        lambda notice: told.append((notice.severity_nonlocalized, notice.message_primary, notice.message_hint))
    )
    fresh_db.execute("CALL copy_fill_set('refs')")
    severity, message, hint = told[-1]
    assert severity == "NOTICE"
    assert message == (
        'reference set "refs": 4 images embedded, 1 skipped, 1 without a descriptor or sketch; the column has no '
        "index yet"
    )
    assert "CREATE INDEX CONCURRENTLY ON public.refs USING ivf (descriptor public.vector_cosine_ops)" in hint
    assert any("reference 3 has no descriptor" in message for _, message, _ in told[:-1])
    # What cannot be embedded is not written: a second call finds it where it was.
    place = fresh_db.execute("SELECT ctid::text FROM refs WHERE id = 3").fetchone()
    fresh_db.execute("CALL copy_fill_set('refs')")
    assert told[-1][1].startswith('reference set "refs": 0 images embedded, 1 skipped, 1 without')
    assert fresh_db.execute("SELECT ctid::text FROM refs WHERE id = 3").fetchone() == place


@pytest.mark.parametrize(
    "call", ["copy_fill_set('refs')", "copy_reembed('refs', 'no such model')", "copy_process_queue()"]
)
def test_what_commits_is_refused_in_a_transaction_block_before_it_works(fresh_db, sqlstate, call):
    references(fresh_db, 2, embed="false")
    told = []
    fresh_db.add_notice_handler(lambda notice: told.append(notice.message_primary))
    fresh_db.execute("BEGIN")
    with sqlstate("25001") as error:
        fresh_db.execute(f"CALL {call}")
    fresh_db.execute("ROLLBACK")
    assert "autocommit" in error.value.diag.message_hint
    assert told == [], "nothing was embedded"


def alter_while(db, dsn: str, statement: str, tables: list[str]) -> float:
    """Alters tables while the statement embeds: the longest wait."""
    thread, errors = in_background(dsn, statement)
    waits = []
    time.sleep(0.5)
    while thread.is_alive() and len(waits) < 3 * len(tables):
        for table in tables:
            start = time.monotonic()
            db.execute(f"ALTER TABLE {table} ALTER COLUMN image SET STATISTICS {100 + len(waits)}")
            waits.append(time.monotonic() - start)
        time.sleep(0.2)
    alive = thread.is_alive()
    thread.join()
    assert not errors, errors
    assert alive, f"{statement} was over too soon to tell"
    return max(waits)


@pytest.mark.timeout(400)  # on a busy machine
@pytest.mark.parametrize(
    "statement",
    [
        "SELECT copy_calibrate('refs', labels => 'labels', copy_precision => 0.6, review_precision => 0.5, "
        "confidence => 0.5)",
        "SELECT copy_calibrate('refs', source => 'edits', copies => 60, unrelated => 40, copy_precision => 0.6, "
        "review_precision => 0.5, confidence => 0.5)",
        "SELECT count(*) FROM copy_evaluate('labels', 'refs')",
    ],
    ids=["labels", "edits", "evaluate"],
)
def test_no_lock_is_held_while_images_are_embedded(fresh_db, server, statement):
    references(fresh_db, 45, LARGE)
    fresh_db.execute("CREATE TABLE labels (reference text, is_copy boolean, image bytea)")
    fresh_db.execute(
        "INSERT INTO labels SELECT r.id::text, n = 0, CASE n WHEN 0 THEN r.image ELSE (SELECT o.image FROM refs o "
        "WHERE o.id = (r.id + n) % 45) END"
        " FROM refs r, generate_series(0, 2) n"
    )
    longest = alter_while(fresh_db, server.dsn(fresh_db.info.dbname), statement, ["refs", "labels"])
    # One search or one reading of the tables at most: far less than the embedding of so many pictures.
    assert longest < 2.5, longest


def test_calibration_embeds_each_label_once_whatever_the_planner_thinks(fresh_db):
    references(fresh_db, 45)
    fresh_db.execute("SELECT copy_disable_reference('refs', '44')")
    fresh_db.execute("CREATE TABLE labels (reference text, is_copy boolean, image bytea)")
    fresh_db.execute(
        "INSERT INTO labels SELECT r.id::text, n = 0, CASE n WHEN 0 THEN r.image ELSE (SELECT o.image FROM refs o "
        "WHERE o.id = (r.id + 1) % 44) END"
        " FROM refs r, generate_series(0, 1) n"
    )
    fresh_db.execute(
        "SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off; SET enable_hashagg = off"
    )
    fresh_db.execute("ANALYZE refs; ANALYZE labels")
    start = time.monotonic()
    fresh_db.execute("SELECT copy_embed(image) FROM labels")
    once = time.monotonic() - start
    start = time.monotonic()
    fresh_db.execute(
        "SELECT copy_calibrate('refs', labels => 'labels', copy_precision => 0.6, review_precision => 0.5, "
        "confidence => 0.5)"
    )
    took = time.monotonic() - start
    assert took < 4 * once + 2, (took, once)
