import math
import random

import numpy as np
import pytest
from conftest import photograph
from PIL import Image, ImageOps

from copymatch_train import edits


def other():
    return photograph(99, 80, 110)


@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("name", sorted(edits.ALL))
def test_every_edit_gives_a_colour_picture_and_repeats_for_its_seed(name, strength):
    image = photograph(1)
    for seed in range(4):
        a = edits.ALL[name](image, random.Random(seed), strength, other)
        b = edits.ALL[name](photograph(1), random.Random(seed), strength, other)
        assert a.mode == "RGB" and min(a.size) >= 8
        assert np.array_equal(np.asarray(a), np.asarray(b))
    assert np.array_equal(np.asarray(image), np.asarray(photograph(1))), "the edit changed its input"


@pytest.mark.parametrize("name", sorted(edits.ALL))
def test_every_edit_changes_the_picture_at_full_strength(name):
    image = photograph(1)
    changed = [edits.ALL[name](image, random.Random(s), 1.0, other) for s in range(8)]
    assert any(c.size != image.size or not np.array_equal(np.asarray(c), np.asarray(image)) for c in changed)


def test_a_plan_is_one_strong_edit_and_one_to_three_more():
    for seed in range(200):
        names = edits.plan(random.Random(seed), 1.0)
        assert names[0] in edits.STRONG and 2 <= len(names) <= 4


def test_strength_shrinks_what_a_crop_keeps():
    image = photograph(2, 200, 200)

    def mean_area(strength):
        crops = [edits.crop(image, random.Random(s), strength, other) for s in range(100)]
        return np.mean([c.width * c.height for c in crops])

    assert mean_area(0.0) > 1.1 * mean_area(1.0)


def test_chains_of_edits_stay_within_bounds():
    for seed in range(100):
        out, done = edits.edited(photograph(seed, 260, 184), random.Random(seed), 1.0, other)
        assert 24 <= min(out.size) and max(out.size) <= 320 and done


def test_tinting_makes_a_grey_picture_coloured():
    grey = photograph(3).convert("L").convert("RGB")
    a = np.asarray(edits.tint(grey, random.Random(1)), int)
    assert np.abs(a[..., 0] - a[..., 2]).mean() > 3


def test_a_turned_picture_is_cut_to_the_largest_upright_rectangle_inside():
    for w, h in ((200, 100), (90, 160), (120, 120)):
        white = Image.new("RGB", (w, h), (255, 255, 255))
        for degrees in (0, 7, 30, 45, 80):
            turned = white.rotate(degrees, Image.NEAREST, expand=True, fillcolor=(0, 0, 0))
            a, b = edits._upright_inside(w, h, math.radians(degrees))
            assert a * b > 0.2 * w * h
            inside = turned.crop(
                (
                    int((turned.width - a) / 2) + 2,
                    int((turned.height - b) / 2) + 2,
                    int((turned.width + a) / 2) - 2,
                    int((turned.height + b) / 2) - 2,
                )
            )
            assert np.asarray(inside).min() == 255, (w, h, degrees)


def test_a_pasted_picture_may_hang_over_the_edge_but_shows():
    red, base = Image.new("RGB", (60, 60), (255, 0, 0)), Image.new("RGB", (100, 100))
    shown = []
    for seed in range(200):
        out = np.asarray(edits._laid_on(red, base, random.Random(seed), 0.5, overhang=0.4))
        assert out.shape == (100, 100, 3)
        shown.append((out[..., 0] == 255).sum())
    assert min(shown) >= 0.3 * 50 * 50 and max(shown) == 50 * 50 and min(shown) < 50 * 50


def test_a_screenshot_shows_the_whole_picture_smaller():
    image = Image.new("RGB", (200, 150), (255, 0, 255))
    shares = []
    for seed in range(60):
        out = np.asarray(edits.screenshot(image, random.Random(seed), 1.0, other), int)
        hit = (out == (255, 0, 255)).all(-1)
        shares.append(hit.mean())
    assert min(shares) > 0.03 and max(shares) < 0.95 and np.mean(shares) < 0.5


def test_hard_edits_are_drawn_more_often():
    first = [edits.plan(random.Random(s), 1.0)[0] for s in range(4000)]
    assert first.count("paste") > 1.5 * first.count("pad")


def _shown(name, seed, size=(230, 184)):
    """Where a result depends on the picture: (left, top, right, bottom) in 0…1, found by editing the picture
    and its negative alike."""
    image = photograph(5, *size)
    results = []
    for picture in (image, ImageOps.invert(image)):
        result, done, place = edits.edited_and_placed(picture, random.Random(seed), 1.0, other, [name])
        results.append(np.asarray(result, int))
    rows, columns = np.nonzero(np.abs(results[0] - results[1]).max(-1) > 24)
    h, w = results[0].shape[:2]
    return np.array(
        [columns.min() / w, rows.min() / h, (columns.max() + 1) / w, (rows.max() + 1) / h]
    ), edits.visible_box(place)


@pytest.mark.parametrize(
    "name",
    [
        "crop",
        "paste",
        "collage",
        "rotate",
        "vflip",
        "hflip",
        "perspective",
        "meme",
        "screenshot",
        "pad",
        "underlay",
        "emoji",
        "aspect",
    ],
)
def test_an_edit_says_where_it_leaves_the_picture(name):
    unseen = 0
    for seed in range(25):
        found, said = _shown(name, seed)
        if said is None:  # corners drawn so that the picture folds over itself
            unseen += 1
            continue
        # A pixel or two, and what covers an edge: a bar of the page, a foreign picture.
        assert np.abs(found - said).max() < (0.12 if name in ("screenshot", "underlay", "emoji") else 0.03), (
            seed,
            found,
            said,
        )
    assert unseen <= (2 if name == "perspective" else 0)


def test_a_flip_and_a_quarter_turn_say_which_way():
    image = Image.new("RGB", (90, 60))
    image.paste((255, 0, 0), (0, 0, 30, 20))
    seen = 0
    for seed in range(40):
        result, _, place = edits.edited_and_placed(image, random.Random(seed), 0.0, other, ["rotate", "hflip", "vflip"])
        x, y, w = place @ np.array([1 / 6, 1 / 6, 1])
        if 0 < x / w < 1 and 0 < y / w < 1:
            assert result.getpixel((int(x / w * result.width), int(y / w * result.height)))[0] > 200, seed
            seen += 1
    assert seen > 30


def test_what_is_not_seen_has_no_box():
    assert edits.visible_box(np.eye(3)) == (0, 0, 1, 1)
    assert edits.visible_box(edits._into(150, 0, 50, 100, (100, 100))) is None
    assert edits.visible_box(edits._into(50, 0, 100, 100, (100, 100))) == (0.5, 0, 1, 1)
