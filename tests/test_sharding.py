"""Sets over partitions on other servers: each is asked once, for its own nearest references, and the answers are those of one table."""

import time

import psycopg
import pytest
from pictures import jpeg, scene

ROWS = 2000
PARTS = ("refs1", "refs2", "refs3")
RANDOM = """CREATE FUNCTION random_vector(seed int) RETURNS vector LANGUAGE sql AS
    $$ SELECT l2_normalize(array_agg(hashint4extended(i, seed) / 9.3e18)::real[]::vector) FROM generate_series(1, 256) i $$"""
SHARD = (
    "CREATE TABLE refs (id int, shard int, kind text, image bytea, descriptor vector(256), PRIMARY KEY (id, shard)); "
)
NEAREST = "SELECT reference, round(similarity::numeric, 5) FROM copy_match_descriptor(random_vector({}), {}, 10) ORDER BY rank"


@pytest.fixture(autouse=True)
def postgres_fdw(new_db, connect):
    """Of contrib, which not every packager brings."""
    available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'"
    if not connect(new_db()).execute(available).fetchone()[0]:
        pytest.skip("this PostgreSQL has no postgres_fdw")


@pytest.fixture
def sharded(new_db, connect, server, request):
    """A coordinator with a set over two foreign partitions and a local one, beside a group of sets over the single partitions: an index
    that is asked for the same rows gives the same answer."""
    names = [new_db(), new_db()]
    coordinator = connect(new_db())
    coordinator.execute(RANDOM)
    coordinator.execute("CREATE EXTENSION postgres_fdw")
    coordinator.execute(SHARD.rstrip("; ").replace(", PRIMARY KEY (id, shard)", "") + " PARTITION BY LIST (shard)")
    info = coordinator.info
    for number, name in enumerate(names, 1):
        # Of so few rows a scan of the table is as good as one of the index.
        coordinator.execute(f'ALTER DATABASE "{name}" SET enable_seqscan = off')
        shard = connect(name)
        shard.execute(RANDOM)
        shard.execute(SHARD)
        shard.execute(
            f"INSERT INTO refs SELECT i, {number}, CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END, NULL, random_vector(i) FROM generate_series({number}, {ROWS}, 3) i"
        )
        shard.execute("CREATE INDEX ON refs USING ivf (descriptor vector_cosine_ops); ANALYZE refs")
        coordinator.execute(
            f"CREATE SERVER s{number} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{info.host}', port '{info.port}', dbname '{name}', extensions 'copymatch', async_capable 'true');"
            f"CREATE USER MAPPING FOR PUBLIC SERVER s{number} OPTIONS (user '{info.user}', password_required 'false');"
            f"CREATE FOREIGN TABLE refs{number} PARTITION OF refs FOR VALUES IN ({number}) SERVER s{number} OPTIONS (table_name 'refs')"
        )
    coordinator.execute("CREATE TABLE refs3 PARTITION OF refs FOR VALUES IN (0)")
    coordinator.execute(
        f"INSERT INTO refs3 SELECT i, 0, CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END, NULL, random_vector(i) FROM generate_series(3, {ROWS}, 3) i"
    )
    for name in ("refs", *PARTS):
        coordinator.execute(f"SELECT copy_create_set('{name}', '{name}', 'id', NULL, 'descriptor')")
    coordinator.execute("SELECT copy_create_group('whole', '{refs1,refs2,refs3}'); ANALYZE refs3")
    coordinator.shards = [connect(name) for name in names]
    return coordinator


def counts(shard) -> tuple[int, int, int]:
    """Sequential scans of the shard's table, scans of its index, and rows that these gave."""
    deadline = time.monotonic() + 10
    query = "SELECT seq_scan, idx_scan, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'refs'"
    last = None
    while time.monotonic() < deadline:
        shard.execute("SELECT pg_stat_clear_snapshot()")
        now = shard.execute(query).fetchone()
        if now == last:
            break
        last = now
        time.sleep(0.6)
    return tuple(number or 0 for number in last)


def same(db, query: int = 100) -> None:
    sharded, whole = (db.execute(NEAREST.format(query, f"'{name}'")).fetchall() for name in ("refs", "whole"))
    assert len(whole) == 10 and sharded == whole


