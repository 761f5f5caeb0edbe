"""Review: findings confirmed, dismissed and reopened; who may; what is remembered; what survives dump and restore."""

import threading

import psycopg
import pytest
from conftest import MAJOR
from pictures import jpeg, scene

STATE = "SELECT state, decided_by, note FROM copymatch.finding WHERE id = %s"


@pytest.fixture
def findings(fresh_db):
    """Ten open findings, 1 to 10, of uploads `u1` to `u10` by ann (even numbers) and bob; nothing
    was embedded for them."""
    fresh_db.execute("CREATE TABLE uploads (id text PRIMARY KEY, image bytea)")
    fresh_db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    fresh_db.execute("SELECT copy_create_set('licensed', 'refs', 'id', 'image')")
    for number in range(1, 11):
        record(fresh_db, f"u{number}", "ann" if number % 2 == 0 else "bob", "7")
    yield fresh_db
    fresh_db.execute("RESET ROLE")


def record(db, upload: str, uploader: str | None, reference: str) -> int:
    """What the trigger does once it has matched: how many new findings."""
    return db.execute(
        """SELECT copymatch.record_findings('uploads', %s, %s, 'licensed', ARRAY[%s], ARRAY[0.9::float8],
                                            ARRAY[0.3::float8],
                                            ARRAY[-0.1::float8], ARRAY[0.95::float8], ARRAY['copy'])""",
        [upload, uploader, reference],
    ).fetchone()[0]


@pytest.fixture
def reviewer(findings):
    """A role that may review, and its name."""
    findings.execute(
        "CREATE ROLE alice LOGIN IN ROLE copymatch_reviewer; CREATE ROLE carol LOGIN IN ROLE copymatch_reviewer"
    )
    yield findings
    findings.execute("RESET ROLE; DROP OWNED BY alice, carol; DROP ROLE alice, carol")


def test_finding_is_confirmed_or_dismissed_with_who_when_and_why(reviewer):
    reviewer.execute("SET ROLE alice")
    reviewer.execute("SELECT copy_confirm(1, 'same crop'), copy_dismiss(2, 'a logo')")
    assert reviewer.execute(STATE, [1]).fetchone() == ("confirmed", "alice", "same crop")
    assert reviewer.execute(STATE, [2]).fetchone() == ("dismissed", "alice", "a logo")
    assert reviewer.execute(
        "SELECT decided BETWEEN now() - interval '1 min' AND clock_timestamp() FROM copymatch.finding WHERE id = 1"
    ).fetchone()[0]
    assert reviewer.execute(
        "SELECT finding, changed_by, login, from_state, to_state, note FROM copymatch.finding_history ORDER BY id"
    ).fetchall() == [
        (1, "alice", "postgres", "open", "confirmed", "same crop"),
        (2, "alice", "postgres", "open", "dismissed", "a logo"),
    ]


def test_decision_stands_until_it_is_reopened(reviewer, sqlstate):
    reviewer.execute("SET ROLE alice")
    reviewer.execute("SELECT copy_confirm(1)")
    reviewer.execute("SET ROLE carol")
    for call in ("copy_confirm(1)", "copy_dismiss(1)"):
        with sqlstate("55000") as error:
            reviewer.execute(f"SELECT {call}")
        assert (
            "finding 1 was confirmed by alice at" in str(error.value) and "copy_reopen" in error.value.diag.message_hint
        )
    reviewer.execute("SELECT copy_reopen(1, 'look again')")
    assert reviewer.execute(STATE, [1]).fetchone() == ("open", None, "look again")
    reviewer.execute("SELECT copy_dismiss(1)")
    assert reviewer.execute(STATE, [1]).fetchone() == ("dismissed", "carol", None)
    assert [r[0] for r in reviewer.execute("SELECT to_state FROM copymatch.finding_history ORDER BY id")] == [
        "confirmed",
        "open",
        "dismissed",
    ]
    with sqlstate("55000") as error:
        reviewer.execute("SELECT copy_reopen(3)")
    assert "finding 3 is open" in str(error.value)
    with sqlstate("P0002") as error:
        reviewer.execute("SELECT copy_confirm(99)")
    assert error.value.diag.message_hint


