"""Beside pgvector: its types are adopted, so that its columns, indexes and clients and copymatch's are one.

Where the server has pgvector, that; else a stand-in of the same types (pgvector_stand_in), with
which tests of hnsw skip.
"""

import itertools
import pathlib
import shutil
import tempfile

import numpy as np
import pytest
from conftest import LOCAL, OLDER_MAJORS, _drop, _unused_name
from pgvector_stand_in import folder, installed
from pictures import jpeg, png, scene
from test_ivf_crash import QUICK
from test_ivf_recall import clustered, column, near, one, text
from test_pg_upgrade import FROM, upgrade
from test_reembed import SECOND, add_second_model
from test_rights_catalogue import RULES

DIMENSIONS = 256
TYPES = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s"
FILE = "SELECT pg_relation_filenode(%s::regclass)"
ADOPTED = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'copymatch_pgvector')"


@pytest.fixture(scope="session", autouse=True)
def pgvector(server):
    with installed(OLDER_MAJORS):
        yield


def is_real(db) -> bool:
    """Whether it is pgvector itself."""
    return one(db, "SELECT EXISTS (SELECT FROM pg_am WHERE amname = 'hnsw')")


def prepare(db, ours: str = "copies", theirs: str = "public", adopt: bool = True, first: str = "vector") -> None:
    """Both extensions in an empty database, as the owner of an existing application would have them."""
    for schema in {ours, theirs} - {"public"}:
        db.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    order = [("vector", theirs), ("copymatch", ours)]
    for extension, schema in order if first == "vector" else reversed(order):
        db.execute(f'CREATE EXTENSION {extension} SCHEMA "{schema}"')
    if adopt:
        db.execute(f'SELECT "{ours}".copy_adopt_pgvector()')
    db.execute(f'SET search_path = "$user", "{theirs}", "{ours}"')


@pytest.fixture(scope="session")
def _adopted(server, pgvector):
    """A database to copy others from."""
    name = _unused_name("adopted")
    with server.connect() as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    with server.connect(name) as db:
        prepare(db)
    yield name
    _drop(server, [name])


def _copied(server, template: str):
    """A connection on a database of its own."""
    name = _unused_name("both")
    with server.connect() as admin:
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    with server.connect(name) as db:
        db.execute('SET search_path = "$user", public, copies')
        yield db
    _drop(server, [name])


@pytest.fixture
def apart(server, _adopted):
    """A database with pgvector in public, where applications have it, and copymatch in copies,
    adopted; both in the path."""
    yield from _copied(server, _adopted)


@pytest.fixture(scope="module")
def _shared(server, _adopted):
    yield from _copied(server, _adopted)


@pytest.fixture
def both(_shared):
    """As `apart`, shared by tests that leave the extensions alone: each has a schema of its own, in front."""
    schema = _unused_name("schema")
    _shared.execute(f"CREATE SCHEMA {schema}; SET search_path = {schema}, public, copies")
    yield _shared
    _shared.execute("RESET ALL; SET client_min_messages = warning; SET search_path = public, copies")
    for name in column(_shared, "SELECT name FROM copymatch.reference_sets"):
        _shared.execute("SELECT copy_drop_set(%s)", [name])
    _shared.execute(f"DROP SCHEMA {schema} CASCADE")
    _shared.execute("RESET ALL")


def make_pictures(db) -> None:
    """A table of an application's: pictures, and vectors under an hnsw index where there is hnsw; no copymatch yet."""
    db.execute("CREATE TABLE pictures (id int PRIMARY KEY, title text, image bytea, embedding vector(256))")
    for number in range(6):
        db.execute("INSERT INTO pictures VALUES (%s, 'p', %s)", [number, jpeg(scene(number))])
    db.execute("UPDATE pictures SET embedding = copy_embed(image)")
    if is_real(db):
        db.execute("CREATE INDEX pictures_hnsw ON pictures USING hnsw (embedding vector_cosine_ops)")


@pytest.fixture
def application(both):
    make_pictures(both)
    return both


def explain(db, query: str, *parameters) -> str:
    return "\n".join(column(db, f"EXPLAIN (VERBOSE, COSTS OFF) {query}", *parameters))


# Installing


@pytest.mark.parametrize(
    ("first", "ours", "theirs"),
    [("vector", "copies", "public"), ("copymatch", "public", "extensions"), ("copymatch", "Odd schema", 'other "one')],
)
def test_adopted_in_whichever_order_and_schemas(new_db, connect, first, ours, theirs):
    db = connect(new_db(extension=False))
    theirs = theirs.replace('"', '""')
    prepare(db, ours, theirs, first=first)
    db.execute("CREATE TABLE t (id int PRIMARY KEY, image bytea, old " + f'"{theirs}".vector(256))')
    db.execute("INSERT INTO t VALUES (1, %s)", [jpeg(scene(1))])
    assert one(db, "SELECT copy_create_set('s', 't', 'id', 'image', 'old')") == 1
    assert column(db, "SELECT reference FROM copy_match(%s, 's', 1)", jpeg(scene(1))) == ["1"]
    assert column(db, "SELECT verdict FROM copy_match_descriptor((SELECT old FROM t), 's')") == ["copy"]
    assert one(db, "SELECT count(*) FROM copy_doctor() WHERE state <> 'ok' AND \"check\" IN ('set', 'index')") == 0


def test_one_schema_is_refused_with_the_statements_that_work(new_db, connect, sqlstate):
    db = connect(new_db(extension=False))
    db.execute("CREATE EXTENSION vector")
    with sqlstate("42710") as error:
        db.execute("CREATE EXTENSION copymatch")
    assert "pgvector" in error.value.diag.message_primary
    statements = error.value.diag.message_hint.replace(" then ", " ").split(";")
    assert len([statement for statement in statements if statement.strip()]) == 3
    for statement in statements:
        if statement.strip():
            db.execute(statement)
    assert one(db, ADOPTED)


