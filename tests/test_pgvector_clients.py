"""Clients that know pgvector, with copymatch alone, with pgvector alone, and with both: docs/pgvector.md has the table.

Each makes a table, writes and reads vectors, orders by a distance and, where copymatch is there, matches
against the table as a set.
"""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import LOCAL, ROOT, _drop, _unused_name
from pgvector_stand_in import installed
from test_ivf_recall import one
from test_pgvector import is_real, prepare

#: What there is: the search path, the method of the index that an application makes, and whether there are sets.
WAYS = {
    "copymatch alone": ("public", "ivf", True),
    "pgvector alone": ("public", "hnsw", False),
    "both": ("public, copies", "ivf", True),
}
#: Its two neighbours are as near to it as each other.
NEAREST = ([7, 6, 8], [7, 8, 6])
CREATE = "CREATE TABLE items (id int PRIMARY KEY, embedding vector(256))"
SET = "SELECT copy_create_set('items', 'items', 'id', NULL, 'embedding')"


def at(number: int) -> list[float]:
    return [1.0 if i == number else 0.5 if i == number + 1 else 0.0 for i in range(256)]


@pytest.fixture(scope="module", autouse=True)
def pgvector(server):
    with installed([server.major]):
        yield


@pytest.fixture(scope="module", params=WAYS)
def place(request, server):
    """A database: its name, its search path, the method for an index, whether there are sets."""
    name = _unused_name("clients")
    path, method, sets = WAYS[request.param]
    with server.connect() as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    with server.connect(name) as db:
        if request.param == "both":
            prepare(db)
        else:
            db.execute(f"CREATE EXTENSION {'copymatch' if sets else 'vector'}")
        if method == "hnsw" and not is_real(db):
            method = ""
        db.execute(f'ALTER DATABASE "{name}" SET search_path = {path}')
        db.execute(f'ALTER DATABASE "{name}" SET enable_seqscan = off')
    yield name, path, method, sets
    _drop(server, [name])


@pytest.fixture(autouse=True)
def clean(server, place):
    yield
    name, _, _, sets = place
    with server.connect(name) as db:
        if sets and one(db, "SELECT count(*) FROM copymatch.reference_sets"):
            db.execute("SELECT copy_drop_set('items')")
        db.execute("DROP TABLE IF EXISTS items")


def index(method: str) -> str:
    return f"CREATE INDEX items_index ON items USING {method} (embedding vector_cosine_ops)"


@pytest.mark.parametrize("binary", [False, True], ids=["text", "binary"])
def test_psycopg(server, place, binary):
    from pgvector import Vector
    from pgvector.psycopg import register_vector

    name, _, method, sets = place
    with server.connect(name) as db:
        register_vector(db)
        db.execute(CREATE)
        cursor = db.cursor(binary=binary)
        for number in range(20):
            cursor.execute("INSERT INTO items VALUES (%s, %s)", [number, Vector(at(number))])
        assert cursor.execute("SELECT embedding FROM items WHERE id = 7").fetchone()[0].to_list() == at(7)
        if method:
            db.execute(index(method))
        query = "SELECT id FROM items ORDER BY embedding <=> %s LIMIT 3"
        assert [number for (number,) in cursor.execute(query, [Vector(at(7))])] in NEAREST
        if sets:
            db.execute(SET)
            match = "SELECT reference FROM copy_match_descriptor(%s, 'items', 1)"
            assert cursor.execute(match, [Vector(at(7))]).fetchone() == ("7",)
            assert cursor.execute(match, [str(at(7))]).fetchone() == ("7",), "a literal of no type"


def test_psycopg_reads_the_type_that_the_path_names_first(server, place):
    """With both, register_vector knows one of the two types of that name; values of the other come as text."""
    from pgvector.psycopg import register_vector

    name, path, _, _ = place
    if "," not in path:
        pytest.skip("there is one type alone")
    for known, other in (("public", "copies"), ("copies", "public")):
        with server.connect(name) as db:
            db.execute(f"SET search_path = {known}, {other}")
            register_vector(db)
            first, second = db.execute(f"SELECT '[1,2]'::{known}.vector, '[1,2]'::{other}.vector").fetchone()
            assert first.to_list() == [1, 2] and second == "[1,2]"


