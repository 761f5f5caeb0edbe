"""The queue's workers: from shared_preload_libraries and on demand; woken, stopped, killed; nothing
lost, nothing doubled."""

import os
import random
import signal
import threading
import time

import psycopg
import pytest
from pictures import jpeg, scene

ROUNDS = int(os.environ.get("COPYMATCH_CRASH_ROUNDS", "3"))
WORKERS = (
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'copymatch queue worker' AND datname = current_database()"
)


def prepare(db, references: int = 6):
    """References 1 to 6 and an empty table of uploads with an asynchronous trigger."""
    db.execute("CREATE TABLE refs (id serial PRIMARY KEY, image bytea)")
    for seed in range(1, references + 1):
        db.execute("INSERT INTO refs (image) VALUES (%s)", [jpeg(scene(seed))])
    db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    db.execute("CREATE TABLE uploads (id serial PRIMARY KEY, image bytea)")
    db.execute(
        "CREATE TRIGGER later AFTER INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
        "'licensed', 'mode=async', 'k=1')"
    )


def wait_for(db, query: str, expected, seconds: float = 30):
    """Polls until the query's first value is the expected one."""
    deadline = time.monotonic() + seconds
    while (found := db.execute(query).fetchone()[0]) != expected:
        assert time.monotonic() < deadline, f"{query}: {found}, not {expected}"
        time.sleep(0.02)


@pytest.fixture
def preloaded(fresh_cluster):
    """A cluster with a worker for database postgres that would sleep for an hour if nobody woke it."""
    cluster = fresh_cluster(
        shared_preload_libraries="copymatch",
        **{"copymatch.queue_databases": "postgres", "copymatch.queue_naptime": "1h"},
    )
    return cluster


def test_preloaded_worker_is_woken_by_the_commit_survives_a_crash_and_ends_with_the_server(preloaded):
    with preloaded.connect() as db:
        wait_for(db, f"SELECT count(*) FROM ({WORKERS}) w", 1)
        db.execute("CREATE EXTENSION copymatch")
        prepare(db)
        with db.transaction():
            db.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(2), 60)])
            assert db.execute("SELECT count(*) FROM copymatch.finding").fetchone()[0] == 0
        wait_for(db, "SELECT string_agg(reference, ',') FROM copymatch.finding", "2")
        pid = db.execute(WORKERS).fetchone()[0]
        # SIGTERM from a person: it ends, and the server starts it again.
        db.execute("SELECT pg_terminate_backend(%s)", [pid])
        wait_for(db, f"SELECT count(*) FROM ({WORKERS} AND pid <> {pid}) w", 1)
        pid = db.execute(WORKERS).fetchone()[0]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while True:
        try:
            with preloaded.connect() as db:
                if db.execute(f"SELECT count(*) FROM ({WORKERS} AND pid <> {pid}) w").fetchone()[0] == 1:
                    db.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(3), 60)])
                    wait_for(db, "SELECT string_agg(reference, ',' ORDER BY id) FROM copymatch.finding", "2,3")
                    break
        except psycopg.OperationalError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.1)
    preloaded.stop()  # a fast shutdown, which fails where a worker does not end


def test_worker_on_demand_works_until_it_is_ended_and_ends_promptly(server, fresh_db):
    prepare(fresh_db)
    pid = fresh_db.execute("SELECT copy_start_worker()").fetchone()[0]
    wait_for(fresh_db, WORKERS.replace("pid", "min(pid)", 1), pid)
    fresh_db.execute("INSERT INTO uploads (image) SELECT %s FROM generate_series(1, 20)", [jpeg(scene(1), 60)])
    wait_for(fresh_db, "SELECT count(*) FROM copymatch.finding", 20)
    fresh_db.execute("INSERT INTO uploads (image) SELECT %s FROM generate_series(1, 150)", [jpeg(scene(1), 60)])
    wait_for(fresh_db, "SELECT count(*) > 20 FROM copymatch.finding", True)
    fresh_db.execute("SELECT pg_terminate_backend(%s)", [pid])
    wait_for(fresh_db, f"SELECT count(*) FROM ({WORKERS}) w", 0)
    assert fresh_db.execute("SELECT count(*) FROM copymatch.queue WHERE state = 'failed'").fetchone()[0] == 0
    # What it left behind becomes due again and is done by whoever comes.
    fresh_db.execute("UPDATE copymatch.queue SET next_try = now()")
    fresh_db.execute("CALL copy_process_queue()")
    assert fresh_db.execute("SELECT count(*), count(DISTINCT upload) FROM copymatch.finding").fetchone() == (170, 170)


def test_worker_waits_for_the_extension_and_outlives_it(new_db, connect):
    db = connect(new_db())
    db.execute("SELECT copy_start_worker()")
    db.execute("DROP EXTENSION copymatch")
    db.execute("CREATE EXTENSION copymatch")
    prepare(db)
    db.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(4), 60)])
    wait_for(db, "SELECT string_agg(reference, ',') FROM copymatch.finding", "4")
    assert len(db.execute(WORKERS).fetchall()) == 1, "the same one, or one started anew after an error in between"


def test_several_sessions_share_the_queue(fresh_db, connect):
    prepare(fresh_db)
    fresh_db.execute("INSERT INTO uploads (image) SELECT %s FROM generate_series(1, 60)", [jpeg(scene(1), 60)])
    errors = []

    def work():
        try:
            connect(fresh_db.info.dbname).execute("CALL copy_process_queue(4)")
        except psycopg.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert fresh_db.execute("SELECT count(*), count(DISTINCT upload) FROM copymatch.finding").fetchone() == (60, 60)
    assert fresh_db.execute("SELECT count(*) FROM copymatch.queue").fetchone()[0] == 0