def test_what_an_orms_migration_meets(new_db, connect, sqlstate):
    """CREATE EXTENSION IF NOT EXISTS vector, with copymatch alone and with both."""
    alone = connect(new_db())
    with sqlstate("42710") as error:
        alone.execute("CREATE EXTENSION IF NOT EXISTS vector")
    assert 'type "vector" already exists' in str(error.value)
    alone.execute("CREATE SCHEMA pgvector; CREATE EXTENSION IF NOT EXISTS vector SCHEMA pgvector")
    alone.execute("SELECT copy_adopt_pgvector()")
    alone.execute("CREATE EXTENSION IF NOT EXISTS vector")
    other = connect(new_db(extension=False))
    other.execute("CREATE EXTENSION vector; CREATE SCHEMA copies; CREATE EXTENSION copymatch SCHEMA copies")
    other.execute("CREATE EXTENSION IF NOT EXISTS vector")


def test_adopting_needs_pgvector_and_a_superuser_and_may_be_repeated(new_db, connect, sqlstate):
    db = connect(new_db())
    with sqlstate("42704") as error:
        db.execute("SELECT copy_adopt_pgvector()")
    assert "CREATE EXTENSION vector" in error.value.diag.message_hint
    db.execute("CREATE SCHEMA pgvector; CREATE EXTENSION vector SCHEMA pgvector")
    role = f"plain_{db.info.dbname}"
    db.execute(f'CREATE ROLE "{role}"; GRANT CREATE ON DATABASE "{db.info.dbname}" TO "{role}"; SET ROLE "{role}"')
    try:
        for statement in ("SELECT copy_adopt_pgvector()", "CREATE EXTENSION copymatch_pgvector"):
            with sqlstate("42501"):
                db.execute(statement)
    finally:
        db.execute(f'RESET ROLE; DROP OWNED BY "{role}"; DROP ROLE "{role}"')
    assert not one(db, ADOPTED)
    for _ in range(2):
        db.execute("SELECT copy_adopt_pgvector()")
    assert one(db, ADOPTED)


def test_types_of_others_by_the_same_names_are_not_adopted(new_db, connect, sqlstate):
    """An owner of extension vector who is no superuser may add types of his own to it."""
    db = connect(new_db(extension=False))
    prepare(db, adopt=False)
    db.execute("CREATE SCHEMA mine; CREATE TYPE mine.vector AS (x int); CREATE DOMAIN mine.halfvec AS text")
    db.execute("ALTER EXTENSION vector ADD TYPE mine.vector; ALTER EXTENSION vector ADD DOMAIN mine.halfvec")
    db.execute("SELECT copy_adopt_pgvector()")
    casts = column(
        db,
        "SELECT castsource::regtype::text FROM pg_cast WHERE casttarget = 'copies.vector'::regtype "
        "AND castmethod = 'b'",
    )
    assert casts == ["vector"]
    db.execute("CREATE TABLE t (id int PRIMARY KEY, image bytea, a mine.vector)")
    with sqlstate("42804"):
        db.execute("SELECT copy_create_set('s', 't', 'id', 'image', 'a')")


@pytest.mark.parametrize("rule", [rule for rule in RULES if "settings" not in rule and "columns" not in rule])
def test_no_member_of_copymatch_pgvector_breaks_the_rule(both, rule):
    both.execute("SET search_path = pg_catalog")
    assert (
        column(both, RULES[rule].replace("extname = 'copymatch'", "extname = 'copymatch_pgvector'").replace("%", "%%"))
        == []
    )


# Without adoption


def test_columns_of_a_pgvector_that_is_not_adopted_are_refused_with_the_way(new_db, connect, sqlstate):
    db = connect(new_db(extension=False))
    prepare(db, adopt=False)
    db.execute("CREATE TABLE t (id int PRIMARY KEY, image bytea, embedding public.vector(256))")
    with sqlstate("42804") as error:
        db.execute("SELECT copy_create_set('s', 't', 'id', 'image', 'embedding')")
    assert "copy_adopt_pgvector()" in error.value.diag.message_hint
    db.execute("SELECT copy_create_set('own', 't', 'id', 'image')")
    with sqlstate("42804"):
        db.execute("SELECT * FROM copy_match_table('t', 'id', 'embedding', 'own')")
    assert one(db, TYPES, "t", "descriptor") == "copies.vector(256)"
    with sqlstate("42804"):
        db.execute("SELECT copy_set_columns('own', descriptor => 'embedding')")


# Casts and operators


def test_no_operator_or_function_of_the_application_gets_another_meaning(new_db, connect):
    """Every operator and distance of both over every pair of types, in both orders of the search path: what was
    understood before the adoption is understood the same, to the OID, and nothing becomes ambiguous."""
    db = connect(new_db(extension=False))
    prepare(db, adopt=False)
    kinds = [f"{schema}.{kind}" for schema in ("copies", "public") for kind in ("vector", "halfvec")]
    kinds += ["bit(3)", "real[]", *(["public.sparsevec"] if is_real(db) else [])]
    db.execute(f"CREATE TABLE probe ({', '.join(f'c{number} {kind}' for number, kind in enumerate(kinds))})")
    # What PostgreSQL chose: the functions behind operators, calls and casts, in the order of the expression.
    db.execute("""CREATE FUNCTION public.chosen(expression text) RETURNS text LANGUAGE plpgsql AS $$
        BEGIN
            EXECUTE 'CREATE VIEW public.chosen AS SELECT ' || expression || ' AS x FROM public.probe';
            RETURN (SELECT coalesce(string_agg(m[1], ' '), 'as it is')
            FROM pg_rewrite, regexp_matches(ev_action::text, ':(?:opno|funcid|aggfnoid|resulttype) \\d+', 'g') m
                    WHERE ev_class = 'public.chosen'::regclass);
        EXCEPTION WHEN OTHERS THEN RETURN 'error ' || SQLSTATE;
        END $$""")
    names = [f"c{number}" for number in range(len(kinds))] + ["'[1,2,3]'"]
    operators = column(
        db,
        """SELECT DISTINCT oprname::text FROM pg_operator
        WHERE oprnamespace IN ('copies'::regnamespace, 'public'::regnamespace) AND oprname <> '<~' ORDER BY 1""",
    )
    functions = ["l2_distance", "inner_product", "cosine_distance", "l1_distance", "hamming_distance"]
    expressions = [f"{a} {operator} {b}" for operator, a, b in itertools.product(operators, names, names)]
    expressions += [f"{name}({a}, {b})" for name, a, b in itertools.product(functions, names, names)]
    expressions += [
        f"{name}({a})"
        for name in ("vector_dims", "l2_norm", "l2_normalize", "avg", "sum", "max", "binary_quantize")
        for a in names
    ]
    expressions += [f"coalesce({a}, {b})" for a, b in itertools.product(names, names)]

    def readings(path: str) -> dict:
        db.execute(f"SET search_path = {path}")
        with db.transaction(force_rollback=True):
            found = {}
            for expression in expressions:
                found[expression] = one(db, "SELECT public.chosen(%s)", expression)
                if not found[expression].startswith("error"):
                    db.execute("DROP VIEW public.chosen")
        return found

    paths = ("public, copies", "copies, public", "public", "copies")
    before = {path: readings(path) for path in paths}
    db.execute("SET search_path = public; SELECT copies.copy_adopt_pgvector()")
    newly = 0
    for path in paths:
        after = readings(path)
        for expression, reading in before[path].items():
            if not reading.startswith("error"):
                assert after[expression] == reading, f"{expression} with the path {path}"
            elif reading != "error 42725":
                assert after[expression] != "error 42725", f"{expression} with the path {path} is ambiguous"
                newly += not after[expression].startswith("error")
    assert newly > 20, "values of both types are compared now"


