"""Uploads flagged as they arrive: the trigger in its three forms, what it does with rights, renames,
odd names and bad images."""

import json

import pytest
from pictures import blank, jpeg, scene

FINDINGS = "SELECT upload, reference, verdict, state FROM copymatch.finding ORDER BY id"


@pytest.fixture
def uploads(db):
    """References 1 to 6 in set `licensed`, and an empty table of uploads without a trigger."""
    db.execute("CREATE TABLE refs (id serial PRIMARY KEY, image bytea)")
    for seed in range(1, 7):
        db.execute("INSERT INTO refs (image) VALUES (%s)", [jpeg(scene(seed))])
    db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    db.execute("CREATE TABLE uploads (id serial PRIMARY KEY, user_id text, title text, image bytea)")
    yield db
    db.execute(
        "RESET ROLE; DELETE FROM copymatch.queue; DELETE FROM copymatch.dismissal; DELETE FROM copymatch.finding"
    )
    db.execute("DELETE FROM copymatch.reference_set")


def flag(db, *options: str, timing: str = "AFTER", table: str = "uploads", key: str = "id"):
    """Makes the trigger. `k=1`: these drawn pictures resemble each other, and one finding an
    upload is easier to read."""
    arguments = ", ".join(
        "'" + argument.replace("'", "''") + "'" for argument in ("image", key, "licensed", "k=1", *options)
    )
    db.execute(
        f"CREATE TRIGGER flag_copies {timing} INSERT OR UPDATE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION copy_flag({arguments})"
    )


def upload(db, seed: int, user: str = "ann"):
    """An upload that is a copy of reference `seed`, where there is one."""
    db.execute("INSERT INTO uploads (user_id, image) VALUES (%s, %s)", [user, jpeg(scene(seed), 60)])


def test_copy_is_recorded_with_its_figures_and_the_listener_is_told(uploads):
    flag(uploads, "uploader=user_id")
    uploads.execute("LISTEN copymatch_finding")
    upload(uploads, 3)
    row = uploads.execute(
        """SELECT f.id, f.reference_set, f.relation::text, f.upload, f.reference, f.verdict, f.uploader, f.state,
                  f.model = s.model,
                  f.calibration = s.calibration, m.similarity = f.similarity AND m.score = f.score
                  AND m.probability = f.probability
           FROM copymatch.finding f, copymatch.reference_set s, uploads u, copy_match(u.image, k => 1) m"""
    ).fetchone()
    assert row[1:] == ("licensed", "uploads", "1", "3", "copy", "ann", "open", True, True, True)
    payloads = [json.loads(n.payload) for n in uploads.notifies(timeout=5, stop_after=1)]
    assert payloads == [{"id": row[0]}], "any session may listen: the id alone"


def test_original_picture_raises_nothing(uploads, photographs):
    flag(uploads, "verdict=copy")
    uploads.execute("INSERT INTO uploads (image) VALUES (%s), (NULL)", [photographs["coffee.png"]])
    assert uploads.execute(FINDINGS).fetchall() == []


def test_update_of_the_image_is_an_upload_and_of_another_column_is_not(uploads):
    flag(uploads)
    upload(uploads, 1)
    uploads.execute("UPDATE uploads SET image = %s", [jpeg(scene(2), 60)])
    assert [row[:2] for row in uploads.execute(FINDINGS)] == [("1", "1"), ("1", "2")]
    uploads.execute("DELETE FROM copymatch.finding; UPDATE uploads SET title = 'x'")
    assert uploads.execute(FINDINGS).fetchall() == []


def test_before_trigger_refuses_the_row(uploads, sqlstate, photographs):
    flag(uploads, "on_copy=reject", timing="BEFORE")
    with sqlstate("23514") as error:
        upload(uploads, 4)
    assert 'reference 4 of set "licensed" (probability ' in str(error.value) and error.value.diag.message_hint
    uploads.execute("INSERT INTO uploads (image) VALUES (%s)", [photographs["coffee.png"]])
    assert uploads.execute("SELECT count(*) FROM uploads").fetchone()[0] == 1
    assert uploads.execute(FINDINGS).fetchall() == []


