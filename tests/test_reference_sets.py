"""Reference sets beyond one table with one key: composite keys, filters, groups, negative sets, references out of use,
paging, views of an image, whole tables matched at once."""

import io

import psycopg
import pytest
from pictures import jpeg, scene
from PIL import Image, ImageOps


@pytest.fixture
def licensed(db):
    """Twelve references in the set `licensed`, the default one."""
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, kind text, expires_at timestamptz, image bytea)")
    for seed in range(12):
        db.execute(
            "INSERT INTO refs VALUES (%s, %s, 'infinity', %s)", [seed, "odd" if seed % 2 else "even", jpeg(scene(seed))]
        )
    db.execute("SELECT copy_create_set('licensed', 'refs', key => 'id', image => 'image')")
    yield db
    db.execute("RESET ROLE; DELETE FROM copymatch.reference_group; DELETE FROM copymatch.reference_set")


def found(db, seed: int, reference_set: str = "licensed", k: int | None = None) -> list[str]:
    rows = db.execute(
        "SELECT reference FROM copy_match(%s, %s, %s::int) ORDER BY rank", [jpeg(scene(seed), 50), reference_set, k]
    )
    return [reference for (reference,) in rows]


# Keys


def test_composite_key_is_named_by_the_text_of_its_row(licensed):
    licensed.execute('CREATE TABLE pages (book int, "page, or so" text, image bytea)')
    licensed.execute("INSERT INTO pages VALUES (1, 'x y', %s), (1, 'z', %s)", [jpeg(scene(100)), jpeg(scene(101))])
    licensed.execute("""SELECT copy_create_set('pages', 'pages', key => 'book, "page, or so"', image => 'image')""")
    assert found(licensed, 100, "pages", 1) == ['(1,"x y")']
    row = licensed.execute(
        "SELECT key_column, further_key_columns FROM copymatch.reference_sets WHERE name = 'pages'"
    ).fetchone()
    assert row == ("book", ["page, or so"])
    licensed.execute("""SELECT copy_disable_reference('pages', '(1,"x y")')""")
    assert found(licensed, 100, "pages") == ["(1,z)"]


#: Keys whose text depends on settings of the session.
KEYS = [
    ("timestamptz", "2024-03-01 12:00:00.5+00"), ("timestamptz", "infinity"), ("days", "2024-03-01 12:00+00"),
    ("date", "0044-03-15 BC"),
    ("interval", "-1 year 2 days 03:04:05"), ("double precision", "0.1"), ("real", "0.3333333333"),
    ("bytea", "\\\\x00ff27"),
    ("timestamptz[]", "{2024-03-01 12:00+00,infinity}"), ("tstzrange", "[2024-03-01 12:00+00,)"), ("money", "1234.5"),
    ("regclass", "keyed"),
]  # fmt: skip
SETTINGS = {
    "TimeZone": ["UTC", "Asia/Kolkata", "America/New_York"], "DateStyle": ["ISO, MDY", "SQL, DMY", "German"],
    "IntervalStyle": ["postgres", "iso_8601", "sql_standard"], "bytea_output": ["hex", "escape", "escape"],
    "extra_float_digits": ["1", "0", "-5"],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), KEYS)
def test_key_has_one_text_whatever_the_sessions_settings_are(licensed, kind, value):
    """Or a pair would have two findings, and a reference out of use here would be in use there."""
    db = licensed
    db.execute("DROP DOMAIN IF EXISTS days; CREATE DOMAIN days AS timestamptz CHECK (value > '1900-01-01')")
    for key, columns in (("k", "k"), ("k, n", "k, n")):
        db.execute("CREATE TABLE keyed (k text, n int, image bytea); CREATE TABLE up (id int PRIMARY KEY, image bytea)")
        db.execute(f"ALTER TABLE keyed ALTER k TYPE {kind} USING k::{kind}")
        db.execute(f"INSERT INTO keyed VALUES ('{value}', 7, %s)", [jpeg(scene(100))])
        db.execute(f"SELECT copy_create_set('keyed', 'keyed', key => '{columns}', image => 'image')")
        db.execute(
            "CREATE TRIGGER f AFTER INSERT OR UPDATE ON up FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
            "'keyed')"
        )
        db.execute("INSERT INTO up VALUES (1, %s)", [jpeg(scene(100), 70)])
        texts = set()
        for turn in range(3):
            for name, values in SETTINGS.items():
                db.execute(f"SET {name} = '{values[turn]}'")
            db.execute("UPDATE up SET image = image || '\\x00'::bytea")
            (reference,) = found(db, 100, "keyed")
            texts.add(reference)
            db.execute("SELECT copy_disable_reference('keyed', %s)", [reference])
            for name, values in SETTINGS.items():
                db.execute(f"SET {name} = '{values[turn - 1]}'")
            assert found(db, 100, "keyed") == [], (key, reference)
            assert db.execute("SELECT copy_enable_reference('keyed', %s)", [reference]).fetchone() == (True,)
        assert len(texts) == 1 and db.execute("SELECT reference FROM copymatch.finding").fetchall() == [(reference,)]
        if key == "k":
            same = f"SELECT %s::{kind} = '{value}'::{kind}"
            assert db.execute(same, [reference]).fetchone() == (True,), "every session reads it as the key"
        for name in SETTINGS:
            db.execute(f"RESET {name}")
        db.execute("SELECT copy_drop_set('keyed'); DROP TABLE keyed, up")