def test_values_go_both_ways_by_assignment_and_into_every_function(both):
    both.execute("CREATE TABLE t (theirs public.vector(3), ours copies.vector(3), half public.halfvec(3))")
    both.execute("INSERT INTO t VALUES ('[1,2,3]'::copies.vector, '[1,2,3]'::public.vector, '[1,2,3]'::copies.halfvec)")
    both.execute("UPDATE t SET theirs = ours, ours = theirs, half = ours::copies.halfvec")
    assert one(both, "SELECT theirs::text || ours::text || half::text FROM t") == "[1,2,3]" * 3
    assert one(both, "SELECT copies.cosine_distance(theirs, ours) FROM t") == 0
    assert one(both, "SELECT theirs OPERATOR(copies.<->) ours FROM t") == 0
    both.execute("CREATE TABLE many (d public.vector[])")
    both.execute("INSERT INTO many SELECT copy_embed_batch(ARRAY[%s]::bytea[])", [jpeg(scene(1))])
    assert one(both, "SELECT vector_dims(d[1]) FROM many") == 256


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
@pytest.mark.parametrize(("start", "end"), [("public", "copies"), ("copies", "public")])
def test_alter_type_leaves_the_rows_where_they_are(both, sqlstate, kind, start, end):
    both.execute(f"CREATE TABLE t (id int, d {start}.{kind}(3)); INSERT INTO t VALUES (1, '[1,2,3]'), (2, NULL)")
    file = one(both, FILE, "t")
    for new in (f"{end}.{kind}(3)", f"{start}.{kind}(3)", f"{end}.{kind}", f"{start}.{kind}"):
        both.execute(f"ALTER TABLE t ALTER d TYPE {new}")
        assert one(both, TYPES, "t", "d") == new.removeprefix("public.")
        assert one(both, FILE, "t") == file, f"rewritten for {new}"
    assert column(both, "SELECT d::text FROM t ORDER BY id") == ["[1,2,3]", None]
    # Dimensions that no modifier vouches for are looked at.
    with sqlstate("22000"):
        both.execute(f"ALTER TABLE t ALTER d TYPE {end}.{kind}(4)")
    both.execute(f"ALTER TABLE t ALTER d TYPE {end}.{kind}(3)")
    assert one(both, FILE, "t") != file
    with sqlstate("22000"):
        both.execute(f"ALTER TABLE t ALTER d TYPE {start}.{kind}(4)")
    with sqlstate("22000"):
        both.execute("INSERT INTO t VALUES (3, '[1,2]')")


def test_views_over_a_cast_survive_and_say_the_same(both):
    both.execute(
        "CREATE TABLE t (d public.vector(3)); "
        "CREATE VIEW v AS SELECT d::copies.vector(3) AS d, d::copies.vector(3)::public.vector(3) AS e FROM t"
    )
    both.execute("INSERT INTO t VALUES ('[1,2,3]')")
    assert both.execute("SELECT d::text, e::text FROM v").fetchone() == ("[1,2,3]", "[1,2,3]")
    assert one(both, "SELECT pg_get_viewdef('v')").count("::copies.vector(3)") >= 2


# Indexes


@pytest.fixture
def items(both):
    """3,000 vectors of pgvector's types."""
    vectors = clustered(3000)
    both.execute("CREATE TABLE items (id int PRIMARY KEY, v vector(32), h halfvec(32), b bit(64))")
    rng = np.random.default_rng(3)
    bits = rng.random((3000, 64)) < np.repeat(rng.random((60, 64)), 50, axis=0)
    with both.cursor().copy("COPY items FROM STDIN") as copy:
        for number, vector in enumerate(vectors):
            copy.write_row([number, text(vector), text(vector), "".join("01"[int(bit)] for bit in bits[number])])
    both.execute("ANALYZE items; SET enable_seqscan = off; SET copymatch.probes = 30000")
    return both


@pytest.mark.parametrize("kind", ["v", "h"])
@pytest.mark.parametrize(("metric", "operator"), [("l2", "<->"), ("ip", "<#>"), ("cosine", "<=>")])
def test_ivf_gives_the_exact_order_by_the_operators_of_both(items, kind, metric, operator):
    name = {"v": "vector", "h": "halfvec"}[kind]
    items.execute(f"CREATE INDEX items_ivf ON items USING ivf ({kind} {name}_{metric}_ops)")
    items.execute("SET max_parallel_workers_per_gather = 0")
    for query in near(clustered(3000), 5):
        for owner in ("public", "copies"):
            sql = f"SELECT id FROM items ORDER BY {kind} OPERATOR({owner}.{operator}) %s::{owner}.{name} LIMIT 10"
            assert "Index Scan using items_ivf" in explain(items, sql, text(query))
            found = column(items, sql, text(query))
            items.execute("SET enable_indexscan = off")
            exact = column(items, sql, text(query))
            items.execute("SET enable_indexscan = on")
            assert found == exact
    assert items.execute("SELECT * FROM copy_index_check('items_ivf', true)").fetchall() == []
    assert one(
        items,
        "SELECT bool_and(amvalidate(oid)) FROM pg_opclass WHERE opcmethod = (SELECT oid FROM pg_am "
        "WHERE amname = 'ivf')",
    )


