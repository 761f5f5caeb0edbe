"""Evaluation: the metrics as aggregates against their definitions, and benchmarks run end to
end inside the database."""

import io
import json
import math
import os
import subprocess
import sys
import tarfile
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import ROOT
from pictures import blank, jpeg, scene


# An implementation of its own, straight from the definitions: no sharing with the extension.
def ranked(scores, correct):
    """Descending; among equal scores the wrong ones come first."""
    order = np.lexsort((correct, -scores))
    return scores[order], correct[order].astype(bool)


def micro_ap(scores, correct, positives):
    _, y = ranked(scores, correct)
    return float((np.cumsum(y) / np.arange(1, len(y) + 1))[y].sum() / positives)


def best(scores, correct, positives, precision):
    """(recall, threshold) of the lowest settable threshold with the largest recall whose precision suffices."""
    found = (0.0, None)
    for threshold in np.unique(scores)[::-1]:
        taken = scores >= threshold
        hits = int(correct[taken].sum())
        if hits / taken.sum() >= precision and (found[1] is None or hits / positives > found[0]):
            found = (hits / positives, float(threshold))
    return found


def curve(scores, correct, positives):
    points = []
    for threshold in np.unique(scores)[::-1]:
        taken = scores >= threshold
        points.append((float(threshold), correct[taken].sum() / taken.sum(), correct[taken].sum() / positives))
    return points


def lists():
    """Random lists, and those that break implementations: ties, one class, infinities, subnormals, signed zeros."""
    rng = np.random.default_rng(4)
    for size in (1, 2, 7, 50, 400):
        for share in (0.0, 0.1, 0.5, 1.0):
            correct = rng.random(size) < share
            yield f"random {size} {share}", rng.normal(size=size), correct
            yield f"ties {size} {share}", rng.integers(-2, 3, size).astype(float), correct
    yield "all equal", np.zeros(20), np.arange(20) % 2 == 0
    yield "signed zeros", np.array([0.0, -0.0, 0.0, -0.0]), np.array([True, False, False, True])
    yield (
        "infinities",
        np.array([math.inf, math.inf, -math.inf, -math.inf, 0]),
        np.array([True, False, True, False, True]),
    )
    yield "subnormal", np.array([5e-324, 0.0, -5e-324, 1e-310]), np.array([False, True, False, True])
    yield "neighbours", np.array([1.0, np.nextafter(1, 2), np.nextafter(1, 0)]), np.array([True, False, True])


LISTS = [pytest.param(scores, correct, id=name) for name, scores, correct in lists()]
FIGURES = """
    SELECT copy_micro_ap(score, is_copy, %(n)s), copy_recall_at_precision(score, is_copy, %(n)s, 0.9),
           copy_threshold_at_precision(score, is_copy, %(n)s, 0.9), copy_recall_at_precision(score, is_copy, %(n)s,
           1.0),
           copy_threshold_at_precision(score, is_copy, %(n)s, 0.5)
    FROM {source}"""


def expected(scores, correct, positives):
    r90, t90 = best(scores, correct, positives, 0.9)
    return (
        micro_ap(scores, correct, positives),
        r90,
        t90,
        best(scores, correct, positives, 1.0)[0],
        best(scores, correct, positives, 0.5)[1],
    )


@pytest.mark.parametrize(("scores", "correct"), LISTS)
def test_the_aggregates_are_what_the_definitions_say(db, scores, correct):
    for positives in (max(1, int(correct.sum())), int(correct.sum()) + 3):
        row = db.execute(
            FIGURES.format(source="unnest(%(s)s::float8[], %(c)s::boolean[]) AS p(score, is_copy)"),
            {"n": positives, "s": scores.tolist(), "c": correct.tolist()},
        ).fetchone()
        assert row == pytest.approx(expected(scores, correct, positives), abs=1e-12)
        points = db.execute(
            "SELECT * FROM copy_precision_recall(%s::float8[], %s::boolean[], %s)",
            [scores.tolist(), correct.tolist(), positives],
        ).fetchall()
        wanted = curve(scores, correct, positives)
        assert len(points) == len(wanted)
        for point, want in zip(points, wanted, strict=True):
            assert point == pytest.approx(want, abs=1e-12)