def test_after_trigger_can_refuse_too(uploads, sqlstate):
    flag(uploads, "on_copy=reject")
    with sqlstate("23514"):
        upload(uploads, 4)
    assert uploads.execute("SELECT count(*) FROM uploads").fetchone()[0] == 0


def test_asynchronous_form_enqueues_and_the_queue_finds_the_same(uploads):
    flag(uploads, "mode=async", "uploader=user_id")
    upload(uploads, 5)
    upload(uploads, 6, "bob")
    assert uploads.execute(FINDINGS).fetchall() == []
    assert uploads.execute("SELECT key, state FROM copymatch.queue ORDER BY id").fetchall() == [
        (["1"], "waiting"),
        (["2"], "waiting"),
    ]
    uploads.execute("CALL copy_process_queue()")
    assert uploads.execute(FINDINGS).fetchall() == [("1", "5", "copy", "open"), ("2", "6", "copy", "open")]
    assert [r[0] for r in uploads.execute("SELECT uploader FROM copymatch.finding ORDER BY id")] == ["ann", "bob"]
    assert uploads.execute("SELECT count(*) FROM copymatch.queue").fetchone()[0] == 0


def test_rolled_back_upload_leaves_nothing(uploads):
    flag(uploads, "mode=async")
    with uploads.transaction(force_rollback=True):
        upload(uploads, 1)
    assert uploads.execute("SELECT count(*) FROM copymatch.queue").fetchone()[0] == 0


def test_upload_deleted_before_its_turn_is_forgotten(uploads):
    flag(uploads, "mode=async")
    upload(uploads, 1)
    upload(uploads, 2)
    uploads.execute("DELETE FROM uploads WHERE id = 1")
    uploads.execute("CALL copy_process_queue()")
    assert [row[:2] for row in uploads.execute(FINDINGS)] == [("2", "2")]
    upload(uploads, 3)
    uploads.execute("DROP TABLE uploads")
    uploads.execute("CALL copy_process_queue()")
    assert uploads.execute("SELECT count(*) FROM copymatch.queue").fetchone()[0] == 0


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_same_upload_again_is_one_finding_with_the_new_figures(uploads, mode):
    flag(uploads, f"mode={mode}")
    upload(uploads, 1)
    uploads.execute("CALL copy_process_queue()")
    before = uploads.execute("SELECT id, similarity FROM copymatch.finding").fetchone()
    uploads.execute("UPDATE uploads SET image = %s", [jpeg(scene(1), 20)])
    uploads.execute("CALL copy_process_queue()")
    after = uploads.execute("SELECT id, similarity FROM copymatch.finding").fetchall()
    assert len(after) == 1 and after[0][0] == before[0] and after[0][1] != before[1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("'image', 'id'", "needs three"),
        ("'image', 'id', 'licensed', 'mode=later'", '"later"'),
        ("'image', 'id', 'licensed', 'colour=red'", '"colour"'),
        ("'image', 'id', 'licensed', 'mode=async', 'on_copy=reject'", "cannot refuse"),
    ],
)
def test_wrong_arguments_are_named(uploads, sqlstate, arguments, part):
    uploads.execute(f"CREATE TRIGGER f AFTER INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag({arguments})")
    with sqlstate("22023") as error:
        upload(uploads, 1)
    assert part in str(error.value) and error.value.diag.message_hint


def test_wrong_kinds_of_trigger_are_refused(uploads, sqlstate):
    for clause in ("BEFORE INSERT ON uploads FOR EACH ROW", "AFTER INSERT ON uploads FOR EACH STATEMENT"):
        uploads.execute(f"CREATE OR REPLACE TRIGGER f {clause} EXECUTE FUNCTION copy_flag('image', 'id', 'licensed')")
        with sqlstate("39P01") as error:
            upload(uploads, 1)
        assert error.value.diag.message_hint
        uploads.execute("DROP TRIGGER f ON uploads")


