"""Sets over partitions on other servers: each is asked once, for its own nearest references, and the answers
are those of one table."""

import contextlib
import itertools
import json
import os
import re
import threading
import time

import psycopg
import pytest
from pictures import jpeg, scene

ROWS = 2000
PARTS = ("refs1", "refs2", "refs3")
RANDOM = """CREATE FUNCTION random_vector(seed int) RETURNS vector LANGUAGE sql AS
    $$ SELECT l2_normalize(array_agg(hashint4extended(i, seed) / 9.3e18)::real[]::vector)
    FROM generate_series(1, 256) i $$"""
COPIES = itertools.count(10)
SHARD = (
    "CREATE TABLE refs (id int, shard int, kind text, image bytea, descriptor vector(256), PRIMARY KEY (id, shard)); "
)
NEAREST = (
    "SELECT reference, round(similarity::numeric, 5) FROM copy_match_descriptor(random_vector({}), {}, 10) "
    "ORDER BY rank"
)


@pytest.fixture(autouse=True, scope="module")
def postgres_fdw(server):
    """Of contrib, which not every packager brings."""
    with server.connect() as admin:
        available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'"
        if not admin.execute(available).fetchone()[0]:
            pytest.skip("this PostgreSQL has no postgres_fdw")


@pytest.fixture(params=["own", "postgres_fdw"])
def way(request):
    """By which connections shards are asked."""
    return request.param


def ask_by(db, way: str) -> None:
    db.execute(f"SET copymatch.shard_connections = {'on' if way == 'own' else 'off'}")


@pytest.fixture(scope="module")
def pristine(server, postgres_fdw):
    """Names of databases to copy each test's from: two shards and their coordinator, with a set over two foreign
    partitions and a local one, beside a group of sets over the single partitions. An index that is asked for the same
    rows gives the same answer."""
    names = [f"test_pristine_{os.getpid()}_{number}" for number in range(3)]
    with server.connect() as admin:
        for name in names:
            admin.execute(f'CREATE DATABASE "{name}"')
    with contextlib.ExitStack() as stack:
        *shards, coordinator = [stack.enter_context(server.connect(name)) for name in names]
        for db in (*shards, coordinator):
            db.execute("CREATE EXTENSION copymatch")
            db.execute(RANDOM)
        coordinator.execute("CREATE EXTENSION postgres_fdw")
        coordinator.execute(SHARD.rstrip("; ").replace(", PRIMARY KEY (id, shard)", "") + " PARTITION BY LIST (shard)")
        info = coordinator.info
        for number, shard in enumerate(shards, 1):
            shard.execute(SHARD)
            # What autovacuum reads would be counted, too.
            shard.execute("ALTER TABLE refs SET (autovacuum_enabled = off)")
            shard.execute(
                f"INSERT INTO refs SELECT i, {number}, CASE WHEN i % 2 = 0 THEN 'even' "
                f"ELSE 'odd' END, NULL, random_vector(i) FROM generate_series({number}, {ROWS}, 3) i"
            )
            shard.execute("CREATE INDEX ON refs USING ivf (descriptor vector_cosine_ops); ANALYZE refs")
            coordinator.execute(
                f"CREATE SERVER s{number} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{info.host}', "
                f"port '{info.port}', dbname '{shard.info.dbname}', extensions 'copymatch', async_capable 'true');"
                f"CREATE USER MAPPING FOR PUBLIC SERVER s{number} OPTIONS (user '{info.user}', "
                "password_required 'false');"
                f"CREATE FOREIGN TABLE refs{number} PARTITION OF refs FOR VALUES IN ({number}) SERVER s{number} "
                "OPTIONS (table_name 'refs')"
            )
        coordinator.execute("CREATE TABLE refs3 PARTITION OF refs FOR VALUES IN (0)")
        coordinator.execute(
            "INSERT INTO refs3 SELECT i, 0, CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END, NULL, random_vector(i) "
            f"FROM generate_series(3, {ROWS}, 3) i"
        )
        for name in ("refs", *PARTS):
            coordinator.execute(f"SELECT copy_create_set('{name}', '{name}', 'id', NULL, 'descriptor')")
        coordinator.execute("SELECT copy_create_group('whole', '{refs1,refs2,refs3}'); ANALYZE refs3")
    with server.connect() as admin:
        # A database that somebody is connected to cannot be copied.
        admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = ANY (%s)", [names])
        yield names
        for name in names:
            admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def sharded(pristine, server, connect, way):
    """A coordinator as above, with the connections to its shards; shards are asked the one way or the other."""
    names = [f"{name.replace('pristine', 'sharded')}{next(COPIES)}" for name in pristine]
    with server.connect() as admin:
        for name, template in zip(names, pristine, strict=True):
            admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        for name in names[:2]:
            # Of so few rows a scan of the table is as good as one of the index.
            admin.execute(f'ALTER DATABASE "{name}" SET enable_seqscan = off')
    coordinator = connect(names[2])
    for number, name in enumerate(names[:2], 1):
        coordinator.execute(f"ALTER SERVER s{number} OPTIONS (SET dbname '{name}')")
    coordinator.shards = [connect(name) for name in names[:2]]
    ask_by(coordinator, way)
    yield coordinator
    with server.connect() as admin:
        for name in reversed(names):
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def disconnect(sharded) -> None:
    """Ends the shards' sessions, which then report what they counted."""
    sharded.execute("SELECT postgres_fdw_disconnect_all()")
    for shard in sharded.shards:
        kill(shard, shard.info.dbname)


def own_sessions(shard) -> list[int]:
    """Processes there that sessions of copymatch have to themselves."""
    sessions = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'copymatch' "
        "ORDER BY 1"
    )
    return [row[0] for row in shard.execute(sessions).fetchall()]


