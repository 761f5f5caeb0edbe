"""copy_doctor: a row for each thing that has to be in order, and what to do about those that are not."""

import pytest
from pictures import jpeg, scene


@pytest.fixture
def patient(fresh_db):
    fresh_db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    fresh_db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    for seed in range(3):
        fresh_db.execute("INSERT INTO refs VALUES (%s, %s)", [seed, jpeg(scene(seed))])
    fresh_db.execute("CREATE TABLE uploads (id serial PRIMARY KEY, image bytea)")
    fresh_db.execute("SELECT copy_create_flagging('uploads', 'image', 'id', 'licensed', mode => 'async')")
    return fresh_db


def doctor(db, check=None):
    rows = db.execute("SELECT * FROM copy_doctor()").fetchall()
    return [row[1:] for row in rows if row[0] == check] if check else rows


def test_all_is_well_in_a_set_that_was_just_made(patient):
    rows = doctor(patient)
    assert {row[2] for row in rows} == {"ok"}, [row for row in rows if row[2] != "ok"]
    assert {row[0] for row in rows} >= {"version", "model", "set", "flagging", "queue"}
    assert doctor(patient, "set") == [
        ("licensed", "ok", "can be searched; 3 rows looked at, all with a descriptor", None)
    ]


def test_rows_without_descriptors_and_what_hinders_the_trigger(patient):
    patient.execute("ALTER TABLE refs DISABLE TRIGGER USER; UPDATE refs SET descriptor = NULL WHERE id < 2")
    (found,) = doctor(patient, "set")
    assert found[:2] == ("licensed", "warning") and "of 3 rows looked at, 2 have" in found[2]
    assert "copy_fill_set('licensed')" in found[3]
    (found,) = doctor(patient, "trigger")
    assert found[:2] == ("public.refs", "warning") and "disabled" in found[2] and "ENABLE TRIGGER" in found[3]
    patient.execute("SET session_replication_role = replica")
    assert [row[1] for row in doctor(patient, "settings")] == ["warning"]


def test_sets_that_cannot_be_searched_say_why(patient):
    patient.execute("ALTER TABLE refs RENAME COLUMN id TO number")
    (found,) = doctor(patient, "set")
    assert found[1] == "error" and 'column "id"' in found[2]
    assert [row[1] for row in doctor(patient, "flagging")] == ["error"]


def test_a_model_that_cannot_embed(patient):
    patient.execute("SET copymatch.max_image_bytes = '1kB'")
    (found,) = doctor(patient, "model")
    assert found[1] == "error" and "max_image_bytes" in found[3]


def test_indexes_that_are_missing_or_of_no_use(patient):
    assert [row[:2] for row in doctor(patient, "index")] == [("licensed", "ok")]
    patient.execute("SELECT copy_drop_set('licensed', true)")
    patient.execute(
        "CREATE TABLE many (id int, descriptor vector(256)); ALTER TABLE many ALTER descriptor SET STORAGE PLAIN"
    )
    patient.execute("SELECT copy_create_set('many', 'many', 'id', NULL)")
    patient.execute(
        "INSERT INTO many SELECT n, array_fill(0.0625::real, '{256}')::vector FROM generate_series(1, 20500) n; "
        "ANALYZE many"
    )
    for (name,) in patient.execute(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'many'::regclass"
    ).fetchall():
        patient.execute(f"DROP INDEX {name}")
    (found,) = doctor(patient, "index")
    assert found[:2] == ("many", "warning") and "vector_cosine_ops" in found[3]
    patient.execute("CREATE INDEX other ON many USING ivf (descriptor vector_l2_ops)")
    assert doctor(patient, "index")[0][1] == "warning", "an index for another distance serves no search"
    patient.execute(found[3])
    assert [row[:2] for row in doctor(patient, "index")] == [("many", "ok")]
    patient.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'other'::regclass")
    (found,) = doctor(patient, "index")
    assert found[1] == "error" and "other" in found[2]


def test_flagging_that_would_fail_and_a_queue_that_nobody_works_off(patient):
    patient.execute("INSERT INTO uploads (image) VALUES (%s), ('none')", [jpeg(scene(1), 60)])
    (found,) = doctor(patient, "queue")
    assert found[1] == "warning" and "2 uploads wait" in found[2] and "copy_start_worker" in found[3]
    patient.execute("CALL copy_process_queue()")
    failed, workers = doctor(patient, "queue")
    assert failed[:2] == ("failed", "warning") and "copy_retry_queue" in failed[3] and workers[1] == "ok"
    patient.execute("ALTER TABLE uploads RENAME COLUMN image TO picture")
    (found,) = doctor(patient, "flagging")
    assert found[1] == "error" and '"image"' in found[2]
    patient.execute("ALTER TABLE uploads DISABLE TRIGGER USER")
    assert doctor(patient, "flagging")[0][1] == "warning"


def test_settings_that_fight_each_other(patient):
    patient.execute("SET copymatch.probes = 3")
    assert [(row[0], row[1]) for row in doctor(patient, "settings")] == [("copymatch.probes", "warning")]


def test_it_is_for_admins_and_runs_owners_code_as_the_owners(patient, sqlstate):
    """A policy, an index expression and a cast of the key of a stranger's table, looked at by a superuser."""
    mark = "doctor_" + patient.info.dbname.rsplit("_", 1)[-1].lower()
    patient.execute(
        f"DROP ROLE IF EXISTS {mark}; CREATE ROLE {mark}; GRANT CREATE ON SCHEMA public TO {mark}; "
        f"GRANT USAGE ON SCHEMA public TO {mark}"
    )
    try:
        patient.execute(f"SET ROLE {mark}")
        with sqlstate("42501"):
            doctor(patient)
        patient.execute(
            "CREATE SEQUENCE by_others; GRANT USAGE ON SEQUENCE by_others TO PUBLIC; "
            "CREATE TABLE hers (id int, image bytea, descriptor vector(256));"
            "CREATE FUNCTION evil(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS"
            f" $$ BEGIN IF current_user <> '{mark}' THEN PERFORM nextval('by_others'); END IF; RETURN true; END $$;"
            "CREATE INDEX ON hers (evil(1)); CREATE POLICY p ON hers USING (evil(1)); "
            "ALTER TABLE hers ENABLE ROW LEVEL SECURITY;"
            "ALTER TABLE hers FORCE ROW LEVEL SECURITY; SELECT copy_create_set('hers', 'hers', 'id', 'image'); "
            "INSERT INTO hers VALUES (1, NULL, NULL)"
        )
        patient.execute("RESET ROLE; SELECT setval('by_others', 1, false)")
        assert ("hers", "ok") in [row[:2] for row in doctor(patient, "set")]
        assert patient.execute("SELECT is_called FROM by_others").fetchone() == (False,)
        # An admin who is no superuser sees the same.
        patient.execute(f"GRANT copymatch_admin TO {mark}; SET ROLE {mark}")
        assert {row[0] for row in doctor(patient, "set")} == {"hers", "licensed"}
    finally:
        patient.execute(f"RESET ROLE; DROP OWNED BY {mark} CASCADE; DROP ROLE {mark}")


def test_it_waits_for_nobody(patient, server):
    with server.connect(patient.info.dbname) as other:
        other.execute("BEGIN; LOCK TABLE refs IN ACCESS EXCLUSIVE MODE")
        (found,) = doctor(patient, "set")
        other.execute("ROLLBACK")
    assert found[1] == "warning" and "could not be looked at" in found[2]
