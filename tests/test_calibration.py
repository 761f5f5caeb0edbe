"""Calibration: labels, reviewed findings or the set's own references become probabilities and thresholds that
hold what they promise."""

import math

import numpy as np
import pytest
from pictures import jpeg, scene


@pytest.fixture
def products(db):
    """Sixty references in the set `products`, embedded once for the whole module."""
    if not db.execute("SELECT to_regclass('public.embedded') IS NOT NULL").fetchone()[0]:
        db.execute("CREATE TABLE public.embedded (id int, image bytea, descriptor vector)")
        with db.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO public.embedded VALUES (%s, %s)", [(n, jpeg(scene(n, 160, 120))) for n in range(60)]
            )
        db.execute("UPDATE public.embedded SET descriptor = copy_embed(image)")
    db.execute("CREATE TABLE products AS TABLE public.embedded; ALTER TABLE products ADD PRIMARY KEY (id)")
    db.execute("SELECT copy_create_set('products', 'products', 'id', 'image')")
    yield db
    db.execute("RESET ROLE; DELETE FROM copymatch.reference_set")


def labels(db, count=4000, seed=1, table="labels"):
    """A table of judged pairs drawn from a known curve: logit = −6 + 14 similarity − 4 background."""
    rng = np.random.default_rng(seed)
    similarity, background = rng.uniform(0, 1, count), rng.uniform(0.2, 0.6, count)
    is_copy = rng.random(count) < 1 / (1 + np.exp(6 - 14 * similarity + 4 * background))
    db.execute(f"CREATE TABLE {table} (similarity float8, background real, is_copy boolean)")
    with db.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
        for row in zip(similarity.tolist(), background.tolist(), is_copy.tolist(), strict=True):
            copy.write_row(row)
    return similarity, background, is_copy


def review(db, count, share_confirmed, verdict="copy", probability=0.99, reference_set="products"):
    """`count` reviewed findings of one tier under the set's present calibration."""
    db.execute(
        """INSERT INTO copymatch.finding (reference_set, relation, upload, reference, similarity, background, score,
           probability, verdict, model, calibration, state, decided, decided_by)
           SELECT s.name, 'products'::regclass, %(v)s || n, (n %% 60)::text,
                  CASE WHEN n <= %(hits)s THEN 0.8 + 0.1 * random() ELSE 0.4 + 0.1 * random() END, 0.3 + 0.1 * random(),
                  0, %(p)s, %(v)s, s.model, s.calibration,
                  CASE WHEN n <= %(hits)s THEN 'confirmed' ELSE 'dismissed' END, now(), current_user
           FROM copymatch.reference_set s, generate_series(1, %(n)s) n WHERE s.name = %(set)s""",
        {"hits": round(count * share_confirmed), "p": probability, "v": verdict, "n": count, "set": reference_set},
    )


def warnings(db):
    said = []
    db.add_notice_handler(lambda diagnostic: said.append((diagnostic.severity, diagnostic.message_primary)))
    return said


def test_labels_give_back_the_curve_they_were_drawn_from(products):
    labels(products, 20000)
    row = products.execute(
        "SELECT intercept, similarity_weight, background_weight, source, reference_set, version "
        "FROM copy_calibrate('products', 'labels')"
    ).fetchone()
    assert row[:3] == (pytest.approx(-6, abs=0.5), pytest.approx(14, abs=0.8), pytest.approx(-4, abs=0.8))
    assert row[3:] == ("labels", "products", 1)


