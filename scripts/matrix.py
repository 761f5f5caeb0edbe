"""Every PostgreSQL that copymatch supports: set-up, all tests, demo, and pg_upgrade from each older one. Run by `make matrix`.

Usage: matrix.py MAJOR...

17 and 18 run as Debian 13 and unstable have them, each in a root of its own below /var/tmp/copymatch-matrix (bare-root.sh;
needs root; the first set-up takes about 20 minutes). 15 is this Debian's. 16 and 14 run here, as PyPI's and npm's packages
have them (fetch-server.sh). pg_upgrade runs here, too, between 15 and the packages of the others, since both servers must be
on one machine. ROOTS=no runs 17 and 18 from packages, too: no root, minutes instead of an hour, and no contrib extensions but 17's.
The rows of the majors that ran replace theirs in docs/majors.md; logs are in .local/matrix.
"""

import datetime
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCAL = pathlib.Path(os.environ.get("COPYMATCH_LOCAL") or ROOT / ".local").resolve()
PAGE = ROOT / "docs" / "majors.md"
ROOTS = pathlib.Path(os.environ.get("COPYMATCH_ROOTS") or "/var/tmp/copymatch-matrix")
#: The Debian that has a major.
SUITES = {} if os.environ.get("ROOTS") == "no" else {"17": "trixie", "18": "sid"}
BEGIN, END = "<!-- make matrix: begin -->\n", "<!-- make matrix: end -->\n"
HEADER = "| PostgreSQL | set-up | cargo tests | pytest | demo | pg_upgrade from | when, on |\n|---|---|---|---|---|---|---|\n"


def log(major: str, step: str) -> pathlib.Path:
    folder = LOCAL / "matrix"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{major}-{step}.log"