def test_parallel_plans_give_the_same_to_the_last_bit(db):
    db.execute("""
        CREATE TABLE predictions AS SELECT round((random() * 50)::numeric, 1)::float8 AS score,
        random() < 0.2 AS is_copy FROM generate_series(1, 60000);
        ANALYZE predictions;
        SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0""")
    positives = db.execute("SELECT count(*) FILTER (WHERE is_copy) + 100 FROM predictions").fetchone()[0]
    figures = FIGURES.format(source="predictions")
    figures = figures.replace(
        "FROM predictions", ", copy_precision_recall(score, is_copy, %(n)s)::text FROM predictions"
    )
    results = []
    for workers in (0, 3):
        db.execute(f"SET max_parallel_workers_per_gather = {workers}")
        plan = "\n".join(row[0] for row in db.execute("EXPLAIN " + figures, {"n": positives}).fetchall())
        assert ("Partial Aggregate" in plan) == (workers > 0), plan
        results.append(db.execute(figures, {"n": positives}).fetchone())
    assert results[0] == results[1]
    scores, correct = (
        np.array(column)
        for column in zip(*db.execute("SELECT score, is_copy FROM predictions").fetchall(), strict=True)
    )
    assert results[0][:5] == pytest.approx(expected(scores, correct, positives), abs=1e-9)


def test_groups_have_their_own_figures(db):
    rows = db.execute("""
        SELECT edit, copy_micro_ap(score, is_copy, 2)
        FROM (VALUES ('crop', 0.9, true), ('crop', 0.8, false), ('crop', 0.7, true), ('blur', 0.5, true)) v(edit, score,
        is_copy)
        GROUP BY edit ORDER BY edit""").fetchall()
    assert rows == [("blur", 0.5), ("crop", pytest.approx((1 + 2 / 3) / 2))]


def test_nulls_are_not_counted_and_an_undefined_figure_is_null(db):
    one = lambda sql: db.execute(sql).fetchone()  # noqa: E731
    # A LEFT JOIN of queries that found nothing: their true pairs count in positives alone.
    assert one(
        "SELECT copy_micro_ap(s, c, 4) FROM (VALUES (0.5, true), (NULL, NULL), (0.4, NULL), (NULL, true)) v(s, c)"
    ) == (0.25,)
    assert one("SELECT copy_micro_ap(NULL, NULL, 4)") == (0.0,)
    assert one("SELECT copy_micro_ap(0.5, false, 0), copy_recall_at_precision(0.5, false, 0, 0.9)") == (None, None)
    assert one("SELECT copy_micro_ap(0.5, true, NULL)") == (None,)
    assert one("SELECT copy_micro_ap(0.5, true, 4) WHERE false") == (None,)
    assert one(
        "SELECT copy_threshold_at_precision(0.5, false, 4, 0.9), copy_recall_at_precision(0.5, false, 4, 0.9)"
    ) == (None, 0.0)
    assert one("SELECT copy_precision_recall(NULL, true, 4)") == ([],) or one(
        "SELECT cardinality(copy_precision_recall(NULL, true, 4))"
    ) == (0,)


@pytest.mark.parametrize(
    ("expression", "code", "says"),
    [
        ("copy_micro_ap('NaN', true, 4)", "22000", "NaN"),
        ("copy_micro_ap(0.5, true, 0)", "22023", "no true pairs"),
        ("copy_micro_ap(0.5, true, -1)", "22023", "positives is -1"),
        ("copy_recall_at_precision(0.5, true, 1, 0)", "22023", "precision is 0"),
        ("copy_recall_at_precision(0.5, true, 1, 'NaN')", "22023", "precision is NaN"),
        ("copy_micro_ap(0.5, true, n) FROM generate_series(3, 4) n", "22023", "positives is 3 in one row and 4"),
        ("copy_micro_ap(0.5, true, 1) FROM generate_series(1, 2)", "22023", "2 predictions are correct"),
        ("copy_precision_recall(ARRAY[1, 2], ARRAY[true], 1)", "2202E", "2 scores and 1 judgements"),
    ],
)
def test_nonsense_is_an_error_that_names_it(db, sqlstate, expression, code, says):
    with sqlstate(code) as error:
        db.execute("SELECT " + expression)
    assert says in error.value.diag.message_primary
    assert error.value.diag.message_hint


