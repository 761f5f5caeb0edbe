"""Rights over reference sets: whose code runs in whose search, who writes the catalogue, what a filter may say, who
looks after a set with whose rights."""

import contextlib

import psycopg
import pytest
from pictures import jpeg, scene

VECTOR = "array_fill(0.0625::real, '{256}')::vector"

# mallory's functions write down who ran them; the row outlives nothing but a rollback, which the sequence does.
TRAP = """
    CREATE ROLE mallory_$; CREATE ROLE carol_$;
    CREATE SCHEMA mallory AUTHORIZATION mallory_$; GRANT USAGE ON SCHEMA mallory TO PUBLIC;
    SET ROLE mallory_$;
    CREATE SEQUENCE mallory.by_others; GRANT USAGE ON SEQUENCE mallory.by_others TO PUBLIC;
    CREATE FUNCTION mallory.evil() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN IF current_user <> 'mallory_$' THEN PERFORM nextval('mallory.by_others'); END IF; RETURN true; END $$;
    CREATE FUNCTION mallory.evil_i(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN RETURN mallory.evil(); END $$;
    RESET ROLE;
    CREATE TABLE licensed (id int PRIMARY KEY, descriptor vector(256)); INSERT INTO licensed VALUES (1, @);
    GRANT SELECT ON licensed TO PUBLIC; SELECT copy_create_set('licensed', 'licensed', 'id', NULL);
"""


@pytest.fixture
def owned(new_db, connect):
    """A superuser's set `licensed`, and the roles mallory and carol, who own nothing of his."""
    db = connect(new_db())
    mark = db.info.dbname.replace("-", "_")
    db.execute(TRAP.replace("mallory_$", f"mallory_{mark}").replace("carol_$", f"carol_{mark}").replace("@", VECTOR))
    db.mallory, db.carol = f"mallory_{mark}", f"carol_{mark}"
    yield db
    db.execute("RESET ROLE; DROP EXTENSION copymatch CASCADE")
    for role in (db.mallory, db.carol):
        db.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@contextlib.contextmanager
def acting(db, role):
    db.execute(f"SET ROLE {role}")
    try:
        yield
    finally:
        db.execute("RESET ROLE")


def trapped(db) -> bool:
    return db.execute("SELECT is_called FROM mallory.by_others").fetchone()[0]


def as_mallory(db, sql):
    with acting(db, db.mallory):
        db.execute(sql.replace("@", VECTOR))


def search(db, reference_set="NULL", role=None):
    """References found, or the error."""
    with acting(db, role) if role else contextlib.nullcontext():
        try:
            rows = db.execute(f"SELECT reference_set, reference FROM copy_match_descriptor({VECTOR}, {reference_set})")
            return rows.fetchall()
        except psycopg.Error as error:
            return error.sqlstate


