"""Shards that ask for a password and encrypt, and PgBouncer before shards and before the coordinator."""

import contextlib
import pathlib
import re
import shutil
import socket
import subprocess
import tempfile
import time

import psycopg
import pytest
from conftest import LOCAL, Cluster
from pictures import jpeg, scene

ROWS = 400
RANDOM = """CREATE FUNCTION random_vector(seed int) RETURNS vector LANGUAGE sql AS
    $$ SELECT l2_normalize(array_agg(hashint4extended(i, seed) / 9.3e18)::real[]::vector)
    FROM generate_series(1, 256) i $$"""
NEAREST = (
    "SELECT reference, round(similarity::numeric, 5) FROM copy_match_descriptor(random_vector({}), '{}', 10) "
    "ORDER BY rank"
)
COLUMNS = "(id int, descriptor vector(256))"
PASSWORD = "it's \\ a secret"
#: PgBouncer, which is not PostgreSQL's own.
PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


@pytest.fixture(params=["own", "postgres_fdw"])
def way(request):
    """By which connections shards are asked."""
    return request.param


def ask_by(db, way: str) -> None:
    db.execute(f"SET copymatch.shard_connections = {'on' if way == 'own' else 'off'}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def own(installation, path: pathlib.Path, text: str, mode: int = 0o600) -> pathlib.Path:
    """A file of the server's user's."""
    path.write_text(text)
    path.chmod(mode)
    shutil.chown(path, installation.user)
    return path


def needs_postgres_fdw(db) -> None:
    if not db.execute("SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'").fetchone()[0]:
        pytest.skip("this PostgreSQL has no postgres_fdw")


def fill_shard(db) -> None:
    db.execute("CREATE EXTENSION IF NOT EXISTS copymatch")
    db.execute(RANDOM)
    db.execute(f"CREATE TABLE refs {COLUMNS}")
    db.execute(f"INSERT INTO refs SELECT i, random_vector(i) FROM generate_series(1, {ROWS}) i")
    db.execute("CREATE INDEX ON refs USING ivf (descriptor vector_cosine_ops); ANALYZE refs")


def fill_coordinator(db) -> None:
    db.execute("CREATE EXTENSION IF NOT EXISTS copymatch; CREATE EXTENSION postgres_fdw")
    db.execute(RANDOM)
    db.execute(f"CREATE TABLE whole {COLUMNS}; CREATE TABLE refs {COLUMNS} PARTITION BY HASH (id)")
    db.execute(f"INSERT INTO whole SELECT i, random_vector(i) FROM generate_series(1, {ROWS}) i")


def add_shard(db, options: str, mapping: str, role: str = "CURRENT_USER") -> None:
    """Makes the one shard of a coordinator."""
    db.execute(
        f"CREATE SERVER s1 FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options}, extensions 'copymatch');"
        f"CREATE USER MAPPING FOR {role} SERVER s1 OPTIONS ({mapping});"
        "CREATE FOREIGN TABLE refs1 PARTITION OF refs FOR VALUES WITH (MODULUS 1, REMAINDER 0) SERVER s1 "
        "OPTIONS (table_name 'refs', schema_name 'public')"
    )


def make_sets(db) -> None:
    for name in ("refs", "whole"):
        db.execute(f"SELECT copy_create_set('{name}', '{name}', 'id', NULL, 'descriptor')")


def search(db, query: int = 1000, name: str = "refs") -> list:
    return db.execute(NEAREST.format(query, name)).fetchall()


def refused(db) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as error:
        search(db)
    assert PASSWORD not in str(error.value) and "secret" not in str(error.value)
    return error.value


@pytest.fixture(scope="module")
def certificates(server):
    """Two self-signed certificates for the host localhost: (certificate, key) and another certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes certificates, is not installed")
    with tempfile.TemporaryDirectory(prefix="copymatch-tls-") as folder:
        path = server.own(pathlib.Path(folder))
        made = []
        for name in ("server", "other"):
            certificate, key = path / f"{name}.crt", path / f"{name}.key"
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=localhost",
                 "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
                check=True, capture_output=True,
            )  # fmt: skip
            for file in (certificate, key):
                file.chmod(0o600)
                shutil.chown(file, server.user)
            made.append((certificate, key))
        yield made[0], made[1][0]


@pytest.fixture(scope="module")
def guarded(server, certificates):
    """A cluster that lets role app in by TCP with TLS and a password alone, and a coordinator with a role app that is
    no superuser: superusers' connections to both, and the port."""
    (certificate, key), _ = certificates
    port = free_port()
    with contextlib.ExitStack() as stack:

        def cluster(**settings) -> Cluster:
            folder = server.own(pathlib.Path(tempfile.mkdtemp(prefix="cluster-", dir=LOCAL)))
            made = Cluster(server, folder, settings)
            stack.callback(made.remove)
            return made

        shard = cluster(
            port=port, listen_addresses="127.0.0.1", ssl="on", ssl_cert_file=certificate, ssl_key_file=key,
            password_encryption="scram-sha-256",
        )  # fmt: skip
        hba = "local all postgres trust\nhostssl all app 127.0.0.1/32 scram-sha-256\n"
        own(server, shard.data / "pg_hba.conf", hba)
        there = stack.enter_context(psycopg.connect(shard.dsn(port=port), autocommit=True))
        there.execute("SELECT pg_reload_conf()")
        coordinator = cluster()
        # libpq looks for certificates of the client's own at the server user's home.
        coordinator.environment = {"HOME": str(coordinator.folder)}
        coordinator.restart()
        db = stack.enter_context(coordinator.connect())
        needs_postgres_fdw(db)
        fill_shard(there)
        there.execute(f"CREATE ROLE app LOGIN PASSWORD {literal(PASSWORD)}; GRANT SELECT ON refs TO app")
        fill_coordinator(db)
        db.execute("CREATE ROLE app LOGIN")
        yield coordinator, db, there, port


@pytest.fixture
def secured(guarded, certificates, way):
    """The coordinator asked as role app; superusers' connections to it and to the shard."""
    (certificate, _), _ = certificates
    coordinator, db, there, port = guarded
    options = (
        f"host 'localhost', hostaddr '127.0.0.1', port '{port}', dbname 'postgres', sslmode 'verify-full', "
        f"sslrootcert '{certificate}'"
    )
    mapping = f"user 'app', password {literal(PASSWORD)}"
    add_shard(db, options, mapping, role="app")
    db.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS ({mapping})")
    make_sets(db)
    db.execute("GRANT SELECT ON refs, refs1, whole TO app")
    with psycopg.connect(psycopg.conninfo.make_conninfo(coordinator.dsn(), user="app"), autocommit=True) as app:
        ask_by(app, way)
        yield app, db, there
    db.execute("SELECT copy_drop_set('refs'), copy_drop_set('whole'); DROP SERVER s1 CASCADE")
    ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app'"
    there.execute(ended)


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


SESSIONS = (
    "SELECT count(*), bool_and(l.ssl) FROM pg_stat_activity a JOIN pg_stat_ssl l USING (pid) "
    "WHERE a.application_name = '{}' AND a.usename = 'app'"
)


def test_a_shard_that_wants_tls_and_a_password_gets_them_from_who_is_no_superuser(secured, way):
    app, _, there = secured
    assert search(app) == search(app, name="whole") and len(search(app)) == 10
    name = "copymatch" if way == "own" else "postgres_fdw"
    # copy_create_set looked at the shard by way of postgres_fdw.
    sessions = (1 if way == "own" else 2, True)
    assert there.execute(SESSIONS.format(name)).fetchone() == sessions
    for query in range(1001, 1005):
        assert search(app, query) == search(app, query, "whole")
    assert there.execute(SESSIONS.format(name)).fetchone() == sessions, "one session is kept"


def test_a_wrong_password_or_none_lets_nobody_in_and_is_told_to_nobody(secured, way):
    app, db, _ = secured
    assert len(search(app)) == 10
    db.execute("ALTER USER MAPPING FOR app SERVER s1 OPTIONS (SET password 'another secret')")
    error = refused(app)
    assert error.sqlstate == "08001" and '"s1"' in str(error) and "password authentication failed" in str(error)
    # Without one in the mapping nothing is tried: the server's own user may have a .pgpass.
    db.execute("ALTER USER MAPPING FOR app SERVER s1 OPTIONS (DROP password)")
    assert refused(app).sqlstate == "2F003"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("ALTER USER MAPPING FOR app SERVER s1 OPTIONS (ADD password_required 'false')")
    db.execute(f"ALTER USER MAPPING FOR app SERVER s1 OPTIONS (ADD password {literal(PASSWORD)})")
    assert search(app) == search(app, name="whole")


def test_a_certificate_or_host_that_is_not_the_right_one_is_refused(secured, certificates):
    app, db, _ = secured
    _, other = certificates
    assert len(search(app)) == 10
    (right,) = db.execute(
        "SELECT option_value FROM pg_foreign_server, pg_options_to_table(srvoptions) WHERE option_name = 'sslrootcert'"
    ).fetchone()
    db.execute(f"ALTER SERVER s1 OPTIONS (SET sslrootcert '{other}')")
    error = refused(app)
    assert error.sqlstate == "08001" and '"s1"' in str(error) and "certificate verify failed" in str(error)
    db.execute(f"ALTER SERVER s1 OPTIONS (SET sslrootcert '{right}', SET host 'shard.invalid')")
    error = refused(app)
    assert error.sqlstate == "08001" and 'does not match host name "shard.invalid"' in str(error)
    # That is what verify-full is for; the certificate is the right one, and without TLS nobody gets in.
    for mode, gets_in in (("verify-ca", True), ("require", True), ("disable", False)):
        db.execute(f"ALTER SERVER s1 OPTIONS (SET sslmode '{mode}')")
        if gets_in:
            assert search(app) == search(app, name="whole"), mode
        else:
            assert "no encryption" in str(refused(app))


def test_a_cancel_ends_what_runs_there_over_tls_too(secured, way):
    app, _, there = secured
    assert len(search(app)) == 10
    name = "copymatch" if way == "own" else "postgres_fdw"
    active = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND state = 'active'"
    there.execute("BEGIN; LOCK refs")
    try:
        app.execute("SET statement_timeout = 500")
        with pytest.raises(psycopg.errors.QueryCanceled):
            search(app)
        deadline = time.monotonic() + 10
        while there.execute(active).fetchone()[0]:
            assert time.monotonic() < deadline, "it runs on"
            time.sleep(0.05)
            there.execute("SELECT pg_stat_clear_snapshot()")
    finally:
        there.execute("ROLLBACK")
    app.execute("RESET statement_timeout")
    assert search(app) == search(app, name="whole")


def pgbouncer_version() -> tuple[int, ...]:
    told = subprocess.run([PGBOUNCER, "--version"], check=True, capture_output=True, text=True).stdout
    return tuple(map(int, re.search(r"(\d+)\.(\d+)", told).groups()))


@pytest.fixture
def pgbouncer(server):
    """pgbouncer(**settings) -> the folder of a PgBouncer's socket, port 6432, before the private server."""
    if PGBOUNCER is None:
        pytest.skip("PgBouncer is not installed")
    with contextlib.ExitStack() as stack:

        def start(**settings) -> str:
            folder = server.own(pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="copymatch-pgb-"))))
            users = own(server, folder / "users", '"postgres" ""\n')
            settings = {
                "listen_port": 6432, "unix_socket_dir": folder, "auth_type": "trust", "auth_file": users,
                "pool_mode": "transaction", "default_pool_size": 1, "logfile": folder / "log",
                "pidfile": folder / "pid", "ignore_startup_parameters": "extra_float_digits", "query_wait_timeout": 20,
            } | settings  # fmt: skip
            text = "\n".join(f"{name} = {value}" for name, value in settings.items())
            config = own(server, folder / "ini", f"[databases]\n* = host={server.socket}\n[pgbouncer]\n{text}\n")
            server.run(PGBOUNCER, "-q", "-d", config)
            deadline = time.monotonic() + 20
            while not ((folder / ".s.PGSQL.6432").exists() and (folder / "pid").exists()):
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            stack.callback(server.run, "/bin/kill", "-INT", (folder / "pid").read_text().strip())
            return str(folder)

        yield start


