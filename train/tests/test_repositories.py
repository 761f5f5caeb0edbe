"""Pictures out of git directories, by a list."""

import io
import subprocess

import numpy as np
import pytest
from PIL import Image

from copymatch_train import repositories
from copymatch_train.pictures import Pictures


def png(seed, side=300, mode="RGB"):
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, len(mode)), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise, mode).resize((side * 2, side), Image.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def mirror(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    files = {
        "a/1.png": png(1),
        "a/again.png": png(1),
        "a/larger.png": png(1, 500),
        "b/2.PNG": png(2, mode="RGBA"),
        "b/tiny.png": png(3, 30),
        "b/broken.png": b"\x89PNG" * 3000,
    }
    for name, raw in files.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_bytes(raw)
    git = ["git", "-C", str(work), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "pictures"]):
        subprocess.run([*git, *command], check=True)
    folder = tmp_path / "mirror" / "some+one"
    folder.mkdir(parents=True)
    (work / ".git").rename(folder / "repo")
    return tmp_path / "mirror"


def test_every_picture_is_taken_once_and_what_is_none_is_named(mirror, tmp_path):
    source = repositories.Source("some/one", r"\.png$", "noise", "CC0", "training", smallest=100)
    absent = repositories.Source("no/where", r"\.png$", "noise", "CC0", "training")
    repositories.collect([source, absent], mirror, tmp_path / "out", 100)
    store = Pictures(tmp_path / "out")
    assert store.names == ["some/one/a/1.png", "some/one/b/2.PNG"] and set(store.sources) == {"some/one"}
    # 600 × 300, cut to 1.6 times its short side and made 100 pixels high.
    assert store[0].shape == (100, 160, 3)
    assert [line.split(":")[0] for line in store.skipped] == [
        "some/one/b/broken.png",
        "some/one/b/tiny.png",
        "no/where",
    ]


def test_a_source_is_for_one_use_and_the_shipped_list_obeys(tmp_path):
    with pytest.raises(ValueError, match="use is 'both'"):
        repositories.Source("some/one", "x", "y", "z", "both")
    row = "- {repository: a/b, paths: x, shows: y, licence: z, use: %s}\n"
    (tmp_path / "list.yaml").write_text(row % "training" + row % "validation")
    with pytest.raises(ValueError, match="named twice"):
        repositories.read(tmp_path / "list.yaml")
    import pathlib

    sources = repositories.read(pathlib.Path(__file__).parents[1] / "configs" / "tables" / "sources.yaml")
    assert {s.use for s in sources} == set(repositories.USES)
    forbidden = ("openstax/", "bsds", "coco", "kodak", "clic", "cid22", "corel", "dreambooth", "urban100", "houses")
    assert not [s.repository for s in sources for f in forbidden if f in s.repository.lower()]
