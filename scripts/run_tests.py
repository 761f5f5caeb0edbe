"""Runs the tests of the crates (cargo) and of the extension (pytest, against the private server) and adds them up.

Usage: run_tests.py [NAME]      only the tests whose name contains NAME
       run_tests.py FILE...     only these files below tests/, and no crate's
       run_tests.py --crates    only the crates'
       run_tests.py --fast      the crates' (but documentation and the model checker), and of tests/ the core

The last line is `N passed, M failed`. A suite that breaks off (code that does not compile, a test process that dies)
counts as one failure more, so that the exit status, the line and the truth agree.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
#: What breaks first when something does, in seconds: types, the index, copy_match, the catalogue, what a release is
#: made of.
CORE = [
    f"tests/test_{name}.py"
    for name in (
        "types_io",
        "types_sql",
        "types_functions",
        "ivf_sql",
        "ivf_search",
        "generated",
        "matching",
        "rights_catalogue",
        "release",
    )
]
#: Processes that run tests side by side, each with a server of its own: tests wait more than they compute.
WORKERS = int(os.environ.get("TEST_WORKERS") or len(os.sched_getaffinity(0)) + 1)
CARGO_TOTAL = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored")


class Totals:
    """Passed, failed and skipped tests of one suite or of all."""

    def __init__(self, passed: int = 0, failed: int = 0, skipped: int = 0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)


def run_cargo(name: str, fast: bool = False) -> Totals:
    """The pure crates' tests. The extension's own crate links only inside a server; pytest covers it there."""
    everything = ["--workspace", "--exclude", "copymatch", "--no-fail-fast"]
    if fast:
        return cargo_test([*everything, "--lib", "--bins", "--tests"], name)
    totals = cargo_test(everything, name)
    # The embedding service's slots under the model checker, which needs atomics of its own.
    totals += cargo_test(["--package", "service", "--features", "model-check", "--test", "model"], name)
    return totals


def cargo_test(arguments: list[str], name: str) -> Totals:
    """One run of cargo test."""
    command = ["cargo", "test", *arguments]
    if name:
        command += ["--", name]
    totals = Totals()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, errors="replace")
    for line in process.stdout:
        total = CARGO_TOTAL.match(line)
        if total:
            totals += Totals(*map(int, total.groups()))
            if total.group(1) != "0" or total.group(2) != "0":
                print(line, end="", flush=True)
        elif line.strip() and not re.match(r"^(running \d+ tests?$|test .* \.\.\. (ok|ignored))", line):
            print(line, end="", flush=True)
    if process.wait() != 0 and totals.failed == 0:
        print(f"cargo test broke off with exit status {process.returncode}")
        totals.failed += 1
    return totals


def run_pytest(name: str, files: list[str]) -> Totals:
    """The tests against a real server."""
    command = [sys.executable, "-m", "pytest", *(files or ["tests"]), "-q", "--tb=short", "-ra"]
    if name:
        command += ["-k", name]
    elif WORKERS > 1 and len(files) != 1:
        # A file's tests stay together: they share what its fixtures made.
        command += ["--numprocesses", str(min(WORKERS, len(files) or WORKERS)), "--dist", "loadfile"]
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        status = subprocess.call([*command, f"--junitxml={report.name}"], cwd=ROOT, stdin=subprocess.DEVNULL)
        if status == 5 and name:  # no test of that name here
            return Totals()
        totals = Totals()
        try:
            suites = xml.etree.ElementTree.parse(report.name).getroot().iter("testsuite")
        except xml.etree.ElementTree.ParseError:
            suites = []
        for suite in suites:
            tests, failed, errors, skipped = (
                int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")
            )
            totals += Totals(tests - failed - errors - skipped, failed + errors, skipped)
    if status != 0 and totals.failed == 0:
        print(f"pytest broke off with exit status {status}")
        totals.failed += 1
    return totals


def main(arguments: list[str]) -> int:
    files = arguments if all(re.match(r"tests/\w+\.py", name) for name in arguments) else []
    only_crates = arguments == ["--crates"]
    fast = arguments == ["--fast"]
    name = arguments[0] if arguments and not files and not only_crates and not fast else ""
    os.environ.setdefault("CARGO_TERM_PROGRESS_WHEN", "never")
    totals = Totals() if files else run_cargo(name, fast)
    if not files:
        print(f"cargo: {totals.passed} passed, {totals.failed} failed", flush=True)
    if not only_crates:
        python = run_pytest(name, CORE if fast else files)
        print(f"pytest: {python.passed} passed, {python.failed} failed, {python.skipped} skipped", flush=True)
        totals += python
    if totals.passed + totals.failed == 0:
        print(f"no test has '{name}' in its name" if name else "no test ran")
        totals.failed += 1
    if totals.skipped:
        print(f"{totals.skipped} skipped")
    print(f"{totals.passed} passed, {totals.failed} failed", flush=True)
    return 1 if totals.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
