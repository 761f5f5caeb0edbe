"""Nobody gains rights by flagging: who makes triggers, what the queue may do, whose code runs, what is told to whom."""

import itertools
import json
import time

import pytest
from pictures import jpeg, scene

FINDINGS = "SELECT upload, reference FROM copymatch.finding ORDER BY id"
MEMBERS = """SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass
             AND d.objid = p.oid AND d.deptype = 'e'
             JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
             AND e.extname = 'copymatch' WHERE """
_roles = itertools.count(1)


@pytest.fixture
def world(fresh_db):
    """References 1 to 3 and uploads of a superuser; `owner` and `stranger` are plain roles with a schema each."""
    db = fresh_db
    number = next(_roles)
    owner, stranger = f"rf_owner_{number}", f"rf_stranger_{number}"
    for role in (owner, stranger):
        db.execute(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role}; CREATE SCHEMA {role} AUTHORIZATION {role}")
        db.execute(f"GRANT USAGE ON SCHEMA {role} TO PUBLIC")
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    for seed in range(1, 4):
        db.execute("INSERT INTO refs VALUES (%s, %s)", [seed, jpeg(scene(seed))])
    db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    db.execute("CREATE TABLE uploads (id serial PRIMARY KEY, who text, image bytea)")
    db.owner, db.stranger = owner, stranger
    yield db
    db.execute(f"RESET ROLE; DROP OWNED BY {owner}, {stranger} CASCADE; DROP ROLE {owner}, {stranger}")


def flag(db, *options, table="uploads", key="id", reference_set="licensed", name="f"):
    arguments = ", ".join(f"'{argument}'" for argument in ("image", key, reference_set, "k=1", *options))
    db.execute(
        f"CREATE TRIGGER {name} AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION copy_flag({arguments})"
    )


def test_definer_functions_are_nobodys_and_have_their_path(fresh_db):
    assert not fresh_db.execute(
        MEMBERS + "p.prosecdef AND has_function_privilege('public', p.oid, 'EXECUTE')"
    ).fetchall()
    path = "EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search_path=%')"
    assert not fresh_db.execute(MEMBERS + f"p.prosecdef AND NOT {path}").fetchall()
    assert not fresh_db.execute(
        "SELECT g.table_name FROM information_schema.role_table_grants g WHERE g.table_schema = 'copymatch'"
        " AND g.grantee = 'PUBLIC' AND g.privilege_type <> 'SELECT' AND g.table_name ~ '^(finding|dismissal|queue)'"
    ).fetchall()


@pytest.mark.parametrize(
    ("function", "event"),
    [
        ("keep_history", "UPDATE"),
        ("count_findings", "INSERT"),
        ("count_findings", "DELETE"),
        ("count_findings", "TRUNCATE"),
    ],
)
def test_definer_triggers_serve_no_other_table_even_where_an_old_one_stands(world, sqlstate, function, event):
    """As a trigger that was attached before the update, when everybody might: made here by the superuser."""
    world.execute("CREATE TABLE forged AS SELECT * FROM copymatch.finding")
    world.execute("INSERT INTO forged (id, state, reference_set) VALUES (-1, 'open', 'licensed')")
    tables = {
        "UPDATE": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
        "INSERT": "REFERENCING NEW TABLE AS new_rows",
        "DELETE": "REFERENCING OLD TABLE AS old_rows",
        "TRUNCATE": "",
    }[event]
    world.execute(
        f"CREATE TRIGGER t AFTER {event} ON forged {tables} FOR EACH STATEMENT EXECUTE FUNCTION copymatch.{function}()"
    )
    statement = {
        "UPDATE": "UPDATE forged SET state = 'dismissed'",
        "INSERT": "INSERT INTO forged DEFAULT VALUES",
        "DELETE": "DELETE FROM forged",
        "TRUNCATE": "TRUNCATE forged",
    }[event]
    with sqlstate("42501"):
        world.execute(statement)
    world.execute(f"SET ROLE {world.stranger}")
    with sqlstate("42501"):
        world.execute(
            "CREATE TABLE mine (); CREATE TRIGGER t AFTER TRUNCATE ON mine FOR EACH STATEMENT "
            f"EXECUTE FUNCTION copymatch.{function}()"
        )


