import numpy as np
import pytest
from conftest import photograph, write_shards

from copymatch_train import pictures
from copymatch_train.pictures import Pictures


def test_every_picture_is_stored_as_decoded(store):
    p = Pictures(store)
    assert len(p) == 80 and not p.skipped
    for i in (1, 42):
        assert np.array_equal(p[i], np.asarray(photograph(int(p.names[i][:6]))))


def test_grey_pictures_are_known(store):
    p = Pictures(store)
    assert [int(n[:6]) for n, g in zip(p.names, p.grey) if g] == list(range(0, 80, 10))


def test_a_corrupt_picture_is_skipped_counted_and_named(tmp_path):
    write_shards(tmp_path, 12, corrupt=True)
    p = pictures.build(tmp_path, tmp_path / "out")
    assert len(p) == 11 and len(p.skipped) == 1 and "000003.png" in p.skipped[0]


def test_a_corrupt_shard_is_skipped_and_named(tmp_path):
    write_shards(tmp_path, 5)
    (tmp_path / "train-1.tar").write_bytes(b"not a tar file" * 100)
    p = pictures.build(tmp_path, tmp_path / "out")
    assert len(p) == 5 and "train-1.tar" in p.skipped[0]


def test_a_picture_that_claims_too_many_pixels_is_refused_before_decoding(tmp_path):
    write_shards(tmp_path, 3)
    with pytest.raises(ValueError, match="no readable picture"):
        pictures.build(tmp_path, tmp_path / "out", max_pixels=100)


def test_the_held_out_split_is_about_the_stated_share_and_never_moves(store):
    p = Pictures(store)
    a = p.held_out(0.3)
    assert 0.1 < a.mean() < 0.5 and np.array_equal(a, Pictures(store).held_out(0.3))
    assert not (p.held_out(0.1) & ~a).any()


def test_a_large_source_is_capped_when_drawing(store):
    p = Pictures(store)
    sources = np.array(p.sources)
    w = p.drawing_weights(np.arange(80), cap=10)
    assert w.sum() == pytest.approx(1) and w[sources == "source/wide"].sum() == pytest.approx(0.5)


def test_a_missing_store_says_how_to_build_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="copymatch_train.pictures"):
        Pictures(tmp_path)
