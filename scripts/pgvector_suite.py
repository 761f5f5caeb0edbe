#!/usr/bin/env python3
"""pgvector's own TAP suite with `ivf` in the place of its indexes, on the private server's PostgreSQL:
pgvector_suite.py CHECKOUT [PART…]

CHECKOUT is a clone of pgvector; PART names files by a part of their name. Needs Perl's IPC::Run (Debian:
libipc-run-perl) and the server's Perl modules (Debian's package of headers). What is rewritten: the extension and the
access method; options of lists and graphs, and settings of either, go, so that every default is ivf's own. Files about
sparsevec and bit_jaccard_ops, which ivf has not, are left out. The last line of each file says how many of its checks
passed; docs/pgvector.md says which fail by design.
"""

import os
import pathlib
import pwd
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCAL = pathlib.Path(os.environ.get("COPYMATCH_LOCAL") or ROOT / ".local").resolve()
MAJOR = os.environ.get("PG_MAJOR", "15")
LEFT_OUT = re.compile(r"sparsevec|jaccard")
REWRITTEN = (
    (r"CREATE EXTENSION vector\b", "CREATE EXTENSION copymatch"),
    (r"USING (?:hnsw|ivfflat)\b", "USING ivf"),
    (r" WITH \((?:lists|m|ef_construction) = [^)]*\)", ""),
    (r"SET (?:hnsw|ivfflat)\.iterative_scan", "SET copymatch.iterative_scan"),
    (r"SET (?:hnsw|ivfflat)\.\w+ = [^;]+;", ""),
)
SECONDS = 600


def rewritten(text: str) -> str:
    for old, new in REWRITTEN:
        text = re.sub(old, new, text)
    return text


def run(path: pathlib.Path, folder: pathlib.Path) -> tuple[int, list[str]]:
    """How many checks passed, and what the others say."""
    copy = folder / path.name
    copy.write_text(rewritten(path.read_text()))
    folder.chmod(0o755)
    place = folder / path.stem
    place.mkdir()
    prefix = LOCAL / "pgsql" / "lib" / "postgresql" / MAJOR
    library = next(prefix.glob("lib/**/pgxs"))
    environment = {
        "PATH": f"{prefix / 'bin'}:{os.environ['PATH']}", "HOME": str(place), "TESTDIR": str(place),
        "TESTDATADIR": str(place / "data"),
        "TESTLOGDIR": str(place / "log"), "PG_REGRESS": str(library / "src/test/regress/pg_regress"),
        "PERL5LIB": f"{library / 'src/test/perl'}:{os.environ.get('PERL5LIB', '')}", "LANG": "C.UTF-8",
    }  # fmt: skip
    options = {}
    if os.geteuid() == 0:
        entry = pwd.getpwnam("postgres")
        options = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        shutil.chown(place, "postgres")
    try:
        done = subprocess.run(
            ["perl", str(copy)], cwd=place, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS, check=False, errors="replace", **options,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 0, [f"longer than {SECONDS} s"]
    passed = len(re.findall(r"^ok ", done.stdout, re.MULTILINE))
    failed = re.findall(r"^not ok (.*)$", done.stdout, re.MULTILINE)
    if done.returncode and not failed:
        failed = ["broke off: " + " / ".join(done.stdout.strip().splitlines()[-2:])[:300]]
    said = re.findall(r"^#\s+('.*'|\d\S*)$", done.stdout, re.MULTILINE)
    return passed, [f"{name} {' '.join(said[2 * at : 2 * at + 1])}".strip() for at, name in enumerate(failed)]


def main(checkout: str, *parts: str) -> int:
    whole, files = 0, 0
    with tempfile.TemporaryDirectory(prefix="pgvector-suite-") as name:
        folder = pathlib.Path(name)
        for path in sorted((pathlib.Path(checkout) / "test" / "t").glob("*.pl")):
            if parts and not any(part in path.name for part in parts) or LEFT_OUT.search(path.name + path.read_text()):
                continue
            passed, failed = run(path, folder)
            files += 1
            whole += not failed
            print(
                f"{path.stem}: {passed} passed, {len(failed)} failed" + "".join(f"\n    {one}" for one in failed[:8]),
                flush=True,
            )
            shutil.rmtree(folder / path.stem, ignore_errors=True)
    print(f"{whole} of {files} files whole")
    return whole < files


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
