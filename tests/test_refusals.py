"""Uploads that a trigger with on_copy=reject refuses: the record that outlives the refused transaction, and its release
by a reviewer."""

import json
import threading
import time

import psycopg
import pytest
from pictures import jpeg, scene

ROWS = "SELECT upload, uploader, reference, times, state FROM copymatch.refusal ORDER BY id"


@pytest.fixture
def uploads(db):
    """References 1 to 6 in set `licensed`, and an empty table of uploads without a trigger."""
    db.execute("CREATE TABLE refs (id serial PRIMARY KEY, image bytea)")
    for seed in range(1, 7):
        db.execute("INSERT INTO refs (image) VALUES (%s)", [jpeg(scene(seed))])
    db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    db.execute("CREATE TABLE uploads (id serial PRIMARY KEY, user_id text, image bytea)")
    yield db
    db.execute("RESET ROLE; DELETE FROM copymatch.refusal; DELETE FROM copymatch.finding")
    db.execute("DELETE FROM copymatch.reference_set")


def flag(db, *options: str, timing: str = "AFTER", uploader: str = "user_id", k: int = 1):
    arguments = ["image", "id", "licensed", f"k={k}", "on_copy=reject", *options]
    if uploader:
        arguments.append(f"uploader={uploader}")
    db.execute(
        f"CREATE TRIGGER flag_copies {timing} INSERT OR UPDATE ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag("
        + ", ".join(f"'{argument}'" for argument in arguments)
        + ")"
    )


def upload(db, seed: int, user: str = "ann", quality: int = 60):
    """An upload that is a copy of reference `seed`, where there is one."""
    db.execute("INSERT INTO uploads (user_id, image) VALUES (%s, %s)", [user, jpeg(scene(seed), quality)])


def refused(db, sqlstate, *arguments, **named) -> int:
    """Has an upload refused, and gives the number that the error names."""
    with sqlstate("23514") as error:
        upload(db, *arguments, **named)
    hint = error.value.diag.message_hint
    assert hint.startswith("This is refusal "), hint
    return int(hint.split()[3])


@pytest.mark.parametrize("timing", ["BEFORE", "AFTER"])
def test_refused_upload_is_on_record_and_passes_once_released(uploads, sqlstate, timing):
    flag(uploads, timing=timing)
    number = refused(uploads, sqlstate, 4)
    assert uploads.execute("SELECT count(*) FROM uploads").fetchone()[0] == 0
    row = uploads.execute(
        """SELECT r.reference_set, r.relation::text, r.trigger_name, r.upload, r.uploader, r.written_by, r.login,
                  r.reference, r.further_references, r.state, r.image_sha256 = sha256(%s), r.set_id = s.id,
                  r.model = s.model, r.calibration = s.calibration, r.last_refused > now() - interval '1 minute'
           FROM copymatch.refusal r, copymatch.reference_set s WHERE r.id = %s""",
        [jpeg(scene(4), 60), number],
    ).fetchone()
    assert row == ("licensed", "uploads", "flag_copies", "1", "ann", "postgres", "postgres", "4", [], "refused",
                   True, True, True, True, True)  # fmt: skip
    figures = "SELECT similarity, background, score, probability FROM"
    assert (
        uploads.execute(f"{figures} copymatch.refusal").fetchall()
        == uploads.execute(f"{figures} copy_match(%s, 'licensed', k => 1)", [jpeg(scene(4), 60)]).fetchall()
    )
    uploads.execute("SELECT copy_release(%s, 'has a licence')", [number])
    upload(uploads, 4)
    assert uploads.execute("SELECT id, user_id FROM uploads").fetchall() == [(2, "ann")], "under another key"
    assert uploads.execute("SELECT count(*) FROM copymatch.finding").fetchone()[0] == 0
    assert uploads.execute(
        "SELECT refusal, changed_by, login, from_state, to_state, note FROM copymatch.refusal_history"
    ).fetchall()[-1] == (number, "postgres", "postgres", "refused", "released", "has a licence")
    # Neither does it pass of somebody else, nor another picture of the same reference.
    refused(uploads, sqlstate, 4, "bob")
    assert refused(uploads, sqlstate, 4, quality=50) != number


