"""Under pressure: interrupts of every kind are heeded while a call of ours runs, and a backend that is short
of memory fails alone."""

import os
import resource
import signal
import subprocess
import threading
import time

import psycopg
import pytest
from conftest import MAJOR
from pictures import jpeg, png, scene

MEGABYTE = 1 << 20
#: Pictures that keep a backend busy for some seconds.
MANY = 2400


@pytest.fixture(scope="module")
def busy(server, _module_db):
    """The name of a database with pictures enough to be busy with."""
    with server.connect(_module_db) as db:
        db.execute("CREATE TABLE photo (image bytea)")
        for seed in range(8):
            db.execute("INSERT INTO photo VALUES (%s)", [jpeg(scene(seed, 640, 480))])
    return _module_db


BATCH = f"SELECT cardinality(copy_embed_batch(array_agg(image))) FROM photo, generate_series(1, {MANY // 8})"


class Call(threading.Thread):
    """A statement in a session of its own, under way."""

    def __init__(self, db, sql: str):
        super().__init__(daemon=True)
        self.db, self.sql, self.error, self.ended = db, sql, None, None
        self.start()

    def run(self):
        try:
            self.db.execute(self.sql)
        except psycopg.Error as error:
            self.error = error
        self.ended = time.monotonic()


def test_drop_database_does_not_wait_for_a_running_batch(busy, connect):
    with connect(busy) as db:
        db.execute("SELECT copy_embed(image) FROM photo LIMIT 1")
        call = Call(db, BATCH)
        time.sleep(0.5)
        with connect(busy) as admin:
            admin.execute("CREATE DATABASE beside_pressure")
            drop = Call(admin, "DROP DATABASE beside_pressure")
            drop.join(60)
            assert call.is_alive(), "DROP DATABASE waited for the batch"
        db.cancel()
        call.join(10)
        assert drop.error is None and call.error.sqlstate == "57014"


@pytest.mark.skipif(MAJOR == "14", reason="14 has signal barriers, and nothing that sends one")
def test_cancelled_call_leaves_no_signal_barrier_behind(busy, connect):
    """The barrier and the cancel come between two polls, since the backend is stopped: both are
    processed, the barrier first."""
    with connect(busy) as db, connect(busy) as admin, connect(busy) as watcher:
        db.execute("SELECT copy_embed(image) FROM photo LIMIT 1")
        admin.execute("CREATE DATABASE beside_cancel")
        pid = db.info.backend_pid
        call = Call(db, BATCH)
        # The images are gathered, the first of them embedded.
        time.sleep(3)
        os.kill(pid, signal.SIGSTOP)
        try:
            drop = Call(admin, "DROP DATABASE beside_cancel")
            waiting = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'ProcSignalBarrier'"
            deadline = time.monotonic() + 60
            while not watcher.execute(waiting, [admin.info.backend_pid]).fetchone():
                assert time.monotonic() < deadline and drop.is_alive(), "no barrier came"
                time.sleep(0.05)
            db.cancel()
            time.sleep(0.5)
        finally:
            os.kill(pid, signal.SIGCONT)
        call.join(20)
        assert call.error is not None and call.error.sqlstate == "57014"
        drop.join(10)
        waits = drop.is_alive()
        if waits:
            db.close()
            drop.join(10)
        assert not waits and drop.error is None


def test_session_whose_client_is_gone_ends_in_the_midst_of_a_batch(busy, connect, server):
    with connect(busy) as admin:
        db = connect(busy)
        db.execute("SET client_connection_check_interval = '200ms'")
        db.execute("SELECT copy_embed(image) FROM photo LIMIT 1")
        pid = db.info.backend_pid
        # Sent, and not waited for: the socket is closed under it.
        db.pgconn.send_query(BATCH.encode())
        db.pgconn.flush()
        time.sleep(0.5)
        db.pgconn.finish()
        for _ in range(40):
            if not admin.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone():
                break
            time.sleep(0.1)
        else:
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])
            pytest.fail("the backend went on for 4 s without its client")