@pytest.mark.parametrize("clause", ["TRIGGER", "CONSTRAINT TRIGGER", "OR REPLACE TRIGGER"])
def test_flagging_triggers_are_made_by_the_tables_owner(world, sqlstate, clause):
    world.execute(
        f"GRANT copymatch_admin TO {world.stranger}; GRANT TRIGGER, INSERT ON uploads TO {world.stranger}; "
        f"SET ROLE {world.stranger}"
    )
    with sqlstate("42501") as error:
        world.execute(
            f"CREATE {clause} f AFTER INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
            "'licensed')"
        )
    assert "must be made by the owner" in str(error.value) and "copy_create_flagging" in error.value.diag.message_hint
    with sqlstate("42501") as error:
        world.execute("SELECT copy_create_flagging('uploads', 'image', 'id', 'licensed')")
    world.execute(f"CREATE TABLE {world.stranger}.u (id int, image bytea)")
    world.execute(
        f"CREATE TRIGGER f AFTER INSERT ON {world.stranger}.u FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
        "'licensed')"
    )


def test_created_trigger_is_checked_before_it_is_made(world, sqlstate):
    for arguments, code in [
        ("'uploads', 'nothing', 'id', 'licensed'", "42703"),
        ("'uploads', 'who', 'id', 'licensed'", "42804"),
        ("'uploads', 'image', 'id,none', 'licensed'", "42703"),
        ("'uploads', 'image', 'id', 'none'", "42704"),
        ("'uploads', 'image', 'id', 'licensed', 'none'", "42703"),
        ("'uploads', 'image', 'id', 'licensed', mode => 'later'", "22023"),
        ("'uploads', 'image', 'id', 'licensed', mode => 'async', on_copy => 'reject'", "22023"),
        ("'uploads', 'image', 'id', 'licensed', k => 0", "22023"),
        ("'copymatch.report_open', 'image', 'id', 'licensed'", "42809"),
        ("NULL, 'image', 'id', 'licensed'", "22004"),
    ]:
        with sqlstate(code) as error:
            world.execute(f"SELECT copy_create_flagging({arguments})")
        assert error.value.diag.message_hint or code in ("22004", "42704", "42809"), arguments
    assert world.execute("SELECT count(*) FROM copymatch.flag_triggers()").fetchone()[0] == 0
    assert (
        world.execute("SELECT copy_create_flagging('uploads', 'image', 'id', 'licensed', 'who', k => 1)").fetchone()[0]
        == "flag_licensed"
    )
    world.execute("INSERT INTO uploads (who, image) VALUES ('ann', %s)", [jpeg(scene(2), 60)])
    assert world.execute("SELECT upload, reference, uploader FROM copymatch.finding").fetchall() == [("1", "2", "ann")]


def test_created_trigger_needs_the_owners_right_on_the_references(world, sqlstate):
    world.execute(
        f"CREATE TABLE {world.owner}.u (id int, image bytea); ALTER TABLE {world.owner}.u OWNER TO {world.owner}"
    )
    with sqlstate("42501") as error:
        world.execute(f"SELECT copy_create_flagging('{world.owner}.u', 'image', 'id', 'licensed')")
    assert f"GRANT SELECT ON refs TO {world.owner}" in error.value.diag.message_hint
    # By hand it is made, and the first upload says the same.
    flag(world, table=f"{world.owner}.u")
    with sqlstate("42501") as error:
        world.execute(f"INSERT INTO {world.owner}.u VALUES (1, %s)", [jpeg(scene(1))])
    assert f"GRANT SELECT ON refs TO {world.owner}" in error.value.diag.message_hint


@pytest.mark.parametrize("change", ["DROP TRIGGER f ON uploads", "ALTER TABLE uploads DISABLE TRIGGER f"])
def test_entry_without_its_trigger_does_nothing(world, change):
    flag(world, "mode=async")
    world.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(1), 60)])
    world.execute(change)
    world.execute("CALL copy_process_queue()")
    assert world.execute(FINDINGS).fetchall() == []
    assert "gone, or disabled" in world.execute("SELECT last_error FROM copymatch.queue").fetchone()[0]


