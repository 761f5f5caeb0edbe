"""What the tests that hold the imaging crate against Pillow share: the crate's `pixels` example,
run over many files at once.

No server is needed.
"""

import functools
import io
import os
import pathlib
import subprocess

import numpy as np
import pytest

try:
    from PIL import Image
except ImportError as missing:  # a test that cannot run must not pass
    raise RuntimeError(
        "the parity tests need Pillow: run them through `make test`, whose environment has it"
    ) from missing

ROOT = pathlib.Path(__file__).resolve().parent.parent


@functools.cache
def program() -> str:
    """Builds the example; gives its path."""
    # Packages and profile as in `make test`, which has built the example already: nothing is compiled twice.
    command = ["cargo", "build", "--quiet", "--profile", "test", "--workspace", "--exclude", "copymatch", "--examples"]
    subprocess.run(command, cwd=ROOT, check=True)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return str(target / "debug" / "examples" / "pixels")


@pytest.fixture
def run(tmp_path):
    """run([(bytes, min_side, size, filter), …]) -> an array per job, or the error text."""

    def run(jobs):
        lines = []
        for number, (data, min_side, size, name) in enumerate(jobs):
            source, target = tmp_path / f"{number}.in", tmp_path / f"{number}.ppm"
            source.write_bytes(data)
            width, height = size or ("-", "-")
            lines.append(f"{source}\t{target}\t{min_side or '-'}\t{width}\t{height}\t{name or '-'}\n")
        result = subprocess.run([program()], input="".join(lines), capture_output=True, text=True, check=True)
        answers = result.stdout.splitlines()
        assert len(answers) == len(jobs)
        return [
            np.asarray(Image.open(tmp_path / f"{number}.ppm")) if answer.startswith("ok") else answer
            for number, answer in enumerate(answers)
        ]

    return run


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def difference(ours, theirs) -> np.ndarray:
    theirs = np.asarray(theirs)
    assert not isinstance(ours, str), ours
    assert ours.shape == theirs.shape
    return np.abs(ours.astype(int) - theirs.astype(int))
