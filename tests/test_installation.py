"""What belongs to the extension is found beside its library, wherever PostgreSQL loads that from: an image
volume, a folder of its own."""

import pathlib
import shutil
import tempfile

import psycopg
import pytest
from conftest import LOCAL, MAJOR
from pictures import png, scene


@pytest.fixture
def volume(server):
    """The extension's files in a folder of their own, as an image volume has them: lib and share."""
    with tempfile.TemporaryDirectory(dir=LOCAL, prefix="volume-") as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        library, share = (
            pathlib.Path(server.run("pg_config", option).stdout.strip()) for option in ("--pkglibdir", "--sharedir")
        )
        (folder / "lib").mkdir()
        shutil.copy(library / "copymatch.so", folder / "lib")
        shutil.copytree(library / "copymatch", folder / "lib" / "copymatch")
        (folder / "share" / "extension").mkdir(parents=True)
        for path in (share / "extension").glob("copymatch*"):
            shutil.copy(path, folder / "share" / "extension")
        yield folder


def files_of(process: int, name: str) -> set[pathlib.Path]:
    """The files of this name that a process has mapped."""
    lines = pathlib.Path(f"/proc/{process}/maps").read_text().splitlines()
    return {pathlib.Path(line.split(maxsplit=5)[5]) for line in lines if line.endswith(f"/{name}")}


def test_onnx_runtime_is_found_beside_a_library_outside_of_postgresqls_directory(volume, fresh_cluster):
    cluster = fresh_cluster(dynamic_library_path=f"{volume}/lib:$libdir", fsync="off")
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        db.execute("SELECT copy_embed(%s)", [png(scene(1))])
        assert db.execute("SELECT library FROM copy_runtime()").fetchone() == (
            f"{volume}/lib/copymatch/libonnxruntime.so",
        )
        for name, path in {
            "copymatch.so": volume / "lib" / "copymatch.so",
            "libonnxruntime.so": volume / "lib" / "copymatch" / "libonnxruntime.so",
        }.items():
            assert files_of(db.info.backend_pid, name) == {path}


def test_a_runtime_that_is_not_beside_the_library_is_missed_where_it_should_be(volume, fresh_cluster):
    """PostgreSQL's own directory has one, which belongs to another copy of the library."""
    shutil.rmtree(volume / "lib" / "copymatch")
    cluster = fresh_cluster(dynamic_library_path=f"{volume}/lib:$libdir", fsync="off")
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        with pytest.raises(psycopg.Error) as error:
            db.execute("SELECT copy_embed(%s)", [png(scene(1))])
        assert f"{volume}/lib/copymatch/libonnxruntime.so" in str(error.value)


def test_the_preloaded_service_runs_the_program_beside_the_library(volume, fresh_cluster):
    cluster = fresh_cluster(
        dynamic_library_path=f"{volume}/lib:$libdir", shared_preload_libraries="copymatch", fsync="off"
    )
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        db.execute("SELECT copy_embed(%s)", [png(scene(1))])
        path, process = db.execute("SELECT path, process FROM copymatch.service").fetchone()
        assert path == "service"
        assert pathlib.Path(f"/proc/{process}/exe").readlink() == volume / "lib" / "copymatch" / "copymatch-encoder"
        assert files_of(process, "libonnxruntime.so") == {volume / "lib" / "copymatch" / "libonnxruntime.so"}


@pytest.mark.skipif(int(MAJOR) < 18, reason="extension_control_path is new in 18")
def test_an_image_volume_serves_the_whole_extension(volume, fresh_cluster):
    """As CloudNativePG mounts one: control file, scripts, library and runtime, none of them in PostgreSQL's folders."""
    control = volume / "share" / "extension" / "copymatch.control"
    control.write_text(control.read_text().replace("comment = '", "comment = 'of the volume: ", 1))
    cluster = fresh_cluster(
        extension_control_path=f"{volume}/share:$system", dynamic_library_path=f"{volume}/lib:$libdir", fsync="off"
    )
    with cluster.connect() as db:
        db.execute("CREATE EXTENSION copymatch")
        comment = "SELECT comment FROM pg_available_extensions WHERE name = 'copymatch'"
        assert db.execute(comment).fetchone()[0].startswith("of the volume: ")
        db.execute("CREATE TABLE pictures (id int PRIMARY KEY, image bytea)")
        db.execute("INSERT INTO pictures VALUES (1, %s)", [png(scene(1))])
        db.execute("SELECT copy_create_set('volume', 'pictures', key => 'id', image => 'image')")
        found = db.execute("SELECT reference FROM copy_match(%s, 'volume')", [png(scene(1))]).fetchall()
        assert [str(key) for (key,) in found] == ["1"]
        assert files_of(db.info.backend_pid, "libonnxruntime.so") == {
            volume / "lib" / "copymatch" / "libonnxruntime.so"
        }
