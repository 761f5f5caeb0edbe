"""From the version before to this one: ALTER EXTENSION copymatch UPDATE leaves what a fresh installation has, and
keeps what users made."""

import hashlib
import json
import struct

import numpy as np
import psycopg
import pytest
from conftest import ROOT
from pictures import jpeg, scene
from psycopg.types.json import Jsonb

OLD = sorted(path.stem.removeprefix("copymatch--") for path in (ROOT / "sql" / "history").glob("copymatch--*.sql"))
# SHA-256 of the background.bin that 0.2.0 carried.
BACKGROUND_OF_0_2_0 = "755a184837923908e8cd9b0b15ecec44ceef3cce7f4c89c4bf63b7e8d7c72eea"

# Every member of the extension with all that its definition says. What is a member's part (columns,
# constraints) is told with it.
CATALOGUE = """
    SELECT i.type, i.identity, obj_description(d.objid, d.classid::regclass::text),
           CASE d.classid
               WHEN 'pg_proc'::regclass THEN
                   CASE WHEN p.prokind IN ('a', 'w') THEN p.prosrc ELSE pg_get_functiondef(p.oid) END
                   || coalesce(p.proacl::text, '')
               WHEN 'pg_class'::regclass THEN concat_ws(E'\\n', c.relkind, c.relacl, c.reloptions, c.relrowsecurity,
                   CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END,
                   (SELECT string_agg(concat_ws(' ', a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
                   a.attnotnull, a.attstorage, a.attacl,
                                                pg_get_expr(f.adbin, f.adrelid), col_description(c.oid, a.attnum)),
                                                E'\\n' ORDER BY a.attnum)
                    FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
                    WHERE a.attrelid = c.oid AND a.attnum > 0),
                   (SELECT string_agg(concat_ws(' ', k.conname, pg_get_constraintdef(k.oid)), E'\\n' ORDER BY k.conname)
                   FROM pg_constraint k WHERE k.conrelid = c.oid),
                   (SELECT string_agg(pg_get_indexdef(x.indexrelid), E'\\n' ORDER BY x.indexrelid::regclass::text)
                   FROM pg_index x WHERE x.indrelid = c.oid),
                   (SELECT string_agg(pg_get_triggerdef(t.oid) || coalesce(obj_description(t.oid, 'pg_trigger'), ''),
                   E'\\n' ORDER BY t.tgname)
                    FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
                   (SELECT string_agg(concat_ws(' ', y.polname, y.polcmd, y.polpermissive, y.polroles::regrole[],
                   pg_get_expr(y.polqual, y.polrelid),
                                                pg_get_expr(y.polwithcheck, y.polrelid),
                                                obj_description(y.oid, 'pg_policy')), E'\\n' ORDER BY y.polname)
                    FROM pg_policy y WHERE y.polrelid = c.oid))
           END
    FROM pg_depend d CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) i
         LEFT JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND p.oid = d.objid
         LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
      AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'copymatch')
"""
DUMPED = """SELECT u.relation::regclass::text, u.condition FROM pg_extension,
            unnest(extconfig, extcondition) AS u(relation, condition)
            WHERE extname = 'copymatch'"""


def current(server) -> str:
    return (
        server.connect()
        .execute("SELECT default_version FROM pg_available_extensions WHERE name = 'copymatch'")
        .fetchone()[0]
    )


@pytest.mark.parametrize("version", OLD)
def test_updated_catalogue_is_that_of_a_fresh_installation(server, new_db, connect, version):
    fresh, updated = connect(new_db()), connect(new_db(extension=False))
    updated.execute(f"CREATE EXTENSION copymatch VERSION '{version}'; ALTER EXTENSION copymatch UPDATE")
    assert updated.execute("SELECT extversion FROM pg_extension WHERE extname = 'copymatch'").fetchone()[0] == current(
        server
    )
    before = {row[:2]: row[2:] for row in updated.execute(CATALOGUE)}
    after = {row[:2]: row[2:] for row in fresh.execute(CATALOGUE)}
    assert before.keys() == after.keys()
    different = {name: (before[name], after[name]) for name in after if before[name] != after[name]}
    assert not different
    assert sorted(updated.execute(DUMPED).fetchall()) == sorted(fresh.execute(DUMPED).fetchall())


