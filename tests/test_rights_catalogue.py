"""The rules that every member of the extension keeps, whoever adds the next one."""

import pathlib
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
from check_sql import install_script
from upgrade_sql import plain, statements

MEMBERS = """SELECT d.objid FROM pg_depend d WHERE d.deptype = 'e' AND d.classid = '{}'::regclass
    AND d.refclassid = 'pg_extension'::regclass
    AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'copymatch')"""
FUNCTIONS = (
    "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang "
    f"WHERE p.oid IN ({MEMBERS.format('pg_proc')})"
)
RELATIONS = f"SELECT c.oid::regclass::text FROM pg_class c WHERE c.oid IN ({MEMBERS.format('pg_class')})"
HAS_PATH = (
    "EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s IN ('search_path=pg_catalog, pg_temp', "
    "'search_path=\"pg_catalog, pg_temp\"'))"
)
#: PostgreSQL lets no procedure commit that has a setting: what they say is qualified, which scripts/check_sql.py
#: checks.
COMMITS = "p.prokind = 'p' AND p.prosrc ~* '\\mcommit\\M'"
PUBLIC_MAY = (
    "EXISTS (SELECT FROM aclexplode(coalesce({acl}, acldefault('{kind}', {owner}))) a WHERE a.grantee = 0 "
    "AND a.privilege_type IN ({what}))"
)

RULES = {
    "definer functions that PUBLIC may call": f"{FUNCTIONS} AND p.prosecdef AND "
    + PUBLIC_MAY.format(acl="p.proacl", kind="f", owner="p.proowner", what="'EXECUTE'"),
    "definer functions without a path": f"{FUNCTIONS} AND p.prosecdef AND NOT {HAS_PATH}",
    "functions in SQL or PL/pgSQL without a path or a body bound when it "
    "was created": f"{FUNCTIONS} AND l.lanname IN ('sql', 'plpgsql')"
    f" AND p.prosqlbody IS NULL AND NOT {HAS_PATH} AND NOT ({COMMITS})",
    "procedures that commit, beyond the known": f"{FUNCTIONS} AND {COMMITS} AND p.proname NOT IN ('copy_reembed', "
    "'copy_fill_set', "
    "'copy_process_queue')",
    "functions in other languages": f"{FUNCTIONS} AND l.lanname NOT IN ('sql', 'plpgsql', 'c', 'internal')",
    "relations that PUBLIC may write": f"{RELATIONS} AND c.relkind <> 'S' AND ("
    + PUBLIC_MAY.format(
        acl="c.relacl",
        kind="r",
        owner="c.relowner",
        what="'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'",
    )
    + " OR EXISTS (SELECT FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = c.oid AND a.grantee = 0 "
    "AND a.privilege_type <> 'SELECT'))",
    "sequences that PUBLIC may use": f"{RELATIONS} AND c.relkind = 'S' AND "
    + PUBLIC_MAY.format(acl="c.relacl", kind="s", owner="c.relowner", what="'USAGE', 'UPDATE'"),
    "views that read with their owner's rights": f"{RELATIONS} AND c.relkind = 'v'"
    " AND current_setting('server_version_num')::int >= 150000 AND NOT 'security_invoker=true' = ANY "
    "(coalesce(c.reloptions, '{}'))",
    "members without a comment": """SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d
        WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension
        WHERE extname = 'copymatch')
          AND obj_description(d.objid, d.classid::regclass::text) IS NULL AND d.classid <> 'pg_opfamily'::regclass
          AND NOT (d.classid = 'pg_type'::regclass AND EXISTS (SELECT FROM pg_type t WHERE t.oid = d.objid
          AND (t.typelem <> 0 OR t.typrelid <> 0)))
          AND NOT (d.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c WHERE c.oid = d.objid
          AND c.relkind IN ('S', 'i')))""",
    "columns without a comment": f"""SELECT t.attrelid::regclass || '.' || t.attname FROM pg_attribute t JOIN pg_class c
        ON c.oid = t.attrelid
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND t.attnum > 0 AND NOT t.attisdropped
        AND col_description(c.oid, t.attnum) IS NULL
          AND (c.oid IN ({MEMBERS.format("pg_class")}) OR c.reltype IN ({MEMBERS.format("pg_type")}))""",
    "policies and triggers without a comment": f"""SELECT polname || ' on ' || polrelid::regclass FROM pg_policy
        WHERE polrelid IN ({MEMBERS.format("pg_class")}) AND obj_description(oid, 'pg_policy') IS NULL
        UNION ALL SELECT tgname || ' on ' || tgrelid::regclass FROM pg_trigger
        WHERE tgrelid IN ({MEMBERS.format("pg_class")}) AND NOT tgisinternal
        AND obj_description(oid, 'pg_trigger') IS NULL""",
    "members in PostgreSQL's own schema": f"{FUNCTIONS} AND p.pronamespace = 'pg_catalog'::regnamespace"
    f" UNION ALL SELECT o.oid::regoperator::text FROM pg_operator o WHERE o.oid IN ({MEMBERS.format('pg_operator')}) "
    "AND o.oprnamespace = 'pg_catalog'::regnamespace"
    f" UNION ALL SELECT t.typname::text FROM pg_type t WHERE t.oid IN ({MEMBERS.format('pg_type')}) "
    "AND t.typnamespace = 'pg_catalog'::regnamespace",
    "settings without a help text": "SELECT name FROM pg_settings WHERE name LIKE 'copymatch.%' "
    "AND coalesce(short_desc, '') = ''",
}


