"""Reference sets: made, kept current, filled, dropped; who may do what; what survives dump, crash and replication."""

import time

import pytest
from conftest import ROOT
from pictures import blank, jpeg, scene


@pytest.fixture
def references(db):
    """An empty table with a set over it."""
    db.execute("CREATE TABLE refs (id serial PRIMARY KEY, note text, image bytea)")
    db.execute("SELECT copy_create_set('refs', 'refs', key => 'id', image => 'image')")
    yield db
    db.execute("RESET ROLE; DELETE FROM copymatch.reference_set")


def descriptor(db, key: int, table: str = "refs"):
    return db.execute(f"SELECT descriptor::text FROM {table} WHERE id = %s", [key]).fetchone()[0]


def test_first_set_becomes_the_default_and_another_can_be_chosen(references):
    references.execute("CREATE TABLE more (id int, image bytea); SELECT copy_create_set('more', 'more', 'id', 'image')")
    sets = "SELECT name, is_default, intact FROM copymatch.reference_sets ORDER BY name"
    assert references.execute(sets).fetchall() == [("more", False, True), ("refs", True, True)]
    references.execute("SELECT copy_default_set('more')")
    assert references.execute(sets).fetchall() == [("more", True, True), ("refs", False, True)]


def test_making_a_set_builds_an_index_once_and_leaves_it_to_you_where_rows_wait(references):
    indexes = (
        "SELECT count(*) FROM pg_indexes WHERE tablename = %s "
        "AND indexdef LIKE '%%USING ivf (descriptor vector_cosine_ops)'"
    )
    assert references.execute(indexes, ["refs"]).fetchone()[0] == 1
    references.execute("SELECT copy_create_set('again', 'refs', key => 'id', image => 'image')")
    assert references.execute(indexes, ["refs"]).fetchone()[0] == 1
    references.execute("CREATE TABLE many (id int, image bytea)")
    references.execute("INSERT INTO many VALUES (1, %s)", [jpeg(scene(1))])
    notices = []
    references.add_notice_handler(lambda notice: notices.append(notice.message_hint or ""))
    references.execute("SELECT copy_create_set('many', 'many', 'id', 'image', embed => false)")
    assert references.execute(indexes, ["many"]).fetchone()[0] == 0
    assert any("CREATE INDEX CONCURRENTLY ON many USING ivf" in hint for hint in notices)


def test_trigger_keeps_the_descriptor_true_to_the_image(references):
    one, two = jpeg(scene(1)), jpeg(scene(2))
    expected = {image: references.execute("SELECT copy_embed(%s)::text", [image]).fetchone()[0] for image in (one, two)}
    references.execute("INSERT INTO refs (image) VALUES (%s)", [one])
    assert descriptor(references, 1) == expected[one]
    references.execute("UPDATE refs SET image = %s", [two])
    assert descriptor(references, 1) == expected[two]
    references.execute("UPDATE refs SET image = NULL")
    assert descriptor(references, 1) is None
    references.execute("UPDATE refs SET image = %s, note = 'again'", [one])
    assert descriptor(references, 1) == expected[one]
    references.execute("INSERT INTO refs (image) VALUES (NULL)")
    assert descriptor(references, 2) is None


def test_image_changed_by_another_trigger_is_embedded_as_it_is_stored(references):
    two = jpeg(scene(2))
    references.execute(
        "CREATE FUNCTION replace_image() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.image := (SELECT image "
        "FROM stock); RETURN NEW; END $$"
    )
    references.execute("CREATE TABLE stock (image bytea)")
    references.execute("INSERT INTO stock VALUES (%s)", [two])
    references.execute(
        "CREATE TRIGGER swap BEFORE UPDATE OF note ON refs FOR EACH ROW EXECUTE FUNCTION replace_image()"
    )
    references.execute("INSERT INTO refs (image) VALUES (%s)", [jpeg(scene(1))])
    references.execute("UPDATE refs SET note = 'x'")
    assert descriptor(references, 1) == references.execute("SELECT copy_embed(%s)::text", [two]).fetchone()[0]


def test_update_of_other_columns_does_not_embed_again(references):
    references.execute("INSERT INTO refs (image) VALUES (%s)", [jpeg(scene(1))])
    references.execute(
        "ALTER TABLE refs DISABLE TRIGGER USER; UPDATE refs SET descriptor = NULL; ALTER TABLE refs ENABLE TRIGGER USER"
    )
    references.execute("UPDATE refs SET note = 'seen'")
    assert descriptor(references, 1) is None, "the image did not change, so nothing was embedded"