def test_column_with_a_comma_in_its_name_is_still_one_key(licensed, sqlstate):
    licensed.execute('CREATE TABLE odd ("a,b" text, image bytea)')
    licensed.execute("INSERT INTO odd VALUES ('k', %s)", [jpeg(scene(100))])
    licensed.execute("SELECT copy_create_set('odd', 'odd', key => 'a,b', image => 'image')")
    assert found(licensed, 100, "odd") == ["k"]
    with sqlstate("42703") as error:
        licensed.execute("SELECT copy_create_set('odd2', 'odd', key => 'a,c', image => 'image')")
    assert 'column "a"' in str(error.value)


# Filters


def test_several_sets_over_one_table_by_filters_share_column_and_trigger(licensed):
    licensed.execute("SELECT copy_create_set('even', 'refs', 'id', 'image', filter => 'kind = ''even''')")
    licensed.execute("SELECT copy_create_set('odd', 'refs', 'id', 'image', filter => 'kind = ''odd''')")
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'refs'::regclass"
    assert licensed.execute(triggers).fetchone()[0] == 1
    assert sorted(map(int, found(licensed, 3, "even"))) == [0, 2, 4, 6, 8, 10]
    assert found(licensed, 3, "odd", 1) == ["3"]
    licensed.execute("SELECT copy_drop_set('licensed')")
    assert licensed.execute(triggers).fetchone()[0] == 1, "another set takes the column over"
    licensed.execute("INSERT INTO refs VALUES (101, 'odd', 'infinity', %s)", [jpeg(scene(101))])
    assert found(licensed, 101, "odd", 1) == ["101"]


def test_references_expire_by_a_filter(licensed):
    licensed.execute("SELECT copy_alter_set('licensed', filter => 'expires_at > now()')")
    assert found(licensed, 3, k=1) == ["3"]
    licensed.execute("UPDATE refs SET expires_at = now() - interval '1 second' WHERE id = 3")
    assert "3" not in found(licensed, 3, k=12)
    assert len(found(licensed, 3, k=11)) == 11
    licensed.execute("SELECT copy_alter_set('licensed', reset => '{filter}')")
    assert found(licensed, 3, k=1) == ["3"]


@pytest.mark.parametrize(
    "filter, state",
    [
        ("true) OR (true", "42601"),
        ("true; DROP TABLE refs", "42601"),
        ("true FROM pg_authid", "22023"),
        ("true UNION SELECT true", "42601"),
        ("id IN (SELECT 1)", "0A000"),
        ("random() < 0.5", "22023"),
        ("pg_advisory_lock(1) IS NULL", "22023"),
        ("no_such_column = 1", "42703"),
        ("id", "42804"),
        ("count(*) > 1", "42803"),
        ("", "22023"),
    ],
)
def test_filter_is_one_condition_over_the_row_and_nothing_else(licensed, sqlstate, filter, state):
    with sqlstate(state):
        licensed.execute("SELECT copy_create_set('x', 'refs', 'id', 'image', filter => %s)", [filter])
    with sqlstate(state):
        licensed.execute("UPDATE copymatch.reference_set SET filter = %s", [filter])


def test_filter_means_the_same_under_every_search_path(licensed):
    schema = licensed.execute("SELECT current_schema()").fetchone()[0]
    licensed.execute(
        "CREATE FUNCTION wanted(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 5';"
        "SELECT copy_alter_set('licensed', filter => 'wanted(id) -- all of them')"
    )
    assert licensed.execute("SELECT filter FROM copymatch.reference_sets").fetchone()[0] == f"{schema}.wanted(id)"
    licensed.execute("SET search_path = public")
    assert sorted(map(int, found(licensed, 3))) == [6, 7, 8, 9, 10, 11]
    licensed.execute(f"SET search_path = {schema}, public")


