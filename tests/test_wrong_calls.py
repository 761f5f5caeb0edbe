"""Wrong calls are told in words: SQLSTATE, a short message, a hint; and warnings of what is
allowed but hardly meant."""

import itertools
import pathlib
import re
import threading
import time
from types import SimpleNamespace

import psycopg
import pytest
from pictures import jpeg, scene


@pytest.fixture
def refs(fresh_db):
    fresh_db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    fresh_db.execute("INSERT INTO refs SELECT n, NULL FROM generate_series(1, 3) n; UPDATE refs SET image = NULL")
    fresh_db.execute("UPDATE refs SET image = %s WHERE id = 1", [jpeg(scene(1))])
    fresh_db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    return fresh_db


def notices(db) -> list:
    told = []
    fields = ("sqlstate", "severity_nonlocalized", "message_primary", "message_hint")
    # Copied: a notice lives as long as its handler runs.
    db.add_notice_handler(
        lambda notice: told.append(SimpleNamespace(**{name: getattr(notice, name) for name in fields}))
    )
    return told


def test_hint_lists_ten_sets_of_many_and_the_error_has_no_inner_context(refs, sqlstate):
    for number in range(30):
        refs.execute("SELECT copy_create_set(%s, 'refs', 'id', 'image')", [f"a set with a long name, number {number}"])
    for call in (
        "copy_alter_set('nosuch', k => 3)", "copy_drop_set('nosuch')", "copy_match(image, 'nosuch') FROM refs",
        "copy_disable_reference('nosuch', '1')", "copymatch.find_set('nosuch')", "copy_create_group('g', '{nosuch}')",
    ):  # fmt: skip
        with sqlstate("42704") as error:
            refs.execute(f"SELECT {call}")
        assert error.value.diag.message_primary == 'reference set "nosuch" does not exist'
        hint = error.value.diag.message_hint
        assert hint.count("a set with a long name") == 10 and "21 more in copymatch.reference_sets" in hint
        assert "find_set" not in (error.value.diag.context or "") and "PL/pgSQL" not in (error.value.diag.context or "")
    with sqlstate("42703") as error:
        refs.execute("SELECT copy_create_set('x', 'refs', 'nosuch', 'image')")
    assert error.value.diag.context is None
    assert 'column "nosuch" of relation public.refs' in error.value.diag.message_primary


def context(db, statement: str) -> str | None:
    with pytest.raises(psycopg.Error) as error, db.transaction():
        db.execute(statement)
    assert error.value.diag.message_hint, statement
    return error.value.diag.context


def test_an_errors_context_has_the_users_functions_and_none_of_ours(refs):
    calls = [
        "SELECT copy_confirm(77)", "SELECT copy_dismiss(77, 'a note', true)", "SELECT copy_reopen(77)",
        "SELECT copymatch.dashboard(0)",
        "SELECT copy_calibrate('nosuch')", "SELECT copy_calibrate('licensed', source => 'edits')",
        "SELECT copy_calibrate('licensed', copies => 1)", "SELECT copy_use_calibration('licensed', 77)",
        "SELECT copy_check_set('licensed', 0)", "SELECT * FROM copy_undescribed('licensed', 0)",
        "SELECT * FROM copy_evaluate('refs', k => 0)", "SELECT * FROM copy_evaluate('refs')",
        "SELECT * FROM copy_match_table('refs', 'id', 'id')", "SELECT * FROM copy_quarantine(at_least => 0)",
        "SELECT copy_precision_recall('{1}', '{}')", "DELETE FROM copymatch.finding_history",
    ]  # fmt: skip
    assert [(call, told) for call in calls if (told := context(refs, call)) is not None] == []
    refs.execute(
        "CREATE FUNCTION copy_of_mine() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM copy_confirm(77); END'"
    )
    told = context(refs, "SELECT copy_of_mine()").splitlines()
    assert told == ['SQL statement "SELECT copy_confirm(77)"', "PL/pgSQL function copy_of_mine() line 1 at PERFORM"]
    # Who catches it finds the context of what comes behind as it was.
    told = context(
        refs,
        "DO $$ BEGIN BEGIN PERFORM copy_confirm(77); EXCEPTION WHEN no_data_found THEN NULL; END;"
        " RAISE EXCEPTION 'later' USING HINT = 'x'; END $$",
    )
    assert told == "PL/pgSQL function inline_code_block line 1 at RAISE"


def test_list_of_functions_left_out_of_contexts_is_the_catalogues(refs):
    source = (pathlib.Path(__file__).parent.parent / "src" / "context.rs").read_text()
    listed = re.findall(r'^    "(copy_\w+)",$', source, re.MULTILINE)
    found = refs.execute(
        "SELECT DISTINCT p.proname FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_depend d "
        "ON d.objid = p.oid "
        "JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'copymatch' "
        "WHERE d.deptype = 'e' AND l.lanname IN ('sql', 'plpgsql') AND p.proname LIKE 'copy\\_%' ORDER BY 1"
    ).fetchall()
    assert listed == [name for (name,) in found]


