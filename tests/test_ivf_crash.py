"""An ivf index after a crash, on a replica, after promotion, on checksummed pages: as if nothing had happened."""

import os
import random
import threading
import time

import numpy as np
import psycopg
import pytest
from test_ivf_recall import ALL_PROBES, CHECK, clustered, column, find, load, make, near, one, recall, text

#: `make bench-ivf_crash` runs more.
ROUNDS = int(os.environ.get("COPYMATCH_CRASH_ROUNDS", "5"))
DIMENSIONS = 32
#: A killed process leaves what it wrote to the kernel: without fsync nothing is lost but time. Vacuums are ours.
QUICK = {"fsync": "off", "autovacuum": "off"}
USE_INDEX = "SET enable_seqscan = off; SET enable_sort = off"


def assert_sound(db, table: str = "t", settled: bool = True) -> None:
    """The index is sound, agrees with the table, gives every row once, and finds what exact search finds.

    `settled`: nothing of another distribution came since the build or the last vacuum, which measure how many lists to
    probe; then the default settings find enough.
    """
    assert db.execute(CHECK, [f"{table}_ivf"]).fetchall() == []
    rows = db.execute(f"SELECT id, d::float4[] FROM {table} ORDER BY id").fetchall()
    vectors, ids = np.array([d for _, d in rows], np.float32), [number for number, _ in rows]
    db.execute(f"{USE_INDEX}; SET copymatch.probes = {ALL_PROBES}")
    assert sorted(find(db, vectors[0], None, table=table)) == ids
    assert recall(db, vectors, near(vectors, 30), table=table, ids=ids) >= 0.99
    db.execute("RESET copymatch.probes")
    assert not settled or recall(db, vectors, near(vectors, 30), table=table, ids=ids) >= 0.95


def answers(db, queries: np.ndarray, table: str = "t") -> list[list[int]]:
    db.execute(USE_INDEX)
    return [find(db, query, 10, table=table) for query in queries] + [find(db, queries[0], None, table=table)]


class Workload:
    """Sessions that insert, delete, update, search and vacuum until they are stopped or the server is gone.

    The rows with ids below 1,000 are left alone. `stop` raises what went wrong, other than the server's death.
    """

    def __init__(self, cluster, seed: int):
        self.cluster, self.seed, self.errors, self.over = cluster, seed, [], threading.Event()
        works = [*(lambda db, n=n: self.write(db, n) for n in range(3)), self.vacuum, self.search]
        self.threads = [threading.Thread(target=self.guarded, args=[work]) for work in works]
        for thread in self.threads:
            thread.start()

    def guarded(self, work) -> None:
        try:
            with self.cluster.connect() as db:
                work(db)
        except psycopg.OperationalError as error:
            # No state: the connection broke. 57P0x: the server tells that it goes.
            if error.sqlstate is not None and not error.sqlstate.startswith("57P"):
                self.errors.append(error)
        except BaseException as error:
            self.errors.append(error)

    def write(self, db, worker: int) -> None:
        rng = random.Random(1000 * self.seed + worker)
        vectors = clustered(3000, DIMENSIONS, seed=rng.choice([1, 50 + self.seed]))
        first = 1000 + 100_000 * (10 * self.seed + worker)
        number = 0
        while not self.over.is_set():
            count = rng.choice([1, 3, 30])
            at = number % (len(vectors) - 30)
            load(db, "t", vectors[at : at + count], first=first + number)
            number += count
            chosen = first + rng.randrange(number)
            action = rng.random()
            if action < 0.2:
                db.execute("DELETE FROM t WHERE id BETWEEN %s AND %s", [chosen, chosen + rng.choice([0, 20])])
            elif action < 0.4:
                db.execute("UPDATE t SET d = %s WHERE id = %s", [text(vectors[rng.randrange(3000)]), chosen])
            elif action < 0.5:
                with db.transaction(force_rollback=True):
                    load(db, "t", vectors[:5], first=2_000_000_000 + 5 * number)

    def vacuum(self, db) -> None:
        while not self.over.is_set():
            db.execute("VACUUM t")

    def search(self, db) -> None:
        # The promise is that no row is ever out of the index; how many lists find most rows is another one.
        db.execute(f"{USE_INDEX}; SET copymatch.probes = {ALL_PROBES}")
        rng = random.Random(self.seed)
        vectors = clustered(1000, DIMENSIONS)
        while not self.over.is_set():
            number = rng.randrange(1000)
            assert find(db, vectors[number], 1) == [number], "a row that nobody touches is found at any time"

    def stop(self) -> None:
        """Ends the sessions, or waits for them after the server was killed."""
        self.over.set()
        for thread in self.threads:
            thread.join()
        if self.errors:
            raise self.errors[0]