def test_filter_cannot_run_its_writers_functions_with_the_searchers_rights(licensed, sqlstate):
    schema = licensed.execute("SELECT current_schema()").fetchone()[0]
    licensed.execute(f"CREATE ROLE artist; GRANT USAGE, CREATE ON SCHEMA {schema} TO artist; SET ROLE artist")
    try:
        licensed.execute("CREATE TABLE own (id int, image bytea)")
        licensed.execute("CREATE FUNCTION trap(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'")
        licensed.execute("CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)")
        licensed.execute("CREATE DOMAIN checked AS int CHECK (trap(VALUE))")
        for filter in (
            "trap(id)",
            "id === 1",
            "id::checked = 1",
            "1 = ANY (ARRAY[id]) OR trap(id)",
            "(id, 1) = (1, 1) AND id === 1",
        ):
            with sqlstate("22023") as error:
                licensed.execute("SELECT copy_create_set('own', 'own', 'id', 'image', filter => %s)", [filter])
            assert error.value.diag.message_hint
        licensed.execute(
            "SELECT copy_create_set('own', 'own', 'id', 'image', filter => 'id BETWEEN 1 AND 5 "
            "AND lower(id::text) <> ''x''')"
        )
    finally:
        licensed.execute("RESET ROLE; DROP OWNED BY artist CASCADE; DROP ROLE artist")


# k, thresholds


def test_set_has_its_own_k_and_thresholds(licensed):
    licensed.execute("SELECT copy_alter_set('licensed', k => 3)")
    assert len(found(licensed, 3)) == 3 and len(found(licensed, 3, k=5)) == 5
    image = jpeg(scene(3), 50)
    query = "SELECT similarity, background, probability, verdict FROM copy_match(%s, verify => 'off') ORDER BY rank"
    before = licensed.execute(query, [image]).fetchall()
    second, third = before[1][2], before[2][2]
    licensed.execute(
        "SELECT copy_alter_set('licensed', copy_probability => %s, review_probability => %s)",
        [(1 + second) / 2, (second + third) / 2],
    )
    assert [row[3] for row in licensed.execute(query, [image])] == ["copy", "review", "different"]
    row = licensed.execute("SELECT verdict FROM copy_stretch(%s, %s)", before[1][:2]).fetchone()
    assert row[0] == "review", "copy_stretch knows them too"
    licensed.execute("SELECT copy_alter_set('licensed', reset => '{k,review_probability,copy_probability}')")
    assert licensed.execute(query, [image]).fetchall()[:3] == before and len(found(licensed, 3)) == 10


def test_wrong_settings_are_refused(licensed, sqlstate):
    for state, call in [
        ("23514", "copy_alter_set('licensed', k => 0)"),
        ("23514", "copy_alter_set('licensed', copy_probability => 1.5)"),
        ("23514", "copy_alter_set('licensed', copy_probability => 0.5, review_probability => 0.6)"),
        ("42704", "copy_alter_set('nix', k => 1)"),
        ("42704", "copy_alter_set('licensed', negatives => '{licensed}')"),
        ("22023", "copy_alter_set('licensed', reset => '{name}')"),
    ]:
        with sqlstate(state):
            licensed.execute(f"SELECT {call}")
    licensed.execute("CREATE ROLE onlooker; GRANT SELECT ON refs TO onlooker; SET ROLE onlooker")
    try:
        for call in (
            "copy_alter_set('licensed', k => 1)",
            "copy_disable_reference('licensed', '1')",
            "copy_enable_reference('licensed', '1')",
        ):
            with sqlstate("42501"):
                licensed.execute(f"SELECT {call}")
    finally:
        licensed.execute("RESET ROLE; DROP OWNED BY onlooker; DROP ROLE onlooker")


# Paging


def test_results_are_paged_without_gap_or_overlap(licensed):
    image = jpeg(scene(3), 50)
    whole = licensed.execute("SELECT reference, rank, score FROM copy_match(%s, k => 12)", [image]).fetchall()
    pages = [
        licensed.execute(
            "SELECT reference, rank, score FROM copy_match(%s, k => 5, skip => %s)", [image, skip]
        ).fetchall()
        for skip in (0, 5, 10, 15)
    ]
    assert [len(page) for page in pages] == [5, 5, 2, 0]
    assert [row for page in pages for row in page] == whole
    by_descriptor = licensed.execute(
        "SELECT reference FROM copy_match_descriptor(copy_embed(%s), k => 5, skip => 5)", [image]
    ).fetchall()
    assert by_descriptor == [(row[0],) for row in pages[1]]