def test_entry_takes_what_it_does_from_the_trigger_as_it_stands(world):
    """Even a superuser's forged entry names no other column, set or uploader."""
    world.execute(
        "CREATE TABLE others (id int PRIMARY KEY, image bytea); INSERT INTO others SELECT id + 10, image FROM refs"
    )
    world.execute("SELECT copy_create_set('others', 'others', 'id', 'image')")
    world.execute("INSERT INTO uploads (who, image) VALUES ('secret', %s)", [jpeg(scene(1), 60)])
    flag(world, "mode=async")
    world.execute(
        "INSERT INTO copymatch.queue (relation, key, reference_set, arguments, trigger_relation, trigger_name)"
        " VALUES ('uploads', '{1}', 'others', '{image,id,others,uploader=who,k=1}', 'uploads', 'f')"
    )
    world.execute("CALL copy_process_queue()")
    assert world.execute("SELECT reference_set, reference, uploader FROM copymatch.finding").fetchall() == [
        ("licensed", "1", None)
    ]
    # A renamed trigger is found by its arguments.
    world.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(2), 60)])
    world.execute("ALTER TRIGGER f ON uploads RENAME TO g")
    world.execute("CALL copy_process_queue()")
    assert world.execute(FINDINGS).fetchall()[1:] == [("2", "2")]


@pytest.mark.parametrize(
    "kind", ["bigint USING 81985529216486895", "text USING 'x'", "int USING 7", "name USING 'x'", "tid USING '(0,1)'"]
)
def test_image_column_of_another_type_is_an_error_and_no_crash(world, kind):
    flag(world, "mode=async", key="who")
    world.execute("INSERT INTO uploads (who, image) VALUES ('a', '\\x00')")
    world.execute("ALTER TABLE uploads DROP COLUMN image; ALTER TABLE uploads ADD COLUMN image text DEFAULT ''")
    world.execute(f"ALTER TABLE uploads ALTER image DROP DEFAULT, ALTER image TYPE {kind}")
    world.execute("CALL copy_process_queue()")
    assert "is not of type bytea" in world.execute("SELECT last_error FROM copymatch.queue").fetchone()[0]


def test_superusers_uploads_are_not_matched_with_a_strangers_set(world, sqlstate):
    s = world.stranger
    world.execute(f"SET ROLE {s}; CREATE TABLE {s}.t (id int PRIMARY KEY, image bytea)")
    world.execute("INSERT INTO t VALUES (1, %s)".replace("INTO t", f"INTO {s}.t"), [jpeg(scene(1))])
    world.execute(f"SELECT copy_create_set('theirs', '{s}.t', 'id', 'image'); RESET ROLE")
    flag(world, reference_set="theirs")
    with sqlstate("42501"):
        world.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(1), 60)])
    world.execute("DROP TRIGGER f ON uploads")
    flag(world, "mode=async", reference_set="theirs")
    world.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(1), 60)])
    world.execute("CALL copy_process_queue()")
    assert world.execute(FINDINGS).fetchall() == []
    assert world.execute("SELECT last_error LIKE '%theirs%' FROM copymatch.queue").fetchone()[0]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_uploads_of_one_role_are_matched_with_anothers_set_where_it_is_trusted(world, sqlstate, mode):
    """Between two ordinary roles as well: whoever owns the references has code there that would run
    as the uploads' owner."""
    o, s = world.owner, world.stranger
    world.execute(f"SET ROLE {s}; CREATE TABLE {s}.t (id int PRIMARY KEY, image bytea)")
    world.execute(f"INSERT INTO {s}.t VALUES (1, %s)", [jpeg(scene(1))])
    world.execute(f"SELECT copy_create_set('theirs', '{s}.t', 'id', 'image'); GRANT SELECT ON {s}.t TO {o}; RESET ROLE")
    world.execute(f"CREATE TABLE {o}.u (id serial, image bytea); ALTER TABLE {o}.u OWNER TO {o}")

    def upload():
        world.execute(f"INSERT INTO {o}.u (image) VALUES (%s)", [jpeg(scene(1), 60)])
        world.execute("CALL copy_process_queue()")
        return world.execute("SELECT count(*) FROM copymatch.finding").fetchone()[0]

    with sqlstate("42501") as error:
        world.execute(f"SELECT copy_create_flagging('{o}.u', 'image', 'id', 'theirs')")
    assert "copy_alter_set('theirs', trusted => true)" in error.value.diag.message_hint
    flag(world, f"mode={mode}", table=f"{o}.u", reference_set="theirs")
    if mode == "sync":
        with sqlstate("42501") as error:
            upload()
        assert f'role "{o}"' in error.value.diag.message_detail and "trusted => true" in error.value.diag.message_hint
        found = 0
    else:
        found = upload()
        assert "trusted => true" in world.execute("SELECT last_error FROM copymatch.queue").fetchone()[0]
        world.execute("DELETE FROM copymatch.queue")
    assert found == 0
    world.execute("SELECT copy_alter_set('theirs', trusted => true)")
    assert upload() == 1
    # Trust is bound to the owner: with another one it is gone.
    world.execute(f"CREATE ROLE {s}_2; ALTER TABLE {s}.t OWNER TO {s}_2; GRANT USAGE ON SCHEMA {s} TO {s}_2")
    try:
        if mode == "sync":
            with sqlstate("42501"):
                upload()
        else:
            assert upload() == 1
            assert world.execute("SELECT count(last_error) FROM copymatch.queue").fetchone()[0] == 1
    finally:
        world.execute(f"ALTER TABLE {s}.t OWNER TO {s}; DROP OWNED BY {s}_2; DROP ROLE {s}_2")
    # A member of the references' role trusts it anyway.
    world.execute("SELECT copy_alter_set('theirs', trusted => false); DELETE FROM copymatch.queue")
    world.execute(f"GRANT {s} TO {o}")
    assert upload() == 2