def prepared(cluster) -> None:
    """A table of 1,000 rows with its index."""
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        make(db, clustered(1000, DIMENSIONS))


@pytest.mark.timeout(60 + 40 * ROUNDS)
def test_ivf_server_killed_under_load_comes_back_with_a_sound_index(fresh_cluster):
    # Few buffers, so that pages go to disk in any order; small WAL, so that checkpoints fall in between.
    cluster = fresh_cluster(shared_buffers="2MB", max_wal_size="32MB", checkpoint_timeout="30s", **QUICK)
    prepared(cluster)
    rng = random.Random(5)
    for turn in range(ROUNDS):
        workload = Workload(cluster, seed=turn)
        time.sleep(rng.uniform(0.3, 2.5))
        cluster.kill()
        workload.stop()
        cluster.start()
        with cluster.connect() as db:
            assert_sound(db, settled=False)
            if turn % 2:
                db.execute("VACUUM t")
                assert_sound(db)
    cluster.stop()
    cluster.installation.run("pg_checksums", "--check", "-D", cluster.data)


def test_ivf_built_index_survives_a_crash_right_after_it(fresh_cluster):
    cluster = fresh_cluster(**QUICK)
    prepared(cluster)
    with cluster.connect() as db:
        db.execute("CREATE TABLE u (id int, d vector(32)); CHECKPOINT")
        load(db, "u", clustered(3000))
        db.execute("CREATE INDEX u_ivf ON u USING ivf (d vector_cosine_ops)")
    cluster.kill()
    cluster.start()
    with cluster.connect() as db:
        assert_sound(db, "u")


def test_ivf_with_minimal_wal_an_index_made_with_its_table_survives_a_crash(fresh_cluster):
    cluster = fresh_cluster(**QUICK, wal_level="minimal", max_wal_senders="0")
    prepared(cluster)
    vectors = clustered(3000)
    with cluster.connect() as db:
        with db.transaction():
            make(db, vectors[:2000], table="u")
            load(db, "u", vectors[2000:], first=2000)
        with db.transaction():
            db.execute("TRUNCATE t")
            load(db, "t", vectors)
    cluster.kill()
    cluster.start()
    with cluster.connect() as db:
        assert_sound(db, "u")
        assert_sound(db, "t")


@pytest.mark.parametrize(
    "command", ["CREATE INDEX u_ivf ON t USING ivf (d vector_cosine_ops)", "REINDEX INDEX CONCURRENTLY t_ivf"]
)
def test_ivf_server_killed_while_building_keeps_table_and_old_index(fresh_cluster, command):
    cluster = fresh_cluster(**QUICK)
    prepared(cluster)
    with cluster.connect() as db:
        load(db, "t", clustered(20_000), first=1000)
        watched = one(db, "SELECT pg_backend_pid()")

        def build():
            with cluster.connect() as session, pytest.raises(psycopg.OperationalError):
                session.execute(command)

        builder = threading.Thread(target=build)
        builder.start()
        running = "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'building index%%' AND pid <> %s"
        while builder.is_alive() and not one(db, running, watched):
            pass
        cluster.kill()
        builder.join()
    cluster.start()
    with cluster.connect() as db:
        assert_sound(db)
        db.execute("DROP INDEX IF EXISTS u_ivf; DROP INDEX IF EXISTS t_ivf_ccnew; REINDEX INDEX t_ivf")
        assert_sound(db)


def test_ivf_replica_gives_the_primary_s_answers_through_every_phase(fresh_cluster):
    # Replay compares each page with the image that came along, and stops at a difference.
    primary = fresh_cluster(**QUICK, wal_consistency_checking="all", max_wal_size="1GB")
    vectors = clustered(4000)
    queries = near(vectors, 10)
    with primary.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        replica = primary.replica(hot_standby_feedback="on", fsync="off")
        make(db, vectors[:2000])
        for phase in (
            "SELECT 'built'",
            "COPY",
            "DELETE FROM t WHERE id % 3 = 0",
            "VACUUM t",
            "UPDATE t SET d = d - d - d WHERE id % 7 = 0",
            "COPY",
            "VACUUM t",
            "REINDEX INDEX CONCURRENTLY t_ivf",
            "DELETE FROM t WHERE id > 200",
            "VACUUM t",
            "COPY",
        ):
            if phase == "COPY":
                load(db, "t", vectors[2000:], first=10_000)
            else:
                db.execute(phase)
            primary.wait_for_replica(replica)
            with replica.connect() as standby:
                assert answers(standby, queries) == answers(db, queries), phase
                assert standby.execute(CHECK, ["t_ivf"]).fetchall() == [], phase
    replica.installation.run("pg_ctl", "promote", "-D", replica.data, "-w")
    with replica.connect() as promoted:
        assert_sound(promoted)
        load(promoted, "t", vectors, first=50_000)
        promoted.execute("DELETE FROM t WHERE id % 2 = 0")
        promoted.execute("VACUUM t")
        assert_sound(promoted)