def test_bad_pages_are_refused(licensed, sqlstate):
    for skip in (-1, 100_001, None):
        with sqlstate("22023") as error:
            licensed.execute("SELECT * FROM copy_match(%s, skip => %s)", [jpeg(scene(1)), skip])
        assert "skip" in str(error.value) and error.value.diag.message_hint


# Groups


def test_group_searches_several_sets_and_each_row_names_its_own(licensed, sqlstate):
    licensed.execute("CREATE TABLE banned (code text PRIMARY KEY, image bytea)")
    licensed.execute("INSERT INTO banned VALUES ('b', %s)", [jpeg(scene(100))])
    licensed.execute(
        "SELECT copy_create_set('banned', 'banned', 'code', 'image'); "
        "SELECT copy_create_group('all of them', '{licensed,banned}')"
    )
    query = "SELECT reference_set, reference FROM copy_match(%s, 'all of them', 1)"
    assert licensed.execute(query, [jpeg(scene(100), 50)]).fetchone() == ("banned", "b")
    assert licensed.execute(query, [jpeg(scene(4), 50)]).fetchone() == ("licensed", "4")
    with sqlstate("42710"):
        licensed.execute("SELECT copy_create_set('all of them', 'banned', 'code', 'image')")
    with sqlstate("42710"):
        licensed.execute("SELECT copy_create_group('banned', '{licensed}')")
    with sqlstate("42704"):
        licensed.execute("SELECT copy_create_group('g', '{nix}')")
    licensed.execute("SELECT copy_drop_set('banned')")
    with sqlstate("42704") as error:
        licensed.execute(query, [jpeg(scene(4))])
    assert "banned" in str(error.value)
    licensed.execute("SELECT copy_drop_group('all of them')")
    with sqlstate("42704"):
        licensed.execute("SELECT copy_drop_group('all of them')")


# Negative sets


@pytest.fixture
def templates(licensed):
    licensed.execute("CREATE TABLE templates (id int, image bytea)")
    licensed.execute("INSERT INTO templates VALUES (7, %s)", [jpeg(scene(3))])
    licensed.execute("SELECT copy_create_set('templates', 'templates', 'id', 'image', negative => true)")
    return licensed


MATCH = "SELECT reference, verdict, explanation FROM copy_match(%s, %s, 1)"


def test_match_that_a_negative_reference_explains_is_not_raised(templates):
    reference, verdict, explanation = templates.execute(MATCH, [jpeg(scene(3)), "licensed"]).fetchone()
    assert (reference, verdict) == ("3", "different")
    assert 'reference 7 of negative set "templates"' in explanation
    assert templates.execute(MATCH, [jpeg(scene(4), 50), "licensed"]).fetchone() == ("4", "copy", None)
    row = templates.execute(
        "SELECT verdict FROM copy_match_descriptor(copy_embed(%s), 'licensed', 1)", [jpeg(scene(3))]
    )
    assert row.fetchone()[0] == "different"


def test_copy_of_the_reference_itself_is_raised_although_it_holds_the_template(templates):
    """The upload is nearer to the reference than to the template."""
    picture = scene(3)
    picture.paste(scene(50).resize((120, 90)), (10, 10))
    templates.execute("UPDATE refs SET image = %s WHERE id = 3", [jpeg(picture)])
    assert templates.execute(MATCH, [jpeg(picture, 80), "licensed"]).fetchone() == ("3", "copy", None)


def test_negative_sets_are_no_results_of_a_search_through_all_sets(templates):
    rows = templates.execute("SELECT DISTINCT reference_set FROM copy_match(%s, NULL, 20)", [jpeg(scene(3))]).fetchall()
    assert rows == [("licensed",)]
    assert templates.execute("SELECT reference FROM copy_match(%s, 'templates')", [jpeg(scene(3))]).fetchone()[0] == "7"


