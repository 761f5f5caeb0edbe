"""Verification: sketches beside descriptors, the pictures themselves compared, and one verdict from all of it."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import psycopg
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
import strangers  # noqa: E402

# Pillow's own font, on every machine: the letters decide what there is to compare.
strangers.FONTS = Path("/nowhere")


def encoded(image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, kind, **options)
    return out.getvalue()


def half(image):
    return image.resize((image.width // 2, image.height // 2))


@pytest.fixture(scope="module")
def db(server, _module_db):
    with server.connect(_module_db) as connection:
        fill(connection)
        yield connection


def fill(connection):
    connection.execute("CREATE TABLE maps (id int PRIMARY KEY, image bytea NOT NULL)")
    for number in range(12):
        connection.execute("INSERT INTO maps VALUES (%s, %s)", (number, encoded(strangers.draw("maps", number, 3))))
    connection.execute("SELECT copy_create_set('maps', 'maps', key => 'id', image => 'image')")


def best(db, image: bytes, **options):
    arguments = "".join(f", {name} => %({name})s" for name in options)
    query = f"SELECT m.* FROM copy_match(%(image)s::bytea, 'maps', k => 1{arguments}) m"
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        return cursor.execute(query, {"image": image, **options}).fetchone()


def test_a_set_keeps_a_sketch_beside_every_descriptor(db):
    sizes = db.execute(
        "SELECT count(descriptor), count(descriptor_sketch), max(octet_length(descriptor_sketch)) FROM maps"
    ).fetchone()
    assert sizes[:2] == (12, 12) and sizes[2] <= 8192
    assert db.execute("SELECT bool_and(descriptor_sketch = copy_sketch(image)) FROM maps").fetchone()[0], (
        "as the trigger's function makes it"
    )


def test_a_copy_is_verified_and_the_boxes_say_where(db):
    verdicts = []
    for number in range(12):
        original = strangers.draw("maps", number, 3)
        found = best(db, encoded(strangers.copies(original, number)["crop"], "JPEG", quality=70))
        assert (found["reference"], found["verified"]) == (str(number), True), found
        assert found["inliers"] >= 8 and found["agreement"] > 0.5
        left, top, width, height = found["region"]["image"]
        assert width > 0.7 and height > 0.7 and left >= 0 and top >= 0, found["region"]
        verdicts.append(found["verdict"])
    assert set(verdicts) <= {"copy", "review"} and verdicts.count("copy") >= 11, verdicts


def test_a_stranger_of_the_same_kind_is_no_copy(db):
    for number in range(12, 24):
        found = best(db, encoded(strangers.draw("maps", number, 3)))
        assert found["verdict"] != "copy" and found["verified"] is False, found


def test_off_is_the_paper_alone(db):
    image = encoded(half(strangers.draw("maps", 2, 3)), "JPEG", quality=80)
    found = best(db, image, verify="off")
    assert found["verified"] is None and found["inliers"] is None and found["region"] is None
    stretched = db.execute(
        "SELECT score FROM copy_stretch(%s, %s, 'maps')", (found["similarity"], found["background"])
    ).fetchone()[0]
    assert found["score"] == pytest.approx(stretched)
    by_descriptor = db.execute(
        "SELECT score, probability FROM copy_match_descriptor(copy_embed(%s::bytea), 'maps', 1)", (image,)
    ).fetchone()
    assert (found["score"], found["probability"]) == pytest.approx(by_descriptor)


def test_scores_sort_as_probabilities_do(db):
    image = encoded(half(strangers.draw("maps", 2, 3)), "JPEG", quality=80)
    rows = db.execute(
        "SELECT score, probability FROM copy_match(%s::bytea, 'maps', k => 12, verify => 'all')", (image,)
    ).fetchall()
    assert len(rows) == 12 and rows == sorted(rows, key=lambda row: -row[0])
    assert [p for _, p in rows] == sorted((p for _, p in rows), reverse=True)


def test_min_verdict_leaves_out_what_is_less(db):
    image = encoded(half(strangers.draw("maps", 2, 3)), "JPEG", quality=80)
    count = "SELECT count(*) FROM copy_match(%s::bytea, 'maps', k => 12, min_verdict => %s)"
    assert db.execute(count, (image, "copy")).fetchone()[0] == 1
    assert db.execute(count, (image, None)).fetchone()[0] == 12
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="min_verdict"):
        db.execute(count, (image, "sure"))
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="verify"):
        db.execute("SELECT count(*) FROM copy_match(%s::bytea, 'maps', verify => 'perhaps')", (image,))


def test_a_whole_table_is_verified_too(db):
    db.execute("CREATE TABLE uploads (id int PRIMARY KEY, image bytea)")
    db.execute(
        "INSERT INTO uploads VALUES (1, %s), (2, %s)",
        (encoded(half(strangers.draw("maps", 7, 3))), encoded(strangers.draw("maps", 17, 3))),
    )
    rows = db.execute(
        "SELECT upload, reference, verdict, verified FROM copy_match_table('uploads', 'id', 'image', 'maps', "
        "min_verdict => 'copy')"
    ).fetchall()
    assert rows == [("1", "7", "copy", True)]


def test_a_damaged_sketch_is_an_error_that_names_the_row(db):
    image = encoded(half(strangers.draw("maps", 5, 3)))
    with db.transaction(force_rollback=True):
        db.execute(
            "UPDATE maps SET descriptor_sketch = set_byte(descriptor_sketch, 100, get_byte(descriptor_sketch, "
            "100) # 1) WHERE id = 5"
        )
        with pytest.raises(psycopg.errors.DataCorrupted, match="reference 5 of set"), db.transaction():
            best(db, image)
        assert best(db, image, verify="off")["reference"] == "5"
        db.execute("UPDATE maps SET descriptor_sketch = NULL")
        found = best(db, image)
        assert found["reference"] == "5" and found["verified"] is None
        # Of a later version: not verified, and no error.
        db.execute("UPDATE maps SET descriptor_sketch = set_byte(copy_sketch(image), 4, 9)")
        assert best(db, image)["verified"] is None


def test_the_sketch_follows_the_image(db):
    with db.transaction(force_rollback=True):
        db.execute("UPDATE maps SET image = (SELECT image FROM maps WHERE id = 1) WHERE id = 0")
        assert db.execute("SELECT bool_and(descriptor_sketch = copy_sketch(image)) FROM maps").fetchone()[0]


def test_a_picture_registered_six_times_answers_like_one_registered_once(db):
    image = encoded(half(strangers.draw("maps", 9, 3)), "JPEG", quality=80)
    once = best(db, image)
    with db.transaction(force_rollback=True):
        db.execute("INSERT INTO maps SELECT 100 + n, image FROM maps, generate_series(1, 5) n WHERE id = 9")
        often = best(db, image)
    assert often["verdict"] == once["verdict"] == "copy"
    assert often["probability"] == pytest.approx(once["probability"], abs=0.01)


def test_without_sketches_a_set_works_as_before_and_can_have_them_later(db):
    db.execute("CREATE TABLE plain AS SELECT id, image FROM maps")
    db.execute("SELECT copy_create_set('plain', 'plain', key => 'id', image => 'image', verify => false)")
    columns = (
        "SELECT attname FROM pg_attribute WHERE attrelid = 'plain'::regclass AND attnum > 0 AND NOT attisdropped "
        "ORDER BY attnum"
    )
    assert [name for (name,) in db.execute(columns).fetchall()] == ["id", "image", "descriptor"]
    image = encoded(half(strangers.draw("maps", 3, 3)))
    query = "SELECT reference, verified FROM copy_match(%s::bytea, 'plain', k => 1)"
    assert db.execute(query, (image,)).fetchone() == ("3", None)
    db.execute("SELECT copy_alter_set('plain', verify => 'auto')")
    db.execute("CALL copy_fill_set('plain')")
    assert db.execute("SELECT count(descriptor_sketch) FROM plain").fetchone()[0] == 12
    assert db.execute(query, (image,)).fetchone() == ("3", True)
    db.execute("SELECT copy_drop_set('plain', drop_descriptors => true)")
    assert [name for (name,) in db.execute(columns).fetchall()] == ["id", "image"]


def test_who_may_not_read_the_sketches_is_answered_by_descriptor(db):
    db.execute("CREATE ROLE sketchless; GRANT SELECT (id, descriptor) ON maps TO sketchless")
    try:
        db.execute("SET ROLE sketchless")
        found = best(db, encoded(half(strangers.draw("maps", 3, 3))))
    finally:
        db.execute("RESET ROLE; DROP OWNED BY sketchless; DROP ROLE sketchless")
    assert found["reference"] == "3" and found["verified"] is None


def test_rows_that_the_reader_may_not_see_are_not_compared(db):
    """Sketches come with the search's own statement: what a policy hides shows in no column of the answer."""
    image = encoded(half(strangers.draw("maps", 6, 3)), "JPEG", quality=80)
    with db.transaction(force_rollback=True):
        db.execute("CREATE ROLE hidden_from; GRANT SELECT ON maps TO hidden_from")
        db.execute("ALTER TABLE maps ENABLE ROW LEVEL SECURITY; CREATE POLICY but_six ON maps USING (id <> 6)")
        db.execute("SET LOCAL ROLE hidden_from")
        rows = db.execute(
            "SELECT reference, verified FROM copy_match(%s::bytea, 'maps', k => 12, verify => 'all')", (image,)
        ).fetchall()
    assert len(rows) == 11 and "6" not in {reference for reference, _ in rows}
    assert {verified for _, verified in rows} == {False}