def test_ivf_takes_a_bound_in_pgvectors_operator(items):
    items.execute("CREATE INDEX items_ivf ON items USING ivf (v)")
    query = text(clustered(3000)[7])
    sql = "SELECT id FROM items WHERE v <-> %s < 0.4 ORDER BY v <-> %s"
    plan = explain(items, sql, query, query)
    assert "Index Cond" in plan and "Filter" in plan, "the class of pgvector's vector is the default"
    found = column(items, sql, query, query)
    items.execute("SET enable_indexscan = off")
    assert found == column(items, sql, query, query) and found[0] == 7


def test_ivf_on_pgvectors_column_keeps_its_dimensions_where_the_column_loses_them(items):
    items.execute("CREATE INDEX items_ivf ON items USING ivf (v vector_cosine_ops)")
    file = one(items, FILE, "items_ivf")
    items.execute("ALTER TABLE items ALTER v TYPE vector")
    assert one(items, FILE, "items_ivf") == file
    items.execute("REINDEX INDEX items_ivf")
    assert one(items, "SELECT copy_index_dimensions('items_ivf')") == 32


@pytest.mark.parametrize("owner", ["public", "copies"])
def test_ivf_over_bits_orders_by_the_hamming_distance(items, owner):
    items.execute(f"CREATE INDEX items_ivf ON items USING ivf (b {owner}.bit_hamming_ops)")
    distance = f"b OPERATOR({owner}.<~>) (SELECT b FROM items WHERE id = 77)"
    sql = f"SELECT id, {distance} FROM items ORDER BY {distance} LIMIT 40"
    assert "Index Scan using items_ivf" in explain(items, sql)
    found = items.execute(sql).fetchall()
    assert found[0][1] == 0 and [d for _, d in found] == sorted(d for _, d in found)
    bounded = f"SELECT id FROM items WHERE {distance} <= 9 ORDER BY {distance}"
    near_ones = set(column(items, bounded))
    assert items.execute("SELECT * FROM copy_index_check('items_ivf', true)").fetchall() == []
    items.execute("SET enable_indexscan = off")
    assert [d for _, d in found] == column(items, f"SELECT {distance} FROM items ORDER BY 1 LIMIT 40")
    assert near_ones == set(column(items, f"SELECT id FROM items WHERE {distance} <= 9"))


def test_ivf_over_bits_refuses_a_query_of_another_length_as_the_operator_does(items, sqlstate):
    items.execute("CREATE INDEX items_ivf ON items USING ivf (b bit_hamming_ops)")
    for setting in ("on", "off"):
        items.execute(f"SET enable_indexscan = {setting}")
        with sqlstate("22000") as error:
            items.execute("SELECT id FROM items ORDER BY b <~> B'101' LIMIT 1")
        assert "bit lengths" in error.value.diag.message_primary


def test_hnsw_and_ivf_stand_side_by_side_and_each_can_go(items):
    if not is_real(items):
        pytest.skip("the stand-in for pgvector has no hnsw")
    query = text(clustered(3000)[5])
    sql = "SELECT id FROM items ORDER BY v <=> %s LIMIT 10"
    items.execute("RESET copymatch.probes; CREATE INDEX items_hnsw ON items USING hnsw (v vector_cosine_ops)")
    before = explain(items, sql, query)
    assert "items_hnsw" in before
    items.execute("CREATE INDEX CONCURRENTLY items_ivf ON items USING ivf (v vector_cosine_ops)")
    cost = "EXPLAIN (FORMAT json) " + sql
    chosen = one(items, cost, query)[0]["Plan"]
    # copymatch's operator is for ivf alone: so the two are compared.
    ours = sql.replace("v <=> %s", "v OPERATOR(copies.<=>) %s::copies.vector")
    assert "items_ivf" in explain(items, ours, query)
    assert column(items, sql, query)[0] == column(items, ours, query)[0] == 5
    items.execute("BEGIN; DROP INDEX items_ivf")
    hnsw = one(items, cost, query)[0]["Plan"]
    items.execute("ROLLBACK; BEGIN; DROP INDEX items_hnsw")
    ivf = one(items, cost, query)[0]["Plan"]
    items.execute("ROLLBACK")
    assert chosen["Total Cost"] == min(hnsw["Total Cost"], ivf["Total Cost"]), "the planner takes the cheaper one"
    items.execute("DROP INDEX CONCURRENTLY items_hnsw")
    assert "items_ivf" in explain(items, sql, query)
    items.execute("CREATE INDEX items_again ON items USING hnsw (v vector_cosine_ops)")
    items.execute("DROP INDEX items_ivf")
    assert explain(items, sql, query) == before.replace("items_hnsw", "items_again")


@pytest.mark.parametrize("path", ["public, copies", "copies, public"])
def test_index_classes_are_found_by_name_whatever_the_order_of_the_path(items, path):
    """pgvector's column takes either class; only one of copymatch's own type, with pgvector's schema in
    front, needs the schema."""
    items.execute(f"SET search_path = {one(items, 'SELECT current_schema()')}, {path}")
    items.execute("CREATE INDEX items_ivf ON items USING ivf (v vector_cosine_ops)")
    query = text(clustered(3000)[5])
    assert "items_ivf" in explain(items, "SELECT id FROM items ORDER BY v <=> %s LIMIT 1", query)
    items.execute("CREATE TABLE own (d copies.vector(3))")
    items.execute("CREATE INDEX ON own USING ivf (d copies.vector_cosine_ops)")


# Sets


