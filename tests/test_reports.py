"""Reports: counts that agree with the findings whatever was done to them, days of the reader's
time zone, the dashboard."""

import html.parser
import pathlib
import re

import pytest
from pictures import jpeg, scene


@pytest.fixture
def findings(fresh_db):
    """3,000 findings over ten days in two sets, some reviewed, by 7 uploaders of 50 references."""
    fresh_db.execute("CREATE TABLE uploads (id text PRIMARY KEY, image bytea)")
    fresh_db.execute(
        """INSERT INTO copymatch.finding (found, reference_set, relation, upload, reference, similarity, background,
                                          score, probability, verdict,
                                          model, calibration, uploader)
           SELECT '2026-03-24 00:00+00'::timestamptz + n * interval '5 minutes', CASE n % 3 WHEN 0 THEN 'licensed'
           ELSE 'banned' END, 'uploads',
                  'u' || n, 'r' || n % 50, 0.9, 0.3, -0.1, 0.9, CASE n % 5 WHEN 0 THEN 'review'
                  ELSE 'copy' END, 'copymatch-small-7', 0, 'user' || n % 7
           FROM generate_series(0, 2999) n"""
    )
    fresh_db.execute("SELECT copy_confirm(array_agg(id)) FROM copymatch.finding WHERE id % 4 = 1")
    fresh_db.execute("SELECT copy_dismiss(array_agg(id)) FROM copymatch.finding WHERE id % 8 = 2")
    return fresh_db


DAILY = "SELECT day, reference_set, verdict, state, findings FROM copymatch.report_daily ORDER BY 1, 2, 3, 4"
PLAIN = (
    "SELECT found::date, reference_set, verdict, state, count(*) FROM copymatch.finding GROUP BY 1, 2, 3, 4 "
    "ORDER BY 1, 2, 3, 4"
)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Vienna", "Asia/Kathmandu", "America/St_Johns", "Pacific/Kiritimati"])
def test_days_are_those_of_the_sessions_time_zone(findings, zone):
    """Vienna changes to summer time within the days; Kathmandu is 5:45 from UTC."""
    findings.execute(f"SET timezone = '{zone}'")
    assert findings.execute(DAILY).fetchall() == findings.execute(PLAIN).fetchall()


def test_counts_follow_every_change_and_every_fold(findings):
    steps = [
        "SELECT copymatch.fold_counts()",
        "SELECT copy_reopen(1), copy_dismiss(1), copy_reopen(5)",
        "DELETE FROM copymatch.finding WHERE id % 10 = 0",
        "SELECT copymatch.fold_counts()",
        "UPDATE copymatch.finding SET verdict = 'review' WHERE state = 'open' AND id < 100",
        "SELECT copymatch.recount()",
        "SELECT copymatch.fold_counts()",
    ]
    for step in steps:
        findings.execute(step)
        assert findings.execute(DAILY).fetchall() == findings.execute(PLAIN).fetchall(), step
    assert findings.execute("SELECT count(*) FROM copymatch.finding_delta").fetchone()[0] == 0
    with findings.transaction(force_rollback=True):
        findings.execute("DELETE FROM copymatch.finding; SELECT copymatch.fold_counts()")
    assert findings.execute(DAILY).fetchall() == findings.execute(PLAIN).fetchall(), (
        "a rollback takes the counts back too"
    )
    findings.execute("TRUNCATE copymatch.finding")
    assert findings.execute(DAILY).fetchall() == []


def test_an_old_snapshot_is_never_failed_by_a_fold(findings, connect):
    """A transaction that saw the counts before another folded them must not get a serialization
    error from its INSERT."""
    other = connect(findings.info.dbname)
    insert = """INSERT INTO copymatch.finding (id, reference_set, relation, upload, reference, similarity, background,
                score, probability, verdict, model, calibration)
                VALUES (%s, 'licensed', 'uploads', %s, 'x', 1, 0, 0, 1, 'copy', 'copymatch-small-7', 0)"""
    with other.transaction():
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM copymatch.finding_delta")
        findings.execute("SELECT copymatch.fold_counts()")
        other.execute(insert, [4096 * 100, "late"])
    assert findings.execute(DAILY).fetchall() == findings.execute(PLAIN).fetchall()