def test_a_sketch_column_of_another_type_or_none_is_not_read(db):
    image = encoded(half(strangers.draw("maps", 6, 3)), "JPEG", quality=80)
    for change in (
        "ALTER TABLE maps ALTER COLUMN descriptor_sketch TYPE text USING 'CMSK'",
        "ALTER TABLE maps ALTER COLUMN descriptor_sketch TYPE bigint USING 4702111234474983745",
        "ALTER TABLE maps DROP COLUMN descriptor_sketch",
    ):
        with db.transaction(force_rollback=True):
            db.execute(change)
            found = best(db, image)
            assert found["reference"] == "6" and found["verified"] is None
            db.execute("INSERT INTO maps VALUES (50, %s)", (encoded(strangers.draw("maps", 50, 3)),))
            assert db.execute("SELECT descriptor IS NOT NULL FROM maps WHERE id = 50").fetchone()[0]


def test_hostile_sketches_are_errors_that_name_the_row(db):
    image = encoded(half(strangers.draw("maps", 5, 3)))
    for bytes_of_it, error in (
        ("''::bytea", "no sketch"),
        ("'CMSK'::bytea", "no sketch"),
        ("decode(repeat('ff', 5000), 'hex')", "no sketch"),
        ("substr(copy_sketch(image), 1, 2000)", "checksum"),
        ("copy_sketch(image) || '\\x00'::bytea", "damaged"),
        ("copy_sketch(image) || decode(repeat('00', 100000), 'hex')", "too long"),
    ):
        with db.transaction(force_rollback=True):
            db.execute(f"UPDATE maps SET descriptor_sketch = {bytes_of_it} WHERE id = 5")
            with (
                pytest.raises(psycopg.errors.DataCorrupted, match=f"reference 5 of set.*{error}") as raised,
                db.transaction(),
            ):
                best(db, image)
            assert "copy_fill_set" in raised.value.diag.message_hint