def test_asyncpg(server, place):
    asyncpg = pytest.importorskip("asyncpg")
    from pgvector.asyncpg import register_vector

    name, path, method, sets = place

    async def use():
        db = await asyncpg.connect(host=server.socket, user="postgres", database=name)
        try:
            await register_vector(db)
            await db.execute(CREATE)
            await db.executemany("INSERT INTO items VALUES ($1, $2)", [(number, at(number)) for number in range(20)])
            assert (await db.fetchval("SELECT embedding FROM items WHERE id = 7")).to_list() == at(7)
            if method:
                await db.execute(index(method))
            rows = await db.fetch("SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 3", at(7))
            assert [row["id"] for row in rows] in NEAREST
            if sets:
                await db.execute(SET)
                # The parameter is of copymatch's type: its codec, where both are there, is registered by its schema.
                await register_vector(db, schema=path.split(", ")[-1])
                found = await db.fetchval("SELECT reference FROM copy_match_descriptor($1, 'items', 1)", at(7))
                assert found == "7"
        finally:
            await db.close()

    asyncio.run(use())


def test_sqlalchemy(server, place):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from pgvector.sqlalchemy import VECTOR
    from sqlalchemy import Column, Index, Integer, MetaData, Table, create_engine, func, insert, select, text

    name, _, method, sets = place
    engine = create_engine(f"postgresql+psycopg://postgres@/{name}?host={server.socket}")
    items = Table("items", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", VECTOR(256)))
    if method:
        Index(
            "items_index", items.c.embedding, postgresql_using=method,
            postgresql_ops={"embedding": "vector_cosine_ops"},
        )  # fmt: skip
    try:
        with engine.begin() as db:
            items.create(db)
            db.execute(insert(items), [{"id": number, "embedding": at(number)} for number in range(20)])
            assert list(db.execute(select(items.c.embedding).where(items.c.id == 7)).scalar_one()) == at(7)
            nearest = select(items.c.id).order_by(items.c.embedding.cosine_distance(at(7))).limit(3)
            assert list(db.scalars(nearest)) in NEAREST
            if sets:
                db.execute(text(SET))
                match = func.copy_match_descriptor(sqlalchemy.cast(at(7), VECTOR(256)), "items", 1).table_valued(
                    "reference"
                )
                assert db.scalars(select(match.c.reference)).all() == ["7"]
    finally:
        engine.dispose()


def run(command: list[str], environment: dict | None = None) -> dict:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | (environment or {}))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_django(server, place):
    if importlib.util.find_spec("django") is None:
        pytest.skip("Django is not installed")
    name, path, method, sets = place
    program = [sys.executable, str(ROOT / "tests" / "clients" / "django_client.py")]
    found = run([*program, server.socket, "postgres", name, path, method, *(["match"] if sets else [])])
    # Of its migration CREATE EXTENSION IF NOT EXISTS vector: refused where copymatch has its types in that schema.
    extension = "42710" if sets and path == "public" else "made or there"
    assert found.pop("nearest") in NEAREST
    assert found == {"extension": extension, "read": True} | ({"matched": "7"} if sets else {})


def test_node(server, place):
    if not (LOCAL / "node" / ".stamp").exists() or shutil.which("node") is None:
        pytest.skip("node with pg and pgvector is not there: scripts/node.sh fetches them where there is npm")
    name, path, _, sets = place
    program = ["node", str(ROOT / "tests" / "clients" / "node_client.mjs")]
    command = [*program, server.socket, "postgres", name, path, "vector", *(["match"] if sets else [])]
    found = run(command, {"COPYMATCH_NODE": str(LOCAL / "node")})
    assert found.pop("nearest") in NEAREST
    assert found == {"read": True} | ({"matched": "7"} if sets else {})
