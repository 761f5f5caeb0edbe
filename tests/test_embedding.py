"""copy_embed, its batch form, copy_image_info, copy_edit, copy_runtime: what they return and what they refuse."""

import time

import numpy as np
import psycopg
import pytest
from conftest import MAJOR
from pictures import blank, jpeg, png, png_bomb, scene


def vector(text: str) -> np.ndarray:
    return np.array([float(x) for x in text.strip("[]").split(",")])


def embed(db, image, **more):
    row = db.execute("SELECT copy_embed(%s, %s)::text", [image, more.get("model")]).fetchone()
    return None if row[0] is None else vector(row[0])


def test_descriptor_is_a_unit_vector_of_the_models_dimensions(db):
    dimensions = db.execute("SELECT dimensions FROM copymatch.models WHERE is_default").fetchone()[0]
    descriptor = embed(db, jpeg(scene(1)))
    assert descriptor.shape == (dimensions,)
    assert abs(np.linalg.norm(descriptor) - 1) < 1e-5


def test_same_image_gives_the_same_descriptor_and_another_image_another(db):
    image = jpeg(scene(2))
    assert (embed(db, image) == embed(db, image)).all()
    assert embed(db, image) @ embed(db, jpeg(scene(3))) < 0.95


def test_file_format_hardly_matters(db):
    picture = scene(4)
    assert embed(db, png(picture)) @ embed(db, jpeg(picture, 95)) > 0.97


def test_null_image_gives_null(db):
    assert embed(db, None) is None
    assert db.execute("SELECT copy_embed_batch(NULL)").fetchone()[0] is None


def test_untyped_literal_resolves_to_bytea(db):
    with pytest.raises(psycopg.Error) as error:
        db.execute("SELECT copy_embed('not an image')")
    assert error.value.sqlstate == "22P03"


def test_batch_equals_single_calls_and_keeps_order_and_nulls(db):
    images = [jpeg(scene(seed)) for seed in range(20)]
    images.insert(7, None)
    rows = db.execute(
        "SELECT d::text FROM unnest(copy_embed_batch(%s)) WITH ORDINALITY AS u(d, n) ORDER BY n", [images]
    ).fetchall()
    assert len(rows) == 21 and rows[7][0] is None
    for image, (text,) in zip(images, rows, strict=True):
        if image is not None:
            assert np.abs(vector(text) - embed(db, image)).max() < 1e-4


def test_empty_batch_gives_an_empty_array(db):
    assert db.execute("SELECT array_length(copy_embed_batch('{}'), 1), copy_embed_batch('{}') IS NULL").fetchone() == (
        None,
        False,
    )


def test_batch_error_names_the_image(db, sqlstate):
    with sqlstate("22P03") as error:
        db.execute("SELECT copy_embed_batch(%s)", [[jpeg(scene(1)), b"broken"]])
    assert "image 2" in str(error.value)