@pytest.mark.parametrize("version", OLD)
def test_sets_survive_the_update_in_any_schema(new_db, connect, version):
    db = connect(new_db(extension=False))
    db.execute(f'CREATE SCHEMA "my ext"; CREATE EXTENSION copymatch SCHEMA "my ext" VERSION \'{version}\'')
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    # As 0.1.0 did it; its library is no longer there to embed.
    db.execute("SELECT \"my ext\".copy_create_set('refs', 'refs', 'id', 'image')")
    before = db.execute(
        "SELECT name, relation, key_column, descriptor_column, model, calibration, is_default, created "
        "FROM copymatch.reference_set"
    ).fetchall()
    db.execute("ALTER EXTENSION copymatch UPDATE")
    after = db.execute(
        "SELECT name, relation, key_column, descriptor_column, model, calibration, is_default, created "
        "FROM copymatch.reference_set"
    ).fetchall()
    assert before == after
    db.execute("INSERT INTO refs VALUES (1, %s)", [jpeg(scene(1))])
    query = 'SELECT reference, verdict FROM "my ext".copy_match(%s)'
    assert db.execute(query, [jpeg(scene(1), 60)]).fetchall() == [("1", "copy")]
    # Sketches are for who asks for them.
    verified = 'SELECT verified FROM "my ext".copy_match(%s)'
    assert db.execute(verified, [jpeg(scene(1), 60)]).fetchall() == [(None,)]
    db.execute("CALL \"my ext\".copy_fill_set('refs')")
    assert db.execute(verified, [jpeg(scene(1), 60)]).fetchall() == [(True,)]
    db.execute("SELECT \"my ext\".copy_alter_set('refs', filter => 'id > 1')")
    assert db.execute(query, [jpeg(scene(1), 60)]).fetchall() == []


def test_dropping_the_extension_says_what_it_would_take(fresh_db, sqlstate):
    db = fresh_db
    db.execute("CREATE TABLE refs (id int, image bytea)")
    db.execute("SELECT copy_create_set('refs', 'refs', 'id', 'image')")
    with sqlstate("2BP01") as error:
        db.execute("DROP EXTENSION copymatch")
    detail = error.value.diag.message_detail
    # The index goes with its column.
    for dependent in ("trigger zz_copymatch_", "column descriptor of table refs"):
        assert dependent in detail, detail
    db.execute("DROP EXTENSION copymatch CASCADE")
    columns = db.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'refs'::regclass AND attnum > 0 AND NOT attisdropped"
    ).fetchall()
    assert columns == [("id",), ("image",), ("descriptor_sketch",)], "what is not of the extension's types stays"


