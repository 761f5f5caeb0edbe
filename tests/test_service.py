"""The embedding service: one process for all sessions, whose death is nobody else's.

Every test ends with the same look (`settled`): no slot in use, one process at most, the server never restarted.
COPYMATCH_TORTURE_SECONDS is how long each of the endless ones lasts.
"""

import contextlib
import json
import os
import pathlib
import random
import signal
import threading
import time

import numpy as np
import psycopg
import pytest
from conftest import LOCAL, MAJOR, ROOT, own_memory
from pictures import jpeg, scene

SECONDS = float(os.environ.get("COPYMATCH_TORTURE_SECONDS", "4"))
STATUS = "SELECT path, state, supervisor, process, slots_in_use, restarts, path_reason FROM copymatch.service"


def vector(text: str) -> np.ndarray:
    return np.array([float(x) for x in text.strip("[]").split(",")])


def embed(db, image, model=None) -> np.ndarray:
    return vector(db.execute("SELECT copy_embed(%s, %s)::text", [image, model]).fetchone()[0])


class Status:
    def __init__(self, db):
        self.path, self.state, self.supervisor, self.process, self.in_use, self.restarts, self.reason = db.execute(
            STATUS
        ).fetchone()


def until(condition, seconds=10.0, what="the condition"):
    """Waits for it, and gives how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"{what} did not come true within {seconds} s"
        time.sleep(0.005)
    return time.monotonic() - started


def encoders_of(cluster) -> list[int]:
    """Processes of this cluster's service, by its library's path in their arguments; orphans, too."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (path / "cmdline").read_bytes()
            alive = (path / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
            if b"copymatch-encoder" in command.split(b"\0")[0] and alive:
                environment = (path / "environ").read_bytes()
                if f"PGDATA={cluster.data}".encode() in environment:
                    found.append(int(path.name))
    return found


def crash_recoveries(cluster) -> int:
    return cluster.log.read_text(errors="replace").count("terminating any other active server processes")


@contextlib.contextmanager
def settled(cluster):
    """The body leaves nothing behind."""
    before = crash_recoveries(cluster)
    with cluster.connect() as db:
        yield db
    # Another connection: the test may have killed any.
    with cluster.connect() as db:
        until(lambda: Status(db).in_use == 0, what="all slots free")
        assert crash_recoveries(cluster) == before, "the server restarted its processes"
        assert len(encoders_of(cluster)) <= 1, "an orphan runs"
        embed(db, jpeg(scene(1)))


@pytest.fixture(scope="module")
def module_cluster():
    """One cluster for the tests that leave it as it was: made as fresh_cluster makes its own."""
    import shutil
    import tempfile

    from conftest import Cluster, Installation

    installation = Installation()
    folder = installation.own(pathlib.Path(tempfile.mkdtemp(prefix="cluster-", dir=LOCAL)))
    faults = installation.own(pathlib.Path(tempfile.mkdtemp(prefix="copymatch-faults-")))
    os.environ["COPYMATCH_ENCODER_FAULTS"] = str(faults / "fault")
    try:
        cluster = Cluster(
            installation,
            folder,
            {
                "shared_preload_libraries": "copymatch",
                "fsync": "off",
                "max_connections": "150",
                "copymatch.service_threads": "2",
                "copymatch.service_timeout": "20s",
            },
        )
    finally:
        del os.environ["COPYMATCH_ENCODER_FAULTS"]
    cluster.fault = faults / "fault"
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
    yield cluster
    if cluster.pid is not None:
        cluster.stop("immediate")
    log = cluster.log.read_text(errors="replace")
    cluster.remove()
    shutil.rmtree(faults, ignore_errors=True)
    assert "recalcitrant" not in log, "a process had to be killed"


@pytest.fixture
def cluster(module_cluster):
    manager = settled(module_cluster)
    manager.__enter__().close()
    yield module_cluster
    manager.__exit__(None, None, None)
    module_cluster.fault.unlink(missing_ok=True)


def own_descriptors(cluster, images):
    """By a network of the session's own."""
    with cluster.connect() as db:
        db.execute("SET copymatch.service = off")
        assert Status(db).path == "session"
        return [embed(db, image) for image in images]


def test_sessions_embed_through_the_service_and_get_the_descriptors_of_their_own_networks(cluster):
    images = [jpeg(scene(seed)) for seed in range(6)]
    own = own_descriptors(cluster, images)
    with cluster.connect() as db:
        assert Status(db).path == "service"
        for image, expected in zip(images, own, strict=True):
            assert np.abs(embed(db, image) - expected).max() < 1e-5
        batch = db.execute("SELECT d::text FROM unnest(copy_embed_batch(%s)) d", [images]).fetchall()
        for (text,), expected in zip(batch, own, strict=True):
            assert np.abs(vector(text) - expected).max() < 1e-5
        assert Status(db).state == "running"
        runtime = db.execute("SELECT provider, runtime_version, load_milliseconds FROM copy_runtime()").fetchone()
        assert runtime[0] == "cpu" and runtime[1] and runtime[2] is None


def test_a_session_that_embeds_through_the_service_has_no_network_of_its_own(cluster):
    image = jpeg(scene(3))
    with cluster.connect() as db:
        embed(db, image)
        mapped = pathlib.Path(f"/proc/{db.info.backend_pid}/maps").read_text()
        assert "libonnxruntime" not in mapped
        process = pathlib.Path(f"/proc/{Status(db).process}/maps").read_text()
        assert "libonnxruntime" in process
        assert "copymatch.so" not in process and "PostgreSQL" not in process, "it shares PostgreSQL's memory"


def test_a_session_that_has_embedded_gives_the_memory_of_pictures_back(cluster):
    image = jpeg(scene(3, 1100, 1000))

    with cluster.connect() as db:

        def kept() -> float:
            return own_memory(db.info.backend_pid) - before

        db.execute("SELECT 1")
        before = own_memory(db.info.backend_pid)
        with db.transaction():
            for _ in range(3):
                embed(db, image)
            during = kept()
        # What is given back is given back once a second at most: here the first time, then by another transaction.
        assert kept() < 4 < during, (kept(), during)
        for _ in range(3):
            embed(db, image)
        time.sleep(1.1)
        db.execute("SELECT 1")
        assert kept() < 4, "after many transactions"


def test_the_path_is_the_sessions_own_where_the_service_is_off_or_not_preloaded(cluster, db):
    assert db.execute("SELECT path, state FROM copymatch.service").fetchone() == ("session", "not preloaded")
    assert embed(db, jpeg(scene(1))).size
    with cluster.connect() as other:
        other.execute("SET copymatch.service = off")
        assert Status(other).reason == "copymatch.service is off"
        other.execute("RESET copymatch.service; SET copymatch.onnxruntime_library = '/elsewhere'")
        assert "onnxruntime_library" in Status(other).reason


def test_who_may_see_what_the_service_does(cluster):
    with cluster.connect() as db:
        db.execute("DROP ROLE IF EXISTS nobody_special; CREATE ROLE nobody_special")
        db.execute("SET ROLE nobody_special")
        assert db.execute("SELECT path, state, library, last_trouble FROM copymatch.service").fetchone() == (
            "service", "running", None, None,
        )  # fmt: skip
        for view in ("service_stats", "service_models"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.execute(f"SELECT * FROM copymatch.{view}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute("SET copymatch.service = off")
        db.execute("RESET ROLE; GRANT copymatch_admin TO nobody_special; SET ROLE nobody_special")
        images, p50 = db.execute("SELECT images, run_p50 FROM copymatch.service_stats").fetchone()
        assert images > 0 and p50 > 0
        model, memory = db.execute("SELECT model, memory FROM copymatch.service_models").fetchone()
        assert model and memory > 1_000_000
        assert db.execute("SELECT library FROM copymatch.service").fetchone()[0]


class Sessions:
    """Sessions that embed, one image after the other, until they are stopped; what they got, and what failed."""

    def __init__(self, cluster, count, images, expected, tolerate=()):
        self.stop_asked = threading.Event()
        self.done, self.errors, self.wrong = 0, [], 0
        self.lock = threading.Lock()
        self.tolerate = tolerate
        self.threads = [
            threading.Thread(target=self.work, args=(cluster, images, expected, seed)) for seed in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def work(self, cluster, images, expected, seed):
        rng = random.Random(seed)
        connection = None
        while not self.stop_asked.is_set():
            try:
                connection = connection or cluster.connect()
                which = rng.randrange(len(images))
                found = embed(connection, images[which])
                with self.lock:
                    self.done += 1
                    self.wrong += np.abs(found - expected[which]).max() > 1e-5
            except psycopg.Error as error:
                with self.lock:
                    self.errors.append(error)
                if connection is not None and connection.closed:
                    connection = None
        if connection is not None:
            connection.close()

    def stop(self):
        self.stop_asked.set()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a session hangs"
        assert self.wrong == 0, f"{self.wrong} descriptors are wrong"
        unexpected = [error for error in self.errors if error.sqlstate not in self.tolerate]
        assert not unexpected, unexpected[:3]
        return self


@pytest.fixture(scope="module")
def pictures(module_cluster):
    images = [jpeg(scene(seed)) for seed in range(8)]
    return images, own_descriptors(module_cluster, images)


@pytest.mark.timeout(60 + 4 * SECONDS)
def test_killed_while_eight_sessions_embed_the_service_is_back_within_a_second(cluster, pictures):
    sessions = Sessions(cluster, 8, *pictures)
    slowest, kills = 0.0, 0
    with cluster.connect() as db:
        until(lambda: sessions.done > 8)
        finish = time.monotonic() + SECONDS
        while time.monotonic() < finish or kills < 3:
            victim = Status(db).process
            os.kill(victim, signal.SIGKILL)
            kills += 1

            def back(victim=victim):
                status = Status(db)
                return status.state == "running" and status.process not in (None, victim)

            slowest = max(slowest, until(back))
            done = sessions.done
            until(lambda done=done: sessions.done > done + 8)
    # A request that was under way twice gets an error; all others were embedded again, unnoticed.
    sessions.tolerate = ("38000",)
    sessions.stop()
    assert slowest < 1.0, f"back after {slowest:.2f} s"
    assert len(sessions.errors) <= kills


def test_an_abort_within_a_run_is_nobody_elses(cluster, pictures):
    sessions = Sessions(cluster, 8, *pictures)
    with cluster.connect() as db:
        until(lambda: sessions.done > 8)
        before = Status(db).restarts
        for turn in range(3):
            cluster.fault.write_text("abort")
            cluster.fault.chmod(0o666)
            until(lambda turn=turn: Status(db).restarts > before + turn)
            done = sessions.done
            until(lambda done=done: sessions.done > done + 8)
    sessions.stop()
    assert not sessions.errors, "one abort is made good"
    assert "signal 6" in cluster.log.read_text()


def test_a_request_that_kills_the_process_each_time_gets_an_error(cluster, sqlstate):
    with cluster.connect() as db:
        cluster.fault.write_text("always abort")
        cluster.fault.chmod(0o666)
        with sqlstate("38000") as error:
            embed(db, jpeg(scene(1)))
        assert "died twice" in str(error.value)
        cluster.fault.unlink()
        assert embed(db, jpeg(scene(1))).size
        crashed = db.execute("SELECT crashed FROM copymatch.service_stats").fetchone()[0]
        assert crashed >= 1


def test_a_run_that_hangs_ends_after_the_timeout(cluster, sqlstate):
    with cluster.connect() as db:
        db.execute("ALTER SYSTEM SET copymatch.service_timeout = '700ms'")
        db.execute("SELECT pg_reload_conf()")
        time.sleep(0.2)
        try:
            cluster.fault.write_text("hang")
            cluster.fault.chmod(0o666)
            started = time.monotonic()
            with sqlstate("38000") as error:
                embed(db, jpeg(scene(1)))
            assert "did not answer" in str(error.value)
            assert 0.6 < time.monotonic() - started < 5
        finally:
            db.execute("ALTER SYSTEM RESET copymatch.service_timeout")
            db.execute("SELECT pg_reload_conf()")
        time.sleep(0.2)
        assert embed(db, jpeg(scene(1))).size


def test_a_wait_can_be_cancelled_timed_out_and_terminated(cluster, sqlstate):
    image = jpeg(scene(2))
    cluster.fault.write_text("always slow")
    cluster.fault.chmod(0o666)
    with cluster.connect() as db, cluster.connect() as admin:
        db.execute("SET statement_timeout = 100")
        started = time.monotonic()
        with sqlstate("57014"):
            embed(db, image)
        assert time.monotonic() - started < 0.4, "a cancel waits for the run"
        db.execute("SET statement_timeout = 0")
        timer = threading.Timer(0.1, db.cancel)
        timer.start()
        with sqlstate("57014"):
            embed(db, image)
        timer.join()
        event = "CopymatchService" if int(MAJOR) >= 17 else "Extension"
        seen = []

        def terminate():
            pid = db.info.backend_pid
            query = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
            until(lambda: admin.execute(query, [pid]).fetchone()[0] == event, what=f"wait event {event}")
            seen.append(event)
            admin.execute("SELECT pg_terminate_backend(%s)", [pid])

        killer = threading.Thread(target=terminate)
        killer.start()
        with sqlstate("57P01"):
            embed(db, image)
        killer.join()
        assert seen
    cluster.fault.unlink()


@pytest.mark.timeout(60 + 3 * SECONDS)
def test_cancels_and_kills_at_any_moment_leave_no_slot_and_no_wrong_answer(cluster, pictures):
    sessions = Sessions(cluster, 8, *pictures, tolerate=("57014", "57P01", None))
    rng = random.Random(5)
    cancels = 0
    with cluster.connect() as admin:
        started = time.monotonic()
        while time.monotonic() < started + SECONDS:
            one = (
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() "
                "ORDER BY random() LIMIT 1"
            )
            verb = "pg_terminate_backend" if rng.random() < 0.05 else "pg_cancel_backend"
            admin.execute(f"SELECT {verb}(pid) FROM ({one}) v")
            cancels += 1
            # Two hundred a second, as long as the machine keeps up.
            time.sleep(max(0.0, started + cancels / 200 - time.monotonic()))
        sessions.stop()
        print(f"{cancels / SECONDS:.1f} cancels a second")
        assert cancels > 100 * SECONDS / 2 and sessions.done > 0
        assert sum(error.sqlstate == "57014" for error in sessions.errors) > 10


def test_full_slots_push_back_and_then_say_so(fresh_cluster, sqlstate):
    fault = LOCAL / f"fault-{os.getpid()}"
    os.environ["COPYMATCH_ENCODER_FAULTS"] = str(fault)
    try:
        cluster = fresh_cluster(
            shared_preload_libraries="copymatch", fsync="off",
            **{"copymatch.service_slots": "4", "copymatch.service_threads": "1", "copymatch.service_timeout": "1500ms"},
        )  # fmt: skip
    finally:
        del os.environ["COPYMATCH_ENCODER_FAULTS"]
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        embed(db, jpeg(scene(1)))
    fault.write_text("always slow")
    try:
        with settled(cluster) as db:
            sessions = Sessions(
                cluster, 10, [jpeg(scene(1))], own_descriptors(cluster, [jpeg(scene(1))]), tolerate=("53400",)
            )
            until(lambda: Status(db).in_use == 4)
            until(lambda: len(sessions.errors) > 0, what="an error for want of a slot")
            sessions.stop()
            assert sessions.done > 0 and "no slot" in str(sessions.errors[0])
            assert db.execute("SELECT queue_full FROM copymatch.service_stats").fetchone()[0] > 0
            fault.unlink()
    finally:
        fault.unlink(missing_ok=True)


def test_a_supervisor_that_is_ended_is_back_and_requests_under_way_are_answered(cluster, pictures):
    sessions = Sessions(cluster, 4, *pictures)
    with cluster.connect() as db:
        until(lambda: sessions.done > 4)
        for _ in range(2):
            old = Status(db).supervisor
            os.kill(old, signal.SIGTERM)
            until(lambda old=old: Status(db).state == "running" and Status(db).supervisor != old)
            done = sessions.done
            until(lambda done=done: sessions.done > done + 4)
    sessions.stop()
    assert not sessions.errors


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_shutdown_while_busy_leaves_no_process(fresh_cluster, mode):
    cluster = fresh_cluster(shared_preload_libraries="copymatch", fsync="off")
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        embed(db, jpeg(scene(1)))
        assert encoders_of(cluster) == [Status(db).process]
    images = [jpeg(scene(1))]
    sessions = Sessions(
        cluster, 4, images, own_descriptors(cluster, images), tolerate=("57P01", "57P02", "57P03", None)
    )
    until(lambda: sessions.done > 4)
    started = time.monotonic()
    cluster.stop(mode)
    assert time.monotonic() - started < 10
    sessions.stop()
    until(lambda: encoders_of(cluster) == [], 5, "no process left")
    cluster.start()
    with settled(cluster):
        pass


def test_the_process_dies_with_the_whole_server(fresh_cluster):
    cluster = fresh_cluster(shared_preload_libraries="copymatch", fsync="off")
    until(lambda: len(encoders_of(cluster)) == 1)
    cluster.kill()
    until(lambda: encoders_of(cluster) == [], 5, "no orphan")


def test_the_process_dies_with_the_postmaster_alone(fresh_cluster):
    cluster = fresh_cluster(shared_preload_libraries="copymatch", fsync="off")
    until(lambda: len(encoders_of(cluster)) == 1)
    os.kill(cluster.pid, signal.SIGKILL)
    until(lambda: encoders_of(cluster) == [], 5, "no orphan")
    # Dead, but nobody may have reaped it: what is left is not stopped, but removed.
    (cluster.data / "postmaster.pid").unlink()


def test_a_server_that_restarts_its_processes_has_its_service_again(fresh_cluster):
    cluster = fresh_cluster(shared_preload_libraries="copymatch", fsync="off")
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        embed(db, jpeg(scene(1)))
        old = Status(db)
        os.kill(old.supervisor, signal.SIGKILL)

    def up():
        with contextlib.suppress(psycopg.Error), cluster.connect() as db:
            status = Status(db)
            return status.state == "running" and status.supervisor != old.supervisor

    until(up, 20)
    with settled(cluster) as db:
        assert Status(db).process != old.process
    assert len(encoders_of(cluster)) == 1


def add_model(db, name, **more):
    """The built-in model under another name: another manifest, so another model for the service."""
    manifest = json.loads((ROOT / "models/default/manifest.json").read_text()) | {"name": name} | more
    weights = (ROOT / "models/default/model.onnx").read_bytes()
    db.execute("SELECT copy_add_model(%s, %s, %s)", [name, weights, json.dumps(manifest)])
    return name


def test_databases_share_the_service_and_models_of_one_name_are_not_confused(cluster):
    image = jpeg(scene(4))
    with cluster.connect() as db:
        for name in ("one", "two"):
            db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            db.execute(f"CREATE DATABASE {name}")
    try:
        with cluster.connect("one") as one, cluster.connect("two") as two:
            one.execute("CREATE EXTENSION copymatch")
            two.execute("CREATE EXTENSION copymatch")
            add_model(one, "mine")
            # Another resize filter: the same name, other descriptors.
            original = json.loads((ROOT / "models/default/manifest.json").read_text())["input"]
            add_model(two, "mine", input=original | {"resize": "lanczos"}, parity=[])
            first, second, built_in = embed(one, image, "mine"), embed(two, image, "mine"), embed(one, image)
            assert np.abs(first - built_in).max() < 1e-5
            assert np.abs(first - second).max() > 1e-5
            for db, expected in ((one, first), (two, second)):
                db.execute("SET copymatch.service = off")
                assert np.abs(embed(db, image, "mine") - expected).max() < 1e-5
            assert one.execute("SELECT count(*) FROM copymatch.service_models").fetchone()[0] >= 3
    finally:
        with cluster.connect() as db:
            for name in ("one", "two"):
                db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def test_models_give_way_to_each_other_under_model_memory_and_come_back(fresh_cluster):
    cluster = fresh_cluster(
        shared_preload_libraries="copymatch",
        fsync="off",
        **{"copymatch.model_memory": "16MB", "copymatch.service_threads": "1"},
    )
    image = jpeg(scene(5))
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
    with settled(cluster) as db:
        for name in ("a", "b"):
            add_model(db, name)
        expected = embed(db, image)
        for _ in range(3):
            for name in ("a", "b", None):
                assert np.abs(embed(db, image, name) - expected).max() < 1e-5
        evicted, loaded = db.execute("SELECT models_evicted, models_loaded FROM copymatch.service_stats").fetchone()
        assert evicted >= 4 and loaded >= 5
        held = db.execute("SELECT count(*) FROM copymatch.service_models").fetchone()[0]
        assert held <= 2


def test_a_model_that_is_dropped_in_use_is_an_error_for_later_calls_only(cluster, sqlstate):
    image = jpeg(scene(6))
    with cluster.connect() as db, cluster.connect() as other:
        add_model(db, "shortlived")
        expected = embed(other, image, "shortlived")
        cluster.fault.write_text("always slow")
        cluster.fault.chmod(0o666)
        found = []
        thread = threading.Thread(target=lambda: found.append(embed(other, image, "shortlived")))
        thread.start()
        until(lambda: Status(db).in_use > 0)
        db.execute("SELECT copy_drop_model('shortlived')")
        thread.join()
        assert np.abs(found[0] - expected).max() < 1e-5
        cluster.fault.unlink()
        with sqlstate("42704"):
            embed(other, image, "shortlived")


def test_a_model_that_is_none_is_refused_by_the_service_with_its_cause(cluster, sqlstate):
    with cluster.connect() as db:
        manifest = json.loads((ROOT / "models/default/manifest.json").read_text()) | {"name": "broken"}
        weights = (ROOT / "models/default/model.onnx").read_bytes()
        with sqlstate("38000") as error:
            db.execute("SELECT copy_add_model('broken', %s, %s)", [weights[:-1000], json.dumps(manifest)])
        assert "SHA-256" in str(error.value)
        manifest["parity"][0]["descriptor"].reverse()
        with sqlstate("38000") as error:
            db.execute("SELECT copy_add_model('broken', %s, %s)", [weights, json.dumps(manifest)])
        assert "parity" in str(error.value)


@pytest.mark.timeout(180)
def test_a_standby_embeds_through_a_service_of_its_own(fresh_cluster):
    primary = fresh_cluster(shared_preload_libraries="copymatch", fsync="off")
    image = jpeg(scene(7))
    with primary.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        add_model(db, "second")
        expected = [embed(db, image), embed(db, image, "second")]
    replica = primary.replica(fsync="off", shared_preload_libraries="copymatch")
    primary.wait_for_replica(replica)
    with settled(replica) as standby:
        assert Status(standby).path == "service"
        for found, wanted in zip((embed(standby, image), embed(standby, image, "second")), expected, strict=True):
            assert np.abs(found - wanted).max() < 1e-5


def test_a_hundred_connections_at_once_are_all_served(cluster, pictures):
    sessions = Sessions(cluster, 100, *pictures)
    until(lambda: sessions.done >= 200, 60)
    sessions.stop()
    assert not sessions.errors


def test_bulk_work_leaves_slots_to_others_and_interactive_images_go_first(cluster):
    images = [jpeg(scene(seed)) for seed in range(16)] * 12
    with cluster.connect() as bulk, cluster.connect() as db:
        embed(db, images[0])
        running = threading.Thread(target=lambda: bulk.execute("SELECT cardinality(copy_embed_batch(%s))", [images]))
        running.start()
        until(lambda: Status(db).in_use > 4)
        times = []
        while running.is_alive() and len(times) < 30:
            started = time.monotonic()
            embed(db, images[1])
            times.append(time.monotonic() - started)
        running.join()
        # With the bulk's sixteen before it, an image would take many times a single one's time.
        assert sorted(times)[len(times) // 2] < 0.5


def test_the_doctor_looks_at_the_service(cluster):
    with cluster.connect() as db:
        rows = db.execute("""SELECT subject, state, message FROM copy_doctor() WHERE "check" = 'service'""").fetchall()
        assert rows and rows[0][0] == "path" and rows[0][1] == "ok" and "through the service" in rows[0][2], rows
