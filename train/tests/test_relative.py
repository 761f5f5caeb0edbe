import torch

from copymatch_train.relative import FLOOR, RelativeAdamW, row_size


def test_every_row_moves_by_the_rate_times_its_own_size():
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.randn(4, 3, 1, 1) * torch.tensor([0.01, 1.0, 100.0, 0.0])[:, None, None, None])
    bias = torch.nn.Parameter(torch.full((4,), 2.0))
    before, sizes = p.detach().clone(), row_size(p.detach())
    optimiser = RelativeAdamW([p, bias], lr=1e-3, weight_decay=0.0)
    p.grad, bias.grad = torch.randn_like(p), torch.randn_like(bias)
    optimiser.step()
    # Adam's first step is the rate in every element, whatever the gradient.
    assert torch.allclose((p.detach() - before).abs(), 1e-3 * sizes.expand_as(p), rtol=1e-3)
    assert torch.allclose((bias.detach() - 2).abs(), torch.full((4,), 2e-3), rtol=1e-3)
    # A silent row counts for a tenth of the whole.
    assert torch.isclose(sizes[3], FLOOR * before.square().mean().sqrt())


def test_scaling_a_row_scales_its_path():
    def path(scale):
        torch.manual_seed(1)
        p = torch.nn.Parameter(torch.randn(2, 5) * scale)
        optimiser = RelativeAdamW([p], lr=0.01, weight_decay=0.0)
        for step in range(5):
            p.grad = torch.randn(2, 5, generator=torch.Generator().manual_seed(step)) / scale
            optimiser.step()
        return p.detach() / scale

    assert torch.allclose(path(torch.tensor([[1.0], [1.0]])), path(torch.tensor([[3.0], [0.5]])), rtol=1e-3)


def test_a_parameter_without_a_gradient_stays():
    p, q = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimiser = RelativeAdamW([p, q], lr=0.1)
    p.grad = torch.ones(3)
    optimiser.step()
    assert torch.equal(q.detach(), torch.ones(3)) and not torch.equal(p.detach(), torch.ones(3))
