"""What the tests share: the private server, databases with the extension, throwaway clusters to crash and to replicate.

`db`             a connection on a database of the test's module, in a schema of its own that is dropped afterwards
`fresh_db`       a connection on a database of its own
`new_db()`       makes more databases; `new_db(extension=False)` without copymatch
`connect(name)`  another connection on a database by name
`server`         the private server: `server.run(...)` its programs, `server.dsn(...)`
`fresh_cluster()` a cluster that may be killed, restarted, replicated: see `Cluster`
`sqlstate(code)` asserts that the block fails with that SQLSTATE and gives the error
`photographs`    real photographs: name -> bytes
"""

import contextlib
import itertools
import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time

import psycopg
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCAL = pathlib.Path(os.environ.get("COPYMATCH_LOCAL") or ROOT / ".local").resolve()
MAJOR = os.environ.get("PG_MAJOR", "15")
#: Which of several processes that run tests side by side (pytest-xdist) this is; each has a server of its own.
WORKER = os.environ.get("PYTEST_XDIST_WORKER")
#: The majors up to this one that have the extension in the private folder: what pg_upgrade can start from.
MAJORS = sorted(
    {path.parts[len(LOCAL.parts) + 3] for path in LOCAL.glob("pgsql/lib/postgresql/*/lib/**/copymatch.so")}, key=int
)
OLDER_MAJORS = [major for major in MAJORS if int(major) <= int(MAJOR)] or [MAJOR]
_numbers = itertools.count(1)


def _unused_name(kind: str) -> str:
    return f"test_{kind}_{os.getpid()}_{next(_numbers)}"


class Installation:
    """The private copy of PostgreSQL, and the unprivileged user as whom it runs."""

    def __init__(self, major: str = MAJOR):
        self.major = major
        self.prefix = LOCAL / "pgsql"
        self.bin = self.prefix / "lib" / "postgresql" / major / "bin"
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name

    def run(self, program: str, *arguments, check: bool = True, **options) -> subprocess.CompletedProcess:
        """Runs one of PostgreSQL's programs as the server's user; gives its output as text."""
        command = [str(self.bin / program) if "/" not in program else program, *map(str, arguments)]
        if os.geteuid() == 0:
            entry = pwd.getpwnam(self.user)
            options |= {
                "user": entry.pw_uid,
                "group": entry.pw_gid,
                "extra_groups": os.getgrouplist(self.user, entry.pw_gid),
            }
        options = {"cwd": "/", "stdin": subprocess.DEVNULL, "text": True, "errors": "replace"} | options
        if "stdout" not in options:
            options |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        result = subprocess.run(command, check=False, **options)
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(command)} exited with {result.returncode}:\n{result.stdout}")
        return result

    def own(self, folder: pathlib.Path) -> pathlib.Path:
        """Hands a folder to the server's user alone."""
        folder.chmod(0o700)
        if os.geteuid() == 0:
            shutil.chown(folder, self.user)
        return folder


class Server(Installation):
    """The private server that `make setup` made and every test shares; where tests run side by
    side, one for each process."""

    def __init__(self):
        super().__init__()
        self.local = LOCAL
        if WORKER:
            self.local = LOCAL / "beside" / WORKER
            self.local.mkdir(parents=True, exist_ok=True)
            if not (self.local / "pgsql").exists():
                (self.local / "pgsql").symlink_to(self.prefix)
        self.script("start")
        self.socket = psycopg.conninfo.conninfo_to_dict(self.script("dsn"))["host"]
        self.data = self.local / f"data-{MAJOR}"
        self.log = self.local / "log" / f"postgresql-{MAJOR}.log"

    def script(self, action: str) -> str:
        """What cluster.sh says to an action."""
        environment = os.environ | {"COPYMATCH_LOCAL": str(self.local), "QUIET": "1"}
        command = [str(ROOT / "scripts" / "cluster.sh"), action]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
        return subprocess.run(command, check=True, env=environment, **options).stdout

    def dsn(self, database: str = "postgres", **more) -> str:
        """A libpq connection string."""
        return psycopg.conninfo.make_conninfo(host=self.socket, user="postgres", dbname=database, **more)

    def connect(self, database: str = "postgres", **options) -> psycopg.Connection:
        """An autocommit connection."""
        return psycopg.connect(self.dsn(database), autocommit=True, **options)


