"""What vector and halfvec compute, against numpy: every function and operator, on both types."""

import math

import numpy as np
import pytest

TYPES = {"vector": np.float32, "halfvec": np.float16}
DIMENSIONS = [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 64, 100, 255, 256, 257, 1000, 1024, 2000]


def text(values) -> str:
    """A vector as a client would write it, every number with all its digits."""
    return "[" + ",".join(repr(float(value)) for value in values) + "]"


def array(value: str, kind: str) -> np.ndarray:
    """A vector as the server writes it."""
    return np.array(value.strip("[]").split(","), dtype=TYPES[kind])


def one(db, query: str, *parameters):
    return db.execute(query, parameters).fetchone()[0]


@pytest.fixture(params=TYPES)
def kind(request) -> str:
    return request.param


def pairs(kind: str):
    """Two random vectors of each length."""
    random = np.random.default_rng(20260723)
    for dimensions in DIMENSIONS:
        yield tuple(random.normal(size=dimensions).astype(TYPES[kind]) for _ in range(2))


def wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)


def cosine_distance(a, b):
    return 1 - a @ b / math.sqrt((a @ a) * (b @ b))


DISTANCES = {
    "l2_distance": lambda a, b: np.linalg.norm(a - b),
    "inner_product": lambda a, b: a @ b,
    "cosine_distance": cosine_distance,
    "l1_distance": lambda a, b: np.abs(a - b).sum(),
    "{}_l2_squared_distance": lambda a, b: ((a - b) ** 2).sum(),
    "{}_negative_inner_product": lambda a, b: -(a @ b),
}
OPERATORS = {
    "<->": DISTANCES["l2_distance"],
    "<#>": DISTANCES["{}_negative_inner_product"],
    "<=>": DISTANCES["cosine_distance"],
    "<+>": DISTANCES["l1_distance"],
}


def close(found: float, a, b, expected: float):
    # The error of a float32 sum grows with the magnitude of its terms, not with that of a result that cancels out.
    magnitude = max(1.0, float(np.abs(a) @ np.abs(b)), float(a @ a), float(b @ b))
    assert abs(found - expected) <= 2e-6 * magnitude, (found, expected, len(a))


@pytest.mark.parametrize("name", DISTANCES)
def test_distance_functions_agree_with_numpy(db, kind, name):
    for a, b in pairs(kind):
        found = one(db, f"SELECT {name.format(kind)}(%s::{kind}, %s::{kind})", text(a), text(b))
        close(found, wide(a), wide(b), DISTANCES[name](wide(a), wide(b)))


@pytest.mark.parametrize("operator", OPERATORS)
def test_distance_operators_agree_with_numpy_and_commute(db, kind, operator):
    for a, b in pairs(kind):
        query = f"SELECT x {operator} y, y {operator} x FROM (SELECT %s::{kind} AS x, %s::{kind} AS y) AS pair"
        found, swapped = db.execute(query, [text(a), text(b)]).fetchone()
        close(found, wide(a), wide(b), OPERATORS[operator](wide(a), wide(b)))
        assert found == swapped


def test_spherical_distance_is_the_angle_between_unit_vectors(db, kind):
    function = f"{kind}_spherical_distance"
    assert one(db, f"SELECT {function}('[1,0]', '[0,1]')") == 0.5
    assert one(db, f"SELECT {function}('[1,0]', '[1,0]')") == 0
    assert one(db, f"SELECT {function}('[1,0]', '[-1,0]')") == 1
    # Not unit vectors: the inner product is clamped, not turned into NaN.
    assert one(db, f"SELECT {function}('[3,4]', '[3,4]')") == 0
    found = one(db, f"SELECT {function}('[0.6,0.8]', '[1,0]')")
    assert found == pytest.approx(math.acos(0.6) / math.pi, abs=1e-3)


@pytest.mark.parametrize("left, right, expected", [("[0,0]", "[1,2]", "NaN"), ("[1,2]", "[0,0]", "NaN"),
    ("[1,2]", "[2,4]", "0"), ("[1,0]", "[0,5]", "1"), ("[1,1]", "[-1,-1]", "2"), ("[1.1,1.1]", "[1.1,1.1]", "0"),
    ("[1.1,1.1]", "[-1.1,-1.1]", "2")])  # fmt: skip