def test_table_of_an_application_becomes_a_set_by_one_statement_and_is_dropped_again(application):
    """The whole life of a set on an existing column: nothing is rewritten, and the application's queries keep
    their plans or get better."""
    db = application
    query = "SELECT id FROM pictures ORDER BY embedding <=> (SELECT embedding FROM pictures WHERE id = 3) LIMIT 3"
    db.execute("SET enable_seqscan = off")
    nearest, file = column(db, query), one(db, FILE, "pictures")
    cost = one(db, "EXPLAIN (FORMAT json) " + query)[0]["Plan"]["Total Cost"]

    descriptors = one(db, "SELECT md5(string_agg(embedding::text, ' ' ORDER BY id)) FROM pictures")
    db.execute("SELECT copy_create_set('pictures', 'pictures', 'id', 'image', 'embedding')")
    assert one(db, "SELECT md5(string_agg(embedding::text, ' ' ORDER BY id)) FROM pictures") == descriptors
    assert one(db, TYPES, "pictures", "embedding") == "vector(256)"
    index = one(
        db,
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'pictures'::regclass "
        "AND indexrelid::regclass::text ~ 'embedding'",
    )
    of_index = (
        "SELECT o.opcintype::regtype::text FROM pg_index i JOIN pg_opclass o ON o.oid = i.indclass[0] "
        "WHERE i.indexrelid = %s::regclass"
    )
    assert one(db, of_index, index) == "vector", "the class of pgvector's type"

    # Matched: images, a stored descriptor, whole tables of either.
    for number in (0, 3):
        found = db.execute(
            "SELECT reference, verdict FROM copy_match(%s, k => 1)", [jpeg(scene(number), 60)]
        ).fetchone()
        assert found == (str(number), "copy")
        stored = (
            "SELECT reference FROM copy_match_descriptor((SELECT embedding FROM pictures WHERE id = %s), 'pictures', 1)"
        )
        assert one(db, stored, number) == str(number)
    for source in ("image", "embedding"):
        pairs = db.execute(
            "SELECT upload, reference FROM copy_match_table('pictures', 'id', %s, 'pictures', 1)", [source]
        ).fetchall()
        assert sorted(pairs) == [(str(number), str(number)) for number in range(6)]
    assert one(db, "SELECT copy_background(embedding) FROM pictures WHERE id = 1") > 0

    # Kept: the trigger writes pgvector's column.
    db.execute("INSERT INTO pictures VALUES (10, 'new', %s)", [png(scene(10))])
    db.execute("UPDATE pictures SET image = %s WHERE id = 0", [jpeg(scene(20))])
    assert one(db, "SELECT count(*) FROM pictures WHERE embedding <=> copy_embed(image)::vector > 1e-4") == 0
    db.execute("UPDATE pictures SET embedding = NULL WHERE id = 1")
    db.execute("CALL copy_fill_set('pictures')")
    assert db.execute("SELECT * FROM copy_check_set('pictures')").fetchone() == (7, 0, 0, 0)
    db.execute("UPDATE pictures SET image = %s WHERE id = 0", [jpeg(scene(0))])

    # Verified, evaluated, looked at.
    found = db.execute(
        "SELECT reference, verified FROM copy_match(%s, k => 1, verify => 'all')", [jpeg(scene(2), 70)]
    ).fetchone()
    assert found == ("2", True)
    db.execute("CREATE VIEW benchmark AS SELECT id AS reference, embedding AS descriptor FROM pictures")
    assert one(db, "SELECT recall_at_1 FROM copy_evaluate('benchmark', 'pictures')") == 1
    assert (
        one(db, "SELECT count(*) FROM copy_doctor() WHERE state <> 'ok' AND \"check\" IN ('set', 'index', 'trigger')")
        == 0
    )

    assert one(db, FILE, "pictures") == file, "rewritten"
    assert column(db, query) == nearest
    assert one(db, "EXPLAIN (FORMAT json) " + query)[0]["Plan"]["Total Cost"] <= cost * 1.05

    db.execute("SELECT copy_drop_set('pictures')")
    db.execute(f"DROP INDEX {index}; DROP VIEW benchmark")
    assert one(db, FILE, "pictures") == file
    assert column(db, query) == nearest


def test_old_queries_of_the_application_keep_their_plans_or_get_cheaper_ones(both):
    """Before copymatch had anything to do with the table, and behind copy_create_set, which builds an
    ivf index beside hnsw."""
    if not is_real(both):
        pytest.skip("the stand-in for pgvector has no hnsw")
    vectors = clustered(3000, 256)
    both.execute("CREATE TABLE items (id int PRIMARY KEY, kind int, embedding vector(256))")
    with both.cursor().copy("COPY items FROM STDIN") as copy:
        for number, vector in enumerate(vectors):
            copy.write_row([number, number % 7, text(vector)])
    both.execute("CREATE INDEX items_hnsw ON items USING hnsw (embedding vector_cosine_ops)")
    both.execute("CREATE INDEX items_kind ON items (kind); ANALYZE items")
    query = text(vectors[5])
    queries = [
        f"SELECT id FROM items ORDER BY embedding <=> '{query}' LIMIT 10",
        f"SELECT id, 1 - (embedding <=> '{query}') FROM items WHERE kind = 3 ORDER BY embedding <=> '{query}' LIMIT 10",
        f"SELECT id FROM items WHERE embedding <=> '{query}' < 0.3 ORDER BY embedding <=> '{query}' LIMIT 10",
        f"SELECT id FROM items ORDER BY embedding <-> '{query}' LIMIT 10",
        f"SELECT count(*) FROM items WHERE embedding <=> '{query}' < 0.3",
        "SELECT a.id, (SELECT b.id FROM items b WHERE b.id <> a.id ORDER BY b.embedding <=> a.embedding LIMIT 1) "
        "FROM items a WHERE a.id < 5",
        "SELECT avg(embedding) FROM items GROUP BY kind",
        "SELECT embedding FROM items WHERE id = 7",
    ]

    def plans(path: str) -> list[tuple[str, float, list]]:
        both.execute(f"SET search_path = {path}")
        return [
            (
                explain(both, sql).replace("public.", ""),
                one(both, f"EXPLAIN (FORMAT json) {sql}")[0]["Plan"]["Total Cost"],
                both.execute(sql).fetchall(),
            )
            for sql in queries
        ]

    schema = one(both, "SELECT current_schema()")
    before = plans(f"{schema}, public")
    both.execute("SET search_path = public, copies")
    both.execute(f"SELECT copy_create_set('items', '{schema}.items', 'id', NULL, 'embedding')")
    for path in (f"{schema}, public", f"{schema}, public, copies", f"{schema}, copies, public"):
        for sql, old, new in zip(queries, before, plans(path), strict=True):
            same = new[0] == old[0]
            assert same or "items_embedding_idx" in new[0] and new[1] <= old[1], f"{sql} with the path {path}: {new[0]}"
            # Of ten near ones an approximate index may take another; what a plan of its own gave stays.
            assert new[2] == old[2] if same else len(new[2]) >= len(old[2])