def counts(shard) -> tuple[int, int, int]:
    """Sequential scans of the shard's table, scans of its index, and rows that these gave."""
    deadline = time.monotonic() + 10
    query = "SELECT seq_scan, idx_scan, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'refs'"
    last = None
    while time.monotonic() < deadline:
        if shard.info.server_version >= 150000:
            shard.execute("SELECT pg_stat_force_next_flush()")
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
    disconnect(sharded)
    before = [counts(shard) for shard in sharded.shards]
    for query in range(200, 220):
        same(sharded, query)
    disconnect(sharded)
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
    # What the set-up counted is reported before, too.
    disconnect(sharded)
    before = [counts(shard)[0] for shard in sharded.shards]
    same(sharded, 300)
    disconnect(sharded)
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


def test_parts_of_parts_whole_tables_and_negative_sets_are_searched_over_shards(sharded):
    columns = "id int, shard int, kind text, image bytea, descriptor vector(256)"
    sharded.execute(f"CREATE TABLE nested ({columns}) PARTITION BY LIST (shard)")
    sharded.execute("CREATE TABLE nested_far PARTITION OF nested FOR VALUES IN (1, 2) PARTITION BY LIST (shard)")
    for number in (1, 2):
        sharded.execute(
            f"CREATE FOREIGN TABLE nested{number} PARTITION OF nested_far FOR VALUES IN ({number}) SERVER s{number} "
            "OPTIONS (table_name 'refs')"
        )
    sharded.execute("CREATE TABLE nested_near PARTITION OF nested FOR VALUES IN (0)")
    sharded.execute("INSERT INTO nested_near SELECT * FROM refs3")
    sharded.execute("SELECT copy_create_set('nested', 'nested', 'id', NULL, 'descriptor')")
    whole, nested = (sharded.execute(NEAREST.format(100, f"'{name}'")).fetchall() for name in ("whole", "nested"))
    assert len(whole) == 10 and nested == whole

    sharded.execute(
        "CREATE TABLE queries AS SELECT i AS id, random_vector(i) AS descriptor FROM generate_series(7, 9) i"
    )
    rows = (
        "SELECT upload, reference, round(similarity::numeric, 5) "
        "FROM copy_match_table('queries', 'id', 'descriptor', '{}', 10) ORDER BY upload, rank"
    )
    one_by_one = [
        (str(query), *row)
        for query in range(7, 10)
        for row in sharded.execute(NEAREST.format(query, "'whole'")).fetchall()
    ]
    assert len(one_by_one) == 30
    for name in ("refs", "nested"):
        assert sharded.execute(rows.format(name)).fetchall() == one_by_one

    # The one reference of a set is what lies on a shard, too, in a set of what nobody is to be blamed for.
    (reference,) = sharded.shards[0].execute("SELECT min(id) FROM refs").fetchone()
    sharded.execute(f"CREATE TABLE known AS SELECT 1 AS id, random_vector({reference}) AS descriptor")
    sharded.execute("SELECT copy_create_set('known', 'known', 'id', NULL, 'descriptor')")
    found = f"SELECT verdict, explanation FROM copy_match_descriptor(random_vector({reference}), 'known')"
    assert sharded.execute(found).fetchone() == ("copy", None)
    sharded.execute("SELECT copy_create_set('innocent', 'nested', 'id', NULL, 'descriptor', negative => true)")
    verdict, explanation = sharded.execute(found).fetchone()
    assert verdict != "copy" and "innocent" in explanation and str(reference) in explanation


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


def test_rows_go_to_their_shard_are_described_there_and_verified_from_here(new_db, connect, way):
    """As docs/sharding.md has it: the shard's own set keeps descriptors and sketches, the
    coordinator's searches them."""
    name = new_db()
    shard, coordinator = connect(name), connect(new_db())
    ask_by(coordinator, way)
    shard.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    shard.execute("SELECT copy_create_set('licensed', 'refs', key => 'id', image => 'image')")
    info = coordinator.info
    coordinator.execute(
        "CREATE EXTENSION postgres_fdw; "
        "CREATE TABLE refs (id int, image bytea, descriptor vector(256), descriptor_sketch bytea) PARTITION BY HASH "
        "(id);"
        f"CREATE SERVER s0 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{info.host}', port '{info.port}', "
        f"dbname '{name}', extensions 'copymatch', async_capable 'true');"
        f"CREATE USER MAPPING FOR CURRENT_USER SERVER s0 OPTIONS (user '{info.user}');"
        "CREATE FOREIGN TABLE refs_0 PARTITION OF refs FOR VALUES WITH (MODULUS 1, REMAINDER 0) SERVER s0 OPTIONS "
        "(table_name 'refs')"
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


CHECK = (
    "SELECT part::text, server, status, reachable, model_agrees, problem, mend FROM copy_shard_check('{}') "
    "ORDER BY part::text"
)
PARTIAL = "SELECT reference FROM copy_match_descriptor(random_vector({}), '{}', 10, partial => true) ORDER BY rank"


def shard_sets(sharded) -> None:
    """Sets on the shards, which say of which model their descriptors are."""
    for shard in sharded.shards:
        shard.execute("SELECT copy_create_set('there', 'refs', 'id, shard', NULL, 'descriptor')")


def other_model(shard, connect) -> None:
    """The shard's set is of another model from here on."""
    shard.execute(
        "INSERT INTO copymatch.model (name, version, dimensions, sha256, manifest, weights, background_sha256)"
        " SELECT 'other', '1', dimensions, sha256('x'), manifest, 'x', background_sha256 FROM copymatch.model "
        "WHERE built_in;"
        "UPDATE copymatch.reference_set SET model = 'other'"
    )


@pytest.fixture
def warnings(sharded):
    """Message and detail of each WARNING on the coordinator's connection."""
    heard = []

    def hear(notice):
        # postgres_fdw has a word of its own to say about a lost connection.
        if notice.severity_nonlocalized == "WARNING" and "reference set" in notice.message_primary:
            heard.append((notice.message_primary, notice.message_detail))

    sharded.add_notice_handler(hear)
    return heard


def kill(sharded, database: str) -> None:
    sharded.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = %s AND application_name IN ('postgres_fdw', 'copymatch')",
        [database],
    )