def test_sets_of_the_model_before_go_on_and_can_move_to_the_new_one(new_db, connect):
    """A database that 0.1.0 and its library made; their model is in models/history."""
    old = ROOT / "models" / "history" / "0.1.0"
    manifest, calibration = (json.loads((old / f"{name}.json").read_text()) for name in ("manifest", "calibration"))
    parts = [(old / name).read_bytes() for name in ("model.onnx", "background.bin")]
    images = [jpeg(scene(seed)) for seed in range(4)]

    # What the library of that time computed.
    then = connect(new_db())
    then.execute(
        "SELECT copy_add_model(%s, %s, %s, %s, %s)",
        [manifest["name"], parts[0], Jsonb(manifest), parts[1], Jsonb(calibration)],
    )
    descriptors = [
        then.execute("SELECT copy_embed(%s, %s)::text", [image, manifest["name"]]).fetchone()[0] for image in images
    ]

    db = connect(new_db(extension=False))
    db.execute("CREATE EXTENSION copymatch VERSION '0.1.0'")
    db.execute("DELETE FROM copymatch.calibration; DELETE FROM copymatch.model")
    db.execute(
        "INSERT INTO copymatch.model (name, version, dimensions, sha256, manifest, background_sha256, built_in) "
        "VALUES (%s, %s, %s, sha256(%s), %s, sha256(%s), true)",
        [manifest["name"], manifest["version"], manifest["dimensions"], parts[0], Jsonb(manifest), parts[1]],
    )
    db.execute(
        """INSERT INTO copymatch.calibration SELECT 0, %s, sha256(%s), c.neighbours, c.factor, (c.clamp->>0)::float8,
               (c.clamp->>1)::float8, c.intercept,
               c.similarity_weight, c.background_weight, c.copy_probability, c.review_probability, c.evidence, true
           FROM jsonb_to_record(%s) AS c(neighbours int, factor float8, clamp jsonb, intercept float8,
           similarity_weight float8,
               background_weight float8, copy_probability float8, review_probability float8, evidence jsonb)""",
        [manifest["name"], parts[1], Jsonb(calibration)],
    )
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea, descriptor vector(256))")
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO refs VALUES (%s, %s, %s)",
            [(at, image, d) for at, (image, d) in enumerate(zip(images, descriptors, strict=True))],
        )
    db.execute("SELECT copy_create_set('refs', 'refs', 'id', 'image')")

    db.execute("ALTER EXTENSION copymatch UPDATE")
    default = db.execute("SELECT name, built_in FROM copymatch.models WHERE is_default").fetchone()
    assert default[0] != manifest["name"] and default[1]
    assert db.execute(
        "SELECT built_in, has_background FROM copymatch.models WHERE name = %s", [manifest["name"]]
    ).fetchone() == (
        False,
        True,
    )
    matches = "SELECT reference, verdict FROM copy_match(%s, k => 1)"
    assert db.execute(matches, [jpeg(scene(2), 60)]).fetchone() == ("2", "copy"), "with the model it always had"
    db.execute("INSERT INTO refs VALUES (9, %s)", [jpeg(scene(9))])
    assert db.execute(
        "SELECT descriptor = copy_embed(image, %s) FROM refs WHERE id = 9", [manifest["name"]]
    ).fetchone() == (True,)
    db.execute("CALL copy_reembed('refs', %s, build_index => true)", [default[0]])
    assert db.execute("SELECT model FROM copymatch.reference_sets").fetchone() == (default[0],)
    assert db.execute(matches, [jpeg(scene(9), 60)]).fetchone() == ("9", "copy"), "with the new model"