def test_cosine_distance_is_nan_for_zero_vectors_and_stays_within_0_and_2(db, kind, left, right, expected):
    assert one(db, f"SELECT cosine_distance(%s::{kind}, %s::{kind})::text", left, right) == expected
    assert one(db, f"SELECT (%s::{kind} <=> %s::{kind})::text", left, right) == expected


def test_distances_beyond_single_precision_are_infinite(db):
    assert one(db, "SELECT l2_distance('[3e38]'::vector, '[-3e38]')") == math.inf
    assert one(db, "SELECT l1_distance('[3e38]'::vector, '[-3e38]')") == math.inf
    assert one(db, "SELECT inner_product('[3e38]'::vector, '[3e38]')") == math.inf
    assert one(db, "SELECT vector_negative_inner_product('[3e38]', '[3e38]')") == -math.inf


def test_halfvec_distances_do_not_overflow_at_half_precision(db):
    assert one(db, "SELECT l1_distance('[65504]'::halfvec, '[-65504]')") == 131008
    assert one(db, "SELECT inner_product('[60000,60000]'::halfvec, '[60000,60000]')") == pytest.approx(7.2e9, rel=1e-3)


def test_norms_agree_with_numpy_and_do_not_overflow(db, kind):
    for a, _ in pairs(kind):
        expected = pytest.approx(np.linalg.norm(wide(a)), rel=1e-12)
        assert one(db, f"SELECT l2_norm(%s::{kind})", text(a)) == expected
        if kind == "vector":
            assert one(db, "SELECT vector_norm(%s::vector)", text(a)) == expected
    assert one(db, "SELECT vector_norm('[3e38,4e37]')") == pytest.approx(math.hypot(3e38, 4e37), rel=1e-6)
    assert one(db, "SELECT l2_norm('[65504,65504]'::halfvec)") == pytest.approx(65504 * math.sqrt(2), rel=1e-12)


def test_l2_normalize_agrees_with_numpy_and_keeps_zero(db, kind):
    for a, _ in pairs(kind):
        expected = (wide(a) / np.linalg.norm(wide(a))).astype(TYPES[kind])
        assert (array(one(db, f"SELECT l2_normalize(%s::{kind})", text(a)), kind) == expected).all()
    assert one(db, f"SELECT l2_normalize('[0,0]'::{kind})") == "[0,0]"
    assert one(db, "SELECT l2_normalize('[3e38]'::vector)") == "[1]"
    assert one(db, "SELECT l2_normalize('[65504]'::halfvec)") == "[1]"


def test_vector_dims_counts_elements(db, kind):
    for dimensions in [1, 3, 1000, 16000]:
        assert one(db, f"SELECT vector_dims(%s::{kind})", text(np.ones(dimensions))) == dimensions


def test_subvector_counts_from_one_and_is_cut_at_the_ends(db, kind, sqlstate):
    whole = [1, 2, 3, 4, 5]
    for start in range(-3, 8):
        for count in [*range(-1, 9), 2**31 - 1]:
            expected = [element for position, element in enumerate(whole, 1) if start <= position < start + count]
            if expected:
                found = one(db, f"SELECT subvector('[1,2,3,4,5]'::{kind}, %s, %s)", start, count)
                assert found == "[" + ",".join(map(str, expected)) + "]", (start, count)
            else:
                with sqlstate("22000") as error:
                    one(db, f"SELECT subvector('[1,2,3,4,5]'::{kind}, %s, %s)", start, count)
                assert error.value.diag.message_primary == f"{kind} must have at least 1 dimension"
    with sqlstate("22000"):
        one(db, f"SELECT subvector('[1,2,3]'::{kind}, 2147483647, 2147483647)")


def test_binary_quantize_gives_one_bit_per_element_above_zero(db, kind):
    for a, _ in pairs(kind):
        a[::5] = 0
        bits = "".join("1" if element > 0 else "0" for element in a)
        assert one(db, f"SELECT binary_quantize(%s::{kind})::text", text(a)) == bits
    assert one(db, f"SELECT binary_quantize('[1,0,-1]'::{kind}) = B'100'")
    assert one(db, f"SELECT pg_typeof(binary_quantize('[1]'::{kind}))::text") == "bit"
    assert one(db, f"SELECT binary_quantize('[1,-1,1]'::{kind})::bit(3) # B'111'") == "010"