@pytest.mark.timeout(180)
def test_standby_replays_on_after_a_reader_hit_its_timeout(fresh_cluster):
    primary = fresh_cluster(fsync="off")
    with primary.connect() as db:
        db.execute("CREATE EXTENSION copymatch; CREATE TABLE photo (image bytea)")
        for seed in range(8):
            db.execute("INSERT INTO photo VALUES (%s)", [jpeg(scene(seed, 640, 480))])
        replica = primary.replica(fsync="off", max_standby_streaming_delay="60s")
        primary.wait_for_replica(replica)
        with replica.connect() as standby:
            standby.execute("SELECT copy_embed(image) FROM photo LIMIT 1")
            standby.execute("SET statement_timeout = '1500ms'")
            db.execute("CREATE DATABASE passing")
            primary.wait_for_replica(replica)
            call = Call(standby, BATCH)
            time.sleep(0.5)
            db.execute("DROP DATABASE passing")
            call.join(20)
            assert call.error is not None and call.error.sqlstate == "57014"
            started = time.monotonic()
            db.execute("CREATE TABLE afterwards ()")
            primary.wait_for_replica(replica)
            assert time.monotonic() - started < 10


def limit(pid: int, bytes_: int) -> None:
    """Sets the soft limit of a backend's address space, as its own user where this is root."""
    owner = os.stat(f"/proc/{pid}")
    user = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    value = "unlimited" if bytes_ == resource.RLIM_INFINITY else bytes_
    subprocess.run(["prlimit", "--pid", str(pid), f"--as={value}:"], check=True, **user)


