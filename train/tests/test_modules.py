import pytest
import torch
from torch.nn import functional as F

from copymatch_train.average import MovingAverage
from copymatch_train.classifier import PictureClassifier, classification
from copymatch_train.config import Network
from copymatch_train.memory import CrossBatchMemory
from copymatch_train.network import CopyNetwork
from copymatch_train.pooling import GeM
from copymatch_train.projector import LinearHead
from copymatch_train.trunks import MobileNetV2, ResNet50
from copymatch_train.waveblock import WaveBlock


def test_gem_at_one_is_average_and_at_large_p_nears_the_maximum():
    x = torch.rand(2, 3, 4, 5) + 0.1
    assert torch.allclose(GeM(1.0)(x), x.mean((2, 3)), atol=1e-6)
    assert torch.allclose(GeM(60.0)(x.double()), x.double().amax((2, 3)), rtol=0.06)


def test_gem_learns_p():
    pool = GeM(3.0)
    pool(torch.rand(2, 3, 4, 4)).sum().backward()
    assert pool.p.grad.abs() > 0
    assert not GeM(3.0, learnable=False).p.requires_grad


def test_waveblock_is_off_in_evaluation():
    x = torch.rand(2, 3, 10, 4)
    assert WaveBlock().eval()(x) is x


def test_waveblock_keeps_one_band_of_the_stated_height_and_scales_the_rest():
    torch.manual_seed(0)
    block, starts = WaveBlock(0.3, 1.5), set()
    for _ in range(60):
        gain = block(torch.ones(2, 3, 10, 4))
        assert torch.equal(gain, gain[:1, :1, :, :1].expand_as(gain))
        rows = gain[0, 0, :, 0]
        kept = torch.nonzero(rows == 1.0).flatten()
        assert len(kept) == 3 and int(kept[-1] - kept[0]) == 2
        assert int((rows == 1.5).sum()) == 7
        starts.add(int(kept[0]))
    assert starts == set(range(8))


def test_whitening_gives_zero_mean_and_equal_uncorrelated_variances_on_what_it_was_learned_from():
    g = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 12, generator=g) @ torch.randn(12, 12, generator=g) + 3
    head = LinearHead(12, 6)
    head.whiten(features, shrink=0.0)
    out = head(features)[1]
    out = out / out.std()
    assert torch.allclose(out.mean(0), torch.zeros(6), atol=1e-3)
    assert torch.allclose(out.T @ out / 4000, torch.eye(6), atol=1e-2)


@pytest.mark.parametrize("last_stride, cells", [(1, 4), (2, 2)])
def test_last_stride_sets_the_size_of_the_final_map(last_stride, cells):
    x = torch.zeros(1, 3, 64, 64)
    for trunk in (MobileNetV2(False, last_stride), ResNet50(last_stride).eval()):
        h = x
        for stage in trunk.stages:
            h = stage(h)
        assert h.shape == (1, trunk.channels, cells, cells)


def test_the_paper_s_head_has_a_wide_branch_and_a_unit_descriptor():
    net = CopyNetwork(
        Network(
            batch_norm=True, head="projector", projector_hidden=32, projector_wide=64, dimensions=16, waveblock=True
        )
    )
    out = net.outputs(torch.randn(4, 3, 64, 64))
    assert out.wide.shape == (4, 64) and out.feature.shape == (4, 1280)
    assert torch.allclose(out.descriptor.norm(dim=1), torch.ones(4), atol=1e-5)


def test_frozen_stages_get_no_gradient_and_the_rest_does():
    net = CopyNetwork(Network(frozen_stages=3))
    net(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is None for s in net.trunk.stages[:3] for p in s.parameters())
    assert all(p.grad is not None for s in net.trunk.stages[3:] for p in s.parameters())


def test_memory_overwrites_its_oldest_entries_first():
    memory = CrossBatchMemory(5, 2)
    memory.push(torch.arange(6.0).view(3, 2), torch.tensor([1, 2, 3]))
    assert memory.filled()[1].tolist() == [1, 2, 3]
    memory.push(torch.zeros(4, 2), torch.tensor([4, 5, 6, 7]))
    assert sorted(memory.filled()[1].tolist()) == [3, 4, 5, 6, 7]


def test_sampled_classes_hold_the_batch_s_own_and_score_like_the_full_classifier():
    torch.manual_seed(0)
    sampled, full = PictureClassifier(8, 100, 20), PictureClassifier(8, 100)
    full.load_state_dict(sampled.state_dict())
    x, labels = torch.randn(6, 8), torch.tensor([3, 3, 50, 50, 99, 99])
    chosen = sampled.choose(labels)
    assert set(labels.tolist()) <= set(chosen.tolist()) and len(chosen) <= 23
    assert torch.allclose(sampled.logits(x, chosen), full.logits(x, None)[:, chosen])
    direct = torch.nn.functional.cross_entropy(
        full.logits(x, None)[:, chosen], torch.tensor([chosen.tolist().index(v) for v in labels.tolist()])
    )
    assert torch.allclose(classification(sampled.logits(x, chosen), labels, chosen, 0.0), direct)


def test_moving_average_follows_at_its_decay():
    net = torch.nn.Linear(2, 2)
    average = MovingAverage(net, 0.9)
    average.updates = 10_000
    before = average.average.weight.clone()
    with torch.no_grad():
        net.weight.add_(1.0)
    average.update(net)
    assert torch.allclose(average.average.weight, before + 0.1, atol=1e-6)


def test_middle_levels_are_pooled_beside_the_last_map_without_changing_it():
    torch.manual_seed(0)
    plain = CopyNetwork(Network(trunk="mobilenet_v2", dimensions=8)).eval()
    network = CopyNetwork(Network(trunk="mobilenet_v2", dimensions=8, levels=[5, 3], expansions=[6])).eval()
    network.trunk.load_state_dict(plain.trunk.state_dict())
    x = torch.randn(2, 3, 64, 64)
    feature = network.features(x)
    assert network.widths == [2 * 32, 2 * 96, 576, 1280] and feature.shape == (2, sum(network.widths))
    third, fifth, expanded, last = feature.split(network.widths, 1)
    assert torch.allclose(last, plain.features(x), atol=1e-6)
    map_of = x
    for stage in network.trunk.stages[:6]:
        map_of = stage(map_of)
    assert torch.allclose(fifth, network.pool(torch.cat([map_of, -map_of], 1)), atol=1e-6)
    assert torch.allclose(expanded, network.pool(network.trunk.stages[6][0].layers[0](map_of)), atol=1e-6)
    assert network(x).shape == (2, 8)


def test_whitening_gives_every_block_its_share_whatever_its_scale():
    torch.manual_seed(1)
    head = LinearHead(12, 6)
    features = torch.randn(500, 12)
    head.whiten(features, widths=[4, 8])
    first = F.normalize(head(features)[1], dim=1)
    scaled = torch.cat([features[:, :4] * 1000, features[:, 4:]], 1)
    head.whiten(scaled, widths=[4, 8])
    assert torch.allclose(
        (first @ first.T), F.normalize(head(scaled)[1], dim=1) @ F.normalize(head(scaled)[1], dim=1).T, atol=1e-4
    )