ARITHMETIC = {
    ("+", "add"): np.add,
    ("-", "sub"): np.subtract,
    ("*", "mul"): np.multiply,
    ("||", "concat"): lambda a, b: np.concatenate([a, b]),
}


@pytest.mark.parametrize("operator, name", ARITHMETIC)
def test_arithmetic_agrees_with_numpy_to_the_last_bit(db, kind, operator, name):
    for a, b in pairs(kind):
        expected = ARITHMETIC[operator, name](a, b)
        for query in [f"SELECT x {operator} y", f"SELECT {kind}_{name}(x, y)"]:
            found = one(db, f"{query} FROM (SELECT %s::{kind} AS x, %s::{kind} AS y) AS pair", text(a), text(b))
            assert (array(found, kind) == expected).all()


@pytest.mark.parametrize(
    "kind, expression, message",
    [
        ("vector", "'[3e38]' + '[3e38]'::vector", "value out of range: overflow"),
        ("vector", "'[-3e38]' - '[3e38]'::vector", "value out of range: overflow"),
        ("vector", "'[1e37]' * '[1e37]'::vector", "value out of range: overflow"),
        ("vector", "'[1e-37]' * '[1e-37]'::vector", "value out of range: underflow"),
        ("halfvec", "'[65504]' + '[65504]'::halfvec", "value out of range: overflow"),
        ("halfvec", "'[-65504]' - '[65504]'::halfvec", "value out of range: overflow"),
        ("halfvec", "'[256]' * '[256]'::halfvec", "value out of range: overflow"),
        ("halfvec", "'[1e-4]' * '[1e-4]'::halfvec", "value out of range: underflow"),
    ],
)
def test_arithmetic_beyond_the_element_type_is_an_error(db, sqlstate, kind, expression, message):
    with sqlstate("22003") as error:
        one(db, f"SELECT {expression}")
    assert error.value.diag.message_primary == message


def test_a_product_with_zero_is_no_underflow(db, kind):
    assert one(db, f"SELECT '[1e-4,0]'::{kind} * '[0,1e-4]'") == "[0,0]"


def test_concatenation_beyond_16000_dimensions_is_an_error(db, kind, sqlstate):
    half = text(np.ones(8000))
    assert one(db, f"SELECT vector_dims(%s::{kind} || %s)", half, half) == 16000
    with sqlstate("54000") as error:
        one(db, f"SELECT %s::{kind} || %s", half, text(np.ones(8001)))
    assert error.value.diag.message_primary == f"{kind} cannot have more than 16000 dimensions"


@pytest.mark.parametrize(
    "expression",
    ["x <-> y", "x <#> y", "x <=> y", "x <+> y", "x + y", "x - y", "x * y", "l2_distance(x, y)", "inner_product(x, y)",
     "cosine_distance(x, y)", "l1_distance(x, y)", "{}_l2_squared_distance(x, y)",
     "{}_negative_inner_product(x, y)", "{}_spherical_distance(x, y)"],
)  # fmt: skip
def test_operands_of_different_length_are_an_error_with_a_hint(db, kind, sqlstate, expression):
    with sqlstate("22000") as error:
        one(db, f"SELECT {expression.format(kind)} FROM (SELECT '[1,2]'::{kind} AS x, '[3]'::{kind} AS y) AS pair")
    assert error.value.diag.message_primary == f"different {kind} dimensions 2 and 1"
    assert error.value.diag.message_hint


@pytest.mark.parametrize("length", [1, 3, 8, 9, 63, 64, 65, 128, 1000, 64000])
def test_bit_distances_agree_with_numpy(db, length):
    random = np.random.default_rng(length)
    for a, b in [
        *(random.integers(0, 2, (2, length)) for _ in range(3)),
        np.zeros((2, length), int),
        np.ones((2, length), int),
    ]:
        left, right = ("".join(map(str, bits)) for bits in (a, b))
        found = db.execute(
            "SELECT hamming_distance(x, y), jaccard_distance(x, y), x <~> y, x <%%> y, y <~> x, y <%%> x "
            f"FROM (SELECT %s::bit({length}) AS x, %s::bit({length}) AS y) AS pair",
            [left, right],
        ).fetchone()
        both, either = (a & b).sum(), (a | b).sum()
        jaccard = 1 - both / either if both else 1
        assert found == pytest.approx(((a != b).sum(), jaccard) * 3)


