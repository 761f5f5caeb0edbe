"""Tables that are dropped: nothing that copymatch keeps names them by number, neither here nor in a dump."""

import pytest
from pictures import jpeg, scene

TABLES = ("finding", "dismissal", "queue", "reference_set", "dropped_finding")


@pytest.fixture
def flagged(fresh_db):
    """References, a set, and two upload tables: one upload each that is dismissed, one that is
    open, one in the queue."""
    fresh_db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    fresh_db.execute("INSERT INTO refs VALUES (1, %s)", [jpeg(scene(1))])
    fresh_db.execute("SELECT copy_create_set('s', 'refs', key => 'id', image => 'image')")
    for table in ("up", "kept"):
        fresh_db.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, image bytea)")
        fresh_db.execute(
            f"CREATE TRIGGER f AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', 's')"
        )
        fresh_db.execute(f"INSERT INTO {table} VALUES (1, %s), (2, %s)", [jpeg(scene(1), 80), jpeg(scene(1), 60)])
        fresh_db.execute(
            "SELECT copy_dismiss(id, 'licensed') FROM copymatch.finding WHERE relation = %s::regclass AND upload = '1'",
            [table],
        )
        fresh_db.execute(
            "INSERT INTO copymatch.queue (relation, key, reference_set, arguments) "
            "VALUES (%s::regclass, '{3}', 's', '{}')",
            [table],
        )
    return fresh_db


def counts(db) -> dict:
    return {table: db.execute(f"SELECT count(*) FROM copymatch.{table}").fetchone()[0] for table in TABLES}


def test_dropped_upload_table_is_forgotten_and_what_was_decided_keeps_its_name(flagged):
    assert counts(flagged) == {"finding": 4, "dismissal": 2, "queue": 2, "reference_set": 1, "dropped_finding": 0}
    flagged.execute("DROP TABLE up")
    assert counts(flagged) == {"finding": 2, "dismissal": 1, "queue": 1, "reference_set": 1, "dropped_finding": 1}
    name, state, note = flagged.execute(
        "SELECT relation, was->>'state', was->>'note' FROM copymatch.dropped_finding"
    ).fetchone()
    assert (name, state, note) == ("public.up", "dismissed", "licensed")
    flagged.execute("DROP TABLE refs")
    assert counts(flagged)["reference_set"] == 0


DAILY = "SELECT state, sum(findings)::int FROM copymatch.report_daily GROUP BY 1 ORDER BY 1"
UPLOADERS = "SELECT relation, uploader, findings, open, confirmed, dismissed FROM copymatch.report_uploaders ORDER BY 1"


def test_reports_count_what_was_decided_under_the_last_name_of_a_dropped_table(fresh_db, server):
    db = fresh_db
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    db.execute("INSERT INTO refs VALUES (1, %s)", [jpeg(scene(1))])
    db.execute("SELECT copy_create_set('s', 'refs', key => 'id', image => 'image')")
    db.execute("CREATE TABLE up (id int PRIMARY KEY, who text, image bytea)")
    db.execute(
        "CREATE TRIGGER f AFTER INSERT ON up FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', 's', "
        "'uploader=who')"
    )
    for number in range(1, 6):
        db.execute("INSERT INTO up VALUES (%s, 'ann', %s)", [number, jpeg(scene(1), 50 + number)])
    db.execute("SELECT copy_confirm(ARRAY[1,2]::bigint[]), copy_dismiss(3)")
    assert db.execute(DAILY).fetchall() == [("confirmed", 2), ("dismissed", 1), ("open", 2)]
    db.execute("ALTER TABLE up RENAME TO uploads_of_2025; DROP TABLE uploads_of_2025")
    decided = [("confirmed", 2), ("dismissed", 1)]
    name = "public.uploads_of_2025"
    for make_anew in ("SELECT", "SELECT copymatch.fold_counts()", "SELECT copymatch.recount()"):
        db.execute(make_anew)
        assert db.execute(DAILY).fetchall() == decided, make_anew
        assert db.execute(UPLOADERS).fetchall() == [(name, "ann", 3, 0, 2, 1)]
    assert db.execute("SELECT findings, open, confirmed FROM copymatch.report_references").fetchall() == [(3, 0, 2)]
    assert db.execute("SELECT confirmed, dismissed, open FROM copymatch.report_precision").fetchall() == [(2, 1, 0)]
    # Who sees only some findings sees none of those, of which no policy can be asked.
    db.execute("CREATE ROLE test_gone IN ROLE copymatch_reader")
    try:
        db.execute("SET ROLE test_gone")
        assert db.execute(UPLOADERS).fetchall() == [(name, "ann", 3, 0, 2, 1)]
        db.execute("RESET ROLE; ALTER TABLE copymatch.finding ENABLE ROW LEVEL SECURITY; SET ROLE test_gone")
        if db.info.server_version >= 150000:
            assert db.execute(UPLOADERS).fetchall() == []
        assert db.execute("SELECT count(*) FROM copymatch.dropped_finding").fetchone()[0] == 0
    finally:
        db.execute("RESET ROLE; ALTER TABLE copymatch.finding DISABLE ROW LEVEL SECURITY; DROP ROLE test_gone")
    db.execute("DELETE FROM copymatch.dropped_finding WHERE finding = 1")
    assert db.execute(DAILY).fetchall() == [("confirmed", 1), ("dismissed", 1)]
    # A dump brings the counts along, which triggers make anew where it is loaded.
    db.execute("TRUNCATE copymatch.finding CASCADE")
    assert db.execute(DAILY).fetchall() == [("confirmed", 1), ("dismissed", 1)]


def test_rolled_back_drop_forgets_nothing(flagged):
    before = counts(flagged)
    flagged.execute("BEGIN; DROP TABLE up; ROLLBACK")
    assert counts(flagged) == before


def test_owner_without_rights_on_copymatch_may_drop_his_table(flagged, connect):
    flagged.execute("CREATE ROLE test_dropper; ALTER TABLE up OWNER TO test_dropper")
    try:
        flagged.execute("SET ROLE test_dropper; DROP TABLE up; RESET ROLE")
        assert counts(flagged)["dismissal"] == 1
    finally:
        flagged.execute("RESET ROLE; DROP OWNED BY test_dropper; DROP ROLE test_dropper")


def test_dump_names_no_table_by_number(flagged, server):
    flagged.execute("ALTER EVENT TRIGGER copymatch_forget_dropped DISABLE; DROP TABLE up")
    assert counts(flagged)["dismissal"] == 2
    dump = server.run("pg_dump", "--data-only", server.dsn(flagged.info.dbname)).stdout
    inside, rows = None, 0
    for line in dump.splitlines():
        if line.startswith("COPY copymatch."):
            columns = line[line.index("(") + 1 : line.index(")")].split(", ")
            inside = columns.index("relation") if "relation" in columns else None
        elif line == "\\.":
            inside = None
        elif inside is not None:
            rows += 1
            assert not line.split("\t")[inside].isdigit(), line
    assert rows > 0