def test_a_view_brings_its_sketches(db):
    db.execute("CREATE VIEW shown AS SELECT id AS key, descriptor AS d, descriptor_sketch AS d_sketch FROM maps")
    db.execute("SELECT copy_create_set('shown', 'shown', key => 'key', image => NULL, descriptor => 'd')")
    image = encoded(half(strangers.draw("maps", 8, 3)), "JPEG", quality=80)
    row = db.execute(
        "SELECT reference, verdict, verified FROM copy_match(%s::bytea, 'shown', k => 1)", (image,)
    ).fetchone()
    assert row == ("8", "copy", True)
    db.execute("SELECT copy_drop_set('shown'); DROP VIEW shown")


def test_partitions_keep_sketches_and_are_filled(db):
    db.execute("CREATE TABLE parts (id int, image bytea) PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM (0) TO (6)")
    db.execute("CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM (6) TO (100)")
    db.execute("INSERT INTO parts SELECT id, image FROM maps WHERE id < 12")
    db.execute("SELECT copy_create_set('parts', 'parts', key => 'id', image => 'image', embed => false)")
    db.execute("CALL copy_fill_set('parts', 1)")
    sizes = "SELECT count(*), count(descriptor), count(descriptor_sketch) FROM parts"
    assert db.execute(sizes).fetchone() == (12, 12, 12)
    image = encoded(half(strangers.draw("maps", 8, 3)), "JPEG", quality=80)
    row = db.execute(
        "SELECT reference, verdict, verified FROM copy_match(%s::bytea, 'parts', k => 1)", (image,)
    ).fetchone()
    assert row == ("8", "copy", True)
    db.execute("SELECT copy_drop_set('parts', drop_descriptors => true); DROP TABLE parts")


