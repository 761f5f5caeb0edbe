import random

import numpy as np
import pytest
from conftest import photograph

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
