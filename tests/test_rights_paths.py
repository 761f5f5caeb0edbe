"""Nobody's operators and functions are met: not in CREATE EXTENSION and ALTER EXTENSION UPDATE, not in
everyday functions, although somebody may create in the extension's schema, which is also the first of
everybody's path (tests/traps.py)."""

import re

import psycopg
import pytest
from pictures import jpeg, scene
from test_upgrade import CATALOGUE, OLD
from traps import TRAP, set_overloads, set_traps

#: What members and their parts (constraints, rules, policies, defaults, indexes) depend on outside PostgreSQL and the
#: extension.
FOREIGN = """
    WITH RECURSIVE own(classid, objid) AS (
        SELECT d.classid, d.objid FROM pg_depend d WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
            AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'copymatch')
        UNION
        SELECT d.classid, d.objid FROM pg_depend d JOIN own ON d.refclassid = own.classid AND d.refobjid = own.objid
            WHERE d.deptype IN ('i', 'a') AND d.classid <> 'pg_extension'::regclass)
    SELECT DISTINCT pg_describe_object(d.classid, d.objid, d.objsubid), pg_describe_object(d.refclassid, d.refobjid,
    d.refobjsubid)
    FROM own JOIN pg_depend d USING (classid, objid)
    WHERE d.refclassid IN ('pg_proc'::regclass, 'pg_operator'::regclass, 'pg_class'::regclass, 'pg_type'::regclass)
      AND d.refobjid >= 16384 AND (d.refclassid, d.refobjid) NOT IN (SELECT classid, objid FROM own)
"""


@pytest.fixture
def trapped(new_db, connect, server):
    """A database where role intruder has set traps in schema public; gives (superuser's connection,
    intruder's connection)."""
    name = new_db(extension=False)
    db = connect(name)
    db.execute(
        "DROP ROLE IF EXISTS intruder; CREATE ROLE intruder LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO intruder"
    )
    intruder = connect(name)
    intruder.execute("SET SESSION AUTHORIZATION intruder")
    yield db, intruder
    intruder.close()
    db.close()
    with server.connect() as other:
        other.execute(f"DROP DATABASE {name} WITH (FORCE)")
        other.execute("DROP ROLE intruder")


def catalogue(db) -> dict:
    db.execute("SET search_path = pg_catalog")
    rows = {row[:2]: row[2:] for row in db.execute(CATALOGUE)}
    db.execute("RESET search_path")
    return rows


def foreign(db) -> list:
    db.execute("SET search_path = pg_catalog")
    rows = db.execute(FOREIGN).fetchall()
    db.execute("RESET search_path")
    return rows


def assert_same(found: dict, wanted: dict) -> None:
    """The same members, alike but for parentheses, which PostgreSQL sets otherwise where it
    reads what it has written."""
    assert found.keys() == wanted.keys()

    def bare(row) -> list:
        return [re.sub(r"[()]", "", str(one)) for one in row]

    assert not {name: (found[name], wanted[name]) for name in wanted if bare(found[name]) != bare(wanted[name])}


def test_traps_spring(trapped):
    db, intruder = trapped
    set_traps(intruder)
    for query in (
        "SELECT 1::float8 > 0::int4",
        "SELECT cardinality('{a}'::text[])",
        "SELECT 'x'::name || '{y}'::name[]",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match=TRAP):
            db.execute(query)


def test_create_extension_meets_nothing_of_others(trapped, new_db, connect):
    db, intruder = trapped
    set_traps(intruder)
    db.execute("CREATE EXTENSION copymatch SCHEMA public")
    assert foreign(db) == []
    assert_same(catalogue(db), catalogue(connect(new_db())))


@pytest.mark.parametrize("version", OLD)
def test_update_meets_nothing_of_others(trapped, new_db, connect, version):
    db, intruder = trapped
    db.execute(f"CREATE EXTENSION copymatch SCHEMA public VERSION '{version}'")
    set_traps(intruder)
    set_overloads(intruder)
    db.execute("ALTER EXTENSION copymatch UPDATE")
    assert foreign(db) == []
    assert_same(catalogue(db), catalogue(connect(new_db())))