def test_the_thresholds_hold_on_pairs_that_were_not_seen(products):
    labels(products, 20000)
    chosen = products.execute("SELECT * FROM copy_calibrate('products', 'labels')")
    record = dict(zip([column.name for column in chosen.description], chosen.fetchone(), strict=True))
    labels(products, 20000, seed=2, table="later")
    for threshold, precision in ((record["copy_probability"], 0.99), (record["review_probability"], 0.90)):
        taken, right = products.execute(
            """SELECT count(*), count(*) FILTER (WHERE is_copy) FROM later
               WHERE (copy_stretch(similarity, background, 'products')).probability >= %s""",
            [threshold],
        ).fetchone()
        assert taken > 500
        assert right / taken >= precision - 3 * math.sqrt(precision * (1 - precision) / taken)
    for tier in ("copy", "review"):
        evidence = record["evidence"]["threshold_half"][tier]
        assert evidence["held"] and evidence["precision_at_least"] >= record[f"{tier}_precision"]
        low, high = evidence["precision_interval"]
        assert low <= evidence["correct"] / evidence["matches"] <= high


def test_the_set_is_switched_in_the_same_transaction_and_can_go_back(products, sqlstate):
    labels(products)
    before = products.execute("SELECT calibration FROM copymatch.reference_set").fetchone()[0]
    with products.transaction(force_rollback=True):
        products.execute("SELECT copy_calibrate('products', 'labels')")
        assert products.execute("SELECT calibration FROM copymatch.reference_set").fetchone()[0] != before
    assert products.execute("SELECT calibration FROM copymatch.reference_set").fetchone()[0] == before
    (aside,) = products.execute("SELECT id FROM copy_calibrate('products', 'labels', apply => false)").fetchone()
    assert products.execute("SELECT calibration FROM copymatch.reference_set").fetchone()[0] == before
    products.execute("SELECT copy_use_calibration('products', %s)", [aside])
    assert products.execute("SELECT calibration FROM copymatch.reference_set").fetchone()[0] == aside
    products.execute("SELECT copy_use_calibration('products', %s)", [before])
    assert products.execute("SELECT calibration FROM copymatch.reference_set").fetchone()[0] == before
    with sqlstate("42704") as error:
        products.execute("SELECT copy_use_calibration('products', 987654)")
    assert str(aside) in error.value.diag.message_hint


def test_thresholds_that_the_set_has_of_its_own_are_pointed_out(products):
    products.execute("UPDATE copymatch.reference_set SET copy_probability = 0.9 WHERE name = 'products'")
    said = warnings(products)
    products.execute("SELECT copy_use_calibration('products', 0)")
    assert any("thresholds of its own" in text for _, text in said)


def test_a_part_of_a_table_with_a_composite_key_is_calibrated(products):
    products.execute("ALTER TABLE products ADD COLUMN shop text NOT NULL DEFAULT 'a b', ADD UNIQUE (shop, id)")
    products.execute("SELECT copy_create_set('half', 'products', 'shop, id', 'image', filter => 'id < 50')")
    evidence = products.execute(
        "SELECT evidence FROM copy_calibrate('half', copies => 50, unrelated => 50, source => 'edits', apply => false)"
    ).fetchone()[0]
    assert evidence["references"] == 50 and evidence["recall_at_1"] > 0.3


def test_versions_are_numbered_by_set_and_never_change(products, sqlstate):
    labels(products)
    made = [
        products.execute("SELECT version FROM copy_calibrate('products', 'labels')").fetchone()[0] for _ in range(3)
    ]
    first = made[0]
    assert made == [first, first + 1, first + 2]
    with sqlstate("55000"):
        products.execute("UPDATE copymatch.calibration SET copy_probability = 0 WHERE reference_set = 'products'")
    # Another set of the same model still starts with the model's own.
    products.execute(
        "CREATE TABLE others (id int PRIMARY KEY, image bytea); "
        "SELECT copy_create_set('others', 'others', 'id', 'image')"
    )
    assert products.execute("SELECT calibration FROM copymatch.reference_set WHERE name = 'others'").fetchone() == (0,)
    with sqlstate("42704"):
        products.execute(
            "SELECT copy_use_calibration('others', (SELECT max(id) FROM copymatch.calibration "
            "WHERE reference_set = 'products'))"
        )