def test_set_says_which_negatives_apply_and_strangers_negatives_never_do(templates):
    templates.execute("SELECT copy_alter_set('licensed', negatives => '{}')")
    assert templates.execute(MATCH, [jpeg(scene(3)), "licensed"]).fetchone() == ("3", "copy", None)
    templates.execute("SELECT copy_alter_set('licensed', reset => '{negatives}')")
    assert templates.execute(MATCH, [jpeg(scene(3)), "licensed"]).fetchone()[1] == "different"
    templates.execute("CREATE ROLE stranger; ALTER TABLE templates OWNER TO stranger")
    try:
        assert templates.execute(MATCH, [jpeg(scene(3)), "licensed"]).fetchone() == ("3", "copy", None), (
            "a set by somebody else hides nothing"
        )
        templates.execute("SELECT copy_alter_set('licensed', negatives => '{templates}')")
        assert templates.execute(MATCH, [jpeg(scene(3)), "licensed"]).fetchone() == ("3", "copy", None), (
            "who searches did not name the stranger's set"
        )
        templates.execute(
            "UPDATE copymatch.reference_set SET trusted_relation = 'templates', trusted_owner = 'stranger' "
            "WHERE name = 'templates'"
        )
        assert templates.execute(MATCH, [jpeg(scene(3)), "licensed"]).fetchone()[1] == "different"
    finally:
        templates.execute("DROP OWNED BY stranger; DROP ROLE stranger")


# References out of use


def test_disabled_reference_is_left_out_and_k_rows_come_all_the_same(licensed, sqlstate):
    assert found(licensed, 3, k=1) == ["3"]
    licensed.execute("SELECT copy_disable_reference('licensed', '3', reason => 'licence withdrawn')")
    assert "3" not in found(licensed, 3, k=12) and len(found(licensed, 3, k=11)) == 11
    row = licensed.execute("SELECT state, reason, by FROM copymatch.reference_status").fetchone()
    assert row == ("disabled", "licence withdrawn", "postgres")
    assert licensed.execute("SELECT copy_enable_reference('licensed', '3')").fetchone()[0] is True
    assert licensed.execute("SELECT copy_enable_reference('licensed', '3')").fetchone()[0] is False
    assert found(licensed, 3, k=1) == ["3"]
    with sqlstate("42704") as error:
        licensed.execute("SELECT copy_disable_reference('licensed', '333')")
    assert "333" in str(error.value)


def test_disabled_reference_comes_back_by_itself(licensed):
    licensed.execute("SELECT copy_disable_reference('licensed', '3', until => now() + interval '1 hour')")
    assert found(licensed, 3, k=1) != ["3"]
    licensed.execute("SELECT copy_disable_reference('licensed', '3', until => now() - interval '1 second')")
    assert found(licensed, 3, k=1) == ["3"]


def test_many_disabled_references_still_give_k_rows_through_the_index(licensed):
    licensed.execute("CREATE TABLE many (id serial PRIMARY KEY, descriptor vector(256))")
    licensed.execute(
        "INSERT INTO many SELECT n, array_agg(random() - 0.5)::real[]::vector FROM generate_series(1, 2000) n, "
        "generate_series(1, 256) GROUP BY n"
    )
    licensed.execute("SELECT copy_create_set('many', 'many', 'id', NULL)")
    nearest = "SELECT reference FROM copy_match_descriptor((SELECT descriptor FROM many WHERE id = 1), 'many', %s)"
    first = [row[0] for row in licensed.execute(nearest, [50]).fetchall()]
    licensed.execute(
        "INSERT INTO copymatch.reference_status (reference_set, reference, state) SELECT 'many', n::text, 'disabled' "
        "FROM generate_series(1, 1990) n"
    )
    left = [row[0] for row in licensed.execute(nearest, [10]).fetchall()]
    assert len(first) == 50 and sorted(map(int, left)) == list(range(1991, 2001))


def test_status_rows_are_for_those_who_may_read_the_references(licensed):
    licensed.execute("SELECT copy_disable_reference('licensed', '3')")
    schema = licensed.execute("SELECT current_schema()").fetchone()[0]
    licensed.execute(f"CREATE ROLE onlooker; GRANT USAGE ON SCHEMA {schema} TO onlooker; SET ROLE onlooker")
    try:
        assert licensed.execute("SELECT count(*) FROM copymatch.reference_status").fetchone()[0] == 0
        licensed.execute("RESET ROLE; GRANT SELECT ON refs TO onlooker; SET ROLE onlooker")
        assert licensed.execute("SELECT reference FROM copymatch.reference_status").fetchall() == [("3",)]
        assert "3" not in found(licensed, 3)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            licensed.execute(
                "INSERT INTO copymatch.reference_status (reference_set, reference, state) "
                "VALUES ('licensed', '4', 'disabled')"
            )
    finally:
        licensed.execute("RESET ROLE; DROP OWNED BY onlooker; DROP ROLE onlooker")