def test_the_record_outlives_whatever_is_rolled_back(uploads, sqlstate):
    flag(uploads)
    with pytest.raises(psycopg.errors.CheckViolation), uploads.transaction():
        uploads.execute("INSERT INTO uploads (user_id) VALUES ('before')")
        upload(uploads, 1)
    with uploads.transaction():
        with pytest.raises(psycopg.errors.CheckViolation), uploads.transaction():
            upload(uploads, 2)
        uploads.execute("INSERT INTO uploads (user_id) VALUES ('outside')")
    uploads.execute("CREATE FUNCTION quiet(bytea) RETURNS text LANGUAGE plpgsql AS $$ BEGIN "
                    "INSERT INTO uploads (user_id, image) VALUES ('bob', $1); RETURN 'passed'; "
                    "EXCEPTION WHEN check_violation THEN RETURN SQLERRM; END $$")  # fmt: skip
    told = uploads.execute("SELECT quiet(%s)", [jpeg(scene(3), 60)]).fetchone()[0]
    assert "is a copy of reference 3" in told
    assert uploads.execute("SELECT user_id FROM uploads").fetchall() == [("outside",)]
    assert [row[1:3] for row in uploads.execute(ROWS)] == [("ann", "1"), ("ann", "2"), ("bob", "3")]


def test_the_same_image_again_is_counted_and_of_somebody_else_a_row(uploads, sqlstate):
    flag(uploads)
    first = refused(uploads, sqlstate, 5)
    assert refused(uploads, sqlstate, 5) == first
    other = refused(uploads, sqlstate, 5, "bob")
    assert other != first
    assert uploads.execute(ROWS).fetchall() == [
        ("2", "ann", "5", 2, "refused"),
        ("3", "bob", "5", 1, "refused"),
    ]


def test_release_for_an_uploader_holds_for_all_that_this_one_has_of_the_reference(uploads, sqlstate):
    flag(uploads)
    number = refused(uploads, sqlstate, 1)
    uploads.execute("SELECT copy_release(%s, for_uploader => true)", [number])
    upload(uploads, 1)
    upload(uploads, 1, quality=40)
    refused(uploads, sqlstate, 1, "bob")
    refused(uploads, sqlstate, 2)
    uploads.execute("SELECT copy_withdraw_release(%s, 'the licence ended')", [number])
    assert refused(uploads, sqlstate, 1) == number
    assert [
        row[0] for row in uploads.execute("SELECT to_state FROM copymatch.refusal_history WHERE refusal = %s", [number])
    ] == ["released", "refused"]


def test_release_is_for_the_references_that_were_on_record(uploads, sqlstate):
    flag(uploads, k=10)
    number = refused(uploads, sqlstate, 6)
    uploads.execute("SELECT copy_release(%s)", [number])
    upload(uploads, 6)
    uploads.execute("INSERT INTO refs (image) VALUES (%s)", [jpeg(scene(6), 80)])
    other = refused(uploads, sqlstate, 6)
    assert uploads.execute("SELECT reference FROM copymatch.refusal WHERE id = %s", [other]).fetchone() == ("7",)
    uploads.execute("SELECT copy_release(%s)", [other])
    upload(uploads, 6)
    # One row where both are copies from the start.
    uploads.execute("INSERT INTO refs (image) VALUES (%s)", [jpeg(scene(2), 80)])
    both = refused(uploads, sqlstate, 2)
    reference, further = uploads.execute(
        "SELECT reference, further_references FROM copymatch.refusal WHERE id = %s", [both]
    ).fetchone()
    assert {reference, *further} == {"2", "8"}
    uploads.execute("SELECT copy_release(%s)", [both])
    upload(uploads, 2)


def test_release_does_not_hold_for_another_set_of_the_name(uploads, sqlstate):
    flag(uploads)
    number = refused(uploads, sqlstate, 1)
    uploads.execute("SELECT copy_release(%s)", [number])
    upload(uploads, 1)
    uploads.execute("SELECT copy_drop_set('licensed')")
    uploads.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    assert refused(uploads, sqlstate, 1) != number