def log_statements(sharded) -> None:
    shard = sharded.shards[0]
    shard.execute(f"ALTER DATABASE \"{shard.info.dbname}\" SET log_statement = 'all'")
    disconnect(sharded)


def logged(server, begin: int) -> str:
    with open(server.log, errors="replace") as log:
        log.seek(begin)
        return log.read()


def test_keys_and_distances_cross_the_wire_and_no_descriptor(sharded, server, way):
    """The statement that reaches a shard is one over no row, and its answer is some hundred bytes."""
    log_statements(sharded)
    begin = server.log.stat().st_size
    same(sharded, 123)
    told = logged(server, begin)
    assert '"set": "refs"' in told and '"limit": 10' in told
    if way == "own":
        assert "SELECT copymatch.shard_answer_final(" in told and "ctid" not in told
    else:
        assert "SELECT copymatch.shard_answer(" in told and "ctid = '(0,0)'" in told
    assert "ORDER BY (descriptor" not in told, "no statement brings rows"
    plan = sharded.execute(
        "EXPLAIN (VERBOSE, COSTS OFF) SELECT copymatch.shard_answer('{}', NULL) WITHIN GROUP (ORDER BY r.ctid)"
        " FROM refs1 r WHERE r.ctid = '(0,0)'"
    ).fetchall()
    assert any("Remote SQL: SELECT copymatch.shard_answer" in row[0] for row in plan), plan


def test_copy_shard_check_tells_of_each_part_and_its_statements_mend(sharded, connect):
    found = sharded.execute(CHECK.format("refs")).fetchall()
    assert [row[:5] for row in found] == [
        ("refs1", "s1", "warning", True, None),
        ("refs2", "s2", "warning", True, None),
        ("refs3", None, "ok", None, None),
    ]
    assert "no reference set there says" in found[0][5] and "copy_create_set" in found[0][6]
    shard_sets(sharded)
    assert [row[2:5] for row in sharded.execute(CHECK.format("refs")).fetchall()] == [
        ("ok", True, True),
        ("ok", True, True),
        ("ok", None, None),
    ]
    sharded.execute("ALTER SERVER s1 OPTIONS (DROP extensions); ALTER SERVER s2 OPTIONS (SET async_capable 'false')")
    found = sharded.execute(CHECK.format("refs")).fetchall()
    assert [row[2] for row in found] == ["error", "warning", "ok"]
    for row in found[:2]:
        sharded.execute(row[6])
    assert {row[2] for row in sharded.execute(CHECK.format("refs")).fetchall()} == {"ok"}
    row = sharded.execute(
        "SELECT version, model, length(model_sha256), index, rows, options FROM copy_shard_check('refs') "
        "WHERE server = 's1'"
    ).fetchone()
    version = sharded.execute("SELECT extversion FROM pg_extension WHERE extname = 'copymatch'").fetchone()[0]
    assert row[0] == version and row[2] == 64 and row[3] == "public.refs_descriptor_idx" and row[4] == 667
    assert "extensions=copymatch" in row[5] and "table_name=refs" in row[5]


def test_missing_indexes_are_named_printed_and_made(sharded, warnings):
    for shard in sharded.shards:
        shard.execute("DROP INDEX refs_descriptor_idx")
    sharded.execute("SELECT copy_create_set('again', 'refs', 'id', NULL, 'descriptor')")
    (told,) = [detail for message, detail in warnings if "not all shards" in message]
    assert "refs1" in told and "refs2" in told and "refs3" not in told and "no index" in told
    sharded.execute("DROP INDEX refs_descriptor_idx")  # and that of the part which lies here
    printed = sharded.execute("SELECT server, statement, done FROM copy_create_shard_indexes('again')").fetchall()
    assert [row[0] for row in printed] == ["s1", "s2", None] and not any(row[2] for row in printed)
    sharded.shards[0].execute(printed[0][1])
    left = "SELECT server FROM copy_create_shard_indexes('again')"
    assert sharded.execute(left).fetchall() == [("s2",), (None,)]
    available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
        sharded.execute("SELECT * FROM copy_create_shard_indexes('again', run => true)")
    assert "dblink" in error.value.diag.message_hint
    if sharded.execute(available).fetchone()[0]:
        sharded.execute("CREATE EXTENSION dblink")
        made = sharded.execute("SELECT server, done FROM copy_create_shard_indexes('again', run => true)").fetchall()
        assert made == [("s2", True), (None, True)]
        assert sharded.execute(left).fetchall() == []
    same(sharded)


def test_a_shard_with_another_model_is_refused_and_named(sharded, connect):
    shard_sets(sharded)
    same(sharded)
    other_model(sharded.shards[1], connect)
    for call in (NEAREST.format(100, "'refs'"), PARTIAL.format(100, "refs")):
        with pytest.raises(psycopg.errors.DatatypeMismatch) as error:
            sharded.execute(call)
        assert 'shard "s2" of reference set "refs"' in error.value.diag.message_primary
        assert '"other"' in error.value.diag.message_primary
    # A filter that PostgreSQL computes here changes nothing about that.
    sharded.execute("SELECT copy_alter_set('refs', filter => 'now() > ''2020-01-01''::timestamptz')")
    with pytest.raises(psycopg.errors.DatatypeMismatch):
        sharded.execute(NEAREST.format(100, "'refs'"))
    row = sharded.execute(CHECK.format("refs")).fetchall()[1]
    assert row[:5] == ("refs2", "s2", "error", True, False) and "copy_reembed('there'" in row[6]
    # A transaction that has begun before sees what was there then, on all shards.
    sharded.shards[1].execute(
        "UPDATE copymatch.reference_set SET model = (SELECT name FROM copymatch.model WHERE built_in)"
    )
    sharded.execute("SELECT copy_alter_set('refs', reset => '{filter}')")
    same(sharded)