def test_lock_that_passes_by_does_not_put_off_a_claimed_entry(fresh_db, connect):
    """As another session's search for entries takes it, for a moment, on an entry that was due
    when the search began."""
    prepare(fresh_db)
    fresh_db.execute("INSERT INTO uploads (image) SELECT %s FROM generate_series(1, 3)", [jpeg(scene(1), 60)])
    other = connect(fresh_db.info.dbname)
    second = (
        "SELECT id FROM copymatch.queue WHERE id = (SELECT id FROM copymatch.queue ORDER BY id OFFSET 1 "
        "LIMIT 1) FOR UPDATE"
    )
    # The session that works notices the claim's commit no sooner than the other: the lock is taken in
    # between by looking for it.
    claimed = threading.Event()

    def hold(seconds):
        watcher = connect(fresh_db.info.dbname)
        while not watcher.execute("SELECT count(*) FROM copymatch.queue WHERE attempts > 0").fetchone()[0]:
            pass
        with watcher.transaction():
            rows = watcher.execute(second + " SKIP LOCKED").fetchall()
            claimed.set()
            time.sleep(seconds)
        assert len(rows) <= 1

    thread = threading.Thread(target=hold, args=[0.03])
    thread.start()
    fresh_db.execute("CALL copy_process_queue(4, 1)")
    thread.join()
    assert claimed.is_set()
    assert fresh_db.execute("SELECT count(*) FROM copymatch.queue").fetchone()[0] == 0
    # One that stays is left to whoever holds it.
    fresh_db.execute("INSERT INTO uploads (image) SELECT %s FROM generate_series(1, 3)", [jpeg(scene(1), 60)])
    other.execute("BEGIN")
    assert len(other.execute(second).fetchall()) == 1
    fresh_db.execute("CALL copy_process_queue(4)")
    assert fresh_db.execute("SELECT count(*), max(attempts) FROM copymatch.queue").fetchone() == (1, 0)
    other.execute("COMMIT")
    fresh_db.execute("CALL copy_process_queue(4)")
    assert fresh_db.execute("SELECT count(DISTINCT upload) FROM copymatch.finding").fetchone()[0] == 6


def test_batches_are_committed_one_by_one_and_may_be_limited(fresh_db, sqlstate):
    prepare(fresh_db)
    fresh_db.execute("INSERT INTO uploads (image) SELECT %s FROM generate_series(1, 10)", [jpeg(scene(1), 60)])
    fresh_db.execute("CALL copy_process_queue(batch => 3, max_batches => 2)")
    assert fresh_db.execute("SELECT count(*) FROM copymatch.finding").fetchone()[0] == 6
    for arguments in ("0", "32, 0"):
        with sqlstate("22023") as error:
            fresh_db.execute(f"CALL copy_process_queue({arguments})")
        assert error.value.diag.message_hint


def test_statement_timeout_ends_the_work_and_loses_nothing(fresh_db, sqlstate):
    prepare(fresh_db)
    fresh_db.execute("INSERT INTO uploads (image) SELECT %s FROM generate_series(1, 80)", [jpeg(scene(1), 60)])
    fresh_db.execute("SET statement_timeout = '400ms'")
    with sqlstate("57014"):
        fresh_db.execute("CALL copy_process_queue(80)")
    fresh_db.execute("RESET statement_timeout; UPDATE copymatch.queue SET next_try = now(), attempts = 0")
    assert fresh_db.execute("SELECT count(*) FROM copymatch.queue WHERE state = 'waiting'").fetchone()[0] == 80
    fresh_db.execute("CALL copy_process_queue()")
    assert fresh_db.execute("SELECT count(DISTINCT upload) FROM copymatch.finding").fetchone()[0] == 80


def test_server_killed_in_the_middle_nothing_lost_nothing_doubled(fresh_cluster):
    """Three times here; `make bench-flagging ARGS="--crash 20"` does it twenty times."""
    cluster = fresh_cluster(**{"copymatch.queue_retry_delay": "100ms"})
    rng = random.Random(4)
    uploads = 40 * ROUNDS
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        prepare(db)
        db.execute("INSERT INTO uploads (image) SELECT %s FROM generate_series(1, %s)", [jpeg(scene(1), 60), uploads])
        db.execute("INSERT INTO uploads (image) VALUES ('no image')")
    for _ in range(ROUNDS):
        with cluster.connect() as db:
            before = db.execute("SELECT count(*) FROM copymatch.finding").fetchone()[0]
            db.execute("UPDATE copymatch.queue SET next_try = now() WHERE state = 'waiting'")
        with cluster.connect() as worker:

            def work(worker=worker):
                with pytest.raises(psycopg.OperationalError):
                    worker.execute("CALL copy_process_queue(8)")

            thread = threading.Thread(target=work)
            thread.start()
            with cluster.connect() as watcher:
                while watcher.execute("SELECT count(*) FROM copymatch.finding").fetchone()[0] < before + 8:
                    assert thread.is_alive()
                    time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.15))
            cluster.kill()
            thread.join()
        cluster.start()
    with cluster.connect() as db:
        db.execute("UPDATE copymatch.queue SET next_try = now() WHERE state = 'waiting'")
        db.execute("CALL copy_process_queue()")
        assert db.execute("SELECT count(*), count(DISTINCT upload) FROM copymatch.finding").fetchone() == (
            uploads,
            uploads,
        )
        assert db.execute("SELECT key, state FROM copymatch.queue").fetchall() == [([str(uploads + 1)], "failed")]
        assert db.execute("SELECT sum(findings)::int FROM copymatch.report_daily").fetchone()[0] == uploads