def test_set_on_pgvectors_column_is_re_embedded_in_its_type(application):
    db = application
    db.execute("SELECT copy_create_set('pictures', 'pictures', 'id', 'image', 'embedding')")
    add_second_model(db)
    file = one(db, FILE, "pictures")
    db.execute("CALL copy_reembed('pictures', %s, build_index => true)", [SECOND])
    assert one(db, "SELECT model FROM copymatch.reference_sets") == SECOND
    searched = one(db, "SELECT descriptor_column::text FROM copymatch.reference_sets")
    assert one(db, TYPES, "pictures", searched) == "vector(256)"
    assert one(db, "SELECT copy_revert_reembed('pictures')") == "reverted"
    assert one(db, "SELECT reference FROM copy_match(%s, k => 1)", jpeg(scene(4))) == "4"
    db.execute("CALL copy_reembed('pictures')")
    assert one(db, "SELECT reference FROM copy_match(%s, k => 1)", jpeg(scene(4))) == "4"
    db.execute("INSERT INTO pictures VALUES (10, 'new', %s)", [jpeg(scene(10))])
    db.execute("SELECT copy_finish_reembed('pictures')")
    assert one(db, TYPES, "pictures", "embedding") == "vector(256)"
    assert one(db, "SELECT reference FROM copy_match(%s, k => 1)", jpeg(scene(10))) == "10"
    assert one(db, FILE, "pictures") == file, "rewritten"


def test_new_sets_take_the_type_that_the_database_uses(apart):
    both = apart
    both.execute("CREATE TABLE t (id int PRIMARY KEY, image bytea)")
    both.execute("SELECT copy_create_set('s', 't', 'id', 'image')")
    assert one(both, TYPES, "t", "descriptor") == "vector(256)"
    role = f"plain_{both.info.dbname}"
    both.execute(
        f'CREATE ROLE "{role}"; REVOKE USAGE ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA copies TO PUBLIC'
    )
    both.execute(f'CREATE SCHEMA his AUTHORIZATION "{role}"')
    try:
        both.execute(f'CREATE TABLE his.u (id int PRIMARY KEY, image bytea); ALTER TABLE his.u OWNER TO "{role}"')
        both.execute("SELECT copy_create_set('u', 'his.u', 'id', 'image')")
        assert one(both, TYPES, "his.u", "descriptor") == "copies.vector(256)", "he may not name pgvector's"
    finally:
        both.execute(f'DROP OWNED BY "{role}" CASCADE; DROP ROLE "{role}"')


def test_column_for_vectors_of_something_else_is_refused(both, sqlstate):
    both.execute(
        "CREATE TABLE t (id int PRIMARY KEY, image bytea, openai vector(1536), half halfvec(256), own copies.vector(3))"
    )
    with sqlstate("42804") as error:
        both.execute("SELECT copy_create_set('s', 't', 'id', 'image', 'openai')")
    assert "1536 dimensions" in error.value.diag.message_primary
    for name in ("half", "own"):
        with sqlstate("42804"):
            both.execute("SELECT copy_create_set('s', 't', 'id', 'image', %s)", [name])


def test_sets_of_both_types_are_searched_together(application):
    db = application
    db.execute("SELECT copy_create_set('theirs', 'pictures', 'id', 'image', 'embedding')")
    db.execute("CREATE TABLE own (id int PRIMARY KEY, image bytea, descriptor copies.vector(256))")
    db.execute("INSERT INTO own VALUES (100, %s)", [jpeg(scene(50))])
    db.execute("SELECT copy_create_set('own', 'own', 'id', 'image')")
    db.execute("SELECT copy_create_set('bad', 'pictures', 'id', 'image', 'embedding', negative => true)")
    for picture, expected in ((50, ("own", "100")), (5, ("theirs", "5"))):
        found = db.execute(
            "SELECT reference_set, reference FROM copy_match(%s, NULL, 1) ORDER BY score DESC LIMIT 1",
            [jpeg(scene(picture))],
        ).fetchone()
        assert found == expected
    # One session checks both: the plans of a function's statements are kept.
    for name in ("theirs", "own", "theirs"):
        assert one(db, "SELECT differing FROM copy_check_set(%s)", name) == 0


def test_set_is_calibrated_on_pgvectors_column(both):
    both.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea, embedding vector(256))")
    for number in range(42):
        both.execute("INSERT INTO refs VALUES (%s, %s)", [number, jpeg(scene(number))])
    both.execute("SELECT copy_create_set('refs', 'refs', 'id', 'image', 'embedding')")
    both.execute(
        "CREATE TABLE labels AS SELECT a.id AS reference, b.embedding AS descriptor, a.id = b.id AS is_copy "
        "FROM refs a, refs b"
    )
    labelled = "SELECT cardinality(similarity) FROM copymatch.labelled_pairs('refs', 'labels')"
    assert one(both, labelled) == one(both, "SELECT count(*) FROM labels") > 100
    assert one(both, "SELECT count(*) FROM copymatch.labelled_references('refs', ARRAY['0', '1'])") == 2
    calibrated = (
        "SELECT (evidence ->> 'copies')::int FROM copy_calibrate('refs', source => 'edits', copies => 60, "
        "unrelated => 40, copy_precision => 0.6, review_precision => 0.5, confidence => 0.5, apply => false)"
    )
    assert one(both, calibrated) > 40


def test_uploads_are_flagged_against_pgvectors_column(application):
    db = application
    db.execute("SELECT copy_create_set('pictures', 'pictures', 'id', 'image', 'embedding')")
    db.execute("CREATE TABLE uploads (id int PRIMARY KEY, image bytea)")
    db.execute(
        "CREATE TRIGGER flag AFTER INSERT ON uploads FOR EACH ROW EXECUTE FUNCTION copy_flag('image', 'id', "
        "'pictures', 'mode=async')"
    )
    db.execute("INSERT INTO uploads VALUES (1, %s)", [jpeg(scene(2), 70)])
    db.execute("CALL copy_process_queue()")
    assert db.execute(
        "SELECT upload, reference FROM copymatch.finding WHERE state = 'open' ORDER BY score DESC LIMIT 1"
    ).fetchone() == ("1", "2")