def test_bad_reference_is_refused_and_named_or_skipped_with_a_warning(references, sqlstate):
    for image, state in [(b"no image", "22P03"), (blank(), "22000")]:
        with sqlstate(state) as error:
            references.execute("INSERT INTO refs (id, image) VALUES (41, %s)", [image])
        assert 'reference 41 of set "refs"' in str(error.value)
    references.execute("CREATE TABLE lax (id int, image bytea)")
    references.execute("SELECT copy_create_set('lax', 'lax', 'id', 'image', on_bad_image => 'skip')")
    warnings = []
    references.add_notice_handler(lambda diagnostic: warnings.append(diagnostic.message_primary))
    references.execute("INSERT INTO lax VALUES (1, %s), (2, %s), (3, %s)", [b"no image", blank(), jpeg(scene(1))])
    assert len(warnings) == 2 and "reference 1" in warnings[0] and "reference 2" in warnings[1]
    assert references.execute("SELECT id FROM lax WHERE descriptor IS NOT NULL").fetchall() == [(3,)]


def test_making_a_set_embeds_what_is_there_and_reports_what_cannot_be(db):
    db.execute("CREATE TABLE old (id int, image bytea)")
    db.execute("INSERT INTO old VALUES (1, %s), (2, %s), (3, NULL), (4, %s)", [jpeg(scene(1)), blank(), jpeg(scene(4))])
    warnings = []
    db.add_notice_handler(lambda diagnostic: warnings.append(diagnostic.message_primary))
    assert db.execute("SELECT copy_create_set('old', 'old', 'id', 'image')").fetchone()[0] == 2
    assert any("reference 2" in text for text in warnings) and any("1 of 3 images" in text for text in warnings)
    assert db.execute("SELECT id FROM old WHERE descriptor IS NOT NULL ORDER BY id").fetchall() == [(1,), (4,)]
    db.execute("SELECT copy_drop_set('old')")


