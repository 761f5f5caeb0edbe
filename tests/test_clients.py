"""pgvector's own client library works unchanged: psycopg 3 with the PyPI package `pgvector`, in text and binary."""

import numpy as np
import psycopg
import pytest
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector

VALUES = [1.5, -2.0, 3.25]


@pytest.fixture
def client(db) -> psycopg.Connection:
    register_vector(db)
    db.execute("CREATE TABLE items (id bigserial PRIMARY KEY, v vector(3), h halfvec(3))")
    return db


def elements(value) -> list[float]:
    return [float(element) for element in (value if isinstance(value, np.ndarray) else value.to_list())]


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_vectors_go_in_and_come_out_as_pgvector_objects(client, binary):
    cursor = client.cursor(binary=binary)
    placeholder = "%b" if binary else "%t"
    cursor.execute(
        f"INSERT INTO items (v, h) VALUES ({placeholder}, {placeholder}), (NULL, NULL)",
        [Vector(VALUES), HalfVector(VALUES)],
    )
    rows = cursor.execute("SELECT v, h FROM items ORDER BY id").fetchall()
    assert elements(rows[0][0]) == VALUES
    assert isinstance(rows[0][1], HalfVector) and elements(rows[0][1]) == VALUES
    assert rows[1] == (None, None)


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_numpy_arrays_are_accepted(client, binary):
    cursor = client.cursor(binary=binary)
    placeholder = "%b" if binary else "%t"
    cursor.execute(f"INSERT INTO items (v) VALUES ({placeholder})", [np.array(VALUES, dtype=np.float32)])
    assert elements(cursor.execute("SELECT v FROM items").fetchone()[0]) == VALUES


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_nearest_neighbours_by_parameter(client, binary):
    client.cursor().executemany("INSERT INTO items (v, h) VALUES (%s, %s)",
        [(Vector([i, 0, 1]), HalfVector([0, i, 1])) for i in range(1, 20)])  # fmt: skip
    placeholder = "%b" if binary else "%t"
    for operator in ["<->", "<#>", "<=>", "<+>"]:
        query = f"SELECT id FROM items ORDER BY v {operator} {placeholder} LIMIT 1"
        nearest = client.cursor(binary=binary).execute(query, [Vector([1, 0, 1])]).fetchone()[0]
        assert nearest == (19 if operator == "<#>" else 1)
    query = f"SELECT id FROM items ORDER BY h <-> {placeholder} LIMIT 1"
    assert client.cursor(binary=binary).execute(query, [HalfVector([0, 7, 1])]).fetchone()[0] == 7


@pytest.mark.parametrize("column, wrap, dtype", [("v", Vector, np.float32), ("h", HalfVector, np.float16)])
def test_binary_copy_through_psycopg_both_ways(client, column, wrap, dtype):
    kind = {"v": "vector", "h": "halfvec"}[column]
    data = np.random.default_rng(2).normal(size=(1000, 3)).astype(dtype)
    with client.cursor().copy(f"COPY items ({column}) FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types([kind])
        for row in data:
            copy.write_row([wrap(row)])
    with client.cursor().copy(f"COPY (SELECT {column} FROM items ORDER BY id) TO STDOUT WITH (FORMAT BINARY)") as copy:
        copy.set_types([kind])
        found = [elements(row[0]) for row in copy.rows()]
    assert (np.array(found, dtype=dtype) == data).all()


def test_text_copy_through_psycopg(client):
    with client.cursor().copy("COPY items (v, h) FROM STDIN") as copy:
        copy.write_row([Vector(VALUES), HalfVector(VALUES)])
    assert client.execute("SELECT v::text, h::text FROM items").fetchone() == ("[1.5,-2,3.25]",) * 2


def test_aggregates_and_arithmetic_come_back_as_vectors(client):
    client.execute("INSERT INTO items (v) VALUES ('[1,2,3]'), ('[3,4,5]')")
    average, total = client.execute("SELECT avg(v), sum(v) FROM items").fetchone()
    assert (elements(average), elements(total)) == ([2, 3, 4], [4, 6, 8])


def test_arrays_of_vectors_come_back_as_lists(client):
    found = client.execute("SELECT ARRAY['[1,2]', '[3]']::vector[]").fetchone()[0]
    assert [elements(vector) for vector in found] == [[1, 2], [3]]


def test_a_vector_of_the_wrong_length_is_an_error_the_client_can_catch(client):
    with pytest.raises(psycopg.errors.DataException, match="expected 3 dimensions, not 2"):
        client.execute("INSERT INTO items (v) VALUES (%s)", [Vector([1, 2])])


def test_pipelines_and_prepared_statements(client):
    with client.pipeline():
        cursors = [
            client.execute("SELECT %b::vector <-> '[0,0,0]'", [Vector([i, 0, 0])], prepare=True) for i in range(10)
        ]
    assert [cursor.fetchone()[0] for cursor in cursors] == list(range(10))