def test_uploader_is_what_the_owner_may_read(world, sqlstate):
    table = f"{world.owner}.u"
    world.execute(f"CREATE TABLE {table} (id int, who text, image bytea); ALTER TABLE {table} OWNER TO {world.owner}")
    world.execute(f"GRANT SELECT ON refs TO {world.owner}; REVOKE SELECT ON {table} FROM {world.owner}")
    world.execute(f"GRANT SELECT (id, image) ON {table} TO {world.owner}")
    flag(world, "uploader=who", table=table)
    with sqlstate("42501"):
        world.execute(f"INSERT INTO {table} VALUES (1, 'secret', %s)", [jpeg(scene(1), 60)])


def test_refusal_names_the_reference_only_to_who_may_read_it(world, sqlstate):
    world.execute(
        f"GRANT INSERT ON uploads TO {world.stranger}; GRANT USAGE ON SEQUENCE uploads_id_seq TO {world.stranger}"
    )
    flag(world, "on_copy=reject")
    for grant, told in [
        ("SELECT 1", False),
        (f"GRANT SELECT ON refs TO {world.stranger}", True),
        ("ALTER TABLE refs ENABLE ROW LEVEL SECURITY", False),
    ]:
        world.execute(grant)
        world.execute(f"SET ROLE {world.stranger}")
        with sqlstate("23514") as error:
            world.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(2), 60)])
        diag = error.value.diag
        assert ("reference 2 of set" in diag.message_primary, bool(diag.message_detail)) == (told, told)
        world.execute("RESET ROLE")


def test_errors_of_the_queue_show_no_values_of_rows(world):
    """A row's own value in PostgreSQL's error text, and an image's first bytes."""

    world.execute(
        "CREATE VIEW failing AS SELECT id, ('secret of row' || id)::int AS n, descriptor FROM refs "
        "WHERE ('secret of row' || id)::int > 0"
    )
    world.execute("SELECT copy_create_set('failing', 'failing', 'id', NULL)")
    flag(world, "mode=async", reference_set="failing")
    world.execute("INSERT INTO uploads (image) VALUES (%s), ('secret bytes')", [jpeg(scene(1), 60)])
    world.execute("CALL copy_process_queue()")
    errors = [row[0] for row in world.execute("SELECT last_error FROM copymatch.queue ORDER BY id")]
    assert len(errors) == 2 and not any("secret" in error or "73 65 63" in error for error in errors)
    assert "22P02" in errors[0] and "server's log" in errors[0] and "not recognised" in errors[1]