def test_review_says_who_was_quicker_and_what_is_not_there(uploads, sqlstate):
    flag(uploads, uploader="")
    number = refused(uploads, sqlstate, 1)
    for call, code, part in [
        ("copy_withdraw_release({})", "55000", "has not been released"),
        ("copy_release({}, for_uploader => true)", "55000", "has no uploader"),
        ("copy_release(-1)", "P0002", "there is no refusal -1"),
        ("copy_withdraw_release(-1)", "P0002", "there is no refusal -1"),
        ("copy_release(NULL)", "P0002", "there is no refusal"),
    ]:
        with sqlstate(code) as error:
            uploads.execute("SELECT " + call.format(number))
        assert part in str(error.value) and error.value.diag.message_hint
    uploads.execute("SELECT copy_release(%s)", [number])
    with sqlstate("55000") as error:
        uploads.execute("SELECT copy_release(%s)", [number])
    assert f"refusal {number} was released by postgres" in str(error.value)
    uploads.execute("SELECT copy_withdraw_release(%s)", [number])
    with sqlstate("55000") as error:
        uploads.execute("SELECT copy_withdraw_release(%s)", [number])
    assert f"refusal {number} was withdrawn by postgres" in str(error.value)


def test_nothing_but_the_release_changes_and_the_history_never_does(uploads, sqlstate):
    flag(uploads)
    number = refused(uploads, sqlstate, 1)
    uploads.execute("SELECT copy_release(%s)", [number])
    for change in ("reference = '2'", "uploader = NULL", "image_sha256 = sha256('')", "set_id = 0", "refused = now()",
                   "note = 'another'", "changed_by = 'ann'", "for_uploader = true"):  # fmt: skip
        with sqlstate("55000") as error:
            uploads.execute(f"UPDATE copymatch.refusal SET {change}")
        assert error.value.diag.message_hint, change
    for change in ("UPDATE copymatch.refusal_history SET note = ''", "DELETE FROM copymatch.refusal_history",
                   "TRUNCATE copymatch.refusal_history"):  # fmt: skip
        with sqlstate("55000"):
            uploads.execute(change)


def test_who_may_see_and_release(uploads, sqlstate):
    flag(uploads)
    number = refused(uploads, sqlstate, 1)
    uploads.execute("CREATE ROLE refusal_writer; CREATE ROLE refusal_reader IN ROLE copymatch_reader; "
                    "CREATE ROLE refusal_reviewer IN ROLE copymatch_reviewer")  # fmt: skip
    schema = uploads.execute("SELECT current_schema").fetchone()[0]
    roles = "refusal_writer, refusal_reader, refusal_reviewer"
    try:
        uploads.execute(f"GRANT USAGE ON SCHEMA {schema} TO {roles}; GRANT INSERT ON uploads TO refusal_writer; "
                        "GRANT USAGE ON SEQUENCE uploads_id_seq TO refusal_writer")  # fmt: skip
        uploads.execute("SET ROLE refusal_writer")
        own = refused(uploads, sqlstate, 2)
        for statement in ("SELECT FROM copymatch.refusal", f"SELECT copy_release({own})",
                          f"SELECT copy_withdraw_release({own})", "SELECT FROM copymatch.refusal_history",
                          "SELECT copymatch.record_refusal('{}', false)",
                          "SELECT copymatch.released_references(0, 0, '', '')",
                          "SET copymatch.record_refusals = off"):  # fmt: skip
            with sqlstate("42501"):
                uploads.execute(statement)
        uploads.execute("SET ROLE refusal_reader")
        assert uploads.execute("SELECT written_by, login FROM copymatch.refusal WHERE id = %s", [own]).fetchone() == (
            "refusal_writer",
            "postgres",
        )
        for statement in (f"SELECT copy_release({own})", "UPDATE copymatch.refusal SET state = 'released'"):
            with sqlstate("42501"):
                uploads.execute(statement)
        uploads.execute("SET ROLE refusal_reviewer")
        uploads.execute(f"SELECT copy_release({own}, 'fine')")
        assert uploads.execute("SELECT changed_by FROM copymatch.refusal WHERE id = %s", [own]).fetchone() == (
            "refusal_reviewer",
        )
        for statement in ("INSERT INTO copymatch.refusal_history DEFAULT VALUES", "DELETE FROM copymatch.refusal",
                          "UPDATE copymatch.refusal SET reference = '3'",
                          "UPDATE copymatch.refusal SET changed_by = 'ann'"):  # fmt: skip
            with sqlstate("42501"):
                uploads.execute(statement)
        uploads.execute("SET ROLE refusal_writer")
        upload(uploads, 2)
        # A policy on findings hides what it could not be asked about; one on refusals shows them.
        uploads.execute("RESET ROLE; ALTER TABLE copymatch.finding ENABLE ROW LEVEL SECURITY")
        uploads.execute("SET ROLE refusal_reviewer")
        assert uploads.execute("SELECT count(*) FROM copymatch.refusal").fetchone()[0] == 0
        with sqlstate("P0002"):
            uploads.execute(f"SELECT copy_release({number})")
        uploads.execute("RESET ROLE; CREATE POLICY press ON copymatch.refusal TO refusal_reviewer "
                        "USING (reference = '2'); SET ROLE refusal_reviewer")  # fmt: skip
        assert uploads.execute("SELECT id FROM copymatch.refusal").fetchall() == [(own,)]
        assert uploads.execute("SELECT DISTINCT refusal FROM copymatch.refusal_history").fetchall() == [(own,)]
    finally:
        uploads.execute("RESET ROLE; DROP POLICY IF EXISTS press ON copymatch.refusal; "
                        "ALTER TABLE copymatch.finding DISABLE ROW LEVEL SECURITY; "
                        f"DROP OWNED BY {roles}; DROP ROLE {roles}")  # fmt: skip