def test_precision_is_that_of_the_reviews_with_the_calibration_reports_interval(findings):
    rows = findings.execute(
        "SELECT reference_set, verdict, confirmed, dismissed, open, precision, precision_low, precision_high "
        "FROM copymatch.report_precision"
    ).fetchall()
    assert len(rows) == 4
    for reference_set, verdict, confirmed, dismissed, still_open, precision, low, high in rows:
        counted = findings.execute(
            "SELECT count(*) FILTER (WHERE state = 'confirmed'), count(*) FILTER (WHERE state = 'dismissed'), "
            "count(*) FILTER (WHERE state = 'open')"
            " FROM copymatch.finding WHERE (reference_set, verdict) = (%s, %s)",
            [reference_set, verdict],
        ).fetchone()
        assert (confirmed, dismissed, still_open) == counted
        n = confirmed + dismissed
        # Clopper and Pearson: either end is where so many or so few would be a chance of 1 in 40.
        assert precision == pytest.approx(confirmed / n) and low < precision < high
        assert binomial_tail(confirmed, n, low) == pytest.approx(0.025, abs=1e-6)
        assert binomial_tail(n - confirmed, n, 1 - high) == pytest.approx(0.025, abs=1e-6)


def binomial_tail(least, n, p):
    """The probability of at least so many successes in n trials."""
    from math import exp, lgamma, log

    return sum(
        exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) + (n - k) * log(1 - p))
        for k in range(least, n + 1)
    )


def test_references_uploaders_reviewers_and_ages(findings):
    findings.execute("CREATE ROLE erna IN ROLE copymatch_reviewer; SET ROLE erna")
    try:
        open_one = findings.execute("SELECT min(id) FROM copymatch.finding WHERE state = 'open'").fetchone()[0]
        findings.execute("SELECT copy_confirm(%s)", [open_one])
        assert findings.execute(
            "SELECT confirmed, dismissed, reopened FROM copymatch.report_reviewers WHERE reviewer = 'erna'"
        ).fetchall() == [(1, 0, 0)]
    finally:
        findings.execute("RESET ROLE; DROP OWNED BY erna; DROP ROLE erna")
    findings.execute("TRUNCATE copymatch.finding")
    findings.execute(
        """INSERT INTO copymatch.finding (found, reference_set, relation, upload, reference, similarity, background,
           score, probability, verdict, model, calibration, uploader)
           SELECT now() - age, 'licensed', 'uploads', age::text, 'r' || length(age::text) % 2, 1, 0, 0, 1, 'copy',
           'copymatch-small-7', 0, 'ann'
           FROM unnest('{1 minute, 2 hours, 3 hours, 2 days, 8 days, 40 days}'::interval[]) age"""
    )
    assert findings.execute(
        "SELECT findings, under_an_hour, under_a_day, under_a_week, older FROM copymatch.report_open"
    ).fetchall() == [(6, 1, 2, 1, 2)]
    assert findings.execute(
        "SELECT oldest BETWEEN '40 days' AND '40 days 16 minutes' FROM copymatch.report_open"
    ).fetchone()[0]
    assert findings.execute("SELECT sum(findings)::int FROM copymatch.report_references").fetchone()[0] == 5, (
        "of the last 30 days"
    )
    assert findings.execute("SELECT uploader, findings, open FROM copymatch.report_uploaders").fetchall() == [
        ("ann", 5, 5)
    ]
    assert findings.execute("SELECT model, findings FROM copymatch.report_models WHERE findings > 0").fetchall() == [
        ("copymatch-small-7", 6)
    ]