def test_missing_column_or_set_is_named(uploads, sqlstate):
    flag(uploads)
    uploads.execute("ALTER TABLE uploads RENAME COLUMN id TO number")
    with sqlstate("42703") as error:
        upload(uploads, 1)
    assert '"id"' in str(error.value) and "flag_copies" in str(error.value) and error.value.diag.message_hint
    uploads.execute("ALTER TABLE uploads RENAME COLUMN number TO id; SELECT copy_drop_set('licensed')")
    with sqlstate("42704") as error:
        upload(uploads, 1)
    assert "licensed" in str(error.value)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_renamed_table_keeps_its_findings_and_goes_on(uploads, mode):
    flag(uploads, f"mode={mode}")
    upload(uploads, 1)
    uploads.execute("ALTER TABLE uploads RENAME TO pictures")
    uploads.execute("CALL copy_process_queue()")
    uploads.execute("INSERT INTO pictures (image) VALUES (%s)", [jpeg(scene(2), 60)])
    uploads.execute("CALL copy_process_queue()")
    assert uploads.execute(
        "SELECT relation::text, upload, reference FROM copymatch.finding ORDER BY id"
    ).fetchall() == [
        ("pictures", "1", "1"),
        ("pictures", "2", "2"),
    ]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_hostile_names_keys_and_uploaders_are_only_text(uploads, mode):
    table, column, key = 'up"; DROP TABLE refs; --', 'im"age', 'k\'ey, and \\ "more"'
    quoted = [f'"{name}"' for name in (table.replace('"', '""'), column.replace('"', '""'), key.replace('"', '""'))]
    uploads.execute(f"CREATE TABLE {quoted[0]} ({quoted[2]} text PRIMARY KEY, {quoted[1]} bytea, who text)")
    listed = '"' + key.replace('"', '""') + '"'
    arguments = ", ".join(
        "'" + text.replace("'", "''") + "'"
        for text in (column, listed, "licensed", "k=1", "uploader=who", f"mode={mode}")
    )
    uploads.execute(
        f"CREATE TRIGGER f AFTER INSERT ON {quoted[0]} FOR EACH ROW EXECUTE FUNCTION copy_flag({arguments})"
    )
    name = "'); DROP TABLE refs; -- <script>\" \\ , ()\n"
    uploads.execute(f"INSERT INTO {quoted[0]} VALUES (%s, %s, %s)", [name, jpeg(scene(2), 60), name])
    uploads.execute("CALL copy_process_queue()")
    assert uploads.execute("SELECT upload, uploader, reference FROM copymatch.finding").fetchall() == [
        (name, name, "2")
    ]
    assert uploads.execute("SELECT count(*) FROM copymatch.queue").fetchone()[0] == 0
    uploads.execute("SELECT copy_dismiss((SELECT max(id) FROM copymatch.finding), %s)", [name])
    assert uploads.execute("SELECT note FROM copymatch.finding_history ORDER BY id DESC LIMIT 1").fetchone()[0] == name


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("bigint", "12345678901", "12345678901"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("varchar(9)", "ä b", "ä b"),
        ("timestamptz", "2026-03-29 03:30:00+02", "2026-03-29 01:30:00+00"),
        ("date", "2026-02-03", "2026-02-03"),
        ("float8", "0.1", "0.1"),
    ],
)
def test_key_of_any_type_is_found_again_whatever_the_session_formats(uploads, mode, kind, value, text):
    uploads.execute(f"CREATE TABLE odd (k {kind} PRIMARY KEY, image bytea)")
    flag(uploads, f"mode={mode}", table="odd", key="k")
    uploads.execute("SET datestyle = 'SQL, DMY'; SET timezone = 'Europe/Vienna'; SET extra_float_digits = -5")
    try:
        uploads.execute(
            "INSERT INTO odd SELECT %s, %s", [value if kind != "date" else "03/02/2026", jpeg(scene(2), 60)]
        )
    finally:
        uploads.execute("RESET datestyle; RESET timezone; RESET extra_float_digits")
    uploads.execute("CALL copy_process_queue()")
    assert uploads.execute("SELECT upload, reference FROM copymatch.finding").fetchall() == [(text, "2")]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_composite_key_is_named_by_the_text_of_its_row(uploads, mode):
    uploads.execute("CREATE TABLE pairs (a int, b text, image bytea, PRIMARY KEY (a, b))")
    flag(uploads, f"mode={mode}", table="pairs", key="a, b")
    for a, b in [(1, "x y"), (2, ""), (3, 'q"\\')]:
        uploads.execute("INSERT INTO pairs VALUES (%s, %s, %s)", [a, b, jpeg(scene(a), 60)])
    uploads.execute("CALL copy_process_queue()")
    assert (
        uploads.execute(
            "SELECT count(*) FROM copymatch.finding f JOIN pairs p ON f.upload = ROW(p.a, p.b)::text "
            "AND f.reference = p.a::text"
        ).fetchone()[0]
        == 3
    )


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_upload_into_a_partition_is_an_upload_of_the_partitioned_table(uploads, mode):
    uploads.execute("CREATE TABLE parts (image bytea, id int) PARTITION BY RANGE (id)")
    uploads.execute("CREATE TABLE part_1 (id int, image bytea)")
    uploads.execute("ALTER TABLE parts ATTACH PARTITION part_1 FOR VALUES FROM (0) TO (10)")
    flag(uploads, f"mode={mode}", table="parts")
    uploads.execute("INSERT INTO parts (id, image) VALUES (7, %s)", [jpeg(scene(3), 60)])
    uploads.execute("CALL copy_process_queue()")
    assert uploads.execute("SELECT relation::text, upload, reference FROM copymatch.finding").fetchall() == [
        ("parts", "7", "3")
    ]