def test_slow_set_does_not_stall_the_others(world):
    world.execute("CREATE VIEW sleepy AS SELECT id, descriptor FROM refs WHERE pg_sleep(600) IS NULL")
    world.execute(
        "INSERT INTO copymatch.reference_set (name, relation, key_column, descriptor_column, model, calibration) "
        "SELECT 'sleepy', 'sleepy', 'id', 'descriptor', model, calibration FROM copymatch.reference_set"
    )
    world.execute("CREATE TABLE stalled (id serial, image bytea)")
    flag(world, "mode=async", table="stalled", reference_set="sleepy")
    flag(world, "mode=async")
    world.execute("INSERT INTO stalled (image) SELECT %s FROM generate_series(1, 20)", [jpeg(scene(1), 60)])
    world.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(2), 60)])
    began = time.monotonic()
    world.execute("CALL copy_process_queue(64, 1)")
    assert time.monotonic() - began < 25, "one upload of the slow trigger was tried, the other nineteen wait"
    assert world.execute(FINDINGS).fetchall() == [("1", "2")]
    assert world.execute(
        "SELECT count(*), count(last_error), bool_or(last_error LIKE '%queue_time_limit%') FROM copymatch.queue"
    ).fetchone() == (20, 1, True)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("stamp", ["2026-03-29 03:30:00+02", "infinity", "-infinity"]),
        ("stamp_of_stamp", ["2026-03-29 03:30:00+02"]),
        ("timestamptz", ["infinity", "0044-03-15 12:00:00 BC"]),
        ("mood", ["sad", "o''k"]),
        ("interval", ["1 day -02:03:04"]),
        ("bytea", ["\\x0102ff"]),
        ("float8", ["0.1", "NaN", "1e300"]),
        ("char(5)", ["ab"]),
        ("numeric", ["1.10"]),
        ("int4range", ["[1,5)"]),
        ("inet", ["10.0.0.1/8"]),
        ("date", ["2026-02-03"]),
        ("text[]", ['{a,NULL,"b c"}']),
    ],
)
def test_key_has_one_text_whoever_writes_it(world, kind, values):
    """At once, through the queue and by copy_flag_existing, under three sets of formats: one finding an upload."""
    world.execute(
        "CREATE DOMAIN stamp AS timestamptz; CREATE DOMAIN stamp_of_stamp AS stamp; "
        "CREATE TYPE mood AS ENUM ('sad', 'o''k')"
    )
    world.execute(f"CREATE TABLE odd (k {kind}, image bytea)")
    flag(world, table="odd", key="k", name="now")
    flag(world, "mode=async", table="odd", key="k", name="later")
    for value in values:
        world.execute(f"INSERT INTO odd VALUES ('{value}', %s)", [jpeg(scene(2), 60)])
    formats = (
        "RESET ALL",
        "SET timezone = 'Europe/Berlin'; SET datestyle = 'SQL, DMY'; SET intervalstyle = sql_standard; SET "
        "bytea_output = escape; SET extra_float_digits = -5",
        "SET timezone = 'Asia/Kathmandu'; SET datestyle = 'German'; SET intervalstyle = iso_8601",
    )
    for settings in formats:
        world.execute(settings)
        world.execute("UPDATE odd SET image = %s", [jpeg(scene(2), 50)])
        world.execute("SELECT copy_flag_existing('odd')")
        world.execute("CALL copy_process_queue()")
    world.execute("RESET ALL")
    assert world.execute("SELECT count(*) FROM copymatch.queue").fetchone()[0] == 0, world.execute(
        "SELECT last_error FROM copymatch.queue"
    ).fetchall()
    assert world.execute("SELECT count(*), count(DISTINCT upload) FROM copymatch.finding").fetchone() == (
        len(values),
        len(values),
    )


def test_existing_uploads_are_read_as_their_owner_where_the_caller_may_act_as_such(world, sqlstate):
    """A superuser who calls it runs no code of the table's owner: here an index expression and a policy."""
    o = world.owner
    world.execute(f"GRANT SELECT ON refs TO {o}; GRANT copymatch_admin TO {o}; SET ROLE {o}")
    world.execute(f"CREATE TABLE {o}.u (id int, image bytea); CREATE TABLE {o}.ran (who name)")
    world.execute(
        f"CREATE FUNCTION {o}.note(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN INSERT INTO {o}.ran "
        "VALUES (current_user); RETURN true; EXCEPTION WHEN OTHERS THEN RETURN true; END $$"
    )
    world.execute(f"GRANT INSERT ON {o}.ran TO PUBLIC")
    world.execute(f"CREATE INDEX ON {o}.u (id) WHERE {o}.note(1)")
    flag(world, "mode=async", table=f"{o}.u")
    world.execute(f"INSERT INTO {o}.u VALUES (1, %s)", [jpeg(scene(1), 60)])
    world.execute(f"RESET ROLE; TRUNCATE {o}.ran")
    world.execute(f"SELECT copy_flag_existing('{o}.u')")
    world.execute("CALL copy_process_queue()")
    assert {row[0] for row in world.execute(f"SELECT who FROM {o}.ran")} <= {o}
    assert world.execute(FINDINGS).fetchall() == [("1", "1")]