def test_the_queries_of_the_documentation_run_as_they_stand(findings):
    """Each gives rows over findings of which some are reviewed, and what it says of them is right."""
    page = (pathlib.Path(__file__).parent.parent / "docs" / "reports.md").read_text()
    block = re.search(r"## Five queries\n+```sql\n(.*?)```", page, re.DOTALL).group(1)
    queries = [query for query in block.split(";\n") if query.strip()]
    assert len(queries) == 6, "the fifth is two"
    # The queries look at the last weeks: these findings are of the last ten days, six in seven of them confirmed.
    findings.execute("TRUNCATE copymatch.finding")
    findings.execute(
        """INSERT INTO copymatch.finding (found, reference_set, relation, upload, reference, similarity, background,
                                          score, probability, verdict,
                                          model, calibration, uploader)
           SELECT now() - n * interval '5 minutes', CASE n % 3 WHEN 0 THEN 'licensed' ELSE 'banned' END, 'uploads',
                  'u' || n, 'r' || n % 50, 0.9, 0.3, -0.1, 0.9, 'copy', 'copymatch-small-7', 0, 'user' || n % 7
           FROM generate_series(0, 2999) n"""
    )
    findings.execute(
        "SELECT copy_dismiss(array_agg(id)) FROM copymatch.finding WHERE reference = 'r3' OR right(upload, 1) = '7'"
    )
    findings.execute(
        "SELECT copy_confirm(array_agg(id)) FROM copymatch.finding WHERE state = 'open' AND reference_set = 'banned'"
    )
    weeks, precision, dismissed, uploaders, days, old = (findings.execute(query).fetchall() for query in queries)
    assert sum(row[2] for row in weeks) == 3000 and {row[1] for row in weeks} == {"open", "confirmed", "dismissed"}
    assert [row[0] for row in precision] == ["licensed", "banned"], "licensed: nothing confirmed; banned: about 0.86"
    assert {row[1] for row in dismissed} == {"r3"} | {f"r{n}" for n in (7, 17, 27, 37, 47)}
    assert len(uploaders) == 7 and all(row[2] >= 3 for row in uploaders)
    assert sum(row[1] for row in days) == 3000 and sum(row[2] for row in days) > 2000
    expected = findings.execute(
        "SELECT reference_set, count(*) FROM copymatch.finding WHERE state = 'open' "
        "AND found < now() - interval '7 days' GROUP BY 1"
    ).fetchall()
    assert [row for row in sorted(old) if row[1]] == sorted(expected)


class Page(html.parser.HTMLParser):
    """Tags, and whether they are closed in order."""

    VOID = frozenset(("meta", "img", "br"))

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.images, self.text = [], [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert not any(name.startswith("on") or (value or "").startswith("http") for name, value in attributes)
        if tag == "img":
            self.images.append(dict(attributes)["src"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_dashboard_is_one_page_that_shows_hostile_text_as_text(fresh_db, sqlstate):
    hostile = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"
    db = fresh_db
    db.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    db.execute("INSERT INTO refs VALUES (1, %s)", [jpeg(scene(1))])
    db.execute("SELECT copy_create_set(%s, 'refs', 'id', 'image')", [hostile])
    db.execute("CREATE TABLE uploads (name text, part int, who text, image bytea)")
    db.execute(
        "CREATE TRIGGER f AFTER INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'name,part', '"
        + hostile.replace("'", "''")
        + "', 'uploader=who')"
    )
    db.execute("INSERT INTO uploads VALUES (%s, 1, %s, %s)", [hostile, hostile, jpeg(scene(1), 60)])
    db.execute("SELECT copy_confirm(1, %s)", [hostile])
    text = db.execute("SELECT copymatch.dashboard()").fetchone()[0]
    page = Page(text)
    assert "script" not in page.tags and page.text.count(hostile) >= 4
    assert len(page.images) == 2 and all(image.startswith("data:image/jpeg;base64,/9j/") for image in page.images)
    assert page.tags.count("article") == 1 and "http:" not in text and "https:" not in text
    # Who may read findings but not the pictures sees the page without them.
    db.execute("CREATE ROLE frida IN ROLE copymatch_reader; SET ROLE frida")
    try:
        page = Page(db.execute("SELECT copymatch.dashboard()").fetchone()[0])
        assert page.images == [] and page.text.count("not shown") == 2
    finally:
        db.execute("RESET ROLE; DROP ROLE frida")
    with sqlstate("22023"):
        db.execute("SELECT copymatch.dashboard(0)")


def test_dashboard_of_an_empty_database_is_a_page_too(fresh_db):
    assert Page(fresh_db.execute("SELECT copymatch.dashboard()").fetchone()[0]).tags.count("section") == 7
