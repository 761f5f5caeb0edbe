#!/usr/bin/env python3
"""Eight sessions inserting while four search and one vacuums, for ten minutes (tests/test_ivf_life.py does it shorter);
then 850 damaged pages, as the same file damages 40 (`make bench-ivf_sessions ARGS="--seconds 60 --damages 85"`)."""

import argparse
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--damages", type=int, default=850)
    options = parser.parse_args()
    environment = {f"COPYMATCH_SESSIONS_{name.upper()}": str(value) for name, value in vars(options).items()}
    tests = [
        sys.executable,
        "-m",
        "pytest",
        "tests/test_ivf_life.py",
        "-q",
        "--durations=0",
        "-k",
        "same_time or damaged",
    ]
    sys.exit(subprocess.call(tests, cwd=ROOT, env=os.environ | environment))


if __name__ == "__main__":
    main()
