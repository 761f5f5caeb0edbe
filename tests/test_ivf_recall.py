"""How much of the truth an ivf index finds, with nothing set and with what can be set; and the
data that its tests share.

`clustered(rows, dimensions)`  vectors in clusters, as descriptors of images are
`make(db, vectors, opclass)`   a table t(id, d) of them with an index; the index's name
`find(db, query, k)`           ids in the order in which the index gives them
`recall(...)`                  the part of the true nearest neighbours that it gives
`one`, `column`                a query's single value, or its only column
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

OPERATORS = {
    "vector_cosine_ops": "<=>",
    "vector_ip_ops": "<#>",
    "vector_l2_ops": "<->",
    "halfvec_cosine_ops": "<=>",
    "halfvec_ip_ops": "<#>",
    "halfvec_l2_ops": "<->",
}
#: More than any index has lists: probes are clamped to them.
ALL_PROBES = 30_000
#: A row for each thing that is wrong with an index.
CHECK = "SELECT * FROM copy_index_check(%s::regclass, true)"


def one(db, query: str, *parameters):
    return db.execute(query, parameters or None).fetchone()[0]


def column(db, query: str, *parameters) -> list:
    return [value for (value,) in db.execute(query, parameters or None)]


def use_index(db) -> None:
    """However small the tables are; and every list is looked at."""
    db.execute(f"SET enable_seqscan = off; SET copymatch.probes = {ALL_PROBES}")


def stats(db, index: str = "t_ivf") -> dict:
    """The row of copy_index_stats, by column."""
    cursor = db.execute("SELECT * FROM copy_index_stats(%s::regclass)", [index])
    return dict(zip([column.name for column in cursor.description], cursor.fetchone(), strict=True))


def kind_of(opclass: str) -> str:
    """The type an operator class is for."""
    return opclass.split("_")[0]


def stored(vectors: np.ndarray, kind: str) -> np.ndarray:
    """What is left of the vectors when a column of this type has stored them, in double precision."""
    return vectors.astype(np.float16 if kind == "halfvec" else np.float32).astype(np.float64)


def clustered(rows: int, dimensions: int = 32, seed: int = 1, centre: float = 0.0) -> np.ndarray:
    """Vectors in uneven clusters; the norms differ by up to a quarter. Equal seeds share their clusters."""
    rng = np.random.default_rng(seed)
    clusters = 60
    centres = rng.standard_normal((clusters, dimensions)) + centre
    weights = rng.pareto(1.2, clusters) + 0.05
    members = rng.choice(clusters, rows, p=weights / weights.sum())
    points = centres[members] + 0.5 * rng.standard_normal((rows, dimensions))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return (points * rng.uniform(0.8, 1.25, (rows, 1))).astype(np.float32)


def near(vectors: np.ndarray, count: int, noise: float = 0.25, seed: int = 2) -> np.ndarray:
    """Queries: rows of these, disturbed."""
    rng = np.random.default_rng(seed)
    chosen = vectors[rng.choice(len(vectors), count)]
    return (chosen + noise / np.sqrt(chosen.shape[1]) * rng.standard_normal(chosen.shape)).astype(np.float32)


def text(vector) -> str:
    """A vector as SQL reads it."""
    return "[" + ",".join(repr(float(value)) for value in vector) + "]"


def load(db, table: str, vectors: np.ndarray, kind: str = "vector", first: int = 0, ids=None) -> None:
    """Copies rows (id, d) into the table; ids count from `first` where they are not given."""
    dimensions = vectors.shape[1]
    element = ">f2" if kind == "halfvec" else ">f4"
    rows = np.zeros(
        len(vectors),
        [("fields", ">i2"), ("id_bytes", ">i4"), ("id", ">i4"), ("bytes", ">i4"), ("dimensions", ">i2"),
         ("unused", ">i2"), ("elements", element, (dimensions,))],
    )  # fmt: skip
    rows["fields"], rows["id_bytes"], rows["id"] = 2, 4, np.arange(first, first + len(vectors)) if ids is None else ids
    rows["bytes"], rows["dimensions"] = 4 + dimensions * np.dtype(element).itemsize, dimensions
    rows["elements"] = vectors
    with db.cursor().copy(f"COPY {table} (id, d) FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8) + rows.tobytes() + b"\xff\xff")


def make(
    db, vectors: np.ndarray, opclass: str = "vector_cosine_ops", table: str = "t", lists: int | None = None
) -> str:
    """A table (id, d) with the vectors in it, and an index built over them; gives the index's name.

    The session uses the index from now on, however small the table is.
    """
    kind = kind_of(opclass)
    db.execute(f"CREATE TABLE {table} (id int, d {kind}({vectors.shape[1]}))")
    load(db, table, vectors, kind)
    options = "" if lists is None else f"WITH (lists = {lists})"
    db.execute(f"CREATE INDEX {table}_ivf ON {table} USING ivf (d {opclass}) {options}")
    db.execute(f"ANALYZE {table}; SET enable_seqscan = off")
    return f"{table}_ivf"


def statement(opclass: str = "vector_cosine_ops", k: int | None = 10, table: str = "t", where: str = "") -> str:
    """The query by which people search; its parameter is the vector as text."""
    limit = "" if k is None else f"LIMIT {k}"
    return f"SELECT id FROM {table} {where} ORDER BY d {OPERATORS[opclass]} %s::{kind_of(opclass)} {limit}"


def find(db, query: np.ndarray, k: int | None = 10, opclass: str = "vector_cosine_ops", table: str = "t") -> list[int]:
    """The ids that the index gives, in its order."""
    return [i for (i,) in db.execute(statement(opclass, k, table), [text(query)])]


def plan(db, sql: str, *parameters) -> str:
    """The plan, line by line."""
    return "\n".join(line for (line,) in db.execute(f"EXPLAIN (COSTS OFF) {sql}", parameters or None))


def distances(vectors: np.ndarray, query: np.ndarray, opclass: str) -> np.ndarray:
    """The operator's result for each of the vectors, exactly."""
    kind = kind_of(opclass)
    x, q = stored(vectors, kind), stored(query, kind)
    match OPERATORS[opclass]:
        case "<->":
            return np.linalg.norm(x - q, axis=1)
        case "<#>":
            return -(x @ q)
        case _:
            return 1 - (x @ q) / (np.linalg.norm(x, axis=1) * np.linalg.norm(q))


