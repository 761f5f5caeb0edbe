"""Torture: power loss, a full disk, cancels at any moment, hours in short. `make torture` runs these
for longer, with the kills.

COPYMATCH_TORTURE_SECONDS is how long each of the endless ones lasts.
"""

import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import tempfile
import threading
import time

import numpy as np
import psycopg
import pytest
from pictures import jpeg, scene
from test_ivf_crash import Workload, assert_sound, prepared
from test_ivf_recall import CHECK, clustered, load

SECONDS = float(os.environ.get("COPYMATCH_TORTURE_SECONDS", "10"))
ROUNDS = max(2, int(SECONDS / 6))
HERE = pathlib.Path(__file__).parent


class Disk:
    """What a cluster's disk holds when the power goes: the state of each file at its last
    fsync (tests/power_loss.c)."""

    def __init__(self, cluster, folder: pathlib.Path):
        self.cluster, self.durable = cluster, folder / "durable"
        library = folder / "power_loss.so"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, HERE / "power_loss.c", "-ldl"], check=True)
        folder.chmod(0o755)
        cluster.stop()
        self.copy(cluster.data, self.durable)
        cluster.environment = {
            "LD_PRELOAD": str(library),
            "POWER_LOSS_DATA": str(cluster.data),
            "POWER_LOSS_DURABLE": str(self.durable),
        }
        cluster.start()

    @staticmethod
    def copy(source: pathlib.Path, target: pathlib.Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", source, target], check=True)

    def lose_power(self) -> None:
        """Kills the server; its data folder becomes what the disk has."""
        self.cluster.kill()
        self.copy(self.durable, self.cluster.data)
        for left in self.cluster.data.rglob("*.unfinished"):
            left.unlink()
        (self.cluster.data / "postmaster.pid").unlink(missing_ok=True)
        self.copy(self.cluster.data, self.durable)


@pytest.fixture
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="copymatch-torture-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_power_loss_under_load_leaves_a_sound_index_and_every_committed_row(fresh_cluster, folder):
    cluster = fresh_cluster(shared_buffers="2MB", max_wal_size="32MB", checkpoint_timeout="30s", autovacuum="off")
    prepared(cluster)
    disk = Disk(cluster, folder)
    rng = random.Random(7)
    committed = 0
    for turn in range(ROUNDS):
        workload = Workload(cluster, seed=turn)
        with cluster.connect() as db:
            until = time.monotonic() + rng.uniform(1, 4)
            while time.monotonic() < until:
                load(db, "t", clustered(1, 32, seed=committed), first=1_000_000_000 + committed)
                committed += 1
        disk.lose_power()
        workload.stop()
        cluster.start()
        with cluster.connect() as db:
            kept = db.execute("SELECT count(*) FROM t WHERE id BETWEEN 1000000000 AND 1999999999").fetchone()[0]
            assert kept == committed, "a row that was committed is gone"
            assert_sound(db, settled=False)


@pytest.mark.timeout(120)
def test_power_loss_is_noticed_where_nothing_was_synced(fresh_cluster, folder):
    """The shim itself: without fsync, what was committed is gone, or the server does not even start."""
    cluster = fresh_cluster(fsync="off", full_page_writes="off", autovacuum="off")
    with cluster.connect() as db:
        db.execute("CREATE TABLE t (n int)")
    disk = Disk(cluster, folder)
    with cluster.connect() as db:
        db.execute("INSERT INTO t SELECT generate_series(1, 1000)")
    disk.lose_power()
    cluster.start()
    with cluster.connect() as db:
        assert db.execute("SELECT count(*) FROM t").fetchone() == (0,)


@pytest.fixture
def small_disk(server):
    """A folder of 48 MB that the server's user owns; only root can make one."""
    if os.geteuid() != 0:
        pytest.skip("a disk to be filled is a tmpfs, which only root may mount")
    path = pathlib.Path(tempfile.mkdtemp(prefix="copymatch-small-"))
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", path], check=False)
    if mounted.returncode != 0:
        path.rmdir()
        pytest.skip("this machine lets nobody mount a tmpfs")
    server.own(path)
    yield path
    subprocess.run(["umount", "-l", path], check=True)
    path.rmdir()


@pytest.mark.timeout(300)
def test_full_disk_is_an_error_and_the_index_is_sound_after_it(fresh_cluster, small_disk):
    cluster = fresh_cluster(fsync="off", autovacuum="off")
    # Somebody makes room in the end, as VACUUM needs a little itself.
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2 << 20))
    try:
        with cluster.connect() as db:
            db.execute("CREATE EXTENSION copymatch")
            db.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
            db.execute("SET default_tablespace = small; SET temp_tablespaces = small")
            db.execute("CREATE TABLE t (id int, d vector(256))")
            rng = np.random.default_rng(1)
            rows = rng.normal(size=(2000, 256)).astype("float32")
            load(db, "t", rows)
            db.execute("CREATE INDEX t_ivf ON t USING ivf (d vector_l2_ops)")
            full = 0
            for turn in range(40):
                try:
                    load(db, "t", rows[:1000] + turn, first=10_000 * (turn + 1))
                except psycopg.errors.DiskFull:
                    full += 1
                    assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
                    if full == 2:
                        break
            assert full == 2, "the disk did not fill"
            for statement in ("REINDEX INDEX t_ivf", "CREATE INDEX again ON t USING ivf (d vector_l2_ops)"):
                with pytest.raises(psycopg.errors.DiskFull):
                    db.execute(statement)
            assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
            ballast.unlink()
            db.execute("DELETE FROM t WHERE id >= 10000")
            db.execute("VACUUM t")
            load(db, "t", rows[:500], first=90_000)
            assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
    finally:
        cluster.stop("immediate")