@pytest.fixture
def benchmark(db):
    """Thirty references, and queries: edited copies, strangers, one that cannot be matched."""
    if not db.execute("SELECT to_regclass('public.embedded') IS NOT NULL").fetchone()[0]:
        db.execute("CREATE TABLE public.embedded (id text, image bytea, descriptor vector)")
        with db.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO public.embedded VALUES (%s, %s)", [(f"R{n}", jpeg(scene(n))) for n in range(30)]
            )
        db.execute("UPDATE public.embedded SET descriptor = copy_embed(image)")
    db.execute("CREATE TABLE originals AS TABLE public.embedded; ALTER TABLE originals ADD PRIMARY KEY (id)")
    db.execute("SELECT copy_create_set('originals', 'originals', 'id', 'image')")
    db.execute("CREATE TABLE queries (name text, image bytea, reference text, edit text)")
    db.execute("""
        INSERT INTO queries SELECT 'Q' || id, copy_edit(image, kind, 0.4, 1), id, kind
        FROM (SELECT *, CASE WHEN row_number() OVER (ORDER BY id) % 2 = 0 THEN 'jpeg' ELSE 'grey' END AS kind
        FROM originals WHERE id < 'R2') o""")
    db.execute("UPDATE queries SET image = copy_edit(image, 'blur', 0.2, 1), edit = edit || '+blur' WHERE name = 'QR1'")
    for n in range(5):
        db.execute("INSERT INTO queries VALUES (%s, %s, NULL, 'jpeg')", [f"S{n}", jpeg(scene(500 + n), 60)])
    yield db
    db.execute("RESET ROLE; SELECT copy_drop_set(name) FROM copymatch.reference_set")


def test_a_benchmark_runs_end_to_end_by_kind_of_edit(benchmark):
    rows = {
        row[0]: row
        for row in benchmark.execute(
            "SELECT edit, query_count, copy_count, recall_at_1, micro_ap, stretched_micro_ap, recall_at_p90, "
            "stretched_recall_at_p90 FROM copy_evaluate('queries', 'originals')"
        ).fetchall()
    }
    copies = benchmark.execute("SELECT count(*) FROM queries WHERE reference IS NOT NULL").fetchone()[0]
    assert set(rows) == {None, "jpeg", "grey", "blur"}
    assert rows[None][1:3] == (copies + 5, copies)
    assert rows["blur"][1:3] == (1, 1)
    assert rows[None][3] > 0.8
    # The same from the single answers, by the implementation above.
    answers = benchmark.execute(
        "SELECT similarity, score, is_copy, rank FROM copy_evaluate_matches('queries', 'originals')"
    ).fetchall()
    similarity, score, correct, rank = (np.array(column) for column in zip(*answers, strict=True))
    assert rows[None][3:] == pytest.approx(
        (
            (correct & (rank == 1)).sum() / copies,
            micro_ap(similarity, correct, copies),
            micro_ap(score, correct, copies),
            best(similarity, correct, copies, 0.9)[0],
            best(score, correct, copies, 0.9)[0],
        ),
        abs=1e-12,
    )


def test_false_alarms_are_counted_by_verdict(benchmark):
    row = benchmark.execute(
        "SELECT true_copy, false_copy, true_review, false_review FROM copy_evaluate('queries', 'originals') "
        "WHERE edit IS NULL"
    ).fetchone()
    answers = benchmark.execute(
        "SELECT verdict, is_copy FROM copy_evaluate_matches('queries', 'originals') WHERE rank = 1"
    ).fetchall()
    assert row == tuple(
        answers.count(kind) for kind in (("copy", True), ("copy", False), ("review", True), ("review", False))
    )
    assert row[0] > 0


def test_a_query_that_cannot_be_matched_counts_as_not_found(benchmark):
    benchmark.execute("INSERT INTO queries VALUES ('blank', %s, 'R5', 'text')", [blank()])
    said = []
    benchmark.add_notice_handler(lambda diagnostic: said.append(diagnostic.message_primary))
    row = benchmark.execute(
        "SELECT query_count, copy_count, recall_at_1, micro_ap FROM copy_evaluate('queries', 'originals') "
        "WHERE edit = 'text'"
    ).fetchone()
    assert row == (1, 1, 0.0, 0.0)
    assert any("finds nothing" in text and "detail" in text for text in said)


def test_truth_that_the_set_does_not_hold_is_warned_of(benchmark):
    benchmark.execute("UPDATE queries SET reference = 'gone' WHERE name = 'QR1'")
    said = []
    benchmark.add_notice_handler(lambda diagnostic: said.append(diagnostic.message_primary))
    benchmark.execute("SELECT * FROM copy_evaluate('queries', 'originals')")
    assert any("does not hold" in text and "gone" in text for text in said)