def test_bad_image_is_refused_or_passes_with_a_warning(uploads, sqlstate):
    flag(uploads)
    with sqlstate("22P03") as error:
        uploads.execute("INSERT INTO uploads (image) VALUES ('no image')")
    assert "upload 1" in str(error.value) and error.value.diag.message_hint
    uploads.execute("DROP TRIGGER flag_copies ON uploads")
    flag(uploads, "on_bad_image=skip")
    warnings = []
    uploads.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    uploads.execute("INSERT INTO uploads (image) VALUES (%s)", [blank()])
    assert uploads.execute("SELECT count(*) FROM uploads").fetchone()[0] == 1
    assert any("too little detail" in warning for warning in warnings)


def test_bad_image_in_the_queue_is_given_up_at_once_and_does_not_hold_up_the_others(uploads):
    flag(uploads, "mode=async")
    upload(uploads, 1)
    uploads.execute("INSERT INTO uploads (image) VALUES ('no image')")
    upload(uploads, 2)
    uploads.execute("CALL copy_process_queue()")
    assert [row[1] for row in uploads.execute(FINDINGS)] == ["1", "2"]
    state, error = uploads.execute("SELECT state, last_error FROM copymatch.queue").fetchone()
    assert state == "failed" and "not recognised" in error
    assert uploads.execute("SELECT waiting, failed, an_error FROM copymatch.report_queue").fetchone() == (0, 1, error)
    # A person mends the cause and tries again.
    uploads.execute("ALTER TABLE uploads DISABLE TRIGGER USER")
    uploads.execute("UPDATE uploads SET image = %s WHERE id = 2", [jpeg(scene(5), 60)])
    uploads.execute("ALTER TABLE uploads ENABLE TRIGGER USER")
    assert uploads.execute("SELECT copy_retry_queue('uploads')").fetchone()[0] == 1
    uploads.execute("CALL copy_process_queue()")
    assert [row[1] for row in uploads.execute(FINDINGS)] == ["1", "2", "5"]