def test_definer_trigger_serves_no_other_table(uploads, sqlstate):
    uploads.execute("CREATE TABLE forged (LIKE copymatch.refusal)")
    uploads.execute("CREATE TRIGGER t AFTER UPDATE ON forged FOR EACH ROW "
                    "EXECUTE FUNCTION copymatch.keep_refusal_history()")  # fmt: skip
    flag(uploads)
    refused(uploads, sqlstate, 1)
    uploads.execute("INSERT INTO forged SELECT * FROM copymatch.refusal")
    with sqlstate("42501"):
        uploads.execute("UPDATE forged SET state = 'released'")


def test_listener_is_told_the_number_alone(uploads, sqlstate):
    flag(uploads)
    uploads.execute("LISTEN copymatch_refusal")
    number = refused(uploads, sqlstate, 3)
    payloads = [json.loads(n.payload) for n in uploads.notifies(timeout=5, stop_after=1)]
    assert payloads == [{"id": number}]


def test_what_is_not_recorded_is_refused_all_the_same_and_says_why(uploads, sqlstate):
    flag(uploads)
    uploads.execute("SET copymatch.record_refusals = off")
    with sqlstate("23514") as error:
        upload(uploads, 1)
    assert "refusal" not in error.value.diag.message_hint
    uploads.execute("RESET copymatch.record_refusals")
    # Nobody else sees a table that is not committed.
    with sqlstate("23514") as error, uploads.transaction():
        uploads.execute("CREATE TABLE early (id int, image bytea)")
        uploads.execute("SELECT copy_create_flagging('early', 'image', 'id', 'licensed', on_copy => 'reject')")
        uploads.execute("INSERT INTO early VALUES (1, %s)", [jpeg(scene(1), 60)])
    assert "made by the same transaction" in error.value.diag.message_hint
    # The worker cannot have the lock that this transaction holds.
    with sqlstate("23514") as error, uploads.transaction():
        uploads.execute("LOCK TABLE copymatch.refusal")
        upload(uploads, 1)
    assert "not on record" in error.value.diag.message_hint
    assert uploads.execute("SELECT count(*) FROM copymatch.refusal").fetchone()[0] == 0
    refused(uploads, sqlstate, 1)


def test_waiting_for_the_record_can_be_cancelled(uploads, sqlstate):
    flag(uploads)
    with pytest.raises(psycopg.errors.CheckViolation):
        upload(uploads, 1)
    uploads.execute("DELETE FROM copymatch.refusal")
    with sqlstate("57014"), uploads.transaction():
        uploads.execute("LOCK TABLE copymatch.refusal")
        uploads.execute("SET LOCAL statement_timeout = 1000")
        began = time.monotonic()
        upload(uploads, 1)
    assert time.monotonic() - began < 30
    refused(uploads, sqlstate, 1)


