"""Drawn pictures: many different ones of a kind, a function of (seed, kind, number)."""

import sys

import numpy as np
import pytest

from copymatch_train import drawn
from copymatch_train.pictures import Pictures

ALL = [*drawn.KINDS, *drawn.KEPT]


@pytest.mark.parametrize("kind", ALL)
def test_a_picture_is_a_function_of_seed_kind_and_number(kind):
    image = drawn.drawn(kind, 5, seed=3)
    assert np.array_equal(image, drawn.drawn(kind, 5, seed=3))
    assert image.mode == "RGB" and min(image.size) >= 150
    for other in (drawn.drawn(kind, 5, seed=4), drawn.drawn(kind, 5 + drawn.RUN, seed=3)):
        assert image.size != other.size or not np.array_equal(image, other)


def test_pictures_in_a_row_look_alike_and_differ():
    """In a run: the same kind of page with other things on it. No two are equal; over all kinds a run is nearer to
    itself than to other runs."""

    def small(kind, number):
        return np.asarray(drawn.drawn(kind, number, seed=8).resize((24, 24)), np.float32).ravel()

    within, across = [], []
    for kind in ALL:
        runs = [[small(kind, r * drawn.RUN + k) for k in range(3)] for r in range(4)]
        same = [np.abs(run[i] - run[j]).mean() for run in runs for i in range(3) for j in range(i)]
        assert min(same) > 0.5, kind
        within.append(np.mean(same))
        across.append(np.mean([np.abs(a[0] - b[0]).mean() for i, a in enumerate(runs) for b in runs[:i]]))
    assert np.mean(within) < 0.6 * np.mean(across), (within, across)


def test_the_kinds_kept_for_validation_are_none_of_the_training(tmp_path, monkeypatch):
    assert not set(drawn.KINDS) & set(drawn.KEPT) and len(drawn.KINDS) >= 9 and len(drawn.KEPT) >= 3
    for flags, kinds in (([], drawn.KINDS), (["--kept"], drawn.KEPT)):
        out = tmp_path / str(len(flags))
        monkeypatch.setattr(sys, "argv", ["drawn", str(out), "--each", "2", *flags])
        drawn.main()
        store = Pictures(out)
        assert set(store.sources) == {f"drawn/{kind}" for kind in kinds} and len(store) == 2 * len(kinds)
    both = Pictures(tmp_path / "0", tmp_path / "1")
    assert len(both) == 2 * len(ALL) and np.array_equal(both[len(both) - 1], store[len(store) - 1])