@pytest.mark.parametrize("version", OLD)
def test_update_mends_what_an_old_version_bound_to_others(trapped, new_db, connect, version):
    db, intruder = trapped
    for number, (left, operator, right) in enumerate(
        [("float8", o, "int4") for o in ("<", "<=", ">", ">=", "=")]
        + [("oid", "=", "regclass"), ("name[]", "||", "name[]")]
    ):
        result = "name[]" if operator == "||" else "bool"
        intruder.execute(
            f"""CREATE FUNCTION public.bound{number}(a {left}, b {right}) RETURNS {result} LANGUAGE sql IMMUTABLE
                AS 'SELECT $1 OPERATOR(pg_catalog.{operator}) $2';
                CREATE OPERATOR public.{operator} (LEFTARG = {left}, RIGHTARG = {right},
                FUNCTION = public.bound{number})"""
        )
    for name, argument in (
        ("array_length", "int4[], int4"),
        ("array_ndims", "int4[]"),
        ("cardinality", "text[]"),
        ("octet_length", "text"),
    ):
        arguments = ", ".join(f"${at}" for at in range(1, argument.count(",") + 2))
        intruder.execute(
            f"CREATE FUNCTION public.{name}({argument}) RETURNS int LANGUAGE sql IMMUTABLE "
            f"AS 'SELECT pg_catalog.{name}({arguments})'"
        )
    db.execute(f"CREATE EXTENSION copymatch SCHEMA public VERSION '{version}'")
    assert foreign(db), "the old script binds them"
    db.execute("ALTER EXTENSION copymatch UPDATE")
    assert foreign(db) == []
    assert_same(catalogue(db), catalogue(connect(new_db())))


def test_no_foreign_function_is_taken_over(trapped, sqlstate):
    db, intruder = trapped
    db.execute("CREATE EXTENSION copymatch SCHEMA public VERSION '0.2.0'")
    db.execute(
        "CREATE SCHEMA theirs; GRANT ALL ON SCHEMA theirs TO intruder; GRANT CREATE ON SCHEMA copymatch TO intruder"
    )
    intruder.execute(
        """CREATE FUNCTION copymatch.record_calibration(reference_set text, source text, labels regclass,
               copy_precision float8, review_precision float8,
               confidence float8, copies int, unrelated int, duplicate_similarity float8, seed bigint, OUT id bigint,
               OUT fitted jsonb)
           LANGUAGE plpgsql AS 'BEGIN END'"""
    )
    with sqlstate("42723"):  # exists already, and is not replaced
        db.execute("ALTER EXTENSION copymatch UPDATE")
    assert db.execute("SELECT extversion FROM pg_extension WHERE extname = 'copymatch'").fetchone() == ("0.2.0",)


EVERYDAY = """
CREATE TABLE refs (id int PRIMARY KEY, image bytea);
INSERT INTO refs SELECT n, image FROM given;
SELECT copy_create_set('refs', 'refs', 'id', 'image');
SELECT copy_create_set('part', 'refs', 'id', 'image', filter => 'id > 1');
SELECT copy_create_set('logos', 'refs', 'id', 'image', negative => true);
SELECT copy_create_group('both', '{refs,part}');
SELECT copy_alter_set('refs', k => 5, copy_probability => 0.9, review_probability => 0.4);
SELECT copy_default_set('refs');
SELECT copy_use_calibration('refs', 0);
SELECT * FROM copy_match((SELECT image FROM given WHERE n = 1));
SELECT * FROM copy_match((SELECT image FROM given WHERE n = 1), 'both');
SELECT * FROM copy_match((SELECT image FROM given WHERE n = 1), NULL, views => 'all');
SELECT * FROM copy_match_descriptor(copy_embed((SELECT image FROM given WHERE n = 1)), 'part', 3);
SELECT copy_stretch(0.9, 0.3, 'refs');
SELECT copy_disable_reference('refs', '2', 'for a test');
SELECT copy_enable_reference('refs', '2');
CREATE TABLE queries AS SELECT n::text AS reference, image, 'jpeg' AS edit FROM given;
SELECT * FROM copy_evaluate('queries', 'refs');
SELECT * FROM copy_calibration_report('refs');
SELECT * FROM copy_precision_recall(ARRAY[0.9::float8, 0.1], ARRAY[true, false], 1);
SELECT * FROM copymatch.models;
SELECT * FROM copymatch.reference_sets;
SELECT copy_drop_set('logos');
CREATE TABLE uploads (id int PRIMARY KEY, image bytea);
CREATE TRIGGER flag AFTER INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', 'refs');
INSERT INTO uploads SELECT n, image FROM given WHERE n < 3;
SELECT copy_confirm((SELECT min(id) FROM copymatch.finding), 'yes');
SELECT copy_dismiss((SELECT max(id) FROM copymatch.finding), 'no');
SELECT * FROM copymatch.report_daily;
SELECT * FROM copymatch.report_references;
SELECT copymatch.recount();
SELECT copy_drop_group('both');
SELECT copy_drop_set('part');
"""