@pytest.fixture
def findings(licensed):
    """Findings as flagging and review leave them."""
    with licensed.transaction(force_rollback=True):

        def add(reference: int, uploads: int, days_ago: float, state: str = "open"):
            licensed.execute(
                "INSERT INTO copymatch.finding (found, reference_set, set_id, relation, upload, reference, "
                "similarity, background, score, probability, verdict, model, calibration, state, decided, decided_by)"
                " SELECT now() - make_interval(secs => %(days)s * 86400), 'licensed', (SELECT id "
                "FROM copymatch.reference_set WHERE name = 'licensed'), 'refs'::regclass, %(days)s || '-' "
                "|| n, %(reference)s, 0.9, 0.3, -0.1, 0.9, 'copy', 'm', 0, %(state)s, decision.at, decision.by"
                " FROM generate_series(1, %(uploads)s) n LEFT JOIN (SELECT now() AS at, current_user AS by) decision "
                "ON %(state)s <> 'open'",
                {"days": days_ago, "reference": str(reference), "uploads": uploads, "state": state},
            )

        yield licensed, add


def test_reference_that_suddenly_matches_everything_is_quarantined_and_reported(findings):
    db, add = findings
    add(3, 150, 0.1)
    for day in range(2, 20):
        add(4, 140, day)
    add(4, 150, 0.1)
    add(5, 150, 0.1, "confirmed")
    add(6, 20, 0.1)
    warnings = []
    db.add_notice_handler(lambda notice: warnings.append((notice.message_primary, notice.message_hint)))
    assert db.execute("SELECT reference FROM copy_quarantine('licensed', dry_run => true)").fetchall() == [("3",)]
    assert db.execute("SELECT count(*) FROM copymatch.reference_status").fetchone()[0] == 0
    row = db.execute("SELECT set_name, reference, uploads, usual FROM copy_quarantine()").fetchall()
    assert row == [("licensed", "3", 150, 0)], (
        "not 4, which always does; not 5, which reviewers confirmed; not 6, which is few"
    )
    assert "reference 3" in warnings[-1][0] and "copy_enable_reference" in warnings[-1][1]
    assert (
        db.execute("SELECT state FROM copymatch.reference_status WHERE reference = '3'").fetchone()[0] == "quarantined"
    )
    assert "3" not in found(db, 3)
    assert db.execute("SELECT count(*) FROM copy_quarantine()").fetchone()[0] == 0, "once is enough"


# Views of an image


def test_views_find_turned_mirrored_and_letterboxed_copies(licensed):
    picture = scene(3)
    boxed = Image.new("RGB", (320, 480))
    boxed.paste(picture, (0, 120))
    turned = {
        "quarter turn": picture.transpose(Image.Transpose.ROTATE_90),
        "half turn": picture.transpose(Image.Transpose.ROTATE_180),
        "mirrored": ImageOps.mirror(picture),
        "transposed": picture.transpose(Image.Transpose.TRANSPOSE),
        "letterboxed": boxed,
    }
    query = "SELECT reference, similarity FROM copy_match(%s, k => 3, views => %s) ORDER BY rank"
    for name, edited in turned.items():
        one = licensed.execute(query, [jpeg(edited), "one"]).fetchall()
        rows = licensed.execute(query, [jpeg(edited), "all"]).fetchall()
        assert rows[0][0] == "3" and rows[0][1] > 0.9, name
        assert rows[0][1] > max([s for r, s in one if r == "3"], default=0), f"{name}: better than as it is"
        assert len({reference for reference, _ in rows}) == 3, "each reference once"


def test_views_have_two_values(licensed, sqlstate):
    for value in ("some", None):
        with sqlstate("22023") as error:
            licensed.execute("SELECT * FROM copy_match(%s, views => %s)", [jpeg(scene(1)), value])
        assert "one" in error.value.diag.message_hint


def test_large_image_is_seen_in_all_views_too(licensed):
    buffer = io.BytesIO()
    scene(3).transpose(Image.Transpose.ROTATE_90).resize((1500, 2000)).save(buffer, "PNG")
    row = licensed.execute(
        "SELECT reference, verdict FROM copy_match(%s, k => 1, views => 'all')", [buffer.getvalue()]
    ).fetchone()
    assert row == ("3", "copy")


# Resolution of calls