def test_ivf_searches_on_a_replica_are_right_while_it_replays(fresh_cluster):
    primary = fresh_cluster(**QUICK)
    prepared(primary)
    vectors = clustered(1000, DIMENSIONS)
    replica = primary.replica(hot_standby_feedback="on", fsync="off")
    primary.wait_for_replica(replica)
    workload = Workload(primary, seed=3)
    try:
        with replica.connect() as standby:
            standby.execute(f"{USE_INDEX}; SET copymatch.probes = {ALL_PROBES}")
            rng, until = random.Random(3), time.monotonic() + 8
            while time.monotonic() < until:
                number = rng.randrange(1000)
                try:
                    found = find(standby, vectors[number], None if rng.random() < 0.1 else 20)
                except psycopg.errors.SerializationFailure:
                    continue  # a conflict with recovery, as every query on a replica may have
                assert found[0] == number and len(set(found)) == len(found)
                assert len(found) == 20 or set(found) >= set(range(1000))
    finally:
        workload.stop()
    primary.wait_for_replica(replica)
    with replica.connect() as standby, primary.connect() as db:
        assert answers(standby, vectors[:10]) == answers(db, vectors[:10])
        assert standby.execute(CHECK, ["t_ivf"]).fetchall() == []


def test_ivf_searches_on_a_replica_are_right_while_an_index_grows_from_empty(fresh_cluster):
    """Lists split under them all the time, and branches where there come to be too many lists."""
    primary = fresh_cluster(**QUICK, max_wal_size="4GB")
    vectors = clustered(220_000, 16, seed=5)
    with primary.connect() as db:
        db.execute("CREATE EXTENSION copymatch; CREATE TABLE t (id int, d vector(16))")
        db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_cosine_ops)")
        replica = primary.replica(hot_standby_feedback="on", fsync="off")
        load(db, "t", vectors[:1000])
        primary.wait_for_replica(replica)
        done = threading.Event()

        def grow():
            with primary.connect() as session:
                for first in range(1000, len(vectors), 2000):
                    load(session, "t", vectors[first : first + 2000], first=first)
                session.execute("VACUUM t")
            done.set()

        writer = threading.Thread(target=grow)
        writer.start()
        searches = 0
        with replica.connect() as standby:
            standby.execute(f"{USE_INDEX}; SET copymatch.probes = {ALL_PROBES}")
            while not done.is_set():
                # The first thousand are there from the beginning; deep enough for several rounds over the lists.
                found = find(standby, vectors[searches % 1000], 3000)
                assert found[0] == searches % 1000 and len(set(found)) == len(found)
                searches += 1
            writer.join()
            primary.wait_for_replica(replica)
            assert searches > 20 and one(standby, "SELECT branches FROM copy_index_stats('t_ivf')") >= 3
            assert standby.execute(CHECK, ["t_ivf"]).fetchall() == []
            standby.execute("RESET copymatch.probes")
            assert answers(standby, vectors[:10]) == answers(db, vectors[:10])
    primary.kill()
    primary.start()
    with primary.connect() as db:
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


def test_ivf_recovery_that_stops_between_any_two_records_gives_a_sound_index(fresh_cluster):
    """Two replicas stop at restore points that are set, at random moments, amid inserts, splits and vacuums."""
    primary = fresh_cluster(**QUICK, max_wal_senders="10")
    prepared(primary)
    cuts = ["first", "second"]
    replicas = [
        primary.replica(recovery_target_name=cut, recovery_target_action="promote", fsync="off") for cut in cuts
    ]
    workload = Workload(primary, seed=8)
    try:
        with primary.connect() as db:
            for cut in cuts:
                time.sleep(random.Random(cut).uniform(0.5, 2))
                db.execute("SELECT pg_create_restore_point(%s)", [cut])
    finally:
        workload.stop()
    deadline = time.monotonic() + 60
    for replica in replicas:
        with replica.connect() as db:
            while one(db, "SELECT pg_is_in_recovery()"):
                assert time.monotonic() < deadline, "the replica did not reach its restore point"
                time.sleep(0.05)
            assert_sound(db, settled=False)
            db.execute("VACUUM t")
            assert_sound(db)
            assert set(column(db, "SELECT id FROM t")) >= set(range(1000))