def test_sets_over_the_same_images_share_their_sketches(db):
    db.execute("SELECT copy_create_set('some maps', 'maps', 'id', 'image', filter => 'id < 6')")
    columns = (
        "SELECT name, sketch_column, intact FROM copymatch.reference_sets WHERE name IN ('maps', 'some maps') "
        "ORDER BY name"
    )
    assert db.execute(columns).fetchall() == [
        ("maps", "descriptor_sketch", True),
        ("some maps", "descriptor_sketch", True),
    ]
    image = encoded(half(strangers.draw("maps", 4, 3)), "JPEG", quality=80)
    assert db.execute("SELECT verified FROM copy_match(%s::bytea, 'some maps', k => 1)", (image,)).fetchone() == (True,)
    db.execute("SELECT copy_drop_set('some maps')")
    assert best(db, image)["verified"] is True


def test_off_for_a_set_holds_until_a_search_says_otherwise(db):
    image = encoded(half(strangers.draw("maps", 4, 3)), "JPEG", quality=80)
    with db.transaction(force_rollback=True):
        db.execute("SELECT copy_alter_set('maps', verify => 'off')")
        assert best(db, image)["verified"] is None
        assert best(db, image, verify="auto")["verified"] is True
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="verify"), db.transaction():
            db.execute("SELECT copy_alter_set('maps', verify => 'sometimes')")


def test_as_many_are_compared_as_the_setting_says(db):
    image = encoded(strangers.draw("maps", 30, 3))
    with db.transaction(force_rollback=True):
        db.execute("SET LOCAL copymatch.verify_nearest = 4")
        rows = db.execute(
            "SELECT verified, similarity FROM copy_match(%s::bytea, 'maps', k => 12, verify => 'all')", (image,)
        ).fetchall()
    compared = [similarity for verified, similarity in rows if verified is not None]
    assert len(rows) == 12 and sorted(compared) == sorted(similarity for _, similarity in rows)[-4:]


def test_a_search_is_cancelled_while_it_compares(db):
    """With two hundred references registered alike, all of which are compared, the time limit ends it in order."""
    image = encoded(half(strangers.draw("maps", 9, 3)), "JPEG", quality=80)
    with db.transaction(force_rollback=True):
        db.execute(
            "CREATE TABLE many AS SELECT m.id * 100 + n AS id, m.image, m.descriptor, m.descriptor_sketch "
            "FROM maps m, generate_series(1, 80) n"
        )
        db.execute("SELECT copy_create_set('many', 'many', 'id', 'image')")
        db.execute("SET LOCAL copymatch.verify_nearest = 1000")
        query = "SELECT count(*) FROM copy_match(%s::bytea, 'many', k => 10, verify => 'all')"
        assert db.execute(query, (image,)).fetchone() == (10,)
        db.execute("SET LOCAL statement_timeout = '60ms'")
        with pytest.raises(psycopg.errors.QueryCanceled), db.transaction():
            db.execute(query, (image,))


def test_flagging_rests_on_the_evidence(db):
    db.execute("CREATE TABLE posts (id int PRIMARY KEY, image bytea)")
    db.execute("SELECT copy_create_flagging('posts', 'image', 'id', 'maps')")
    db.execute("INSERT INTO posts VALUES (1, %s)", (encoded(half(strangers.draw("maps", 7, 3)), "JPEG", quality=80),))
    db.execute("INSERT INTO posts VALUES (2, %s)", (encoded(strangers.draw("maps", 17, 3)),))
    found = db.execute(
        "SELECT upload, reference, verdict FROM copymatch.finding WHERE reference_set = 'maps'"
    ).fetchall()
    assert found == [("1", "7", "copy")]


def test_a_picture_that_a_sketch_cannot_show_is_itself_all_the_same(fresh_db):
    """Noise: nothing of its content is left in a small picture, which contradicts nothing."""
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(noise, "PNG")
    fresh_db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    fresh_db.execute("SELECT copy_create_set('noise', 'refs', 'id', 'image')")
    fresh_db.execute("INSERT INTO refs VALUES (1, %s)", [noise.getvalue()])
    found = fresh_db.execute(
        "SELECT verdict, similarity, agreement < 0.5 FROM copy_match(%s)", [noise.getvalue()]
    ).fetchone()
    assert found == ("copy", pytest.approx(1.0), True)