def test_a_shard_with_an_older_copymatch_or_none_is_refused_and_named(sharded, connect):
    shard = sharded.shards[0]
    for remake in ("CREATE EXTENSION copymatch VERSION '0.2.0'", "CREATE EXTENSION copymatch VERSION '0.1.0'", ""):
        shard.execute(f"DROP EXTENSION copymatch CASCADE; {remake}")
        sharded.execute("SELECT postgres_fdw_disconnect_all()")
        with pytest.raises(psycopg.Error) as error:
            sharded.execute(NEAREST.format(100, "'refs'"))
        assert 'shard "s1" of reference set "refs" has an older copymatch' in error.value.diag.message_primary
        assert "ALTER EXTENSION copymatch UPDATE" in error.value.diag.message_hint
        row = sharded.execute(CHECK.format("refs")).fetchone()
        assert row[1:4] == ("s1", "error", True) and "ALTER EXTENSION copymatch UPDATE" in row[6]
    # One that knows the question compares versions.
    question = (
        """{"part": 0, "server": "s1", "set": "refs", "from": "", "version": "99.0", "relation": "refs","""
        """ "descriptor": "d", "model": "", "sha256": "", "wanted": "agreement"}"""
    )
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
        sharded.shards[1].execute(
            "SELECT copymatch.shard_answer(%s, NULL) WITHIN GROUP (ORDER BY ctid) FROM refs WHERE false", [question]
        )
    assert "older than the coordinator's 99.0" in error.value.diag.message_primary


def test_partial_answers_from_the_living_shards_and_names_the_dead(sharded, warnings):
    whole = [row[0] for row in sharded.execute(NEAREST.format(100, "'whole'")).fetchall()]
    assert [row[0] for row in sharded.execute(PARTIAL.format(100, "refs")).fetchall()] == whole and not warnings
    filtered = (
        "SELECT copy_create_set('filtered', 'refs', 'id', NULL, 'descriptor', "
        "filter => 'now() > ''2020-01-01''::timestamptz')"
    )
    sharded.execute(filtered)
    sharded.execute("ALTER SERVER s2 OPTIONS (SET dbname 'gone_away'); SELECT postgres_fdw_disconnect_all()")
    with pytest.raises(psycopg.Error) as error:
        sharded.execute(NEAREST.format(100, "'refs'"))
    assert 'shard "s2" of reference set "refs"' in error.value.diag.message_primary
    sharded.execute("SELECT copy_create_group('living', '{refs1,refs3}')")
    living = [row[0] for row in sharded.execute(NEAREST.format(100, "'living'")).fetchall()]
    assert [row[0] for row in sharded.execute(PARTIAL.format(100, "refs")).fetchall()] == living
    ((message, detail),) = warnings
    assert 'server "s2"' in message and "gone_away" in detail
    row = sharded.execute(CHECK.format("refs")).fetchall()[1]
    assert row[1:4] == ("s2", "error", False)
    # A statement over many rows says it once, and a filter that is computed here makes no difference.
    sharded.execute(
        "CREATE TABLE uploads AS SELECT i AS id, random_vector(i) AS descriptor FROM generate_series(1, 5) i"
    )
    warnings.clear()
    rows = "SELECT count(*) FROM copy_match_table('uploads', 'id', 'descriptor', 'refs', 3, partial => true)"
    assert sharded.execute(rows).fetchone() == (15,) and len(warnings) == 1
    assert [row[0] for row in sharded.execute(PARTIAL.format(100, "filtered")).fetchall()] == living
    sharded.execute("ALTER SERVER s1 OPTIONS (SET dbname 'gone_away'); SELECT postgres_fdw_disconnect_all()")
    assert len(sharded.execute(PARTIAL.format(100, "refs")).fetchall()) == 10, "what lies here is there"


def test_a_shard_killed_in_a_transaction_is_an_error_that_names_it_or_left_out(sharded, warnings, server, way):
    """The connection goes while the transaction has it in use. One of the session's own is not
    in use between searches."""
    if way == "own":
        with sharded.transaction():
            same(sharded)
            kill(server.connect(), sharded.shards[1].info.dbname)
            same(sharded)
            sharded.execute("CREATE TABLE kept (i int)")
        assert sharded.execute("SELECT count(*) FROM kept").fetchone() == (0,) and not warnings
        return
    with pytest.raises(psycopg.Error) as error, sharded.transaction():
        same(sharded)
        kill(server.connect(), sharded.shards[1].info.dbname)
        sharded.execute(NEAREST.format(100, "'refs'"))
    assert "shard" in str(error.value) and "s2" in str(error.value)
    same(sharded)
    try:
        with sharded.transaction():
            same(sharded)
            kill(server.connect(), sharded.shards[1].info.dbname)
            found = sharded.execute(PARTIAL.format(100, "refs")).fetchall()
            assert len(found) == 10 and len(warnings) == 1 and 'server "s2"' in warnings[0][0]
            sharded.execute("CREATE TABLE kept (i int)")
        assert sharded.execute("SELECT count(*) FROM kept").fetchone() == (0,), "it was committed"
    except psycopg.OperationalError as error:
        # postgres_fdw of 2025 on lets no transaction commit that lost a connection: said at
        # once, not behind the answer.
        assert 'shard "s2" of reference set "refs" was lost' in error.diag.message_primary
        assert "Run it again" in error.diag.message_hint
    same(sharded)
    assert len(sharded.execute(PARTIAL.format(100, "refs")).fetchall()) == 10


def test_a_slow_shard_ends_by_its_own_timeout_and_a_cancel_ends_all(sharded, warnings, connect):
    """A lock on its table makes the second shard slow."""
    slow = sharded.shards[1]
    slow.execute("SET lock_timeout = 0; BEGIN; LOCK refs")
    sharded.execute(
        "ALTER SERVER s2 OPTIONS (ADD options '-c statement_timeout=400'); SELECT postgres_fdw_disconnect_all()"
    )
    try:
        with pytest.raises(psycopg.errors.QueryCanceled) as error:
            sharded.execute(NEAREST.format(100, "'refs'"))
        assert 'shard "s2" of reference set "refs"' in error.value.diag.message_primary
        assert len(sharded.execute(PARTIAL.format(100, "refs")).fetchall()) == 10
        assert 'server "s2"' in warnings[-1][0]
        # A cancel, or the coordinator's own timeout, is never taken for a shard's.
        sharded.execute("ALTER SERVER s2 OPTIONS (DROP options); SELECT postgres_fdw_disconnect_all()")
        sharded.execute("SET statement_timeout = 300")
        with pytest.raises(psycopg.errors.QueryCanceled) as error:
            sharded.execute(PARTIAL.format(100, "refs"))
        assert "shard" not in error.value.diag.message_primary
    finally:
        sharded.execute("RESET statement_timeout")
        slow.execute("ROLLBACK")
    same(sharded)