def recall(db, vectors, queries, opclass="vector_cosine_ops", k=10, table="t", ids=None) -> float:
    """The part of the k nearest neighbours that the index gives, on average. A tie with the k-th is as good.

    `ids` are the vectors' ids where they are not just their numbers.
    """
    number = {int(i): at for at, i in enumerate(ids)} if ids is not None else None
    found = 0
    for query in queries:
        exact = distances(vectors, query, opclass)
        worst = np.sort(exact)[k - 1]
        given = find(db, query, k, opclass, table)
        assert len(given) == len(set(given)) == k, "k different rows"
        at = [number[i] for i in given] if number is not None else given
        found += int((exact[at] <= worst + 1e-6 * (1 + abs(worst))).sum())
    return found / (k * len(queries))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("opclass", OPERATORS)
def test_ivf_finds_95_percent_with_nothing_set_and_nearly_all_when_it_probes_every_list(db, opclass, threads):
    vectors = clustered(6000)
    queries = near(vectors, 60)
    db.execute(f"SET copymatch.build_threads = {threads}")
    make(db, vectors, opclass)
    assert "Index Scan using t_ivf" in plan(db, statement(opclass), text(queries[0]))
    assert recall(db, vectors, queries, opclass) >= 0.95
    assert recall(db, vectors, queries[:20], opclass, k=100) >= 0.95
    db.execute(f"SET copymatch.probes = {ALL_PROBES}")
    assert recall(db, vectors, queries, opclass) >= 0.99


