"""Generated columns as image, key or uploader: served where PostgreSQL gives triggers their value,
refused by name elsewhere."""

import pytest
from conftest import MAJOR
from pictures import jpeg, scene

#: 18 computes columns when they are read unless STORED is said.
virtual = pytest.mark.skipif(int(MAJOR) < 18, reason="virtual generated columns came with PostgreSQL 18")


def uploads(db, kind: str) -> None:
    """One reference, and uploads whose image, key and uploader have generated forms."""
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    db.execute("INSERT INTO refs VALUES (1, %s)", [jpeg(scene(1))])
    db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    db.execute(
        f"""CREATE TABLE uploads (id int PRIMARY KEY, original bytea, name text,
                image bytea GENERATED ALWAYS AS (original) {kind},
                key text GENERATED ALWAYS AS ('upload ' || name) {kind},
                uploader text GENERATED ALWAYS AS (upper(name)) {kind})"""
    )


INSERT = "INSERT INTO uploads (id, original, name) VALUES (%s, %s, 'ann')"


@pytest.mark.parametrize("mode", ["on_copy=flag", "mode=async"])
def test_stored_generated_columns_serve_an_after_trigger(fresh_db, mode):
    uploads(fresh_db, "STORED")
    fresh_db.execute(
        "CREATE TRIGGER flag AFTER INSERT ON uploads FOR EACH ROW "
        f"EXECUTE FUNCTION copy_flag('image', 'key', 'licensed', '{mode}', 'uploader=uploader')"
    )
    fresh_db.execute(INSERT, [1, jpeg(scene(1), 70)])
    fresh_db.execute("CALL copy_process_queue()")
    assert fresh_db.execute("SELECT upload, reference, uploader FROM copymatch.finding").fetchall() == [
        ("upload ann", "1", "ANN")
    ]


def becomes_generated(db, column: str, kind: str) -> None:
    """An ordinary column of the uploads is replaced by a generated one of its name."""
    source = "original" if column == "image" else "name"
    db.execute(f"ALTER TABLE uploads DROP COLUMN {column}")
    db.execute(
        f"ALTER TABLE uploads ADD COLUMN {column} {'bytea' if column == 'image' else 'text'} GENERATED ALWAYS "
        f"AS ({source}) {kind}"
    )


def ordinary(db) -> None:
    """The generated columns of the uploads become ordinary ones."""
    db.execute("ALTER TABLE uploads DROP COLUMN image, DROP COLUMN key, DROP COLUMN uploader")
    db.execute("ALTER TABLE uploads ADD COLUMN image bytea, ADD COLUMN key text, ADD COLUMN uploader text")


def test_stored_generated_column_in_a_before_trigger_is_refused_by_name(fresh_db, sqlstate):
    """When the trigger is made, and at the first upload where the column became one later."""
    uploads(fresh_db, "STORED")
    create = (
        "CREATE TRIGGER flag BEFORE INSERT ON uploads FOR EACH ROW "
        "EXECUTE FUNCTION copy_flag('image', 'id', 'licensed', 'on_copy=reject')"
    )
    with sqlstate("0A000") as made:
        fresh_db.execute(create)
    ordinary(fresh_db)
    fresh_db.execute(create)
    becomes_generated(fresh_db, "image", "STORED")
    with sqlstate("0A000") as uploaded:
        fresh_db.execute(INSERT, [1, jpeg(scene(1), 70)])
    for error in (made, uploaded):
        assert 'column "image" of relation "uploads"' in str(error.value)
        assert "AFTER" in error.value.diag.message_hint
    assert made.value.diag.message_primary == uploaded.value.diag.message_primary


@virtual
@pytest.mark.parametrize(
    ("image", "key", "option", "named"),
    [
        ("image", "id", "k=1", "image"),
        ("original", "key", "k=1", "key"),
        ("original", "id", "uploader=uploader", "uploader"),
    ],
)
@pytest.mark.parametrize("mode", ["on_copy=flag", "mode=async"])
def test_virtual_generated_columns_are_refused_by_name(fresh_db, sqlstate, image, key, option, named, mode):
    """When the trigger is made, and at the first upload where the column became one later."""
    uploads(fresh_db, "VIRTUAL")
    create = (
        "CREATE TRIGGER flag AFTER INSERT ON uploads FOR EACH ROW "
        f"EXECUTE FUNCTION copy_flag('{image}', '{key}', 'licensed', '{mode}', '{option}')"
    )
    if mode == "mode=async" and named == "uploader":  # read by a query, later
        fresh_db.execute(create)
        fresh_db.execute(INSERT, [1, jpeg(scene(1), 70)])
        fresh_db.execute("CALL copy_process_queue()")
        assert fresh_db.execute("SELECT uploader FROM copymatch.finding").fetchall() == [("ANN",)]
        return
    with sqlstate("0A000") as made:
        fresh_db.execute(create)
    with sqlstate("0A000") as called:
        options = {option.split("=")[0]: option.split("=")[1], mode.split("=")[0]: mode.split("=")[1]}
        more = ", ".join(f"{name} => '{value}'" for name, value in options.items())
        fresh_db.execute(f"SELECT copy_create_flagging('uploads', '{image}', '{key}', 'licensed', {more})")
    ordinary(fresh_db)
    fresh_db.execute(create)
    becomes_generated(fresh_db, named, "VIRTUAL")
    with sqlstate("0A000") as uploaded:
        fresh_db.execute(INSERT, [1, jpeg(scene(1), 70)])
    for error in (made, called, uploaded):
        assert f'column "{named}" of relation ' in str(error.value) and "virtual" in str(error.value)
        assert "STORED" in error.value.diag.message_hint
    assert made.value.diag.message_primary == uploaded.value.diag.message_primary


