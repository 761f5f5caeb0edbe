"""A small picture store made by the tests: no third-party picture is needed."""

import csv
import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from copymatch_train import pictures

torch.set_num_threads(1)


def photograph(seed: int, width: int = 96, height: int = 72) -> Image.Image:
    """Smooth random colours with a few shapes: enough texture to tell pictures apart."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.BICUBIC)


def write_shards(folder, count: int, corrupt: bool = False) -> None:
    with open(folder / "train.csv", "w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["name", "width", "height", "repository", "path"])
        rows.writerows(
            [f"{i:06d}.png", 96, 72, f"source/{'wide' if i % 4 else 'narrow'}", f"{i}.png"] for i in range(count)
        )
    with tarfile.open(folder / "train-0.tar", "w") as tar:
        for i in range(count):
            buffer = io.BytesIO()
            picture = photograph(i)
            (picture.convert("L") if i % 10 == 0 else picture).save(buffer, "PNG")
            raw = buffer.getvalue()
            if corrupt and i == 3:
                raw = raw[:100]
            info = tarfile.TarInfo(f"{i:06d}.png")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    shards, out = tmp_path_factory.mktemp("shards"), tmp_path_factory.mktemp("store")
    write_shards(shards, 80)
    pictures.build(shards, out)
    return out