@pytest.mark.parametrize("dimensions", [1, 2, 7, 64, 300])
def test_ivf_recall_does_not_hang_on_the_number_of_dimensions(db, dimensions):
    vectors = clustered(2000, dimensions, seed=5)
    queries = near(vectors, 30)
    make(db, vectors, "vector_l2_ops")
    assert recall(db, vectors, queries, "vector_l2_ops") >= 0.95
    db.execute(f"SET copymatch.probes = {ALL_PROBES}")
    assert recall(db, vectors, queries, "vector_l2_ops") >= 0.99


def test_ivf_finds_95_percent_of_uniform_noise_too(db):
    """Nothing to cluster: the curve measured at build, not the lists, must say how many to probe."""
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((6000, 24)).astype(np.float32)
    queries = rng.standard_normal((60, 24)).astype(np.float32)
    make(db, vectors)
    # The curve is measured on rows and disturbed rows; queries unrelated to any row are harder.
    assert recall(db, vectors, near(vectors, 60)) >= 0.95
    assert recall(db, vectors, queries) >= 0.90


@pytest.mark.parametrize("rows, order", [(20_000, "shuffled"), (8000, "from one side to the other")])
def test_ivf_created_on_an_empty_table_is_good_when_inserts_have_filled_it(db, rows, order):
    vectors = clustered(rows)
    if order != "shuffled":
        vectors = vectors[np.argsort(vectors @ vectors[0])]
    queries = near(vectors, 50)
    index = make(db, vectors[:0])
    load(db, "t", vectors)
    assert recall(db, vectors, queries) >= 0.95, "before VACUUM"
    db.execute("VACUUM t")
    assert recall(db, vectors, queries) >= 0.95, "after VACUUM"
    db.execute(f"SET copymatch.probes = {ALL_PROBES}")
    assert recall(db, vectors, queries) >= 0.99, "every list"
    assert db.execute("SELECT * FROM copy_index_check(%s::regclass, true)", [index]).fetchall() == []


@pytest.mark.parametrize(
    "opclass, dimensions, least",
    [("vector_l2_ops", 100, -1), ("vector_ip_ops", 64, 0), ("vector_cosine_ops", 3, 0)],
)
def test_ivf_filled_by_several_sessions_finds_what_is_asked_for_before_any_vacuum(
    db, server, opclass, dimensions, least
):
    """Without clusters nothing but measuring tells how many lists hold the neighbours; in few dimensions rows lie so
    near to one another that an error of a code is much."""
    rng = np.random.default_rng(dimensions)
    vectors = rng.uniform(least, 1, (30_000, dimensions)).astype(np.float32)
    queries = np.concatenate([near(vectors, 40), rng.uniform(least, 1, (40, dimensions)).astype(np.float32)])
    index = make(db, vectors[:0], opclass)
    db.execute("ALTER TABLE t SET (autovacuum_enabled = off)")
    schema, sessions = one(db, "SELECT current_schema()"), 4

    def fill(first: int, end: int):
        with server.connect(db.info.dbname) as connection:
            connection.execute(f"SET search_path = {schema}, public")
            for at in range(first, end, 50):
                load(connection, "t", vectors[at : min(at + 50, end)], first=at)

    filled = 0
    for until in (5000, 15_000, 30_000):
        edges = np.linspace(filled, until, sessions + 1).astype(int)
        with ThreadPoolExecutor(sessions) as pool:
            list(pool.map(fill, edges[:-1], edges[1:]))
        filled = until
        assert recall(db, vectors[:filled], queries, opclass) >= 0.96, f"at {filled}"
    assert db.execute(CHECK, [index]).fetchall() == []
    grown = stats(db)
    assert grown["rows"] == filled and grown["lists"] > 32
    db.execute(f"REINDEX INDEX {index}")
    assert grown["bytes"] <= 1.3 * stats(db)["bytes"]


def test_ivf_keeps_its_recall_when_other_data_double_the_table(db):
    """Vacuum (of itself, after as many inserts) splits the lists that grew and measures anew how many to probe."""
    old, new = clustered(6000, seed=1), clustered(6000, seed=77, centre=0.4)
    make(db, old)
    load(db, "t", new, first=len(old))
    vectors = np.concatenate([old, new])
    assert recall(db, vectors, near(old, 40)) >= 0.95, "old rows before VACUUM"
    db.execute("VACUUM t")
    assert recall(db, vectors, near(old, 40)) >= 0.95, "old rows"
    assert recall(db, vectors, near(new, 40)) >= 0.95, "new rows"