def test_the_same_labels_in_another_order_give_the_same_record(products):
    labels(products)
    products.execute("CREATE VIEW reordered AS SELECT * FROM labels ORDER BY md5(similarity::text)")
    columns = "similarity_weight, background_weight, copy_probability, review_probability"
    one, other = (
        products.execute(f"SELECT {columns} FROM copy_calibrate('products', '{table}')").fetchone()
        for table in ("labels", "reordered")
    )
    assert one == pytest.approx(other, abs=1e-9)


def test_images_and_references_serve_as_labels(products):
    products.execute("""
        CREATE TABLE judged AS
        SELECT copy_edit(image, 'jpeg', 0.5, 1) AS image, id AS reference, true AS is_copy FROM products
        UNION ALL SELECT copy_edit(image, 'jpeg', 0.5, 1), (id + 7) % 60, false FROM products""")
    said = warnings(products)
    evidence, similar = products.execute(
        "SELECT evidence, similarity_weight FROM copy_calibrate('products', 'judged')"
    ).fetchone()
    assert evidence["pairs"] == 120 and similar > 0
    # Sixty copies cannot promise 0.99: said, not hidden.
    assert any("do not suffice" in text for _, text in said)
    assert evidence["threshold_half"]["copy"]["held"] is False
    assert products.execute(
        "SELECT verdict FROM copy_match((SELECT image FROM products WHERE id = 3), 'products', 1)"
    ).fetchone() == ("copy",)


def test_separable_labels_are_no_trouble(products):
    products.execute(
        "CREATE TABLE split AS SELECT CASE WHEN n % 2 = 0 THEN 0.9 ELSE 0.2 END + n * 1e-5 AS similarity, "
        "0.3 AS background, n % 2 = 0 AS is_copy FROM generate_series(1, 2000) n"
    )
    row = products.execute(
        "SELECT intercept, similarity_weight, background_weight, copy_probability "
        "FROM copy_calibrate('products', 'split')"
    ).fetchone()
    assert all(map(math.isfinite, row)) and row[2] == 0
    assert products.execute(
        "SELECT (copy_stretch(0.92, 0.3, 'products')).verdict, (copy_stretch(0.21, 0.3, 'products')).verdict"
    ).fetchone() == ("copy", "different")


@pytest.mark.parametrize(
    ("table", "code", "says"),
    [
        (
            "SELECT 0.5::float8 AS similarity, 0.3::float8 AS background, true AS is_copy FROM generate_series(1, 500)",
            "55000",
            "0 others",
        ),
        (
            "SELECT random() AS similarity, 0.3::float8 AS background, n % 2 = 0 AS is_copy "
            "FROM generate_series(1, 30) n",
            "55000",
            "too",
        ),
        (
            "SELECT 'NaN'::float8 AS similarity, 0.3::float8 AS background, n % 2 = 0 AS is_copy "
            "FROM generate_series(1, 500) n",
            "22000",
            "NaN",
        ),
        (
            "SELECT 7::float8 AS similarity, 0.3::float8 AS background, n % 2 = 0 AS is_copy "
            "FROM generate_series(1, 500) n",
            "22000",
            "between -1 and 1",
        ),
        ("SELECT 1::float8 AS similarity, true AS is_copy", "42703", "background"),
        ("SELECT 1::float8 AS likeness, true AS is_copy", "42703", "labels"),
        ("SELECT 1::float8 AS similarity, 1::float8 AS background, 1 AS is_copy", "42804", "is_copy"),
    ],
)
def test_labels_that_cannot_serve_are_refused_by_name(products, sqlstate, table, code, says):
    products.execute("CREATE TABLE bad AS " + table)
    before = products.execute("SELECT count(*) FROM copymatch.calibration").fetchone()
    with sqlstate(code) as error:
        products.execute("SELECT copy_calibrate('products', 'bad')")
    assert says in error.value.diag.message_primary
    assert products.execute("SELECT count(*) FROM copymatch.calibration").fetchone() == before


def test_labels_the_wrong_way_round_are_warned_of(products):
    labels(products)
    products.execute("UPDATE labels SET is_copy = NOT is_copy")
    said = warnings(products)
    products.execute("SELECT copy_calibrate('products', 'labels', apply => false)")
    assert any("no more alike" in text for _, text in said)


