"""The short form of `make attack`: every part for a few seconds."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.timeout(120)
def test_nothing_hostile_ends_a_session_or_meets_an_internal_error(server):
    environment = os.environ | {"COPYMATCH_DSN": server.dsn()}
    told = subprocess.run(
        [sys.executable, ROOT / "scripts" / "attack.py", "--seconds", "40", "--seed", "7"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-4000:] + told.stderr[-2000:]