#: Values that nobody means, for each type of a parameter.
HOSTILE = {
    "text": ["NULL", "''", "repeat('x', 100000)", "'licensed'"],
    "name": ["NULL", "''"],
    "regclass": ["NULL", "0", "'refs'"],
    "oid": ["NULL", "0"],
    "integer": ["NULL", "0", "-1"],
    "bigint": ["NULL", "0"],
    "boolean": ["NULL"],
    "double precision": ["NULL", "'NaN'"],
    "bytea": ["NULL", "''"],
    "jsonb": ["NULL", "'null'"],
    "interval": ["NULL", "'-1 day'"],
    "timestamp with time zone": ["NULL"],
}
FUNCTIONS = """
    SELECT format('%I.%I', n.nspname, p.proname), p.prokind,
           ARRAY(SELECT format_type(u.t, NULL) FROM unnest(p.proargtypes) WITH ORDINALITY AS u(t, o) ORDER BY u.o)
    FROM pg_depend d JOIN pg_proc p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid JOIN pg_namespace n
    ON n.oid = p.pronamespace
    WHERE d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'copymatch')
      AND p.prokind IN ('f', 'p') AND p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
      AND p.prolang <> 12
      AND NOT 'internal'::regtype = ANY (p.proargtypes) AND p.proname NOT IN ('copy_start_worker', 'copy_stop_worker')
"""


def test_no_function_answers_nonsense_with_an_internal_error_or_a_wall_of_text(refs):
    """NULL, '{NULL}', empty and enormous arguments, alone and together."""
    bad = []
    for name, kind, types in refs.execute(FUNCTIONS).fetchall():
        pools = [
            [
                f"{value}::{type_}"
                for value in HOSTILE.get(type_, ["NULL", "'{NULL}'" if type_.endswith("[]") else "NULL"])
            ]
            for type_ in types
        ]
        calls = {tuple(pool[0] for pool in pools)}
        for at, pool in enumerate(pools):
            for other, value in itertools.product((0, -1), pool):
                calls.add(tuple(value if at == number else p[other] for number, p in enumerate(pools)))
        for arguments in sorted(calls):
            call = f"{'CALL' if kind == 'p' else 'SELECT'} {name}({', '.join(arguments)})"
            try:
                with refs.transaction():
                    refs.execute(call)
            except Exception as error:  # whatever it is, it is judged
                diag = getattr(error, "diag", None)
                texts = [diag.message_primary or "", diag.message_hint or "", diag.message_detail or ""]
                no_hint = diag.sqlstate in ("22023", "22004") and ".copy_" in name and not diag.message_hint
                if diag.sqlstate.startswith("XX") or max(map(len, texts)) > 2500 or no_hint:
                    bad.append((call[:150], diag.sqlstate, texts[0][:150]))
    assert not bad, "\n".join(map(str, bad))


def test_names_of_sets_and_groups(refs, sqlstate):
    for call in ("copy_create_set({}, 'refs', 'id', 'image')", "copy_create_group({}, '{{licensed}}')"):
        for value, state in (
            ("NULL", "22004"),
            ("''", "22023"),
            ("repeat('ä', 32)", "22023"),
            ("repeat('x', 100000)", "22023"),
        ):
            with sqlstate(state) as error:
                refs.execute("SELECT " + call.format(value))
            assert error.value.diag.message_hint
            assert len(error.value.diag.message_primary) < 200


def test_key_without_a_unique_index_is_a_warning(fresh_db):
    told = notices(fresh_db)
    fresh_db.execute("CREATE TABLE loose (id int, page int, image bytea)")
    fresh_db.execute("SELECT copy_create_set('loose', 'loose', 'id, page', 'image')")
    warning = told[-1]
    assert warning.sqlstate == "01000" and "key id, page" in warning.message_primary
    assert "CREATE UNIQUE INDEX ON public.loose (id, page)" in warning.message_hint
    fresh_db.execute("CREATE UNIQUE INDEX ON loose (page)")  # what is unique by a part is so by the whole
    told.clear()
    fresh_db.execute("SELECT copy_create_set('tight', 'loose', 'id, page', 'image')")
    assert told == []
    fresh_db.execute("CREATE UNIQUE INDEX ON loose (id) WHERE page > 3")
    fresh_db.execute("SELECT copy_create_set('partly', 'loose', 'id', 'image')")
    assert [notice.sqlstate for notice in told] == ["01000"]


def test_disabling_until_a_time_in_the_past_is_a_warning(refs):
    told = notices(refs)
    refs.execute("SELECT copy_disable_reference('licensed', '1', until => now() - interval '1 second')")
    assert [(notice.severity_nonlocalized, "past" in notice.message_primary) for notice in told] == [("WARNING", True)]
    refs.execute("SELECT copy_disable_reference('licensed', '1', until => now() + interval '1 hour')")
    assert len(told) == 1