def test_shards_of_pgvectors_type_are_asked_for_their_nearest(new_db, connect):
    coordinator = connect(new_db(extension=False))
    prepare(coordinator)
    if not one(coordinator, "SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
        pytest.skip("this PostgreSQL has no postgres_fdw")
    shard_name = new_db(extension=False)
    shard = connect(shard_name)
    prepare(shard)
    info = coordinator.info
    coordinator.execute("CREATE EXTENSION postgres_fdw")
    coordinator.execute("CREATE TABLE refs (id int, shard int, descriptor vector(256)) PARTITION BY LIST (shard)")
    shard.execute("CREATE TABLE refs (id int, shard int, descriptor vector(256), PRIMARY KEY (id, shard))")
    vectors = clustered(1500, 256)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with shard.cursor().copy("COPY refs FROM STDIN") as copy:
        for number, vector in enumerate(vectors):
            copy.write_row([number, 1, text(vector)])
    shard.execute("CREATE INDEX ON refs USING ivf (descriptor vector_cosine_ops); ANALYZE refs")
    shard.execute(f'ALTER DATABASE "{shard_name}" SET enable_seqscan = off')
    coordinator.execute(
        f"CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{info.host}', port '{info.port}', "
        f"dbname '{shard_name}', extensions 'copymatch', async_capable 'true');"
        f"CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (user '{info.user}', password_required 'false');"
        "CREATE FOREIGN TABLE refs1 PARTITION OF refs FOR VALUES IN (1) SERVER s OPTIONS (table_name 'refs');"
        "CREATE TABLE refs2 PARTITION OF refs FOR VALUES IN (2)"
    )
    coordinator.execute("SELECT copy_create_set('refs', 'refs', 'id', NULL, 'descriptor')")
    advice = one(coordinator, "SELECT hint FROM copy_doctor() WHERE \"check\" = 'shard'")
    assert "vector" in advice
    coordinator.execute(advice)
    assert one(coordinator, "SELECT state FROM copy_doctor() WHERE \"check\" = 'shard'") == "ok"
    query = text(vectors[9])
    assert one(coordinator, "SELECT reference FROM copy_match_descriptor(%s::vector, 'refs', 1)", query) == "9"
    remote = explain(
        coordinator,
        "SELECT id FROM refs1 AS r ORDER BY r.descriptor OPERATOR(copies.<=>) %s::copies.vector LIMIT 5",
        query,
    )
    assert "ORDER BY" in remote and "LIMIT" in remote, "the shard sorts and limits"


# Life of the extensions


@pytest.fixture
def searched(apart):
    make_pictures(apart)
    apart.execute("SELECT copy_create_set('pictures', 'pictures', 'id', 'image', 'embedding')")
    return apart


def still_works(db) -> None:
    assert one(db, "SELECT reference FROM copy_match(%s, 'pictures', 1)", jpeg(scene(3))) == "3"
    db.execute(
        "INSERT INTO pictures VALUES (30, 'new', %s) ON CONFLICT (id) DO UPDATE SET image = excluded.image",
        [jpeg(scene(30))],
    )
    assert one(db, "SELECT reference FROM copy_match(%s, 'pictures', 1)", jpeg(scene(30))) == "30"


def test_dropping_copymatch_pgvector_needs_cascade_while_an_index_uses_it(searched, sqlstate):
    with sqlstate("2BP01") as error:
        searched.execute("DROP EXTENSION copymatch_pgvector")
    assert "pictures_embedding_idx" in error.value.diag.message_detail
    file = one(searched, FILE, "pictures")
    searched.execute("DROP EXTENSION copymatch_pgvector CASCADE")
    assert one(searched, FILE, "pictures") == file
    assert one(searched, TYPES, "pictures", "embedding") == "vector(256)"
    assert (
        one(
            searched,
            "SELECT count(*) FROM pg_cast c WHERE 'copies.vector'::regtype IN (c.castsource, c.casttarget) "
            "AND 'public.vector'::regtype IN (c.castsource, c.casttarget)",
        )
        == 0
    )
    with sqlstate("42883"):
        searched.execute("SELECT * FROM copy_match(%s, 'pictures', 1)", [jpeg(scene(3))])
    searched.execute("SELECT copy_adopt_pgvector()")
    still_works(searched)


def test_dropping_copymatch_leaves_pgvectors_columns(searched, sqlstate):
    with sqlstate("2BP01"):
        searched.execute("DROP EXTENSION copymatch")
    searched.execute("DROP EXTENSION copymatch CASCADE")
    assert one(searched, TYPES, "pictures", "embedding") == "vector(256)"
    assert (
        one(
            searched,
            "SELECT id FROM pictures ORDER BY embedding <=> (SELECT embedding FROM pictures WHERE id = 3) LIMIT 1",
        )
        == 3
    )
    assert column(searched, "SELECT extname FROM pg_extension WHERE extname <> 'plpgsql'") == ["vector"]
    searched.execute("DROP SCHEMA copies")


def test_dropping_pgvector_leaves_copymatch_whole(searched, sqlstate):
    with sqlstate("2BP01"):
        searched.execute("DROP EXTENSION vector")
    searched.execute("DROP EXTENSION vector CASCADE")
    assert not one(searched, ADOPTED)
    with sqlstate("42703"):
        searched.execute("SELECT * FROM copy_match(%s, 'pictures', 1)", [jpeg(scene(3))])
    searched.execute("SELECT copy_drop_set('pictures'); SELECT copy_create_set('pictures', 'pictures', 'id', 'image')")
    assert one(searched, TYPES, "pictures", "descriptor") == "vector(256)", "copymatch's: there is no other now"
    still_works(searched)


def test_pgvector_is_updated_under_an_adopted_set(new_db, connect):
    db = connect(new_db(extension=False))
    versions = column(
        db,
        "SELECT version FROM pg_available_extension_versions WHERE name = 'vector' "
        "ORDER BY string_to_array(version, '.')::int[]",
    )
    latest = one(db, "SELECT default_version FROM pg_available_extensions WHERE name = 'vector'")
    if versions[0] == latest:
        pytest.skip(f"this pgvector can be installed as {latest} alone")
    db.execute(
        f"CREATE EXTENSION vector VERSION '{versions[0]}'; CREATE SCHEMA copies; "
        "CREATE EXTENSION copymatch SCHEMA copies"
    )
    db.execute("SELECT copies.copy_adopt_pgvector(); SET search_path = public, copies")
    db.execute("CREATE TABLE pictures (id int PRIMARY KEY, title text, image bytea, embedding vector(256))")
    db.execute("INSERT INTO pictures VALUES (3, 'p', %s)", [jpeg(scene(3))])
    db.execute("SELECT copy_create_set('pictures', 'pictures', 'id', 'image', 'embedding')")
    db.execute("ALTER EXTENSION vector UPDATE")
    assert one(db, "SELECT extversion FROM pg_extension WHERE extname = 'vector'") == latest
    still_works(db)


def test_set_schema_of_pgvector_takes_the_classes_along_when_adopted_anew(searched, sqlstate):
    searched.execute(
        "CREATE SCHEMA elsewhere; ALTER EXTENSION vector SET SCHEMA elsewhere; "
        "SET search_path = elsewhere, public, copies"
    )
    still_works(searched)
    searched.execute("SELECT copy_adopt_pgvector()")
    classes = (
        "SELECT count(*), count(*) FILTER (WHERE opcnamespace = 'elsewhere'::regnamespace) FROM pg_opclass c "
        "JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_opclass'::regclass JOIN pg_extension e "
        "ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass WHERE extname = 'copymatch_pgvector'"
    )
    assert searched.execute(classes).fetchone() == (7, 7)
    searched.execute(
        "SET search_path = elsewhere; CREATE INDEX again ON public.pictures USING ivf (embedding vector_cosine_ops)"
    )
    searched.execute("SET search_path = elsewhere, public, copies")
    still_works(searched)
    with sqlstate("0A000"):
        searched.execute("ALTER EXTENSION copymatch SET SCHEMA elsewhere")
    with sqlstate("0A000"):
        searched.execute("ALTER EXTENSION copymatch_pgvector SET SCHEMA elsewhere")


@pytest.mark.parametrize("form", ["directory", "custom", "plain"])
def test_dumped_and_restored(searched, server, new_db, connect, request, form):
    target = new_db(extension=False)
    place = server.own(pathlib.Path(tempfile.mkdtemp(prefix="dump-", dir=LOCAL)))
    request.addfinalizer(lambda: shutil.rmtree(place, ignore_errors=True))
    file = place / "dump"
    server.run("pg_dump", "-d", searched.info.dbname, "-h", server.socket, "-U", "postgres", f"-F{form[0]}", "-f", file)
    if form == "plain":
        server.run(
            "psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", target, "-h", server.socket, "-U", "postgres", "-f", file
        )
    else:
        server.run("pg_restore", "-j", "2", "-e", "-d", target, "-h", server.socket, "-U", "postgres", file)
    restored = connect(target)
    restored.execute("SET search_path = public, copies")
    assert one(restored, TYPES, "pictures", "embedding") == "vector(256)"
    definition = (
        "SELECT string_agg(pg_get_indexdef(indexrelid), '; ' ORDER BY indexrelid::regclass::text) FROM pg_index "
        "WHERE indrelid = 'pictures'::regclass"
    )
    searched.execute("SET search_path = public, copies")
    assert one(restored, definition) == one(searched, definition)
    still_works(restored)


@pytest.mark.parametrize("major", FROM)
def test_carried_over_by_pg_upgrade(fresh_cluster, major):
    if not (folder(major) / "copymatch_pgvector.control").exists():
        pytest.skip(f"an earlier copymatch is installed for {major}")
    old, new = fresh_cluster(major, **QUICK), fresh_cluster(**QUICK)
    vectors = clustered(2000, 256)
    with old.connect() as db:
        prepare(db)
        db.execute("CREATE TABLE pictures (id int PRIMARY KEY, title text, image bytea, embedding vector(256))")
        db.execute("INSERT INTO pictures VALUES (3, 'p', %s)", [jpeg(scene(3))])
        db.execute("SELECT copy_create_set('pictures', 'pictures', 'id', 'image', 'embedding')")
        db.execute("CREATE TABLE t (id int, v vector(256), h halfvec(256), b bit(256))")
        with db.cursor().copy("COPY t (id, v, h) FROM STDIN") as copy:
            for number, vector in enumerate(vectors):
                copy.write_row([number, text(vector), text(vector)])
        db.execute("UPDATE t SET b = binary_quantize(v)::bit(256)")
        for name, kind in (("v", "vector_cosine_ops"), ("h", "halfvec_l2_ops"), ("b", "bit_hamming_ops")):
            db.execute(f"CREATE INDEX t_{name} ON t USING ivf ({name} {kind})")
    upgrade(old, new)
    new.start()
    with new.connect() as db:
        db.execute("SET search_path = public, copies; SET enable_seqscan = off")
        still_works(db)
        for name, operator in (("v", "<=>"), ("h", "<->"), ("b", "<~>")):
            sql = f"SELECT id FROM t ORDER BY {name} {operator} (SELECT {name} FROM t WHERE id = 7) LIMIT 1"
            assert f"t_{name}" in explain(db, sql) and one(db, sql) == 7
            assert db.execute("SELECT * FROM copy_index_check(%s::regclass, true)", [f"t_{name}"]).fetchall() == []
        assert one(db, ADOPTED)
        db.execute("DROP EXTENSION copymatch_pgvector CASCADE; SELECT copy_adopt_pgvector()")
        still_works(db)


def test_catalogue_of_an_earlier_version_is_told_to_update_first(new_db, connect, sqlstate):
    db = connect(new_db(extension=False))
    db.execute(
        "CREATE EXTENSION vector; CREATE SCHEMA copies; CREATE EXTENSION copymatch SCHEMA copies VERSION '0.2.0'"
    )
    with sqlstate("55000") as error:
        db.execute("CREATE EXTENSION copymatch_pgvector")
    assert error.value.diag.message_hint == "ALTER EXTENSION copymatch UPDATE;"
    db.execute("ALTER EXTENSION copymatch UPDATE; SELECT copies.copy_adopt_pgvector()")
    assert one(db, ADOPTED)