def test_each_part_is_asked_for_its_own_nearest_and_the_answer_is_one_tables(sharded):
    same(sharded)
    sharded.execute(
        "SELECT postgres_fdw_disconnect_all()"
    )  # the shards' sessions report what they counted when they end
    before = [counts(shard) for shard in sharded.shards]
    for query in range(200, 220):
        same(sharded, query)
    sharded.execute(
        "SELECT postgres_fdw_disconnect_all()"
    )  # the shards' sessions report what they counted when they end
    for shard, (sequential, scans, rows) in zip(sharded.shards, before, strict=True):
        after = counts(shard)
        assert after[0] == sequential, "no part was read from end to end"
        # Twenty searches of the set and twenty of the group.
        assert after[1] - scans == 40, "one scan of the index a search"
        assert after[2] - rows <= 40 * 10, "ten rows a search"


def test_remote_estimates_and_fetch_size_change_nothing(sharded):
    for number in (1, 2):
        sharded.execute(f"ALTER SERVER s{number} OPTIONS (ADD use_remote_estimate 'true', ADD fetch_size '2')")
    same(sharded)
    before = [counts(shard)[0] for shard in sharded.shards]
    same(sharded, 300)
    sharded.execute("SELECT postgres_fdw_disconnect_all()")
    assert [counts(shard)[0] for shard in sharded.shards] == before


def test_filters_groups_paging_and_references_out_of_use(sharded):
    for name in ("refs", *PARTS):
        sharded.execute(f"SELECT copy_alter_set('{name}', filter => 'kind = ''odd''')")
    same(sharded)
    (first,) = sharded.execute(NEAREST.format(100, "'refs'")).fetchone()[:1]
    sharded.execute(f"SELECT copy_disable_reference('refs', '{first}')")
    for name in PARTS:
        if sharded.execute(f"SELECT count(*) FROM {name} WHERE id = {first}").fetchone()[0]:
            sharded.execute(f"SELECT copy_disable_reference('{name}', '{first}')")
    same(sharded)
    assert sharded.execute(NEAREST.format(100, "'refs'")).fetchone()[0] != first
    pages = "SELECT reference FROM copy_match_descriptor(random_vector(100), 'refs', 5, NULL, {}) ORDER BY rank"
    two = sharded.execute(pages.format(0)).fetchall() + sharded.execute(pages.format(5)).fetchall()
    assert two == [row[:1] for row in sharded.execute(NEAREST.format(100, "'refs'")).fetchall()]


def test_composite_keys_prepared_statements_and_cursors(sharded):
    sharded.execute("SELECT copy_create_set('pairs', 'refs', 'id, shard', NULL, 'descriptor')")
    expected = sharded.execute(NEAREST.format(100, "'whole'")).fetchall()
    found = sharded.execute(NEAREST.format(100, "'pairs'")).fetchall()
    assert [(row[0].split(",")[0].strip("("), row[1]) for row in found] == expected
    sharded.execute("PREPARE q(int) AS " + NEAREST.format("$1", "'refs'"))
    for _ in range(7):  # a generic plan from the sixth on
        assert sharded.execute("EXECUTE q(100)").fetchall() == expected
    with sharded.transaction():
        sharded.execute("DECLARE c CURSOR FOR " + NEAREST.format(100, "'refs'"))
        assert sharded.execute("FETCH 4 FROM c").fetchall() == expected[:4]