def test_a_renamed_table_is_an_error_that_names_the_shard_and_what_mends_it(sharded):
    sharded.shards[0].execute("ALTER TABLE refs RENAME TO moved")
    with pytest.raises(psycopg.errors.UndefinedTable) as error:
        sharded.execute(NEAREST.format(100, "'refs'"))
    assert 'shard "s1" of reference set "refs"' in error.value.diag.message_primary
    row = sharded.execute(CHECK.format("refs")).fetchone()
    assert row[1:4] == ("s1", "error", True) and "ALTER FOREIGN TABLE public.refs1 OPTIONS (SET table_name" in row[6]
    sharded.execute(row[6].replace("…", "moved"))
    same(sharded)


def test_a_rolled_back_transaction_leaves_nothing_and_its_own_rows_are_found_within(sharded):
    expected = sharded.execute(NEAREST.format(100, "'refs'")).fetchall()
    with sharded.transaction(force_rollback=True):
        sharded.execute("INSERT INTO refs VALUES (70001, 1, 'odd', NULL, random_vector(70001))")
        found = sharded.execute(NEAREST.format(70001, "'refs'")).fetchall()
        assert found[0] == ("70001", 1)
        with pytest.raises(psycopg.Error), sharded.transaction():
            sharded.execute("SELECT copy_match_descriptor('[1,2]', 'refs')")
        assert sharded.execute(NEAREST.format(70001, "'refs'")).fetchall() == found
    assert sharded.execute(NEAREST.format(70001, "'refs'")).fetchone()[0] != "70001"
    assert sharded.execute(NEAREST.format(100, "'refs'")).fetchall() == expected


def test_two_coordinators_over_the_same_shards_answer_the_same(sharded, new_db, connect):
    other = connect(new_db())
    other.execute(RANDOM)
    other.execute("CREATE EXTENSION postgres_fdw")
    other.execute(SHARD.rstrip("; ").replace(", PRIMARY KEY (id, shard)", "") + " PARTITION BY LIST (shard)")
    info = other.info
    for number, shard in enumerate(sharded.shards, 1):
        other.execute(
            f"CREATE SERVER n{number} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{info.host}', "
            f"dbname '{shard.info.dbname}', extensions 'copymatch', async_capable 'true');"
            f"CREATE USER MAPPING FOR PUBLIC SERVER n{number} OPTIONS (user '{info.user}', password_required 'false');"
            f"CREATE FOREIGN TABLE refs{number} PARTITION OF refs FOR VALUES IN ({number}) SERVER n{number} OPTIONS "
            "(table_name 'refs')"
        )
    other.execute("SELECT copy_create_set('refs', 'refs', 'id', NULL, 'descriptor')")
    sharded.execute("SELECT copy_create_group('both', '{refs1,refs2}')")
    for query in range(300, 305):
        expected = sharded.execute(NEAREST.format(query, "'both'")).fetchall()
        assert other.execute(NEAREST.format(query, "'refs'")).fetchall() == expected


def test_a_part_that_is_a_view_there_or_has_other_names_there_is_searched_too(sharded):
    shard = sharded.shards[0]
    shard.execute("CREATE VIEW shown AS SELECT * FROM refs; ALTER TABLE refs RENAME COLUMN id TO number")
    sharded.execute("ALTER FOREIGN TABLE refs1 ALTER COLUMN id OPTIONS (ADD column_name 'number')")
    same(sharded)
    sharded.execute("SELECT copy_alter_set('refs', filter => 'id > 0')")
    same(sharded)
    sharded.execute("ALTER FOREIGN TABLE refs1 ALTER COLUMN id OPTIONS (DROP column_name)")
    sharded.execute("ALTER FOREIGN TABLE refs1 OPTIONS (SET table_name 'shown')")
    same(sharded)
    same(sharded, 200)
    row = sharded.execute(CHECK.format("refs")).fetchone()
    assert row[2] == "warning" and "is a view there" in row[5]


def test_shards_are_asked_at_once(sharded):
    """As docs/sharding.md says of async_capable; PostgreSQL 14 does so for plain scans only."""
    if sharded.info.server_version < 150000:
        pytest.skip("before PostgreSQL 15 no aggregate is read asynchronously below UNION ALL")
    ask = (
        "(SELECT copymatch.shard_answer('{{}}', NULL) WITHIN GROUP (ORDER BY r.ctid) FROM {} r WHERE r.ctid = '(0,0)')"
    )
    plan = sharded.execute(
        "EXPLAIN (COSTS OFF) " + " UNION ALL ".join(ask.format(part) for part in PARTS[:2])
    ).fetchall()
    assert sum("Async Foreign Scan" in row[0] for row in plan) == 2, plan