def test_references_without_a_descriptor_are_told_with_the_reason(db, sqlstate):
    db.execute("CREATE TABLE mixed (id int PRIMARY KEY, image bytea)")
    picture = jpeg(scene(1))
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO mixed VALUES (%s, %s)",
            [(1, picture), (2, None), (3, picture[: len(picture) // 3]), (4, blank())],
        )
    db.execute("SELECT copy_create_set('mixed', 'mixed', 'id', 'image', on_bad_image => 'skip')")
    db.execute("ALTER TABLE mixed DISABLE TRIGGER USER")
    db.execute("INSERT INTO mixed VALUES (5, %s)", [jpeg(scene(5))])
    told = dict(db.execute("SELECT * FROM copy_undescribed('mixed')").fetchall())
    assert set(told) == {"2", "3", "4", "5"}, "not the first: it has one"
    assert told["2"] == "no image" and told["5"] == "not embedded yet: CALL copy_fill_set does it"
    words = "SELECT id::text, reason FROM mixed, copy_image_info(image) WHERE id IN (3, 4)"
    assert dict(db.execute(words).fetchall()) == {number: told[number] for number in ("3", "4")}
    assert len(db.execute("SELECT * FROM copy_undescribed('mixed', 2)").fetchall()) == 2
    for most in ("0", "NULL"):
        with sqlstate("22023"):
            db.execute(f"SELECT * FROM copy_undescribed('mixed', {most})")
    db.execute("CREATE ROLE sees_nothing; SET ROLE sees_nothing")
    with sqlstate("42501"):
        db.execute("SELECT * FROM copy_undescribed('mixed')")
    db.execute("RESET ROLE; DROP ROLE sees_nothing; DROP TABLE mixed")


def test_large_table_is_filled_in_committed_batches_and_resumed(db, connect, sqlstate):
    db.execute("CREATE TABLE large (id int, image bytea)")
    for number in range(40):
        db.execute("INSERT INTO large SELECT %s, %s || int4send(%s)", [number, jpeg(scene(number % 5)), number])
    db.execute("ALTER TABLE large ADD COLUMN padding text; UPDATE large SET padding = repeat('x', 1500)")
    assert db.execute("SELECT copy_create_set('large', 'large', 'id', 'image', embed => false)").fetchone()[0] == 0
    filled = "SELECT count(descriptor) FROM large"
    assert db.execute(filled).fetchone()[0] == 0
    # A reference that fails half-way, for a reason that is not the image's: what was committed stays.
    db.execute(
        "CREATE FUNCTION stop_at_25() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 25 "
        "THEN RAISE 'stopped'; END IF; RETURN NEW; END $$"
    )
    db.execute("CREATE TRIGGER stop BEFORE UPDATE ON large FOR EACH ROW EXECUTE FUNCTION stop_at_25()")
    with sqlstate("P0001"):
        db.execute("CALL copy_fill_set('large', 1)")
    half = db.execute(filled).fetchone()[0]
    assert 0 < half < 40
    db.execute("DROP TRIGGER stop ON large")
    db.execute("CALL copy_fill_set('large', 1)")
    assert db.execute(filled).fetchone()[0] == 40
    db.execute("SELECT copy_drop_set('large')")


def test_dropping_a_set_leaves_the_table_and_optionally_its_descriptors(references, sqlstate):
    references.execute("INSERT INTO refs (image) VALUES (%s)", [jpeg(scene(1))])
    references.execute("SELECT copy_drop_set('refs')")
    assert descriptor(references, 1) is not None
    references.execute("INSERT INTO refs (image) VALUES (%s)", [jpeg(scene(2))])
    assert descriptor(references, 2) is None, "the trigger is gone"
    assert references.execute("SELECT copy_create_set('refs', 'refs', 'id', 'image')").fetchone()[0] == 1, (
        "only what is missing"
    )
    references.execute("SELECT copy_drop_set('refs', drop_descriptors => true)")
    with sqlstate("42703"):
        references.execute("SELECT descriptor FROM refs")


def test_wrong_arguments_name_what_is_wrong(references, sqlstate):
    references.execute("CREATE TABLE plain (id int, image text, picture bytea, descriptor int)")
    for state, call, word in [
        ("42710", "copy_create_set('refs', 'refs', 'id', 'image')", "exists already"),
        ("42P01", "copy_create_set('x', 'no_such_table', 'id', 'image')", "no_such_table"),
        ("42703", "copy_create_set('x', 'plain', 'key', 'picture')", "key"),
        ("42703", "copy_create_set('x', 'plain', 'id', 'pixels')", "pixels"),
        ("42804", "copy_create_set('x', 'plain', 'id', 'image')", "bytea"),
        ("42804", "copy_create_set('x', 'plain', 'id', 'picture')", "vector"),
        ("42704", "copy_create_set('x', 'plain', 'id', 'picture', 'd', model => 'nix')", "nix"),
        ("22023", "copy_create_set('x', 'plain', 'id', 'picture', 'd', on_bad_image => 'ignore')", "ignore"),
        ("22004", "copy_create_set(NULL, 'plain', 'id', 'picture')", "name"),
        ("42704", "copy_drop_set('nix')", "nix"),
        ("42704", "copy_default_set('nix')", "nix"),
    ]:
        with sqlstate(state) as error:
            references.execute(f"SELECT {call}")
        assert word in str(error.value)
    assert references.execute("SELECT count(*) FROM copymatch.reference_set").fetchone()[0] == 1


def test_trigger_used_by_hand_in_the_wrong_way_is_refused(references, sqlstate):
    references.execute("CREATE TABLE other (id int, image bytea)")
    for timing, each, argument in [
        ("AFTER INSERT", "ROW", "'refs'"),
        ("BEFORE INSERT", "STATEMENT", "'refs'"),
        ("BEFORE INSERT", "ROW", ""),
    ]:
        with references.transaction(force_rollback=True):
            references.execute(
                f"CREATE TRIGGER t {timing} ON other FOR EACH {each} "
                f"EXECUTE FUNCTION copy_maintain_descriptor({argument})"
            )
            with sqlstate("39P01"), references.transaction():
                references.execute("INSERT INTO other VALUES (1, NULL)")
    with sqlstate("39P01"):
        references.execute("SELECT copy_maintain_descriptor()")
    references.execute("ALTER TABLE refs ALTER COLUMN image TYPE int USING 1")
    with sqlstate("42703") as error:
        references.execute("INSERT INTO refs (image) VALUES (5)")
    assert "another type" in str(error.value)


def test_hostile_names_stay_names(db):
    db.execute('CREATE SCHEMA "we""ird; x"')
    db.execute('CREATE TABLE "we""ird; x"."t\'able" ("k""ey" text, "im age" bytea)')
    name = 'se\'t; DROP TABLE "x"; --'
    db.execute(
        "SELECT copy_create_set(%s, %s::regclass, %s, 'im age', 'de\"scr')", [name, '"we""ird; x"."t\'able"', 'k"ey']
    )
    db.execute('INSERT INTO "we""ird; x"."t\'able" VALUES (%s, %s)', ["ke'y", jpeg(scene(1))])
    assert db.execute(
        "SELECT reference_set, reference FROM copy_match(%s, %s, 1)", [jpeg(scene(1)), name]
    ).fetchone() == (name, "ke'y")
    db.execute("SELECT copy_drop_set(%s, true)", [name])
    db.execute('DROP SCHEMA "we""ird; x" CASCADE')


def test_only_owners_make_change_and_drop_sets(references, sqlstate):
    schema = references.execute("SELECT current_schema()").fetchone()[0]
    references.execute(
        f"CREATE ROLE artist; GRANT USAGE, CREATE ON SCHEMA {schema} TO artist; "
        "CREATE TABLE foreign_refs (id int, image bytea)"
    )
    references.execute("GRANT ALL ON foreign_refs, refs TO artist; SET ROLE artist")
    try:
        with sqlstate("42501"):
            references.execute("SELECT copy_create_set('mine', 'foreign_refs', 'id', 'image')")
        with sqlstate("42501"):
            references.execute("SELECT copy_drop_set('refs')")
        references.execute(
            "CREATE TABLE own_refs (id int, image bytea); SELECT copy_create_set('own', 'own_refs', 'id', 'image')"
        )
        with sqlstate("42501"):
            references.execute("SELECT copy_default_set('own')")
        references.execute("INSERT INTO own_refs VALUES (1, %s)", [jpeg(scene(1))])
        with sqlstate("42501"):
            references.execute(
                "INSERT INTO copymatch.reference_set (name, relation, key_column, descriptor_column, model, "
                "calibration)"
                " SELECT 'trojan', 'foreign_refs', 'id', 'image', model, calibration FROM copymatch.reference_set "
                "LIMIT 1"
            )
        with sqlstate("42501"):
            references.execute("UPDATE copymatch.reference_set SET key_column = 'x' WHERE name = 'refs'")
        for call in (
            "copy_add_model('m', '', '{}')",
            "copy_drop_model('m')",
            "copymatch.inspect_model('', '{}', NULL)",
        ):
            with sqlstate("42501"):
                references.execute(f"SELECT {call}")
        references.execute("SELECT copy_drop_set('own')")
    finally:
        references.execute("RESET ROLE; DROP OWNED BY artist CASCADE; DROP ROLE artist")


def test_calibrations_are_immutable(db, sqlstate):
    with sqlstate("55000"):
        db.execute("UPDATE copymatch.calibration SET factor = 3")


def test_extension_works_in_another_schema(new_db, connect):
    other = connect(new_db(extension=False))
    other.execute('CREATE SCHEMA "my ext"; CREATE EXTENSION copymatch SCHEMA "my ext"')
    other.execute(
        "CREATE TABLE refs (id int, image bytea); SELECT \"my ext\".copy_create_set('refs', 'refs', 'id', 'image')"
    )
    other.execute("INSERT INTO refs VALUES (1, %s)", [jpeg(scene(1))])
    assert other.execute('SELECT reference, verdict FROM "my ext".copy_match(%s)', [jpeg(scene(1), 60)]).fetchall() == [
        ("1", "copy")
    ]
    other.execute("DROP EXTENSION copymatch CASCADE")
    assert other.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'copymatch'").fetchone()[0] == 0


def test_dump_and_restore_keep_sets_models_and_descriptors_without_embedding_again(server, new_db, connect, tmp_path):
    import json

    source, target = new_db(), new_db(extension=False)
    db = connect(source)
    model = ROOT / "models" / "default"
    manifest = json.loads((model / "manifest.json").read_text()) | {"name": "second"}
    calibration = json.loads((model / "calibration.json").read_text())
    db.execute(
        "SELECT copy_add_model('second', %s, %s, %s, %s)",
        [
            (model / "model.onnx").read_bytes(),
            json.dumps(manifest),
            (model / "background.bin").read_bytes(),
            json.dumps(calibration),
        ],
    )
    db.execute("CREATE TABLE refs (id serial PRIMARY KEY, image bytea)")
    db.execute("SELECT copy_create_set('first', 'refs', 'id', 'image')")
    db.execute("CREATE TABLE refs2 (id serial PRIMARY KEY, image bytea)")
    db.execute("SELECT copy_create_set('with second', 'refs2', 'id', 'image', model => 'second')")
    for table in ("refs", "refs2"):
        for seed in range(3):
            db.execute(f"INSERT INTO {table} (image) VALUES (%s)", [jpeg(scene(seed))])
    # What was set beside the sets, and a re-embedding under way.
    db.execute(
        "SELECT copy_create_set('some', 'refs', 'id', 'image', filter => %s, k => 2, negative => true)",
        ["id > 1 AND now() > '2020-01-01'"],
    )
    db.execute(
        "SELECT copy_alter_set('first', copy_probability => 0.9, review_probability => 0.4, negatives => '{some}')"
    )
    db.execute("SELECT copy_alter_set('with second', negatives => '{}')")
    db.execute("SELECT copy_disable_reference('first', '2', 'withdrawn', '2100-01-01')")
    db.execute("SELECT copy_create_group('both', '{first,with second}')")
    db.execute("CALL copy_reembed('first', 'second')")
    # A descriptor that embedding would not give: it must come back as it is.
    db.execute("UPDATE refs SET descriptor = (SELECT descriptor FROM refs WHERE id = 3) WHERE id = 1")
    server.run(
        "/bin/bash",
        "-c",
        f"set -o pipefail; {server.bin}/pg_dump -d '{server.dsn(source)}' | {server.bin}/psql -qX -v ON_ERROR_STOP=1 "
        f"-d '{server.dsn(target)}'",
    )
    restored = connect(target)
    for query in (
        "SELECT name, relation::text, key_column, image_column, descriptor_column, model, is_default "
        "FROM copymatch.reference_set ORDER BY name",
        "SELECT name, filter, k, negative, negatives, copy_probability, review_probability "
        "FROM copymatch.reference_set ORDER BY name",
        "SELECT * FROM copymatch.reference_status",
        "SELECT * FROM copymatch.reference_group",
        "SELECT reference_set, state, done, total FROM copymatch.reembedding",
        "SELECT tgrelid::regclass::text, tgname, tgfoid::regproc::text, tgenabled FROM pg_trigger "
        "WHERE tgname ~ '^zz_' ORDER BY 1, 2",
        "SELECT id, descriptor::text, descriptor_second::text FROM refs ORDER BY id",
        "SELECT id, descriptor::text FROM refs2 ORDER BY id",
        "SELECT name, sha256, weights = weights, manifest FROM copymatch.model ORDER BY name",
        "SELECT id, model, intercept FROM copymatch.calibration ORDER BY id",
    ):
        assert restored.execute(query).fetchall() == db.execute(query).fetchall()
    assert restored.execute(
        "SELECT reference, verdict FROM copy_match(%s, 'with second', 1)", [jpeg(scene(2), 60)]
    ).fetchone() == ("3", "copy")
    restored.execute("INSERT INTO refs (image) VALUES (%s)", [jpeg(scene(5))])
    counts = "SELECT count(descriptor), count(descriptor_second) FROM refs"
    assert restored.execute(counts).fetchone() == (4, 4), "the trigger came along"
    restored.execute("CALL copy_reembed('first', build_index => true)")
    assert restored.execute("SELECT model FROM copymatch.reference_set WHERE name = 'first'").fetchone()[0] == "second"
    assert (
        restored.execute(
            "INSERT INTO copymatch.calibration SELECT (c).* FROM (SELECT c FROM copymatch.calibration c LIMIT 0) x "
            "RETURNING id"
        ).fetchall()
        == []
    )


def test_killed_server_loses_no_committed_descriptor_and_filling_goes_on(fresh_cluster):
    cluster = fresh_cluster()
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch; CREATE TABLE refs (id int PRIMARY KEY, image bytea, padding text)")
        for number in range(60):
            db.execute(
                "INSERT INTO refs SELECT %s, %s || int4send(%s), repeat('x', 1500)",
                [number, jpeg(scene(number % 3)), number],
            )
        db.execute("SELECT copy_create_set('refs', 'refs', 'id', 'image', embed => false)")
    import threading

    import psycopg

    def fill():
        with cluster.connect() as filler, pytest.raises(psycopg.OperationalError):
            filler.execute("CALL copy_fill_set('refs', 1)")

    thread = threading.Thread(target=fill)
    thread.start()
    with cluster.connect() as watcher:
        while thread.is_alive() and watcher.execute("SELECT count(descriptor) FROM refs").fetchone()[0] < 5:
            pass
        seen = watcher.execute("SELECT count(descriptor) FROM refs").fetchone()[0]
    cluster.kill()
    thread.join()
    cluster.start()
    with cluster.connect() as db:
        kept = db.execute("SELECT count(descriptor) FROM refs").fetchone()[0]
        assert seen <= kept < 60
        db.execute("CALL copy_fill_set('refs', 8)")
        assert db.execute("SELECT count(descriptor), count(*) FROM refs").fetchone() == (60, 60)
        wrong = db.execute(
            "SELECT count(*) FROM refs WHERE (descriptor <-> copy_embed(image)) > 1e-4 AND id < 6"
        ).fetchone()[0]
        assert wrong == 0


def test_replica_matches_as_the_primary_does(fresh_cluster):
    primary = fresh_cluster()
    with primary.connect() as db:
        db.execute("CREATE EXTENSION copymatch; CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
        db.execute("SELECT copy_create_set('refs', 'refs', 'id', 'image')")
        for seed in range(6):
            db.execute("INSERT INTO refs VALUES (%s, %s)", [seed, jpeg(scene(seed))])
        replica = primary.replica()
        db.execute("UPDATE refs SET image = %s WHERE id = 2", [jpeg(scene(22))])
        primary.wait_for_replica(replica)
        query = "SELECT reference, rank, similarity, score, verdict FROM copy_match(%s, k => 6)"
        with replica.connect() as standby:
            for seed in (1, 2, 22):
                image = jpeg(scene(seed), 50)
                assert standby.execute(query, [image]).fetchall() == db.execute(query, [image]).fetchall()


def test_logical_subscriber_gets_the_descriptors_and_embeds_nothing(fresh_cluster):
    """Triggers of tables do not fire for what a subscription writes, unless somebody sets them to ENABLE ALWAYS."""
    cluster = fresh_cluster(wal_level="logical")
    with cluster.connect() as admin:
        admin.execute("CREATE DATABASE publisher")
        admin.execute("CREATE DATABASE subscriber")
    with cluster.connect("publisher") as db, cluster.connect("subscriber") as there:
        for each in (db, there):
            each.execute("CREATE EXTENSION copymatch; CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
            each.execute("SELECT copy_create_set('refs', 'refs', 'id', 'image')")
        db.execute("INSERT INTO refs SELECT 1, %s", [jpeg(scene(1))])
        db.execute("CREATE PUBLICATION refs FOR TABLE refs")
        db.execute("SELECT pg_create_logical_replication_slot('refs', 'pgoutput')")
        there.execute(
            f"CREATE SUBSCRIPTION refs CONNECTION '{cluster.dsn('publisher')}' PUBLICATION refs WITH (create_slot "
            "= false, slot_name = 'refs')"
        )
        db.execute("INSERT INTO refs SELECT 2, %s", [jpeg(scene(2))])
        # A descriptor that embedding would not give arrives as it is.
        db.execute("INSERT INTO refs SELECT 3, %s", [jpeg(scene(3))])
        db.execute("UPDATE refs SET descriptor = (SELECT descriptor FROM refs WHERE id = 1) WHERE id = 3")
        rows = "SELECT id, descriptor::text FROM refs ORDER BY id"
        deadline = time.monotonic() + 30
        while there.execute(rows).fetchall() != db.execute(rows).fetchall():
            assert time.monotonic() < deadline, "the subscriber has other rows"
            time.sleep(0.05)
        image = jpeg(scene(2), 60)
        row = there.execute("SELECT reference, verdict FROM copy_match(%s, k => 1)", [image]).fetchone()
        assert row == ("2", "copy")
        there.execute("DROP SUBSCRIPTION refs")


def test_sessions_insert_references_at_the_same_time(references, connect):
    import threading

    schema = references.execute("SELECT current_schema()").fetchone()[0]

    def insert(first: int):
        session = connect(references.info.dbname)
        for number in range(first, first + 6):
            session.execute(f"INSERT INTO {schema}.refs (id, image) VALUES (%s, %s)", [number, jpeg(scene(number))])

    threads = [threading.Thread(target=insert, args=[start]) for start in (100, 200, 300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert references.execute("SELECT count(descriptor) FROM refs").fetchone()[0] == 18
    assert (
        references.execute("SELECT reference FROM copy_match(%s, k => 1)", [jpeg(scene(203), 60)]).fetchone()[0]
        == "203"
    )