def run(major: str, step: str, command: list[str], **environment: str) -> tuple[bool, float, str]:
    """Runs a step; gives whether it went well, its seconds and what it said."""
    print(f"matrix: PostgreSQL {major}, {step}", flush=True)
    clean = {name: value for name, value in os.environ.items() if name not in ("PG_CONFIG", "PG_MAJOR", "PG_BINDINGS")}
    started = time.monotonic()
    with open(log(major, step), "w+") as output:
        status = subprocess.call(
            command, cwd=ROOT, env=clean | environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        output.seek(0)
        said = output.read()
    print(f"matrix:   {'done' if status == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s", flush=True)
    return status == 0, time.monotonic() - started, said


def server_environment(major: str) -> dict[str, str]:
    """What make needs to know of a major that runs on this machine itself."""
    if major == "15":
        return {"PG_MAJOR": "15"}
    fetch = str(ROOT / "scripts" / "fetch-server.sh")
    outputs = [
        subprocess.run([fetch, *arguments], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        for arguments in ([major], ["headers", major])
    ]
    pg_config, headers = (output.stdout.strip() for output in outputs)
    return {"PG_MAJOR": major, "PG_CONFIG": pg_config} | ({} if headers == "yes" else {"PG_BINDINGS": "pgrx"})


def counts(said: str, suite: str) -> str:
    """What run_tests.py counted, as it prints it."""
    found = re.findall(rf"^{suite}: (.*)$", said, re.MULTILINE)
    return found[-1] if found else "broke off"


def here(major: str) -> str:
    """Sets a major up on this machine, for its tests or for pg_upgrade's: the seconds that it took, or "failed"."""
    ready, seconds, _ = run(major, "setup-here", ["make", "setup"], **server_environment(major))
    return f"{seconds:.0f} s" if ready else "failed"


def root(major: str) -> list[str]:
    """Set-up, tests and demo in the root of the Debian that has the major: the row's first columns."""
    folder = ROOTS / major
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"BARE_SUITE": SUITES[major], "BARE_ROOT": str(folder), "BARE_KEEP": "1", "PG_MAJOR": major}
    environment["BARE_PACKAGES"] = f"postgresql-{major}-pgvector"
    command = [str(ROOT / "scripts" / "bare-root.sh")]
    ready, seconds, _ = run(major, "setup", [*command, "setup"], **environment)
    version = ["chroot", str(folder), f"/usr/lib/postgresql/{major}/bin/postgres", "--version"]
    return tested(major, f"{seconds:.0f} s" if ready else "failed", version, command, environment)


def tested(major: str, setup: str, version: list[str], command: list[str], environment: dict[str, str]) -> list[str]:
    """Tests and demo of a major that was set up, in the root or here."""
    if setup == "failed":
        return [major, setup, "", "", ""]
    named = subprocess.run(version, stdout=subprocess.PIPE, text=True).stdout.split()
    _, _, tests = run(major, "test", [*command, "test"], **environment)
    demo, _, said = run(major, "demo", [*command, "demo"], **environment)
    found = re.findall(r"Found (\d+ of \d+)", said)
    return [
        named[2] if len(named) > 2 else major,
        setup,
        counts(tests, "cargo"),
        counts(tests, "pytest"),
        (found[-1] if found else "passed") if demo else "failed",
    ]


def upgrades(major: str) -> str:
    """pg_upgrade to this major, from every one that the private folder has: which went well."""
    report = log(major, "pg_upgrade").with_suffix(".xml")
    report.unlink(missing_ok=True)
    _, _, _ = run(
        major, "pg_upgrade",
        [str(LOCAL / "venv" / "bin" / "python"), "-m", "pytest", "-q", "-ra", "tests/test_pg_upgrade.py", f"--junitxml={report}"],
        **server_environment(major), COPYMATCH_LOCAL=str(LOCAL),
    )  # fmt: skip
    if not report.exists():
        return "broke off"
    outcome: dict[str, list[str]] = {}
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        old = re.search(r"\[(\d+)", case.get("name", ""))
        bad = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        outcome.setdefault(old.group(1) if old else "?", []).append(bad[0] if bad else "passed")
    words = []
    for old, results in sorted(outcome.items()):
        if set(results) == {"skipped"}:
            continue
        failed = sum(result in ("failure", "error") for result in results)
        words.append(f"{old} ({failed} of {len(results)} failed)" if failed else old)
    return ", ".join(words) or "none"


def write(rows: dict[str, list[str]]) -> None:
    """Replaces the rows of these majors in the page."""
    text = PAGE.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    kept = {line.split("|")[1].strip().split(".")[0]: line for line in text[start:end].splitlines()[2:]}
    for major, row in rows.items():
        kept[major] = "| " + " | ".join(row) + " |"
    table = HEADER + "".join(f"{kept[major]}\n" for major in sorted(kept, key=int))
    PAGE.write_text(text[:start] + table + text[end:])


def main(majors: list[str]) -> int:
    unknown = [major for major in majors if major not in ("14", "15", "16", "17", "18")]
    if not majors or unknown:
        print(f"matrix: unknown majors {unknown}; 14 to 18", file=sys.stderr)
        return 2
    if os.geteuid() != 0 and set(majors) & set(SUITES):
        print("matrix: 17 and 18 run in roots of their own, which needs root, or ROOTS=no", file=sys.stderr)
        return 2
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    rows = {}

    def ran(major: str, columns: list[str], source: str) -> None:
        rows[major] = [*columns, "not run", f"{datetime.date.today()}, {source}, {commit.stdout.strip()}"]
        write(rows)

    for major in majors:
        if major in SUITES:
            ran(major, root(major), f"Debian {SUITES[major]}")
    # Every major here, before the first pg_upgrade: it starts from those that the private folder has. 15 first: 14's build
    # takes inline functions from its.
    for major in sorted({"15", *majors}, key=lambda major: (major != "15", int(major))):
        setup = here(major)
        if major in majors and major not in SUITES:
            version = [str(LOCAL / "pgsql" / "lib" / "postgresql" / major / "bin" / "postgres"), "--version"]
            source = "Debian 12" if major == "15" else "package"
            ran(major, tested(major, setup, version, ["make"], server_environment(major)), source)
    for major in majors:
        rows[major][5] = upgrades(major)
        write(rows)
    for major, row in rows.items():
        print(f"matrix: {major}: " + "; ".join(row))
    bad = [
        major
        for major, row in rows.items()
        if "failed" in re.sub(r"\b0 failed", "", " ".join(row)) or "broke" in " ".join(row)
    ]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
