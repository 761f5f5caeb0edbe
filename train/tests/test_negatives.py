import numpy as np
import pytest
import torch
from torch.nn import functional as F

from copymatch_train import checkpoint
from copymatch_train.config import ConfigError, Network, from_dict
from copymatch_train.fill_negatives import drawn, negative_pictures
from copymatch_train.initialise import start_whole
from copymatch_train.negatives import NegativeSubtraction
from copymatch_train.network import CopyNetwork


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_subtraction_is_what_a_loop_over_the_negatives_computes():
    subtraction = NegativeSubtraction(7, 16, share=0.4, temperature=0.05)
    subtraction.fill(unit(7, 16, seed=1))
    d = unit(5, 16, seed=2)
    for row, got in zip(d, subtraction(d)):
        weights = np.array([np.exp(float(row @ n) / 0.05) for n in subtraction.negatives])
        mean = sum(w * n.numpy() for w, n in zip(weights / weights.sum(), subtraction.negatives))
        expected = row.numpy() - 0.4 * mean
        assert np.allclose(got.numpy(), expected / np.linalg.norm(expected), atol=1e-5)


def test_negatives_that_were_not_filled_subtract_nothing():
    d = unit(5, 16)
    assert torch.allclose(NegativeSubtraction(7, 16, 0.4, 0.05)(d), d, atol=1e-6)


def test_two_pictures_of_one_kind_become_less_alike_than_a_copy_and_its_original():
    """Descriptors of a kind share a direction; a copy shares more than that with its original."""
    kind, own = unit(64, seed=3), unit(40, 64, seed=4)
    pictures = F.normalize(kind + own, dim=1)
    copy = F.normalize(pictures[0] + 0.3 * unit(64, seed=5), dim=0)
    subtraction = NegativeSubtraction(38, 64, 0.4, 0.05)
    subtraction.fill(pictures[2:])
    before = [float(copy @ pictures[0]), float(pictures[1] @ pictures[0])]
    a, b, c = subtraction(torch.stack([pictures[0], pictures[1], copy]))
    after = [float(c @ a), float(b @ a)]
    assert after[0] - after[1] > before[0] - before[1] + 0.1


def test_negatives_are_kept_as_the_exported_file_holds_them():
    subtraction = NegativeSubtraction(3, 8, 0.4, 0.05)
    subtraction.fill(unit(3, 8) * 5)
    assert torch.equal(subtraction.negatives, subtraction.negatives.half().float())
    assert torch.allclose(subtraction.negatives.norm(dim=1), torch.ones(3), atol=1e-3)
    with pytest.raises(ValueError, match="negatives are"):
        subtraction.fill(unit(4, 8))


@pytest.mark.parametrize(
    "field, value",
    [
        ("negatives", -1),
        ("negatives", 70000),
        ("negative_share", 1.0),
        ("negative_share", -0.1),
        ("negative_temperature", 0.0),
    ],
)
def test_wrong_settings_are_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"network.{field}"):
        from_dict({"network": {field: value}})


def test_a_checkpoint_without_negatives_is_taken_and_training_ignores_them(tmp_path):
    plain = CopyNetwork(Network())
    torch.save(dict(network=plain.state_dict()), tmp_path / "plain.pt")
    config = from_dict({"network": {"negatives": 5}})
    network = CopyNetwork(config.network)
    network.negatives.fill(unit(5, 256))
    kept = network.negatives.negatives.clone()
    checkpoint.load_without_negatives(tmp_path / "plain.pt", network, config)
    assert torch.equal(network.negatives.negatives, kept)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    plain.eval(), network.eval()
    with torch.no_grad():
        assert torch.allclose(network.outputs(x).descriptor, plain(x), atol=1e-6)
        assert torch.allclose(network(x), network.negatives(plain(x)), atol=1e-6)
    assert config.fingerprint() == from_dict({}).fingerprint(), (
        "negatives come after training: its checkpoints still fit"
    )
    with pytest.raises(checkpoint.CheckpointError, match="another network"):
        other = from_dict({"network": {"negatives": 5, "dimensions": 128}})
        checkpoint.load_without_negatives(tmp_path / "plain.pt", CopyNetwork(other.network), other)


class Drawer:
    """Forty pictures of two sources, four of them held out."""

    sources = ["a"] * 10 + ["b"] * 30
    # The last ten of them are a store beside the training's own.
    own = 30

    def __len__(self):
        return 40

    def held_out(self, share):
        return np.arange(40) % 10 == 0

    def drawing_weights(self, indices, cap):
        return np.full(len(indices), 1 / len(indices))


def test_background_and_negatives_are_other_pictures_and_none_is_held_out():
    config = from_dict({"network": {"negatives": 12}})
    negatives = negative_pictures(Drawer(), config)
    assert max(negatives) < 30
    assert len(set(negatives)) == 12 and np.array_equal(negatives, negative_pictures(Drawer(), config))
    background = drawn(Drawer(), config, 24, seed=config.run.seed, without=negatives)
    assert sorted([*negatives, *background]) == [n for n in range(40) if n % 10]
    with pytest.raises(ValueError, match="24 training pictures are left"):
        drawn(Drawer(), config, 25, seed=0, without=negatives)


def test_negatives_of_the_stores_beside_come_after_those_of_the_own():
    config = from_dict({"network": {"negatives": 12, "negatives_beside": 5}, "data": {"beside": ["x"]}})
    own = negative_pictures(Drawer(), from_dict({"network": {"negatives": 12}}))
    both = negative_pictures(Drawer(), config)
    assert np.array_equal(both[:12], own) and len(set(both)) == 17 and min(both[12:]) >= 30
    assert CopyNetwork(config.network).negatives.negatives.shape == (17, 256)
    with pytest.raises(ConfigError, match="network.negatives_beside.*needs data.beside"):
        from_dict({"network": {"negatives": 12, "negatives_beside": 5}})
    with pytest.raises(ConfigError, match="network.negatives_beside.*needs network.negatives"):
        from_dict({"network": {"negatives_beside": 5}, "data": {"beside": ["x"]}})


def test_negatives_are_filled_from_an_exported_file_that_has_all_other_weights():
    config = from_dict({"network": {"negatives": 3, "second_look": 64, "gem_learnable": False}})
    trained, network = CopyNetwork(config.network), CopyNetwork(config.network)
    exported = {k: v + 1 for k, v in trained.state_dict().items() if k != "pool.p"} | {"val_3": torch.zeros(2)}
    start_whole(network, exported)
    for name, value in network.state_dict().items():
        assert torch.equal(
            value, torch.zeros(3, 256) if name.startswith("negatives.") else exported.get(name, torch.tensor(3.0))
        ), name
    del exported["locator.out.bias"]
    with pytest.raises(ValueError, match="lacks 1 .*locator.out.bias"):
        start_whole(network, exported)