def test_failed_try_is_repeated_later_each_time_later_and_in_the_end_given_up(uploads):
    flag(uploads, "mode=async")
    upload(uploads, 1)
    uploads.execute("ALTER TABLE uploads RENAME COLUMN image TO picture")
    waits = []
    for _ in range(6):
        uploads.execute("CALL copy_process_queue()")
        state, attempts, wait, error = uploads.execute(
            "SELECT state, attempts, extract(epoch FROM next_try - now())::float8, last_error FROM copymatch.queue"
        ).fetchone()
        waits.append((state, attempts, wait))
        assert 'column "image"' in error
        uploads.execute("CALL copy_process_queue()")
        assert uploads.execute("SELECT attempts FROM copymatch.queue").fetchone()[0] == attempts, "not before its time"
        uploads.execute("UPDATE copymatch.queue SET next_try = now()")
    assert [(state, attempts) for state, attempts, _ in waits] == [("waiting", n) for n in range(1, 6)] + [
        ("failed", 6)
    ]
    for earlier, later in zip(waits, waits[1:], strict=False):
        assert later[2] > earlier[2] * 1.5
    uploads.execute("ALTER TABLE uploads RENAME COLUMN picture TO image; SELECT copy_retry_queue()")
    uploads.execute("CALL copy_process_queue()")
    assert [row[:2] for row in uploads.execute(FINDINGS)] == [("1", "1")]


def test_entry_that_was_begun_too_often_without_an_answer_is_given_up(uploads):
    """As after an image that made the server run out of memory each time."""
    flag(uploads, "mode=async")
    upload(uploads, 1)
    # A try that ends the server counts double: three of them are six.
    uploads.execute("UPDATE copymatch.queue SET attempts = 6")
    upload(uploads, 2)
    uploads.execute("CALL copy_process_queue()")
    assert [row[1] for row in uploads.execute(FINDINGS)] == ["2"]
    assert uploads.execute("SELECT state, last_error FROM copymatch.queue").fetchall() == [
        ("failed", "the server ended each time that this was worked on")
    ]


def test_entry_that_failed_once_is_tried_alone(uploads):
    flag(uploads, "mode=async")
    for seed in range(1, 5):
        upload(uploads, seed)
    uploads.execute("UPDATE copymatch.queue SET attempts = 1, next_try = next_try - interval '1 min' WHERE key = '{2}'")
    uploads.execute("CALL copy_process_queue(max_batches => 1)")
    assert [row[:2] for row in uploads.execute(FINDINGS)] == [("2", "2")]
    uploads.execute("CALL copy_process_queue(max_batches => 1)")
    assert len(uploads.execute(FINDINGS).fetchall()) == 4


def test_uploads_from_before_the_trigger_and_new_references_are_matched_on_request(uploads, photographs):
    upload(uploads, 1)
    uploads.execute("INSERT INTO uploads (image) VALUES (%s)", [photographs["coffee.png"]])
    flag(uploads, "verdict=copy")
    assert uploads.execute("SELECT copy_flag_existing('uploads')").fetchone()[0] == 2
    uploads.execute("CALL copy_process_queue()")
    assert [row[:2] for row in uploads.execute(FINDINGS)] == [("1", "1")]
    uploads.execute("INSERT INTO refs (id, image) VALUES (50, %s)", [photographs["coffee.png"]])
    assert uploads.execute("SELECT copy_flag_existing('uploads', condition => 'id > 1')").fetchone()[0] == 1
    uploads.execute("CALL copy_process_queue()")
    assert [row[:2] for row in uploads.execute(FINDINGS)] == [("1", "1"), ("2", "50")]