def pinch(db, megabytes: float) -> None:
    """Lets a session's address space grow by no more than that."""
    pid = db.info.backend_pid
    with open(f"/proc/{pid}/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    limit(pid, size + int(megabytes * MEGABYTE))


def outcome(db, sql: str, arguments=()) -> str:
    try:
        db.execute(sql, arguments)
        return "done"
    except psycopg.Error as error:
        return error.sqlstate or "connection lost"


@pytest.fixture
def short(busy, connect):
    """short(megabytes, warm=True) -> a session that has so much headroom; what other sessions
    have begun must survive."""
    made = []
    other = connect(busy)
    other.execute("CREATE TEMP TABLE kept AS SELECT 1; BEGIN; INSERT INTO kept VALUES (2)")

    def make(megabytes: float, warm: bool = True, prepare: str = "") -> psycopg.Connection:
        db = connect(busy)
        made.append(db)
        db.execute("SET jit = off; SET copymatch.threads = 2; SELECT '[1]'::vector")
        if prepare:
            db.execute(prepare)
        if warm:
            db.execute("SELECT copy_embed(image) FROM photo LIMIT 1")
        pinch(db, megabytes)
        return db

    yield make
    assert other.execute("SELECT count(*) FROM kept").fetchone() == (2,), "another session lost its transaction"
    for db in [*made, other]:
        db.close()


@pytest.mark.parametrize("megabytes", [0, 1, 3, 8, 20])
def test_batch_of_a_session_short_of_memory_is_done_or_fails_alone_and_the_next_one_works(short, megabytes):
    db = short(megabytes)
    assert outcome(db, BATCH.replace(str(MANY // 8), "2")) in ("done", "53200")
    limit(db.info.backend_pid, resource.RLIM_INFINITY)
    assert outcome(db, "SELECT copy_embed(image) FROM photo LIMIT 1") == "done"


@pytest.mark.parametrize("megabytes", [2, 20, 30, 34, 40, 55, 70])
def test_network_that_finds_no_memory_to_start_says_so_and_starts_when_there_is_some(short, megabytes):
    db = short(megabytes, warm=False)
    assert outcome(db, "SELECT copy_embed(image) FROM photo LIMIT 1") in ("done", "53200")
    limit(db.info.backend_pid, resource.RLIM_INFINITY)
    assert outcome(db, "SELECT copy_embed(image) FROM photo LIMIT 1") == "done"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("megabytes", [0, 2, 6, 12, 24])
def test_index_build_short_of_memory_and_threads_ends(short, megabytes):
    db = short(
        megabytes,
        warm=False,
        prepare="""CREATE TABLE IF NOT EXISTS v AS
            SELECT array(SELECT random() FROM generate_series(1, 64 + g % 1))::vector(64) AS d
            FROM generate_series(1, 20000) g;
            SET statement_timeout = '60s'""",
    )
    assert outcome(db, "CREATE INDEX ON v USING ivf (d vector_l2_ops)") in ("done", "53200", "53000", "53400")


@pytest.mark.parametrize("megabytes", [0, 2, 10])
def test_search_and_insert_short_of_memory_fail_alone(short, connect, busy, megabytes):
    with connect(busy) as db:
        db.execute(
            """DROP TABLE IF EXISTS w; CREATE TABLE w AS
               SELECT g AS id, array(SELECT random() FROM generate_series(1, 64 + g % 1))::vector(64) AS d
               FROM generate_series(1, 20000) g;
               CREATE INDEX ON w USING ivf (d vector_l2_ops)"""
        )
    db = short(megabytes, warm=False, prepare="SET enable_seqscan = off; SET copymatch.probes = 100")
    search = "SELECT max(id) FROM (SELECT id FROM w ORDER BY d <-> (SELECT d FROM w LIMIT 1) LIMIT 15000) s"
    assert outcome(db, search) in ("done", "53200")
    assert outcome(db, "INSERT INTO w SELECT id, d FROM w LIMIT 3000") in ("done", "53200")


def test_large_pictures_short_of_memory_fail_alone(short):
    large = scene(3, 4000, 3000)
    for picture in (jpeg(large), png(large)):
        for megabytes in (0, 16, 40):
            db = short(megabytes)
            assert outcome(db, "SELECT copy_embed(%s::bytea)", [picture]) in ("done", "53200")


@pytest.mark.parametrize(
    "sql",
    ["REINDEX TABLE d", "VACUUM FULL d", "TRUNCATE d", "REINDEX INDEX CONCURRENTLY d_v_idx", "CLUSTER d USING d_pkey"],
)
def test_index_keeps_its_dimensions_when_the_column_loses_them(fresh_db, sql):
    fresh_db.execute(
        """CREATE TABLE d (id int PRIMARY KEY, v vector(8));
           INSERT INTO d SELECT g, array_fill((g % 13)::real, ARRAY[8])::vector FROM generate_series(1, 300) g;
           CREATE INDEX ON d USING ivf (v vector_l2_ops); ALTER TABLE d ALTER COLUMN v TYPE vector"""
    )
    fresh_db.execute(sql)
    assert fresh_db.execute("SELECT copy_index_dimensions('d_v_idx')").fetchone() == (8,)
    fresh_db.execute("INSERT INTO d VALUES (1000, '[3,3,3,3,3,3,3,3]')")
    fresh_db.execute("SET enable_seqscan = off")
    nearest = "SELECT v::text FROM d ORDER BY v <-> '[3,3,3,3,3,3,3,3]' LIMIT 1"
    assert fresh_db.execute(nearest).fetchone() == ("[3,3,3,3,3,3,3,3]",)
    with pytest.raises(psycopg.Error, match="8 dimensions"):
        fresh_db.execute("INSERT INTO d VALUES (1001, '[3]')")


def test_index_on_a_column_without_dimensions_takes_them_as_an_option(fresh_db, sqlstate):
    fresh_db.execute("CREATE TABLE d (v vector)")
    with sqlstate("22023") as error:
        fresh_db.execute("CREATE INDEX ON d USING ivf (v vector_l2_ops)")
    assert "WITH (dimensions = " in error.value.diag.message_hint
    fresh_db.execute("CREATE INDEX ON d USING ivf (v vector_l2_ops) WITH (dimensions = 3)")
    fresh_db.execute("INSERT INTO d VALUES ('[1,2,3]')")
    definition = fresh_db.execute("SELECT pg_get_indexdef('d_v_idx'::regclass)").fetchone()[0]
    assert "dimensions='3'" in definition