def test_a_partition_moves_and_a_shard_is_added(new_db, connect, way):
    """As docs/sharding.md has it."""
    names = [new_db(), new_db()]
    old, new = (connect(name) for name in names)
    coordinator = connect(new_db())
    ask_by(coordinator, way)
    info = coordinator.info
    columns = "(id int {}, image bytea, descriptor vector(256), descriptor_sketch bytea)"
    old.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    old.execute("SELECT copy_create_set('licensed', 'refs', key => 'id', image => 'image')")
    coordinator.execute("CREATE EXTENSION postgres_fdw")
    coordinator.execute(f"CREATE TABLE refs {columns.format('NOT NULL')} PARTITION BY LIST ((id % 2))")
    for number, name in enumerate(names):
        coordinator.execute(
            f"CREATE SERVER shard{number} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{info.host}', "
            f"port '{info.port}', dbname '{name}', extensions 'copymatch', async_capable 'true');"
            f"CREATE USER MAPPING FOR CURRENT_USER SERVER shard{number} OPTIONS (user '{info.user}')"
        )
    coordinator.execute(
        "CREATE FOREIGN TABLE refs_0 PARTITION OF refs FOR VALUES IN (0) SERVER shard0 OPTIONS (table_name 'refs')"
    )
    coordinator.execute(
        "SELECT copy_create_set('licensed', 'refs', key => 'id', image => NULL, descriptor => 'descriptor')"
    )
    pictures = {seed: jpeg(scene(seed)) for seed in (2, 4, 5)}
    for seed in (2, 4):
        coordinator.execute("INSERT INTO refs (id, image) VALUES (%s, %s)", [seed, pictures[seed]])
    found = "SELECT reference, verdict, verified FROM copy_match(%s, 'licensed', 1)"
    assert coordinator.execute(found, [jpeg(scene(4), 60)]).fetchone() == ("4", "copy", True)
    # It moves.
    new.execute(f"CREATE TABLE refs_0 {columns.format('PRIMARY KEY')}")
    coordinator.execute(
        f"CREATE FOREIGN TABLE refs_0_new {columns.format('NOT NULL')} SERVER shard1 OPTIONS (table_name 'refs_0')"
    )
    coordinator.execute("INSERT INTO refs_0_new SELECT * FROM refs_0")
    assert new.execute("SELECT copy_create_set('licensed', 'refs_0', key => 'id', image => 'image')").fetchone() == (0,)
    with coordinator.transaction():
        coordinator.execute("ALTER TABLE refs DETACH PARTITION refs_0")
        coordinator.execute("ALTER TABLE refs ATTACH PARTITION refs_0_new FOR VALUES IN (0)")
    old.execute("DELETE FROM refs")
    assert coordinator.execute(found, [jpeg(scene(4), 60)]).fetchone() == ("4", "copy", True)
    # One more.
    coordinator.execute(
        "CREATE FOREIGN TABLE refs_1 PARTITION OF refs FOR VALUES IN (1) SERVER shard0 OPTIONS (table_name 'refs')"
    )
    coordinator.execute("INSERT INTO refs (id, image) VALUES (5, %s)", [pictures[5]])
    assert coordinator.execute(found, [jpeg(scene(5), 60)]).fetchone() == ("5", "copy", True)
    assert coordinator.execute(found, [jpeg(scene(2), 60)]).fetchone() == ("2", "copy", True)
    rows = coordinator.execute(
        "SELECT server, status, model_agrees FROM copy_shard_check('licensed') ORDER BY server"
    ).fetchall()
    assert rows == [("shard0", "ok", True), ("shard1", "ok", True)]


def search(db, query: int = 100) -> list:
    return db.execute(NEAREST.format(query, "'refs'")).fetchall()


ONLY_OWN = pytest.mark.parametrize("way", ["own"], indirect=True)


@ONLY_OWN
def test_a_search_is_one_statement_there_and_one_session_is_kept_for_the_next(sharded, server):
    log_statements(sharded)
    search(sharded)
    before = [own_sessions(shard) for shard in sharded.shards]
    assert [len(sessions) for sessions in before] == [1, 1]
    begin = server.log.stat().st_size
    for query in range(200, 205):
        search(sharded, query)
    told = logged(server, begin)
    assert told.count("execute copymatch_ask: SELECT copymatch.shard_answer_final(") == 5
    assert "START TRANSACTION" not in told and "COMMIT" not in told and "DECLARE" not in told
    assert [own_sessions(shard) for shard in sharded.shards] == before
    sharded.execute("SET copymatch.shard_connections = off")
    search(sharded, 206)
    assert "DECLARE" in logged(server, begin)


@ONLY_OWN
def test_what_the_transaction_wrote_is_found_and_what_it_took_back_is_not(sharded):
    """Where it wrote to a shard, postgres_fdw is asked, whose transaction sees it; its lock on
    the foreign table tells."""
    near = NEAREST.format(70001, "'refs'")
    insert = "INSERT INTO refs1 VALUES (70001, 1, 'odd', NULL, random_vector(70001))"
    with sharded.transaction(force_rollback=True):
        sharded.execute("SAVEPOINT s; " + insert)
        assert sharded.execute(near).fetchone() == ("70001", 1)
        sharded.execute("ROLLBACK TO s")
        assert sharded.execute(near).fetchone()[0] != "70001"
        sharded.execute("UPDATE refs2 SET id = id WHERE id < 0")
        sharded.execute(insert)
        sharded.execute("PREPARE again AS " + near)
        for _ in range(7):
            assert sharded.execute("EXECUTE again").fetchone() == ("70001", 1)
        sharded.execute("DECLARE c CURSOR FOR " + near)
        assert sharded.execute("FETCH 1 FROM c").fetchone() == ("70001", 1)
    assert sharded.execute(near).fetchone()[0] != "70001"
    # By another foreign table of the same server, and by COPY.
    sharded.execute(
        "CREATE FOREIGN TABLE beside (id int, shard int, kind text, descriptor vector(256)) SERVER s1 OPTIONS "
        "(table_name 'refs')"
    )
    with sharded.transaction(force_rollback=True):
        sharded.execute("INSERT INTO beside VALUES (70001, 1, 'odd', random_vector(70001))")
        assert sharded.execute(near).fetchone() == ("70001", 1)
    with sharded.transaction(force_rollback=True):
        text = sharded.execute("SELECT random_vector(70001)::text").fetchone()[0]
        with sharded.cursor().copy("COPY refs (id, shard, descriptor) FROM STDIN") as copy:
            copy.write_row((70001, 1, text))
        assert sharded.execute(near).fetchone()[0] == "70001"
    with sharded.transaction():
        sharded.execute(insert)
    assert sharded.execute(near).fetchone() == ("70001", 1), (
        "what is committed is found by the session's own connections"
    )