def test_new_reference_finds_earlier_uploads_by_index_where_they_keep_descriptors(uploads):
    """Only the uploads near a new reference are embedded again, not all of them."""
    flag(uploads, "verdict=copy")
    for seed in (50, 51, 52, 53):
        upload(uploads, seed)
    uploads.execute("DELETE FROM copymatch.finding")
    uploads.execute("SELECT copy_create_set('uploads', 'uploads', 'id', 'image')")
    uploads.execute("INSERT INTO refs (id, image) VALUES (50, %s)", [jpeg(scene(50))])
    near = """id IN (SELECT c.id FROM refs r, LATERAL (SELECT e.id FROM uploads e ORDER BY e.descriptor <=> r.descriptor
              LIMIT 2) c WHERE r.id = 50)"""
    assert uploads.execute("SELECT copy_flag_existing('uploads', condition => %s)", [near]).fetchone()[0] == 2
    uploads.execute("CALL copy_process_queue()")
    assert ("1", "50") in [row[:2] for row in uploads.execute(FINDINGS)]


def test_flagging_existing_uploads_needs_a_trigger_that_says_how(uploads, sqlstate):
    with sqlstate("42704") as error:
        uploads.execute("SELECT copy_flag_existing('uploads')")
    assert "copy_flag" in error.value.diag.message_hint


@pytest.fixture
def roles(uploads):
    """`owner` owns the uploads table and may read the references, `writer` may only INSERT uploads."""
    schema = uploads.execute("SELECT current_schema()").fetchone()[0]
    uploads.execute("CREATE ROLE flag_owner; CREATE ROLE flag_writer")
    uploads.execute(
        f"GRANT USAGE ON SCHEMA {schema} TO flag_owner, flag_writer; ALTER TABLE uploads OWNER TO flag_owner"
    )
    uploads.execute("GRANT INSERT ON uploads TO flag_writer; GRANT USAGE ON SEQUENCE uploads_id_seq TO flag_writer")
    uploads.execute("GRANT SELECT ON refs TO flag_owner")
    yield uploads
    uploads.execute("RESET ROLE; DROP OWNED BY flag_owner, flag_writer CASCADE; DROP ROLE flag_owner, flag_writer")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_who_writes_an_upload_needs_no_right_on_references_or_findings(roles, sqlstate, mode):
    flag(roles, f"mode={mode}")
    roles.execute("SET ROLE flag_writer")
    upload(roles, 1)
    for table in (
        "refs",
        "copymatch.finding",
        "copymatch.queue",
        "copymatch.report_daily",
        "copymatch.finding_history",
        "copymatch.dismissal",
    ):
        with sqlstate("42501"):
            roles.execute(f"SELECT * FROM {table}")
    for call in (
        "copy_confirm(1::bigint)",
        "copymatch.dashboard()",
        "copy_stop_worker()",
        "copy_clear_queue()",
        "copy_flag_existing('uploads')",
        "copy_retry_queue()",
        "copy_start_worker()",
    ):
        with sqlstate("42501"):
            roles.execute(f"SELECT {call}")
    roles.execute("RESET ROLE")
    roles.execute("CALL copy_process_queue()")
    assert [row[:2] for row in roles.execute(FINDINGS)] == [("1", "1")]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_table_owner_gets_at_no_reference_that_he_may_not_read(roles, sqlstate, mode):
    flag(roles, f"mode={mode}")
    roles.execute("REVOKE SELECT ON refs FROM flag_owner; SET ROLE flag_writer")
    if mode == "sync":
        with sqlstate("42501"):
            upload(roles, 1)
        roles.execute("RESET ROLE")
    else:
        upload(roles, 1)
        roles.execute("RESET ROLE")
        roles.execute("CALL copy_process_queue()")
        assert "permission denied" in roles.execute("SELECT last_error FROM copymatch.queue").fetchone()[0]
    assert roles.execute(FINDINGS).fetchall() == []