def through(folder: str, database: str) -> psycopg.Connection:
    """A client of PgBouncer's, which prepares nothing itself."""
    return psycopg.connect(
        host=folder, port=6432, user="postgres", dbname=database, autocommit=True, prepare_threshold=None
    )


def end_sessions(db) -> None:
    """Ends the other sessions of the database."""
    db.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


POOLS = [
    {"pool_mode": "session", "default_pool_size": 4},
    {"pool_mode": "transaction"},
    {"pool_mode": "transaction", "max_prepared_statements": 10},
]


@pytest.fixture(params=POOLS, ids=["session", "transaction", "transaction-prepared"])
def pool(request):
    """Settings of a PgBouncer; by default all share one session of each database."""
    if PGBOUNCER and "max_prepared_statements" in request.param and pgbouncer_version() < (1, 21):
        pytest.skip("this PgBouncer knows of no prepared statements: 1.21 and later do")
    return request.param


def test_pgbouncer_before_a_shard_changes_no_answer_and_nothing_is_left_in_its_sessions(
    pgbouncer, pool, new_db, connect, way
):
    name, main = new_db(), new_db()
    shard, db = connect(name), connect(main)
    needs_postgres_fdw(db)
    fill_shard(shard)
    folder = pgbouncer(**pool)
    fill_coordinator(db)
    add_shard(db, f"host '{folder}', port '6432', dbname '{name}'", "user 'postgres'")
    make_sets(db)
    # That looked at the shard by way of postgres_fdw, which sets search_path and more in whatever session it gets.
    end_sessions(shard)
    # Two sessions of the coordinator take turns, and another application uses the pool.
    sessions = [db, connect(main)]
    before = ("search_path", "datestyle", "intervalstyle", "timezone", "extra_float_digits")
    with through(folder, name) as beside:
        settings = [beside.execute(f"SHOW {setting}").fetchone() for setting in before]
    for session in sessions:
        ask_by(session, way)
    for query in range(1000, 1010):
        for session in sessions:
            assert search(session, query) == search(session, query, "whole"), query
    if way == "own":
        with through(folder, name) as beside:
            assert [beside.execute(f"SHOW {setting}").fetchone() for setting in before] == settings
            assert beside.execute("SELECT count(*) FROM refs").fetchone() == (ROWS,), "search_path is its own"
    # What it keeps for a client is lost when the server's session ends; clients are not told.
    end_sessions(shard)
    for session in sessions:
        with contextlib.suppress(psycopg.Error):
            search(session)
        assert search(session, 1010) == search(session, 1010, "whole")