class Cluster:
    """A throwaway cluster. Durable as a real one: fsync is on unless a setting says otherwise."""

    def __init__(
        self, installation: Installation, folder: pathlib.Path, settings: dict, source: "Cluster | None" = None
    ):
        self.installation = installation
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "log"
        self.environment = {}  # of the server, from the next start on
        self.socket = installation.own(pathlib.Path(tempfile.mkdtemp(prefix="copymatch-test-")))
        if source is None:
            installation.run(
                "initdb", "-D", self.data, "-U", "postgres", "--auth=trust", "--data-checksums", "--encoding=UTF8",
                "--locale=C.UTF-8", "--no-sync",
            )  # fmt: skip
        else:
            installation.run(
                "pg_basebackup", "-D", self.data, "-h", source.socket, "-U", "postgres", "-R", "-X", "stream", "-c",
                "fast",
                "--no-sync",
            )  # fmt: skip
        defaults = {"listen_addresses": "", "wal_level": "replica", "timezone": "UTC", "shared_buffers": "32MB"}
        with open(self.data / "postgresql.conf", "a") as config:
            for name, value in (defaults | settings).items():
                config.write(f"{name} = '{value}'\n")
            config.write(f"unix_socket_directories = '{self.socket}'\n")
        self.start()

    def start(self):
        """Starts it and waits until it takes connections (crash recovery done)."""
        self.installation.run(
            "pg_ctl", "start", "-D", self.data, "-l", self.log, "-w", "-t", "60",
            stdout=subprocess.DEVNULL, env=os.environ | self.environment,
        )  # fmt: skip

    def stop(self, mode: str = "fast"):
        """Stops it: smart, fast or immediate."""
        self.installation.run("pg_ctl", "stop", "-D", self.data, "-m", mode, "-w", "-t", "60")

    def restart(self):
        """Stops and starts it."""
        self.stop()
        self.start()

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, None where it is down."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
            return pid
        except (FileNotFoundError, ProcessLookupError, IndexError, ValueError):
            return None

    def kill(self):
        """Kills the postmaster and all its children at once, as the kernel's out-of-memory killer would."""
        pid = self.pid
        assert pid is not None, "the cluster is not running"
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for victim in [pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(pathlib.Path(f"/proc/{victim}/exe").exists() for victim in [pid, *map(int, children)]):
            assert time.monotonic() < deadline, "killed processes are still there"
            time.sleep(0.02)
        # Dead, but it counts as alive for PostgreSQL's own check until its parent reaps it, which may never happen.
        deadline = time.monotonic() + 3
        while pathlib.Path(f"/proc/{pid}").exists():
            if time.monotonic() > deadline:
                (self.data / "postmaster.pid").unlink()
                break
            time.sleep(0.02)

    def dsn(self, database: str = "postgres", **more) -> str:
        """A libpq connection string."""
        return psycopg.conninfo.make_conninfo(host=str(self.socket), user="postgres", dbname=database, **more)

    def connect(self, database: str = "postgres", **options) -> psycopg.Connection:
        """An autocommit connection."""
        return psycopg.connect(self.dsn(database), autocommit=True, **options)

    def replica(self, **settings) -> "Cluster":
        """A streaming replica, hot standby. `wait_for_replica` waits until it has replayed everything."""
        folder = self.installation.own(pathlib.Path(tempfile.mkdtemp(prefix="replica-", dir=self.folder)))
        replica = Cluster(self.installation, folder, settings, source=self)
        self.replicas = [*getattr(self, "replicas", []), replica]
        return replica

    def wait_for_replica(self, replica: "Cluster", seconds: float = 30):
        """Returns once the replica has replayed all WAL that exists now."""
        with self.connect() as primary, replica.connect() as standby:
            # A commit that is waited for takes along what VACUUM and aborted transactions left unflushed.
            primary.execute("SELECT pg_logical_emit_message(true, 'copymatch', 'flush')")
            target = primary.execute("SELECT pg_current_wal_flush_lsn()").fetchone()[0]
            deadline = time.monotonic() + seconds
            while not standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [target]).fetchone()[0]:
                assert time.monotonic() < deadline, f"the replica did not reach {target} within {seconds} s"
                time.sleep(0.02)

    def remove(self):
        """Stops it and its replicas and removes their files."""
        for replica in getattr(self, "replicas", []):
            replica.remove()
        if self.pid is not None:
            self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.socket, ignore_errors=True)


