"""copy_explain: a reviewer sees why two pictures match."""

import io

import numpy as np
import pytest
from pictures import blank, jpeg, png, scene
from PIL import Image

GREEN = (20, 190, 70)


def explained(db, image, reference):
    data = db.execute("SELECT copy_explain(%s, %s)", [image, reference]).fetchone()[0]
    assert data.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def matches(db, image, reference):
    cursor = db.execute("SELECT * FROM copy_explain_matches(%s, %s)", [image, reference])
    return dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))


def green(picture):
    return (picture == GREEN).all(2)


def edited(db, image, edit, strength=0.4):
    return db.execute("SELECT copy_edit(%s, %s, %s::real, 3)", [image, edit, strength]).fetchone()[0]


@pytest.mark.parametrize(
    "edit", ["crop", "rotate", "turn", "flip", "jpeg", "grey", "pad", "emoji", "meme", "screenshot"]
)
def test_photographs_and_their_edits_agree(db, photographs, edit):
    names = [name for name, data in photographs.items() if min(Image.open(io.BytesIO(data)).size) > 200][:5]
    found = {name: matches(db, edited(db, photographs[name], edit, 0.3), photographs[name]) for name in names}
    agreeing = [name for name, one in found.items() if one["agrees"]]
    assert len(agreeing) >= len(names) - 1, found
    for name in agreeing:
        assert found[name]["mirrored"] == (edit == "flip")
        assert found[name]["inliers"] <= found[name]["matched"]


def test_different_photographs_do_not_agree(db, photographs):
    # The same scene from two places, and the same board in grey and in colour, do agree.
    names = [name for name in sorted(photographs) if not name.startswith(("chessboard", "motorcycle"))][:12]
    for one, other in zip(names, names[1:], strict=False):
        found = matches(db, photographs[one], photographs[other])
        assert not found["agrees"], (one, other, found)
        assert found["transform"] is None and found["regions"] == []


def test_agreeing_regions_are_outlined_and_strangers_are_shown_as_they_are(db):
    original = jpeg(scene(1, 400, 300))
    picture = explained(db, edited(db, original, "jpeg"), original)
    assert picture.shape[1] == 400 + 400 + 16 + 16 and picture.shape[0] == 300 + 48
    assert green(picture)[:, :408].sum() > 200 and green(picture)[:, 424:].sum() > 200
    assert green(explained(db, jpeg(scene(2)), jpeg(scene(3)))).sum() < 20