def test_pictures_come_through_pgbouncer_under_the_snapshot_that_found_them(pgbouncer, pool, new_db, connect, way):
    """Two questions in one transaction, with others between."""
    name, main = new_db(), new_db()
    shard, db = connect(name), connect(main)
    needs_postgres_fdw(db)
    shard.execute("CREATE TABLE refs (id int PRIMARY KEY, image bytea)")
    shard.execute("SELECT copy_create_set('licensed', 'refs', key => 'id', image => 'image')")
    for seed in range(3):
        shard.execute("INSERT INTO refs VALUES (%s, %s)", [seed, jpeg(scene(seed))])
    folder = pgbouncer(**pool)
    db.execute(
        "CREATE EXTENSION postgres_fdw;"
        f"CREATE SERVER s0 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{folder}', port '6432', dbname '{name}', "
        "extensions 'copymatch'); CREATE USER MAPPING FOR CURRENT_USER SERVER s0 OPTIONS (user 'postgres');"
        "CREATE FOREIGN TABLE refs (id int, image bytea, descriptor vector(256), descriptor_sketch bytea) SERVER s0 "
        "OPTIONS (schema_name 'public')"
    )
    db.execute("SELECT copy_create_set('licensed', 'refs', key => 'id', image => NULL, descriptor => 'descriptor')")
    sessions = [db, connect(main)]
    for session in sessions:
        ask_by(session, way)
    found = "SELECT reference, verdict, verified FROM copy_match(%s, 'licensed', 1)"
    for seed in (0, 1, 2):
        for session in sessions:
            assert session.execute(found, [jpeg(scene(seed), 60)]).fetchone() == (str(seed), "copy", True)