def background_rows() -> np.ndarray:
    """The built-in background, decoded independently of the extension."""
    data = (ROOT / "models" / "default" / "background.bin").read_bytes()
    _, _, _, rows, dimensions = struct.unpack_from("<4sHHII", data)
    scales = np.frombuffer(data, "<f4", rows, 16)
    codes = np.frombuffer(data, np.int8, rows * dimensions, 16 + 4 * rows).reshape(rows, dimensions)
    found = codes.astype(np.float32) * scales[:, None]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_a_calibration_keeps_the_background_that_it_was_measured_with(new_db, connect):
    """0.2.0's background was the first 8,192 rows of today's. Sets on the built-in calibration follow it; a set's own
    calibration, and findings, go on to mean what they meant."""
    db = connect(new_db(extension=False))
    db.execute("CREATE EXTENSION copymatch VERSION '0.2.0'")
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, descriptor vector(256))")
    # What 0.2.0's own library would have written.
    db.execute(
        "UPDATE copymatch.model SET background_sha256 = %s; "
        "ALTER TABLE copymatch.calibration DISABLE TRIGGER immutable; "
        "UPDATE copymatch.calibration SET background_sha256 = %s, copy_probability = 0.875; "
        "ALTER TABLE copymatch.calibration ENABLE TRIGGER immutable".replace("%s", f"'\\x{BACKGROUND_OF_0_2_0}'")
    )
    for name in ("follows", "own"):
        db.execute("SELECT copy_create_set(%s, 'refs', 'id', NULL)", [name])
    db.execute(
        """INSERT INTO copymatch.calibration (model, background_sha256, neighbours, factor, clamp_low, clamp_high,
               intercept, similarity_weight, background_weight, copy_probability, review_probability, reference_set,
               version, source)
           SELECT model, background_sha256, 5, 2.5, 0.1, 0.2, -9, 30, -20, 0.9, 0.5, 'own', 1, 'labels'
           FROM copymatch.calibration WHERE id = 0"""
    )
    db.execute(
        "UPDATE copymatch.reference_set SET calibration = (SELECT max(id) FROM copymatch.calibration) "
        "WHERE name = 'own'"
    )
    db.execute(
        """INSERT INTO copymatch.finding (reference_set, relation, upload, reference, similarity, background, score,
               probability, verdict, model, calibration, state, decided, decided_by)
           SELECT 'follows', 'refs', '1', '1', 0.9, 0.4, 0, 0.9, 'copy', model, 0, 'confirmed', now(), current_user
           FROM copymatch.calibration WHERE id = 0"""
    )
    db.execute("ALTER EXTENSION copymatch UPDATE")
    rows = background_rows()
    assert hashlib.sha256((ROOT / "models/default/background.bin").read_bytes()).hexdigest() != BACKGROUND_OF_0_2_0
    # Near the page that is furthest from all photographs.
    nearest_photograph = (rows[8192:] @ rows[:8192].T).max(1)
    page = rows[8192 + int(nearest_photograph.argmin())]
    db.execute("INSERT INTO refs VALUES (1, %s::text::vector)", [str(page.tolist())])
    search = "SELECT background FROM copy_match_descriptor(%s::text::vector, %s, 1)"

    def background(name: str) -> float:
        return db.execute(search, [str(page.tolist()), name]).fetchone()[0]

    photographs, everything = (float(np.sort(known @ page)[-5:].mean()) for known in (rows[:8192], rows))
    assert everything > photographs + 0.1
    assert background("follows") == pytest.approx(everything, abs=1e-3)
    assert background("own") == pytest.approx(photographs, abs=1e-3)
    measured = (
        "SELECT encode(k.background_sha256, 'hex'), k.copy_probability FROM copymatch.calibration k "
        "WHERE k.id = (SELECT calibration FROM copymatch.{} LIMIT 1)"
    )
    assert db.execute(measured.format("finding")).fetchone() == (BACKGROUND_OF_0_2_0, 0.875), "as it was judged"
    # What was reviewed is evidence for calibrations with the background that it was measured with alone.
    reviewed = "SELECT cardinality(similarity) FROM copymatch.reviewed_pairs('follows')"
    assert db.execute(reviewed).fetchone() == (0,)
    db.execute("SELECT copy_use_calibration('follows', (SELECT calibration FROM copymatch.finding))")
    assert background("follows") == pytest.approx(photographs, abs=1e-3)
    assert db.execute(reviewed).fetchone() == (1,)
    # Calibrating once more stays with it, for labels may hold what was measured; the model's own leads on.
    db.execute("SELECT copy_use_calibration('own', 0)")
    assert background("own") == pytest.approx(everything, abs=1e-3)