@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    if WORKER:
        server.script("stop")


@pytest.fixture(scope="session")
def dsn(server) -> str:
    """The connection string of the server's maintenance database."""
    return server.dsn()


@pytest.fixture(scope="session")
def _template(server):
    """A database with the extension, to copy the others from: quicker than CREATE EXTENSION each time."""
    name = _unused_name("template")
    with server.connect() as admin:
        # What a session that was killed left behind.
        for (stale,) in admin.execute("SELECT datname FROM pg_database WHERE datname ~ '^test_[a-z]+_[0-9]+_[0-9]+$'"):
            if not pathlib.Path(f"/proc/{stale.split('_')[2]}").exists():
                admin.execute(f'DROP DATABASE IF EXISTS "{stale}" WITH (FORCE)')
        admin.execute(f'CREATE DATABASE "{name}"')
    with server.connect(name) as connection:
        connection.execute("CREATE EXTENSION copymatch")
    yield name
    with server.connect() as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _database_factory(server, request, made: list):
    def make(extension: bool = True) -> str:
        name = _unused_name("db")
        template = request.getfixturevalue("_template") if extension else "template1"
        with server.connect() as admin:
            admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        made.append(name)
        return name

    return make


def _drop(server, names: list):
    with server.connect() as admin:
        for name in names:
            admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest.fixture
def new_db(server, request):
    """new_db(extension=True) -> name of a new database; dropped after the test."""
    made = []
    yield _database_factory(server, request, made)
    _drop(server, made)


@pytest.fixture
def connect(server):
    """connect(database, **options) -> an autocommit connection; closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda database, **options: stack.enter_context(server.connect(database, **options))


@pytest.fixture
def fresh_db(new_db, connect) -> psycopg.Connection:
    """A connection on a database that this test alone has."""
    return connect(new_db())


@pytest.fixture(scope="module")
def _module_db(server, request):
    made = []
    yield _database_factory(server, request, made)()
    _drop(server, made)


@pytest.fixture
def db(server, _module_db):
    """A connection on the module's database, in a schema of its own, first in the search path."""
    schema = _unused_name("schema")
    with server.connect(_module_db) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"SET search_path = {schema}, public")
        yield connection
    with server.connect(_module_db) as cleaner:
        cleaner.execute(f"SET client_min_messages = warning; DROP SCHEMA {schema} CASCADE")


@pytest.fixture
def fresh_cluster():
    """fresh_cluster(**settings) -> a running throwaway Cluster; removed after the test.
    fresh_cluster("15", …): of that major."""
    made = []

    def make(major: str = MAJOR, /, **settings) -> Cluster:
        installation = Installation(major)
        folder = installation.own(pathlib.Path(tempfile.mkdtemp(prefix="cluster-", dir=LOCAL)))
        cluster = Cluster(installation, folder, settings)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.remove()


@pytest.fixture(scope="session")
def sqlstate():
    """with sqlstate("22023") as error: …  — the block must fail with it; error.value.diag has message and hint."""

    @contextlib.contextmanager
    def expect(code: str):
        with pytest.raises(psycopg.Error) as error:
            yield error
        found = error.value
        assert found.sqlstate == code, f"expected SQLSTATE {code}, got {found.sqlstate}: {found}"

    return expect


@pytest.fixture(scope="session")
def photographs() -> dict[str, bytes]:
    """Real photographs by file name, as scripts/photographs.sh fetched them."""
    folder = LOCAL / "photographs"
    found = {path.name: path.read_bytes() for path in sorted(folder.glob("*.*")) if path.name != ".stamp"}
    assert found, f"no photographs in {folder}; run scripts/photographs.sh"
    return found


def own_memory(pid: int) -> float:
    """MiB of a process that it shares with no other: what it has written in memory of its own. Pages of a file, or of
    the server's shared memory, that nobody else has touched yet are not."""
    total, own = 0, False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            own = rest[0].endswith("p")
        elif own and name == "Private_Dirty:":
            total += int(rest[0])
    return total / 1024