def test_pgbouncer_before_the_coordinator_lets_clients_share_its_sessions(pgbouncer, pool, new_db, connect, way):
    """The connections to shards are the session's, whoever has it."""
    name, main = new_db(), new_db()
    shard, db = connect(name), connect(main)
    needs_postgres_fdw(db)
    fill_shard(shard)
    socket_of, port = db.info.host, db.info.port
    fill_coordinator(db)
    add_shard(db, f"host '{socket_of}', port '{port}', dbname '{name}'", "user 'postgres'")
    make_sets(db)
    # A setting that clients say themselves would be left to the next: in transaction mode it is the database's.
    db.execute(f'ALTER DATABASE "{main}" SET copymatch.shard_connections = {"on" if way == "own" else "off"}')
    folder = pgbouncer(**pool)
    expected = {query: search(db, query, "whole") for query in range(1000, 1006)}
    with through(folder, main) as one, through(folder, main) as two:
        for query in range(1000, 1006):
            for client in (one, two):
                assert search(client, query) == expected[query]
        with one.transaction():
            assert search(one) == expected[1000]
            one.execute("SET LOCAL copymatch.target_recall = 1")
            assert search(one) == expected[1000]
        sessions = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            f"AND application_name = '{'copymatch' if way == 'own' else 'postgres_fdw'}'"
        )
        clients = 2 if pool["pool_mode"] == "session" else 1
        # copy_create_set looked at the shard by way of postgres_fdw.
        assert shard.execute(sessions).fetchone() == (clients + (way == "postgres_fdw"),)