def test_descriptors_stand_for_images_and_views_for_tables(benchmark):
    benchmark.execute(
        "CREATE VIEW described AS SELECT copy_embed(image) AS descriptor, reference FROM queries WHERE edit = 'jpeg'"
    )
    from_view = benchmark.execute(
        "SELECT recall_at_1, micro_ap FROM copy_evaluate('described', 'originals')"
    ).fetchall()
    from_table = benchmark.execute(
        "SELECT recall_at_1, micro_ap FROM copy_evaluate('queries', 'originals') WHERE edit = 'jpeg'"
    ).fetchall()
    assert from_view == [(pytest.approx(from_table[0][0]), pytest.approx(from_table[0][1], abs=1e-6))]


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ("copy_evaluate('wrong', 'originals')", "42703", "reference"),
        ("copy_evaluate('bare', 'originals')", "42703", "neither"),
        ("copy_evaluate('typed', 'originals')", "42804", "bytea"),
        ("copy_evaluate('queries', 'unheard')", "42704", "unheard"),
        ("copy_evaluate('queries', 'originals', 0)", "22023", "k is 0"),
        ("copy_evaluate(NULL, 'originals')", "22004", "NULL"),
    ],
)
def test_what_is_no_benchmark_is_refused_by_name(benchmark, sqlstate, call, code, says):
    benchmark.execute(
        "CREATE TABLE wrong (image bytea); CREATE TABLE bare (reference text); "
        "CREATE TABLE typed (reference text, image text)"
    )
    with sqlstate(code) as error:
        benchmark.execute("SELECT * FROM " + call)
    assert says in error.value.diag.message_primary


def test_a_role_evaluates_what_it_may_read_and_no_more(benchmark, sqlstate):
    benchmark.execute("DROP ROLE IF EXISTS evaluator; CREATE ROLE evaluator")
    schema = benchmark.execute("SELECT current_schema()").fetchone()[0]
    try:
        benchmark.execute(
            f"GRANT USAGE ON SCHEMA {schema} TO evaluator; GRANT SELECT ON queries TO evaluator; SET ROLE evaluator"
        )
        with sqlstate("42501"):
            benchmark.execute("SELECT * FROM copy_evaluate('queries', 'originals')")
        benchmark.execute("RESET ROLE; GRANT SELECT ON originals TO evaluator; SET ROLE evaluator")
        assert benchmark.execute("SELECT count(*) FROM copy_evaluate('queries', 'originals')").fetchone()[0] == 4
    finally:
        benchmark.execute("RESET ROLE; DROP OWNED BY evaluator; DROP ROLE evaluator")


def test_make_eval_scores_a_folder_and_draws_the_curve(dsn, tmp_path):
    folder = tmp_path / "benchmark"
    folder.mkdir()

    def archive(name, members):
        with tarfile.open(folder / f"{name}.tar", "w") as tar:
            for member, data in members.items():
                entry = tarfile.TarInfo(f"{name}/{member}.jpg")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))

    archive("references", {f"R{n}": jpeg(scene(n)) for n in range(12)})
    archive("queries", {f"Q{n}": jpeg(scene(n), 40) for n in range(8)} | {"S0": jpeg(scene(77)), "B0": blank()})
    (folder / "truth.csv").write_text(
        "query,reference,edits\r\n"
        + "".join(f"Q{n},R{n},jpeg+blur\r\n" for n in range(8))
        + "S0,,jpeg\r\nB0,R9,text\r\n"
    )
    result = subprocess.run(
        [sys.executable, ROOT / "scripts" / "evaluate.py", folder, "--picture", tmp_path / "curve.svg", "--json",
         tmp_path / "figures.json"],
        env=os.environ | {"COPYMATCH_DSN": dsn}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert (
        figures["queries"] == 10
        and figures["copy_count"] == 9
        and figures["refused"] == {"references": 0, "queries": 1}
    )
    assert figures["recall_at_1"] == pytest.approx(8 / 9) and set(figures["by_edit"]) == {"jpeg", "blur", "text"}
    assert "micro-AP" in result.stdout and "finds nothing" in result.stderr
    drawing = ElementTree.parse(tmp_path / "curve.svg").getroot()
    assert len(drawing.findall("{http://www.w3.org/2000/svg}polyline")) == 3
    # The same figures pass as the other way's, others do not.
    (tmp_path / "other.json").write_text(json.dumps(figures | {"micro_ap": figures["micro_ap"] - 0.1}))
    for against, status in (("figures.json", 0), ("other.json", 1)):
        command = [sys.executable, ROOT / "scripts" / "evaluate.py", folder, "--against", tmp_path / against]
        result = subprocess.run(
            command, env=os.environ | {"COPYMATCH_DSN": dsn}, capture_output=True, text=True, timeout=120, check=False
        )
        assert result.returncode == status, result.stderr


def test_a_folder_that_is_no_benchmark_is_refused(tmp_path):
    result = subprocess.run(
        [sys.executable, ROOT / "scripts" / "evaluate.py", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1 and "is no benchmark" in result.stderr