def test_second_of_two_reviewers_at_once_hears_who_was_quicker(reviewer, connect):
    first, second = (connect(reviewer.info.dbname) for _ in range(2))
    first.execute("SET ROLE alice")
    second.execute("SET ROLE carol")
    outcome = []

    def decide():
        try:
            second.execute("SELECT copy_dismiss(5, 'late')")
        except psycopg.Error as error:
            outcome.append(error)

    with first.transaction():
        first.execute("SELECT copy_confirm(5, 'quick')")
        thread = threading.Thread(target=decide)
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        while not reviewer.execute(waiting, [second.info.backend_pid]).fetchone()[0]:
            assert thread.is_alive(), "the second waits for the first"
    thread.join()
    assert outcome[0].sqlstate == "55000" and "finding 5 was confirmed by alice" in str(outcome[0])
    assert reviewer.execute(STATE, [5]).fetchone() == ("confirmed", "alice", "quick")
    assert reviewer.execute("SELECT count(*) FROM copymatch.finding_history").fetchone()[0] == 1


def test_rules_hold_for_plain_updates_too(reviewer, sqlstate):
    for role in ("alice", "postgres"):
        reviewer.execute(f"SET ROLE {role}")
        reviewer.execute("UPDATE copymatch.finding SET state = 'confirmed' WHERE id = 1")
        assert reviewer.execute(STATE, [1]).fetchone()[:2] == ("confirmed", role)
        for change in ("state = 'dismissed'", "note = 'other'"):
            with sqlstate("55000"):
                reviewer.execute(f"UPDATE copymatch.finding SET {change} WHERE id = 1")
        reviewer.execute("UPDATE copymatch.finding SET state = 'open' WHERE id = 1")
    for change in ("upload = 'x'", "found = now() - interval '1 day'", "decided_by = 'bob'", "changed_by = 'bob'"):
        with sqlstate("55000"):
            reviewer.execute(f"UPDATE copymatch.finding SET {change} WHERE id = 1")
    reviewer.execute("SET ROLE alice")
    for statement in ("UPDATE copymatch.finding SET decided_by = 'bob'",
                      "UPDATE copymatch.finding SET verdict = 'copy'", "DELETE FROM copymatch.finding",
                      "INSERT INTO copymatch.finding_history VALUES (DEFAULT)",
                      "DELETE FROM copymatch.dismissal"):  # fmt: skip
        with sqlstate("42501"):
            reviewer.execute(statement)