def test_repeatable_read_sees_one_state_of_the_shards_and_read_committed_the_newest(sharded, way):
    near = NEAREST.format(70001, "'refs'")
    shard = sharded.shards[0]
    insert = "INSERT INTO refs VALUES ({}, 1, 'odd', NULL, random_vector(70001))"
    for level, seen in (("REPEATABLE READ", False), ("SERIALIZABLE", False), ("READ COMMITTED", way == "own")):
        shard.execute("DELETE FROM refs WHERE id = 70001")
        with sharded.transaction():
            sharded.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
            assert sharded.execute(near).fetchone()[0] != "70001"
            shard.execute(insert.format(70001))
            assert (sharded.execute(near).fetchone()[0] == "70001") is seen, level
        assert sharded.execute(near).fetchone()[0] == "70001"


def test_pictures_come_under_the_snapshot_that_found_them(new_db, connect, server):
    name = new_db()
    shard, coordinator = connect(name), connect(new_db())
    shard.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    shard.execute("SELECT copy_create_set('licensed', 'refs', key => 'id', image => 'image')")
    shard.execute("INSERT INTO refs VALUES (1, %s)", [jpeg(scene(1))])
    info = coordinator.info
    coordinator.execute(
        "CREATE EXTENSION postgres_fdw;"
        f"CREATE SERVER s0 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{info.host}', port '{info.port}', "
        f"dbname '{name}', extensions 'copymatch', async_capable 'true');"
        f"CREATE USER MAPPING FOR CURRENT_USER SERVER s0 OPTIONS (user '{info.user}');"
        "CREATE FOREIGN TABLE refs (id int, image bytea, descriptor vector(256), descriptor_sketch bytea) SERVER s0"
    )
    coordinator.execute(
        "SELECT copy_create_set('licensed', 'refs', key => 'id', image => NULL, descriptor => 'descriptor')"
    )
    shard.execute(f"ALTER DATABASE \"{name}\" SET log_statement = 'all'")
    begin = server.log.stat().st_size
    found = "SELECT reference, verdict, verified FROM copy_match(%s, 'licensed', 1)"
    for _ in range(2):
        assert coordinator.execute(found, [jpeg(scene(1), 60)]).fetchone() == ("1", "copy", True)
    told = [line for line in logged(server, begin).splitlines() if "execute " in line]
    kinds = [
        kind
        for line in told
        for kind in ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ", "shard_answer_final", "COMMIT", "SET")
        if kind in line
    ]
    begins = "START TRANSACTION ISOLATION LEVEL REPEATABLE READ"
    one = [begins, "shard_answer_final", "shard_answer_final", "COMMIT"]
    assert kinds == [*one, *one], "and nothing is set in the session there"
    assert shard.execute(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'copymatch'"
    ).fetchall() == [("idle",)]


@ONLY_OWN
def test_idle_connections_that_ended_are_made_anew_and_options_that_change_count_at_once(sharded, connect):
    expected = search(sharded)
    before = [own_sessions(shard) for shard in sharded.shards]
    for shard in sharded.shards:
        kill(shard, shard.info.dbname)
    assert search(sharded) == expected
    after = [own_sessions(shard) for shard in sharded.shards]
    assert all(new and new != old for new, old in zip(after, before, strict=True))
    # Another session changes the mapping, then the server.
    other = connect(sharded.info.dbname)
    other.execute("ALTER USER MAPPING FOR PUBLIC SERVER s1 OPTIONS (SET user 'nobody_at_all')")
    with pytest.raises(psycopg.Error) as error:
        search(sharded)
    assert 'shard "s1"' in error.value.diag.message_primary and "nobody_at_all" in error.value.diag.message_detail
    other.execute(f"ALTER USER MAPPING FOR PUBLIC SERVER s1 OPTIONS (SET user '{sharded.info.user}')")
    assert search(sharded) == expected
    other.execute("DROP USER MAPPING FOR PUBLIC SERVER s1")
    with pytest.raises(psycopg.Error) as error:
        search(sharded)
    assert "user mapping not found" in str(error.value)
    deadline = time.monotonic() + 5
    while own_sessions(sharded.shards[0]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert own_sessions(sharded.shards[0]) == [], "that of the mapping which is gone was closed"
    other.execute("DROP FOREIGN TABLE refs1; DROP SERVER s1")
    assert len(search(sharded)) == 10


def blocked(sharded, work):
    """Runs `work` while the second shard cannot answer; gives what the search ended with."""
    slow = sharded.shards[1]
    slow.execute("SET lock_timeout = 0; BEGIN; LOCK refs")
    ended = []

    def client():
        try:
            ended.append(search(sharded))
        except psycopg.Error as error:
            ended.append(error)

    thread = threading.Thread(target=client)
    try:
        thread.start()
        waits = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s "
            "AND application_name IN ('copymatch', 'postgres_fdw') AND wait_event_type = 'Lock'"
        )
        deadline = time.monotonic() + 10
        while not slow.execute(waits, [slow.info.dbname]).fetchone()[0]:
            assert time.monotonic() < deadline, "the search never came"
            time.sleep(0.05)
            slow.execute("SELECT pg_stat_clear_snapshot()")
        work()
        thread.join(20)
        assert not thread.is_alive()
        deadline = time.monotonic() + 5
        while slow.execute(waits, [slow.info.dbname]).fetchone()[0] and time.monotonic() < deadline:
            time.sleep(0.05)
            slow.execute("SELECT pg_stat_clear_snapshot()")
        assert not slow.execute(waits, [slow.info.dbname]).fetchone()[0], "what ran there was ended, too"
    finally:
        slow.execute("ROLLBACK")
        thread.join(20)
    return ended[0]


def test_a_shard_killed_mid_query_is_an_error_that_names_it(sharded, server):
    error = blocked(sharded, lambda: kill(server.connect(), sharded.shards[1].info.dbname))
    assert isinstance(error, psycopg.Error) and 'shard "s2" of reference set "refs"' in str(error)
    same(sharded)


