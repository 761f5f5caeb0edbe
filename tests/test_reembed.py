"""copy_reembed: a set goes over to another model while it is searched and written."""

import json
import os
import pathlib
import random
import threading
import time

import psycopg
import pytest
from pictures import blank, jpeg, scene

MODEL = pathlib.Path(__file__).resolve().parent.parent / "models" / "default"
ROUNDS = int(os.environ.get("COPYMATCH_CRASH_ROUNDS", "3"))
FIRST, SECOND = "copymatch-small-7", "second.model"
WRONG = (
    "SELECT count(*) FROM refs WHERE image IS NOT NULL AND ({column} IS NULL "
    "OR {column} <-> copy_embed(image, '{model}') > 1e-4)"
)
INDEX = 'CREATE INDEX CONCURRENTLY ON public.refs USING ivf ("descriptor_second_model" vector_cosine_ops)'


def add_second_model(db):
    """The default network fed with other colours: the same size, other descriptors."""
    manifest = json.loads((MODEL / "manifest.json").read_text())
    manifest |= {"name": SECOND, "parity": []}
    manifest["input"] |= {"mean": [0.1, 0.9, 0.5], "std": [1.0, 0.3, 0.6]}
    parts = [(MODEL / name).read_bytes() for name in ("model.onnx", "background.bin")]
    calibration = (MODEL / "calibration.json").read_text()
    db.execute(
        "SELECT copy_add_model(%s, %s, %s, %s, %s)", [SECOND, parts[0], json.dumps(manifest), parts[1], calibration]
    )


def fill(db, rows: int):
    """Pictures told apart by what follows the JPEG's end; few are drawn, all are embedded."""
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, note text, image bytea, padding text)")
    for seed in range(3):
        db.execute(
            "INSERT INTO refs SELECT n, NULL, %s::bytea || int4send(n), repeat('x', 900) "
            "FROM generate_series(%s::int, %s, 3) n",
            [jpeg(scene(seed), 50), seed, rows - 1],
        )
    db.execute("SELECT copy_create_set('refs', 'refs', 'id', 'image')")


@pytest.fixture
def refs(fresh_db):
    """Eighteen references in the set `refs`, and a second model."""
    add_second_model(fresh_db)
    fill(fresh_db, 18)
    return fresh_db


def test_set_goes_over_in_two_calls_with_the_index_built_in_between(refs, sqlstate):
    hints = []
    refs.add_notice_handler(lambda notice: hints.append(notice.message_hint or ""))
    refs.execute("CALL copy_reembed('refs', %s, batch => 7)", [SECOND])
    assert refs.execute("SELECT model, state FROM copymatch.progress").fetchone() == (SECOND, "indexing")
    assert refs.execute("SELECT model FROM copymatch.reference_sets").fetchone()[0] == FIRST, "not switched yet"
    statement = next(
        line.rstrip(";") for line in hints[-1].splitlines() if line.startswith("CREATE INDEX CONCURRENTLY")
    )
    assert statement.replace('"', "") == INDEX.replace('"', "").replace("vector_cosine", "public.vector_cosine")
    refs.execute(statement)
    refs.execute("CALL copy_reembed('refs')")
    assert refs.execute("SELECT model, descriptor_column FROM copymatch.reference_sets").fetchone() == (
        SECOND,
        "descriptor_second_model",
    )
    assert refs.execute(WRONG.format(column="descriptor_second_model", model=SECOND)).fetchone()[0] == 0
    row = refs.execute(
        "SELECT verdict, round(similarity::numeric, 3) FROM copy_match(%s, k => 1)", [jpeg(scene(1), 50)]
    )
    assert row.fetchone() == ("copy", 1)
    refs.execute("SELECT copy_finish_reembed('refs')")
    with sqlstate("42703"):
        refs.execute("SELECT descriptor_second_model FROM refs")
    # The new column has the old one's name.
    assert refs.execute(WRONG.format(column="descriptor", model=SECOND)).fetchone()[0] == 0
    assert refs.execute("SELECT descriptor_column, intact FROM copymatch.reference_sets").fetchone() == (
        "descriptor",
        True,
    )
    refs.execute("INSERT INTO refs (id, image) VALUES (700, %s)", [jpeg(scene(700))])
    assert refs.execute("SELECT reference, verdict FROM copy_match(%s, k => 1)", [jpeg(scene(700), 60)]).fetchone() == (
        "700", "copy",
    )  # fmt: skip
    assert refs.execute("SELECT count(*) FROM copymatch.progress").fetchone()[0] == 0
    assert (
        refs.execute("SELECT count(*) FROM pg_indexes WHERE tablename = 'refs' AND indexdef ~ 'ivf'").fetchone()[0] == 1
    )
    with sqlstate("55000"):
        refs.execute("SELECT copy_finish_reembed('refs')")


