import torch
from torch.nn import functional as F

from copymatch_train.blend import blended


def test_the_blend_of_two_heads_has_nearly_the_mean_of_their_similarities():
    generator = torch.Generator().manual_seed(1)
    first, second = torch.nn.Linear(12, 8), torch.nn.Linear(12, 8)
    for head in (first, second):
        head.weight.data = torch.randn(8, 12, generator=generator)
        head.bias.data.zero_()
    # Features in 4 directions: what either head gives fits into 8 dimensions, so nothing is lost.
    x = torch.randn(500, 4, generator=generator) @ torch.randn(4, 12, generator=generator)
    weight, bias = blended(first, second, x, evenness=0.0)
    assert weight.shape == first.weight.shape and bias.shape == first.bias.shape
    pairs = [head(x) / head(x).norm(dim=1).mean() for head in (first, second)]
    both = F.normalize(torch.cat(pairs, 1), dim=1)
    d = F.normalize(x @ weight.T + bias, dim=1)
    assert torch.allclose(d @ d.T, both @ both.T, atol=1e-3)
    # The size of one head does not decide its share.
    second.weight.data *= 100
    again, _ = blended(first, second, x, evenness=0.0)
    d2 = F.normalize(x @ again.T, dim=1)
    assert torch.allclose(d @ d.T, d2 @ d2.T, atol=1e-3)