def test_rules_cannot_be_bent_by_ones_own_operators(reviewer, sqlstate):
    reviewer.execute(
        "SELECT copy_confirm(1); GRANT CREATE ON DATABASE " + reviewer.info.dbname + " TO alice; SET ROLE alice"
    )
    reviewer.execute("CREATE SCHEMA bent")
    reviewer.execute("CREATE FUNCTION bent.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
    reviewer.execute("CREATE OPERATOR bent.= (FUNCTION = bent.yes, LEFTARG = text, RIGHTARG = text)")
    reviewer.execute("SET search_path = bent, pg_catalog")
    with sqlstate("55000"):
        reviewer.execute("UPDATE copymatch.finding SET state = 'dismissed' WHERE id OPERATOR(pg_catalog.=) 1")
    reviewer.execute("RESET search_path")


def test_history_is_append_only_even_for_its_owner(findings, sqlstate):
    findings.execute("SELECT copy_confirm(1)")
    for statement in (
        "UPDATE copymatch.finding_history SET note = 'x'",
        "DELETE FROM copymatch.finding_history",
        "TRUNCATE copymatch.finding_history",
    ):
        with sqlstate("55000") as error:
            findings.execute(statement)
        assert "append-only" in str(error.value) and error.value.diag.message_hint
    findings.execute("DELETE FROM copymatch.finding WHERE id = 1")
    assert findings.execute("SELECT count(*) FROM copymatch.finding_history WHERE finding = 1").fetchone()[0] == 1


def test_dismissed_pair_is_not_raised_again(findings):
    findings.execute("SELECT copy_dismiss(1)")
    assert record(findings, "u1", "bob", "7") == 0
    findings.execute("DELETE FROM copymatch.finding WHERE id = 1")
    assert record(findings, "u1", "bob", "7") == 0, "remembered though the finding is gone"
    assert record(findings, "u1", "bob", "8") == 1, "another reference"
    assert record(findings, "u99", "bob", "7") == 1, "another upload"


def test_reference_dismissed_for_an_uploader_is_not_raised_for_him_again(findings, sqlstate):
    findings.execute("SELECT copy_dismiss(2, 'her own picture', for_uploader => true)")
    assert record(findings, "u98", "ann", "7") == 0
    assert record(findings, "u98", "bob", "7") == 1
    assert record(findings, "u97", "ann", "8") == 1
    findings.execute("SELECT copy_reopen(2)")
    assert record(findings, "u96", "ann", "7") == 1, "reopening forgets the dismissal"
    record(findings, "u50", None, "7")
    with sqlstate("55000") as error:
        findings.execute("SELECT copy_dismiss((SELECT id FROM copymatch.finding WHERE upload = 'u50'), NULL, true)")
    assert "uploader=" in error.value.diag.message_hint


def test_confirmed_finding_is_not_raised_a_second_time(findings):
    findings.execute("SELECT copy_confirm(1)")
    assert record(findings, "u1", "bob", "7") == 0
    assert findings.execute(STATE, [1]).fetchone()[0] == "confirmed"


def test_many_at_once_leave_those_alone_that_somebody_decided(findings):
    findings.execute("SELECT copy_confirm(4)")
    notices = []
    findings.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    assert findings.execute("SELECT copy_dismiss(ARRAY[3, 4, 5, 5, 99]::bigint[], 'batch')").fetchone()[0] == 2
    assert notices == ["2 of 4 findings were not open, or not there, and stay as they are"]
    assert [findings.execute(STATE, [n]).fetchone()[0] for n in (3, 4, 5)] == ["dismissed", "confirmed", "dismissed"]
    assert findings.execute("SELECT copy_confirm(ARRAY[1, 2]::bigint[])").fetchone()[0] == 2


def test_hundred_thousand_findings_dismissed_at_once(findings):
    # After a single one in the same session: a plan kept from that would take hours.
    findings.execute("SELECT copy_confirm(1), copy_reopen(1)")
    findings.execute(
        """INSERT INTO copymatch.finding (reference_set, relation, upload, reference, similarity, background, score,
           probability, verdict, model, calibration)
           SELECT 'licensed', 'uploads', 'm' || n, '9', 0.9, 0.3, -0.1, 0.9, 'copy', 'copymatch-small-7', 0
           FROM generate_series(1, 100000) n"""
    )
    assert (
        findings.execute(
            "SELECT copy_dismiss(array_agg(id), 'campaign') FROM copymatch.finding WHERE reference = '9'"
        ).fetchone()[0]
        == 100_000
    )
    assert findings.execute(
        "SELECT count(*), count(DISTINCT finding) FROM copymatch.finding_history WHERE to_state = 'dismissed'"
    ).fetchone() == (100_000, 100_000)
    assert findings.execute("SELECT count(*) FROM copymatch.dismissal").fetchone()[0] == 100_000
    assert findings.execute(
        "SELECT state, sum(findings)::int FROM copymatch.report_daily GROUP BY 1 "
        "ORDER BY 1").fetchall() == [
        ("dismissed", 100_000), ("open", 10),
    ]  # fmt: skip
    assert record(findings, "m5", None, "9") == 0


def test_policies_on_findings_hold_for_review_and_reports(reviewer, sqlstate):
    reviewer.execute("ALTER TABLE copymatch.finding ENABLE ROW LEVEL SECURITY")
    reviewer.execute("CREATE POLICY anns ON copymatch.finding TO alice USING (uploader = 'ann'); SET ROLE alice")
    assert {row[0] for row in reviewer.execute("SELECT id FROM copymatch.finding")} == {2, 4, 6, 8, 10}
    with sqlstate("P0002"):
        reviewer.execute("SELECT copy_confirm(1)")
    assert reviewer.execute("SELECT copy_dismiss(ARRAY[1, 2, 3]::bigint[])").fetchone()[0] == 1
    if int(MAJOR) >= 15:  # views of 14 read with their owner's rights
        assert reviewer.execute("SELECT sum(findings)::int FROM copymatch.report_uploaders").fetchone()[0] == 5
    reviewer.execute("RESET ROLE")
    assert reviewer.execute(STATE, [1]).fetchone()[0] == "open"


def test_reader_reads_and_does_nothing_else(findings, sqlstate):
    findings.execute("CREATE ROLE dora IN ROLE copymatch_reader; SET ROLE dora")
    try:
        assert findings.execute("SELECT count(*) FROM copymatch.finding").fetchone()[0] == 10
        assert "<!DOCTYPE html>" in findings.execute("SELECT copymatch.dashboard()").fetchone()[0]
        for call in ("copy_confirm(1)", "copy_dismiss(1)", "copy_reopen(1)", "copy_dismiss(ARRAY[1]::bigint[])",
                     "copymatch.decide(1, 'confirmed', '', false)",
                     "copy_retry_queue()", "copy_clear_queue()", "copymatch.recount()", "copy_start_worker()",
                     "copy_stop_worker()"):  # fmt: skip
            with sqlstate("42501"):
                findings.execute(f"SELECT {call}")
        with sqlstate("42501"):
            findings.execute("UPDATE copymatch.finding SET state = 'confirmed'")
    finally:
        findings.execute("RESET ROLE; DROP OWNED BY dora; DROP ROLE dora")


def test_role_without_rights_sees_nothing(findings, sqlstate):
    findings.execute("CREATE ROLE nobody_special; SET ROLE nobody_special")
    try:
        tables = findings.execute(
            """SELECT c.oid::regclass::text FROM pg_class c WHERE relnamespace = 'copymatch'::regnamespace
               AND relkind IN ('r', 'v')
               AND relname ~ '^(finding|dismissal|queue|report)'"""
        ).fetchall()
        assert len(tables) >= 14
        for (table,) in tables:
            with sqlstate("42501"):
                findings.execute(f"SELECT * FROM {table}")
        for call in (
            "copy_confirm(1)",
            "copy_confirm(12345)",
            "copymatch.is_dismissed('uploads', 'u1', NULL, 'licensed', '7')",
        ):
            with sqlstate("42501"):
                findings.execute(f"SELECT {call}")
    finally:
        findings.execute("RESET ROLE; DROP ROLE nobody_special")


def test_roles_are_shared_by_databases_and_outlive_the_extension(server, new_db, connect):
    first, second = connect(new_db()), connect(new_db(extension=False))
    second.execute("CREATE EXTENSION copymatch")
    first.execute("DROP EXTENSION copymatch CASCADE")
    assert second.execute("SELECT has_table_privilege('copymatch_reader', 'copymatch.finding', 'SELECT')").fetchone()[0]
    assert [r[0] for r in second.execute(
        "SELECT rolname FROM pg_roles WHERE rolname ~ '^copymatch_' AND NOT rolcanlogin "
        "ORDER BY 1")] == [
        "copymatch_admin", "copymatch_reader", "copymatch_reviewer",
    ]  # fmt: skip
    first.execute("CREATE EXTENSION copymatch")
    assert first.execute("SELECT has_table_privilege('copymatch_reviewer', 'copymatch.finding', 'SELECT')").fetchone()[
        0
    ]


def test_dump_and_restore_keep_findings_history_dismissals_queue_and_triggers(server, new_db, connect, findings):
    target = new_db(extension=False)
    findings.execute("INSERT INTO refs VALUES (7, %s)", [jpeg(scene(7))])
    findings.execute("SELECT copy_confirm(1, 'yes'), copy_dismiss(2, 'no', true)")
    findings.execute(
        "CREATE TRIGGER later AFTER INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
        "'licensed', 'mode=async', 'k=1')"
    )
    findings.execute("INSERT INTO uploads VALUES ('waits', %s), ('fails', 'no image')", [jpeg(scene(7), 60)])
    findings.execute("UPDATE copymatch.queue SET state = 'failed', last_error = 'why' WHERE key = '{fails}'")
    server.run(
        "/bin/bash", "-c",
        f"set -o pipefail; {server.bin}/pg_dump -d '{server.dsn(findings.info.dbname)}' | {server.bin}/psql -qX -v "
        f"ON_ERROR_STOP=1 -d '{server.dsn(target)}'",
    )  # fmt: skip
    restored = connect(target)
    for query in (
        "SELECT (f).id, f::text FROM copymatch.finding f ORDER BY id",
        "SELECT h::text FROM copymatch.finding_history h ORDER BY id",
        "SELECT d::text FROM copymatch.dismissal d ORDER BY d::text",
        "SELECT q::text FROM copymatch.queue q ORDER BY id",
        "SELECT r::text FROM copymatch.report_daily r ORDER BY 1",
        "SELECT t::text FROM copymatch.flag_triggers() t",
    ):
        rows = findings.execute(query.replace("(f).id", "f.id")).fetchall()
        assert rows and restored.execute(query.replace("(f).id", "f.id")).fetchall() == rows
    restored.execute("CALL copy_process_queue()")
    new = restored.execute("SELECT id, upload, reference FROM copymatch.finding ORDER BY id DESC LIMIT 1").fetchone()
    assert new == (11, "waits", "7"), "the sequence goes on, nothing of the queue was lost"
    assert record(restored, "u2", None, "7") == 0 and record(restored, "u77", "ann", "7") == 0
    restored.execute("SELECT copy_reopen(1)")
    assert restored.execute("SELECT count(*) FROM copymatch.finding_history WHERE finding = 1").fetchone()[0] == 2