def test_dumped_and_restored_a_set_answers_the_same(db, server, new_db):
    image = encoded(half(strangers.draw("maps", 7, 3)), "JPEG", quality=60)
    before = best(db, image)
    assert before["verified"]
    target = new_db(extension=False)
    server.run(
        "/bin/bash",
        "-c",
        f"set -o pipefail; {server.bin}/pg_dump -d '{server.dsn(db.info.dbname)}' | {server.bin}/psql -qX -v "
        f"ON_ERROR_STOP=1 -d '{server.dsn(target)}'",
    )
    with server.connect(target) as restored:
        assert best(restored, image) == before
        assert restored.execute("SELECT count(*) FROM maps WHERE descriptor_sketch IS NULL").fetchone() == (0,)


def test_sketches_of_another_format_beside_these_are_not_compared(db):
    image = encoded(half(strangers.draw("maps", 7, 3)))
    with db.transaction(force_rollback=True):
        # The format's number lies behind the first four bytes.
        db.execute("UPDATE maps SET descriptor_sketch = set_byte(descriptor_sketch, 4, 2) WHERE id % 2 = 0")
        rows = db.execute(
            "SELECT reference::int %% 2 = 0, verified IS NULL "
            "FROM copy_match(%s::bytea, 'maps', k => 12, verify => 'all')",
            [image],
        ).fetchall()
        assert {row for row in rows} == {(True, True), (False, False)}
        assert best(db, image)["reference"] == "7"


def test_references_that_change_while_they_are_compared_are_those_of_the_snapshot(db, server):
    image = encoded(half(strangers.draw("maps", 7, 3)))
    with server.connect(db.info.dbname) as other:
        other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        before = best(other, image)
        db.execute("DELETE FROM maps WHERE id = 7")
        try:
            assert best(other, image) == before
            other.execute("COMMIT")
            assert best(other, image)["reference"] != "7"
        finally:
            db.execute("INSERT INTO maps VALUES (7, %s)", (encoded(strangers.draw("maps", 7, 3)),))


def test_weights_are_fitted_to_what_a_search_finds(db, sqlstate):
    image = encoded(half(strangers.draw("maps", 7, 3)))
    found = db.execute(
        "SELECT m.reference, m.inliers, m.agreement FROM copy_match(%s::bytea, 'maps', k => 12, verify => 'all') m "
        "ORDER BY m.reference::int",
        [image],
    ).fetchall()
    compared = db.execute(
        "SELECT (f.place - 1)::text, f.inliers, f.agreement, f.compared, f.ground "
        "FROM copymatch.compare_sketches(%s::bytea, "
        "(SELECT name FROM copymatch.models WHERE is_default), (SELECT array_agg(descriptor_sketch ORDER BY id) "
        "FROM maps)) f ORDER BY f.place",
        [image],
    ).fetchall()
    assert [row[:3] for row in compared] == found
    assert compared[7][3] >= 50 and all(0.4 < row[4] < 0.9 for row in compared), "maps are drawn"
    of_nothing = (
        "SELECT count(*) FROM copymatch.compare_sketches(%s::bytea, (SELECT name FROM copymatch.models "
        "WHERE is_default), %s::bytea[])"
    )
    assert db.execute(of_nothing, [image, [None]]).fetchone() == (0,)
    with sqlstate("XX001"):
        db.execute(of_nothing, [image, [b"no sketch"]])


@pytest.mark.parametrize("size", [(1, 300), (2, 700), (3000, 1), (40, 20_000)])
def test_pictures_of_no_camera_s_shape_are_compared_like_any(db, size):
    """Read at a fraction of its size, a strip is a line of pixels."""
    strip = encoded(Image.effect_noise(size, 200))
    with contextlib.suppress(psycopg.errors.DataException):  # "too little detail", once it is shrunk
        db.execute("SELECT * FROM copy_match(%s::bytea, 'maps', verify => 'all')", [strip]).fetchall()
    for first, second in ((strip, "image"), ("image", strip)):
        pictures = [
            "(SELECT image FROM maps WHERE id = 0)" if one == "image" else "%s::bytea" for one in (first, second)
        ]
        for function in ("copy_explain", "copy_explain_matches"):
            db.execute(f"SELECT {function}({', '.join(pictures)})", [strip])