def test_one_call_does_all_where_writers_may_wait_for_the_index(refs):
    refs.execute("CALL copy_reembed('refs', %s, build_index => true)", [SECOND])
    assert refs.execute("SELECT model FROM copymatch.reference_sets").fetchone()[0] == SECOND
    assert refs.execute(
        "SELECT job, reference_set, state, done, total, percent "
        "FROM copymatch.progress").fetchone() == (
        "re-embedding", "refs", "switched", 18, 18, 100,
    )  # fmt: skip
    assert refs.execute("SELECT per_second > 0, pid FROM copymatch.progress").fetchone() == (True, None)


def test_both_columns_are_kept_current_until_the_end_and_the_switch_can_be_taken_back(refs, sqlstate):
    refs.execute("CALL copy_reembed('refs', %s)", [SECOND])
    changes = [
        ("INSERT INTO refs (id, image) VALUES (100, %s)", [jpeg(scene(100))]),
        ("UPDATE refs SET image = %s WHERE id = 1", [jpeg(scene(101))]),
        ("UPDATE refs SET image = NULL WHERE id = 2", []),
    ]

    def both_right():
        for column, model in (("descriptor", FIRST), ("descriptor_second_model", SECOND)):
            assert refs.execute(WRONG.format(column=column, model=model)).fetchone()[0] == 0
        stale = (
            "SELECT count(*) FROM refs WHERE image IS NULL AND num_nonnulls(descriptor, descriptor_second_model) > 0"
        )
        assert refs.execute(stale).fetchone()[0] == 0

    for change in changes:
        refs.execute(*change)
    both_right()
    refs.execute(INDEX)
    refs.execute("CALL copy_reembed('refs')")
    refs.execute("INSERT INTO refs (id, image) VALUES (200, %s)", [jpeg(scene(200))])
    both_right()
    assert refs.execute("SELECT copy_revert_reembed('refs')").fetchone()[0] == "reverted"
    assert refs.execute("SELECT model, descriptor_column FROM copymatch.reference_sets").fetchone() == (
        FIRST,
        "descriptor",
    )
    refs.execute("INSERT INTO refs (id, image) VALUES (300, %s)", [jpeg(scene(300))])
    both_right()
    refs.execute("CALL copy_reembed('refs')")
    assert refs.execute("SELECT model FROM copymatch.reference_sets").fetchone()[0] == SECOND
    refs.execute("SELECT copy_revert_reembed('refs')")
    assert refs.execute("SELECT copy_revert_reembed('refs')").fetchone()[0] == "dropped"
    with sqlstate("42703"):
        refs.execute("SELECT descriptor_second_model FROM refs")
    refs.execute("INSERT INTO refs (id, image) VALUES (400, %s)", [jpeg(scene(400))])
    assert refs.execute(WRONG.format(column="descriptor", model=FIRST)).fetchone()[0] == 0


def test_image_that_only_the_new_model_lacks_neither_stops_the_work_nor_refuses_rows(refs):
    refs.execute("ALTER TABLE refs DISABLE TRIGGER USER")
    refs.execute("INSERT INTO refs (id, image) VALUES (50, %s), (51, %s)", [b"no image", blank()])
    refs.execute("ALTER TABLE refs ENABLE TRIGGER USER")
    warnings = []
    refs.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    refs.execute("CALL copy_reembed('refs', %s, batch => 1, build_index => true)", [SECOND])
    assert sum("reference 50 has no descriptor" in text for text in warnings) == 1
    assert refs.execute("SELECT model FROM copymatch.reference_sets").fetchone()[0] == SECOND
    assert refs.execute("SELECT id FROM refs WHERE descriptor_second_model IS NULL ORDER BY id").fetchall() == [
        (50,),
        (51,),
    ]


def test_old_snapshot_still_writes_both_columns(refs, connect):
    writer = connect(refs.info.dbname)
    writer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM copymatch.reference_set")
    refs.execute("CALL copy_reembed('refs', %s, build_index => true)", [SECOND])
    writer.execute("INSERT INTO refs (id, image) VALUES (500, %s)", [jpeg(scene(500))])
    writer.execute("COMMIT")
    for column, model in (("descriptor", FIRST), ("descriptor_second_model", SECOND)):
        assert refs.execute(WRONG.format(column=column, model=model)).fetchone()[0] == 0