@pytest.mark.parametrize("rule", RULES)
def test_no_member_breaks_the_rule(db, rule):
    if "settings" in rule:
        db.execute("LOAD 'copymatch'")
    db.execute("SET search_path = pg_catalog")
    try:
        found = [name for (name,) in db.execute(RULES[rule]).fetchall()]
    finally:
        db.execute("RESET search_path")
    assert not found, f"{rule}: {found}"


def test_the_rules_look_at_something(db):
    assert len(db.execute(FUNCTIONS).fetchall()) > 50
    assert len(db.execute(RELATIONS).fetchall()) > 5
    assert len(db.execute(FUNCTIONS + " AND p.prosecdef").fetchall()) > 1


@pytest.fixture
def reader(fresh_db):
    """A connection as a role of its own: a set's owner, who has nothing but what PUBLIC has."""
    role = f"{fresh_db.info.dbname}_reader"
    fresh_db.execute(
        f"CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}; SET ROLE {role}; "
        "CREATE TABLE refs (id int PRIMARY KEY, descriptor vector(256)); "
        "SELECT copy_create_set('refs', 'refs', 'id', NULL)"
    )
    fresh_db.role = role
    yield fresh_db
    fresh_db.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


#: What is done to copymatch.model, and the SQLSTATE of a search and of a background by whoever has no other rights.
ROWS_OF_THE_CATALOGUE = {
    "as installed": ("SELECT", None),
    "no SELECT": ("REVOKE SELECT ON copymatch.model FROM PUBLIC", "42501"),
    "the columns that are read": (
        "REVOKE SELECT ON copymatch.model FROM PUBLIC; "
        "GRANT SELECT (name, dimensions, sha256, background_sha256, built_in) ON copymatch.model TO PUBLIC",
        None,
    ),
    "not all columns that are read": (
        "REVOKE SELECT ON copymatch.model FROM PUBLIC; GRANT SELECT (name, built_in) ON copymatch.model TO PUBLIC",
        "42501",
    ),
    "no USAGE of the schema": ("REVOKE USAGE ON SCHEMA copymatch FROM PUBLIC", "42501"),
    "policies that show nothing": ("ALTER TABLE copymatch.model ENABLE ROW LEVEL SECURITY", "42704"),
    "policies that show it": (
        "ALTER TABLE copymatch.model ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON copymatch.model USING (true)",
        None,
    ),
    "another index": ("ALTER INDEX copymatch.model_pkey RENAME TO other", None),
    "no index": ("SET enable_indexscan = off; SET enable_bitmapscan = off", None),
}


@pytest.mark.parametrize("what", ROWS_OF_THE_CATALOGUE)
def test_the_catalogue_shows_a_role_what_a_statement_would_show_it(reader, sqlstate, what):
    """Rows are read without a statement where that shows the same; here somebody has changed what PUBLIC may see."""
    change, refused = ROWS_OF_THE_CATALOGUE[what]
    reader.execute(f"RESET ROLE; {change}; SET ROLE {reader.role}")
    descriptor = "array_fill(0.0625::real, ARRAY[256])::vector"
    for call in (f"copy_background({descriptor})", f"copy_match_descriptor({descriptor}, 'refs')"):
        if refused is None:
            reader.execute(f"SELECT {call}")
        else:
            with sqlstate(refused):
                reader.execute(f"SELECT {call}")
    # A superuser sees it in any case.
    reader.execute(f"RESET ROLE; SELECT copy_background({descriptor})")


def test_a_key_is_written_as_the_catalogue_writes_it(db):
    """The library makes the expression of a key itself; copymatch.key_expression makes it in SQL."""
    db.execute('CREATE TABLE k (a int, "B b" int, c int, descriptor vector(256), PRIMARY KEY (a, "B b", c))')
    db.execute("INSERT INTO k VALUES (1, 2, 3, array_fill(0.0625::real, ARRAY[256])::vector)")
    for number, key in enumerate(("a", 'a, "B b"', 'c, "B b", a')):
        db.execute("SELECT copy_create_set(%s, 'k', %s, NULL)", [f"k{number}", key])
        db.execute(
            "INSERT INTO k VALUES (1, 2, 3, array_fill(0.0625::real, ARRAY[256])::vector) ON CONFLICT DO NOTHING"
        )
        (expression,) = db.execute(
            "SELECT copymatch.key_expression(key_column, further_key_columns) FROM copymatch.reference_set "
            "WHERE name = %s",
            [f"k{number}"],
        ).fetchone()
        wanted = db.execute(f"SELECT {expression} FROM k r").fetchone()
        found = db.execute(
            "SELECT reference FROM copy_match_descriptor(array_fill(0.0625::real, ARRAY[256])::vector, %s)",
            [f"k{number}"],
        ).fetchone()
        assert found == wanted


def test_what_lint_reads_is_what_is_installed(server):
    """scripts/check_sql.py puts the install script together as cargo pgrx does."""
    version = (
        server.connect()
        .execute("SELECT default_version FROM pg_available_extensions WHERE name = 'copymatch'")
        .fetchone()[0]
    )
    share = pathlib.Path(server.run("pg_config", "--sharedir").stdout.strip())
    installed = (share / "extension" / f"copymatch--{version}.sql").read_text()
    assert [plain(one) for one in statements(installed)] == [plain(one) for one in statements(install_script())]