def test_the_sides_are_labelled_and_a_caption_says_what_it_comes_to(db):
    original = jpeg(scene(1, 400, 300))
    for picture in (explained(db, original, original), explained(db, jpeg(scene(2)), jpeg(scene(3)))):
        ink = picture.max(2) < 120
        assert ink[:20, :60].any() and ink[:20, picture.shape[1] // 2 :].any() and ink[-20:].any()


def test_what_is_explained_is_what_a_search_weighs(db):
    originals = {name: jpeg(scene(name, 400, 300)) for name in (1, 2)}
    db.execute("CREATE TABLE pictures (id int PRIMARY KEY, image bytea)")
    for name, image in originals.items():
        db.execute("INSERT INTO pictures VALUES (%s, %s)", [name, image])
    db.execute("SELECT copy_create_set('pictures', 'pictures', 'id', 'image')")
    for edit in ("crop", "emoji", "flip", "screenshot"):
        query = edited(db, originals[1], edit)
        row = db.execute(
            "SELECT inliers, agreement, region->>'mirrored' FROM copy_match(%s, verify => 'all') WHERE reference = '1'",
            [query],
        ).fetchone()
        found = matches(db, query, originals[1])
        assert (found["inliers"], found["agreement"], str(found["mirrored"]).lower()) == row, edit


def test_what_was_added_is_faded(db):
    ground = scene(4, 400, 300)
    with_box = ground.copy()
    with_box.paste(scene(90, 120, 120), (250, 150))
    picture = explained(db, png(with_box), png(ground)).astype(int)
    grey = picture.max(2) - picture.min(2) < 3
    inside, outside = grey[8 + 160 : 8 + 260, 8 + 260 : 8 + 360], grey[8 + 20 : 8 + 140, 8 + 20 : 8 + 240]
    assert inside.mean() > 0.7 and outside.mean() < 0.1


def test_numbers_say_where_the_copy_lies(db):
    reference = scene(5, 400, 300)
    collage = Image.new("RGB", (900, 600), (90, 90, 90))
    collage.paste(reference, (450, 250))
    found = matches(db, png(collage), png(reference))
    a, b, c, d, e, f = found["transform"]
    assert (a, e) == (pytest.approx(1, abs=0.02), pytest.approx(1, abs=0.02))
    assert (b, d) == (pytest.approx(0, abs=0.02), pytest.approx(0, abs=0.02))
    assert (c, f) == (pytest.approx(450, abs=5), pytest.approx(250, abs=5))
    left, top, width, height = found["regions"][0]["image"]
    assert 430 <= left <= 500 and 230 <= top <= 300 and width > 280 and height > 200
    left, top, width, height = found["regions"][0]["reference"]
    assert left < 50 and top < 50 and width > 280


def test_the_orientation_that_cameras_write_is_respected(db):
    reference = scene(6, 400, 300)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    reference.transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", exif=exif, quality=90)
    a, b, _, d, e, _ = matches(db, buffer.getvalue(), png(reference))["transform"]
    assert (a, b, d, e) == pytest.approx((1, 0, 0, 1), abs=0.03)


def test_the_answer_is_the_same_every_time_and_small_whatever_comes(db):
    large = jpeg(scene(7, 1800, 1200))
    one, other = (
        db.execute("SELECT copy_explain(%s, %s)", [large, jpeg(scene(7, 600, 400))]).fetchone()[0] for _ in range(2)
    )
    assert one == other
    width, height = Image.open(io.BytesIO(one)).size
    assert width <= 2 * 512 + 32 and height <= 512 + 16


def test_pictures_without_structure_agree_on_nothing(db):
    found = matches(db, blank(), blank())
    assert (found["agrees"], found["matched"], found["regions"]) == (False, 0, [])
    assert explained(db, blank(), png(Image.new("RGB", (1, 1)))).size > 0


def test_null_gives_null(db):
    assert db.execute("SELECT copy_explain(NULL, %s), copy_explain(%s, NULL)", [blank(), blank()]).fetchone() == (
        None,
        None,
    )


@pytest.mark.parametrize(
    ("image", "reference", "names"), [(b"no image", None, "image"), (None, b"", "reference_image")]
)
def test_what_is_no_image_is_an_error_that_says_which(db, sqlstate, image, reference, names):
    good = jpeg(scene(1))
    with sqlstate("22P03") as error:
        db.execute(
            "SELECT copy_explain(%s, %s)", [good if image is None else image, good if reference is None else reference]
        )
    assert error.value.diag.message_primary.startswith(names + ":")


def test_explaining_can_be_cancelled(db, sqlstate):
    db.execute("SET statement_timeout = '400ms'")
    with sqlstate("57014"):
        db.execute(
            "SELECT count(copy_explain(%s, %s || int4send(n))) FROM generate_series(1, 1000) n",
            [jpeg(scene(1)), jpeg(scene(1))],
        )


def test_a_role_without_any_right_may_explain_bytes_it_holds(db):
    db.execute(
        "DROP ROLE IF EXISTS nobody_in_particular; CREATE ROLE nobody_in_particular; SET ROLE nobody_in_particular"
    )
    try:
        assert matches(db, jpeg(scene(1)), jpeg(scene(1)))["agrees"]
    finally:
        db.execute("RESET ROLE; DROP ROLE nobody_in_particular")
