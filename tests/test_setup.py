"""The set-up keeps to itself: a private server, run by an unprivileged user, that touches nothing of the system's."""

import contextlib
import importlib.util
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import zipfile

import psycopg
import pytest
from conftest import LOCAL, MAJOR, ROOT


def script(name: str, *arguments: str, local: pathlib.Path = LOCAL, check: bool = True) -> subprocess.CompletedProcess:
    """Runs one of scripts/ on a private folder."""
    return subprocess.run(
        [str(ROOT / "scripts" / name), *arguments],
        env=os.environ | {"COPYMATCH_LOCAL": str(local)},
        check=check,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )


def module(name: str):
    """One of the Python programs in scripts/, imported."""
    specification = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    loaded = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(loaded)
    return loaded


def postmaster(data: pathlib.Path) -> int:
    return int((data / "postmaster.pid").read_text().split()[0])


@contextlib.contextmanager
def second_cluster(folder: pathlib.Path):
    """A second private folder, sharing the copied server, with a cluster that runs; gone afterwards."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    script("cluster.sh", "start", local=folder, check=False)  # makes the folder, finds no server in it
    (folder.resolve() / "pgsql").symlink_to(LOCAL / "pgsql")
    try:
        script("cluster.sh", "start", local=folder)
        yield folder.resolve() / f"data-{MAJOR}"
    finally:
        script("clean.sh", local=folder)
        assert not folder.exists() and not folder.is_symlink()


@pytest.fixture
def open_folder():
    """An empty folder that every user may enter; pytest's own are closed."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        yield folder


def test_the_private_server_finds_its_files_in_the_private_folder(db):
    found = dict(db.execute("SELECT name, setting FROM pg_config WHERE name IN ('PKGLIBDIR', 'SHAREDIR')").fetchall())
    assert len(found) == 2
    for folder in found.values():
        assert pathlib.Path(folder).resolve().is_relative_to(LOCAL), f"the server reads {folder}"


def test_the_extension_and_its_runtime_are_installed_in_the_private_folder(server):
    library, share = (
        pathlib.Path(server.run("pg_config", option).stdout.strip()) for option in ("--pkglibdir", "--sharedir")
    )
    assert (library / "copymatch.so").is_file()
    assert (library / "copymatch" / "libonnxruntime.so").is_file()
    assert list((library / "copymatch").glob("*LICENSE*")), "the runtime's licence comes with it"
    assert (share / "extension" / "copymatch.control").is_file()


def test_the_server_does_not_run_as_root(server):
    assert pathlib.Path(f"/proc/{postmaster(server.data)}").stat().st_uid != 0


def test_the_server_opens_no_tcp_port(db):
    assert db.execute("SHOW listen_addresses").fetchone() == ("",)


def test_other_users_cannot_reach_the_socket_or_the_data(server):
    for folder in (pathlib.Path(server.socket), server.data):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder


def test_the_cluster_is_durable_and_checks_its_pages(db):
    for name, value in {
        "fsync": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "server_encoding": "UTF8",
    }.items():
        assert db.execute(f"SHOW {name}").fetchone() == (value,)


def test_starting_a_running_cluster_changes_nothing(server):
    before = postmaster(server.data)
    assert script("cluster.sh", "start", local=server.local).stdout == ""
    assert postmaster(server.data) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's folders can be closed to the server's user")
def test_a_private_folder_where_the_server_cannot_go_is_moved_and_linked(open_folder):
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    with second_cluster(closed / "local") as data:
        assert (closed / "local").is_symlink()
        assert data.is_relative_to("/var/tmp")