def test_untyped_literals_and_parameters_resolve_with_one_argument(licensed):
    literal = "\\x" + jpeg(scene(3), 50).hex()
    assert licensed.execute(f"SELECT reference FROM copy_match('{literal}') LIMIT 1").fetchone()[0] == "3"
    assert licensed.execute("SELECT reference FROM copy_match(%s) LIMIT 1", [literal]).fetchone()[0] == "3"
    licensed.execute("PREPARE q AS SELECT reference FROM copy_match($1) LIMIT 1")
    assert licensed.execute(f"EXECUTE q('{literal}')").fetchone()[0] == "3"
    descriptor = licensed.execute("SELECT copy_embed(%s)::text", [jpeg(scene(3))]).fetchone()[0]
    assert licensed.execute(f"SELECT reference FROM copy_match_descriptor('{descriptor}') LIMIT 1").fetchone()[0] == "3"
    assert licensed.execute("SELECT copy_create_set('again', 'refs', 'id'::name, 'image'::name)").fetchone()[0] == 0


# Whole tables


def test_whole_table_is_matched_in_one_statement(licensed):
    licensed.execute("CREATE TABLE uploads (post int, part text, image bytea, d vector(256))")
    for seed in (2, 5, 40):
        licensed.execute("INSERT INTO uploads VALUES (%s, 'p q', %s)", [seed, jpeg(scene(seed), 50)])
    licensed.execute("INSERT INTO uploads VALUES (99, 'none', NULL), (98, 'broken', 'no image')")
    warnings = []
    licensed.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    rows = licensed.execute(
        "SELECT upload, reference, verdict FROM copy_match_table('uploads', 'post, part', 'image', 'licensed', "
        "k => 1, verify => 'off') ORDER BY upload"
    ).fetchall()
    assert [row for row in rows if "(40" not in row[0]] == [('(2,"p q")', "2", "copy"), ('(5,"p q")', "5", "copy")]
    assert len(rows) == 3 and any("(98,broken)" in text for text in warnings)
    licensed.execute("UPDATE uploads SET d = copy_embed(image) WHERE part = 'p q'")
    by_descriptor = licensed.execute(
        "SELECT upload, reference, verdict FROM copy_match_table('uploads', 'post, part', 'd', 'licensed', 1) "
        "ORDER BY upload"
    ).fetchall()
    assert by_descriptor == rows


def test_each_row_is_searched_through_the_index(licensed):
    licensed.execute("CREATE TABLE many (id int PRIMARY KEY, descriptor vector(256))")
    licensed.execute(
        "INSERT INTO many SELECT n, array_agg(random() - 0.5)::real[]::vector FROM generate_series(1, 1000) n, "
        "generate_series(1, 256) GROUP BY n"
    )
    licensed.execute("SELECT copy_create_set('many', 'many', 'id', NULL); ANALYZE many")
    scans = (
        "SELECT pg_stat_get_xact_numscans(indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_am m ON m.oid = c.relam WHERE indrelid = 'many'::regclass AND amname = 'ivf'"
    )
    with licensed.transaction():
        before = licensed.execute(scans).fetchone()[0]
        rows = licensed.execute(
            "SELECT count(*) FILTER (WHERE upload = reference), count(*) "
            "FROM copy_match_table('many', 'id', 'descriptor', 'many', 1)"
        )
        same, total = rows.fetchone()
        assert licensed.execute(scans).fetchone()[0] - before == 1000
    assert total == 1000 and same > 950


def test_wrong_tables_are_refused_and_a_long_one_can_be_cancelled(licensed, sqlstate):
    for state, call in [
        ("42703", "copy_match_table('refs', 'nix', 'image')"),
        ("42703", "copy_match_table('refs', 'id', 'nix')"),
        ("42804", "copy_match_table('refs', 'id', 'kind')"),
        ("42704", "copy_match_table('refs', 'id', 'image', 'nix')"),
        ("22004", "copy_match_table(NULL, 'id', 'image')"),
    ]:
        with sqlstate(state):
            licensed.execute(f"SELECT * FROM {call}")
    licensed.execute(
        "CREATE VIEW endless AS SELECT n AS id, image || int4send(n) AS image FROM refs, generate_series(1, 10000) n"
    )
    licensed.execute("SET statement_timeout = '500ms'")
    with sqlstate("57014"):
        licensed.execute("SELECT count(*) FROM copy_match_table('endless', 'id', 'image')")