def test_many_sessions_are_refused_at_once_and_no_worker_stays(uploads, connect, sqlstate):
    flag(uploads)
    schema = uploads.execute("SELECT current_schema").fetchone()[0]
    hints = []

    def work(user: str):
        with connect(uploads.info.dbname) as session:
            session.execute(f"SET search_path = {schema}, public")
            for seed in range(1, 4):
                try:
                    upload(session, seed, user)
                except psycopg.errors.CheckViolation as error:
                    hints.append(error.diag.message_hint)

    threads = [threading.Thread(target=work, args=[f"user {n}"]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hints) == 24
    told = {hint.split()[3] for hint in hints if hint.startswith("This is refusal ")}
    rows = {str(row[0]) for row in uploads.execute("SELECT id FROM copymatch.refusal")}
    # Background workers are few: whoever found none free for three seconds was told so.
    assert told and told <= rows and len(told) + sum("not on record" in hint for hint in hints) == 24
    for _ in range(100):
        left = uploads.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'copymatch refusal recorder'"
        ).fetchone()[0]
        if not left:
            break
        time.sleep(0.1)
    assert left == 0


def test_refusals_go_with_their_table(uploads, sqlstate):
    flag(uploads)
    number = refused(uploads, sqlstate, 1)
    uploads.execute("SELECT copy_release(%s)", [number])
    uploads.execute("DROP TABLE uploads")
    assert uploads.execute("SELECT count(*) FROM copymatch.refusal").fetchone()[0] == 0
    assert uploads.execute(
        "SELECT count(*) FROM copymatch.refusal_history WHERE refusal = %s", [number]
    ).fetchone() == (1,)


def test_partition_is_an_upload_of_the_partitioned_table(uploads, sqlstate):
    uploads.execute("CREATE TABLE parts (id int, user_id text, image bytea) PARTITION BY LIST (id)")
    uploads.execute("CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1); "
                    "CREATE TABLE part_2 PARTITION OF parts FOR VALUES IN (2)")  # fmt: skip
    uploads.execute("SELECT copy_create_flagging('parts', 'image', 'id', 'licensed', on_copy => 'reject')")
    image = jpeg(scene(1), 60)
    with sqlstate("23514") as error:
        uploads.execute("INSERT INTO parts VALUES (1, 'ann', %s)", [image])
    number = int(error.value.diag.message_hint.split()[3])
    assert uploads.execute("SELECT relation::text FROM copymatch.refusal").fetchall() == [("parts",)]
    uploads.execute("SELECT copy_release(%s)", [number])
    uploads.execute("INSERT INTO parts VALUES (2, 'ann', %s)", [image])


def test_dump_and_restore_keep_refusals_and_releases(server, new_db, connect, sqlstate):
    source, target = new_db(), new_db(extension=False)
    with connect(source) as first:
        first.execute("CREATE TABLE refs (id serial PRIMARY KEY, image bytea)")
        for seed in (1, 2):
            first.execute("INSERT INTO refs (image) VALUES (%s)", [jpeg(scene(seed))])
        first.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
        first.execute("CREATE TABLE uploads (id serial PRIMARY KEY, user_id text, image bytea)")
        flag(first)
        number = refused(first, sqlstate, 1)
        refused(first, sqlstate, 2)
        first.execute("SELECT copy_release(%s)", [number])
        rows = first.execute("SELECT r::text FROM copymatch.refusal r ORDER BY id").fetchall()
        history = first.execute("SELECT h::text FROM copymatch.refusal_history h ORDER BY id").fetchall()
    server.run(
        "/bin/bash", "-c",
        f"set -o pipefail; {server.bin}/pg_dump -d '{server.dsn(source)}' | {server.bin}/psql -qX -v "
        f"ON_ERROR_STOP=1 -d '{server.dsn(target)}'",
    )  # fmt: skip
    with connect(target) as second:
        assert second.execute("SELECT r::text FROM copymatch.refusal r ORDER BY id").fetchall() == rows
        assert second.execute("SELECT h::text FROM copymatch.refusal_history h ORDER BY id").fetchall() == history
        upload(second, 1)
        refused(second, sqlstate, 2)