@pytest.mark.parametrize(
    "arguments",
    [
        "copy_precision => 1",
        "copy_precision => 0.8",
        "confidence => 0.2",
        "review_precision => 'NaN'",
        "copies => 3",
        "source => 'dreams'",
        "source => 'labels'",
    ],
)
def test_arguments_out_of_range_are_refused(products, sqlstate, arguments):
    with sqlstate("22023") as error:
        products.execute(f"SELECT copy_calibrate('products', {arguments})")
    assert error.value.diag.message_hint


def test_without_labels_the_sets_own_references_are_edited(products):
    said = warnings(products)
    call = (
        "SELECT evidence, source, clamp_low, clamp_high, copy_probability, review_probability "
        "FROM copy_calibrate('products', copies => 80, unrelated => 100, seed => 5, apply => false)"
    )
    evidence, source, low, high, copy, look = products.execute(call).fetchone()
    assert any("edited copies" in text for _, text in said)
    assert source == "edits" and 0 < low <= high <= 1 and 0 < look <= copy <= 1
    assert evidence["seed"] == 5 and evidence["references"] == 60
    assert evidence["copies"] + evidence["refused"] == 80 and evidence["unrelated"] == 100
    assert 0.3 < evidence["recall_at_1"] <= 1
    assert len(evidence["reliability"]) == 10 and evidence["curve"]
    again = products.execute(call).fetchone()
    assert again == (evidence, source, low, high, copy, look), "the same seed gives the same record"


def test_a_picture_that_is_twice_in_the_set_is_no_false_match(products):
    products.execute("INSERT INTO products SELECT id + 1000, image, descriptor FROM products")
    call = (
        "SELECT evidence, similarity_weight FROM copy_calibrate('products', copies => 60, unrelated => 60, "
        "apply => false, duplicate_similarity => %s)"
    )
    said = warnings(products)
    (passed, sharp), (counted, blunt) = (products.execute(call, [similarity]).fetchone() for similarity in (0.98, 2))
    assert passed["near_duplicates"] >= 50 and counted["near_duplicates"] == 0
    # They are named, for whoever knows them to be different pictures of one kind.
    assert len([text for _, text in said if "near-duplicates" in text]) == 1
    assert all(
        abs(int(one["reference"]) - int(same)) == 1000
        for one in passed["near_duplicate_examples"]
        for same in one["same"]
    )
    assert len(passed["near_duplicate_examples"]) == 20 and counted["near_duplicate_examples"] == []
    # A twin taken for a stranger is as alike as a copy, and similarity then says less.
    assert sharp > 1.5 * blunt, (sharp, blunt)


def test_what_comparing_pictures_holds_is_measured_and_not_claimed_where_it_does_not(products):
    call = (
        "SELECT evidence -> 'verified' FROM copy_calibrate('products', source => 'edits', copies => 80, "
        "unrelated => 60, copy_precision => 0.9, confidence => 0.6, apply => false)"
    )
    said = warnings(products)
    (found,) = products.execute(call).fetchone()
    assert found["copies"] > 60 and found["strangers"] > 60, (
        "those that could be edited, with and without their reference"
    )
    assert found["right"] > 30 and found["wrong"] == found["strangers_wrong"] == 0
    assert found["held"] and found["precision"] == 1 and 0.9 <= found["precision_at_least"] < 1
    assert not [text for _, text in said if "comparing pictures" in text]
    # Whatever is nearest is called a copy: strangers, too.
    products.execute(
        "SELECT copy_alter_set('products', copy_probability => 0.0000001, review_probability => 0.0000001)"
    )
    (found,) = products.execute(call).fetchone()
    assert found["strangers_wrong"] > 30 and not found["held"] and found["precision"] < 0.8
    told = [text for severity, text in said if severity == "WARNING" and "comparing pictures does not suffice" in text]
    assert len(told) == 1 and f"{found['right']} verdicts were right" in told[0], said