@pytest.mark.parametrize("kind", ["STORED", pytest.param("VIRTUAL", marks=virtual)])
def test_generated_image_of_a_set_is_refused_by_name(fresh_db, sqlstate, kind):
    uploads(fresh_db, kind)
    with sqlstate("0A000") as error:
        fresh_db.execute("SELECT copy_create_set('uploads', 'uploads', 'id', 'image')")
    assert 'column "image" of relation' in str(error.value) and "uploads is generated" in str(error.value)
    # Nor can a set that is there already be given one, as what its image or descriptor is called now.
    fresh_db.execute("ALTER TABLE uploads ADD COLUMN other vector(256)")
    # 18 has no virtual columns of an extension's types.
    fresh_db.execute("ALTER TABLE uploads ADD COLUMN computed vector(256) GENERATED ALWAYS AS (other) STORED")
    fresh_db.execute(f"ALTER TABLE uploads ADD COLUMN small bytea GENERATED ALWAYS AS (original) {kind}")
    fresh_db.execute("SELECT copy_create_set('named', 'uploads', 'id', 'original')")
    for argument, column in (("image", "image"), ("descriptor", "computed"), ("sketch", "small")):
        with sqlstate("0A000") as error:
            fresh_db.execute(f"SELECT copy_set_columns('named', {argument} => '{column}')")
        assert f'column "{column}" of relation' in str(error.value) and "uploads is generated" in str(error.value)
    fresh_db.execute("SELECT copy_drop_set('named', drop_descriptors => true)")
    # A view computes them by itself, and has no trigger; the key may be generated.
    fresh_db.execute("SELECT copy_create_set('uploads', 'uploads', 'key', 'original')")
    fresh_db.execute(INSERT, [1, jpeg(scene(1), 70)])
    assert fresh_db.execute("SELECT reference FROM copy_match(%s::bytea, 'uploads')", [jpeg(scene(1))]).fetchall() == [
        ("upload ann",)
    ]


def test_generated_descriptor_of_a_set_is_refused_by_name(fresh_db, sqlstate):
    fresh_db.execute(
        "CREATE TABLE refs (id int PRIMARY KEY, image bytea, other vector(256), "
        "descriptor vector(256) GENERATED ALWAYS AS (other) STORED)"
    )
    with sqlstate("0A000") as error:
        fresh_db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    assert 'column "descriptor" of relation' in str(error.value) and "refs is generated" in str(error.value)
    fresh_db.execute("SELECT copy_create_set('licensed', 'refs', 'id', NULL)")


@pytest.mark.parametrize(
    ("column", "kind"),
    [("image", "STORED"), pytest.param("image", "VIRTUAL", marks=virtual), ("descriptor", "STORED")],
)
def test_column_of_a_set_that_becomes_generated_refuses_rows_by_name(fresh_db, sqlstate, column, kind):
    """Rows without a descriptor, or with another's, would be missed by every search in silence."""
    fresh_db.execute("CREATE TABLE refs (id int PRIMARY KEY, original bytea, image bytea, other vector(256))")
    fresh_db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    fresh_db.execute(f"ALTER TABLE refs DROP COLUMN {column}")
    source, type = ("original", "bytea") if column == "image" else ("other", "vector(256)")
    fresh_db.execute(f"ALTER TABLE refs ADD COLUMN {column} {type} GENERATED ALWAYS AS ({source}) {kind}")
    with sqlstate("0A000") as error:
        fresh_db.execute("INSERT INTO refs (id, original) VALUES (1, %s)", [jpeg(scene(1))])
    assert f'column "{column}" of relation "refs"' in str(error.value) and '"licensed"' in str(error.value)
    # As the hint has it, once there is an ordinary column.
    assert "copy_set_columns('licensed'" in error.value.diag.message_hint
    fresh_db.execute(f"ALTER TABLE refs ADD COLUMN kept {type}")
    fresh_db.execute(f"SELECT copy_set_columns('licensed', {column} => 'kept')")
    image = "kept" if column == "image" else "image"
    fresh_db.execute(f"INSERT INTO refs (id, {image}) VALUES (1, %s)", [jpeg(scene(1))])
    assert fresh_db.execute(
        "SELECT reference FROM copy_match(%s::bytea, 'licensed')", [jpeg(scene(1), 70)]
    ).fetchall() == [("1",)]


def test_sketch_column_that_becomes_generated_keeps_nobody_from_writing(fresh_db):
    """As one that was dropped: searches do without it."""
    fresh_db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea, other bytea)")
    fresh_db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    fresh_db.execute("ALTER TABLE refs DROP COLUMN descriptor_sketch")
    fresh_db.execute("ALTER TABLE refs ADD COLUMN descriptor_sketch bytea GENERATED ALWAYS AS (other) STORED")
    fresh_db.execute("INSERT INTO refs (id, image) VALUES (1, %s)", [jpeg(scene(1))])
    assert fresh_db.execute(
        "SELECT reference, verified FROM copy_match(%s::bytea, 'licensed')", [jpeg(scene(1), 70)]
    ).fetchall() == [("1", None)]


def test_set_without_images_may_name_a_generated_descriptor(fresh_db):
    """No trigger writes it."""
    fresh_db.execute(
        "CREATE TABLE refs (id int PRIMARY KEY, descriptor vector(256), "
        "computed vector(256) GENERATED ALWAYS AS (descriptor) STORED)"
    )
    fresh_db.execute("SELECT copy_create_set('licensed', 'refs', 'id', NULL)")
    fresh_db.execute("SELECT copy_set_columns('licensed', descriptor => 'computed')")
    assert fresh_db.execute("SELECT descriptor_column FROM copymatch.reference_sets").fetchone() == ("computed",)