def test_stored_and_compressed_bits_have_the_same_distance(db):
    db.execute("CREATE TABLE b (x bit(60000), y bit(5))")
    db.execute("INSERT INTO b VALUES (repeat('10', 30000)::bit(60000), B'10110')")
    assert one(db, "SELECT x <~> repeat('01', 30000)::bit(60000) FROM b") == 60000
    assert one(db, "SELECT y <%%> B'10100' FROM b") == pytest.approx(1 / 3)
    assert one(db, "SELECT binary_quantize('[1,-1,2]'::vector) <~> binary_quantize('[1,1,-2]'::halfvec)") == 2


def test_bits_of_different_length_are_an_error_with_a_hint(db, sqlstate):
    for expression in ["B'10' <~> B'101'", "B'10' <%> B'101'"]:
        with sqlstate("22000") as error:
            db.execute(f"SELECT {expression}")
        assert error.value.diag.message_primary == "different bit lengths 2 and 3"
        assert error.value.diag.message_hint


ORDERED = [[-2, 5], [-1], [-1, 0], [0], [0, 0], [0, 0, 1], [0, 1], [1, -9], [1, 2, 3], [1, 3], [2]]


def test_comparison_is_lexicographic_with_the_shorter_first(db, kind):
    query = f"""SELECT x < y, x <= y, x = y, x <> y, x >= y, x > y, {kind}_cmp(x, y), {kind}_lt(x, y), {kind}_le(x, y),
        {kind}_eq(x, y), {kind}_ne(x, y), {kind}_ge(x, y), {kind}_gt(x, y)
        FROM (SELECT %s::{kind} AS x, %s::{kind} AS y) AS pair"""
    for i, x in enumerate(ORDERED):
        for j, y in enumerate(ORDERED):
            six = (i < j, i <= j, i == j, i != j, i >= j, i > j)
            assert db.execute(query, [text(x), text(y)]).fetchone() == (*six, (i > j) - (i < j), *six), (x, y)


def test_negative_zero_equals_zero(db, kind):
    assert one(db, f"SELECT '[-0]'::{kind} = '[0]'")


def test_functions_of_null_are_null(db, kind):
    for expression in ["l2_distance(NULL, x)", "x <=> NULL", "x + NULL", "x || NULL", "vector_dims(y)",
                       "l2_normalize(y)",
                       "binary_quantize(y)", "subvector(x, NULL, 1)", "x < NULL", "y::real[]"]:  # fmt: skip
        query = f"SELECT {expression} IS NULL FROM (SELECT '[1]'::{kind} AS x, NULL::{kind} AS y) AS pair"
        assert one(db, query), expression


def test_every_object_is_described_and_safe_to_parallelise(db):
    rows = db.execute("""
        SELECT p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc'), p.provolatile::text, p.proparallel::text,
            p.proisstrict, p.prokind::text
        FROM pg_proc AS p
        JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_extension AS e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
        AND e.extname = 'copymatch'
        WHERE p.proname ~ '^(vector|halfvec|array_to_|l[12]_|inner_product|cosine_distance)'
            OR p.proname ~ '^(binary_quantize|subvector|hamming_|jaccard_)'
            OR p.proname IN ('avg', 'sum')""").fetchall()
    assert len(rows) >= 80
    for signature, description, volatility, parallel, strict, proc_kind in rows:
        assert description, f"{signature} has no comment"
        assert parallel == "s", f"{signature} is not parallel safe"
        if proc_kind == "f":
            assert (volatility, strict) == ("i", True), signature
    undescribed = db.execute("""
        SELECT o.oprname FROM pg_operator AS o WHERE (o.oprleft IN ('vector'::regtype, 'halfvec'::regtype))
        AND obj_description(o.oid, 'pg_operator') IS NULL""").fetchall()
    assert undescribed == []
    assert one(db, "SELECT obj_description('vector'::regtype, 'pg_type')")
    assert one(db, "SELECT obj_description('halfvec'::regtype, 'pg_type')")


def test_operator_classes_are_sound(db):
    for name in ["vector_ops", "halfvec_ops"]:
        query = (
            "SELECT amvalidate(c.oid) FROM pg_opclass c JOIN pg_am a ON a.oid = opcmethod WHERE amname = 'btree' "
            "AND opcname = %s"
        )
        assert one(db, query, name)