def test_a_path_too_long_for_a_socket_keeps_the_socket_elsewhere(open_folder):
    local = open_folder / "a folder" / ("deep" * 20) / "local"
    with second_cluster(local):
        dsn = script("cluster.sh", "dsn", local=local).stdout
        assert dsn.startswith("host=/tmp/copymatch-")
        with psycopg.connect(dsn.replace("dbname=copymatch", "dbname=postgres")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_killed_server_starts_again_over_its_stale_pid_file(open_folder):
    local = open_folder / "local"
    with second_cluster(local) as data:
        killed = postmaster(data)
        os.kill(killed, signal.SIGKILL)
        while pathlib.Path(f"/proc/{killed}/exe").exists():
            time.sleep(0.01)
        assert (data / "postmaster.pid").exists()
        assert script("cluster.sh", "status", local=local, check=False).returncode == 3
        script("cluster.sh", "start", local=local)
        assert postmaster(data) != killed
        script("cluster.sh", "stop", local=local)
        script("cluster.sh", "stop", local=local)


def test_clean_does_not_remove_a_folder_that_set_up_did_not_make(tmp_path):
    precious = tmp_path / "thesis.txt"
    precious.write_text("years of work")
    result = script("clean.sh", local=tmp_path, check=False)
    assert result.returncode != 0 and "not removing" in result.stdout
    assert precious.read_text() == "years of work"


def test_an_unknown_postgresql_version_is_refused_by_name():
    result = subprocess.run(
        [str(ROOT / "scripts" / "cluster.sh"), "status"],
        env=os.environ | {"PG_MAJOR": "12", "PG_CONFIG": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode != 0 and "PG_MAJOR is '12'" in result.stdout


def test_a_pg_config_tells_its_major_and_is_named_where_it_cannot_be(open_folder):
    """`make … PG_CONFIG=…` alone is enough; nothing is asked of Debian for a server that is there."""

    def packages(**environment):
        return subprocess.run(
            [str(ROOT / "scripts" / "packages.sh")],
            env=os.environ | {"PG_MAJOR": "", "PG_CONFIG": "", "PG_BINDINGS": ""} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    result = packages(PG_CONFIG="/nowhere/pg_config")
    assert result.returncode != 0 and "PG_CONFIG is '/nowhere/pg_config': there is no such program" in result.stdout
    made = open_folder / "bin" / "pg_config"
    made.parent.mkdir()
    made.write_text(
        "#!/bin/sh\ncase $1 in --version) echo PostgreSQL 18.4 ;; --bindir) dirname $0 ;; *) dirname $0/.. ;; esac\n"
    )
    made.chmod(0o755)
    result = packages(PG_CONFIG=str(made), PG_MAJOR="17")
    assert result.returncode != 0 and "is PostgreSQL 18's; leave PG_MAJOR=17 out" in result.stdout
    result = packages(PG_CONFIG=str(made))
    assert result.returncode != 0 and "has no server" in result.stdout
    (made.parent / "postgres").symlink_to("/bin/true")
    result = packages(PG_CONFIG=str(made))
    assert result.returncode != 0 and "has no C headers" in result.stdout
    result = packages(PG_CONFIG=str(made), PG_BINDINGS="pgrx")
    assert result.returncode == 0 and "postgresql-18" not in result.stdout


def copied_scripts(folder: pathlib.Path) -> pathlib.Path:
    """The scripts in a tree of their own, which they take for the clone."""
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "copymatch.control", folder)
    return folder / "scripts"


def test_a_build_is_told_of_the_wanted_major_alone(open_folder):
    """pgrx looks at every pg_config that its file names: one of a PostgreSQL that was removed would end the build."""
    scripts = copied_scripts(open_folder)
    program = open_folder / "bin" / "pg_config"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\ncase $1 in --version) echo PostgreSQL 18.4 ;; *) dirname $0 ;; esac\n")
    program.chmod(0o755)
    config = open_folder / "target" / "pgrx" / "18" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[configs]\npg13 = "/usr/lib/postgresql/13/bin/pg_config"\npg18 = "/nowhere/pg_config"\n')
    subprocess.run(
        [str(scripts / "build.sh"), "--configure"],
        env=os.environ | {"COPYMATCH_LOCAL": str(open_folder / "local"), "PG_MAJOR": "", "PG_CONFIG": str(program)},
        check=True,
        stdin=subprocess.DEVNULL,
    )
    assert config.read_text().splitlines() == ["[configs]", f'pg18 = "{program}"']


def test_a_target_folder_of_another_debian_is_compiled_anew(open_folder):
    scripts = copied_scripts(open_folder)
    pinned = re.search(r"^PGRX_VERSION=(\S+)", (scripts / "env.sh").read_text(), re.MULTILINE).group(1)
    program = open_folder / "bin" / "cargo-pgrx"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho cargo-pgrx {pinned}\n")
    program.chmod(0o755)
    target = open_folder / "target"
    kept = [target / "debug" / "old", target / "release" / "old"]
    for path in kept:
        path.parent.mkdir(parents=True)
        path.touch()
    environment = os.environ | {"CARGO_TARGET_DIR": str(target), "PATH": f"{program.parent}:{os.environ['PATH']}"}

    def tools() -> str:
        return subprocess.run(
            [str(scripts / "tools.sh")],
            env=environment,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout

    assert tools() == "" and all(path.exists() for path in kept)
    assert tools() == "" and all(path.exists() for path in kept)
    (target / ".built-on").write_text("debian 99\n")
    assert "was compiled on debian 99" in tools()
    assert not any(path.exists() for path in kept)
    assert tools() == ""


def test_the_extension_installs_into_any_schema(new_db, connect):
    connection = connect(new_db(extension=False))
    connection.execute("CREATE SCHEMA elsewhere")
    connection.execute("CREATE EXTENSION copymatch SCHEMA elsewhere")
    assert connection.execute("SELECT '[1,2]'::elsewhere.vector::text").fetchone() == ("[1,2]",)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_is_not_utf8_is_refused_by_name(server, connect, sqlstate, encoding):
    name = f"test_encoding_{os.getpid()}_1"
    with server.connect() as admin:
        admin.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        try:
            with server.connect(name) as connection, sqlstate("0A000") as error:
                connection.execute("CREATE EXTENSION copymatch")
            assert "UTF8" in str(error.value) and encoding in str(error.value)
            assert "ENCODING 'UTF8'" in error.value.diag.message_hint
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_a_type_that_is_there_already_is_named_with_the_way_round_it(new_db, connect, sqlstate, kind):
    """As pgvector has them, in the same schema."""
    connection = connect(new_db(extension=False))
    connection.execute(f"CREATE TYPE {kind} AS (x int)")
    with sqlstate("42710") as error:
        connection.execute("CREATE EXTENSION copymatch")
    assert f'schema public has a type "{kind}" already' in str(error.value)
    assert "CREATE EXTENSION copymatch SCHEMA" in error.value.diag.message_hint
    connection.execute("CREATE SCHEMA copies; CREATE EXTENSION copymatch SCHEMA copies")
    assert connection.execute("SELECT '[1,2]'::copies.vector::text").fetchone() == ("[1,2]",)


@pytest.mark.skipif(MAJOR != "14", reason="later majors have security_invoker")
def test_creating_the_extension_on_14_says_what_14_lacks(new_db, connect):
    connection, said = connect(new_db(extension=False)), []
    connection.add_notice_handler(lambda notice: said.append((notice.severity_nonlocalized, notice.message_primary)))
    connection.execute("CREATE EXTENSION copymatch")
    assert said == [("WARNING", "row-level security does not reach the views copymatch.report_* in PostgreSQL 14")]


def test_the_extension_drops_without_a_trace(new_db, connect):
    connection = connect(new_db(extension=False))
    objects = "SELECT (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_type), (SELECT count(*) FROM pg_class)"
    before = connection.execute(objects).fetchone()
    connection.execute("CREATE EXTENSION copymatch")
    assert connection.execute(objects).fetchone() != before
    connection.execute("DROP EXTENSION copymatch")
    assert connection.execute(objects).fetchone() == before


def wheel(path: pathlib.Path, *members: str) -> pathlib.Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, member)
    return path


def test_the_runtime_is_unpacked_under_the_name_the_extension_loads(tmp_path):
    source = wheel(
        tmp_path / "onnxruntime-9.9-x.whl",
        "onnxruntime/capi/libonnxruntime.so.9.9",
        "onnxruntime/capi/libonnxruntime_providers_shared.so",
        "onnxruntime/capi/onnxruntime_pybind11_state.so",
        "onnxruntime/LICENSE",
    )
    folder = tmp_path / "out"
    folder.mkdir()
    module("unpack_runtime").main([str(folder), str(source)])
    assert sorted(path.name for path in folder.iterdir()) == [
        "libonnxruntime.so",
        "libonnxruntime_providers_shared.so",
        "onnxruntime-LICENSE",
    ]
    assert (folder / "libonnxruntime.so").read_text() == "onnxruntime/capi/libonnxruntime.so.9.9"


def test_a_wheel_without_the_runtime_is_refused(tmp_path):
    source = wheel(tmp_path / "other-1.0-x.whl", "other/readme.txt")
    with pytest.raises(SystemExit, match="holds no shared library"):
        module("unpack_runtime").main([str(tmp_path), str(source)])
