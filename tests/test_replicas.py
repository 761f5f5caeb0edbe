"""Replicas: a hot standby answers as its primary does and flags uploads once it is promoted; a logical
subscriber embeds nothing again."""

import time

import pytest
from pictures import jpeg, scene


def prepared(db) -> None:
    """Six references in a set with an index, a flagging trigger, findings of which some are reviewed, a
    calibration of the set's own."""
    db.execute("CREATE EXTENSION copymatch; CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    for seed in range(6):
        db.execute("INSERT INTO refs VALUES (%s, %s)", [seed, jpeg(scene(seed))])
    db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    db.execute("CREATE TABLE uploads (id text PRIMARY KEY, who text, image bytea)")
    db.execute(
        "CREATE TRIGGER flag AFTER INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
        "'licensed', 'uploader=who', 'k=1')"
    )
    for seed in range(4):
        db.execute("INSERT INTO uploads VALUES (%s, 'ann', %s)", [f"u{seed}", jpeg(scene(seed), 60)])
    db.execute("SELECT copy_confirm(1, 'yes'), copy_dismiss(2, 'no')")
    db.execute(
        """CREATE TABLE labels AS SELECT n / 1000.0::float8 AS similarity, 0.3::float8 AS background,
           n + (n % 7) * 20 > 500 AS is_copy
           FROM generate_series(1, 1000) n"""
    )
    db.execute("SELECT copy_calibrate('licensed', 'labels', copy_precision => 0.8, review_precision => 0.6)")


ANSWERS = [
    ("SELECT reference, similarity, score, probability, verdict FROM copy_match(%s, 'licensed')", [jpeg(scene(2), 50)]),
    ("SELECT * FROM copy_match(%s, 'licensed', verify => 'all') m", [jpeg(scene(2), 50)]),
    ("SELECT f::text FROM copymatch.finding f ORDER BY id", []),
    ("SELECT h::text FROM copymatch.finding_history h ORDER BY id", []),
    ("SELECT * FROM copymatch.report_daily ORDER BY 1, 2, 3, 4", []),
    ("SELECT * FROM copymatch.report_precision ORDER BY 1, 2", []),
    ("SELECT * FROM copymatch.report_open ORDER BY 1, 2", []),
    ("SELECT c::text FROM copymatch.calibration c ORDER BY c.id", []),
    ("SELECT * FROM copy_calibration_report('licensed') ORDER BY 1", []),
    ("SELECT name, is_default FROM copymatch.models ORDER BY 1", []),
    ("SELECT md5(copy_explain(%s, %s))", [jpeg(scene(2), 50), jpeg(scene(2))]),
]


def ages_out(rows):
    """Without columns that count from now."""
    return [tuple(value for value in row if type(value).__name__ != "timedelta") for row in rows]


@pytest.mark.timeout(180)
def test_hot_standby_answers_as_its_primary_and_flags_once_it_is_promoted(fresh_cluster, sqlstate):
    primary = fresh_cluster(fsync="off")
    with primary.connect() as db:
        prepared(db)
        replica = primary.replica(hot_standby_feedback="on", fsync="off")
        primary.wait_for_replica(replica)
        with replica.connect() as standby:
            for query, parameters in ANSWERS:
                rows = db.execute(query, parameters).fetchall()
                assert rows and ages_out(standby.execute(query, parameters).fetchall()) == ages_out(rows), query
            assert "<svg" in standby.execute("SELECT copymatch.dashboard()").fetchone()[0]
            for refused in (
                "INSERT INTO uploads VALUES ('late', 'ann', NULL)",
                "SELECT copy_confirm(3)",
                "CALL copy_process_queue()",
                "SELECT copy_calibrate('licensed', 'labels')",
            ):
                with sqlstate("25006"):
                    standby.execute(refused)
            # Decided on the primary, seen on the standby.
            db.execute("SELECT copy_dismiss(3, 'a template')")
            primary.wait_for_replica(replica)
            seen = standby.execute("SELECT state, note FROM copymatch.finding WHERE id = 3").fetchone()
            assert seen == ("dismissed", "a template")
    replica.installation.run("pg_ctl", "promote", "-D", replica.data, "-w")
    with replica.connect() as promoted:
        promoted.execute("INSERT INTO uploads VALUES ('after', 'ann', %s)", [jpeg(scene(5), 60)])
        assert promoted.execute(
            "SELECT upload, reference FROM copymatch.finding ORDER BY id DESC LIMIT 1"
        ).fetchone() == ("after", "5")
        promoted.execute("INSERT INTO refs VALUES (6, %s)", [jpeg(scene(6))])
        assert promoted.execute(
            "SELECT reference FROM copy_match(%s, 'licensed', 1)", [jpeg(scene(6), 60)]
        ).fetchone() == ("6",)


@pytest.mark.timeout(180)
def test_logical_subscriber_gets_descriptors_and_findings_and_makes_none_itself(fresh_cluster):
    settings = {"fsync": "off", "wal_level": "logical", "max_logical_replication_workers": "4"}
    publisher, subscriber = fresh_cluster(**settings), fresh_cluster(**settings)
    with publisher.connect() as db, subscriber.connect() as copy:
        prepared(db)
        # The subscriber: the same extension and tables, its own set over them.
        copy.execute("CREATE EXTENSION copymatch; CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
        copy.execute("CREATE TABLE uploads (id text PRIMARY KEY, who text, image bytea)")
        copy.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
        copy.execute(
            "CREATE TRIGGER flag AFTER INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
            "'licensed', 'uploader=who', 'k=1')"
        )
        db.execute("UPDATE refs SET descriptor = (SELECT descriptor FROM refs WHERE id = 3) WHERE id = 1")
        db.execute(
            "CREATE PUBLICATION everything FOR TABLE refs, uploads, copymatch.finding, copymatch.finding_history"
        )
        copy.execute(f"CREATE SUBSCRIPTION everything CONNECTION '{publisher.dsn()}' PUBLICATION everything")

        def caught_up(query: str) -> None:
            deadline = time.monotonic() + 60
            while copy.execute(query).fetchall() != db.execute(query).fetchall():
                assert time.monotonic() < deadline, query
                time.sleep(0.1)

        everything = (
            "SELECT id, image, descriptor::text FROM refs ORDER BY id",
            "SELECT u::text FROM uploads u ORDER BY id",
            # A table's number differs from server to server: the text of regclass is its name.
            "SELECT f::text FROM copymatch.finding f ORDER BY id",
            "SELECT h::text FROM copymatch.finding_history h ORDER BY id",
        )
        for query in everything:
            caught_up(query)
        # What comes later, too: a reference, an upload that the publisher flags, a decision.
        db.execute("INSERT INTO refs VALUES (7, %s)", [jpeg(scene(7))])
        db.execute("INSERT INTO uploads VALUES ('late', 'ben', %s)", [jpeg(scene(7), 60)])
        db.execute("SELECT copy_confirm(max(id)) FROM copymatch.finding")
        for query in everything:
            caught_up(query)
        found = copy.execute("SELECT reference FROM copy_match(%s, 'licensed', 1)", [jpeg(scene(7), 60)]).fetchone()
        assert found == ("7",)
        # Counts are kept by triggers, which replication does not fire.
        copy.execute("SELECT copymatch.recount()")
        daily = "SELECT * FROM copymatch.report_daily ORDER BY 1, 2, 3, 4"
        assert copy.execute(daily).fetchall() == db.execute(daily).fetchall()
        copy.execute("DROP SUBSCRIPTION everything")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("layout", ["recomputed", "filled later"])
def test_logical_subscriber_of_a_publisher_without_descriptors_finds_what_arrives(fresh_cluster, layout):
    """The publisher knows nothing of copymatch. A replicated UPDATE leaves no old descriptor behind either."""
    settings = {"fsync": "off", "wal_level": "logical", "max_logical_replication_workers": "4"}
    publisher, subscriber = fresh_cluster(**settings), fresh_cluster(**settings)
    with publisher.connect() as db, subscriber.connect() as copy:
        db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
        db.execute("INSERT INTO refs VALUES (1, %s)", [jpeg(scene(1))])
        db.execute("CREATE PUBLICATION refs FOR TABLE refs")
        copy.execute("CREATE EXTENSION copymatch; CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
        copy.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
        if layout == "recomputed":
            (trigger,) = copy.execute(
                "SELECT tgname FROM pg_trigger WHERE tgrelid = 'refs'::regclass AND NOT tgisinternal"
            ).fetchone()
            copy.execute(f'ALTER TABLE refs ENABLE ALWAYS TRIGGER "{trigger}"')
        copy.execute(f"CREATE SUBSCRIPTION refs CONNECTION '{publisher.dsn()}' PUBLICATION refs")

        def caught_up() -> None:
            query = "SELECT id, md5(image) FROM refs ORDER BY id"
            deadline = time.monotonic() + 60
            while copy.execute(query).fetchall() != db.execute(query).fetchall():
                assert time.monotonic() < deadline
                time.sleep(0.1)

        caught_up()
        db.execute("INSERT INTO refs VALUES (2, %s)", [jpeg(scene(2))])
        db.execute("UPDATE refs SET image = %s WHERE id = 1", [jpeg(scene(3))])
        caught_up()
        told = copy.execute("SELECT \"check\", message FROM copy_doctor() WHERE state <> 'ok' ORDER BY 1").fetchall()
        assert [row[0] for row in told] == ([] if layout == "recomputed" else ["set", "trigger"])
        assert (
            layout == "recomputed" or "2 have an image and no descriptor" in told[0][1] and "subscription" in told[1][1]
        )
        checked = copy.execute("SELECT * FROM copy_check_set('licensed')").fetchone()
        if layout == "recomputed":
            assert checked == (2, 0, 0, 0)
        else:
            assert checked == (2, 2, 0, 2)
            db.execute("UPDATE refs SET image = %s WHERE id = 1", [jpeg(scene(4))])
            caught_up()
            assert copy.execute("SELECT * FROM copy_check_set('licensed', mend => false)").fetchone() == (2, 0, 1, 0)
            assert copy.execute("SELECT * FROM copy_check_set('licensed')").fetchone() == (2, 0, 1, 1)
        expected = scene(3) if layout == "recomputed" else scene(4)
        found = "SELECT reference, verdict FROM copy_match(%s, 'licensed', 1)"
        assert copy.execute(found, [jpeg(expected, 60)]).fetchone() == ("1", "copy")
        assert copy.execute(found, [jpeg(scene(2), 60)]).fetchone() == ("2", "copy")
        copy.execute("DROP SUBSCRIPTION refs")


def test_only_the_owner_of_its_relation_checks_a_set(fresh_db, sqlstate):
    fresh_db.execute("CREATE ROLE test_checker; GRANT CREATE ON SCHEMA public TO test_checker; SET ROLE test_checker")
    try:
        fresh_db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
        fresh_db.execute("SELECT copy_create_set('mine', 'refs', 'id', 'image')")
        fresh_db.execute("INSERT INTO refs VALUES (1, %s)", [jpeg(scene(1))])
        assert fresh_db.execute("SELECT * FROM copy_check_set('mine')").fetchone() == (1, 0, 0, 0)
        fresh_db.execute("RESET ROLE")
        with sqlstate("42501") as error:
            fresh_db.execute("SELECT * FROM copy_check_set('mine')")
        assert error.value.diag.message_hint == "SET ROLE test_checker"
    finally:
        fresh_db.execute("RESET ROLE; DROP OWNED BY test_checker; DROP ROLE test_checker")