def test_renamed_columns_are_named_anew(refs, sqlstate):
    refs.execute("SELECT copy_disable_reference('licensed', '2'); SELECT copy_create_group('g', '{licensed}')")
    refs.execute(
        "ALTER TABLE refs RENAME image TO picture; ALTER TABLE refs RENAME descriptor TO d; "
        "ALTER TABLE refs RENAME id TO number"
    )
    assert refs.execute("SELECT intact FROM copymatch.reference_sets").fetchone()[0] is False
    with sqlstate("42703") as error:
        refs.execute("SELECT * FROM copy_match(%s, 'licensed')", [jpeg(scene(1))])
    assert "copy_set_columns('licensed'" in error.value.diag.message_hint
    with sqlstate("42703") as error:
        refs.execute("INSERT INTO refs (number, picture) VALUES (4, %s)", [jpeg(scene(4))])
    assert "copy_set_columns('licensed'" in error.value.diag.message_hint
    for call, state in (
        ("copy_set_columns('licensed')", "22023"),
        ("copy_set_columns('licensed', image => 'number')", "42804"),
        ("copy_set_columns('licensed', image => 'nosuch')", "42703"),
        ("copy_set_columns('licensed', descriptor => 'picture')", "42804"),
        ("copy_set_columns('licensed', key => 'nosuch')", "42703"),
        ("copy_set_columns(NULL, key => 'number')", "22004"),
    ):
        with sqlstate(state):
            refs.execute(f"SELECT {call}")
    refs.execute("SELECT copy_set_columns('licensed', image => 'picture', descriptor => 'd', key => 'number')")
    refs.execute("INSERT INTO refs (number, picture) VALUES (4, %s)", [jpeg(scene(4))])
    assert refs.execute("SELECT reference, verdict FROM copy_match(%s, 'g', 1)", [jpeg(scene(4), 60)]).fetchone() == (
        "4",
        "copy",
    )
    assert refs.execute(
        "SELECT intact, key_column, image_column, descriptor_column "
        "FROM copymatch.reference_sets").fetchone() == (
        True, "number", "picture", "d",
    )  # fmt: skip
    assert refs.execute("SELECT reference FROM copymatch.reference_status").fetchall() == [("2",)]
    refs.execute("CREATE ROLE stranger_to_columns")
    try:
        refs.execute("SET ROLE stranger_to_columns")
        with sqlstate("42501"):
            refs.execute("SELECT copy_set_columns('licensed', key => 'number')")
    finally:
        refs.execute("RESET ROLE; DROP ROLE stranger_to_columns")


def test_views_name_relations_by_text(fresh_db):
    found = fresh_db.execute(
        "SELECT a.attrelid::regclass::text, format_type(a.atttypid, NULL) FROM pg_attribute a JOIN pg_class c "
        "ON c.oid = a.attrelid "
        "WHERE c.relkind = 'v' AND c.relnamespace = 'copymatch'::regnamespace AND a.attname = 'relation' ORDER BY 1"
    ).fetchall()
    assert found == [
        ("copymatch.reference_sets", "text"), ("copymatch.report_queue", "text"),
        ("copymatch.report_uploaders", "text"),
    ]  # fmt: skip


def test_preloaded_worker_of_a_missing_database_warns_and_waits(fresh_cluster):
    """Not a FATAL every five seconds. Where the database comes, it is served."""
    cluster = fresh_cluster(
        shared_preload_libraries="copymatch",
        **{"copymatch.queue_databases": "nosuch", "copymatch.queue_naptime": "100ms"},
    )
    deadline = time.monotonic() + 40
    while 'WARNING:  database "nosuch" of copymatch.queue_databases does not exist' not in cluster.log.read_text():
        assert time.monotonic() < deadline, cluster.log.read_text()[-3000:]
        time.sleep(0.2)
    time.sleep(12)
    log = cluster.log.read_text()
    assert log.count("FATAL") <= 1, log
    assert 2 <= log.count("does not exist; its queue worker looks again in") <= 3
    with cluster.connect() as db:
        db.execute("CREATE DATABASE nosuch")
        deadline = time.monotonic() + 60
        working = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'copymatch queue worker' AND datname = 'nosuch'"
        )
        while db.execute(working).fetchone()[0] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_search_that_waits_for_the_end_of_a_re_embedding_goes_on(fresh_cluster):
    """The searched column is renamed under it."""
    cluster = fresh_cluster()
    with cluster.connect() as db, cluster.connect() as other:
        db.execute("CREATE EXTENSION copymatch; CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
        db.execute("INSERT INTO refs VALUES (1, %s)", [jpeg(scene(1))])
        db.execute("SELECT copy_create_set('refs', 'refs', 'id', 'image')")
        db.execute("ALTER TABLE refs RENAME descriptor TO later")
        db.execute("SELECT copy_set_columns('refs', descriptor => 'later')")
        found = []
        db.execute(
            "BEGIN; ALTER TABLE refs RENAME later TO descriptor; "
            "SELECT copy_set_columns('refs', descriptor => 'descriptor')"
        )
        search = threading.Thread(
            target=lambda: found.append(
                other.execute("SELECT reference FROM copy_match(%s)", [jpeg(scene(1))]).fetchone()
            )
        )
        search.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        deadline = time.monotonic() + 30
        while db.execute(waiting).fetchone()[0] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        db.execute("COMMIT")
        search.join()
        assert found == [("1",)]