def test_triggers_that_the_gate_would_stop_are_named_with_the_way(new_db, connect):
    """Uploads of one role, references of another: it worked without a word before, and goes on with one statement."""
    db = connect(new_db(extension=False))
    told = []
    roles = ("old_press", "old_shop")
    db.execute("".join(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role};" for role in roles))
    try:
        db.execute("CREATE EXTENSION copymatch VERSION '0.2.0'; GRANT CREATE ON SCHEMA public TO old_press, old_shop")
        db.execute("SET ROLE old_press; CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
        db.execute("SELECT copy_create_set('press', 'refs', 'id', 'image'); GRANT SELECT ON refs TO old_shop")
        # Between installation and update everything says what is to be done.
        for statement in ("INSERT INTO refs VALUES (1, %s)", "SELECT * FROM copy_match(%s, 'press')"):
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
                db.execute(statement, [jpeg(scene(1))])
            assert "version" in str(error.value) and "ALTER EXTENSION copymatch UPDATE" in error.value.diag.message_hint
        db.execute(
            "RESET ROLE; CREATE TABLE uploads (id int PRIMARY KEY, image bytea); CREATE TABLE own (LIKE uploads)"
        )
        for table in ("uploads", "own"):
            db.execute(
                f"CREATE TRIGGER f AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
                "'press', 'k=1')"
            )
        db.execute("ALTER TABLE uploads OWNER TO old_shop; ALTER TABLE own OWNER TO old_press")
        db.add_notice_handler(
            lambda notice: told.append((notice.severity_nonlocalized, notice.message_primary, notice.message_hint))
        )
        db.execute("ALTER EXTENSION copymatch UPDATE")
        warned = [
            (message, hint)
            for severity, message, hint in told
            if severity == "WARNING" and "no reason to trust" in message
        ]
        assert len(warned) == 1 and "uploads" in warned[0][0] and "old_press" in warned[0][0]
        db.execute(warned[0][1].removeprefix("If that role is trusted: ").removesuffix(" once the update is done."))
        db.execute("INSERT INTO refs VALUES (1, %s)", [jpeg(scene(1))])
        db.execute("INSERT INTO uploads VALUES (1, %s)", [jpeg(scene(1), 60)])
        db.execute("INSERT INTO own VALUES (1, %s)", [jpeg(scene(1), 60)])
        assert db.execute("SELECT count(*) FROM copymatch.finding").fetchone() == (2,)
    finally:
        db.execute("RESET ROLE; DROP OWNED BY old_press, old_shop CASCADE; DROP ROLE old_press, old_shop")


def test_hostile_rows_of_0_2_0_are_mended_and_told(new_db, connect):
    """What roles could write by hand then: a group with a set's name, an entry of the queue, a calibration of a set
    that is another's now."""
    db = connect(new_db(extension=False))
    told = []
    db.execute(
        "DROP ROLE IF EXISTS old_owner; DROP ROLE IF EXISTS stranger; CREATE ROLE old_owner; CREATE ROLE stranger"
    )
    db.execute("CREATE EXTENSION copymatch VERSION '0.2.0'; GRANT CREATE ON SCHEMA public TO old_owner, stranger")
    try:
        db.execute("SET ROLE old_owner; CREATE TABLE refs (id int PRIMARY KEY, descriptor vector(256))")
        db.execute("SELECT copy_create_set('refs', 'refs', 'id', NULL)")
        db.execute(
            """INSERT INTO copymatch.calibration (model, background_sha256, neighbours, factor, clamp_low, clamp_high,
                   intercept, similarity_weight,
                   background_weight, copy_probability, review_probability, reference_set, version, source, evidence)
               SELECT model, background_sha256, 5, 2.5, 0.1, 0.2, 0, 0, 0, 0.5, 0.5, 'refs', 1, 'labels',
               '{"pairs": 1000000}' FROM copymatch.calibration WHERE id = 0"""
        )
        db.execute("SET ROLE stranger")
        db.execute("INSERT INTO copymatch.reference_group (name, members) VALUES ('refs', '{refs}')")
        db.execute("RESET ROLE; ALTER TABLE refs OWNER TO CURRENT_USER")
        db.execute(
            "INSERT INTO copymatch.queue (relation, key, reference_set, arguments) "
            "VALUES ('pg_largeobject', '{1}', 'refs', '{data,loid,refs,uploader=data}')"
        )
        db.add_notice_handler(lambda notice: told.append(notice.message_primary))
        db.execute("ALTER EXTENSION copymatch UPDATE")
        assert any('"refs"' in line and "renamed" in line for line in told), told
        assert any("old_owner" in line and "calibration" in line for line in told), told
        assert db.execute("SELECT name FROM copymatch.reference_set").fetchall() == [("refs",)]
        assert db.execute("SELECT name FROM copymatch.reference_group").fetchall() == [("refs (group)",)]
        assert db.execute("SELECT calibration FROM copymatch.reference_set").fetchone() == (0,)
        for table in ("reference_set", "reference_group", "calibration", "reference_status", "queue", "finding"):
            assert db.execute(
                "SELECT bool_or(has_table_privilege('stranger', %s::regclass, p)) "
                "FROM unnest('{INSERT,UPDATE,DELETE}'::text[]) p",
                [f"copymatch.{table}"],
            ).fetchone() == (False,), table
        db.execute("CALL copy_process_queue()")
        assert db.execute("SELECT count(*) FROM copymatch.finding").fetchone() == (0,)
        (entry,) = db.execute("SELECT row_to_json(q)::jsonb FROM copymatch.queue q").fetchall() or [(None,)]
        assert entry is None or entry[0]["last_error"], entry
    finally:
        db.execute("RESET ROLE; DROP OWNED BY old_owner, stranger; DROP ROLE old_owner, stranger")