def test_a_set_that_compares_nothing_says_nothing_of_comparing(products):
    products.execute("SELECT copy_alter_set('products', verify => 'off')")
    call = (
        "SELECT evidence -> 'verified' FROM copy_calibrate('products', source => 'edits', copies => 60, "
        "unrelated => 60, apply => false)"
    )
    assert products.execute(call).fetchone() == (None,)


def test_a_set_too_small_or_without_images_is_refused(db, sqlstate):
    db.execute("CREATE TABLE few (id int PRIMARY KEY, image bytea)")
    db.execute("INSERT INTO few VALUES (1, %s)", [jpeg(scene(1))])
    db.execute("SELECT copy_create_set('few', 'few', 'id', 'image')")
    with sqlstate("55000") as error:
        db.execute("SELECT copy_calibrate('few', source => 'edits')")
    assert "has 1 references" in error.value.diag.message_primary
    db.execute(
        "CREATE VIEW described AS SELECT id, descriptor FROM few; "
        "SELECT copy_create_set('described', 'described', 'id', NULL)"
    )
    with sqlstate("55000") as error:
        db.execute("SELECT copy_calibrate('described')")
    assert "no image column" in error.value.diag.message_primary and "labels" in error.value.diag.message_hint
    db.execute("SELECT copy_drop_set('described'); SELECT copy_drop_set('few')")


def test_calibrating_can_be_cancelled_and_leaves_nothing(products, sqlstate):
    before = products.execute("SELECT count(*) FROM copymatch.calibration").fetchone()
    products.execute("SET statement_timeout = '700ms'")
    with sqlstate("57014"):
        products.execute("SELECT copy_calibrate('products', copies => 100000, source => 'edits')")
    products.execute("RESET statement_timeout")
    assert products.execute("SELECT count(*) FROM copymatch.calibration").fetchone() == before


def test_reviewed_findings_serve_where_there_are_enough(products):
    review(products, 900, 0.9)
    evidence, source = products.execute("SELECT evidence, source FROM copy_calibrate('products')").fetchone()
    assert source == "findings" and evidence["findings"] == 900
    assert evidence["threshold_half"]["copy"]["held"]
    products.execute("DELETE FROM copymatch.finding")


def test_the_report_says_that_a_calibration_holds(products):
    review(products, 300, 0.995, "copy", 0.995)
    review(products, 200, 0.80, "review", 0.80)
    rows = {
        row[0]: row[1:]
        for row in products.execute(
            "SELECT tier, reviewed, confirmed, predicted, observed, observed_low, observed_high, wanted, "
            "calibration_error, drift, reason FROM copy_calibration_report('products')"
        ).fetchall()
    }
    products.execute("DELETE FROM copymatch.finding")
    assert list(rows) == ["copy", "review", "all"]
    reviewed, confirmed, predicted, observed, low, high, wanted, error, drift, reason = rows["copy"]
    assert (reviewed, confirmed, wanted, drift, reason) == (300, 298, 0.99, False, "holds")
    assert predicted == pytest.approx(0.995) and observed == pytest.approx(298 / 300)
    # Clopper and Pearson's interval, from a table.
    assert (low, high) == (pytest.approx(0.9761, abs=1e-3), pytest.approx(0.9992, abs=1e-3))
    assert error == pytest.approx(abs(0.995 - 298 / 300))
    assert rows["review"][:2] == (200, 160) and rows["all"][:2] == (500, 458)


def test_the_report_warns_of_drift_with_the_reason(products):
    review(products, 200, 0.85, "copy", 0.99)
    rows = {
        row[0]: row[1:]
        for row in products.execute("SELECT tier, drift, reason FROM copy_calibration_report('products')").fetchall()
    }
    assert rows["copy"][0] and "0.990 was wanted" in rows["copy"][1]
    assert rows["review"] == (False, "nothing reviewed yet")
    # A new calibration starts with an empty record.
    labels(products)
    products.execute("SELECT copy_calibrate('products', 'labels')")
    assert {
        row[1] for row in products.execute("SELECT tier, reviewed FROM copy_calibration_report('products')").fetchall()
    } == {0}
    products.execute("DELETE FROM copymatch.finding")


