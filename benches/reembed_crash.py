#!/usr/bin/env python3
"""The crash test of tests/test_reembed.py with twenty kills instead of three (`make bench-reembed_crash
ARGS="--rounds 100"`)."""

import argparse
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "tests/test_reembed.py",
        "-q",
        "-k",
        "killed",
        "--timeout=0",
        "--durations=0",
    ]
    sys.exit(subprocess.call(tests, cwd=ROOT, env=os.environ | {"COPYMATCH_CRASH_ROUNDS": str(rounds)}))


if __name__ == "__main__":
    main()