def test_searches_see_the_old_or_the_new_whole_while_sets_switch(refs, connect):
    """Each search sees every reference, its picture at similarity 1: a query of one model over the
    other's column would not."""
    refs.execute("CALL copy_reembed('refs', %s, build_index => true)", [SECOND])
    stop, failures, searches = threading.Event(), [], [0]

    def search():
        session = connect(refs.info.dbname)
        while not stop.is_set():
            for seed in range(3):
                rows = session.execute(
                    "SELECT similarity FROM copy_match(%s, k => 5)", [jpeg(scene(seed), 50)]
                ).fetchall()
                searches[0] += 1
                if len(rows) != 5 or any(similarity < 0.999 for (similarity,) in rows):
                    failures.append(rows)

    def write():
        session = connect(refs.info.dbname)
        for number in range(1000, 1100):
            if stop.is_set():
                return
            session.execute("INSERT INTO refs (id, image) VALUES (%s, %s)", [number, jpeg(scene(number % 3), 50)])

    threads = [threading.Thread(target=search), threading.Thread(target=search), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    rounds = 0
    # On a busy machine the searches take their time; the timeout of the tests ends a loop in which none comes.
    while rounds < 12 or searches[0] <= 10:
        refs.execute("SELECT copy_revert_reembed('refs')")
        refs.execute("CALL copy_reembed('refs')")
        rounds += 1
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures and searches[0] > 10
    for column, model in (("descriptor", FIRST), ("descriptor_second_model", SECOND)):
        assert refs.execute(WRONG.format(column=column, model=model)).fetchone()[0] == 0


def test_rows_moved_by_others_meanwhile_are_filled(refs, connect):
    """An UPDATE that leaves the image alone writes the row anew behind the place that the work has reached."""
    other = connect(refs.info.dbname)
    done, stop = [0], threading.Event()

    def touch():
        while not stop.is_set():
            other.execute("UPDATE refs SET note = %s, padding = repeat('y', 1000)", [str(done[0])])
            done[0] += 1

    thread = threading.Thread(target=touch)
    thread.start()
    refs.execute("CALL copy_reembed('refs', %s, batch => 1, build_index => true)", [SECOND])
    stop.set()
    thread.join()
    assert done[0] > 1
    assert refs.execute(WRONG.format(column="descriptor_second_model", model=SECOND)).fetchone()[0] == 0


def test_two_callers_share_the_work(refs, connect):
    def call():
        connect(refs.info.dbname).execute("CALL copy_reembed('refs', %s, batch => 2)", [SECOND])

    refs.execute("SELECT copymatch.start_reembed('refs', %s, 100, NULL)", [SECOND])
    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refs.execute("SELECT state, done, total FROM copymatch.progress").fetchone() == ("indexing", 18, 18)
    assert refs.execute(WRONG.format(column="descriptor_second_model", model=SECOND)).fetchone()[0] == 0


def test_partitions_are_re_embedded_and_each_gets_its_index(fresh_db):
    db = fresh_db
    add_second_model(db)
    db.execute("CREATE TABLE parts (id int, image bytea) PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)")
    db.execute("CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20)")
    db.execute("INSERT INTO parts VALUES (1, %s), (11, %s), (12, %s)", [jpeg(scene(n)) for n in (1, 11, 12)])
    db.execute("SELECT copy_create_set('parts', 'parts', 'id', 'image')")
    hints = []
    db.add_notice_handler(lambda notice: hints.append(notice.message_hint or ""))
    db.execute("CALL copy_reembed('parts', %s, batch => 1)", [SECOND])
    statements = [line.rstrip(";") for line in hints[-1].splitlines() if line.startswith("CREATE INDEX")]
    assert len(statements) == 2
    for statement in statements:
        db.execute(statement)
    db.execute("CALL copy_reembed('parts')")
    for seed in (1, 11, 12):
        row = db.execute(
            "SELECT reference, verdict FROM copy_match(%s, 'parts', 1)", [jpeg(scene(seed), 60)]
        ).fetchone()
        assert row == (str(seed), "copy")


def test_sets_that_share_a_column_go_over_one_by_one(refs, sqlstate):
    refs.execute("SELECT copy_create_set('noted', 'refs', 'id', 'image', filter => 'note IS NOT NULL')")
    refs.execute("CALL copy_reembed('refs', %s, build_index => true)", [SECOND])
    notices = []
    refs.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    refs.execute("SELECT copy_finish_reembed('refs')")
    assert any("stays" in text for text in notices)
    refs.execute("INSERT INTO refs (id, image, note) VALUES (600, %s, 'noted')", [jpeg(scene(600))])
    for name in ("refs", "noted"):
        row = refs.execute(
            "SELECT reference, verdict FROM copy_match(%s, %s, 1)", [jpeg(scene(600), 60), name]
        ).fetchone()
        assert row == ("600", "copy")


def test_wrong_calls_say_what_is_wrong(refs, sqlstate):
    refs.execute("CREATE VIEW part AS SELECT id, descriptor FROM refs")
    refs.execute("SELECT copy_create_set('part', 'part', 'id', NULL)")
    for state, call, word in [
        ("42704", "CALL copy_reembed('nix', 'second.model')", "nix"),
        ("42704", "CALL copy_reembed('refs', 'nix')", "nix"),
        ("22004", "CALL copy_reembed('refs')", "model"),
        ("22023", "CALL copy_reembed('refs', 'second.model', 0)", "batch"),
        ("55000", f"CALL copy_reembed('refs', '{FIRST}')", "already"),
        ("42704", "CALL copy_reembed('refs', 'second.model', calibration => 0)", "calibration"),
        ("55000", "CALL copy_reembed('part', 'second.model')", "images"),
        ("55000", "SELECT copy_revert_reembed('refs')", "not being re-embedded"),
        ("25001", "BEGIN; CALL copy_reembed('refs', 'second.model')", "transaction"),
    ]:
        with sqlstate(state) as error:
            refs.execute(call)
        refs.execute("ROLLBACK")
        assert word in str(error.value)
    refs.execute("CREATE ROLE stranger; GRANT SELECT ON refs TO stranger; SET ROLE stranger")
    try:
        with sqlstate("42501"):
            refs.execute("CALL copy_reembed('refs', 'second.model')")
        refs.execute("RESET ROLE")
        refs.execute("CALL copy_reembed('refs', 'second.model')")
        refs.execute("SET ROLE stranger")
        for call in (
            "CALL copy_reembed('refs')",
            "SELECT copy_revert_reembed('refs')",
            "SELECT copy_finish_reembed('refs')",
        ):
            with sqlstate("42501"):
                refs.execute(call)
        refs.execute("RESET ROLE")
        with sqlstate("2BP01"):
            refs.execute("SELECT copy_drop_model('second.model')")
    finally:
        refs.execute("RESET ROLE; DROP OWNED BY stranger; DROP ROLE stranger")


def test_killed_server_loses_nothing_and_the_next_call_goes_on(fresh_cluster):
    """kill -9 of the whole server at random moments of filling, indexing and switching, until the work is done."""
    cluster = fresh_cluster()
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        add_second_model(db)
        fill(db, 45)
    chance = random.Random(4)
    for round_number in range(ROUNDS):
        committed = [0]

        def work():
            try:
                with cluster.connect() as worker:
                    worker.execute("CALL copy_reembed('refs', %s, batch => 1, build_index => true)", [SECOND])
            except psycopg.Error:
                pass

        def write(first=10_000 * (round_number + 1), committed=committed):
            try:
                with cluster.connect() as writer:
                    for number in range(first, first + 1000):
                        writer.execute(
                            "INSERT INTO refs (id, image) VALUES (%s, %s)", [number, jpeg(scene(number), 50)]
                        )
                        committed[0] += 1
            except psycopg.Error:
                pass

        threads = [threading.Thread(target=work), threading.Thread(target=write)]
        with cluster.connect() as watcher:
            before = watcher.execute("SELECT coalesce(max(done), 0) FROM copymatch.reembedding").fetchone()[0]
            for thread in threads:
                thread.start()
            time.sleep(chance.uniform(0.3, 1.5))
            seen = watcher.execute("SELECT coalesce(max(done), 0) FROM copymatch.reembedding").fetchone()[0]
        cluster.kill()
        for thread in threads:
            thread.join()
        cluster.start()
        with cluster.connect() as db:
            after = db.execute("SELECT coalesce(max(done), 0) FROM copymatch.reembedding").fetchone()[0]
            assert before <= seen <= after, "what was committed stays"
            written = db.execute("SELECT count(*) FROM refs WHERE id >= %s", [10_000 * (round_number + 1)]).fetchone()[
                0
            ]
            assert written >= committed[0]
            model, column = db.execute("SELECT model, descriptor_column FROM copymatch.reference_sets").fetchone()
            assert db.execute(WRONG.format(column=column, model=model)).fetchone()[0] == 0, (
                "the searched column is whole"
            )
            if model == SECOND:
                # Done before the kill: back to the start for the next round.
                db.execute("SELECT copy_revert_reembed('refs'); SELECT copy_revert_reembed('refs')")
    with cluster.connect() as db:
        db.execute("CALL copy_reembed('refs', %s, build_index => true)", [SECOND])
        for column, model in (("descriptor", FIRST), ("descriptor_second_model", SECOND)):
            assert db.execute(WRONG.format(column=column, model=model)).fetchone()[0] == 0
        done, images = db.execute("SELECT done, (SELECT count(*) FROM refs) FROM copymatch.progress").fetchone()
        assert done <= images
        db.execute("SELECT copy_finish_reembed('refs')")
