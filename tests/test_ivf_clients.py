"""pgvector's Python library over an ivf index: the queries that its users write."""

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from test_ivf_recall import clustered, plan


@pytest.fixture
def client(db) -> psycopg.Connection:
    """A connection on a table of 3,000 rows with an index for each type."""
    vectors = clustered(3000)
    register_vector(db)
    db.execute("CREATE TABLE items (id int PRIMARY KEY, v vector(32), h halfvec(32))")
    with db.cursor().copy("COPY items (id, v, h) FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "vector", "halfvec"])
        for number, vector in enumerate(vectors):
            copy.write_row([number, Vector(vector), HalfVector(vector)])
    db.execute("CREATE INDEX items_v ON items USING ivf (v vector_cosine_ops)")
    db.execute("CREATE INDEX items_h ON items USING ivf (h halfvec_l2_ops)")
    db.execute("ANALYZE items; SET enable_seqscan = off")
    return db


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_ivf_nearest_neighbours_of_a_parameter(client, binary):
    vectors = clustered(3000)
    placeholder = "%b" if binary else "%t"
    for number in (0, 1234):
        for sql, parameter, index in [
            (f"SELECT id, v FROM items ORDER BY v <=> {placeholder} LIMIT 5", Vector(vectors[number]), "items_v"),
            (f"SELECT id, v FROM items ORDER BY v <=> {placeholder} LIMIT 5", vectors[number], "items_v"),
            (f"SELECT id, v FROM items ORDER BY h <-> {placeholder} LIMIT 5", HalfVector(vectors[number]), "items_h"),
        ]:
            assert f"Index Scan using {index}" in plan(client, sql, parameter)
            rows = client.cursor(binary=binary).execute(sql, [parameter]).fetchall()
            assert rows[0][0] == number and len(rows) == 5
            found = rows[0][1]
            assert np.allclose(found.to_numpy() if isinstance(found, Vector) else found, vectors[number])


def test_ivf_prepared_by_the_driver(client):
    vectors = clustered(3000)
    for number in range(20):
        sql = "SELECT id FROM items ORDER BY v <=> %s::vector LIMIT 1"
        assert client.execute(sql, [Vector(vectors[number])], prepare=True).fetchone() == (number,)


def test_ivf_in_a_pipeline(client):
    vectors = clustered(3000)
    with client.pipeline():
        cursors = [
            client.execute("SELECT id FROM items ORDER BY v <=> %b LIMIT 1", [Vector(vector)])
            for vector in vectors[:10]
        ]
    assert [cursor.fetchone()[0] for cursor in cursors] == list(range(10))


def test_ivf_through_a_server_side_cursor(client):
    vectors = clustered(3000)
    with client.transaction(), client.cursor("nearest") as cursor:
        cursor.itersize = 7
        cursor.execute("SELECT id FROM items ORDER BY v <=> %s", [Vector(vectors[3])])
        found = [number for (number,) in cursor]
    assert found[0] == 3 and sorted(found) == list(range(3000))


def test_ivf_inserted_by_the_client_is_found_by_it(client):
    rng = np.random.default_rng(8)
    new = rng.standard_normal((20, 32)).astype(np.float32)
    client.cursor().executemany(
        "INSERT INTO items (id, v) VALUES (%s, %s)", [(5000 + at, Vector(row)) for at, row in enumerate(new)]
    )
    for at, row in enumerate(new):
        assert client.execute("SELECT id FROM items ORDER BY v <=> %s LIMIT 1", [row]).fetchone() == (5000 + at,)
