"""pg_upgrade, from every major that the private folder has, in every way of carrying files over."""

import itertools

import pytest
from conftest import MAJOR, OLDER_MAJORS, Installation
from pictures import jpeg, scene
from test_ivf_crash import QUICK, answers
from test_ivf_recall import CHECK, clustered, find, load, make
from test_queue import wait_for

#: --swap came with 18; without an option the files are copied.
WAYS = [[], ["--link"], ["--swap"]] if int(MAJOR) >= 18 else [[], ["--link"]]


def is_whole(major: str) -> bool:
    """Whether this server has the programs of its own that pg_upgrade runs: the package of 14 has another major's."""
    return f" {major}." in Installation(major).run("pg_resetwal", "--version").stdout


# Without one the tests are skipped, which the matrix shows.
FROM = [major for major in OLDER_MAJORS if is_whole(major)] if is_whole(MAJOR) else []
WAITING = 300
OTHER_TABLES = 2000


def upgrade(old, new, *options: str) -> None:
    """Stops both clusters, carries the old one over into the new one, starts none."""
    for cluster in (old, new):
        if cluster.pid is not None:
            cluster.stop()
    new.installation.run(
        "pg_upgrade", "-b", old.installation.bin, "-B", new.installation.bin, "-d", old.data, "-D", new.data,
        "-U", "postgres", "--socketdir", old.socket, *options, cwd=new.folder,
    )  # fmt: skip


def configure(cluster, **settings) -> None:
    """Appends to the configuration of a cluster that is down."""
    with open(cluster.data / "postgresql.conf", "a") as config:
        for name, value in settings.items():
            config.write(f"{name.replace('__', '.')} = '{value}'\n")


@pytest.mark.parametrize("major", FROM)
def test_index_and_sets_go_through_pg_upgrade(fresh_cluster, major):
    """Files are carried over as they are, catalogues are made anew."""
    old, new = fresh_cluster(major, **QUICK), fresh_cluster(**QUICK)
    vectors = clustered(3000, 256)
    with old.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        make(db, vectors[:2000])
        load(db, "t", vectors[2000:], first=2000)
        db.execute("DELETE FROM t WHERE id % 7 = 0")
        db.execute("VACUUM t")
        db.execute("CREATE TABLE pictures (id int PRIMARY KEY, image bytea, descriptor vector(256))")
        db.execute("SELECT copy_create_set('pictures', 'pictures', 'id', 'image')")
        expected, stats = answers(db, vectors[:20]), db.execute("SELECT * FROM copy_index_stats('t_ivf')").fetchone()
        sets = db.execute("SELECT * FROM copymatch.reference_sets").fetchall()
    upgrade(old, new)
    new.start()
    with new.connect() as db:
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []
        assert answers(db, vectors[:20]) == expected
        assert db.execute("SELECT * FROM copy_index_stats('t_ivf')").fetchone() == stats
        assert db.execute("SELECT * FROM copymatch.reference_sets").fetchall() == sets
        load(db, "t", vectors[:1], ids=[0])
        assert find(db, vectors[0], 1) == [0]
        assert db.execute(CHECK, ["t_ivf"]).fetchall() == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("major", "way"), list(itertools.product(FROM, WAYS)))
def test_pg_upgrade_with_a_preloaded_worker_leaves_the_queue_as_it_is(fresh_cluster, major, way):
    """Workers that work while pg_upgrade runs the old server write behind the counters that it has read.

    The new cluster then has rows of transactions that it does not know: findings come and go.
    """
    settings = QUICK | {"max_locks_per_transaction": "200"}
    old, new = fresh_cluster(major, **settings), fresh_cluster(**settings)
    with old.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
        db.execute("INSERT INTO refs VALUES (1, %s), (2, %s)", [jpeg(scene(1)), jpeg(scene(2))])
        db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
        db.execute("CREATE TABLE uploads (id int PRIMARY KEY, image bytea)")
        db.execute(
            "CREATE TRIGGER later AFTER INSERT ON uploads FOR EACH ROW "
            "EXECUTE FUNCTION copy_flag('image', 'id', 'licensed', 'mode=async', 'k=1')"
        )
        db.execute(
            "INSERT INTO uploads SELECT n, %s FROM generate_series(1, %s) n", [jpeg(scene(2, 160, 120)), WAITING]
        )
        # They keep pg_upgrade busy between its reading of the counters and its copying of the tables.
        db.execute(
            f"DO $$ BEGIN FOR n IN 1..{OTHER_TABLES} LOOP "
            "EXECUTE format('CREATE TABLE other_%s (id int, name text)', n); IF n % 500 = 0 THEN COMMIT; END IF; "
            "END LOOP; END $$"
        )
    old.stop()
    new.stop()
    for cluster in (old, new):
        configure(
            cluster, shared_preload_libraries="copymatch", copymatch__queue_databases="postgres",
            copymatch__queue_naptime="100ms",
        )  # fmt: skip
    upgrade(old, new, *way)
    configure(new, shared_preload_libraries="")
    new.start()
    with new.connect() as db:
        queue = "SELECT count(*), min(attempts), max(attempts) FROM copymatch.queue WHERE state = 'waiting'"
        assert db.execute(queue).fetchone() == (WAITING, 0, 0)
        assert db.execute("SELECT count(*) FROM copymatch.finding").fetchone()[0] == 0
        # Reads the age of every row.
        db.execute("VACUUM (FREEZE, DISABLE_PAGE_SKIPPING)")
    new.stop()
    configure(new, shared_preload_libraries="copymatch")
    new.start()
    with new.connect() as db:
        db.execute("CALL copy_process_queue()")
        wait_for(db, "SELECT count(*) FROM copymatch.queue", 0)  # a batch of the worker's may be under way
        for _ in range(3):
            found = db.execute("SELECT count(DISTINCT upload), count(*) FROM copymatch.finding").fetchone()
            assert found == (WAITING, WAITING)
            db.execute("VACUUM copymatch.finding")