def test_who_may_read_the_parent_alone_gets_the_same_answer(sharded):
    """The parent's privileges and policies hold, as in any query of it."""
    role = "shard_reader_" + sharded.info.dbname.rsplit("_", 1)[-1].lower()
    sharded.execute(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role}; GRANT SELECT ON refs TO {role}")
    expected = sharded.execute(NEAREST.format(100, "'refs'")).fetchall()
    try:
        sharded.execute(f"SET ROLE {role}")
        assert sharded.execute(NEAREST.format(100, "'refs'")).fetchall() == expected
        sharded.execute(
            "RESET ROLE; CREATE POLICY odd ON refs USING (kind = 'odd'); ALTER TABLE refs ENABLE ROW LEVEL SECURITY"
        )
        sharded.execute(f"GRANT SELECT ON refs1, refs2, refs3 TO {role}; SET ROLE {role}")
        found = [int(row[0]) for row in sharded.execute(NEAREST.format(100, "'refs'")).fetchall()]
        assert len(found) == 10 and all(number % 2 for number in found)
        sharded.execute("RESET ROLE; ALTER TABLE refs DISABLE ROW LEVEL SECURITY")
        sharded.execute(f"SET ROLE {role}")
        assert sharded.execute(NEAREST.format(100, "'refs'")).fetchall() == expected
        # Whoever may read the partitions alone has no right on the set's relation.
        sharded.execute(f"RESET ROLE; REVOKE SELECT ON refs FROM {role}; SET ROLE {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            sharded.execute(NEAREST.format(100, "'refs'"))
    finally:
        sharded.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


def test_copy_doctor_tells_which_options_a_server_lacks(sharded):
    shards = "SELECT subject, state, hint FROM copy_doctor() WHERE \"check\" = 'shard' ORDER BY 1"
    assert [row[:2] for row in sharded.execute(shards).fetchall()] == [("s1", "ok"), ("s2", "ok")]
    sharded.execute("ALTER SERVER s1 OPTIONS (DROP extensions); ALTER SERVER s2 OPTIONS (DROP async_capable)")
    told = sharded.execute(shards).fetchall()
    assert [row[:2] for row in told] == [("s1", "error"), ("s2", "warning")]
    for _, _, hint in told:
        sharded.execute(hint)
    assert [row[:2] for row in sharded.execute(shards).fetchall()] == [("s1", "ok"), ("s2", "ok")]


def test_a_shard_that_is_down_is_an_error_that_names_it(sharded):
    sharded.execute("ALTER SERVER s2 OPTIONS (SET dbname 'gone_away'); SELECT postgres_fdw_disconnect_all()")
    with pytest.raises(psycopg.Error) as error:
        sharded.execute(NEAREST.format(100, "'refs'"))
    assert '"s2"' in str(error.value)


def test_rows_go_to_their_shard_are_described_there_and_verified_from_here(new_db, connect):
    """As docs/sharding.md has it: the shard's own set keeps descriptors and sketches, the coordinator's searches them."""
    name = new_db()
    shard, coordinator = connect(name), connect(new_db())
    shard.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    shard.execute("SELECT copy_create_set('licensed', 'refs', key => 'id', image => 'image')")
    info = coordinator.info
    coordinator.execute(
        "CREATE EXTENSION postgres_fdw; CREATE TABLE refs (id int, image bytea, descriptor vector(256), descriptor_sketch bytea) PARTITION BY HASH (id);"
        f"CREATE SERVER s0 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{info.host}', port '{info.port}', dbname '{name}', extensions 'copymatch', async_capable 'true');"
        f"CREATE USER MAPPING FOR CURRENT_USER SERVER s0 OPTIONS (user '{info.user}');"
        "CREATE FOREIGN TABLE refs_0 PARTITION OF refs FOR VALUES WITH (MODULUS 1, REMAINDER 0) SERVER s0 OPTIONS (table_name 'refs')"
    )
    coordinator.execute(
        "SELECT copy_create_set('licensed', 'refs', key => 'id', image => NULL, descriptor => 'descriptor')"
    )
    for seed in range(6):
        coordinator.execute("INSERT INTO refs (id, image) VALUES (%s, %s)", [seed, jpeg(scene(seed))])
    assert shard.execute("SELECT count(descriptor), count(descriptor_sketch) FROM refs").fetchone() == (6, 6)
    found = "SELECT reference, verdict, verified FROM copy_match(%s, 'licensed', 1)"
    assert coordinator.execute(found, [jpeg(scene(4), 60)]).fetchone() == ("4", "copy", True)
    coordinator.execute("CREATE TABLE uploads (id int PRIMARY KEY, image bytea)")
    coordinator.execute("SELECT copy_create_flagging('uploads', 'image', 'id', 'licensed', k => 1)")
    coordinator.execute("INSERT INTO uploads VALUES (1, %s)", [jpeg(scene(2), 60)])
    assert coordinator.execute("SELECT upload, reference FROM copymatch.finding").fetchall() == [("1", "2")]