def test_admin_makes_triggers_and_tends_the_queue_without_being_a_superuser(roles, sqlstate):
    arguments = (
        "AFTER INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', 'licensed', 'k=1', "
        "'mode=async')"
    )
    roles.execute("SET ROLE flag_owner")
    with sqlstate("42501"):
        roles.execute(f"CREATE TRIGGER f {arguments}")
    roles.execute("RESET ROLE")
    upload(roles, 1)
    roles.execute("GRANT copymatch_admin TO flag_owner; SET ROLE flag_owner")
    roles.execute(f"CREATE TRIGGER f {arguments}")
    assert roles.execute("SELECT copy_flag_existing('uploads')").fetchone()[0] == 1
    roles.execute("CALL copy_process_queue()")
    assert [row[:2] for row in roles.execute(FINDINGS)] == [("1", "1")]
    roles.execute("SELECT copy_retry_queue(), copy_confirm(max(id)) FROM copymatch.finding")
    assert roles.execute("SELECT copy_clear_queue('uploads')").fetchone()[0] == 0
    for statement in (
        "INSERT INTO copymatch.queue (relation, key, reference_set, arguments) "
        "VALUES ('uploads', '{1}', 'licensed', '{image,id,licensed}')",
        "DELETE FROM copymatch.queue",
        "UPDATE copymatch.queue SET key = '{2}'",
        "DELETE FROM copymatch.finding",
        "INSERT INTO copymatch.finding_history DEFAULT VALUES",
        "SELECT copymatch.match_upload('uploads'::regclass, '[1]', 'licensed', 'm', 1, true)",
    ):
        with sqlstate("42501"):
            roles.execute(statement)


def test_policies_on_references_hold_for_the_table_owner(roles, photographs):
    # Photographs: the drawn scenes resemble each other, and an upload whose reference is hidden would find another.
    chosen = {number: photographs[name] for number, name in enumerate(sorted(photographs)[:6], 1)}
    for number, image in chosen.items():
        roles.execute("UPDATE refs SET image = %s WHERE id = %s", [image, number])
    roles.execute(
        "ALTER TABLE refs ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON refs TO flag_owner USING (id % 2 = 0)"
    )
    flag(roles, "verdict=copy")
    for number in range(1, 5):
        roles.execute("INSERT INTO uploads (image) VALUES (%s)", [chosen[number]])
    assert [row[:2] for row in roles.execute(FINDINGS)] == [("2", "2"), ("4", "4")]


def test_session_of_the_writer_cannot_lend_the_owners_rights_to_its_own_operators(roles):
    """A hostile search_path: what runs as the table's owner must not meet objects of the session's choice."""
    flag(roles)
    schema = roles.execute("SELECT current_schema()").fetchone()[0]
    roles.execute("CREATE SCHEMA trap AUTHORIZATION flag_writer; SET ROLE flag_writer")
    roles.execute(
        "CREATE FUNCTION trap.stolen(text, text) RETURNS boolean LANGUAGE plpgsql "
        "AS $$ BEGIN RAISE EXCEPTION 'trapped as %', current_user; END $$"
    )
    roles.execute("CREATE OPERATOR trap.= (FUNCTION = trap.stolen, LEFTARG = text, RIGHTARG = text)")
    roles.execute(
        "CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'trapped as %', "
        "current_user; END $$"
    )
    roles.execute(f"SET search_path = trap, {schema}, public, pg_catalog")
    upload(roles, 1)
    roles.execute(f"RESET ROLE; SET search_path = {schema}, public; DROP SCHEMA trap CASCADE")
    assert [row[:2] for row in roles.execute(FINDINGS)] == [("1", "1")]


def test_thumbnails_keep_their_shape(uploads, sqlstate):
    import io

    from PIL import Image

    for size, side, expected in [((640, 320), 160, (160, 80)), ((60, 90), 160, (60, 90)), ((100, 3000), 30, (1, 30))]:
        thumbnail = uploads.execute("SELECT copy_thumbnail(%s, %s)", [jpeg(scene(1, *size)), side]).fetchone()[0]
        assert Image.open(io.BytesIO(thumbnail)).size == expected
    with sqlstate("22023"):
        uploads.execute("SELECT copy_thumbnail(%s, 0)", [jpeg(scene(1))])