def test_searching_all_sets_runs_no_functions_of_other_roles(licensed):
    """A view's functions run with the searcher's rights: nobody gets them run by registering his view as a set."""
    schema = licensed.execute("SELECT current_schema()").fetchone()[0]
    licensed.execute("CREATE ROLE mallory")
    try:
        licensed.execute(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO mallory; GRANT SELECT ON refs TO mallory")
        licensed.execute("SET ROLE mallory")
        licensed.execute(
            "CREATE FUNCTION trap(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ran as %', "
            "current_user; END $$"
        )
        licensed.execute("CREATE VIEW bait AS SELECT trap(id) AS id, descriptor FROM refs")
        licensed.execute("SELECT copy_create_set('bait', 'bait', 'id', NULL)")
        licensed.execute("RESET ROLE")
        rows = licensed.execute("SELECT reference_set FROM copy_match(%s, NULL)", [jpeg(scene(1))]).fetchall()
        assert rows and {name for (name,) in rows} == {"licensed"}
        with pytest.raises(psycopg.errors.RaiseException, match="ran as"), licensed.transaction():
            licensed.execute("SELECT * FROM copy_match(%s, 'bait')", [jpeg(scene(1))])
        # To its owner it is a set like any other.
        licensed.execute("CREATE OR REPLACE VIEW bait AS SELECT id, descriptor FROM refs; SET ROLE mallory")
        rows = licensed.execute("SELECT reference_set FROM copy_match(%s, NULL)", [jpeg(scene(1))]).fetchall()
        assert "bait" in {name for (name,) in rows}
    finally:
        licensed.execute("RESET ROLE; DROP VIEW IF EXISTS bait; DROP OWNED BY mallory; DROP ROLE mallory")


def test_a_default_set_of_a_role_that_nobody_trusts_is_searched_only_by_name(licensed, sqlstate):
    """Whoever registers the first set must not decide what everybody's copy_match finds."""
    schema = licensed.execute("SELECT current_schema()").fetchone()[0]
    bare = "SELECT reference FROM copy_match(%s)"
    licensed.execute("CREATE ROLE mallory; CREATE ROLE visitor")
    try:
        licensed.execute(
            f"GRANT USAGE, CREATE ON SCHEMA {schema} TO mallory; GRANT USAGE ON SCHEMA {schema} TO visitor"
        )
        licensed.execute("SELECT copy_drop_set('licensed'); SET ROLE mallory")
        licensed.execute("CREATE TABLE own (id int, image bytea)")
        licensed.execute("INSERT INTO own VALUES (1, %s)", [jpeg(scene(1))])
        licensed.execute("SELECT copy_create_set('own', 'own', 'id', 'image'); GRANT SELECT ON own TO visitor")
        assert licensed.execute(bare, [jpeg(scene(1))]).fetchone() == ("1",), "its owner may"
        licensed.execute("SET ROLE visitor")
        with sqlstate("42501") as error:
            licensed.execute(bare, [jpeg(scene(1))])
        assert 'is one of role "mallory"' in str(error.value)
        assert "reference_set => 'own'" in error.value.diag.message_hint
        assert licensed.execute("SELECT reference FROM copy_match(%s, 'own')", [jpeg(scene(1))]).fetchone() == ("1",)
        licensed.execute("RESET ROLE")
        with sqlstate("42501"):
            licensed.execute(bare, [jpeg(scene(1))])
        licensed.execute("GRANT copymatch_admin TO mallory")
        for role in ("RESET ROLE", "SET ROLE visitor"):
            licensed.execute(role)
            with sqlstate("42501"):
                licensed.execute(bare, [jpeg(scene(1))])
        licensed.execute("RESET ROLE; SELECT copy_alter_set('own', trusted => true)")
        assert licensed.execute(bare, [jpeg(scene(1))]).fetchone() == ("1",), "a superuser declared it trusted"
        licensed.execute("SET ROLE visitor")
        assert licensed.execute(bare, [jpeg(scene(1))]).fetchone() == ("1",), "for everybody"
        licensed.execute("RESET ROLE; SELECT copy_alter_set('own', trusted => false)")
        licensed.execute("RESET ROLE; REVOKE copymatch_admin FROM mallory; GRANT mallory TO visitor; SET ROLE visitor")
        assert licensed.execute(bare, [jpeg(scene(1))]).fetchone() == ("1",), "a role of the caller's"
        # Not even an administrator's view gets its functions run by a superuser who named nothing.
        licensed.execute("RESET ROLE; GRANT copymatch_admin TO mallory; SELECT copy_drop_set('own'); SET ROLE mallory")
        licensed.execute(
            "CREATE VIEW bait AS SELECT id, descriptor FROM own; SELECT copy_create_set('bait', 'bait', 'id', NULL)"
        )
        licensed.execute("RESET ROLE")
        with sqlstate("42501"):
            licensed.execute(bare, [jpeg(scene(1))])
    finally:
        licensed.execute("RESET ROLE; DROP OWNED BY mallory, visitor; DROP ROLE mallory, visitor")