def test_a_cancel_ends_what_runs_on_the_shards_too(sharded, server):
    cancel = "SELECT pg_cancel_backend(%s)"
    error = blocked(sharded, lambda: server.connect().execute(cancel, [sharded.info.backend_pid]))
    assert isinstance(error, psycopg.errors.QueryCanceled) and "user request" in str(error) and "s2" not in str(error)
    same(sharded)


def test_who_is_no_superuser_must_connect_by_a_password_that_the_mapping_has(sharded, connect, way):
    """As postgres_fdw has it; the test server takes everybody without one."""
    role = "shard_asker_" + sharded.info.dbname.rsplit("_", 1)[-1].lower()
    sharded.execute(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role}")
    sharded.execute(f"GRANT SELECT ON refs, refs1, refs2, refs3 TO {role}")
    try:
        expected = search(sharded)
        sharded.execute(f"SET ROLE {role}")
        assert search(sharded) == expected, "a superuser said password_required 'false'"
        sharded.execute("RESET ROLE; ALTER USER MAPPING FOR PUBLIC SERVER s1 OPTIONS (DROP password_required)")
        assert search(sharded) == expected, "a superuser needs none; his connection is kept"
        for options in ("DROP user", "ADD user 'postgres', ADD password 'not asked for'"):
            sharded.execute(f"RESET ROLE; ALTER USER MAPPING FOR PUBLIC SERVER s1 OPTIONS ({options}); SET ROLE {role}")
            with pytest.raises(psycopg.errors.Error) as error:
                search(sharded)
            assert error.value.sqlstate == "2F003", error.value
            assert "assword" in str(error.value)
        sharded.execute("RESET ROLE")
        assert search(sharded) == expected
        # Whose right to read is taken away reads no more.
        sharded.execute("ALTER USER MAPPING FOR PUBLIC SERVER s1 OPTIONS (ADD password_required 'false')")
        sharded.execute(f"SET ROLE {role}")
        assert search(sharded) == expected
        connect(sharded.info.dbname).execute(f"REVOKE SELECT ON refs FROM {role}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            search(sharded)
    finally:
        sharded.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


@ONLY_OWN
def test_options_that_only_postgres_fdw_knows_are_left_to_it(sharded):
    expected = search(sharded)
    sharded.execute("ALTER SERVER s1 OPTIONS (ADD keep_connections 'off')")
    assert search(sharded) == expected and own_sessions(sharded.shards[0]) == []
    sharded.execute("ALTER SERVER s1 OPTIONS (SET keep_connections 'on')")
    assert search(sharded) == expected and len(own_sessions(sharded.shards[0])) == 1


def test_three_clusters_answer_as_one_table_and_one_that_is_down_is_named_or_left_out(fresh_cluster, way):
    """Postmasters of their own; one is restarted between two searches, then stopped."""
    clusters = [fresh_cluster() for _ in range(3)]
    *shards, coordinator = [cluster.connect() for cluster in clusters]
    if not coordinator.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'").fetchone()[
        0
    ]:
        pytest.skip("this PostgreSQL has no postgres_fdw")
    columns = "(id int, shard int, descriptor vector(256))"
    for db in (*shards, coordinator):
        db.execute("CREATE EXTENSION IF NOT EXISTS copymatch")
        db.execute(RANDOM)
    coordinator.execute(f"CREATE EXTENSION postgres_fdw; CREATE TABLE refs {columns} PARTITION BY LIST (shard)")
    coordinator.execute(f"CREATE TABLE whole {columns}")
    rows = "SELECT i, {}, random_vector(i) FROM generate_series({}, 200, 2) i"
    for number, (cluster, shard) in enumerate(zip(clusters[:2], shards, strict=True), 1):
        shard.execute(f"CREATE TABLE refs {columns}; INSERT INTO refs {rows.format(number, number)}")
        shard.execute("CREATE INDEX ON refs USING ivf (descriptor vector_cosine_ops)")
        coordinator.execute(
            f"INSERT INTO whole {rows.format(number, number)};"
            f"CREATE SERVER s{number} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{cluster.socket}', "
            "dbname 'postgres', extensions 'copymatch', async_capable 'true');"
            f"CREATE USER MAPPING FOR CURRENT_USER SERVER s{number} OPTIONS (user 'postgres');"
            f"CREATE FOREIGN TABLE refs{number} PARTITION OF refs FOR VALUES IN ({number}) SERVER s{number} OPTIONS "
            "(table_name 'refs')"
        )
    for name in ("refs", "whole"):
        coordinator.execute(f"SELECT copy_create_set('{name}', '{name}', 'id', NULL, 'descriptor')")
    ask_by(coordinator, way)
    for query in range(300, 310):
        same(coordinator, query)
    clusters[1].restart()
    same(coordinator, 310)
    clusters[1].stop()
    with pytest.raises(psycopg.Error) as error:
        search(coordinator)
    assert 'shard "s2" of reference set "refs"' in error.value.diag.message_primary
    living = coordinator.execute(
        "SELECT id::text FROM whole WHERE shard = 1 ORDER BY descriptor <=> random_vector(100) LIMIT 10"
    ).fetchall()
    assert coordinator.execute(PARTIAL.format(100, "refs")).fetchall() == living
    clusters[1].start()
    same(coordinator, 311)


def questions(server, begin: int) -> list[dict]:
    """What shards were asked, as their log has it."""
    found = re.findall(r"\$1 = '(\{.*?\})', \$2", logged(server, begin))
    return [json.loads(text)["wanted"]["nearest"] for text in found if '"nearest"' in text]


@ONLY_OWN
def test_what_the_coordinators_session_wants_to_find_counts_on_the_shards(sharded, server):
    """At its default their own setting counts."""
    log_statements(sharded)
    begin = server.log.stat().st_size
    search(sharded)
    asked = questions(server, begin)
    assert len(asked) == 1 and "recall" not in asked[0]
    sharded.execute("SET copymatch.target_recall = 0.75")
    begin = server.log.stat().st_size
    search(sharded)
    assert [one["recall"] for one in questions(server, begin)] == [0.75]