def test_ivf_keeps_its_recall_when_half_of_the_rows_are_deleted(db):
    vectors = clustered(8000)
    make(db, vectors)
    db.execute("DELETE FROM t WHERE id % 2 = 0")
    left = np.arange(1, len(vectors), 2)
    queries = near(vectors, 50)
    assert recall(db, vectors[left], queries, ids=left) >= 0.95, "before VACUUM"
    db.execute("VACUUM t")
    assert recall(db, vectors[left], queries, ids=left) >= 0.95, "after VACUUM"


@pytest.mark.parametrize("filled", ["built", "inserted"])
@pytest.mark.parametrize("opclass", ["vector_cosine_ops", "halfvec_l2_ops"])
def test_ivf_every_row_finds_itself(db, opclass, filled):
    vectors = clustered(4000)
    make(db, vectors if filled == "built" else vectors[:0], opclass)
    if filled == "inserted":
        load(db, "t", vectors, kind_of(opclass))
    kind, operator = kind_of(opclass), OPERATORS[opclass]
    lost = db.execute(
        f"""SELECT t.id FROM t, LATERAL (SELECT u.id, u.d {operator} t.d AS distance FROM t AS u
            ORDER BY u.d {operator} t.d LIMIT 1) AS n
            WHERE mod(t.id, 4) = 0 AND n.id <> t.id AND n.distance > %s""",
        [1e-3 if kind == "halfvec" else 1e-6],
    ).fetchall()
    assert lost == []


def test_ivf_more_target_recall_gives_no_less_recall(db):
    vectors = clustered(10_000)
    queries = near(vectors, 60, noise=1.0)
    make(db, vectors)
    found = []
    for target in (0.5, 0.8, 0.9, 0.95, 0.98, 1):
        db.execute(f"SET copymatch.target_recall = {target}")
        found.append(recall(db, vectors, queries))
    assert found == sorted(found)
    assert found[-1] >= 0.99


def test_ivf_probes_override_target_recall_and_are_clamped(db):
    vectors = clustered(10_000)
    queries = near(vectors, 60, noise=1.0)
    make(db, vectors, lists=50)
    db.execute("SET copymatch.target_recall = 1")
    found = []
    for probes in (1, 2, 5, 20, 50, ALL_PROBES):
        db.execute(f"SET copymatch.probes = {probes}")
        found.append(recall(db, vectors, queries))
    assert found == sorted(found)
    assert found[0] < 0.9, "one list of fifty does not hold ten neighbours of every query"
    assert found[4] == found[5] >= 0.99
    db.execute("SET copymatch.target_recall = 0.5; SET copymatch.probes = 50")
    assert recall(db, vectors, queries) == found[4]


def test_ivf_fewer_probes_read_fewer_pages(db):
    vectors = clustered(10_000)
    make(db, vectors, lists=50)
    pages = []
    for probes in (1, 10, ALL_PROBES):
        db.execute(f"SET copymatch.probes = {probes}")
        (explained,) = db.execute(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + statement(), [text(vectors[3])]
        ).fetchone()
        plan = explained[0]["Plan"]
        pages.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    assert pages[0] < pages[1] < pages[2]


def test_ivf_copies_are_found_among_strangers(db):
    """What copymatch is for: an upload is a slightly changed copy of one reference; that one must come first."""
    vectors = clustered(8000, 64)
    make(db, vectors)
    rng = np.random.default_rng(9)
    originals = rng.choice(len(vectors), 200, replace=False)
    norms = np.linalg.norm(vectors[originals], axis=1, keepdims=True)
    copies = vectors[originals] + 0.2 * norms / 8 * rng.standard_normal((200, 64))
    first = [find(db, copy, 1)[0] for copy in copies]
    assert np.mean(np.array(first) == originals) >= 0.99