def test_every_kind_of_broken_image_is_refused_with_its_cause(db, sqlstate):
    whole = jpeg(scene(1))
    for state, image, word in [
        ("22P03", b"", "empty"),
        ("22P03", b"hello, world", "format"),
        ("22P03", whole[: len(whole) // 2], "truncated"),
        ("54000", png_bomb(), "30000"),
        ("22000", blank(), "too little detail"),
    ]:
        with sqlstate(state) as error:
            db.execute("SELECT copy_embed(%s)", [image])
        assert word in str(error.value).lower()
        assert error.value.diag.message_hint
    assert embed(db, whole) is not None, "the session goes on after refusals"


def test_limits_hold_before_anything_is_decoded(db, sqlstate):
    noise = np.random.default_rng(1).integers(0, 255, (1200, 1200, 3), dtype="uint8")
    from PIL import Image

    image = png(Image.fromarray(noise))
    for setting, value in [("max_image_bytes", "100kB"), ("max_image_megapixels", "1"), ("max_image_memory", "1MB")]:
        with db.transaction():
            db.execute(f"SET LOCAL copymatch.{setting} = '{value}'")
            with sqlstate("54000") as error, db.transaction():
                db.execute("SELECT copy_embed(%s)", [image])
            assert f"copymatch.{setting}" in error.value.diag.message_hint


def test_unknown_model_is_named(db, sqlstate):
    with sqlstate("42704") as error:
        db.execute("SELECT copy_embed(%s, 'no-such-model')", [jpeg(scene(1))])
    assert "no-such-model" in str(error.value) and "copymatch.models" in error.value.diag.message_hint


def test_statement_timeout_ends_a_batch_between_images(db, sqlstate):
    images = [jpeg(scene(seed)) for seed in range(16)]
    db.execute("SELECT copy_embed(%s)", [images[0]])  # loads the model
    started = time.monotonic()
    db.execute("SELECT copy_embed_batch(%s)", [images])
    whole = (time.monotonic() - started) * 50
    db.execute("SET statement_timeout = '100ms'")
    started = time.monotonic()
    with sqlstate("57014") as error:
        db.execute("SELECT copy_embed_batch(%s)", [images * 50])
    assert time.monotonic() - started < max(whole / 4, 2), "the rest of the batch was not waited for"
    assert "statement timeout" in str(error.value)
    db.execute("RESET statement_timeout")
    assert embed(db, images[0]) is not None, "the model is usable after a cancellation"


def test_cancel_request_ends_the_decoding_of_a_large_picture(db, sqlstate):
    """The first picture alone takes seconds to read: the request must be seen within it, not behind it."""
    import io
    import threading

    from PIL import Image

    large = scene(1, 600, 600).resize((8000, 8000), Image.NEAREST)
    buffer = io.BytesIO()
    large.save(buffer, "PNG", compress_level=1)
    db.execute("CREATE TABLE large AS SELECT %s::bytea AS image", [buffer.getvalue()])
    started = time.monotonic()
    db.execute("SELECT width FROM large, copy_image_info(image)")
    whole = time.monotonic() - started
    threading.Timer(whole / 5, db.cancel).start()
    started = time.monotonic()
    with sqlstate("57014"):
        db.execute("SELECT count(copy_embed(image)) FROM large, generate_series(1, 5)")
    assert time.monotonic() - started < whole


def test_image_info_says_what_an_image_is(db):
    from PIL import Image

    picture = scene(5, 400, 300)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by a quarter turn
    import io

    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    row = db.execute(
        "SELECT format, width, height, orientation, frames, colour, bits_per_channel, has_alpha, matchable, reason "
        "FROM copy_image_info(%s)",
        [buffer.getvalue()],
    ).fetchone()
    assert row == ("JPEG", 300, 400, 6, 1, "YCbCr", 8, False, True, None)
    matchable, reason = db.execute("SELECT matchable, reason FROM copy_image_info(%s)", [blank()]).fetchone()
    assert not matchable and reason
    assert db.execute("SELECT (copy_image_info(%s)).width", [png(picture)]).fetchone()[0] == 400


def test_image_info_runs_over_a_table_whatever_is_in_it(db):
    whole = jpeg(scene(5, 400, 300))
    db.execute("CREATE TABLE uploads (id text, image bytea)")
    for name, image in {
        "good": whole,
        "cut": whole[: len(whole) // 2],
        "text": b"hello",
        "empty": b"",
        "null": None,
        "bomb": png_bomb(),
        "blank": blank(),
    }.items():
        db.execute("INSERT INTO uploads VALUES (%s, %s)", [name, image])
    rows = db.execute(
        "SELECT id, i.matchable, i.format, i.width, i.reason, i.frame, i.detail FROM uploads, copy_image_info(image) i"
    ).fetchall()
    found = {row[0]: row[1:] for row in rows}
    assert found["good"][:5] == (True, "JPEG", 400, None, 1)
    assert found["cut"][:3] == (False, "JPEG", 400) and "truncated" in found["cut"][3]
    assert found["text"][:3] == (False, None, None) and "not recognised" in found["text"][3]
    assert found["empty"][0] is False and "empty" in found["empty"][3]
    assert found["bomb"][:3] == (False, "PNG", 30000) and "limit" in found["bomb"][3]
    assert found["blank"][0] is False and found["blank"][3] and found["blank"][5] is not None
    for name in ("cut", "text", "empty", "bomb"):
        assert found[name][4:] == (None, None), name
    assert found["null"] == (None,) * 6


def test_image_info_is_an_error_for_a_cancel_alone(db, sqlstate):
    image = jpeg(scene(5, 2600, 2000))
    db.execute("SET statement_timeout = 1; SET copymatch.max_image_memory = '1GB'")
    with sqlstate("57014"):
        db.execute("SELECT copy_image_info(image) FROM (SELECT %s::bytea AS image) i, generate_series(1, 100)", [image])


def test_an_animation_that_starts_blank_is_described_by_the_frame_that_shows_most(db):
    import io

    from PIL import Image

    picture = scene(6)
    black = Image.new("RGB", picture.size)
    for kind, options in {"GIF": {}, "WEBP": {"lossless": True}, "PNG": {}}.items():
        buffer = io.BytesIO()
        black.save(buffer, kind, save_all=True, append_images=[black, picture, picture], duration=40, **options)
        info = db.execute("SELECT matchable, frame FROM copy_image_info(%s)", [buffer.getvalue()]).fetchone()
        assert info[0] and info[1] > 1, (kind, info)
        # A GIF has fewer colours: its own frame is what it is compared with.
        animation = Image.open(buffer)
        animation.seek(info[1] - 1)
        assert embed(db, buffer.getvalue()) @ embed(db, png(animation.convert("RGB"))) > 0.99, kind


def test_every_edit_heeds_the_statement_timeout(db, sqlstate):
    image = jpeg(scene(9, 6000, 5000))
    edits = [edit for (edit,) in db.execute("SELECT edit FROM copy_edits()")]
    db.execute("SET statement_timeout = '300ms'")
    for edit in edits:
        started = time.monotonic()
        try:
            db.execute("SELECT length(copy_edit(%s, %s, 0.7))", [image, edit])
        except psycopg.Error as error:
            assert error.sqlstate == "57014", (edit, error)
        assert time.monotonic() - started < 1.5, edit


def test_gif_frames_are_counted_and_the_first_one_is_embedded(db):
    import io

    frames = [scene(seed).convert("P") for seed in (6, 7, 8)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert db.execute("SELECT frames FROM copy_image_info(%s)", [buffer.getvalue()]).fetchone()[0] == 3
    assert embed(db, buffer.getvalue()) @ embed(db, png(frames[0].convert("RGB"))) > 0.99


def test_edits_are_listed_reproducible_and_seeded(db):
    image = jpeg(scene(9))
    edits = [edit for (edit,) in db.execute("SELECT edit FROM copy_edits() WHERE description <> ''")]
    assert {"crop", "rotate", "flip", "blur", "noise", "jitter", "grey", "jpeg", "pad", "text", "paste", "meme"} <= set(
        edits
    )
    for edit in edits:
        first, again = db.execute(
            "SELECT copy_edit(%s, %s, 0.5, 7), copy_edit(%s, %s, 0.5, 7)", [image, edit, image, edit]
        ).fetchone()
        assert first == again and first != image
    one, two = db.execute(
        "SELECT copy_edit(%s, 'crop', 0.5, 1), copy_edit(%s, 'crop', 0.5, 2)", [image, image]
    ).fetchone()
    assert one != two


def test_wrong_edit_and_wrong_strength_are_refused(db, sqlstate):
    image = jpeg(scene(9))
    with sqlstate("22023") as error:
        db.execute("SELECT copy_edit(%s, 'melt')", [image])
    assert "melt" in str(error.value) and "crop" in error.value.diag.message_hint
    for strength in ("1.5", "-0.1", "NaN"):
        with sqlstate("22023"):
            db.execute("SELECT copy_edit(%s, 'crop', %s)", [image, strength])


def test_runtime_says_which_provider_really_runs(db):
    row = db.execute("SELECT requested_provider, provider, threads, runtime_version FROM copy_runtime()").fetchone()
    assert row[0] == "auto" and row[1] in ("cpu", "cuda") and row[2] == 1 and row[3]


def test_auto_says_once_in_the_log_of_a_server_that_it_fell_back_to_the_cpu(fresh_cluster):
    cluster = fresh_cluster()
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        if db.execute("SELECT provider FROM copy_runtime()").fetchone()[0] != "cpu":
            pytest.skip("this machine has a GPU")
        assert db.execute("SELECT fallback_reason FROM copy_runtime()").fetchone()[0]
    line = "copymatch.execution_provider is auto: the CPU runs the network"
    for starts in (1, 2):
        for _ in range(3):
            with cluster.connect() as db:
                db.execute("SELECT copy_embed(%s)", [jpeg(scene(1))])
        assert cluster.log.read_text(errors="replace").count(line) == starts
        cluster.restart()


def test_provider_that_cannot_be_had_is_an_error_unless_auto(db, sqlstate):
    if db.execute("SELECT provider FROM copy_runtime()").fetchone()[0] != "cpu":
        pytest.skip("this machine has a GPU")
    db.execute("SET copymatch.execution_provider = 'cuda'")
    with sqlstate("38000") as error:
        db.execute("SELECT copy_embed(%s)", [jpeg(scene(1))])
    assert "cuda" in str(error.value).lower()
    db.execute("SET copymatch.execution_provider = 'auto'")
    assert embed(db, jpeg(scene(1))) is not None


def test_missing_runtime_library_is_named_with_a_hint(db, connect, sqlstate):
    other = connect(db.info.dbname)
    other.execute("SET copymatch.onnxruntime_library = '/nowhere/libonnxruntime.so'")
    with sqlstate("38000") as error:
        other.execute("SELECT public.copy_embed(%s)", [jpeg(scene(1))])
    assert "/nowhere/libonnxruntime.so" in str(error.value) and error.value.diag.message_hint


def test_threads_can_be_raised_without_changing_the_result(db):
    image = jpeg(scene(10))
    before = embed(db, image)
    db.execute("SET copymatch.threads = 2")
    assert np.abs(before - embed(db, image)).max() < 1e-4


def test_threads_of_the_runtime_take_no_signals(db):
    """A signal meant for the backend must reach its main thread, or PostgreSQL's handlers run on a foreign one."""
    db.execute("SET copymatch.threads = 3")
    embed(db, jpeg(scene(10)))
    import pathlib

    pid = db.info.backend_pid
    tasks = [task for task in pathlib.Path(f"/proc/{pid}/task").iterdir() if task.name != str(pid)]
    assert tasks, "three threads were asked for"
    for task in tasks:
        status = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
        blocked = int(status["SigBlk"].strip(), 16)
        for signal in (1, 2, 3, 10, 12, 14, 15, 23):  # HUP INT QUIT USR1 USR2 ALRM TERM URG
            assert blocked >> (signal - 1) & 1, f"signal {signal} is not blocked in thread {task.name}"


def test_settings_have_help_and_misspelt_ones_are_refused(db, sqlstate):
    db.execute("LOAD 'copymatch'")  # or the first use of any of its functions
    rows = db.execute("SELECT name, short_desc, extra_desc FROM pg_settings WHERE name LIKE 'copymatch.%'").fetchall()
    assert len(rows) >= 7 and all(short and extra for _, short, extra in rows)
    if int(MAJOR) >= 15:  # 14 cannot reserve a prefix
        with sqlstate("42602"):
            db.execute("SET copymatch.no_such_setting = 1")


def test_ordinary_role_cannot_choose_the_runtime_library_or_raise_limits(db, connect, sqlstate):
    db.execute("LOAD 'copymatch'; CREATE ROLE plain_user")
    try:
        db.execute("SET ROLE plain_user")
        for setting in ("copymatch.onnxruntime_library = '/tmp/evil.so'", "copymatch.max_image_memory = '8GB'"):
            with sqlstate("42501"):
                db.execute(f"SET {setting}")
        assert embed(db, jpeg(scene(1))) is not None, "embedding itself is for everyone"
        assert db.execute("SELECT library FROM copy_runtime()").fetchone()[0] is None
        # Set before the library is loaded, the name is not yet known; once it is, the value is thrown away.
        early = connect(db.info.dbname)
        early.execute("SET ROLE plain_user; SET copymatch.onnxruntime_library = '/tmp/evil.so'")
        assert embed(early, jpeg(scene(1))) is not None
        early.execute("RESET ROLE")
        assert "evil" not in early.execute("SELECT library FROM copy_runtime()").fetchone()[0]
    finally:
        db.execute("RESET ROLE; DROP ROLE plain_user")


def test_parallel_workers_embed_as_the_leader_does(db):
    db.execute("CREATE TABLE pictures AS SELECT n, NULL::bytea AS image FROM generate_series(1, 24) n")
    for n in range(1, 25):
        db.execute("UPDATE pictures SET image = %s WHERE n = %s", [jpeg(scene(n)), n])
    serial = db.execute("SELECT n, copy_embed(image)::text FROM pictures ORDER BY n").fetchall()
    db.execute("SET debug_parallel_query = on" if db.info.server_version >= 160000 else "SET force_parallel_mode = on")
    db.execute("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0")
    assert db.execute("SELECT n, copy_embed(image)::text FROM pictures ORDER BY n").fetchall() == serial