def test_everyday_functions_meet_nothing_of_others(trapped):
    db, intruder = trapped
    db.execute("CREATE EXTENSION copymatch SCHEMA public; CREATE TABLE given (n int PRIMARY KEY, image bytea)")
    with db.cursor() as cursor:
        cursor.executemany("INSERT INTO given VALUES (%s, %s)", [(n, jpeg(scene(n))) for n in range(1, 5)])
    set_traps(intruder)
    statements = [statement for statement in EVERYDAY.split(";\n") if statement.strip()]
    # What the caller himself writes is met on his own path: his statements leave nothing to it.
    sprung = []
    for statement in statements:
        try:
            db.execute(statement)
        except psycopg.Error as error:
            sprung.append((statement, str(error)))
    assert not sprung


def test_internal_calls_meet_no_overloads_in_the_extensions_schema(trapped):
    """Somebody puts shorter forms of the extension's functions into its schema: what users call is theirs to name, what
    the extension calls is its own."""
    db, intruder = trapped
    db.execute(
        "CREATE SCHEMA ext; GRANT USAGE ON SCHEMA ext TO PUBLIC; CREATE EXTENSION copymatch SCHEMA ext; "
        "GRANT CREATE ON SCHEMA ext TO intruder"
    )
    db.execute("SET search_path = public, ext; CREATE TABLE given (n int PRIMARY KEY, image bytea)")
    with db.cursor() as cursor:
        cursor.executemany("INSERT INTO given VALUES (%s, %s)", [(n, jpeg(scene(n))) for n in range(1, 4)])
    db.execute(
        "CREATE TABLE refs (id int PRIMARY KEY, image bytea); "
        "SELECT copy_create_set('refs'::text, 'refs'::regclass, 'id'::text, 'image'::name)"
    )
    db.execute(
        "INSERT INTO refs SELECT * FROM given; "
        "CREATE TABLE queries AS SELECT n::text AS reference, image, 'jpeg' AS edit FROM given"
    )
    set_overloads(intruder, "ext")
    db.execute("SET search_path = public, ext")
    with pytest.raises((psycopg.errors.RaiseException, psycopg.errors.AmbiguousFunction)):
        db.execute("SELECT ext.copy_evaluate_matches('queries'::regclass, 'refs'::text)")
    assert db.execute(
        "SELECT recall_at_1 FROM ext.copy_evaluate('queries'::regclass, 'refs'::text, 10, NULL::text) "
        "WHERE edit IS NULL"
    ).fetchone() == (1.0,)
    db.execute("SELECT ext.copy_use_calibration('refs'::text, 0::bigint)")
    db.execute(
        "CREATE TRIGGER flag AFTER INSERT ON given FOR EACH ROW EXECUTE FUNCTION ext.copy_flag('image', 'n', 'refs')"
    )
    db.execute("INSERT INTO given VALUES (9, %s)", [jpeg(scene(2), 60)])
    assert ("2", "copy") in db.execute("SELECT reference, verdict FROM copymatch.finding").fetchall()


def test_functions_with_bound_bodies_are_inlined_still(fresh_db):
    """A SET clause would have cost a call for each finding of a report."""
    plan = fresh_db.execute("EXPLAIN (VERBOSE) SELECT copymatch.quarter(f.found) FROM copymatch.finding f").fetchall()
    assert "date_bin(" in str(plan) and "quarter(" not in str(plan)