STATEMENTS = (
    "INSERT INTO t (id, d) SELECT 500000 + g, (SELECT d FROM t LIMIT 1) FROM generate_series(1, 300) g",
    "DELETE FROM t WHERE id >= 500000",
    "VACUUM t",
    "REINDEX INDEX t_ivf",
    "SELECT count(*) FROM (SELECT id FROM t ORDER BY d <-> (SELECT d FROM t LIMIT 1) LIMIT 800) s",
    "SELECT cardinality(copy_embed_batch(array_agg(image))) FROM photo, generate_series(1, 5)",
    "INSERT INTO upload (image) SELECT image FROM photo",
    "UPDATE photo SET image = image || ''::bytea",
    "SELECT count(*) FROM photo p, LATERAL copy_match(p.image, 'photos', k => 3)",
    "SELECT length(copy_edit(image, 'rotate')) FROM photo",
)


@pytest.mark.timeout(120 + 3 * SECONDS)
def test_cancels_at_any_moment_leave_nothing_behind(fresh_cluster):
    """No cancel takes long, no session is worse for it, no row is there without its descriptor or its index entry."""
    cluster = fresh_cluster(fsync="off")
    prepared(cluster)
    rng = random.Random(11)
    with cluster.connect() as db, cluster.connect() as admin:
        db.execute("CREATE TABLE photo (id int PRIMARY KEY, image bytea)")
        for seed in range(10):
            db.execute("INSERT INTO photo VALUES (%s, %s)", [seed, jpeg(scene(seed))])
        db.execute("SELECT copy_create_set('photos', 'photo', key => 'id', image => 'image')")
        db.execute("CREATE TABLE upload (id bigserial PRIMARY KEY, image bytea)")
        db.execute(
            "CREATE TRIGGER f AFTER INSERT ON upload FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', 'photos')"
        )
        slowest, cancelled = 0.0, 0
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            asked = []

            delay = rng.expovariate(4)

            def cancel(asked=asked, delay=delay):
                time.sleep(delay)
                asked.append(time.monotonic())
                db.cancel()

            timer = threading.Thread(target=cancel)
            timer.start()
            try:
                db.execute(rng.choice(STATEMENTS))
            except psycopg.errors.QueryCanceled:
                cancelled += 1
                slowest = max(slowest, time.monotonic() - asked[0])
            timer.join()
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                db.execute("SELECT 1")
        assert cancelled > 0
        # A machine that is busy with other things needs a moment; what is not polled takes several seconds.
        assert slowest < 3, f"a cancel took {slowest:.1f} s"
        assert admin.execute("SELECT count(*) FROM photo WHERE descriptor IS NULL").fetchone() == (0,)
        assert admin.execute(CHECK, ["t_ivf"]).fetchall() == []
        admin.execute("DELETE FROM t WHERE id >= 1000")
        assert_sound(admin, settled=False)


@pytest.mark.timeout(180 + 3 * SECONDS)
def test_mixed_load_over_time_grows_nothing_and_breaks_nothing(fresh_cluster):
    """Memory of a long-lived session stays level, the index stays sound, every session works to the end."""
    cluster = fresh_cluster(fsync="off", shared_buffers="16MB")
    prepared(cluster)
    with cluster.connect() as db:
        db.execute("CREATE TABLE photo (image bytea)")
        for seed in range(6):
            db.execute("INSERT INTO photo VALUES (%s)", [jpeg(scene(seed))])

        def private() -> int:
            with open(f"/proc/{db.info.backend_pid}/statm") as statm:
                return int(statm.read().split()[5]) * 4096

        def work() -> None:
            db.execute("SELECT cardinality(copy_embed_batch(array_agg(image))) FROM photo")
            with contextlib.suppress(psycopg.Error):
                db.execute("SELECT copy_embed('no picture'::bytea)")
            db.execute("SELECT count(*) FROM (SELECT id FROM t ORDER BY d <-> (SELECT d FROM t LIMIT 1) LIMIT 200) s")

        workload = Workload(cluster, seed=3)
        try:
            for _ in range(5):
                work()
            before = private()
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                work()
            assert private() - before < 32 << 20
        finally:
            workload.stop()
        db.execute("VACUUM t")
        assert_sound(db, settled=False)