# What runs code of its owner when somebody searches it.
LOOKS = {
    "view": "CREATE VIEW mallory.t AS SELECT 1 AS id, @ AS descriptor WHERE mallory.evil()",
    "security barrier": "CREATE VIEW mallory.t WITH (security_barrier) AS SELECT 1 AS id, @ AS descriptor "
    "WHERE mallory.evil()",
    "policy": "CREATE TABLE mallory.t (id int, descriptor vector(256)); INSERT INTO mallory.t VALUES (1, @);"
    "ALTER TABLE mallory.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON mallory.t USING (mallory.evil())",
    "cast of an enum": "CREATE TYPE mallory.e AS ENUM ('a'); "
    "CREATE FUNCTION mallory.f(mallory.e) RETURNS text LANGUAGE plpgsql AS"
    " $$ BEGIN PERFORM mallory.evil(); RETURN 'a'; END $$; "
    "CREATE CAST (mallory.e AS text) WITH FUNCTION mallory.f(mallory.e);"
    "CREATE TABLE mallory.t (id mallory.e, descriptor vector(256)); INSERT INTO mallory.t VALUES ('a', @)",
    "index expression": "CREATE TABLE mallory.t (id int, descriptor vector(256)); INSERT INTO mallory.t VALUES (1, @);"
    "CREATE INDEX ON mallory.t ((mallory.evil_i(1))) WHERE mallory.evil_i(2)",
    "plain table": "CREATE TABLE mallory.t (id int, descriptor vector(256)); INSERT INTO mallory.t VALUES (1, @)",
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_set_of_a_stranger_is_searched_by_its_name_only(owned, look):
    as_mallory(
        owned,
        LOOKS[look] + "; GRANT SELECT ON mallory.t TO PUBLIC; SELECT copy_create_set('trap', 'mallory.t', 'id', NULL)",
    )
    owned.execute("SELECT setval('mallory.by_others', 1, false)")
    for role in (None, owned.carol):
        assert search(owned, "NULL", role) == [("licensed", "1")]
    assert not trapped(owned)
    assert search(owned, "'trap'", owned.mallory)[0][0] == "trap"
    with acting(owned, owned.carol):
        assert len(owned.execute(f"SELECT * FROM copy_match_descriptor({VECTOR}, 'trap')").fetchall()) == 1, (
            "who names it has chosen"
        )


def test_groups_negatives_and_the_default_set_pass_the_same_gate(owned, sqlstate):
    as_mallory(
        owned,
        LOOKS["view"]
        + "; GRANT SELECT ON mallory.t TO PUBLIC; SELECT copy_create_set('trap', 'mallory.t', 'id', NULL);"
        "SELECT copy_create_set('no', 'mallory.t', 'id', NULL, negative => true); "
        "SELECT copy_create_group('all', '{licensed,trap}')",
    )
    owned.execute("SELECT setval('mallory.by_others', 1, false)")
    assert search(owned, "'all'") == "42501" and search(owned, "'all'", owned.carol) == "42501"
    owned.execute("SELECT copy_alter_set('licensed', negatives => '{no}')")
    assert search(owned, "'licensed'") == [("licensed", "1")] == search(owned, "'licensed'", owned.carol)
    owned.execute(
        "UPDATE copymatch.reference_set SET is_default = NULLIF(name = 'trap', false) IS NOT NULL "
        "WHERE name = 'licensed'"
    )
    owned.execute("UPDATE copymatch.reference_set SET is_default = true WHERE name = 'trap'")
    for role in (None, owned.carol):
        assert search(owned, "copymatch.default_set()", role) == "42501"
    assert not trapped(owned)


def test_trust_is_a_superusers_and_ends_with_the_owner_or_the_relation(owned, sqlstate):
    as_mallory(
        owned,
        LOOKS["plain table"]
        + "; GRANT SELECT ON mallory.t TO PUBLIC; SELECT copy_create_set('hers', 'mallory.t', 'id', NULL)",
    )
    with acting(owned, owned.mallory), sqlstate("42501"):
        owned.execute("SELECT copy_alter_set('hers', trusted => true)")
    owned.execute("SELECT copy_alter_set('hers', trusted => true)")
    both = [("hers", "1"), ("licensed", "1")]
    assert sorted(search(owned)) == both == sorted(search(owned, "NULL", owned.carol))
    assert owned.execute("SELECT trusted FROM copymatch.reference_sets WHERE name = 'hers'").fetchone()[0]
    owned.execute(f"ALTER TABLE mallory.t OWNER TO {owned.carol}")
    assert search(owned) == [("licensed", "1")]
    assert not owned.execute("SELECT trusted FROM copymatch.reference_sets WHERE name = 'hers'").fetchone()[0]
    assert sorted(search(owned, "NULL", owned.carol)) == both, "it is hers now"
    owned.execute(f"ALTER TABLE mallory.t OWNER TO {owned.mallory}; SELECT copy_alter_set('hers', trusted => false)")
    assert search(owned) == [("licensed", "1")]


def test_roles_trust_the_sets_of_their_own_roles(owned):
    as_mallory(
        owned,
        LOOKS["view"]
        + "; GRANT SELECT ON mallory.t TO PUBLIC; SELECT copy_create_set('team', 'mallory.t', 'id', NULL)",
    )
    assert search(owned, "NULL", owned.carol) == [("licensed", "1")]
    owned.execute(f"GRANT {owned.mallory} TO {owned.carol}")
    assert sorted(search(owned, "NULL", owned.carol)) == [("licensed", "1"), ("team", "1")]
    assert search(owned) == [("licensed", "1")], "a superuser is a member of every role, and trusts none for that"


def test_a_partition_of_a_stranger_makes_the_set_a_strangers(owned):
    owned.execute(
        "CREATE TABLE parts (id int, descriptor vector(256)) PARTITION BY LIST (id); "
        "CREATE TABLE part PARTITION OF parts DEFAULT"
    )
    owned.execute(
        "GRANT SELECT ON parts TO PUBLIC; SELECT copy_create_set('parts', 'parts', 'id', NULL); "
        f"INSERT INTO parts VALUES (2, {VECTOR})"
    )
    assert sorted(search(owned)) == [("licensed", "1"), ("parts", "2")]
    owned.execute(f"ALTER TABLE part OWNER TO {owned.mallory}")
    assert search(owned) == [("licensed", "1")]


def test_a_relation_swapped_under_a_remembered_set_is_not_searched(owned):
    owned.execute(
        f"CREATE SCHEMA shared AUTHORIZATION {owned.mallory}; CREATE TABLE shared.t (LIKE licensed); "
        "GRANT USAGE ON SCHEMA shared TO PUBLIC"
    )
    owned.execute(
        f"GRANT SELECT ON shared.t TO PUBLIC; INSERT INTO shared.t VALUES (7, {VECTOR}); "
        "SELECT copy_create_set('shared', 'shared.t', 'id', NULL)"
    )
    assert ("shared", "7") in search(owned)
    # The schema is hers: she may rename it and put another one in its place.
    owned.execute(f'GRANT CREATE ON DATABASE "{owned.info.dbname}" TO {owned.mallory}')
    as_mallory(
        owned,
        "ALTER SCHEMA shared RENAME TO away; CREATE SCHEMA shared; GRANT USAGE ON SCHEMA shared TO PUBLIC;"
        "CREATE VIEW shared.t AS SELECT 8 AS id, @ AS descriptor WHERE mallory.evil(); "
        "GRANT SELECT ON shared.t TO PUBLIC",
    )
    assert ("shared", "7") in search(owned) and not trapped(owned)
    owned.execute(f'REVOKE CREATE ON DATABASE "{owned.info.dbname}" FROM {owned.mallory}')


def test_what_is_broken_is_left_out_of_a_search_of_all_sets_with_one_warning(owned):
    owned.execute(
        "CREATE TABLE broken (id int, descriptor vector(256)); "
        "SELECT copy_create_set('broken', 'broken', 'id', NULL, filter => 'id > 0')"
    )
    warnings = []
    owned.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    for change in ("RENAME descriptor TO d", "RENAME d TO descriptor", "RENAME id TO key", "RENAME key TO id",
                   "DROP descriptor, ADD descriptor text"):  # fmt: skip
        owned.execute(f"ALTER TABLE broken {change}")
        assert search(owned)[0] == ("licensed", "1"), change
    assert search(owned) == [("licensed", "1")]
    told = [text for text in warnings if "leaves out" in text]
    assert any('"broken"' in text for text in told)
    assert len(told) <= 5, "once in a session for each cause"


def test_names_are_one_space_and_a_taken_over_name_inherits_nothing(owned, sqlstate):
    as_mallory(owned, LOOKS["plain table"] + "; GRANT SELECT ON mallory.t TO PUBLIC")
    owned.execute("CREATE TABLE more (LIKE licensed); CREATE TABLE no (LIKE licensed)")
    owned.execute(
        f"INSERT INTO no VALUES (5, {VECTOR}); "
        "SELECT copy_create_set('more', 'more', 'id', NULL), copy_create_set('no', 'no', 'id', NULL, "
        "negative => true)"
    )
    owned.execute(
        "SELECT copy_alter_set('licensed', negatives => '{no}'), copy_create_group('both', '{licensed,more}')"
    )
    owned.execute(f"INSERT INTO more VALUES (3, {VECTOR}); SELECT copy_disable_reference('more', '3')")
    with acting(owned, owned.mallory):
        for call in ("copy_create_group('licensed', '{licensed}')", "copy_create_set('both', 'mallory.t', 'id', NULL)"):
            with sqlstate("42710"):
                owned.execute(f"SELECT {call}")
    explained = f"SELECT explanation IS NOT NULL FROM copy_match_descriptor({VECTOR}, 'licensed')"
    assert owned.execute(explained).fetchone() == (True,)
    owned.execute("SELECT copy_drop_set('more'), copy_drop_set('no')")
    as_mallory(
        owned,
        "SELECT copy_create_set('more', 'mallory.t', 'id', NULL), copy_create_set('no', 'mallory.t', 'id', NULL, "
        "negative => true)",
    )
    assert owned.execute("SELECT count(*) FROM copymatch.reference_status").fetchone()[0] == 0
    assert owned.execute(explained).fetchone() == (False,)
    assert search(owned, "'both'") == "42704"
    for name, state in (("", "22023"), ("x" * 64, "22023"), (None, "22004")):
        with sqlstate(state):
            owned.execute("SELECT copy_create_group(%s, '{licensed}')", [name])
        with sqlstate(state):
            owned.execute("SELECT copy_create_set(%s, 'licensed', 'id', NULL)", [name])


def test_findings_and_dismissals_are_of_the_set_and_not_of_its_name(owned):
    """What a reviewer dismissed of a set that is gone silences nothing of another one under its name."""
    owned.execute(
        "CREATE TABLE u (id int PRIMARY KEY, image bytea); CREATE TABLE one (id int PRIMARY KEY, image bytea); "
        "CREATE TABLE two (LIKE one)"
    )
    for table in ("one", "two"):
        owned.execute(f"INSERT INTO {table} VALUES (1, %s)", [jpeg(scene(1))])
    owned.execute("SELECT copy_create_set('press', 'one', 'id', 'image')")
    owned.execute("SELECT copy_create_flagging('u', 'image', 'id', 'press', k => 1, mode => 'sync')")
    owned.execute("INSERT INTO u VALUES (7, %s)", [jpeg(scene(1), 60)])
    owned.execute("SELECT copy_dismiss(id) FROM copymatch.finding")
    again = "UPDATE u SET image = %s"
    owned.execute(again, [jpeg(scene(1), 50)])
    states = (
        "SELECT f.state, f.set_id = s.id FROM copymatch.finding f JOIN copymatch.reference_set s "
        "ON s.name = f.reference_set ORDER BY f.id"
    )
    assert owned.execute(states).fetchall() == [("dismissed", True)]
    owned.execute("SELECT copy_drop_set('press'); SELECT copy_create_set('press', 'two', 'id', 'image')")
    owned.execute(again, [jpeg(scene(1), 40)])
    assert owned.execute(states).fetchall() == [("dismissed", False), ("open", True)]
    owned.execute("SELECT copy_confirm(max(id)) FROM copymatch.finding")
    assert owned.execute(
        "SELECT sum(reviewed), sum(confirmed) FROM copy_calibration_report('press') WHERE tier = 'all'"
    ).fetchone() == (1, 1)
    assert owned.execute("SELECT evidence -> 'findings' FROM copymatch.reviewed_pairs('press')").fetchone() == (1,)
    owned.execute("SELECT copy_reopen(max(id)) FROM copymatch.finding")
    for at in range(3):
        owned.execute("INSERT INTO u VALUES (%s, %s)", [100 + at, jpeg(scene(1), 60)])
    found = "SELECT set_name, uploads FROM copy_quarantine(at_least => %s, times => 1, history => '0', dry_run => true)"
    assert owned.execute(found, [4]).fetchall() == [("press", 4)] and owned.execute(found, [5]).fetchall() == []


def test_nobody_but_functions_writes_and_they_sign_with_the_caller(owned, sqlstate):
    as_mallory(
        owned,
        LOOKS["plain table"]
        + "; SELECT copy_create_set('own', 'mallory.t', 'id', NULL), copy_create_group('g', '{own}')",
    )
    with acting(owned, owned.mallory):
        owned.execute("SELECT copy_disable_reference('own', '1')")
        for table in ("reference_set", "reference_group", "reference_status", "reembedding", "set_name"):
            for statement in (f"DELETE FROM copymatch.{table}", f"INSERT INTO copymatch.{table} DEFAULT VALUES"):
                with sqlstate("42501"):
                    owned.execute(statement)
        for call in ("copy_alter_set('licensed', k => 1)", "copy_drop_set('licensed')",
                     "copymatch.fill_batch('licensed', NULL, 1)",
                     "copymatch.quarantine_reference('licensed', '1', NULL, NULL)",
                     "copymatch.start_reembed('licensed', 'm', 1, NULL)",
                     "copymatch.reembed_batch('licensed', 1)", "copymatch.switch_reembed('licensed')",
                     "copy_revert_reembed('licensed')",
                     "copy_finish_reembed('licensed')", "copy_default_set('own')"):  # fmt: skip
            with sqlstate("42501"):
                owned.execute(f"SELECT {call}")
    signed = owned.execute(
        "SELECT s.created_by, g.created_by, x.by FROM copymatch.reference_set s, copymatch.reference_group g, "
        "copymatch.reference_status x WHERE s.name = 'own'"
    )
    assert signed.fetchone() == (owned.mallory,) * 3
    with acting(owned, owned.carol), sqlstate("42501"):
        owned.execute("SELECT copy_drop_group('g')")


def test_who_looks_after_a_set_does_so_as_the_relations_owner(owned):
    """Triggers, index expressions and casts of the table's owner run with his rights, also where a superuser
    fills, alters, re-embeds."""
    as_mallory(owned,
        "CREATE TYPE mallory.e AS ENUM ('a'); "
        "CREATE FUNCTION mallory.f(mallory.e) RETURNS text LANGUAGE plpgsql AS"
               " $$ BEGIN PERFORM mallory.evil(); RETURN 'a'; END $$; "
               "CREATE CAST (mallory.e AS text) WITH FUNCTION mallory.f(mallory.e);"
               "CREATE FUNCTION mallory.tg() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM mallory.evil(); "
               "RETURN NEW; END $$;"
               "CREATE TABLE mallory.t (id mallory.e, image bytea); CREATE INDEX ON mallory.t ((mallory.evil_i(1)));"
               "CREATE TRIGGER tg BEFORE UPDATE ON mallory.t FOR EACH ROW EXECUTE FUNCTION mallory.tg()")  # fmt: skip
    owned.execute("INSERT INTO mallory.t VALUES ('a', %s)", [jpeg(scene(1))])
    owned.execute("SELECT setval('mallory.by_others', 1, false)")
    assert owned.execute("SELECT copy_create_set('hers', 'mallory.t', 'id', 'image')").fetchone()[0] == 1
    owned.execute(
        "ALTER TABLE mallory.t DISABLE TRIGGER USER; UPDATE mallory.t SET descriptor = NULL; "
        "ALTER TABLE mallory.t ENABLE TRIGGER USER"
    )
    owned.execute("SELECT setval('mallory.by_others', 1, false)")
    owned.execute("CALL copy_fill_set('hers')")
    owned.execute(
        "SELECT copy_alter_set('hers', k => 3), copy_disable_reference('hers', 'a'), copy_enable_reference('hers', 'a')"
    )
    assert owned.execute("SELECT count(descriptor) FROM mallory.t").fetchone()[0] == 1
    owned.execute("SELECT copy_drop_set('hers', true)")
    assert not trapped(owned)


def test_checking_and_calibrating_a_set_run_its_owners_code_as_the_owner(owned):
    """An index expression at copy_index_check, and a cast of the key, a policy and an index expression at
    copy_calibrate, by a superuser."""
    as_mallory(owned,
        "CREATE TYPE mallory.e AS (n int); "
        "CREATE FUNCTION mallory.f(mallory.e) RETURNS text LANGUAGE plpgsql AS"
               " $$ BEGIN PERFORM mallory.evil(); RETURN ($1).n; END $$; "
               "CREATE CAST (mallory.e AS text) WITH FUNCTION mallory.f(mallory.e);"
               "CREATE FUNCTION mallory.same(vector) RETURNS vector LANGUAGE plpgsql IMMUTABLE "
               "AS $$ BEGIN PERFORM mallory.evil(); RETURN $1; END $$;"
               "CREATE TABLE mallory.t (id mallory.e, image bytea, descriptor vector(256));"
               "CREATE POLICY p ON mallory.t USING (mallory.evil()); ALTER TABLE mallory.t ENABLE ROW LEVEL SECURITY;"
               "ALTER TABLE mallory.t FORCE ROW LEVEL SECURITY")  # fmt: skip
    for number in range(48):
        owned.execute("INSERT INTO mallory.t VALUES (ROW(%s), %s)", [number, jpeg(scene(number))])
    as_mallory(
        owned,
        "UPDATE mallory.t SET descriptor = copy_embed(image); "
        "CREATE INDEX ix ON mallory.t USING ivf ((mallory.same(descriptor)::vector(256)) vector_cosine_ops);"
        "SELECT copy_create_set('hers', 'mallory.t', 'id', 'image')",
    )
    owned.execute("SELECT setval('mallory.by_others', 1, false)")
    assert owned.execute("SELECT count(*) FROM copy_index_check('mallory.ix', true)").fetchone()[0] == 0
    assert not trapped(owned)
    owned.execute("SELECT copy_calibrate('hers', copies => 48, unrelated => 48, source => 'edits')")
    assert not trapped(owned)
    owned.execute(
        "CREATE TABLE judged AS SELECT t.image, n::text AS reference, n % 2 = 0 AS is_copy "
        "FROM generate_series(0, 40) n"
                  " JOIN (SELECT image, row_number() OVER () AS place FROM mallory.t) t "
                  "ON t.place = n / 2 + 1")  # fmt: skip
    owned.execute("SELECT setval('mallory.by_others', 1, false)")
    with contextlib.suppress(psycopg.errors.DataError, psycopg.errors.ObjectNotInPrerequisiteState):
        owned.execute("SELECT copy_calibrate('hers', labels => 'judged')")
    assert not trapped(owned)


def test_members_of_roles_made_before_are_named_at_create_extension(owned, new_db, connect):
    """Roles are the cluster's: whoever could act as copymatch_admin before has its rights in this database, too."""
    owned.execute(f"GRANT copymatch_reviewer TO {owned.carol}; ALTER ROLE copymatch_reader LOGIN")
    told = []
    try:
        db = connect(new_db(extension=False))
        db.add_notice_handler(
            lambda diag: told.append((diag.severity_nonlocalized, diag.message_primary, diag.message_hint))
        )
        db.execute("CREATE EXTENSION copymatch")
    finally:
        owned.execute("ALTER ROLE copymatch_reader NOLOGIN")
    warnings = [(message, hint) for severity, message, hint in told if severity == "WARNING"]
    assert any(
        "copymatch_reviewer" in message and owned.carol in message and "REVOKE" in hint for message, hint in warnings
    )
    assert any(
        "copymatch_reader" in message and "log in" in message and "NOLOGIN" in hint for message, hint in warnings
    )


# Filters


PLAIN = [
    ("n = 1", "(n OPERATOR(pg_catalog.=) '1'::pg_catalog.int4)"),
    ("n IN (1, 2) AND txt LIKE 'a%'", None),
    ("txt IS DISTINCT FROM 'b'", None),
    ("nullif(n, 0) IS NOT NULL", None),
    ("CASE n WHEN 1 THEN true ELSE false END", None),
    ("CASE WHEN n > 0 THEN txt ELSE 'x' END = 'a'", None),
    ("coalesce(n, 0) BETWEEN 1 AND 1 AND NOT n IS NULL AND (n > 0) IS TRUE", None),
    ("tags && '{x}' AND tags @> ARRAY['x'] AND 'x' = ANY (tags) AND cardinality(tags) = 1", None),
    ("js ->> 'k' = 'v' AND js @> '{\"k\":\"v\"}' AND js ? 'k'", None),
    (
        "at > '2020-01-01' AND at < now() AND at AT TIME ZONE 'UTC' > '2020-01-01' "
        "AND extract(year FROM at) = 2024", None),
    ("en = 'one' AND en IN ('one', 'two') AND en < 'two'", None),
    ("lower(txt) = 'a' AND length(txt) = 1 AND n::text = '1' AND txt::varchar(3) = 'a' AND n::numeric(4, 1) = 1", None),
    ("greatest(n, 0) = 1 AND (n, txt) = (1, 'a') AND n % 2 = 1 AND -n < 0 AND txt COLLATE \"C\" = 'a'", None),
    ("kinds.n = 1 AND pg_catalog.lower(txt) = 'a' AND n OPERATOR(pg_catalog.=) 1", None),
    ("r @> 1 AND at - '1 day'::interval < now() AND txt ~ '^a' AND txt || 'b' = 'ab'", None),
]  # fmt: skip


@pytest.mark.parametrize("text, written", PLAIN)
def test_ordinary_filters_are_allowed_and_mean_the_same_under_every_path(owned, text, written):
    as_mallory(owned, "CREATE TYPE mallory.en AS ENUM ('one', 'two');"
               "CREATE TABLE mallory.kinds (id int, n int, txt text, tags text[], js jsonb, at timestamptz, "
               "en mallory.en, r int4range, descriptor vector(256));"
               "INSERT INTO mallory.kinds VALUES (1, 1, 'a', '{x}', '{\"k\":\"v\"}', '2024-01-01 12:00Z', 'one', "
               "'[0,5)', @),"
               " (2, NULL, 'b', '{y}', '{}', '2010-01-01 12:00Z', 'two', '[6,7)', @)")  # fmt: skip
    with acting(owned, owned.mallory):
        owned.execute("SELECT copy_create_set('kinds', 'mallory.kinds', 'id', NULL, filter => %s)", [text])
        expected = owned.execute(f"SELECT array_agg(id::text ORDER BY id) FROM mallory.kinds WHERE {text}").fetchone()[
            0
        ]
    stored = owned.execute("SELECT filter, filter_beyond FROM copymatch.reference_set WHERE name = 'kinds'").fetchone()
    assert stored[1] is False and (written is None or stored[0] == written)
    # Better-fitting operators and types of mallory's come first in this path.
    for kind in ("int", "text", "text[]", "jsonb", "timestamptz"):
        owned.execute(
            f"CREATE FUNCTION mallory.wrong({kind}, {kind}) RETURNS boolean LANGUAGE sql AS 'SELECT mallory.evil()'"
        )
        for name in ("=", "<", ">", "&&", "@>", "~~"):
            owned.execute(
                f"CREATE OPERATOR mallory.{name} (LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = mallory.wrong)"
            )
    owned.execute("SET search_path = mallory, pg_catalog, public")
    found = [reference for _, reference in search(owned, "'kinds'")]
    owned.execute("SET search_path = public")
    assert found == expected == ["1"] and not trapped(owned)
    again = owned.execute(
        "SELECT (copymatch.settle_filter('mallory.kinds'::regclass, %s)).settled", [stored[0]]
    ).fetchone()[0]
    assert again == stored[0], "what is kept is kept as it is"


EVIL = [
    "evil_i(n)", "mallory.evil_i(n)", "txt::mallory.comp IS NOT NULL", "'(1)'::mallory.comp IS NOT NULL",
    "n::mallory.dom = 1",
    "to_jsonb(en) IS NOT NULL", "en::text = 'x'", "ROW(n) IS NOT NULL", "kinds IS NOT NULL", "(kinds).n = 1",
    "tableoid = 1",
    "jsonb_populate_record(NULL::mallory.comp, js) IS NOT NULL",
    "table_to_xml('mallory.t', true, false, '') IS NOT NULL",
    "query_to_xml('SELECT 1', true, false, '') IS NOT NULL", "domain_in('1', 0, -1) IS NOT NULL", "random() < 2",
    "n === 1",
    "n OPERATOR(mallory.===) 1", "comp = '(1)'", "comp IS NOT NULL", "dom = 1", "'mallory.t'::regclass IS NOT NULL",
    "pg_typeof(n) IS NOT NULL",
    "EXISTS (SELECT 1)", "n = (SELECT 1)", "count(*) > 0", "txt COLLATE mallory.c = 'a'", "format('%s', comp) = ''",
    "satisfies_hash_partition(0, 1, 0, n)", "pg_input_is_valid('1', 'mallory.dom')", "current_setting('x') = ''",
    "ts_rewrite('a', 'SELECT 1') IS NULL",
]  # fmt: skip


def test_filters_that_run_code_are_refused_when_set_and_when_run(owned):
    as_mallory(owned,
        "CREATE DOMAIN mallory.dom AS int CHECK (mallory.evil_i(VALUE)); "
        "CREATE TYPE mallory.comp AS (a mallory.dom);"
               "CREATE TYPE mallory.en AS ENUM ('x'); CREATE COLLATION mallory.c FROM \"C\";"
               "CREATE OPERATOR mallory.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq);"
               "CREATE TABLE mallory.kinds (id int, n int, txt text, js jsonb, en mallory.en, comp mallory.comp, "
               "dom mallory.dom, descriptor vector(256));"
               "INSERT INTO mallory.kinds (id, n, txt, descriptor) VALUES (1, 1, '(1)', @); "
               "GRANT SELECT ON mallory.kinds TO PUBLIC;"
               "CREATE FUNCTION mallory.f(mallory.en) RETURNS text LANGUAGE plpgsql "
               "AS $$ BEGIN PERFORM mallory.evil(); RETURN 'x'; END $$;"
               "CREATE CAST (mallory.en AS text) WITH FUNCTION mallory.f(mallory.en);"
               "SELECT copy_create_set('kinds', 'mallory.kinds', 'id', NULL)")  # fmt: skip
    owned.execute("SELECT setval('mallory.by_others', 1, false); SET search_path = mallory, public")
    for text in EVIL:
        with acting(owned, owned.mallory), pytest.raises(psycopg.Error) as error:
            owned.execute("SELECT copy_alter_set('kinds', filter => %s)", [text])
        assert error.value.sqlstate[:2] in ("22", "42") and error.value.sqlstate != "42501", text
        # As a dump would bring it: nothing runs when it is loaded, nothing when it is searched.
        owned.execute("DELETE FROM copymatch.reference_set WHERE name = 'other'")
        owned.execute(
            "INSERT INTO copymatch.reference_set (name, relation, key_column, descriptor_column, model, calibration, "
            "filter)"
                      " SELECT 'other', relation, key_column, descriptor_column, model, calibration, %s "
                      "FROM copymatch.reference_set WHERE name = 'kinds'", [text])  # fmt: skip
        for role in (None, owned.carol):
            for name in ("'other'", "NULL"):
                found = search(owned, name, role)
                assert found == [("licensed", "1")] if name == "NULL" else isinstance(found, str), (text, found)
        assert not trapped(owned), text


def test_a_filter_whose_column_changes_its_type_is_refused_from_then_on(owned):
    as_mallory(owned,
        "CREATE DOMAIN mallory.dom AS int CHECK (mallory.evil_i(VALUE)); "
        "CREATE TABLE mallory.kinds (id int, n int, descriptor vector(256));"
               "INSERT INTO mallory.kinds VALUES (1, 1, @); GRANT SELECT ON mallory.kinds TO PUBLIC;"
               "SELECT copy_create_set('kinds', 'mallory.kinds', 'id', NULL, filter => 'n = 1')")  # fmt: skip
    assert search(owned, "'kinds'", owned.carol) == [("kinds", "1")]
    as_mallory(owned, "ALTER TABLE mallory.kinds ALTER n TYPE mallory.dom")
    owned.execute("SELECT setval('mallory.by_others', 1, false)")
    assert search(owned, "'kinds'", owned.carol) == "22023" == search(owned, "'kinds'")
    assert not trapped(owned)


def test_a_superuser_goes_further_and_it_is_kept_qualified(owned):
    owned.execute(
        "CREATE FUNCTION mine(int) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT $1 = 1'; "
        "CREATE DOMAIN d AS int CHECK (VALUE > 0)"
    )
    owned.execute("SELECT copy_alter_set('licensed', filter => 'mine(id) AND id::d = 1 AND descriptor IS NOT NULL')")
    filter, beyond = owned.execute("SELECT filter, filter_beyond FROM copymatch.reference_set").fetchone()
    assert beyond and "public.mine(id)" in filter and "::public.d" in filter and "OPERATOR(pg_catalog.=)" in filter
    owned.execute("SET search_path = pg_catalog")
    assert owned.execute(
        "SELECT reference FROM public.copy_match_descriptor((SELECT descriptor FROM public.licensed), 'licensed')"
    ).fetchall() == [("1",)]


# References out of use


def test_status_is_shown_with_the_reference_and_no_search_finds_it(owned):
    owned.execute(
        "CREATE TABLE refs (id text PRIMARY KEY, tenant name, descriptor vector(256)); GRANT SELECT ON refs TO PUBLIC"
    )
    owned.execute(
        f"INSERT INTO refs VALUES ('a', 'x', {VECTOR}), ('b', '{owned.carol}', {VECTOR}), "
        f"('c', '{owned.carol}', {VECTOR})"
    )
    owned.execute(
        "SELECT copy_create_set('refs', 'refs', 'id', NULL); ALTER TABLE refs ENABLE ROW LEVEL SECURITY; "
        "CREATE POLICY p ON refs USING (tenant = current_user)"
    )
    owned.execute("SELECT copy_disable_reference('refs', 'a', 'secret'), copy_disable_reference('refs', 'b')")
    status = "SELECT reference FROM copymatch.reference_status ORDER BY 1"
    assert owned.execute(status).fetchall() == [("a",), ("b",)]
    with acting(owned, owned.carol):
        assert owned.execute(status).fetchall() == [("b",)]
        assert owned.execute(
            "SELECT copymatch.reference_in_use(id, 'a') FROM copymatch.reference_set WHERE name = 'refs'"
        ).fetchone()[0], "no oracle"
    assert search(owned, "'refs'", owned.carol) == [("refs", "c")] == search(owned, "'refs'")


def test_reading_the_status_runs_no_strangers_code(owned):
    as_mallory(
        owned,
        LOOKS["view"] + "; GRANT SELECT ON mallory.t TO PUBLIC; "
        "SELECT copy_create_set('trap', 'mallory.t', 'id', NULL), copy_disable_reference('trap', '1')",
    )
    owned.execute("SELECT setval('mallory.by_others', 1, false)")
    with acting(owned, owned.carol):
        assert owned.execute("SELECT count(*) FROM copymatch.reference_status").fetchone()[0] == 0
    assert owned.execute("SELECT count(*) FROM copymatch.reference_status").fetchone()[0] == 1
    assert not trapped(owned)
    assert search(owned, "'trap'", owned.mallory) == []


def test_the_trigger_serves_sets_of_its_own_table_only(owned, sqlstate):
    owned.execute(
        "CREATE TABLE images (id int, image bytea); SELECT copy_create_set('images', 'images', 'id', 'image')"
    )
    as_mallory(
        owned,
        "CREATE TABLE mallory.t (id int, image bytea, descriptor vector(256));"
        "CREATE TRIGGER t BEFORE INSERT ON mallory.t FOR EACH ROW EXECUTE FUNCTION copy_maintain_descriptor('images')",
    )
    with acting(owned, owned.mallory), sqlstate("42704"):
        owned.execute("INSERT INTO mallory.t VALUES (1, %s)", [jpeg(scene(1))])
    owned.execute(
        "CREATE TABLE parts (id int, image bytea) PARTITION BY LIST (id); CREATE TABLE part PARTITION OF parts DEFAULT"
    )
    owned.execute("SELECT copy_create_set('parts', 'parts', 'id', 'image')")
    owned.execute("INSERT INTO part VALUES (1, %s)", [jpeg(scene(1))])
    assert owned.execute("SELECT count(descriptor) FROM parts").fetchone()[0] == 1


# What earlier versions left


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_an_update_binds_names_to_sets_and_renames_clashing_groups(new_db, connect, version):
    db = connect(new_db(extension=False))
    db.execute(f"CREATE EXTENSION copymatch VERSION '{version}'")
    db.execute("CREATE TABLE a (id int, descriptor vector(256)); CREATE TABLE b (LIKE a)")
    row = (
        "INSERT INTO copymatch.reference_set (name, relation, key_column, descriptor_column, model, calibration) "
        "SELECT '{0}', '{0}', 'id', 'descriptor', m.name, 0 FROM copymatch.model m"
    )
    db.execute(row.format("a") + ";" + row.format("b"))
    if version != "0.1.0":
        db.execute("INSERT INTO copymatch.reference_group (name, members) VALUES ('a', '{b,nix}'), ('both', '{a,b}')")
        db.execute(
            "UPDATE copymatch.reference_set SET negative = true WHERE name = 'b'; "
            "UPDATE copymatch.reference_set SET negatives = '{b}' WHERE name = 'a'"
        )
    warnings = []
    db.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    db.execute("ALTER EXTENSION copymatch UPDATE")
    ids = dict(db.execute("SELECT name, id FROM copymatch.reference_set").fetchall())
    assert set(ids) == {"a", "b"} and len(set(ids.values())) == 2
    names = {("a", False), ("b", False)}
    if version != "0.1.0":
        names |= {("a (group)", True), ("both", True)}
        assert any('group "a"' in text and '"a (group)"' in text for text in warnings)
        groups = dict(db.execute("SELECT name, member_ids FROM copymatch.reference_group").fetchall())
        assert groups == {"a (group)": [ids["b"], 0], "both": [ids["a"], ids["b"]]}
        assert db.execute("SELECT negative_ids FROM copymatch.reference_set WHERE name = 'a'").fetchone() == (
            [ids["b"]],
        )
    assert set(db.execute("SELECT name, is_group FROM copymatch.set_name").fetchall()) == names


def test_a_dump_of_the_version_before_loads_and_binds(fresh_db):
    """Its columns, and its order: groups before sets."""
    db = fresh_db
    db.execute("CREATE TABLE a (id int, descriptor vector(256)); CREATE TABLE b (LIKE a)")
    # Findings and dismissals come first of all.
    finding = (
        "INSERT INTO copymatch.finding (reference_set, relation, upload, reference, similarity, background, score, "
        "probability, verdict, model, calibration, found, state, decided, decided_by) VALUES ('{0}', 'a', '{1}', '2', "
        "1, 0, 1, 1, 'copy', 'm', 1, '2020-01-02', '{2}', {3})"
    )
    db.execute(
        finding.format("a", "1", "dismissed", "'2020-01-02', 'x'")
        + ";"
        + finding.format("b", "1", "open", "NULL, NULL")
    )
    db.execute(finding.format("gone", "1", "open", "NULL, NULL"))
    db.execute(
        "INSERT INTO copymatch.dismissal (relation, upload, reference_set, reference, finding) "
        "VALUES ('a', '1', 'a', '2', 1)"
    )
    db.execute(
        "INSERT INTO copymatch.reference_group (name, members, created) VALUES ('a', '{b,later}', '2020-01-02'), "
        "('both', '{a,b}', '2020-01-02')"
    )
    assert db.execute("SELECT count(member_ids) FROM copymatch.reference_group").fetchone()[0] == 0
    db.execute(
        "INSERT INTO copymatch.reference_set (name, relation, key_column, descriptor_column, model, calibration, "
        "created, negative, negatives)"
        " SELECT v.*, 'id', 'descriptor', m.name, 0, '2020-01-01'::timestamptz, v.name = 'b', CASE WHEN v.name = 'a' "
        "THEN '{b}'::text[] END"
        " FROM copymatch.model m, (VALUES ('a', 'a'::regclass), ('b', 'b')) AS v(name, relation)"
    )
    ids = dict(db.execute("SELECT name, id FROM copymatch.reference_set").fetchall())
    groups = dict(db.execute("SELECT name, member_ids FROM copymatch.reference_group").fetchall())
    assert groups == {"a (group)": [ids["b"], 0], "both": [ids["a"], ids["b"]]}
    assert db.execute("SELECT negative_ids FROM copymatch.reference_set WHERE name = 'a'").fetchone() == ([ids["b"]],)
    bound = "SELECT reference_set, state, set_id FROM copymatch.finding ORDER BY reference_set"
    expected = [("a", "dismissed", ids["a"]), ("b", "open", ids["b"]), ("gone", "open", None)]
    assert db.execute(bound).fetchall() == expected
    assert db.execute("SELECT set_id FROM copymatch.dismissal").fetchall() == [(ids["a"],)]
    db.execute("CREATE TABLE later (LIKE a); SELECT copy_create_set('later', 'later', 'id', NULL)")
    db.execute("CREATE TABLE gone (LIKE a); SELECT copy_create_set('gone', 'gone', 'id', NULL)")
    assert db.execute(bound).fetchall() == expected
    assert dict(db.execute("SELECT name, member_ids FROM copymatch.reference_group").fetchall()) == groups