def test_policies_on_findings_reach_history_dismissals_and_queue(world):
    flag(world, "uploader=who")
    world.execute(
        "INSERT INTO uploads (who, image) VALUES ('ann', %s), ('bob', %s)", [jpeg(scene(1), 60), jpeg(scene(2), 60)]
    )
    world.execute("SELECT copy_dismiss(id, 'note on ' || uploader, true) FROM copymatch.finding")
    world.execute("DROP TRIGGER f ON uploads")
    flag(world, "mode=async")
    world.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(3), 60)])
    world.execute(f"GRANT copymatch_reader TO {world.stranger}")
    seen = (
        "SELECT (SELECT count(*) FROM copymatch.finding_history), (SELECT count(DISTINCT finding) "
        "FROM copymatch.dismissal), (SELECT count(*) FROM copymatch.queue)"
    )

    def as_stranger():
        world.execute(f"SET ROLE {world.stranger}")
        row = world.execute(seen).fetchone()
        world.execute("RESET ROLE")
        return row

    assert as_stranger() == (2, 2, 1)
    world.execute(
        "ALTER TABLE copymatch.finding ENABLE ROW LEVEL SECURITY; "
        f"CREATE POLICY p ON copymatch.finding TO {world.stranger} USING (uploader = 'ann')"
    )
    assert as_stranger() == (1, 1, 0)
    world.execute("ALTER TABLE copymatch.finding DISABLE ROW LEVEL SECURITY; DELETE FROM copymatch.finding")
    assert as_stranger() == (2, 2, 1), "what reviewers did stays on record"
    world.execute("ALTER TABLE uploads ENABLE ROW LEVEL SECURITY")
    assert as_stranger() == (2, 2, 0)


def test_notification_is_the_id_or_nothing(world):
    flag(world)
    world.execute("LISTEN copymatch_finding")
    world.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(1), 60)])
    (notice,) = world.notifies(timeout=5, stop_after=1)
    assert json.loads(notice.payload) == {"id": world.execute("SELECT id FROM copymatch.finding").fetchone()[0]}
    world.execute("DROP TRIGGER f ON uploads")
    flag(world, "notify=off")
    world.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(2), 60)])
    assert not list(world.notifies(timeout=0.2))
    assert len(world.execute(FINDINGS).fetchall()) == 2


def test_workers_leave_slots_to_others_and_can_be_stopped(world, sqlstate):
    running = (
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'copymatch queue worker' "
        "AND datname = current_database()"
    )
    try:
        with sqlstate("53400") as error, world.transaction():
            for _ in range(20):
                world.execute("SELECT copy_start_worker()")
        assert "copy_stop_worker" in error.value.diag.message_hint
        assert world.execute(running).fetchone()[0] <= 2
    finally:
        world.execute("SELECT copy_stop_worker()")
    deadline = time.monotonic() + 20
    while world.execute(running).fetchone()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_queue_is_refused_inside_a_transaction_before_it_works(world, sqlstate):
    flag(world, "mode=async")
    world.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(1), 60)])
    with sqlstate("25001") as error, world.transaction():
        world.execute("CALL copy_process_queue()")
    assert "autocommit" in error.value.diag.message_hint
    assert world.execute("SELECT attempts FROM copymatch.queue").fetchone()[0] == 0


def test_cancelled_work_counts_as_no_try(world, sqlstate):
    world.execute("CREATE VIEW slow AS SELECT id, descriptor FROM refs WHERE pg_sleep(3) IS NOT NULL")
    world.execute(
        "INSERT INTO copymatch.reference_set (name, relation, key_column, descriptor_column, model, calibration) "
        "SELECT 'slow', 'slow', 'id', 'descriptor', model, calibration FROM copymatch.reference_set"
    )
    flag(world, "mode=async", reference_set="slow")
    world.execute("INSERT INTO uploads (image) VALUES (%s)", [jpeg(scene(1), 60)])
    for _ in range(4):
        world.execute("SET statement_timeout = '700ms'; UPDATE copymatch.queue SET next_try = now()")
        with sqlstate("57014"):
            world.execute("CALL copy_process_queue()")
        world.execute("RESET statement_timeout")
    assert world.execute("SELECT state, attempts FROM copymatch.queue").fetchone() == ("waiting", 0)