def test_only_the_owner_of_the_references_calibrates(products, sqlstate):
    schema = products.execute("SELECT current_schema()").fetchone()[0]
    products.execute(
        "DROP ROLE IF EXISTS shopkeeper; DROP ROLE IF EXISTS passer_by; CREATE ROLE shopkeeper; CREATE ROLE passer_by"
    )
    labels(products)
    try:
        products.execute(
            f"""GRANT USAGE, CREATE ON SCHEMA {schema} TO shopkeeper, passer_by;
                GRANT SELECT ON labels, products TO shopkeeper, passer_by;
                ALTER TABLE products OWNER TO shopkeeper; SET ROLE passer_by"""
        )
        for call in ("copy_calibrate('products', 'labels')", "copy_use_calibration('products', 0)"):
            with sqlstate("42501"):
                products.execute("SELECT " + call)
        with sqlstate("42501"):
            products.execute("""INSERT INTO copymatch.calibration (model, background_sha256, neighbours, factor,
                clamp_low, clamp_high, intercept, similarity_weight,
                background_weight, copy_probability, review_probability, reference_set, version)
                SELECT model, background_sha256, 5, 2.5, 0.1, 0.5, 0, 1, 0, 0.9, 0.5, 'products', 99
                FROM copymatch.calibration WHERE id = 0""")
        products.execute("SET ROLE shopkeeper")
        assert products.execute("SELECT created_by FROM copy_calibrate('products', 'labels')").fetchone() == (
            "shopkeeper",
        )
        products.execute("SELECT copy_use_calibration('products', 0)")
        with sqlstate("42501"):
            products.execute("INSERT INTO copymatch.calibration SELECT * FROM copymatch.calibration")
    finally:
        products.execute(
            "RESET ROLE; ALTER TABLE products OWNER TO CURRENT_USER; DROP OWNED BY shopkeeper, passer_by; "
            "DROP ROLE shopkeeper, passer_by"
        )


def test_dump_and_restore_keep_calibrations_and_which_one_is_in_use(products, server, new_db, connect):
    target = new_db(extension=False)
    schema = products.execute("SELECT current_schema()").fetchone()[0]
    labels(products)
    products.execute("SELECT copy_calibrate('products', 'labels', copy_precision => 0.95)")
    (first,) = products.execute("SELECT calibration FROM copymatch.reference_set").fetchone()
    (latest,) = products.execute("SELECT version FROM copy_calibrate('products', 'labels')").fetchone()
    products.execute("SELECT copy_use_calibration('products', %s)", [first])
    server.run(
        "/bin/bash", "-c",
        f"set -o pipefail; {server.bin}/pg_dump -d '{server.dsn(products.info.dbname)}' | {server.bin}/psql -qX -v "
        f"ON_ERROR_STOP=1 -d '{server.dsn(target)}'",
    )  # fmt: skip
    restored = connect(target)
    restored.execute(f"SET search_path = {schema}, public")
    for query in (
        "SELECT c::text FROM copymatch.calibration c WHERE c.reference_set IS NOT NULL ORDER BY c.id",
        "SELECT name, calibration FROM copymatch.reference_set",
        "SELECT * FROM copy_calibration_report('products') ORDER BY 1",
    ):
        rows = products.execute(query).fetchall()
        assert rows and restored.execute(query).fetchall() == rows, query
    version = restored.execute("SELECT version FROM copy_calibrate('products', 'labels')").fetchone()
    assert version == (latest + 1,), "the sequence and the versions go on"
    with pytest.raises(Exception, match="immutable|never change|append-only"):
        restored.execute("UPDATE copymatch.calibration SET intercept = 0 WHERE id = %s", [first])
