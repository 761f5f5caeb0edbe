"""How vector and halfvec are written, read, declared and stored."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest

TYPES = {"vector": (">f4", np.float32), "halfvec": (">f2", np.float16)}


@pytest.fixture(params=TYPES)
def kind(request) -> str:
    return request.param


def one(db, query: str, *parameters):
    return db.execute(query, parameters).fetchone()[0]


def message(kind: str, values, dimensions: int | None = None, unused: int = 0) -> bytes:
    """A vector in the binary format."""
    values = np.asarray(values, dtype=TYPES[kind][0])
    return struct.pack(">hh", len(values) if dimensions is None else dimensions, unused) + values.tobytes()


def copy_file(fields: list[bytes | None]) -> bytes:
    """A file for COPY … WITH (FORMAT binary) of one column."""
    rows = b"".join(
        struct.pack(">h", 1) + (struct.pack(">i", -1) if field is None else struct.pack(">i", len(field)) + field)
        for field in fields
    )
    return b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0) + rows + struct.pack(">h", -1)


def copy_in(db, table: str, data: bytes):
    with db.cursor().copy(f"COPY {table} FROM STDIN WITH (FORMAT binary)") as copy:
        copy.write(data)


def copy_out(db, table: str) -> bytes:
    collected = io.BytesIO()
    with db.cursor().copy(f"COPY {table} TO STDOUT WITH (FORMAT binary)") as copy:
        for block in copy:
            collected.write(block)
    return collected.getvalue()


def test_text_is_read_with_white_space_and_written_without(db, kind):
    assert one(db, f"SELECT ' \t\n[ 1 , -2.5,\v3e0 ,\f.5]\r '::{kind}::text") == "[1,-2.5,3,0.5]"


def test_numbers_are_spelt_as_the_server_spells_float4(db):
    random = np.random.default_rng(7)
    bits = np.concatenate([
        random.integers(0, 2**32, 20000, dtype=np.uint32),
        # Whole numbers above 2^24, where a shortest decimal may lie exactly between two floats.
        (random.integers(2**24, 2**40, 20000) // 64 * 64).astype(np.float32).view(np.uint32),
        np.array([0, 1, 2, 0x80000000, 0x7F7FFFFF, 0x00800000, 0x007FFFFF], dtype=np.uint32),
        (np.float32(10.0) ** np.arange(-44, 39)).view(np.uint32),
        np.float32(2.0 ** np.arange(-149, 128)).view(np.uint32),
    ])  # fmt: skip
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    for part in np.array_split(values, len(values) // 10000 + 1):
        # As float8 the numbers are exact in both directions, whatever the spelling of float4.
        parameter = [float(value) for value in part]
        found, expected = db.execute(
            "SELECT %s::float8[]::real[]::vector::text, '[' || array_to_string(%s::float8[]::real[], ',') || ']'",
            [parameter, parameter],
        ).fetchone()
        assert found.strip("[]").split(",") == expected.strip("[]").split(",")


def test_every_half_is_spelt_as_the_server_spells_float4_and_read_back(db):
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    for part in np.array_split(halves, 8):
        parameter = [float(value) for value in part]
        found, expected, sent = db.execute(
            "SELECT h::text, '[' || array_to_string(%s::float8[]::real[], ',') || ']', halfvec_send(h::text::halfvec)"
            " FROM (SELECT %s::float8[]::halfvec AS h) AS x",
            [parameter, parameter],
        ).fetchone()
        assert found == expected
        assert sent == message("halfvec", part)


def test_numbers_are_rounded_to_the_nearest_element(db):
    assert one(db, "SELECT '[0.1,16777217]'::vector::text") == "[0.1,1.6777216e+07]"
    assert one(db, "SELECT '[0.1,2049,65519,1e-8]'::halfvec::text") == "[0.099975586,2048,65504,0]"


SYNTAX = ["", "1,2", "[", "[ ", "[,", "[,]", "[1,]", "[1", "[1,2", "[1a]", "[1,,3]", "[1, ,3]", "[1 2]", "[1]9", "[1],",
          "{1,2}", "[[1]]", "[--1]", "[0x10]", "[1e]", "[.]", "[é]", "hello"]  # fmt: skip


@pytest.mark.parametrize("literal", SYNTAX)
def test_text_that_is_no_vector_is_a_syntax_error(db, kind, sqlstate, literal):
    with sqlstate("22P02") as error:
        one(db, f"SELECT %s::{kind}", literal)
    assert error.value.diag.message_primary == f'invalid input syntax for type {kind}: "{literal}"'
    assert error.value.diag.message_hint
    detail = error.value.diag.message_detail
    if not literal.startswith("["):
        assert detail == 'Vector contents must start with "[".'
    elif literal.startswith("[1]"):
        assert detail == "Junk after closing right brace."
    else:
        assert detail is None


@pytest.mark.parametrize(
    "literal, state, expected",
    [
        ("[]", "22000", "{} must have at least 1 dimension"),
        ("[ ]", "22000", "{} must have at least 1 dimension"),
        ("[NaN,1]", "22000", "NaN not allowed in {}"),
        ("[1,nan]", "22000", "NaN not allowed in {}"),
        ("[Infinity]", "22000", "infinite value not allowed in {}"),
        ("[-inf]", "22000", "infinite value not allowed in {}"),
        ("[4e38,1]", "22003", '"4e38" is out of range for type {}'),
        ("[-1e39]", "22003", '"-1e39" is out of range for type {}'),
        ("[" + "1," * 16000 + "1]", "54000", "{} cannot have more than 16000 dimensions"),
    ],
)
def test_values_that_cannot_be_stored_are_refused_by_cause(db, kind, sqlstate, literal, state, expected):
    with sqlstate(state) as error:
        one(db, f"SELECT %s::{kind}", literal)
    assert error.value.diag.message_primary == expected.format(kind)
    if "not allowed" in expected:
        assert "finite" in error.value.diag.message_hint


def test_numbers_beyond_half_precision_are_refused_with_a_hint(db, sqlstate):
    with sqlstate("22003") as error:
        one(db, "SELECT '[1,65520]'::halfvec")
    assert error.value.diag.message_primary == '"65520" is out of range for type halfvec'
    assert "65504" in error.value.diag.message_hint


def test_a_long_text_is_cut_in_its_error(db, kind, sqlstate):
    with sqlstate("22P02") as error:
        one(db, f"SELECT ('[' || repeat('x', 1000000))::{kind}")
    assert len(error.value.diag.message_primary) < 300


def test_text_in_another_encoding_is_refused_without_a_crash(new_db, server, sqlstate):
    """In a database that has had the extension since 0.2.0, which asked for no encoding."""
    with server.connect() as admin:
        admin.execute("CREATE DATABASE test_sql_ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
    try:
        with server.connect("test_sql_ascii") as db:
            db.execute("CREATE EXTENSION copymatch VERSION '0.2.0'; ALTER EXTENSION copymatch UPDATE")
            with sqlstate("22P02"):
                db.execute("DO $$ BEGIN PERFORM convert_from('\\x5bff5d', 'SQL_ASCII')::vector; END $$")
    finally:
        with server.connect() as admin:
            admin.execute("DROP DATABASE test_sql_ascii WITH (FORCE)")


def test_binary_copy_goes_both_ways_unchanged(db, kind):
    random = np.random.default_rng(3)
    db.execute(f"CREATE TABLE t (v {kind})")
    largest = np.finfo(TYPES[kind][1]).max
    values = [random.normal(size=n) for n in [1, 2, 3, 100, 1536, 16000]] + [[largest, -largest, 0.0, -0.0]]
    data = copy_file([*(message(kind, value) for value in values), None])
    copy_in(db, "t", data)
    assert copy_out(db, "t") == data
    # The same values through text.
    lines = db.execute("SELECT v::text FROM t WHERE v IS NOT NULL").fetchall()
    for (line,), value in zip(lines, values, strict=True):
        assert (np.array(line.strip("[]").split(","), dtype=TYPES[kind][1]) == np.asarray(value, TYPES[kind][1])).all()


@pytest.mark.parametrize(
    "field, state, expected",
    [
        (lambda kind: message(kind, [], 0), "22000", "{} must have at least 1 dimension"),
        (lambda kind: message(kind, [], -1), "22000", "{} must have at least 1 dimension"),
        (lambda kind: message(kind, [], 16001), "54000", "{} cannot have more than 16000 dimensions"),
        (lambda kind: message(kind, [1, 2], 3), "08P01", None),
        (lambda kind: message(kind, [1, 2, 3])[:-1], "08P01", None),
        (lambda kind: message(kind, [1, 2, 3]) + b"x", "22P03", None),
        (lambda kind: b"", "08P01", None),
        (lambda kind: b"\0\3\0", "08P01", None),
        (lambda kind: message(kind, [1, 2, 3], unused=7), "22000", "expected unused to be 0, not 7"),
        (lambda kind: message(kind, [1, np.nan, 3]), "22000", "NaN not allowed in {}"),
        (lambda kind: message(kind, [1, np.inf, 3]), "22000", "infinite value not allowed in {}"),
        (lambda kind: message(kind, [1, 2]), "22000", "expected 3 dimensions, not 2"),
    ],
)
def test_damaged_binary_input_is_refused_by_cause(db, kind, sqlstate, field, state, expected):
    db.execute(f"CREATE TABLE t (v {kind}(3))")
    with sqlstate(state) as error:
        copy_in(db, "t", copy_file([field(kind)]))
    if expected:
        assert error.value.diag.message_primary == expected.format(kind)
    assert one(db, "SELECT count(*) FROM t") == 0


def test_random_binary_input_never_ends_the_backend(db, kind):
    random = np.random.default_rng(11)
    db.execute(f"CREATE TABLE t (v {kind})")
    backend = one(db, "SELECT pg_backend_pid()")
    for _ in range(200):
        field = struct.pack(">hh", random.integers(-5, 40), 0) + random.bytes(random.integers(0, 80))
        try:
            copy_in(db, "t", copy_file([field]))
        except db.Error as error:
            assert error.sqlstate in {"22000", "22P03", "08P01"}
    assert one(db, "SELECT pg_backend_pid()") == backend


def test_send_and_receive_use_the_published_layout(db, kind):
    assert one(db, f"SELECT {kind}_send('[1,-2.5,0]')") == message(kind, [1, -2.5, 0])


def test_typmod_declares_the_dimensions(db, kind, sqlstate):
    db.execute(f"CREATE TABLE t (v {kind}(3))")
    db.execute("INSERT INTO t VALUES ('[1,2,3]')")
    assert one(db,
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass "
        "AND attnum = 1") \
        .endswith(f"{kind}(3)")  # fmt: skip
    for statement in [
        "INSERT INTO t VALUES ('[1,2]')",
        f"INSERT INTO t SELECT '[1,2]'::{kind}",
        "INSERT INTO t VALUES ('{1,2}'::real[])",
        "UPDATE t SET v = '[1,2]'",
        f"SELECT '[1,2]'::{kind}(3)",
        f"SELECT '[1,2]'::{kind}::{kind}(3)",
        f"SELECT '{{1,2}}'::real[]::{kind}(3)",
    ]:
        with sqlstate("22000") as error:
            db.execute(statement)
        assert error.value.diag.message_primary == "expected 3 dimensions, not 2", statement
        assert error.value.diag.message_hint
    assert one(db, "SELECT v::text FROM t") == "[1,2,3]"
    assert one(db, f"SELECT '[1,2,3]'::{kind}::{kind}(3)::text") == "[1,2,3]"


@pytest.mark.parametrize(
    "modifier, state, expected",
    [
        ("0", "22023", "dimensions for type {} must be at least 1"),
        ("-1", "22023", "dimensions for type {} must be at least 1"),
        ("16001", "22023", "dimensions for type {} cannot exceed 16000"),
        ("3,4", "22023", "invalid type modifier"),
        ("a", "22P02", None),
        ("99999999999", "22003", None),
    ],
)
def test_type_modifiers_that_make_no_sense_are_refused(db, kind, sqlstate, modifier, state, expected):
    with sqlstate(state) as error:
        db.execute(f"CREATE TABLE t (v {kind}({modifier}))")
    if expected:
        assert error.value.diag.message_primary == expected.format(kind)


def test_sixteen_thousand_dimensions_are_stored(db, kind):
    db.execute(f"CREATE TABLE t (v {kind}(16000))")
    db.execute("INSERT INTO t VALUES (%s)", ["[" + ",".join(str(i % 100) for i in range(16000)) + "]"])
    assert one(db, "SELECT subvector(v, 15999, 2)::text FROM t") == "[98,99]"


def test_the_default_storage_is_external(db, kind):
    assert one(db, "SELECT typstorage::text FROM pg_type WHERE oid = %s::regtype", kind) == "e"


@pytest.mark.parametrize("storage", ["PLAIN", "EXTERNAL", "EXTENDED", "MAIN"])
@pytest.mark.parametrize("compression", ["pglz", "lz4"])
def test_every_storage_gives_back_what_was_put_in(db, kind, storage, compression):
    db.execute(f"CREATE TABLE t (id int, v {kind})")
    db.execute(f"ALTER TABLE t ALTER v SET STORAGE {storage}")
    try:
        db.execute(f"ALTER TABLE t ALTER v SET COMPRESSION {compression}")
    except db.Error as error:
        assert error.sqlstate == "0A000"
        pytest.skip(f"this server has no {compression}")
    # Short varlena headers, in line, compressed in line, out of line.
    lengths = [1, 5, 20, 100, 500, 1500 if storage == "PLAIN" else 4000]
    for length in lengths:
        db.execute("INSERT INTO t VALUES (%s, %s)", [length, "[" + ",".join(str(i % 7) for i in range(length)) + "]"])
    for length, vector in db.execute("SELECT id, v::text FROM t ORDER BY id").fetchall():
        assert vector == "[" + ",".join(str(i % 7) for i in range(length)) + "]"
    # Used as operands they give the distance of the numbers, whatever their form.
    for length, distance, product in db.execute(
        "SELECT a.id, a.v <-> b.v, a.v <#> b.v FROM t AS a JOIN t AS b USING (id) ORDER BY id"
    ).fetchall():
        assert (distance, product) == (0, -sum((i % 7) ** 2 for i in range(length)))


def test_distances_over_toasted_values_do_not_gather_memory(db):
    db.execute("CREATE TABLE t (v vector)")
    db.execute("INSERT INTO t SELECT array_fill(i::real, ARRAY[4000])::vector FROM generate_series(1, 400) AS i")
    query = """SELECT sum(v <-> (SELECT v FROM t LIMIT 1)) FROM t, generate_series(1, 25) AS again"""
    db.execute(query)
    before = one(db, "SELECT sum(total_bytes) FROM pg_backend_memory_contexts")
    # 10,000 detoasted copies of 16 kB; kept, they would be 160 MB.
    peak = one(db, "SELECT pg_backend_pid()")

    def most_resident() -> int:
        lines = Path(f"/proc/{peak}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

    size = most_resident()
    db.execute(query)
    assert most_resident() - size < 50_000
    assert one(db, "SELECT sum(total_bytes) FROM pg_backend_memory_contexts") - before < 10_000_000


@pytest.mark.parametrize(
    "stored",
    [
        "\\x",  # no header at all
        "\\x0300",  # half a header
        "\\x030000000000803f",  # 3 dimensions, 1 element
        "\\x010000000000803f0000803f",  # 1 dimension, 2 elements
        "\\x0000000000000000",  # 0 dimensions
        "\\xffff0000",  # negative
        "\\xff7f00000000803f",  # 32767 dimensions
    ],
)
def test_a_damaged_stored_value_is_an_error_and_not_a_crash(db, kind, sqlstate, stored):
    # What a disk error would leave: the bytes of a bytea under the type's name.
    db.execute(f"CREATE CAST (bytea AS {kind}) WITHOUT FUNCTION")
    try:
        backend = one(db, "SELECT pg_backend_pid()")
        expressions = ["v::text", "v <-> '[1,2,3]'", "vector_dims(v)", f"{kind}_send(v)", "v = v", "v + v", "v || v",
                       "v::real[]", "l2_normalize(v)", "avg(v)", "sum(v)", "binary_quantize(v)",
                       f"v::{kind}(3)"]  # fmt: skip
        for expression in expressions:
            with sqlstate("XX001") as error:
                one(db, f"SELECT {expression} FROM (SELECT %s::bytea::{kind} AS v) AS x", stored)
            assert kind in error.value.diag.message_primary
        assert one(db, "SELECT pg_backend_pid()") == backend
    finally:
        db.execute(f"DROP CAST (bytea AS {kind})")
